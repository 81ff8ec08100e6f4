"""ResNet-RS's studies: what their arms are made of, what is picked, what the tables say, and each once, tiny."""

import dataclasses
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from datamodules.image_domains import ImageDomain
from experiments import cls_resnet_rs, latency
from experiments.cls_resnet_rs import EFFICIENTNETS, Flags, efficientnet_arms, finished, grid_candidates, run
from experiments.failures import write_failure
from experiments.flags import UsageError, one_sentence, parse
from experiments.minival import Minival, divided, picked, score
from experiments.resnet_rs_steps import (
    STEPS,
    additive_recipes,
    additive_scores,
    additive_table,
    regularised_recipes,
    verdict,
    weight_decay_table,
)
from experiments.tasks.classification import Arm, Opened, build
from lightning_modules.classification_recipes import CLASSIFICATION_RECIPES, RESNET_RS_TABLE
from lightning_modules.finite_training import NotFiniteError

SCRIPT = Path(cls_resnet_rs.__file__)
PAPER = CLASSIFICATION_RECIPES["resnet-rs-200-256"]
TINY = "--smoke --workers 0 --wandb disabled"


def flags(line: str = "") -> Flags:
    return parse(Flags, "", line.split())


def changes(one, other) -> set[str]:
    """Names of the fields that differ."""
    return {f.name for f in dataclasses.fields(one) if getattr(one, f.name) != getattr(other, f.name)}


class Images:
    """So many images of two classes, each of its own number."""

    classes = ("a", "b")

    def __init__(self, count: int):
        self.labels = np.arange(count) % 2

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int):
        return np.full((8, 8, 3), index % 256, np.uint8), int(self.labels[index])


# The additive study


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
        label: build(chosen, Arm(recipe=recipe, norm="bn", train="shapes", judged=("shapes",), columns={}), opened).net
        for label, _, _, recipe in additive_recipes(finished(chosen))
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
    for line in ("--backbone resnetrs50", "--study weight-decay --backbone resnet18"):
        recipe = finished(flags(line))
        assert recipe.backbone == line.split()[-1] and "averaged_shortcut" not in recipe.architecture


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


# Weight decay


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


# The grid, and what is picked for it


@pytest.mark.parametrize(("count", "held"), [(1_281_167, 25_623), (1000, 20), (49, 1), (3, 1)])
def test_the_minival_is_two_percent_and_nothing_is_on_both_sides(count, held):
    out, rest = divided(count)
    assert len(out) == held and len(out) + len(rest) == count
    np.testing.assert_array_equal(np.sort(np.concatenate([out, rest])), np.arange(count))
    np.testing.assert_array_equal(divided(count)[0], out)  # the same for every candidate


def test_candidates_learn_and_are_judged_on_the_training_images_alone(monkeypatch):
    opened_splits = []

    def open_images(self, name, split, size):
        opened_splits.append(split)
        return ImageDomain(name, Images(200), Images.classes)

    monkeypatch.setattr(Opened, "_open", open_images)
    minival = Minival(flags())
    learned, judged = (minival("shapes", split, PAPER).samples for split in ("train", "val"))
    assert set(opened_splits) == {"train"} and (len(learned), len(judged)) == (196, 4)
    numbers = [{int(samples[i][0][0, 0, 0]) for i in range(len(samples))} for samples in (learned, judged)]
    assert numbers[0].isdisjoint(numbers[1]) and numbers[0] | numbers[1] == set(range(200))
    assert all(samples[i][1] == samples.labels[i] for samples in (learned, judged) for i in range(len(samples)))


def leave_result(folder: Path, arm: str, top1: float, loss: float) -> None:
    (folder / f"{arm}-seed0").mkdir(parents=True)
    rows = [{"part": "clean", "measure": "top1", "value": top1}, {"part": "clean", "measure": "loss", "value": loss}]
    (folder / f"{arm}-seed0" / "result.json").write_text(json.dumps({"results": rows}))


