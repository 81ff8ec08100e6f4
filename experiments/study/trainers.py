"""A Lightning trainer from a study's settings."""

from __future__ import annotations

import atexit
import math
import os
import re
import signal
from datetime import timedelta
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint, RichProgressBar
from pytorch_lightning.loggers import CSVLogger, WandbLogger
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities import rank_zero_only

from experiments.study.endings import UsageError
from experiments.study.quiet import quiet_lightning
from experiments.study.run_parts import set_aside
from experiments.study.settings import RunSettings
from experiments.study.stops import stopped
from experiments.study.task import Pace
from experiments.study.wandb_runs.start import start_wandb
from lightning_modules.checkpoint_files import fault_of
from lightning_modules.clock import EndsAt
from lightning_modules.evaluation_line import EvaluationLine
from lightning_modules.finite_training import FiniteTraining, NotFiniteError
from lightning_modules.gates.tracker import GateTracker
from lightning_modules.study_module import StudyModule
from lightning_modules.weight_averaging import AveragedWeights, SharedBuffers

quiet_lightning()


class EndsOthers(pl.Callback):
    """When a signal stops the first process, also end the processes that Lightning started.

    They would wait for it inside a collective operation, where no signal reaches them. Lightning's observer must not
    watch them: it would kill this process, which writes the report of the results so far, when one of them ends.
    """

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        if stage == "fit" and trainer.strategy.launcher is not None:
            atexit.register(self._end, trainer.strategy.launcher)  # a signal may also come after the training

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, error: BaseException) -> None:
        self._end(trainer.strategy.launcher)

    @staticmethod
    def _end(launcher) -> None:
        if stopped() is not None and getattr(launcher, "procs", None):
            launcher.kill(signal.SIGKILL)
            launcher.procs.clear()


class OwnDraws(pl.Callback):
    """Gives every process its own random crops, flips, dropout masks and mixup pairs.

    Lightning gives all processes one seed, so that they start with the same network.
    """

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        torch.manual_seed(torch.initial_seed() + 10_007 * trainer.global_rank)


class MetricsKept(pl.Callback):
    """Writes the log before each checkpoint, so that after kill -9 no step before it is missing."""

    def on_save_checkpoint(self, trainer: pl.Trainer, *_) -> None:
        for logger in trainer.loggers:
            logger.save()


def make_trainer(
    run: RunSettings,
    folder: Path,
    pace: Pace,
    callbacks: list[pl.Callback],
    about: dict,
    measure: str,
    batches_per_step: int = 1,
    several_losses: bool = False,
) -> pl.Trainer:
    """A trainer that logs to FOLDER/metrics.csv and to W&B, and keeps FOLDER/checkpoints/last.ckpt.

    Args:
        pace: how long it trains and how often it evaluates.
        about: the arm's settings, for W&B.
        measure: the one that is printed after each evaluation.
        batches_per_step: the module's (`StudyModule`).
        several_losses: a training step goes backward more than once, or not through all of the module's parameters.
    """
    if rank_zero_only.rank == 0:
        set_aside(folder / "metrics.csv")
    loggers = [CSVLogger(folder, name="", version="", flush_logs_every_n_steps=50), *_wandb(run.wandb, folder, about)]
    return pl.Trainer(
        accelerator=run.accelerator,
        devices=run.devices,
        num_nodes=run.nodes,
        strategy=_together(several_losses) if run.world > 1 else "auto",
        precision=run.precision,
        max_epochs=math.ceil(pace.max_steps / pace.epoch_steps),
        limit_train_batches=pace.epoch_steps * pace.accumulate * batches_per_step,
        accumulate_grad_batches=pace.accumulate,
        check_val_every_n_epoch=pace.evaluate_every,
        num_sanity_val_steps=0,
        log_every_n_steps=min(10, pace.epoch_steps),
        logger=loggers,
        callbacks=[*_own_callbacks(folder, pace, measure), *callbacks],
        enable_model_summary=False,
        use_distributed_sampler=False,  # the data module distributes samples itself, and evaluates none twice
    )


def _together(several_losses: bool) -> DDPStrategy:
    """Processes that share each batch. One may evaluate for hours while the others wait, hence the long timeout."""
    return DDPStrategy(timeout=timedelta(days=1), find_unused_parameters=several_losses)


