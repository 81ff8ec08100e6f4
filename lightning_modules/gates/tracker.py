"""Records the gates during a training: as a table, on W&B, and as a picture across layers."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytorch_lightning as pl

from datamodules.whole_file import write_whole
from lightning_modules.gates.figures import draw_gates
from lightning_modules.gates.panels import NEAR
from lightning_modules.gates.record import GateRecord
from lightning_modules.layer_log import STEP, LayerLog, hide, is_drawn, layer_key, steps_between, wandb_runs
from lightning_modules.study_module import steps_of
from lightning_modules.weight_averaging import evaluated_network
from normshift.gate_reader import GateReader, GateSlot

BINS = 32
"""Number of bins of [0, 1] in histograms of channels' gates."""


class GateTracker(pl.Callback):
    """Records gates (SN's shares, BIN's rho, a user's own) before training and after each epoch, and logs them.

    After each epoch it writes `gates.parquet` (see `GateRecord`) and `gates.png`. W&B gets, every few steps, the
    measures of `GateMeasures` with the keys of `LayerLog` (`gates/mean/bn` etc.), and after each epoch histograms of
    the channels' gates (`gates/rho/histogram`, and hidden ones for each layer) and the pictures `gates/map`, layer by
    epoch, and `gates/across_layers`. For networks without gates the callback does nothing. If weights are averaged, all
    of this is about the average, which is the network that is evaluated and saved.

    Args:
        folder: the folder for `gates.parquet` and `gates.png`.
        columns: constant columns that are added in front, such as {"norm": "sn", "seed": 0}.
    """

    def __init__(self, folder: Path, columns: dict | None = None):
        self.folder, self.columns = folder, columns or {}
        self.record: GateRecord | None = None
        self._loaded: dict = {}  # state of a checkpoint, until the network's gates are known

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.record = None
        self._reader = GateReader(evaluated_network(trainer, module))
        if not self._reader.slots or not trainer.is_global_zero:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self._measures = GateMeasures(self._reader.slots)
        self.record = GateRecord(self._reader.slots, self.columns)
        self.log = LayerLog("gates", self._measures.layers, self._measures.names, limits=(0, 1))
        self._logged = self._drawn = -1  # the last step whose curves were logged, the last epoch that was drawn
        if self._loaded:
            self.record.load_state_dict(self._loaded["record"])
            self.log.load_state_dict(self._loaded["log"])
            self._logged, self._drawn = self._loaded["logged"], self._loaded["drawn"]
        self._runs, self._every = wandb_runs(trainer), steps_between(trainer)
        for run in self._runs:
            self.log.hide(run)
            for key in self._measures.histogram_keys:
                hide(run, key)
        if not len(self.record):  # a new training, not a resumed one
            self._track(trainer, module, epoch=0)

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_) -> None:
        step = steps_of(trainer, module)
        if self.record is None or not self._runs or step % self._every or step == self._logged:
            return
        self._to_wandb(step, self._curves(step, self._measures(self._reader.read().numpy())))

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.record is not None:
            self._track(trainer, module, epoch=trainer.current_epoch + 1)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.record is not None and self._drawn != self.record.times[-1][0]:  # the training ended early
            self._to_wandb(steps_of(trainer, module), self._draw())

    def end_at(self, step: int) -> None:
        """Delete what was recorded after a step, because the network of that step is the one that is reported."""
        file = self.folder / "gates.parquet"
        if not file.is_file():
            return
        recorded = pd.read_parquet(file)
        until = recorded[recorded["step"] <= step]
        if 0 < len(until) < len(recorded):
            write_whole(file, lambda opened: until.to_parquet(opened, index=False))
            self._draw_across(until[until["step"] == until["step"].max()])

    def state_dict(self) -> dict:
        if self.record is None:
            return self._loaded
        shown = {"logged": self._logged, "drawn": self._drawn}
        return {"record": self.record.state_dict(), "log": self.log.state_dict()} | shown

    def load_state_dict(self, state_dict: dict) -> None:
        self._loaded = state_dict

    def _track(self, trainer: pl.Trainer, module: pl.LightningModule, epoch: int) -> None:
        step, values = steps_of(trainer, module), self._reader.read().numpy()
        measured = self._measures(values)
        self.record.add(epoch, step, values)
        self.log.remember(epoch, measured)
        self.record.write(self.folder / "gates.parquet")
        logged = self._draw() if is_drawn(trainer, epoch) else {}
        if self._runs:
            if step != self._logged:
                logged |= self._curves(step, measured)
            logged |= {"epoch": epoch} | self._measures.histograms(values)
        self._to_wandb(step, logged)

    def _curves(self, step: int, measured: np.ndarray) -> dict:
        self._logged = step
        return self.log.curves(measured)

    def _draw(self) -> dict:
        """Draw the pictures; returns those for W&B by key."""
        self._drawn = self.record.times[-1][0]
        across, by_epoch = self._draw_across(self.record.last()), self.folder / "gates-by-epoch.png"
        if not self._runs:
            return {}
        import wandb  # slow to import, and --wandb disabled needs none

        write_whole(by_epoch, partial(self.log.picture().savefig, format="png"), durable=False)
        return {"gates/across_layers": wandb.Image(str(across)), "gates/map": wandb.Image(str(by_epoch))}

    def _draw_across(self, frame: pd.DataFrame) -> Path:
        """Draw the gates of a frame across the layers; returns the picture's file."""
        file = self.folder / "gates.png"
        write_whole(file, partial(draw_gates(frame).savefig, format="png", dpi=120), durable=False)
        return file

    def _to_wandb(self, step: int, logged: dict) -> None:
        for run in self._runs if logged else []:
            run.log({STEP: step} | logged)


