"""Device and precision of the evaluation and prediction of trained networks."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import pytorch_lightning as pl

from experiments.study.endings import UsageError
from experiments.study.settings import devices
from experiments.study.training.quiet import quiet_lightning

if TYPE_CHECKING:
    from lightning_modules.study_module import StudyModule


def make_evaluator(flags, callbacks: list[pl.Callback] | None = None) -> pl.Trainer:
    """A trainer that evaluates on one device and does not log.

    Args:
        flags: with `gpus` and `precision`.

    Raises:
        UsageError: the flags ask for more than one GPU or for a missing one, or for a precision that the CPU does not
            support.
    """
    if (flags.gpus or 0) > 1:
        raise UsageError(f"--gpus {flags.gpus}: trained networks are run in one process; pass --gpus 1 or --gpus 0.")
    accelerator, _ = devices(flags)
    quiet_lightning()
    return pl.Trainer(
        accelerator=accelerator,
        devices=1,
        precision=flags.precision,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=bool(callbacks),
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=callbacks,
    )


def placed(trainer: pl.Trainer, module: StudyModule) -> StudyModule:
    """The module on the trainer's device, in its precision and in evaluation mode."""
    return trainer.precision_plugin.convert_module(module).to(trainer.strategy.root_device).eval()


def in_precision(trainer: pl.Trainer) -> AbstractContextManager:
    """Within it, networks run in the trainer's precision."""
    return trainer.precision_plugin.forward_context()
