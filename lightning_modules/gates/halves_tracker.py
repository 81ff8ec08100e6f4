"""Statistics of the outputs of IBN-Net's two halves during a training, on W&B as curves and as a picture."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from lightning_modules.layer_log import STEP, LayerLog, is_drawn, steps_between, wandb_runs
from lightning_modules.study_module import steps_of
from lightning_modules.weight_averaging import evaluated_network
from normshift import IBN2d, norm_layers

MEASURES = ("in_mean", "in_std", "bn_mean", "bn_std", "bn_between_images")


class HalvesTracker(pl.Callback):
    """Logs, for every `IBN2d`, mean and standard deviation of the outputs of its IN half and its BN half.

    `in_mean`, `in_std`, `bn_mean`, `bn_std` are computed over a training batch; the standard deviation is the root of
    the channels' mean variance. `bn_between_images` is the share of the BN half's variance that is between the means of
    the images. An instance norm removes this part, so in the IN half it is 0 by construction.

    If weights are averaged, the measures are those of the average, which is the network that is evaluated and saved. It
    processes the same images in evaluation mode, so that neither its state nor any random number changes.

    The measures are taken in the first batch of each epoch and every few steps; between these there are no hooks. They
    are logged to W&B only, with the keys of `LayerLog`: `ibn/in_mean` etc., hidden ones for each layer, and the picture
    `ibn/map`. Without W&B, or in a network without `IBN2d`, the callback does nothing.
    """

    def __init__(self):
        self.log: LayerLog | None = None
        self._loaded: dict = {}  # state of a checkpoint, until the network's layers are known
        self._measured: np.ndarray | None = None  # the last measures
        self._handles: list = []
        self._measures: dict[int, Tensor] = {}
        self._images: Tensor | None = None

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._network = evaluated_network(trainer, module)
        norms = enumerate(norm_layers(self._network).items())
        layers = {(i, name): layer for i, (name, layer) in norms if isinstance(layer, IBN2d)}
        self._runs, self._layers, self.log = wandb_runs(trainer), list(layers.values()), None
        if not self._layers or not self._runs:
            return
        self.log, self._drawn, self._measured = LayerLog("ibn", list(layers), MEASURES), -1, None
        if self._loaded:
            self.log.load_state_dict(self._loaded["log"])
            measured, self._drawn = self._loaded["measured"], self._loaded["drawn"]
            self._measured = None if measured is None else measured.numpy()
        for run in self._runs:
            self.log.hide(run)
        self._every = steps_between(trainer)

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch, batch_idx: int) -> None:
        if self.log is not None and (batch_idx == 0 or (steps_of(trainer, module) + 1) % self._every == 0):
            hooks = (layer.register_forward_hook(partial(self._measure, i)) for i, layer in enumerate(self._layers))
            self._handles = list(hooks)
            if self._network is not module:
                self._handles.append(module.register_forward_pre_hook(self._keep_images))
            torch.compiler.set_stance("force_eager")  # in this batch: compiled code would not run the hooks

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_) -> None:
        if not self._handles:
            return
        if self._images is not None:
            with trainer.precision_plugin.forward_context():
                run_in_evaluation_mode(self._network, self._images)
            self._images = None
        self._unhook()
        if len(self._measures) == len(self._layers):  # fewer if a layer did not run
            measures = torch.stack([self._measures[i] for i in range(len(self._layers))]).cpu().numpy()
            self._measured = measures.T.astype(np.float64)
            self._to_wandb(steps_of(trainer, module), self.log.curves(self._measured))
        self._measures = {}

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.log is None or self._measured is None:
            return
        epoch = trainer.current_epoch + 1
        self.log.remember(epoch, self._measured)
        if is_drawn(trainer, epoch):
            self._draw(steps_of(trainer, module))

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.log is not None and self.log.epochs and self._drawn != self.log.epochs[-1]:  # the training ended early
            self._draw(steps_of(trainer, module))

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        self._unhook()

    def state_dict(self) -> dict:
        if self.log is None:
            return self._loaded
        measured = None if self._measured is None else torch.from_numpy(self._measured)
        return {"log": self.log.state_dict(), "measured": measured, "drawn": self._drawn}

    def load_state_dict(self, state_dict: dict) -> None:
        self._loaded = state_dict

    def _keep_images(self, module: nn.Module, inputs: tuple) -> None:
        if isinstance(inputs[0], Tensor):  # DDP also calls the module with a whole batch
            self._images = inputs[0].detach()

    def _measure(self, i: int, layer: IBN2d, inputs: tuple, output: Tensor) -> None:
        self._measures[i] = halves(layer, output)

    def _unhook(self) -> None:
        if self._handles:
            torch.compiler.set_stance("default")
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _draw(self, step: int) -> None:
        import wandb  # slow to import, and --wandb disabled needs none

        self._drawn = self.log.epochs[-1]
        self._to_wandb(step, {"ibn/map": wandb.Image(self.log.picture())})

    def _to_wandb(self, step: int, logged: dict) -> None:
        for run in self._runs:
            run.log({STEP: step} | logged)


@torch.no_grad()
def run_in_evaluation_mode(network: nn.Module, images: Tensor) -> None:
    """Run a network on images in evaluation mode, and restore the mode of each of its modules."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    network(images)
    for module, mode in modes.items():
        module.training = mode


@torch.no_grad()
def halves(layer: IBN2d, output: Tensor) -> Tensor:
    """`MEASURES` of an IBN layer's output (N, C, H, W): float32, (5,), on its device."""
    within, mean = (part.float() for part in torch.var_mean(output, dim=(2, 3), correction=0))  # (N, C) each
    means_of, variances_of = (
        dict(zip(layer.parts(), each.tensor_split([layer.first], 1), strict=True)) for each in (mean, within)
    )
    found = []
    for name in ("IN", "BN"):
        means, variances = means_of[name], variances_of[name]
        between = means.var(0, correction=0).mean()
        total = between + variances.mean()
        found += [means.mean(), total.sqrt()]
    return torch.stack([*found, between / total.clamp(min=1e-12)])
