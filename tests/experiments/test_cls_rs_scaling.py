"""The grid of depths, widths and resolutions: its networks, what is picked for them, and a run."""

import itertools
import json
from pathlib import Path

import pandas as pd
import pytest

from experiments.cls_rs_scaling import LAPTOP, Flags, candidates_of, run
from experiments.study.endings import UsageError
from experiments.study.failures import write_failure
from experiments.study.flags import parse
from experiments.tasks import costs, minival
from experiments.tasks.classification import Arm
from experiments.tasks.minival import picked, score
from experiments.tasks.resnet_rs import finished
from lightning_modules.finite_training import NotFiniteError

HELD_OUT = 0.02, ("depths", "widths", "sizes")


def flags(line: str = "") -> Flags:
    return parse(Flags, "", line.split())


def candidates(chosen: Flags) -> dict[str, dict[str, Arm]]:
    return candidates_of(chosen, finished(chosen, "resnet-rs-50-160", LAPTOP))


def leave_result(folder: Path, arm: str, top1: float, loss: float) -> None:
    (folder / f"{arm}-seed0").mkdir(parents=True)
    rows = [{"part": "clean", "measure": "top1", "value": top1}, {"part": "clean", "measure": "loss", "value": loss}]
    (folder / f"{arm}-seed0" / "result.json").write_text(json.dumps({"results": rows}))


def test_the_best_candidate_is_picked_and_of_level_ones_that_of_less_loss(monkeypatch, tmp_path):
    chosen = flags(f"--depths 26 50 --widths 1 --sizes 32 --lrs 0.1 0.2 --strengths 1 --out {tmp_path / 'run'}")
    groups = candidates(chosen)
    names = [list(group) for group in groups.values()]
    scores = [(0.5, 1.0), (0.7, 2.0), (0.6, 1.0), (0.6, 0.9)]
    for name, measured in zip(itertools.chain(*names), scores, strict=True):
        leave_result(tmp_path / "run-minival", name, *measured)
    monkeypatch.setattr("experiments.tasks.minival.run_arms", lambda *_, **__: None)  # they are trained already
    best = picked(chosen, "study", "question", groups, *HELD_OUT)
    assert [arm.columns["lr"] for arm in best.values()] == [0.2, 0.2]
    assert score(tmp_path / "run-minival", names[1][1], 0) == (0.6, -0.9)
    failed = tmp_path / "run-minival" / f"{names[1][1]}-seed0"
    (failed / "result.json").unlink()
    write_failure(failed, NotFiniteError(3, "the loss is not finite"))
    best = picked(chosen, "study", "question", groups, *HELD_OUT)
    assert [arm.columns["lr"] for arm in best.values()] == [0.2, 0.1]  # what has failed is not picked


def test_one_candidate_is_taken_without_training(monkeypatch):
    chosen = flags("--depths 26 --widths 1 --sizes 32 --strengths 1")
    monkeypatch.setattr("experiments.tasks.minival.run_arms", lambda *_, **__: pytest.fail("trained"))
    groups = candidates(chosen)
    assert list(picked(chosen, "study", "question", groups, *HELD_OUT)) == ["26-x1-32px"]


def test_a_finished_run_is_noticed_before_anything_is_picked(monkeypatch, tmp_path):
    (tmp_path / "run" / "26-x1-32px-seed0").mkdir(parents=True)
    chosen = flags(f"--depths 26 --widths 1 --sizes 32 --out {tmp_path / 'run'}")
    monkeypatch.setattr("experiments.tasks.minival.run_arms", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(UsageError, match="already holds a run: pass --resume"):
        picked(chosen, "study", "question", candidates(chosen), *HELD_OUT)


@pytest.mark.parametrize(
    ("begun", "strengths", "resumes"), [(True, "0.5 1", "yes"), (False, "0.5 1", "no"), (False, "1", "yes")]
)
def test_a_run_that_was_interrupted_while_picking_goes_on_to_train(begun, strengths, resumes, monkeypatch, tmp_path):
    line = f"--depths 26 --widths 1 --sizes 32 --strengths {strengths} --resume --out {tmp_path / 'run'}"
    if begun:
        (tmp_path / "run" / "26-x1-32px-seed0").mkdir(parents=True)
    passed_on = []
    monkeypatch.setattr(minival, "picked", lambda *_, **__: {})
    monkeypatch.setattr(costs, "run_costs", lambda flags, *_, **__: passed_on.append(flags.resume))
    run(flags(line))
    assert passed_on == [resumes]  # with one candidate there is nothing to pick, and no run is an error to be told


def test_a_grid_scales_what_it_says_and_the_strength_all_three_regularisers():
    chosen = flags("--recipe resnet-rs-350-256 --depths 300 --widths 1.5 --sizes 128 --strengths 0.5 2 0")
    arms = list(candidates(chosen)["300-x1.5-128px"].values())
    recipe = arms[0].recipe
    assert (recipe.backbone, recipe.width, recipe.image_size, recipe.resize) == ("resnetrs300", 1.5, 128, 146)
    assert [arm.recipe.dropout for arm in arms] == [0.125, 0.5, 0]
    assert [arm.recipe.stochastic_depth for arm in arms] == [0.05, 0.2, 0]
    assert [arm.recipe.randaugment for arm in arms] == [(2, 8), (2, 30), None]


def test_a_grid_picks_then_trains_on_all_and_can_be_resumed(tmp_path, monkeypatch):
    line = "--depths 26 --widths 0.125 --sizes 32 --max-steps 1 --smoke --workers 0 --wandb disabled"
    line = f"{line} --out {tmp_path / 'run'}"
    results = run(flags(line))
    assert set(results["measure"]) >= {"top1", "loss", "latency"} and set(results["network"]) == {"26-x0.125-32px"}
    found = results.drop_duplicates("network").iloc[0]
    assert found["parameters"] > 0 and found["flops"] > 0 and found["strength"] in (0.5, 1.0)
    candidates = pd.read_csv(tmp_path / "run-minival" / "results.csv")
    assert candidates["candidate"].nunique() == 2
    assert "MFLOPs" in (tmp_path / "run" / "table.md").read_text()
    monkeypatch.setattr("experiments.study.loop.train_arm", lambda *_: pytest.fail("trained again"))
    again = run(flags(f"{line} --resume"))
    pd.testing.assert_frame_equal(again, results)
