"""How long a study still takes: all trainings that are left, from the steps and evaluations measured so far."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytorch_lightning as pl

from experiments.study.task import Pace
from lightning_modules.study_module import StudyModule

SLOW_STEPS = 3
"""The first steps of a training, which are slower than the others and not measured."""
FIRST_SAYING = 20.0
"""Seconds of training after which the first estimate is made at the latest."""
FIRST_STEPS = 10
"""Measured steps after which it is made."""


@dataclass(frozen=True)
class Training:
    """A training that is to come: so many steps and evaluations."""

    arm: str
    seed: int
    steps: int
    evaluations: int

    @classmethod
    def of(cls, arm: str, seed: int, pace: Pace) -> Training:
        epochs = math.ceil(pace.max_steps / pace.epoch_steps)
        return cls(arm, seed, pace.max_steps, math.ceil(epochs / pace.evaluate_every))


@dataclass
class _Measured:
    """Seconds and how often they were measured."""

    seconds: float = 0.0
    count: int = 0

    def add(self, seconds: float, count: int = 1) -> None:
        self.seconds, self.count = self.seconds + seconds, self.count + count

    @property
    def mean(self) -> float:
        return self.seconds / self.count if self.count else 0.0


@dataclass
class TimeLeft:
    """What is left of a study, and how long it takes.

    The price of a step and of an evaluation is the mean that was measured for the arm, or, before its first training,
    the mean over the other arms. What comes after the trainings (further evaluation, examples, report) is the mean over
    the trainings that have ended.

    Args:
        trainings: those that are not finished, in their order.
    """

    trainings: list[Training]
    said: bool = False  # whether the first estimate has been printed
    _steps: dict[str, _Measured] = field(default_factory=lambda: defaultdict(_Measured))
    _evaluations: dict[str, _Measured] = field(default_factory=lambda: defaultdict(_Measured))
    _outside: _Measured = field(default_factory=_Measured)
    _done: dict[Training, tuple[int, int]] = field(default_factory=dict)

    def stepped(self, training: Training, seconds: float, steps: int = 1) -> None:
        """Steps were measured."""
        self._steps[training.arm].add(seconds, steps)

    def evaluated(self, training: Training, seconds: float) -> None:
        """An evaluation was measured."""
        self._evaluations[training.arm].add(seconds)

    def done(self, training: Training, steps: int, evaluations: int) -> None:
        """So much of a training is done."""
        self._done[training] = steps, evaluations

    def ended(self, training: Training, outside: float) -> None:
        """A training has ended, and so much time was spent outside of its steps and evaluations."""
        self._outside.add(outside)
        self.trainings = [one for one in self.trainings if one != training]

    def seconds(self) -> float | None:
        """Seconds that the study still takes; None before a step was measured."""
        if not any(measured.count for measured in self._steps.values()):
            return None
        return sum(self._seconds_of(training) for training in self.trainings)

    def _seconds_of(self, training: Training) -> float:
        steps, evaluations = self._done.get(training, (0, 0))
        left = (training.steps - steps) * _price(self._steps, training.arm)
        left += max(0, training.evaluations - evaluations) * _price(self._evaluations, training.arm)
        return left + self._outside.mean


def _price(measured: dict[str, _Measured], arm: str) -> float:
    """The mean of an arm, or of all where this one was not measured."""
    if arm in measured and measured[arm].count:
        return measured[arm].mean
    known = [one.mean for one in measured.values() if one.count]
    return sum(known) / len(known) if known else 0.0


def in_words(seconds: float) -> str:
    """A duration: seconds below a minute, else minutes, else hours and minutes, else days and hours."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours + (minutes >= 30), 24)
    return f"{days} days {hours} h" if hours else f"{days} days"


def until(seconds: float, now: datetime | None = None) -> str:
    """When so many seconds will be over: a time of the day, with its date where that is another one."""
    now = now or datetime.now()
    then = now + timedelta(seconds=seconds)
    return f"{then:%H:%M}" if then.date() == now.date() else f"{then:%H:%M on %d %b}"


def amount(trainings: Sequence[Training]) -> str:
    """How much there is to do, such as "12 trainings of 400 steps"."""
    steps = {training.steps for training in trainings}
    each = f"of {steps.pop():,} steps" if len(steps) == 1 else f"of {min(steps):,} to {max(steps):,} steps"
    return f"{len(trainings)} training{'s' * (len(trainings) > 1)} {each}"


class Timekeeper(pl.Callback):
    """Measures one training for a `TimeLeft`, and once says how long the study will take.

    Args:
        study: shared by the trainings. training: this one.
        clock: in seconds; another one for tests.
    """

    def __init__(self, study: TimeLeft, training: Training, clock: Callable[[], float] = time.monotonic):
        self.study, self.training, self.clock = study, training, clock
        self._built = self._began = self._last = clock()
        self._inside = 0.0  # seconds of steps and evaluations
        self._began_at = self._steps = self._evaluations = 0  # steps when it began or was resumed, and so far

    def on_train_start(self, trainer: pl.Trainer, module: StudyModule) -> None:
        self._began_at = self._steps = module.steps
        self._began = self._last = self.clock()
        epoch_steps = max(1, self.training.steps // max(1, self.training.evaluations))
        self._evaluations = module.steps // epoch_steps
        self.study.done(self.training, module.steps, self._evaluations)

    def on_train_batch_end(self, trainer: pl.Trainer, module: StudyModule, *_) -> None:
        if module.steps == self._steps:  # gradients are being added up
            return
        now, steps = self.clock(), module.steps - self._steps
        if module.steps - self._began_at > SLOW_STEPS:
            self.study.stepped(self.training, now - self._last, steps)
        self._inside += now - self._last
        self._last, self._steps = now, module.steps
        self.study.done(self.training, module.steps, self._evaluations)
        self._say_once(trainer, now)

    def on_validation_start(self, trainer: pl.Trainer, module: StudyModule) -> None:
        self._last = self.clock()

    def on_validation_end(self, trainer: pl.Trainer, module: StudyModule) -> None:
        now = self.clock()
        self._evaluations += 1
        self.study.evaluated(self.training, now - self._last)
        self._inside += now - self._last
        self._last = now
        self.study.done(self.training, module.steps, self._evaluations)

    def ended(self) -> None:
        """The training and all that belongs to it has ended."""
        self.study.ended(self.training, self.clock() - self._built - self._inside)

    def left(self) -> str:
        """What is left of the whole study, such as "2 h 9 min left, until 16:32"; "" where nothing was measured."""
        seconds = self.study.seconds()
        return "" if seconds is None else f"{in_words(seconds)} left, until {until(seconds)}"

    def _say_once(self, trainer: pl.Trainer, now: float) -> None:
        measured = self._steps - self._began_at - SLOW_STEPS
        if self.study.said or measured < 1 or not trainer.is_global_zero:
            return
        if measured >= FIRST_STEPS or now - self._began > FIRST_SAYING:
            self.study.said = True
            seconds = self.study.seconds()
            print(f"about {in_words(seconds)} for {amount(self.study.trainings)}, until {until(seconds)}", flush=True)
