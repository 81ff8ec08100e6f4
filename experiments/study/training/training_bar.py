"""The progress of a training in a terminal: one bar in steps of the study, and another while it is evaluated."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from lightning_modules.study_module import StudyModule

REFRESHED = 0.5
"""Seconds between two readings of the loss, for which a GPU is waited for."""


class TrainingBar(pl.Callback):
    """Shows step, loss, speed and the time that is left. In a log, which is no terminal, it shows nothing.

    Args:
        name: of the training. steps: of the whole training.
        left: says how much time is left of the study.
        console: to draw on; by default the terminal.
    """

    def __init__(self, name: str, steps: int, left: Callable[[], str], console: Console | None = None):
        self.name, self.steps, self.left = name, steps, left
        self._console = console
        self._progress: Progress | None = None
        self._evaluation: TaskID | None = None

    def on_train_start(self, trainer: pl.Trainer, module: StudyModule) -> None:
        console = self._console or Console()
        if not trainer.is_global_zero or not (console.is_terminal or console.is_jupyter):
            return
        columns = [
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[said]}"),
        ]
        self._progress = Progress(*columns, console=console, transient=True)
        self._progress.start()
        self._task = self._progress.add_task(self.name, total=self.steps, completed=module.steps, said="")
        self._read, self._read_steps = time.monotonic(), module.steps

    def on_train_batch_end(self, trainer: pl.Trainer, module: StudyModule, *_) -> None:
        if self._progress is None:
            return
        self._progress.update(self._task, completed=module.steps)
        seconds = time.monotonic() - self._read
        if seconds >= REFRESHED:
            speed = (module.steps - self._read_steps) / seconds
            loss = trainer.callback_metrics.get("train/loss")
            said = [f"loss {float(loss):.3f}"] if loss is not None else []
            said += [f"{speed:.1f} steps/s" if speed >= 1 or not speed else f"{1 / speed:.1f} s/step", self.left()]
            self._progress.update(self._task, said=", ".join(filter(None, said)))
            self._read, self._read_steps = time.monotonic(), module.steps

    def on_validation_start(self, trainer: pl.Trainer, module: StudyModule) -> None:
        if self._progress is not None:
            total = sum(trainer.num_val_batches)
            self._evaluation = self._progress.add_task("evaluation", total=total, said="")

    def on_validation_batch_end(self, trainer: pl.Trainer, module: StudyModule, *_) -> None:
        if self._evaluation is not None:
            self._progress.advance(self._evaluation)

    def on_validation_end(self, trainer: pl.Trainer, module: StudyModule) -> None:
        if self._evaluation is not None:
            self._progress.remove_task(self._evaluation)
            self._evaluation = None
            self._read, self._read_steps = time.monotonic(), module.steps

    def on_train_end(self, trainer: pl.Trainer, module: StudyModule) -> None:
        self._stop()

    def on_exception(self, trainer: pl.Trainer, module: StudyModule, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = self._evaluation = None
