"""How long a study still takes: hand-worked from steps and evaluations that were measured."""

from datetime import datetime
from io import StringIO
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from experiments.study.task import Pace
from experiments.study.time_left import Timekeeper, TimeLeft, Training, amount, in_words, until
from experiments.study.training import training_bar
from experiments.study.training.training_bar import TrainingBar

BN, SN = Training("bn", 0, steps=10, evaluations=2), Training("sn", 0, steps=10, evaluations=2)


def test_what_is_left_is_priced_by_what_was_measured():
    study = TimeLeft([BN, SN])
    assert study.seconds() is None  # nothing was measured
    study.stepped(BN, 5.0, steps=5)
    study.evaluated(BN, 3.0)
    study.done(BN, 5, 1)
    assert study.seconds() == (5 * 1 + 1 * 3) + (10 * 1 + 2 * 3)  # sn is taken to cost what bn costs
    study.ended(BN, outside=4.0)
    assert study.seconds() == 10 * 1 + 2 * 3 + 4
    study.stepped(SN, 4.0, steps=2)  # it is twice as slow; its evaluation was not measured yet
    study.done(SN, 2, 0)
    assert study.seconds() == 8 * 2 + 2 * 3 + 4
    study.ended(SN, outside=8.0)
    assert study.seconds() == 0


def test_evaluations_are_counted_as_a_training_holds_them():
    pace = Pace(max_steps=25, epoch_steps=10, evaluate_every=2)
    assert Training.of("bn", 3, pace) == Training("bn", 3, steps=25, evaluations=2)  # after epoch 2, and at the end


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("begins_at", [0, 6])
def test_a_training_is_measured_without_its_first_steps(begins_at, capsys):
    """Its building takes 7 s, slow first steps 5 s each, the others 1 s, evaluations 2 s, its end 3 s."""
    clock, module, trainer = Clock(), SimpleNamespace(steps=begins_at), SimpleNamespace(is_global_zero=True)
    one, other = (Training(name, 0, steps=20, evaluations=2) for name in ("bn", "sn"))
    study = TimeLeft([one, other])
    keeper = Timekeeper(study, one, clock)
    clock.now += 7
    keeper.on_train_start(trainer, module)
    assert keeper.left() == ""
    while module.steps < 20:
        clock.now += 5 if module.steps < begins_at + 3 else 1
        module.steps += 1
        keeper.on_train_batch_end(trainer, module)
        if not module.steps % 10:
            keeper.on_validation_start(trainer, module)
            clock.now += 2
            keeper.on_validation_end(trainer, module)
        if module.steps == begins_at + 4:
            assert study.seconds() == 36  # 16 + 20 steps, or 10 + 20 steps and 1 + 2 evaluations
    clock.now += 3
    keeper.ended()
    assert study.seconds() == 20 * 1 + 2 * 2 + 10  # the other one: steps, evaluations, and what is outside of both
    said = capsys.readouterr().out
    assert said.count("about ") == 1 and "for 2 trainings of 20 steps, until " in said


def test_accumulated_batches_are_one_step():
    clock, module, trainer = Clock(), SimpleNamespace(steps=0), SimpleNamespace(is_global_zero=False)
    study = TimeLeft([BN])
    keeper = Timekeeper(study, BN, clock)
    keeper.on_train_start(trainer, module)
    for batch in range(16):
        clock.now += 1
        module.steps += batch % 2
        keeper.on_train_batch_end(trainer, module)
    assert study.seconds() == 2 * 2  # two steps of two batches


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (3540, "59 min"), (3599, "1 h"), (3600, "1 h"),
        (7740, "2 h 9 min"), (47.9 * 3600, "47 h 54 min"), (48 * 3600, "2 days"), (76.6 * 3600, "3 days 5 h"),
    ],
)  # fmt: skip
def test_durations_in_words(seconds, words):
    assert in_words(seconds) == words


def test_a_time_of_another_day_has_its_date():
    now = datetime(2026, 3, 31, 23, 0)
    assert until(1800, now) == "23:30" and until(7200, now) == "01:00 on 01 Apr"


def test_amounts():
    assert amount([BN]) == "1 training of 10 steps"
    assert amount([BN, Training("sn", 0, 2000, 1)]) == "2 trainings of 10 to 2,000 steps"


def test_the_bar_counts_steps_and_shows_the_rest_of_the_study(monkeypatch):
    monkeypatch.setattr(training_bar, "REFRESHED", 0.0)
    drawn, module = StringIO(), SimpleNamespace(steps=4)  # resumed
    console = Console(file=drawn, force_terminal=True, color_system=None, width=120)
    trainer = SimpleNamespace(
        is_global_zero=True, callback_metrics={"train/loss": torch.tensor(0.25)}, num_val_batches=[3, 2]
    )
    bar = TrainingBar("sn-seed0", 10, lambda: "2 h 9 min left, until 16:32", console)
    bar.on_train_start(trainer, module)
    module.steps = 6
    bar.on_train_batch_end(trainer, module)
    bar.on_validation_start(trainer, module)
    bar.on_validation_batch_end(trainer, module)
    bar._progress.refresh()
    bar.on_validation_end(trainer, module)
    bar.on_train_end(trainer, module)
    shown = drawn.getvalue()
    assert "sn-seed0" in shown and " 6/10 " in shown and "evaluation" in shown and "1/5" in shown
    assert "loss 0.250, " in shown and "steps/s, 2 h 9 min left, until 16:32" in shown


def test_a_log_gets_no_bar():
    drawn, trainer = StringIO(), SimpleNamespace(is_global_zero=True, callback_metrics={}, num_val_batches=[1])
    bar = TrainingBar("sn", 2, lambda: "", Console(file=drawn))
    for call in (bar.on_train_start, bar.on_train_batch_end, bar.on_validation_start, bar.on_validation_end):
        call(trainer, SimpleNamespace(steps=1))
    bar.on_exception(trainer, None, KeyboardInterrupt())
    assert drawn.getvalue() == ""