def test_the_best_candidate_is_picked_and_of_level_ones_that_of_less_loss(monkeypatch, tmp_path):
    chosen = flags(
        f"--study grid --depths 26 50 --widths 1 --sizes 32 --lrs 0.1 0.2 --strengths 1 --out {tmp_path / 'run'}"
    )
    candidates = grid_candidates(chosen, finished(chosen))
    names = [list(group) for group in candidates.values()]
    scores = [(0.5, 1.0), (0.7, 2.0), (0.6, 1.0), (0.6, 0.9)]
    for name, measured in zip(itertools.chain(*names), scores, strict=True):
        leave_result(tmp_path / "run-minival", name, *measured)
    monkeypatch.setattr("experiments.minival.run_arms", lambda *_, **__: None)  # they are trained already
    best = picked(chosen, "study", "question", candidates)
    assert [arm.columns["lr"] for arm in best.values()] == [0.2, 0.2]
    assert score(tmp_path / "run-minival", names[1][1], 0) == (0.6, -0.9)
    failed = tmp_path / "run-minival" / f"{names[1][1]}-seed0"
    (failed / "result.json").unlink()
    write_failure(failed, NotFiniteError(3, "the loss is not finite"))
    best = picked(chosen, "study", "question", candidates)
    assert [arm.columns["lr"] for arm in best.values()] == [0.2, 0.1]  # what has failed is not picked


def test_one_candidate_is_taken_without_training(monkeypatch):
    chosen = flags("--study grid --depths 26 --widths 1 --sizes 32 --strengths 1")
    monkeypatch.setattr("experiments.minival.run_arms", lambda *_, **__: pytest.fail("trained"))
    candidates = grid_candidates(chosen, finished(chosen))
    assert list(picked(chosen, "study", "question", candidates)) == ["26-x1-32px"]


