"""Where the time of a run goes, in one line at its end."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import pytorch_lightning as pl

from experiments.study.time_left import in_words

DATA, FORWARD, BACKWARD, OPTIMISER, EVALUATION = "data", "forward", "backward", "optimiser", "evaluation"
FURTHER, PICTURES, WANDB, OTHER = "further evaluation", "pictures", "W&B", "start, tables and report"
PARTS = (DATA, FORWARD, BACKWARD, OPTIMISER, EVALUATION, FURTHER, PICTURES, WANDB)
"""In the order in which they are said."""


class TimeSpent:
    """Seconds that the parts of a run took, over all its trainings.

    On a GPU they are the host's, which waits for the GPU wherever it needs a result.
    """

    def __init__(self):
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def on(self, part: str) -> Iterator[None]:
        """Count the time within to a part."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[part] += time.monotonic() - began

    def sentence(self, whole: float) -> str:
        """The line; `whole` are the seconds from the run's start to its end. Parts below half a percent are left
        out."""
        shares = {part: 100 * self.seconds[part] / whole for part in PARTS}
        shares[OTHER] = max(0.0, 100 - sum(shares.values()))
        training = sum(shares[part] for part in (DATA, FORWARD, BACKWARD, OPTIMISER))
        said = ", ".join(f"{part} {share:.0f}" for part, share in shares.items() if share >= 0.5)
        return f"time: {in_words(whole)}, {training:.0f} % of it in training steps ({said} %)"


class StepTimes(pl.Callback):
    """Measures the parts of a training's steps. What lies between two steps counts as waiting for data."""

    def __init__(self, spent: TimeSpent):
        self.spent, self._last = spent, time.monotonic()

    def _ends(self, part: str) -> None:
        now = time.monotonic()
        self.spent.seconds[part] += now - self._last
        self._last = now

    def on_train_start(self, *_) -> None:
        self._last = time.monotonic()

    def on_train_batch_start(self, *_) -> None:
        self._ends(DATA)

    def on_before_backward(self, *_) -> None:
        self._ends(FORWARD)

    def on_after_backward(self, *_) -> None:
        self._ends(BACKWARD)

    def on_train_batch_end(self, *_) -> None:
        self._ends(OPTIMISER)

    def on_validation_start(self, trainer: pl.Trainer, *_) -> None:
        self._ends(DATA if trainer.training else OTHER)

    def on_validation_end(self, *_) -> None:
        self._ends(EVALUATION)
