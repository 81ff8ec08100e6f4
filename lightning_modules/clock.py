"""The study's clock: what counts as a step of a training, and what goes by it."""

from __future__ import annotations

import pytorch_lightning as pl


class Clock(pl.Callback):
    """Counts a `StudyModule`'s `steps`, and lets Lightning's logs and schedules go by them.

    The module brings it along, and it moves in front of all other callbacks: at the end of a batch they find the step
    counted. For a task with one optimiser the count is Lightning's `global_step`.
    """

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        trainer.callbacks.remove(self)
        trainer.callbacks.insert(0, self)

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._optimised = trainer.global_step

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, *_) -> None:
        self._set_log_step(trainer, module.steps)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs, batch, batch_idx: int
    ) -> None:
        optimised, self._optimised = self._optimised, trainer.global_step
        if self._optimised > optimised and module.counts_as_step(batch_idx):
            module.steps += 1
            for config in trainer.lr_scheduler_configs:
                if config.interval == "step" and not config.reduce_on_plateau and not module.steps % config.frequency:
                    config.scheduler.step()

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._set_log_step(trainer, module.steps)

    @staticmethod
    def _set_log_step(trainer: pl.Trainer, step: int) -> None:
        """What loggers get as the step, and what decides whether this one is logged; Lightning counts batches there.

        Lightning has no public way to set it but a metric "step" in every single call of `log`, which the
        learning-rate monitor does not make.
        """
        trainer.fit_loop.epoch_loop._batches_that_stepped = step


class EndsAt(pl.Callback):
    """Ends a training after so many steps of the clock, also inside an epoch.

    Lightning's own `max_steps` is of no use to a training that may be resumed: with it, Lightning takes every
    checkpoint for one from the middle of an epoch, and runs what it takes for the rest of that epoch once more, which
    then counts as an epoch of the `max_epochs`. It counts optimiser steps besides, not the clock's.
    """

    def __init__(self, steps: int):
        self.steps = steps

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_) -> None:
        if module.steps >= self.steps:
            trainer.should_stop = True
