"""What the gates do while a network trains: to a table, to W&B, and as a picture across layers."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytorch_lightning as pl
from pytorch_lightning.loggers import WandbLogger

from lightning_modules.gate_figures import draw_gates
from normshift import gates

PLACE = ["layer", "depth", "statistic", "label"]
"""The columns that say which gate a value belongs to; the same in every epoch."""


class GateTracker(pl.Callback):
    """Logs SN's softmaxed mean and variance weights and BIN's rho of every layer before training and after each epoch.

    Writes `gates.parquet` anew each time, one row a value: epoch, step, layer, depth, statistic, label, value.
    With W&B: for SN `gates/STATISTIC/LABEL/LAYER`, for BIN a histogram `gates/rho/LAYER` and its mean
    `gates/rho_mean/LAYER`; and the picture, `gates`. A network without gates leaves no trace.

    Args:
        folder: where `gates.parquet` and `gates.png` go.
        columns: constant columns to add in front, such as {"norm": "sn", "seed": 0}.
    """

    def __init__(self, folder: Path, columns: dict | None = None):
        self.folder, self.columns = folder, columns or {}
        self.frames: list[pd.DataFrame] = []  # one an epoch

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if not self.frames:  # not after a resume
            self._track(trainer, module, epoch=0)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._track(trainer, module, epoch=trainer.current_epoch + 1)

    def state_dict(self) -> dict:
        """The frames in plain lists, which `torch.load(weights_only=True)` accepts; what stays the same, only once."""
        if not self.frames:
            return {}
        return {
            "places": self.frames[0][PLACE].to_dict("list"),
            "times": pd.concat([frame[["epoch", "step"]].head(1) for frame in self.frames]).to_dict("records"),
            "values": [frame["value"].tolist() for frame in self.frames],
        }

    def load_state_dict(self, state_dict: dict) -> None:
        epochs = zip(state_dict["times"], state_dict["values"], strict=True)
        self.frames = [self._frame(time, state_dict["places"], values) for time, values in epochs]

    def _track(self, trainer: pl.Trainer, module: pl.LightningModule, epoch: int) -> None:
        found = gates(module) if trainer.is_global_zero else []
        if not found:
            return
        time = {"epoch": epoch, "step": trainer.global_step}
        each = [(gate.layer, gate.depth, gate.statistic, label) for gate in found for label in gate.labels]
        places = pd.DataFrame(each, columns=PLACE).to_dict("list")
        self.frames.append(self._frame(time, places, [value for gate in found for value in gate.values.tolist()]))
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / "gates.partial"  # a run killed while it writes keeps the epochs before
        pd.concat(self.frames).to_parquet(partial, index=False)
        partial.replace(self.folder / "gates.parquet")
        figure = draw_gates(self.frames[-1])
        figure.savefig(self.folder / "gates.png", dpi=120)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                self._to_wandb(logger, found, figure, time)

    def _frame(self, time: dict, places: dict[str, list], values: list[float]) -> pd.DataFrame:
        return pd.DataFrame(self.columns | time | places | {"value": values})

    @staticmethod
    def _to_wandb(logger: WandbLogger, found: list, figure, time: dict) -> None:
        import wandb

        values: dict = {"epoch": time["epoch"], "trainer/global_step": time["step"], "gates": wandb.Image(figure)}
        for gate in found:
            if gate.statistic == "rho":
                values[f"gates/rho/{gate.layer}"] = wandb.Histogram(
                    np_histogram=np.histogram(gate.values.numpy(), bins=32, range=(0, 1))
                )
                values[f"gates/rho_mean/{gate.layer}"] = gate.values.mean().item()
            else:
                shares = zip(gate.labels, gate.values.tolist(), strict=True)
                values |= {f"gates/{gate.statistic}/{label}/{gate.layer}": share for label, share in shares}
        logger.experiment.log(values)
