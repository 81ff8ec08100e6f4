"""--patience: a training ends early where its evaluations stop improving."""

from __future__ import annotations

import math

import pytorch_lightning as pl

from experiments.study.resume.kept import selection_score
from experiments.study.resume.loops import is_fitting
from lightning_modules.measures import measure_of
from lightning_modules.study_module import StudyModule


class Patience(pl.Callback):
    """Ends a training once so many evaluations in a row have not improved its headline.

    The headline is what `KeptNetworks` chooses the best network by. The count is in the checkpoint, and an evaluation
    that is made again after an interruption finds the count from before it, so a resumed training ends where it would
    have ended.

    Args:
        evaluations: without improvement; None never ends a training.
        name: of the training, and `steps`, its whole length, for the line that says that it ends.
    """

    def __init__(self, evaluations: int | None, name: str, steps: int):
        self.evaluations, self.name, self.steps = evaluations, name, steps
        self.best: float | None = None
        self.waited = 0  # evaluations since the best one

    def state_dict(self) -> dict:
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state_dict: dict) -> None:
        self.best, self.waited = state_dict["best"], state_dict["waited"]

    def on_validation_end(self, trainer: pl.Trainer, module: StudyModule) -> None:
        if self.evaluations is None or not is_fitting(trainer):
            return
        score = trainer.strategy.broadcast(selection_score(module.results(), module.headline))
        if score is None:
            return
        sign = -1 if measure_of(module.headline).smaller_is_better else 1
        if not math.isnan(score) and (self.best is None or sign * score > sign * self.best):
            self.best, self.waited = score, 0
        else:
            self.waited += 1

    def on_train_epoch_end(self, trainer: pl.Trainer, module: StudyModule) -> None:
        """End the training; not in the evaluation, which a resumed training makes before its loops run."""
        if self.evaluations is None or self.waited < self.evaluations or module.steps >= self.steps:
            return
        trainer.should_stop = True
        if trainer.is_global_zero:
            measure = measure_of(module.headline)
            best = "" if self.best is None else f", {measure.text(self.best)}"
            since = f"{self.waited} evaluations have not improved {measure.label}{best}"
            print(f"{self.name}: ends at step {module.steps} of {self.steps}: {since}", flush=True)