def test_a_finished_run_is_noticed_before_anything_is_picked(monkeypatch, tmp_path):
    (tmp_path / "run" / "26-x1-32px-seed0").mkdir(parents=True)
    chosen = flags(f"--study grid --depths 26 --widths 1 --sizes 32 --out {tmp_path / 'run'}")
    monkeypatch.setattr("experiments.minival.run_arms", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(UsageError, match="holds a run already: pass --resume"):
        picked(chosen, "study", "question", grid_candidates(chosen, finished(chosen)))


@pytest.mark.parametrize(
    ("begun", "strengths", "resumes"), [(True, "0.5 1", True), (False, "0.5 1", False), (False, "1", True)]
)
def test_a_run_that_was_interrupted_while_picking_goes_on_to_train(begun, strengths, resumes, monkeypatch, tmp_path):
    line = f"--study grid --depths 26 --widths 1 --sizes 32 --strengths {strengths} --resume --out {tmp_path / 'run'}"
    if begun:
        (tmp_path / "run" / "26-x1-32px-seed0").mkdir(parents=True)
    passed_on = []
    monkeypatch.setattr(cls_resnet_rs, "picked", lambda *_: {})
    monkeypatch.setattr(cls_resnet_rs, "scaled", lambda flags, *_: passed_on.append(flags.resume))
    run(flags(line))
    assert passed_on == [resumes]  # with one candidate there is nothing to pick, and no run is an error to be told


def test_a_grid_scales_what_it_says_and_the_strength_all_three_regularisers():
    chosen = flags("--study grid --recipe resnet-rs-350-256 --depths 300 --widths 1.5 --sizes 128 --strengths 0.5 2 0")
    arms = list(grid_candidates(chosen, finished(chosen))["300-x1.5-128px"].values())
    recipe = arms[0].recipe
    assert (recipe.backbone, recipe.width, recipe.image_size, recipe.resize) == ("resnetrs300", 1.5, 128, 146)
    assert [arm.recipe.dropout for arm in arms] == [0.125, 0.5, 0]
    assert [arm.recipe.stochastic_depth for arm in arms] == [0.05, 0.2, 0]
    assert [arm.recipe.randaugment for arm in arms] == [(2, 8), (2, 30), None]


# EfficientNets


def test_slow_resolutions_grow_by_the_square_root():
    for own, slow, _ in EFFICIENTNETS.values():
        assert slow % 8 == 0 and abs(slow - 224 * (own / 224) ** 0.5) <= 4


def test_efficientnets_stand_at_both_resolutions():
    chosen = flags("--study efficientnet --data imagenet --networks b0 b3 b7")
    arms = efficientnet_arms(chosen, finished(chosen))
    assert list(arms) == ["b0-224px-own", "b3-300px-own", "b3-256px-slow", "b7-600px-own", "b7-368px-slow"]
    assert [arm.recipe.randaugment[1] for arm in arms.values()] == [10, 15, 15, 20, 20]  # section 7.2
    assert all(arm.recipe.backbone == f"efficientnet_{name[:2]}" for name, arm in arms.items())


# Latency


def test_latency_is_the_median_of_the_timed_passes_for_an_image(monkeypatch):
    passes = iter([50, 50, 50, 4, 100, 2, 8, 6])  # seconds: three to warm up, then five
    clock = iter(itertools.chain.from_iterable((0.0, float(seconds)) for seconds in passes))
    monkeypatch.setattr(latency.time, "perf_counter", lambda: next(clock))
    seen = []
    network = nn.Sequential(nn.Conv2d(3, 1, 1), nn.Dropout()).train()
    network.register_forward_hook(lambda module, inputs, _: seen.append((inputs[0].shape, module.training)))
    assert latency.latency(network, 8, batch_size=2, repeats=5) == pytest.approx(1000 * 6 / 2)
    assert seen == [((2, 3, 8, 8), False)] * 8 and network.training


# From the command line to the table


@pytest.mark.parametrize(
    ("line", "rows"),
    [
        ("--study additive --width 0.125 --epochs 1", 11),
        ("--study weight-decay --width 0.125 --max-steps 1", 10),
        ("--study efficientnet --networks b0 --max-steps 1", 1),
    ],
)
def test_a_smoke_run_ends_in_a_table(line, rows, tmp_path, capsys):
    results = run(flags(f"{line} {TINY} --out {tmp_path / 'run'}"))
    assert (results["measure"] == "top1").sum() == rows
    assert (tmp_path / "run" / "table.md").exists() and (tmp_path / "run" / "report.html").exists()
    printed = capsys.readouterr().out
    assert ("training and regularisation: " in printed) == ("additive" in line)


def test_a_grid_picks_then_trains_on_all_and_can_be_resumed(tmp_path, monkeypatch):
    line = f"--study grid --depths 26 --widths 0.125 --sizes 32 --max-steps 1 {TINY} --out {tmp_path / 'run'}"
    results = run(flags(line))
    assert set(results["measure"]) >= {"top1", "loss", "latency"} and set(results["network"]) == {"26-x0.125-32px"}
    found = results.drop_duplicates("network").iloc[0]
    assert found["parameters"] > 0 and found["flops"] > 0 and found["strength"] in (0.5, 1.0)
    candidates = pd.read_csv(tmp_path / "run-minival" / "results.csv")
    assert candidates["candidate"].nunique() == 2
    assert "MFLOPs" in (tmp_path / "run" / "table.md").read_text()
    monkeypatch.setattr("experiments.cls_resnet_rs.train_and_judge", lambda *_: pytest.fail("trained again"))
    again = run(flags(f"{line} --resume"))
    pd.testing.assert_frame_equal(again, results)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("--study both", "--study both: choose additive, weight-decay, grid, efficientnet."),
        ("--norm bn sn", "--norm bn sn: all networks of this study have one norm; pass one."),
        ("--max-steps 9", "--max-steps does not go with --study additive: training for longer is one of its steps"),
        ("--depths 26", "--depths: it goes with --study grid."),
        ("--study grid --weight-decays 1", "--weight-decays: it goes with --study weight-decay."),
        ("--study weight-decay --latency-batch 4", "--latency-batch: it goes with --study grid or efficientnet."),
        ("--study grid --backbone resnet50", "--backbone does not go with --study grid: pass --depths."),
        ("--study grid --lr 1", "--lr does not go with --study grid: pass --lrs."),
        ("--study weight-decay --weight-decay 1", "--weight-decay does not go with --study weight-decay"),
        ("--study efficientnet --networks b9", "--networks b9: choose from b0, b1"),
        ("--study grid --minival 0.9", "--minival 0.9: it must be 0.5 or less"),
        ("--study grid --widths 0", "--widths 0: it must be 0.05 or more."),
        ("--study grid --depths 27 --images 800", "ResNet-RS has depths 26, 50"),
        ("--backbone resnet50", "--backbone resnet50: the additive study ends in a ResNet-RS"),
        ("--recipe ibn-step", "--recipe ibn-step: this study takes laptop, or a ResNet-RS"),
        ("--weights imagenet", "--weights: this study compares whole trainings"),
    ],
)
def test_what_contradicts_itself_ends_in_one_sentence(line, sentence, capsys, tmp_path):
    with pytest.raises(SystemExit) as stopped, one_sentence():
        run(flags(f"{line} --out {tmp_path / 'run'}"))
    error = capsys.readouterr().err.strip()
    assert stopped.value.code == 2 and error.startswith("error: ") and "\n" not in error and sentence in error


def test_help_does_not_wait_for_torch():
    code = f"import sys, runpy; sys.argv = ['x', '--help']\ntry: runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
    code += "except SystemExit: print({'torch', 'pandas', 'cv2', 'timm'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=SCRIPT.parents[1], check=True
    )
    assert done.stdout.strip().endswith("set()") and "--study" in done.stdout
