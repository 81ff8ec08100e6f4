"""--patience ends a training where a fake measure stops improving, also where that was interrupted."""

import json
import math
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from experiments import cls_imagenet
from experiments.study.endings import UsageError
from experiments.study.flags import parse
from experiments.study.resume.patience import Patience
from lightning_modules.classification.module import ClassificationModule
from tests.experiments.study.resume.test_exact_resume import Stop, differences

LINE = (  # evaluated every three steps, six times
    "--gpus 0 --workers 0 --wandb disabled --recipe smoke --data shapes/photo --width 0.25 --images 24 --epochs 6 "
    "--norm bin --save-every 2 --patience 2"
)
TOPS = {3: 0.5, 6: 0.6, 9: 0.6, 12: 0.4, 15: 0.9, 18: 0.9}
"""Top-1 by step: the best of the first four evaluations is the second, so it ends with the fourth."""


def study(line: str, out: Path, tops: dict[int, float], stop: tuple[str, int] | None = None) -> bool:
    """Run a study whose evaluations find these accuracies; returns whether it was stopped in a hook at a step."""
    evaluates = ClassificationModule.results

    def results(self):
        rows = evaluates(self)
        return [row | ({"value": tops[self.evaluated_at]} if row["measure"] == "top1" else {}) for row in rows]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ClassificationModule, "results", results)
        if stop is not None:
            hook, step = stop
            whole = getattr(ClassificationModule, hook)

            def stopping(self, *arguments, **named):
                if self.steps >= step:
                    raise Stop
                return whole(self, *arguments, **named)

            patched.setattr(ClassificationModule, hook, stopping)
        with suppress(Stop):
            cls_imagenet.run(parse(cls_imagenet.Flags, "", [*line.split(), "--out", str(out)]))
            return False
    return True


def steps_of(out: Path, seed: int = 0) -> int:
    kept = torch.load(out / f"bin-seed{seed}" / "checkpoints" / "model.ckpt", weights_only=False)
    return kept["study"]["steps"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    study(LINE, out, TOPS)
    return out


def test_it_ends_with_the_second_evaluation_that_is_no_better(whole):
    assert steps_of(whole) == 12
    assert json.loads((whole / "bin-seed0" / "result.json").read_text())["ended_early"] == [{"step": 12, "of": 18}]
    assert "Ended early, by --patience: bin after 12 of 18 steps." in (whole / "table.md").read_text()
    assert "bin after 12 of 18 steps" in (whole / "report.html").read_text()


def test_the_best_network_is_still_kept(tmp_path):
    study(f"{LINE} --keep-best", tmp_path, TOPS)
    kept = torch.load(tmp_path / "bin-seed0" / "checkpoints" / "best.ckpt", weights_only=False)
    assert kept["study"]["steps"] == 6


def test_one_that_improves_is_trained_to_its_end(tmp_path):
    study(LINE, tmp_path, {step: step / 100 for step in TOPS})
    assert steps_of(tmp_path) == 18 and "Ended early" not in (tmp_path / "table.md").read_text()


@pytest.mark.parametrize(
    ("hook", "step"),
    [
        ("on_train_batch_end", 7),
        ("validation_step", 9),
        ("on_train_batch_end", 11),
        ("validation_step", 12),
        ("on_validation_epoch_end", 12),
        ("on_train_end", 12),
        ("load_state_dict", 12),
    ],
)
def test_an_interruption_does_not_change_where_it_ends(hook, step, whole, tmp_path):
    if not study(LINE, tmp_path / "run", TOPS, (hook, step)):
        assert hook == "load_state_dict"  # nothing is restored in a training that is not resumed
        return
    study(f"{LINE} --resume", tmp_path / "run", TOPS)
    assert differences(whole, tmp_path / "run") == []
    assert (whole / "table.md").read_text() == (tmp_path / "run" / "table.md").read_text()


def test_one_killed_before_its_results_is_not_trained_again(whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("experiments.study.loop.evaluated", lambda *_: (_ for _ in ()).throw(Stop))
        assert study(LINE, tmp_path, TOPS)
    assert json.loads((tmp_path / "bin-seed0" / "checkpoints" / "ended.json").read_text())["early"]
    assert not study(f"{LINE} --resume", tmp_path, TOPS, ("on_train_start", 0))
    assert differences(whole, tmp_path) == [] and steps_of(tmp_path) == 12


def test_patience_may_not_change_when_a_run_is_resumed(whole):
    with pytest.raises(UsageError, match="patience was 2"):
        study(LINE.replace("--patience 2", "--patience 3 --resume"), whole, TOPS)


@pytest.mark.parametrize(
    ("measure", "scores", "waited"),
    [
        ("loss", [3.0, 2.0, 2.5], 1),  # lower is better
        ("top1", [0.3, 0.2, 0.25], 2),
        ("top1", [math.nan, 0.2, math.nan, 0.3], 0),
        ("top1", [0.1, math.nan, math.nan], 2),
        ("top1", [], 0),
    ],
)
def test_it_counts_by_the_measures_better_side(measure, scores, waited):
    fitting = SimpleNamespace(fn="fit")
    trainer = SimpleNamespace(
        strategy=SimpleNamespace(broadcast=lambda score: score), state=fitting, sanity_checking=False
    )
    patience = Patience(2, "a", 10)
    for score in scores:
        module = SimpleNamespace(headline=measure, results=lambda score=score: [{"measure": measure, "value": score}])
        patience.on_validation_end(trainer, module)
        again = Patience(2, "a", 10)
        again.load_state_dict(patience.state_dict())
        patience = again
    assert patience.waited == waited