class GateMeasures:
    """Measures of all layers' gates, computed from the values of a `GateReader`.

    For mixtures (SN) these are the shares, `mean/LABEL` and `var/LABEL`. For gates of channels (BIN's rho) these are
    the mean, `rho/mean`, and the shares of channels near 0 and 1: `rho/near_0` (below `NEAR`) and `rho/near_1` (above
    1 - `NEAR`).

    Args:
        slots: the `slots` of the `GateReader`.

    Attributes:
        layers: depth and name of each layer with gates.
        names: names of the measures.
        histogram_keys: W&B keys of the layers' histograms.
    """

    def __init__(self, slots: list[GateSlot]):
        self.layers = list(dict.fromkeys((slot.depth, slot.layer) for slot in slots))
        row = {layer: i for i, layer in enumerate(self.layers)}
        shares: dict[str, tuple[list[int], list[int]]] = {}  # measure -> layers, and positions of their values
        for slot in slots:
            for i, label in enumerate(() if slot.by_channel else slot.labels):
                layers, where = shares.setdefault(f"{slot.statistic}/{label}", ([], []))
                layers.append(row[slot.depth, slot.layer])
                where.append(slot.start + i)
        own = [slot for slot in slots if slot.by_channel]
        statistics = dict.fromkeys(slot.statistic for slot in own)
        self._channels = [_Channels(s, [slot for slot in own if slot.statistic == s], row) for s in statistics]
        self.names = sorted(shares, key=lambda name: name.partition("/")[0])
        self.names += [name for channels in self._channels for name in channels.names]
        self._shares = {name: (np.array(layers), np.array(where)) for name, (layers, where) in shares.items()}
        self.histogram_keys = [key for channels in self._channels for key in channels.histogram_keys]

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """The measures, (measures, layers); NaN where a layer does not have these gates."""
        measured = np.full((len(self.names), len(self.layers)), np.nan)
        for i, name in enumerate(self.names):
            if name in self._shares:
                layers, where = self._shares[name]
                measured[i, layers] = values[where]
        first = len(self._shares)
        for i, channels in enumerate(self._channels):
            measured[first + 3 * i : first + 3 * i + 3, channels.rows] = channels.measures(values)
        return measured

    def histograms(self, values: np.ndarray) -> dict:
        """Histograms for W&B by key: for each layer, and for all channels together."""
        return {key: value for channels in self._channels for key, value in channels.histograms(values).items()}


class _Channels:
    """The gates of one statistic with one value for each channel, in all layers that have them."""

    def __init__(self, statistic: str, slots: list[GateSlot], row: dict[tuple[int, str], int]):
        self.statistic, self.names = statistic, [f"{statistic}/{name}" for name in ("mean", "near_0", "near_1")]
        self.rows = np.array([row[slot.depth, slot.layer] for slot in slots])
        self.counts = np.array([len(slot.labels) for slot in slots])
        self.where = np.concatenate([np.arange(slot.slice.start, slot.slice.stop) for slot in slots])
        layers = [layer_key(slot.depth, slot.layer) for slot in slots]
        self.histogram_keys = [f"layers/gates/{statistic}/histogram/{layer}" for layer in layers]

    def measures(self, values: np.ndarray) -> np.ndarray:
        """The values of `names` for each layer, (3, layers)."""
        gates, starts = values[self.where].astype(np.float64), np.cumsum(self.counts) - self.counts
        each = (gates, gates < NEAR, gates > 1 - NEAR)
        return np.stack([np.add.reduceat(values.astype(np.float64), starts) / self.counts for values in each])

    def histograms(self, values: np.ndarray) -> dict:
        import wandb  # slow to import, and --wandb disabled needs none

        edges = np.linspace(0, 1, BINS + 1)
        bins = np.minimum((values[self.where] * BINS).astype(int), BINS - 1)  # a value of 1 is in the last bin
        which = np.repeat(np.arange(len(self.counts)), self.counts)
        counts = np.bincount(which * BINS + bins, minlength=BINS * len(self.counts)).reshape(-1, BINS)
        keys = [*self.histogram_keys, f"gates/{self.statistic}/histogram"]
        each = zip(keys, [*counts, counts.sum(0)], strict=True)
        return {key: wandb.Histogram(np_histogram=(count, edges)) for key, count in each}
