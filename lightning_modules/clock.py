"""The study's clock: it counts the steps of a training; logs and schedules depend on it."""

from __future__ import annotations

from math import ceil, isfinite

import pytorch_lightning as pl


class Clock(pl.Callback):
    """Counts the `steps` of a `StudyModule`, and makes Lightning's logs and schedules use this count.

    The module adds this callback by itself. It moves to the front of all callbacks, so that the others find the step
    counted at the end of a batch. For a task with one optimiser the count equals Lightning's `global_step`.
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
        """Set the step that loggers get, and that decides whether to log; Lightning would use the number of batches.

        The only public way is a metric "step" in every call of `log`, which the learning-rate monitor does not have.
        """
        trainer.fit_loop.epoch_loop._batches_that_stepped = step


class EndsAt(pl.Callback):
    """Ends a training after a number of steps of the clock, also inside an epoch.

    Lightning's `max_steps` cannot be used for trainings that may be resumed. With it, Lightning assumes that every
    checkpoint is from the middle of an epoch, repeats the supposed rest of that epoch, and counts it as an epoch of
    `max_epochs`. It also counts optimiser steps instead of the clock's.
    """

    def __init__(self, steps: int):
        self.steps = steps

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_) -> None:
        if module.steps >= self.steps:
            trainer.should_stop = True


def planned_steps(trainer: pl.Trainer) -> int:
    """Steps of a whole training: what `EndsAt` says, or as far as the trainer knows; 0 where nobody knows.

    Lightning's `estimated_stepping_batches` would open the training loader, also of a training that is about to be
    restored in the middle of an epoch. The trainer's own limits say something once its loader is open: from
    `on_train_start` on.
    """
    ends = [callback.steps for callback in trainer.callbacks if isinstance(callback, EndsAt)]
    limits = [limit for limit in (*ends, trainer.max_steps) if limit >= 0]
    epochs = trainer.max_epochs if trainer.max_epochs is not None else -1
    if epochs >= 0 and isfinite(trainer.num_training_batches):
        limits.append(epochs * ceil(trainer.num_training_batches / trainer.accumulate_grad_batches))
    return min(limits, default=0)
