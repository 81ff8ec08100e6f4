"""What the gates do while a network trains: to a table, to W&B, and as a picture across layers."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytorch_lightning as pl

from datamodules.whole_file import write_whole
from lightning_modules.gate_figures import NEAR, draw_gates
from lightning_modules.gate_record import GateRecord
from lightning_modules.layer_log import STEP, LayerLog, hide, is_drawn, layer_key, steps_between, wandb_runs
from lightning_modules.study_module import steps_of
from lightning_modules.weight_averaging import evaluated_network
from normshift.gates import GateReader, Place

BINS = 32
"""Of a histogram of rho, which is in [0, 1]."""


class GateTracker(pl.Callback):
    """Records SN's shares and BIN's rho before training and after each epoch, and logs them along the way.

    Writes `gates.parquet` (see `GateRecord`) after each epoch, and `gates.png`. To W&B go, every few steps, the
    measures of `GateMeasures` in the keys of `LayerLog`, `gates/mean/bn` and the like; after each epoch histograms of
    rho, `gates/rho/histogram` and, hidden, by layer; and pictures, `gates/map`, layer by epoch, and
    `gates/across_layers`. A network without gates leaves no trace. Where weights are averaged, all of this is of the
    average, which is the network that is evaluated and kept.

    Args:
        folder: where `gates.parquet` and `gates.png` go.
        columns: constant columns to add in front, such as {"norm": "sn", "seed": 0}.
    """

    def __init__(self, folder: Path, columns: dict | None = None):
        self.folder, self.columns = folder, columns or {}
        self.record: GateRecord | None = None
        self._loaded: dict = {}  # of a checkpoint, until the network's gates are known

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.record = None
        self._reader = GateReader(evaluated_network(trainer, module))
        if not self._reader.places or not trainer.is_global_zero:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self._measures = GateMeasures(self._reader.places)
        self.record = GateRecord(self._reader.places, self.columns)
        self.log = LayerLog("gates", self._measures.layers, self._measures.names, limits=(0, 1))
        if self._loaded:
            self.record.load_state_dict(self._loaded["record"])
            self.log.load_state_dict(self._loaded["log"])
        self._runs, self._every = wandb_runs(trainer), steps_between(trainer)
        self._logged = self._drawn = -1  # the last step whose curves were logged, the last epoch that was drawn
        for run in self._runs:
            self.log.hide(run)
            for key in self._measures.histogram_keys:
                hide(run, key)
        if not len(self.record):  # not after a resume
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
        if self.record is not None and self._drawn != self.record.times[-1][0]:  # it ended before its time
            self._to_wandb(steps_of(trainer, module), self._draw())

    def end_at(self, step: int) -> None:
        """Forget what was recorded after a step: the network of that step is the one that is kept and reported."""
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
        return {"record": self.record.state_dict(), "log": self.log.state_dict()}

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
        """Draw the pictures; what of them goes to W&B."""
        self._drawn = self.record.times[-1][0]
        across, by_epoch = self._draw_across(self.record.last()), self.folder / "gates-by-epoch.png"
        if not self._runs:
            return {}
        import wandb

        write_whole(by_epoch, partial(self.log.picture().savefig, format="png"), durable=False)
        return {"gates/across_layers": wandb.Image(str(across)), "gates/map": wandb.Image(str(by_epoch))}

    def _draw_across(self, frame: pd.DataFrame) -> Path:
        """Draw the gates of a frame across the layers; where that picture is."""
        file = self.folder / "gates.png"
        write_whole(file, partial(draw_gates(frame).savefig, format="png", dpi=120), durable=False)
        return file

    def _to_wandb(self, step: int, logged: dict) -> None:
        for run in self._runs if logged else []:
            run.log({STEP: step} | logged)


class GateMeasures:
    """What a layer's gates come to: all layers at once, from the values that a `GateReader` reads.

    SN: `mean/LABEL` and `var/LABEL`, the shares. BIN: `rho/mean`, and the shares of the channels near either end,
    `rho/near_0` (below `NEAR`) and `rho/near_1` (above 1 - `NEAR`).

    Args:
        places: what the values are.

    Attributes:
        layers: depth and name of each layer that has gates. names: of the measures. histogram_keys: of each
            layer's rho.
    """

    def __init__(self, places: list[Place]):
        self.layers = list(dict.fromkeys((place.depth, place.layer) for place in places))
        row = {layer: i for i, layer in enumerate(self.layers)}
        rhos = [place for place in places if place.statistic == "rho"]
        shares: dict[str, tuple[list[int], list[int]]] = {}  # by measure: which layers, and where their value stands
        for place in places:
            for i, label in enumerate(place.labels if place.statistic != "rho" else ()):
                layers, where = shares.setdefault(f"{place.statistic}/{label}", ([], []))
                layers.append(row[place.depth, place.layer])
                where.append(place.start + i)
        self.names = sorted(shares, key=lambda name: name.partition("/")[0])
        self.names += ["rho/mean", "rho/near_0", "rho/near_1"] if rhos else []
        self._shares = {name: (np.array(layers), np.array(where)) for name, (layers, where) in shares.items()}
        self._channels = np.array([len(place.labels) for place in rhos])
        self._rho = np.concatenate([np.arange(p.slice.start, p.slice.stop) for p in rhos]) if rhos else None
        self._rho_rows = np.array([row[place.depth, place.layer] for place in rhos])
        self.histogram_keys = [f"layers/gates/rho/histogram/{layer_key(place.depth, place.layer)}" for place in rhos]

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """The measures (measures, layers); NaN where a layer has no such gates."""
        measured = np.full((len(self.names), len(self.layers)), np.nan)
        for i, name in enumerate(self.names):
            if name in self._shares:
                layers, where = self._shares[name]
                measured[i, layers] = values[where]
        if self._rho is not None:
            rho, starts = values[self._rho].astype(np.float64), np.cumsum(self._channels) - self._channels
            for i, each in enumerate((rho, rho < NEAR, rho > 1 - NEAR), len(self.names) - 3):
                sums = np.add.reduceat(each.astype(np.float64), starts)
                measured[i, self._rho_rows] = sums / self._channels
        return measured

    def histograms(self, values: np.ndarray) -> dict:
        """W&B's histograms of rho by key: of each layer, and of all channels."""
        if self._rho is None:
            return {}
        import wandb

        edges = np.linspace(0, 1, BINS + 1)
        bins = np.minimum((values[self._rho] * BINS).astype(int), BINS - 1)  # 1 itself is in the last
        which = np.repeat(np.arange(len(self._channels)), self._channels)
        counts = np.bincount(which * BINS + bins, minlength=BINS * len(self._channels)).reshape(-1, BINS)
        each = zip([*self.histogram_keys, "gates/rho/histogram"], [*counts, counts.sum(0)], strict=True)
        return {key: wandb.Histogram(np_histogram=(count, edges)) for key, count in each}
