"""How much a training has logged, which its checkpoint remembers, so that a resumed one logs every row once."""

from __future__ import annotations

import pytorch_lightning as pl
from pytorch_lightning.loggers import WandbLogger

from experiments.study.resume.metrics_file import MetricsLog
from experiments.study.wandb_runs.rows import logged_rows, recent_rows, restore_rows


def logged(trainer: pl.Trainer) -> dict:
    """The rows of each log; those of metrics.csv are on the disk afterwards. Only the first process has some."""
    if not trainer.is_global_zero:
        return {}
    rows = {}
    for logger in trainer.loggers:
        if isinstance(logger, MetricsLog):
            rows["metrics"] = logger.experiment.rows()
        elif isinstance(logger, WandbLogger):
            rows["wandb"], rows["wandb_recent"] = logged_rows(logger.experiment), recent_rows(logger.experiment)
    return rows


def restore_logs(trainer: pl.Trainer, rows: dict) -> None:
    """Continue every log behind the rows that a checkpoint knows of."""
    if not trainer.is_global_zero:
        return
    for logger in trainer.loggers:
        if isinstance(logger, MetricsLog):
            logger.experiment.restore(rows.get("metrics", 0))
        elif isinstance(logger, WandbLogger):
            restore_rows(logger.experiment, rows.get("wandb", 0), rows.get("wandb_recent", ()))
