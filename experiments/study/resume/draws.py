"""Random numbers of a training as a function of its position, so that a checkpoint need not hold the generators."""

from __future__ import annotations

import random

import numpy as np
import pytorch_lightning as pl
import torch

from datamodules.sample_order import derived_seed

EPOCH, BATCH, FETCH = range(3)
"""What is drawn: an epoch's order, by loaders that draw it from torch's generator; in a batch's step; while the next
batch is read and moved to the device."""


class DerivedDraws(pl.Callback):
    """Seeds torch's, NumPy's and Python's global generators at every batch by (seed, epoch, batch, process).

    So dropout, mixup or stochastic depth of a step depend on its position alone: not on what an evaluation or a loader
    drew before, nor on where the training was interrupted. Every process has its own draws.

    Args:
        seed: of the training.
    """

    def __init__(self, seed: int):
        self.seed, self._begins = seed, 0

    def on_load_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict) -> None:
        self._begins = checkpoint["epoch"]

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._seed(trainer, module, EPOCH, self._begins)  # Lightning opens the first epoch's loader next

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.current_epoch > self._begins:  # that of the first is open already
            self._seed(trainer, module, EPOCH, trainer.current_epoch)

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch, batch_idx: int) -> None:
        self._seed(trainer, module, BATCH, trainer.current_epoch, batch_idx)

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs, batch, batch_idx) -> None:
        self.before_fetch(trainer, module, batch_idx + 1)

    def before_fetch(self, trainer: pl.Trainer, module: pl.LightningModule, batch_idx: int) -> None:
        """Seed for reading a batch, and for what is drawn while it is moved to the device."""
        self._seed(trainer, module, FETCH, trainer.current_epoch, batch_idx)

    def _seed(self, trainer: pl.Trainer, module: pl.LightningModule, what: int, epoch: int, batch: int = 0) -> None:
        seed = derived_seed(self.seed, what, epoch, batch, trainer.global_rank)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)  # `torch.manual_seed` takes a hundred times as long
        if module.device.type == "cuda":
            torch.cuda.manual_seed(seed)
