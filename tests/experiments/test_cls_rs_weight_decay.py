"""Weight decay against other regularisers: what the arms are made of, what the table says, and a run."""

import dataclasses
import itertools

import pandas as pd
import pytest

from experiments.cls_rs_weight_decay import LAPTOP, Flags, arms_of, regularised_recipes, run, weight_decay_table
from experiments.study.flags import parse
from experiments.tasks.resnet_rs import finished
from lightning_modules.classification.recipes import CLASSIFICATION_RECIPES

PAPER = CLASSIFICATION_RECIPES["resnet-rs-200-256"]


def flags(line: str = "") -> Flags:
    return parse(Flags, "", line.split())


def changes(one, other) -> set[str]:
    """Names of the fields that differ."""
    return {f.name for f in dataclasses.fields(one) if getattr(one, f.name) != getattr(other, f.name)}


def test_regularisers_join_one_by_one():
    rows = regularised_recipes(PAPER)
    parts = [{"label_smoothing"}, {"randaugment"}, {"dropout"}, {"stochastic_depth"}]
    assert [changes(a[1], b[1]) for a, b in itertools.pairwise(rows)] == parts
    assert rows[-1][1] == PAPER and rows[0][0] == "none"
    assert len(regularised_recipes(CLASSIFICATION_RECIPES["resnet-rs-50-160"])) == 4  # which has no stochastic depth


def test_the_gain_of_less_weight_decay_is_of_the_lowest_over_the_highest():
    rows = [
        {"regularisers": "none", "weight decay": decay, "seed": 0, "part": "clean", "measure": "top1", "value": value}
        for decay, value in (("0.0005", 0.7), ("0.0002", 0.6), ("1e-05", 0.65))
    ]
    ((_, cells),) = weight_decay_table(pd.DataFrame(rows)).rows()
    assert [text for text, _ in cells] == ["1", "70.0", "60.0", "65.0", "-5.0"]


def test_every_set_of_regularisers_meets_every_weight_decay_the_highest_first():
    arms = arms_of(flags("--data imagenet"), PAPER)
    assert len(arms) == 10 and list(arms)[:3] == ["none-wd0.0001", "none-wd4e-05", "+label-smoothing-wd0.0001"]
    assert [arm.recipe.weight_decay for arm in arms.values()][:2] == pytest.approx([1e-4, 4e-5])
    arms = arms_of(flags("--weight-decays 0.001 0.1 0.001"), PAPER)
    assert list(arms)[:2] == ["none-wd0.1", "none-wd0.001"]


def test_a_backbone_that_is_named_is_the_one_that_trains():
    recipe = finished(flags("--backbone resnet18"), "resnet-rs-200-256", LAPTOP)
    assert recipe.backbone == "resnet18" and "averaged_shortcut" not in recipe.architecture


def test_a_smoke_run_ends_in_a_table(tmp_path):
    line = f"--width 0.125 --max-steps 1 --smoke --workers 0 --wandb disabled --out {tmp_path / 'run'}"
    results = run(flags(line))
    assert (results["measure"] == "top1").sum() == 10
    assert (tmp_path / "run" / "table.md").exists() and (tmp_path / "run" / "report.html").exists()
