"""Moving averages of weights, and which network of a training is evaluated, recorded and saved."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytorch_lightning as pl
import torch
import torch.distributed as processes
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.utilities import CombinedLoader
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from datamodules.sample_order import from_start
from lightning_modules.study_module import steps_of
from normshift import update_statistics

STATISTICS = ("averaged", "reestimated")
"""How the running statistics of an averaged network are computed."""

BATCHES = 200
"""The most training batches for estimating running statistics again."""


def decay_at(updates: int, decay: float, warmup: bool) -> float:
    """The decay of an average of weights after a number of updates.

    With `warmup` it is min(decay, (1 + updates) / (10 + updates)), as in TensorFlow's ExponentialMovingAverage, so that
    the average forgets the initial weights faster. Otherwise it is `decay`.
    """
    return min(decay, (1 + updates) / (10 + updates)) if warmup else decay


def moving_average(decay: float, warmup: bool) -> Callable[[list[Tensor], list[Tensor], Tensor], None]:
    """The `multi_avg_fn` for torch's AveragedModel, which moves averages, in place, towards current values.

    It depends only on the number of updates, which AveragedModel has in a buffer, so trainings can be resumed.
    """

    def update(averages: list[Tensor], current: list[Tensor], updates: Tensor) -> None:
        now = decay_at(int(updates), decay, warmup) if warmup else decay
        get_ema_multi_avg_fn(now)(averages, current, updates)

    return update


def remembered(steps: int, decay: float, warmup: bool) -> float:
    """The share of the initial weights in the average after a number of steps."""
    return math.prod(decay_at(at, decay, warmup) for at in range(1, steps)) if warmup else decay**steps


class AveragedWeights(WeightAveraging):
    """Evaluates and saves a moving average of weights and buffers, which is updated after each step.

    Running statistics are averaged like the weights, as in ResNet-RS (Bello et al., NeurIPS 2021), or estimated again
    with the averaged weights before each evaluation (`normshift.update_statistics`). With several processes, all
    evaluate with the buffers of the first, because the checkpoint contains those.

    Args:
        update: moves averages, in place, towards current values (`moving_average`), as torch's `multi_avg_fn`.
        statistics: one of `STATISTICS`.
    """

    def __init__(self, update: Callable[[list[Tensor], list[Tensor], Tensor], None], statistics: str = "averaged"):
        super().__init__(multi_avg_fn=self._update)
        self.update, self.statistics = update, statistics

    @property
    def network(self) -> nn.Module | None:
        """The averaged network; None before the training is set up."""
        return None if self._average_model is None else self._average_model.module

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        self._device = trainer.strategy.root_device  # the network is still on the CPU, the average belongs on the GPU
        super().setup(trainer, module, stage)
        if self._average_model is not None:  # torch reads the count in every step, which would wait for a GPU
            self._average_model.n_averaged = self._average_model.n_averaged.cpu()

    def _update(self, averages: list[Tensor], current: list[Tensor], updates: Tensor) -> None:
        self.update(averages, current, self._average_model.n_averaged)  # `updates` is a copy on the GPU

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_) -> None:
        steps = steps_of(trainer, module)  # Lightning's count would update twice for two optimisers
        if steps > self._latest_update_step:
            self._average_model.update_parameters(module)
            self._latest_update_step = steps

    def on_validation_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.network is not None and self.statistics == "reestimated":
            self._reestimate(trainer)
        if trainer.world_size > 1 and self.network is not None:
            share_buffers(self.network)
        super().on_validation_epoch_start(trainer, module)

    @contextmanager
    def in_module(self, module: pl.LightningModule) -> Iterator[None]:
        """Within it the module has the averaged weights and buffers."""
        self._swap_models(module)
        try:
            yield
        finally:
            self._swap_models(module)

    def put_in_place(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """After the training, copy the average into the module."""
        if self.network is not None:
            self.on_train_end(trainer, module)

    def _reestimate(self, trainer: pl.Trainer) -> None:
        def run(network: nn.Module, images: Tensor) -> None:
            with trainer.precision_plugin.forward_context():
                network(images)

        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices):  # evaluations must not change the training's random numbers
            update_statistics(self.network, _training_images(trainer), batches=BATCHES, run=run)


def _training_images(trainer: pl.Trainer) -> Iterator[Tensor]:
    """The images of the epoch's training batches, from a separate loader; those of several domains are joined."""
    loaders = CombinedLoader(trainer.datamodule.train_dataloader(), "min_size")
    for loader in loaders.flattened:
        from_start(loader, trainer.current_epoch)
    for batch, _, _ in loaders:
        parts = batch.values() if isinstance(batch, dict) else [batch]
        yield trainer.precision_plugin.convert_input(torch.cat([part[0] for part in parts]))


class SharedBuffers(pl.Callback):
    """Copies the buffers of the first process, which the checkpoint contains, to all processes before each evaluation.

    After a step each process has running statistics of its own images. In training, DDP copies those of the first
    process before the next forward pass, but not before an evaluation. So this does not change the training.
    """

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.world_size > 1:
            share_buffers(module)


def share_buffers(network: nn.Module) -> None:
    """Overwrite the network's buffers in all processes with those of the first."""
    for work in [processes.broadcast(buffer, 0, async_op=True) for buffer in network.buffers()]:
        work.wait()


def evaluated_network(trainer: pl.Trainer, module: pl.LightningModule) -> nn.Module:
    """The network that is evaluated and saved during a training: the average if weights are averaged."""
    averages = (callback.network for callback in trainer.callbacks if isinstance(callback, AveragedWeights))
    return next((network for network in averages if network is not None), module)
