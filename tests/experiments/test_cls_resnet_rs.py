"""ResNet-RS's additive study: what each step changes, what the networks are built of, and how gains are added up."""

import dataclasses
import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from experiments.cls_resnet_rs import (
    LAPTOP,
    STEPS,
    Flags,
    additive_recipes,
    additive_scores,
    additive_table,
    run,
    verdict,
)
from experiments.study.flags import parse
from experiments.tasks.classification import build
from experiments.tasks.classification_domains import Opened
from experiments.tasks.resnet_rs import arm_of, finished
from lightning_modules.classification.recipes import CLASSIFICATION_RECIPES, RESNET_RS_TABLE

PAPER = CLASSIFICATION_RECIPES["resnet-rs-200-256"]


def flags(line: str = "") -> Flags:
    return parse(Flags, "", line.split())


def changes(one, other) -> set[str]:
    """Names of the fields that differ."""
    return {f.name for f in dataclasses.fields(one) if getattr(one, f.name) != getattr(other, f.name)}


def test_every_step_changes_its_own_part_and_keeps_those_before():
    rows = additive_recipes(PAPER)
    parts = [
        {"schedule", "milestones"}, {"epochs"}, {"ema_decay"}, {"label_smoothing"}, {"stochastic_depth"},
        {"randaugment"}, {"dropout"}, {"weight_decay"}, {"architecture"}, {"architecture"},
    ]  # fmt: skip
    assert [changes(a[3], b[3]) for a, b in itertools.pairwise(rows)] == parts
    assert [row[0] for row in rows] == ["baseline", *(step.label for step in STEPS)]
    assert rows[-1][3] == PAPER  # at the end stands the published recipe


def test_the_baseline_is_the_usual_training_of_a_plain_resnet():
    baseline = additive_recipes(PAPER)[0][3]
    assert baseline.epochs == pytest.approx(90) and baseline.milestones == pytest.approx((30, 60, 80))
    assert baseline.weight_decay == pytest.approx(1e-4) and baseline.schedule == "step"
    assert (baseline.label_smoothing, baseline.dropout, baseline.stochastic_depth) == (0, 0, 0)
    assert baseline.randaugment is None and baseline.ema_decay is None


def test_the_papers_gains_add_up_to_what_its_text_says():
    tops = [79.0, *(step.paper for step in STEPS)]
    gains = dict.fromkeys(("training", "regularisation", "architecture"), 0.0)
    for step, (before, after) in zip(STEPS, itertools.pairwise(tops), strict=True):
        gains[step.kind] += after - before
    assert gains["training"] + gains["regularisation"] == pytest.approx(3.2)
    assert gains["architecture"] == pytest.approx(1.2)
    assert tops[-1] == RESNET_RS_TABLE[200, 256][-1]


def test_a_step_with_nothing_to_add_is_left_out():
    labels = [row[0] for row in additive_recipes(CLASSIFICATION_RECIPES["resnet-rs-50-160"])]
    assert "+ stochastic depth" not in labels and len(labels) == len(STEPS)


def additive_networks(line: str) -> dict[str, nn.Module]:
    """The network of every row, each of which takes images."""
    chosen = flags(line)
    opened = Opened(chosen)
    networks = {
        label: build(chosen, arm_of(chosen, recipe, {}), opened).net
        for label, _, _, recipe in additive_recipes(finished(chosen, "resnet-rs-200-256", LAPTOP))
    }
    assert all(network(torch.zeros(2, 3, 32, 32)).shape == (2, 10) for network in networks.values())
    return networks


def test_a_resnet_rs_of_the_additive_study_is_what_its_rows_name_say():
    parts = {
        label: (
            network.layer1[0].se is not None,
            isinstance(network.layer2[0].downsample[0], nn.AvgPool2d),
            isinstance(network.conv1, nn.Sequential),
            isinstance(network.maxpool, nn.MaxPool2d),
        )
        for label, network in additive_networks("--backbone resnetrs26 --width 0.125 --images 20").items()
    }
    assert parts.pop("+ ResNet-D") == (True, True, True, False)
    assert parts.pop("+ SE") == (True, False, True, True)  # a narrow network keeps its deep stem
    assert set(parts.values()) == {(False, False, True, True)} and len(parts) == 9


