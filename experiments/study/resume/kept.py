"""Networks that are kept beside the last one: that of the best evaluation, and those after every so many steps."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytorch_lightning as pl

from experiments.study.resume.loops import is_fitting
from lightning_modules.measures import measure_of
from lightning_modules.study_module import StudyModule
from lightning_modules.weight_averaging import AveragedWeights

BEST = "best.ckpt"


class KeptNetworks(pl.Callback):
    """Writes best.ckpt (--keep-best) and step-N.ckpt (--keep-every): complete networks, as model.ckpt is.

    The best evaluation is that with the best headline, averaged over the domains of the training where domains have a
    role (to choose by a target would be to look at what is to be predicted), else over all of them. Where weights are
    averaged, the average is kept, which is the network that is evaluated.

    Args:
        folder: of the files. best: keep the best. every: steps; None keeps none.
    """

    def __init__(self, folder: Path, best: bool, every: int | None):
        self.folder, self.best, self.every = folder, best, every
        self.score: float | None = None

    def state_dict(self) -> dict:
        return {"score": self.score}

    def load_state_dict(self, state_dict: dict) -> None:
        self.score = state_dict["score"]

    def on_train_start(self, trainer: pl.Trainer, module: StudyModule) -> None:
        self._steps = module.steps

    def on_train_batch_end(self, trainer: pl.Trainer, module: StudyModule, *_) -> None:
        if self.every and module.steps > self._steps and module.steps % self.every == 0:
            self._keep(trainer, module, f"step-{module.steps}.ckpt")
        self._steps = module.steps

    def on_validation_end(self, trainer: pl.Trainer, module: StudyModule) -> None:
        if not self.best or not is_fitting(trainer):
            return
        score = selection_score(module.results(), module.headline)
        sign = -1 if measure_of(module.headline).smaller_is_better else 1
        if score is not None and (self.score is None or sign * score > sign * self.score):
            self.score = score
            self._keep(trainer, module, BEST)

    def _keep(self, trainer: pl.Trainer, module: StudyModule, name: str) -> None:
        averages = [callback for callback in trainer.callbacks if isinstance(callback, AveragedWeights)]
        with averages[0].in_module(module) if averages else nullcontext():
            trainer.save_checkpoint(self.folder / name, weights_only=True)


def selection_score(rows: list[dict], headline: str) -> float | None:
    """The mean of the headline over the domains that a network may be chosen by; None where there is none."""
    clean = [row for row in rows if row["measure"] == headline and row.get("part", "clean") == "clean"]
    source = [row for row in clean if row.get("role") == "source"]
    values = [row["value"] for row in source or clean]
    return sum(values) / len(values) if values else None
