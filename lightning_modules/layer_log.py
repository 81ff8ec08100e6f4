"""Measures of every layer on W&B: few keys that its automatic workspace shows, and many that are hidden.

A network of fifty gated layers has hundreds of curves, and W&B would create a panel for each. So every measure gets one
curve, the mean over the layers, and one picture, layer by epoch. The curves of single layers are logged as hidden keys:
they get no automatic panel, but a dashboard can use them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import ceil

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import WandbLogger

from lightning_modules.clock import planned_steps
from lightning_modules.layer_map import draw_layer_map

POINTS = 400
"""The most points of a curve in one training; W&B draws no more."""

PICTURES = 20
"""About how many times, at most, pictures are drawn in one training."""

STEP = "trainer/global_step"


class LayerLog:
    """Measures of a network's layers over a training.

    Keys: `GROUP/MEASURE`, the mean over the layers that have the measure; `GROUP/map`, the picture of all epochs so
    far; hidden, `layers/GROUP/MEASURE/LAYER`, where LAYER is `layer_key`.

    Args:
        group: the beginning of the keys.
        layers: depth and module name of each layer.
        measures: their names; slashes group them.
        limits: the range of all measures, (0, 1) for shares; None if every measure has its own range.
    """

    def __init__(
        self,
        group: str,
        layers: Sequence[tuple[int, str]],
        measures: Sequence[str],
        limits: tuple[float, float] | None = None,
    ):
        self.group, self.measures, self.limits = group, list(measures), limits
        self.layers = [layer_key(depth, name) for depth, name in layers]
        self.epochs: list[int] = []
        self.history: list[np.ndarray] = []  # (measures, layers) for each epoch
        self._shown = [f"{group}/{measure}" for measure in self.measures]
        self._hidden = [[f"layers/{group}/{measure}/{layer}" for layer in self.layers] for measure in self.measures]

    def hide(self, run) -> None:
        """Hide the keys of single layers from the automatic panels of a W&B run."""
        for keys in self._hidden:
            for key in keys:
                hide(run, key)

    def curves(self, values: np.ndarray) -> dict[str, float]:
        """The values to log at a step, by key.

        Args:
            values: (measures, layers); NaN where a layer does not have a measure.
        """
        logged: dict[str, float] = {}
        for shown, hidden, row in zip(self._shown, self._hidden, values.tolist(), strict=True):
            measured = [(key, value) for key, value in zip(hidden, row, strict=True) if value == value]
            logged.update(measured)
            if measured:
                logged[shown] = sum(value for _, value in measured) / len(measured)
        return logged

    def remember(self, epoch: int, values: np.ndarray) -> None:
        """Keep an epoch's measures for the picture."""
        self.epochs.append(epoch)
        self.history.append(values.astype(np.float32))

    def picture(self):
        """A figure with one panel for each measure, layer by epoch."""
        return draw_layer_map(self.epochs, self.layers, self.measures, np.stack(self.history), self.limits)

    def state_dict(self) -> dict:
        """Only tensors and plain lists, which `torch.load(weights_only=True)` accepts."""
        history = np.stack(self.history) if self.history else np.empty(0, np.float32)
        return {"epochs": list(self.epochs), "history": torch.from_numpy(history)}

    def load_state_dict(self, state_dict: dict) -> None:
        self.epochs = list(state_dict["epochs"])
        self.history = list(np.asarray(state_dict["history"], np.float32))


def layer_key(depth: int, name: str) -> str:
    """A layer's name in a W&B key, such as `007_layer2_0_bn1`: sorted by depth, without dots, which W&B reads as paths.

    The prefixes net., encoder. and model. are left out.
    """
    return f"{depth:03d}_" + re.sub(r"\W", "_", re.sub(r"^(net\.)?(encoder\.)?(model\.)?", "", name) or "norm")


def hide(run, key: str) -> None:
    """Hide one key of a W&B run from its automatic panels."""
    run.define_metric(key, step_metric=STEP, step_sync=True, hidden=True)


def wandb_runs(trainer: pl.Trainer) -> list:
    """The W&B runs that a training logs to; an empty list in all processes except the first."""
    if not trainer.is_global_zero:
        return []
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, WandbLogger)]


def steps_between(trainer: pl.Trainer) -> int:
    """Steps between two points of a curve: the trainer's `log_every_n_steps`, or more in long trainings."""
    return max(1, trainer.log_every_n_steps, ceil(planned_steps(trainer) / POINTS))


def is_drawn(trainer: pl.Trainer, epoch: int) -> bool:
    """Whether pictures are drawn after this epoch, counted from 1."""
    epochs = trainer.max_epochs or 0
    return epoch % max(1, ceil(epochs / PICTURES)) == 0 or epoch == epochs
