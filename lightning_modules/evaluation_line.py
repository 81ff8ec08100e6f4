"""Progress as lines of text, for logs, which cannot show a progress bar."""

import time
from collections.abc import Callable

import pytorch_lightning as pl

from lightning_modules.measures import measure_of
from lightning_modules.study_module import steps_of


class EvaluationLine(pl.Callback):
    """Prints a line with one measure for every domain after each evaluation.

    Args:
        name: the beginning of the line.
        measure: name of the measure, which is logged as DOMAIN/MEASURE.
        steps: number of steps of the whole training; by default the trainer's `max_steps`.
        left: says how much time is left.
    """

    def __init__(
        self, name: str, measure: str = "miou", steps: int | None = None, left: Callable[[], str] = lambda: ""
    ):
        self.name, self.measure, self.steps, self.started, self.left = name, measure, steps, time.monotonic(), left

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            ending = f"/{self.measure}"
            scores = {k.removesuffix(ending): v for k, v in trainer.callback_metrics.items() if k.endswith(ending)}
            measure = measure_of(self.measure)
            evaluated = ", ".join(f"{domain} {measure.text(score)}" for domain, score in scores.items())
            seconds = time.monotonic() - self.started
            step = f"step {steps_of(trainer, module)} of {self.steps or trainer.max_steps}"
            left = self.left()
            took = f"{seconds:.0f} s{'; ' * bool(left)}{left}"
            print(f"{self.name}: {step}, {measure.label} {evaluated} ({took})", flush=True)
