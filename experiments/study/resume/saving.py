"""When a training's checkpoint is written, and how the training continues from it.

It is written at the start of a batch, when all that belongs to the batch before is over, and before an evaluation.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import pytorch_lightning as pl

from experiments.study.resume import loops
from experiments.study.resume.agreement import Agreement
from experiments.study.resume.checkpoint_files import SafeCheckpoints
from experiments.study.resume.draws import DerivedDraws
from experiments.study.resume.logs import logged, restore_logs
from experiments.study.resume.time_limit import STATUS as TIME_IS_OVER
from experiments.study.resume.time_limit import TimeLimit
from experiments.study.signals import stops
from lightning_modules.study_module import StudyModule

WORTH_SAVING = 10.0
"""Seconds of training that are saved before an evaluation, which may be long."""
SAVE = 1
"""What a process proposes when a checkpoint is due; larger numbers are exit statuses, with which the training stops."""


class SavePlan(NamedTuple):
    """When a training is saved, and where."""

    file: Path
    steps: int  # of the whole training, by the study's clock
    every: int | None  # steps between checkpoints; None: only time decides
    seconds: float  # between checkpoints
    limit: TimeLimit | None = None  # of the whole study


class Saving(pl.Callback):
    """Saves a training as `plan` says, at a signal and before the limit of time, and restores what was saved.

    It has to be the first of the callbacks, so that a checkpoint holds nothing of the batch that begins, and `Resuming`
    the last, so that all others are ready for an evaluation.

    Args:
        checkpoints: writes the files.
    """

    def __init__(self, plan: SavePlan, checkpoints: SafeCheckpoints):
        self.plan, self.checkpoints = plan, checkpoints
        self.evaluation_pending = False
        self._saved_steps, self._saved_at = -1, 0.0
        self._before = 0  # steps at the start of the batch before
        self._agreed = 0
        self._batch_began = self._evaluation_began = 0.0
        self._batch_seconds = self._evaluation_seconds = 0.0

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict) -> None:
        loops.clean(checkpoint["loops"]["fit_loop"])
        checkpoint["resume"] = {"evaluation_pending": self.evaluation_pending, "logs": logged(trainer)}

    def on_load_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict) -> None:
        self.evaluation_pending = checkpoint["resume"]["evaluation_pending"]
        restore_logs(trainer, checkpoint["resume"]["logs"])

    def on_train_start(self, trainer: pl.Trainer, module: StudyModule) -> None:
        self._agreement, self._agreed = Agreement(trainer.world_size), 0
        self._before, self._saved_steps = module.steps, module.steps
        self._saved_at = self._batch_began = time.monotonic()
        stops.deferred()

    def on_train_batch_start(self, trainer: pl.Trainer, module: StudyModule, batch, batch_idx: int) -> None:
        self._batch_seconds, self._batch_began = time.monotonic() - self._batch_began, time.monotonic()
        whole_step, self._before = module.steps > self._before or batch_idx == 0, module.steps
        batches = trainer.accumulate_grad_batches * module.batches_per_step  # of a step, behind which it may stop
        proposed = self._proposed((1 + batches) * self._batch_seconds)
        self._agreed = max(self._agreed, self._agreement.a_step_later(proposed))
        if whole_step and (self._agreed or self._is_due(module)):  # else gradients of several batches are added up
            self._save(trainer, module)

    def on_validation_start(self, trainer: pl.Trainer, module: StudyModule) -> None:
        if not loops.is_fitting(trainer):
            return
        proposed = self._proposed(self._evaluation_seconds)
        unsaved = time.monotonic() - self._saved_at > WORTH_SAVING or module.steps >= self.plan.steps
        if self._is_due(module) or (unsaved and module.steps > self._saved_steps):
            proposed = max(proposed, SAVE)
        self._agreed = max(self._agreed, self._agreement.now(proposed))
        self.evaluation_pending = True
        if self._agreed:
            self._save(trainer, module)
        self.evaluation_pending = False
        self._evaluation_began = time.monotonic()
        stops.at_once()
        stops.exit_if_stopped()  # a signal may have come since `_proposed`

    def on_validation_end(self, trainer: pl.Trainer, module: StudyModule) -> None:
        if loops.is_fitting(trainer):
            self._evaluation_seconds = time.monotonic() - self._evaluation_began
            stops.deferred()

    def on_train_epoch_end(self, trainer: pl.Trainer, module: StudyModule) -> None:
        loops.forget_restart(trainer)
        if module.steps >= self.plan.steps > self._saved_steps:  # it ends without an evaluation
            self._agreed = self._agreement.now(max(self._proposed(self._evaluation_seconds), SAVE))
            self._save(trainer, module)

    def on_train_end(self, trainer: pl.Trainer, module: StudyModule) -> None:
        stops.at_once()
        stops.exit_if_stopped()

    def on_exception(self, trainer: pl.Trainer, module: StudyModule, exception: BaseException) -> None:
        stops.at_once()

    def _proposed(self, margin: float) -> int:
        """What this process wants: the status with which to stop, `SAVE` or 0.

        Args:
            margin: seconds that pass before it is asked again.
        """
        status = stops.stopped()
        if status is not None:
            return status
        if self.plan.limit is not None and self.plan.limit.reached(margin):
            return TIME_IS_OVER
        return SAVE if time.monotonic() - self._saved_at >= self.plan.seconds else 0

    def _is_due(self, module: StudyModule) -> bool:
        every = self.plan.every
        return bool(every) and module.steps % every == 0 and module.steps > self._saved_steps

    def _save(self, trainer: pl.Trainer, module: StudyModule) -> None:
        """Save, and stop if the processes have agreed to."""
        status, self._agreed = self._agreed, 0
        trainer.save_checkpoint(self.plan.file)
        self._saved_steps, self._saved_at = module.steps, time.monotonic()
        if status > SAVE:
            self.checkpoints.wait()
            trainer.strategy.barrier("saved")  # a process that ends makes torchrun end the others
            if status == TIME_IS_OVER:
                self.plan.limit.say(f"stopped at step {module.steps} of {self.plan.steps}, with a checkpoint")
            stops.leave(status)


class Resuming(pl.Callback):
    """Continues a restored training in the middle of its epoch; see `Saving`.

    Args:
        draws: seeds the generators.
    """

    def __init__(self, saving: Saving, draws: DerivedDraws):
        self.saving, self.draws, self._resumes = saving, draws, False

    def on_load_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict) -> None:
        self._resumes = True

    def on_train_start(self, trainer: pl.Trainer, module: StudyModule) -> None:
        if not self._resumes:
            return
        self._resumes = False
        whole_epoch = loops.batches_done(trainer) >= trainer.num_training_batches
        if not whole_epoch and module.steps < self.saving.plan.steps:
            self.saving.evaluation_pending = False  # there is none in a training that has been made longer
            loops.replay(trainer, lambda batch: self.draws.before_fetch(trainer, module, batch))
            return
        if self.saving.evaluation_pending:
            loops.evaluate(trainer, module)
        loops.skip_batches(trainer)
