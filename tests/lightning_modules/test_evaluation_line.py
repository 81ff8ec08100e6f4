"""The line that an evaluation prints to the log."""

from types import SimpleNamespace

import pytest

from lightning_modules.evaluation_line import EvaluationLine

LOGGED = {"train/loss": 1.0, "shapes/photo/top1": 0.756, "camvid:test/miou": 0.301, "sketch/top1": 0.5, "photo/top5": 1}


def trainer(rank: int = 0) -> SimpleNamespace:
    return SimpleNamespace(is_global_zero=rank == 0, callback_metrics=LOGGED, global_step=40, max_steps=160)


@pytest.mark.parametrize(
    ("settings", "told"),
    [({}, "mIoU camvid:test 30.1 ("), ({"measure": "top1"}, "top-1 shapes/photo 75.6, sketch 50.0 (")],
)
def test_each_domain_is_told_in_per_cent(settings, told, capsys):
    EvaluationLine("bn-seed0", **settings).on_validation_end(trainer(), None)
    line = capsys.readouterr().out
    assert line.startswith(f"bn-seed0: step 40 of 160, {told}") and line.endswith(" s)\n") and line.count("\n") == 1


def test_one_process_alone_tells(capsys):
    EvaluationLine("bn-seed0").on_validation_end(trainer(rank=1), None)
    assert capsys.readouterr().out == ""