def test_on_a_laptop_the_additive_study_ends_in_a_small_network_with_both_parts():
    parts = {}
    for label, network in additive_networks("--images 20").items():
        assert [len(stage) for stage in (network.layer1, network.layer2, network.layer3)] == [1, 1, 1]
        shortcut = network.layer2[0].downsample
        projected = any(isinstance(module, nn.Conv2d) for module in shortcut)
        assert isinstance(shortcut[0], nn.AvgPool2d) and shortcut[0].kernel_size == (2 if projected else 1)
        parts[label] = network.layer1[0].se is not None, projected
    assert parts.pop("+ ResNet-D") == (True, True)
    assert parts.pop("+ SE") == (True, False)
    assert set(parts.values()) == {(False, False)} and len(parts) == 9


def test_a_backbone_that_is_named_is_the_one_that_trains():
    recipe = finished(flags("--backbone resnetrs50"), "resnet-rs-200-256", LAPTOP)
    assert recipe.backbone == "resnetrs50" and "averaged_shortcut" not in recipe.architecture


def additive_results(top1: dict[tuple[str, int], float]) -> pd.DataFrame:
    """Tidy results of a baseline and one step of each kind."""
    kinds = {"baseline": "baseline", "a": "training", "b": "regularisation", "c": "architecture", "d": "architecture"}
    papers = {"baseline": 79.0, "a": 79.3, "b": 82.2, "c": 82.9, "d": 83.4}
    rows = [
        {"arm": row, "row": row, "kind": kinds[row], "paper": papers[row], "seed": seed, "part": "clean"} | measured
        for (row, seed), value in top1.items()
        for measured in ({"measure": "top1", "value": value}, {"measure": "loss", "value": 1.0})
    ]
    return pd.DataFrame(rows)


def test_gains_and_their_sums_by_kind_are_those_worked_by_hand():
    seeds = {0: (0.50, 0.52, 0.58, 0.57, 0.60), 1: (0.40, 0.46, 0.50, 0.53, 0.52)}
    rows = ("baseline", "a", "b", "c", "d")
    results = additive_results(
        {(row, seed): value for seed, values in seeds.items() for row, value in zip(rows, values, strict=True)}
    )
    gains = additive_scores(results)["gain"].unstack("seed")
    by_hand = {
        "a": (2, 6), "b": (6, 4), "c": (-1, 3), "d": (3, -1), "training + regularisation": (8, 10),
        "of which training": (2, 6), "of which regularisation": (6, 4), "architecture": (2, 2),
    }  # fmt: skip
    for row, expected in by_hand.items():
        np.testing.assert_allclose(gains.loc[row], expected, atol=1e-9)
    assert gains.loc["baseline"].isna().all()
    assert verdict(results) == "training and regularisation: +9.0 points; architecture: +2.0 points"
    table = additive_table(results)
    cells = {name: [text for text, _ in row] for name, row in table.rows()}
    assert list(cells)[:5] == ["baseline", "a", "b", "c", "d"]
    assert cells["architecture"] == ["2", "–", "2.0", "1.2"]
    assert cells["training + regularisation"][2:] == ["9.0 ± 1.4", "3.2"]
    assert cells["d"][1] == "56.0 ± 5.7"


def test_a_sum_over_a_step_that_is_missing_is_not_given():
    results = additive_results(
        {("baseline", 0): 0.5, ("a", 0): 0.52, ("b", 0): 0.5, ("baseline", 1): 0.4, ("b", 1): 0.5}
    )
    gains = additive_scores(results)["gain"].unstack("seed")
    assert gains.loc["training + regularisation", 0] == pytest.approx(0)
    assert np.isnan(gains.loc["training + regularisation", 1]) and "architecture" not in gains.index


def test_a_smoke_run_ends_in_a_table_and_a_sentence(tmp_path, capsys):
    line = f"--width 0.125 --epochs 1 --smoke --workers 0 --wandb disabled --out {tmp_path / 'run'}"
    results = run(flags(line))
    assert (results["measure"] == "top1").sum() == 1 + len(STEPS)
    assert (tmp_path / "run" / "table.md").exists() and (tmp_path / "run" / "report.html").exists()
    assert "training and regularisation: " in capsys.readouterr().out
