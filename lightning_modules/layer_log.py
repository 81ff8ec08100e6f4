"""What is measured of every layer, on W&B: few keys that its automatic workspace shows, and many that it does not.

A network of fifty gated layers has hundreds of curves. As plain keys each would become a panel of its own. So every
measure has one curve, its mean over the layers, and one picture, layer by epoch; the curves of the single layers are
logged as well, but hidden from automatic panels, for a dashboard to choose from.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import ceil, isfinite

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.loggers import WandbLogger

from lightning_modules.layer_map import draw_layer_map

POINTS = 400
"""Times at most that curves are given a point in one training; W&B draws no more of them than this by far."""

PICTURES = 20
"""Times at most, or one more, that the pictures are drawn anew in one training."""

STEP = "trainer/global_step"


class LayerLog:
    """Measures of a network's layers over a training.

    Keys: `GROUP/MEASURE`, the mean over the layers that have it; `GROUP/map`, the picture of all epochs up to now;
    hidden, `layers/GROUP/MEASURE/LAYER`, LAYER being `layer_key`.

    Args:
        group: what the keys begin with.
        layers: depth and module name of each layer.
        measures: what is measured; slashes group them.
        limits: the range of all measures, (0, 1) for shares; None where every measure has its own.
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
        self.history: list[np.ndarray] = []  # (measures, layers), one an epoch
        self._shown = [f"{group}/{measure}" for measure in self.measures]
        self._hidden = [[f"layers/{group}/{measure}/{layer}" for layer in self.layers] for measure in self.measures]

    def hide(self, run) -> None:
        """Say to a W&B run which keys are not to become panels by themselves."""
        for keys in self._hidden:
            for key in keys:
                hide(run, key)

    def curves(self, values: np.ndarray) -> dict[str, float]:
        """What to log at a step.

        Args:
            values: (measures, layers); NaN where a layer has no such measure.
        """
        logged: dict[str, float] = {}
        for shown, hidden, row in zip(self._shown, self._hidden, values.tolist(), strict=True):
            there = [(key, value) for key, value in zip(hidden, row, strict=True) if value == value]
            logged.update(there)
            if there:
                logged[shown] = sum(value for _, value in there) / len(there)
        return logged

    def remember(self, epoch: int, values: np.ndarray) -> None:
        """Keep an epoch's measures for the picture."""
        self.epochs.append(epoch)
        self.history.append(values.astype(np.float32))

    def picture(self):
        """Layer by epoch, a panel a measure."""
        return draw_layer_map(self.epochs, self.layers, self.measures, np.stack(self.history), self.limits)

    def state_dict(self) -> dict:
        """Only tensors and plain lists, which `torch.load(weights_only=True)` accepts."""
        import torch

        return {"epochs": list(self.epochs), "history": torch.from_numpy(np.stack(self.history))}

    def load_state_dict(self, state_dict: dict) -> None:
        self.epochs = list(state_dict["epochs"])
        self.history = list(np.asarray(state_dict["history"], np.float32))


def layer_key(depth: int, name: str) -> str:
    """A layer in a W&B key, such as `007_layer2_0_bn1`: in order of depth, without the dots that W&B takes for paths.

    Lightning's and this repository's own prefixes say nothing of a layer and are left out.
    """
    return f"{depth:03d}_" + re.sub(r"\W", "_", re.sub(r"^(net\.)?(encoder\.)?(model\.)?", "", name) or "norm")


def hide(run, key: str) -> None:
    """Keep one key of a W&B run from becoming a panel by itself."""
    run.define_metric(key, step_metric=STEP, step_sync=True, hidden=True)


def wandb_runs(trainer: pl.Trainer) -> list:
    """The W&B runs that a training logs to; none in all processes but the first."""
    if not trainer.is_global_zero:
        return []
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, WandbLogger)]


def steps_between(trainer: pl.Trainer, module: pl.LightningModule) -> int:
    """Steps from one point of the curves to the next: the trainer's own pace, or a slower one in long trainings."""
    steps = trainer.estimated_stepping_batches / getattr(module, "batches_per_step", 1)
    slow = ceil(steps / POINTS) if isfinite(steps) else 1
    return max(1, trainer.log_every_n_steps, slow)


def is_drawn(trainer: pl.Trainer, epoch: int) -> bool:
    """Whether the pictures are due after so many epochs."""
    epochs = trainer.max_epochs or 0
    return epoch % max(1, ceil(epochs / PICTURES)) == 0 or epoch == epochs