def _own_callbacks(folder: Path, pace: Pace, measure: str) -> list[pl.Callback]:
    """The callbacks of every training."""
    return [
        ModelCheckpoint(
            folder / "checkpoints", filename="last", enable_version_counter=False, save_on_train_epoch_end=True
        ),
        LearningRateMonitor("step"),
        RichProgressBar(),
        EvaluationLine(folder.name, measure, pace.max_steps),
        OwnDraws(),
        EndsOthers(),
        EndsAt(pace.max_steps),
        MetricsKept(),
        SharedBuffers(),
        FiniteTraining(),
    ]


def train(trainer: pl.Trainer, module: StudyModule, data: pl.LightningDataModule, resume: bool) -> None:
    """Train to the end, evaluate the network, and write the selected one to checkpoints/model.ckpt.

    Args:
        resume: continue from checkpoints/last.ckpt, if there is one.

    Raises:
        NotFiniteError: the training left the finite numbers; last.ckpt is of the last epoch that ended in them, and the
            W&B run is ended as failed.
        UsageError: the training cannot continue from last.ckpt.
    """
    last = Path(trainer.checkpoint_callback.dirpath) / "last.ckpt"
    progress = last if resume and os.path.lexists(last) else None
    if progress and (fault := fault_of_progress(progress, module)):
        part = last.parent.parent.name
        raise UsageError(f"--resume: {last} {fault}: remove it, and --resume trains {part} from the start.")
    try:
        trainer.fit(module, data, ckpt_path=progress)
        if module.evaluated_at != module.steps:
            trainer.validate(module, data, verbose=False)
        for callback in trainer.callbacks:
            if isinstance(callback, AveragedWeights):
                callback.put_in_place(trainer, module)  # also if the training had ended before
        counts = (module.selected or {}).get("step")  # the checkpoint of the selected evaluation
        module.take_selected()
        for callback in trainer.callbacks:
            if isinstance(callback, GateTracker) and counts is not None and trainer.is_global_zero:
                callback.end_at(counts)
    except NotFiniteError as error:
        end_wandb(trainer, failed=str(error))
        raise
    trainer.save_checkpoint(last.with_name("model.ckpt"), weights_only=True)


def fault_of_progress(last: Path, module: pl.LightningModule) -> str | None:
    """Why a training cannot continue from a checkpoint, as the end of a sentence that begins with its path."""
    fault = fault_of(last)
    if fault:
        return re.split("[:,]", fault)[0]  # the rest is advice on initial weights
    try:
        kept = torch.load(last, map_location="cpu", mmap=True, weights_only=False)  # as Lightning reads it
    except Exception:  # unpickling a damaged file raises errors of many kinds
        return "is damaged"
    if not isinstance(kept, dict) or not PROGRESS.issubset(kept) or not isinstance(kept["state_dict"], dict):
        return "is not the checkpoint of a training under way"
    there = {key: value.shape for key, value in module.state_dict().items()}
    if {key: getattr(value, "shape", None) for key, value in kept["state_dict"].items()} != there:
        return "is of another network"
    return None


PROGRESS = {"state_dict", "optimizer_states", "lr_schedulers", "loops", "study", "pytorch-lightning_version"}
"""Keys of a checkpoint from which a training can continue."""


def forget_progress(trainer: pl.Trainer) -> None:
    """Remove checkpoints/last.ckpt: when there are results, the optimiser's state is no longer needed."""
    (Path(trainer.checkpoint_callback.dirpath) / "last.ckpt").unlink(missing_ok=True)


def end_wandb(trainer: pl.Trainer, failed: str = "") -> None:
    """End the W&B run, so that the next training starts its own.

    Args:
        failed: why the training failed; the run's summary then says so under "failed", and its state is failed.
    """
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger) and trainer.is_global_zero:
            if failed:
                logger.experiment.summary["failed"] = failed
            logger.experiment.finish(exit_code=1 if failed else 0)


def _wandb(mode: str, folder: Path, about: dict) -> list[WandbLogger]:
    if mode == "disabled":
        return []
    run, experiment = folder.parent.name, None
    if rank_zero_only.rank == 0:
        experiment = start_wandb(mode, folder, run, f"{run}-{folder.name}", about)
        experiment.define_metric("trainer/global_step")
        experiment.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    return [WandbLogger(experiment=experiment, save_dir=folder)]
