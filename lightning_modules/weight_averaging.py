"""The one network that a training is about: the one that is evaluated, recorded and kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytorch_lightning as pl
import torch
import torch.distributed as processes
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.utilities import CombinedLoader
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from lightning_modules.study_module import steps_of
from normshift import update_statistics

STATISTICS = ("averaged", "reestimated")
"""Where an averaged network's running statistics come from."""

BATCHES = 200
"""Training batches, at most, over which running statistics are estimated anew."""


def decay_at(updates: int, decay: float, warmup: bool) -> float:
    """The decay of an average of weights after so many updates.

    With `warmup` min(decay, (1 + updates) / (10 + updates)), as TensorFlow's ExponentialMovingAverage has it, so that
    the average forgets its beginning; else the decay itself.
    """
    return min(decay, (1 + updates) / (10 + updates)) if warmup else decay


def moving_average(decay: float, warmup: bool) -> Callable[[list[Tensor], list[Tensor], Tensor], None]:
    """The `multi_avg_fn` of torch's AveragedModel: averages moved, in place, towards current values.

    It depends on nothing but the number of updates, which AveragedModel keeps in a buffer: a resumed training goes on.
    """

    def update(averages: list[Tensor], current: list[Tensor], updates: Tensor) -> None:
        now = decay_at(int(updates), decay, warmup) if warmup else decay
        get_ema_multi_avg_fn(now)(averages, current, updates)

    return update


def remembered(steps: int, decay: float, warmup: bool) -> float:
    """The share of its beginning that the average holds after so many steps."""
    return math.prod(decay_at(at, decay, warmup) for at in range(1, steps)) if warmup else decay**steps


class AveragedWeights(WeightAveraging):
    """Evaluates and keeps a moving average of weights and buffers, updated after each step.

    The running statistics are averaged like the weights, as ResNet-RS does (Bello et al., NeurIPS 2021), or estimated
    anew, before each evaluation, for the weights that came of the averaging (`normshift.update_statistics`). Of several
    processes the first one's buffers are evaluated by all, since they are those of the checkpoint.

    Args:
        update: moves averages, in place, towards current values (`moving_average`): torch's `multi_avg_fn`.
        statistics: of `STATISTICS`.
    """

    def __init__(self, update: Callable[[list[Tensor], list[Tensor], Tensor], None], statistics: str = "averaged"):
        super().__init__(multi_avg_fn=self._update)
        self.update, self.statistics = update, statistics

    @property
    def network(self) -> nn.Module | None:
        """The averaged network; None before the training is set up."""
        return None if self._average_model is None else self._average_model.module

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        self._device = trainer.strategy.root_device  # the network is not there yet; every update would cross over
        super().setup(trainer, module, stage)
        if self._average_model is not None:  # torch looks at the count in every step; for a GPU's, that means to wait
            self._average_model.n_averaged = self._average_model.n_averaged.cpu()

    def _update(self, averages: list[Tensor], current: list[Tensor], updates: Tensor) -> None:
        self.update(averages, current, self._average_model.n_averaged)  # and not the copy that has been sent to them

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_) -> None:
        steps = steps_of(trainer, module)  # where Lightning counts optimisers' steps, two of them would be two updates
        if steps > self._latest_update_step:
            self._average_model.update_parameters(module)
            self._latest_update_step = steps

    def on_validation_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.network is not None and self.statistics == "reestimated":
            self._reestimate(trainer)
        if trainer.world_size > 1 and self.network is not None:
            share_buffers(self.network)
        super().on_validation_epoch_start(trainer, module)

    def put_in_place(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Once a training has ended, make the module the average."""
        if self.network is not None:
            self.on_train_end(trainer, module)

    def _reestimate(self, trainer: pl.Trainer) -> None:
        def run(network: nn.Module, images: Tensor) -> None:
            with trainer.precision_plugin.forward_context():
                network(images)

        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices):  # a training that is evaluated more often must not draw other images
            update_statistics(self.network, _training_images(trainer), batches=BATCHES, run=run)


def _training_images(trainer: pl.Trainer) -> Iterator[Tensor]:
    """The images of training batches, of all of a batch's domains together, from a loader of their own."""
    for batch, _, _ in CombinedLoader(trainer.datamodule.train_dataloader(), "min_size"):
        parts = batch.values() if isinstance(batch, dict) else [batch]
        yield trainer.precision_plugin.convert_input(torch.cat([part[0] for part in parts]))


class SharedBuffers(pl.Callback):
    """Before each evaluation, gives all processes the first one's buffers, which are those of the checkpoint.

    After a step each process holds running statistics of its own images. DDP shares the first one's before the next
    forward pass in training, and an evaluation has none: so this changes nothing in what is learned.
    """

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.world_size > 1:
            share_buffers(module)


def share_buffers(network: nn.Module) -> None:
    """Overwrite the network's buffers in all processes by those of the first."""
    for work in [processes.broadcast(buffer, 0, async_op=True) for buffer in network.buffers()]:
        work.wait()


def evaluated_network(trainer: pl.Trainer, module: pl.LightningModule) -> nn.Module:
    """The network that is evaluated and kept while a training goes on: the average where weights are averaged."""
    averages = (callback.network for callback in trainer.callbacks if isinstance(callback, AveragedWeights))
    return next((network for network in averages if network is not None), module)
