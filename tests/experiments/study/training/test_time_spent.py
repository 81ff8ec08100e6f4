"""Where the time of a run went: a training's steps by a clock that is set by hand, and the line at a run's end."""

from types import SimpleNamespace

import pytest

from experiments.study.flags import parse
from experiments.study.training import time_spent
from experiments.study.training.time_spent import BACKWARD, DATA, EVALUATION, FORWARD, OPTIMISER, StepTimes, TimeSpent
from tests.experiments.study import toy_study


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(time_spent.time, "monotonic", lambda: now.seconds)
    return now


def test_the_parts_of_steps_add_up(clock):
    spent = TimeSpent()
    steps, trainer = StepTimes(spent), SimpleNamespace(training=True)

    def later(seconds, hook):
        clock.seconds += seconds
        getattr(steps, hook)(trainer)

    later(100, "on_train_start")  # what was before belongs to no step
    for _ in range(2):
        later(1, "on_train_batch_start")
        later(2, "on_before_backward")
        later(3, "on_after_backward")
        later(0.5, "on_train_batch_end")
    later(0.25, "on_validation_start")
    later(7, "on_validation_end")
    assert spent.seconds == {DATA: 2.25, FORWARD: 4, BACKWARD: 6, OPTIMISER: 1, EVALUATION: 7}


def test_the_line_says_shares_of_the_whole(clock):
    spent = TimeSpent()
    spent.seconds |= {FORWARD: 40.0, BACKWARD: 60.0, EVALUATION: 30.0, DATA: 0.2}
    with spent.on("pictures"):
        clock.seconds += 20
    assert spent.sentence(200) == (
        "time: 3 min, 50 % of it in training steps (forward 20, backward 30, evaluation 15, pictures 10, "
        "start, tables and report 25 %)"
    )


def test_a_run_ends_in_it(tmp_path, capsys):
    line = f"--norm bn --max-steps 4 --wandb disabled --gpus 0 --workers 0 --out {tmp_path}"
    toy_study.run(parse(toy_study.Flags, "", line.split()))
    (said,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("time: ")]
    assert " of it in training steps (" in said
    toy_study.run(parse(toy_study.Flags, "", [*line.split(), "--resume"]))
    assert "time: " not in capsys.readouterr().out  # nothing was trained
