"""What the gates do while a network trains: to a table, to W&B, and as a picture across layers."""

from pathlib import Path

import pandas as pd
import pytorch_lightning as pl
from pytorch_lightning.loggers import WandbLogger

from lightning_modules.gate_figures import draw_gates
from normshift import gates


class GateTracker(pl.Callback):
    """Logs SN's softmaxed mean and variance weights and BIN's rho of every layer before training and after each epoch.

    Writes `gates.parquet` anew each time, one row a value: epoch, step, layer, depth, norm, statistic, label, value.
    With W&B: for SN `gates/STATISTIC/LABEL/LAYER`, for BIN a histogram and the mean `gates/rho/LAYER`; and the picture.
    A network without gates leaves no trace.

    Args:
        folder: where `gates.parquet` and `gates.png` go.
        columns: constant columns to add in front, such as {"norm": "sn", "seed": 0}.
    """

    def __init__(self, folder: Path, columns: dict | None = None):
        self.folder, self.columns = folder, columns or {}
        self.rows: list[dict] = []

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if not self.rows:  # not after a resume
            self._track(trainer, module, epoch=0)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._track(trainer, module, epoch=trainer.current_epoch + 1)

    def state_dict(self) -> dict:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict) -> None:
        self.rows = state_dict["rows"]

    def _track(self, trainer: pl.Trainer, module: pl.LightningModule, epoch: int) -> None:
        found = gates(module) if trainer.is_global_zero else []
        if not found:
            return
        step = trainer.global_step
        for gate in found:
            about = {"epoch": epoch, "step": step, "layer": gate.layer, "depth": gate.depth, "statistic": gate.statistic}
            self.rows += [
                self.columns | about | {"label": label, "value": value}
                for label, value in zip(gate.labels, gate.values.tolist(), strict=True)
            ]
        frame = pd.DataFrame(self.rows)
        self.folder.mkdir(parents=True, exist_ok=True)
        frame.to_parquet(self.folder / "gates.parquet", index=False)
        figure = draw_gates(frame)
        figure.savefig(self.folder / "gates.png", dpi=120)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                self._to_wandb(logger, found, figure, epoch, step)

    @staticmethod
    def _to_wandb(logger: WandbLogger, found: list, figure, epoch: int, step: int) -> None:
        import wandb

        values: dict = {"epoch": epoch, "trainer/global_step": step, "gates": wandb.Image(figure)}
        for gate in found:
            if gate.statistic == "rho":
                values[f"gates/rho/{gate.layer}"] = wandb.Histogram(gate.values.numpy(), num_bins=32)
                values[f"gates/rho_mean/{gate.layer}"] = gate.values.mean().item()
            else:
                shares = zip(gate.labels, gate.values.tolist(), strict=True)
                values |= {f"gates/{gate.statistic}/{label}/{gate.layer}": share for label, share in shares}
        logger.experiment.log(values)
