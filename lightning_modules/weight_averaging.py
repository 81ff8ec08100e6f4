"""The one network that a training is about: the one that is evaluated, recorded and kept."""

from __future__ import annotations

from collections.abc import Callable

import pytorch_lightning as pl
import torch.distributed as processes
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor, nn


class AveragedWeights(WeightAveraging):
    """Evaluates and keeps a moving average of weights and buffers, updated after each optimiser step.

    The running statistics are averaged like the weights, as ResNet-RS does (Bello et al., NeurIPS 2021). Of several
    processes the first one's buffers are evaluated by all, since they are those of the checkpoint.

    Args:
        update: moves averages, in place, towards current values (`optimization.ema_update`): torch's `multi_avg_fn`.
    """

    def __init__(self, update: Callable[[list[Tensor], list[Tensor], Tensor], None]):
        super().__init__(multi_avg_fn=update)

    @property
    def network(self) -> nn.Module | None:
        """The averaged network; None before the training is set up."""
        return None if self._average_model is None else self._average_model.module

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        self._device = trainer.strategy.root_device  # the network is not there yet; every update would cross over
        super().setup(trainer, module, stage)

    def on_validation_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.world_size > 1 and self.network is not None:
            share_buffers(self.network)
        super().on_validation_epoch_start(trainer, module)


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
