"""A Lightning trainer from a study's settings."""

from __future__ import annotations

import math
import sys
from datetime import timedelta
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import LearningRateMonitor
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities import rank_zero_only

from experiments.study.resume.checkpoint_files import LAST, SafeCheckpoints, newest, set_aside
from experiments.study.resume.dead_processes import EndsTogether
from experiments.study.resume.draws import DerivedDraws
from experiments.study.resume.ended import MODEL, restore_ended, write_ended
from experiments.study.resume.gradient_buckets import SameBuckets
from experiments.study.resume.kept import KeptNetworks
from experiments.study.resume.metrics_file import MetricsLog
from experiments.study.resume.patience import Patience
from experiments.study.resume.restarts import join_round
from experiments.study.resume.saving import Resuming, SavePlan, Saving
from experiments.study.settings import RunSettings
from experiments.study.task import Pace
from experiments.study.time_left import Timekeeper
from experiments.study.training.execution import refusals
from experiments.study.training.quiet import quiet_lightning
from experiments.study.training.training_bar import TrainingBar
from experiments.study.wandb_runs.rows import logged_rows
from experiments.study.wandb_runs.start import keep_rows_at_end, start_training
from lightning_modules.clock import EndsAt
from lightning_modules.evaluation_line import EvaluationLine
from lightning_modules.finite_training import FiniteTraining, NotFiniteError
from lightning_modules.gates.tracker import GateTracker
from lightning_modules.study_module import StudyModule
from lightning_modules.weight_averaging import AveragedWeights, SharedBuffers

quiet_lightning()

CHECKPOINTS = "checkpoints"
"""The folder of a training's checkpoints, in its own."""


def make_trainer(
    run: RunSettings, folder: Path, pace: Pace, callbacks: list[pl.Callback], about: dict, measure: str, seed: int,
    module: StudyModule, keeper: Timekeeper,
) -> pl.Trainer:  # fmt: skip
    """A trainer that logs to FOLDER/metrics.csv and to W&B, and saves to FOLDER/checkpoints/last.ckpt.

    Args:
        pace: how long it trains and how often it evaluates.
        about: the arm's settings, for W&B.
        measure: the one that is printed after each evaluation.
        seed: of the training.
        module: what will be trained.
        keeper: measures its time.
    """
    checkpoints = SafeCheckpoints()
    plan = SavePlan(
        progress_file(folder), pace.max_steps, run.flags.save_every, 60 * run.flags.save_minutes, run.time_limit
    )
    saving, draws = Saving(plan, checkpoints), DerivedDraws(seed)
    kept = KeptNetworks(plan.file.parent, run.flags.keep_best, run.flags.keep_every)
    patience = Patience(run.flags.patience, folder.name, pace.max_steps)
    own = _own_callbacks(folder, pace, measure, keeper)
    trainer = pl.Trainer(
        accelerator=run.accelerator,
        devices=run.devices,
        num_nodes=run.nodes,
        strategy=_together(not module.automatic_optimization, run.accelerator == "gpu") if run.world > 1 else "auto",
        precision=run.precision,
        max_epochs=math.ceil(pace.max_steps / pace.epoch_steps),
        limit_train_batches=pace.epoch_steps * pace.accumulate * module.batches_per_step,
        accumulate_grad_batches=pace.accumulate,
        gradient_clip_val=run.flags.clip,
        gradient_clip_algorithm="norm",
        deterministic=run.flags.deterministic,
        check_val_every_n_epoch=pace.evaluate_every,
        num_sanity_val_steps=0,
        log_every_n_steps=min(10, pace.epoch_steps),
        logger=[MetricsLog(folder), *_wandb(run.wandb, folder, about)],
        callbacks=[saving, draws, *own, *callbacks, kept, patience, Resuming(saving, draws)],
        plugins=[checkpoints],
        enable_checkpointing=False,  # `Saving` does it
        enable_model_summary=False,
        enable_progress_bar=False,  # `TrainingBar` is one
        use_distributed_sampler=False,  # the data module distributes samples itself, and evaluates none twice
    )
    # its handlers would end a training before the checkpoint, and wait for other processes inside a handler
    trainer._signal_connector.register_signal_handlers = lambda: None
    return trainer


def progress_file(folder: Path) -> Path:
    """The checkpoint from which a training in this folder continues."""
    return folder / CHECKPOINTS / LAST


def _together(several_losses: bool, gpu: bool) -> DDPStrategy:
    """Processes that share each batch. One may evaluate for hours while the others wait, hence the long timeout."""
    timeout = timedelta(days=1)
    join_round(timeout, gpu)
    return DDPStrategy(timeout=timeout, find_unused_parameters=several_losses)


def _own_callbacks(folder: Path, pace: Pace, measure: str, keeper: Timekeeper) -> list[pl.Callback]:
    """The callbacks of every training."""
    return [
        LearningRateMonitor("step"),
        keeper,
        TrainingBar(folder.name, pace.max_steps, keeper.left),
        EvaluationLine(folder.name, measure, pace.max_steps, keeper.left),
        EndsTogether(),
        SameBuckets(),
        EndsAt(pace.max_steps),
        SharedBuffers(),
        FiniteTraining(),
    ]


def train(
    trainer: pl.Trainer, module: StudyModule, data: pl.LightningDataModule, folder: Path, run: RunSettings
) -> None:
    """Train to the end, evaluate the network, and write the selected one to checkpoints/model.ckpt.

    A resumed run continues from the newest whole checkpoint in the folder, if there is one.

    Raises:
        NotFiniteError: the training left the finite numbers; last.ckpt is from before, and the W&B run is ended as
            failed.
        UsageError: the training cannot continue from its checkpoint; or an operation has no deterministic form, or the
            network cannot be compiled, as flags asked for.
    """
    saving = next(callback for callback in trainer.callbacks if isinstance(callback, Saving))
    checkpoints = saving.plan.file.parent
    if run.resume and restore_ended(checkpoints, trainer, module, saving.plan.steps):
        return
    try:
        with refusals():
            trainer.fit(module, data, ckpt_path=progress_of(checkpoints, module) if run.resume else None)
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
    trainer.save_checkpoint(checkpoints / MODEL, weights_only=True)
    if trainer.is_global_zero:
        saving.checkpoints.wait()
        early = run.flags.patience is not None and module.steps < saving.plan.steps
        write_ended(checkpoints, trainer, module, early)


def progress_of(checkpoints: Path, module: StudyModule) -> Path | None:
    """The checkpoint from which a training continues; damaged ones are set aside, with a sentence."""
    if rank_zero_only.rank == 0:
        for sentence in set_aside(checkpoints):
            print(sentence, file=sys.stderr, flush=True)
    return newest(checkpoints, module)


def end_wandb(trainer: pl.Trainer, failed: str = "") -> None:
    """End the W&B run, so that the next training starts its own.

    Args:
        failed: why the training failed; the run's summary then says so under "failed", and its state is failed.
    """
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger) and trainer.is_global_zero:
            if failed:
                logger.experiment.summary["failed"] = failed
            else:
                keep_rows_at_end(Path(logger.save_dir), logged_rows(logger.experiment))
            logger.experiment.finish(exit_code=1 if failed else 0)


def _wandb(mode: str, folder: Path, about: dict) -> list[WandbLogger]:
    if mode == "disabled":
        return []
    run, experiment = folder.parent.name, None
    if rank_zero_only.rank == 0:
        experiment = start_training(mode, folder, run, f"{run}-{folder.name}", about)
        experiment.define_metric("trainer/global_step")
        experiment.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    return [WandbLogger(experiment=experiment, save_dir=folder)]
