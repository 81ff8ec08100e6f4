"""Numbers the rows of a W&B run, so that a training that is interrupted logs each of them once."""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import wandb  # slow to import, and --wandb disabled needs none

UNSURE = 15.0
"""Seconds after which a row is taken to be in W&B's file; its process writes each second, on a busy machine later."""

Recent = list[tuple[int, dict[str, float]]]
"""Rows that W&B may not have written yet, by their numbers: what of them are numbers."""


class Rows:
    """Takes the place of a run's `log`: each call is one row, and its number is W&B's step.

    A resumed training logs again what came after its checkpoint. Rows that the run has already are dropped: they are
    equal. Rows before the checkpoint that died with W&B's own process are logged again, without pictures and
    histograms.

    Args:
        run: its `log` is replaced. known: the rows that the run has from before. ended: those that a shorter training
            had logged at its end, if this one makes it longer; it continues behind them.
    """

    def __init__(self, run: wandb.Run, known: int, ended: int = 0):
        self._log, self._known, self._ended, self.number = run.log, known, ended, 0
        self._recent: deque[tuple[float, int, dict[str, float]]] = deque()
        run.log = self

    def __call__(self, data: dict[str, Any], step: int | None = None, commit: bool | None = None) -> None:
        """As `wandb.Run.log`; step and commit, with which others may call it, do not change the numbers."""
        if self.number >= self._known:
            self._log(data, step=self.number, commit=True)
            self._remember(self.number, data)
        self.number += 1

    def recent(self) -> Recent:
        """The rows of the last seconds."""
        return [(number, numbers) for _, number, numbers in self._recent]

    def restore(self, rows: int, recent: Recent = ()) -> None:
        """Continue behind so many rows, of which `recent` were new when the checkpoint was written."""
        for number, numbers in recent:
            if self._known == number < rows:
                self._log(numbers, step=number, commit=True)
                self._remember(number, numbers)
                self._known += 1
        if self._known < rows:
            print(
                f"the W&B run has {self._known} rows, and the training that continues had logged {rows}: the rest is "
                "missing there; metrics.csv has it.",
                file=sys.stderr,
                flush=True,
            )
        self.number = max(rows, self._ended)

    def _remember(self, number: int, data: dict[str, Any]) -> None:
        now = time.monotonic()
        self._recent.append((now, number, {key: v for key, v in data.items() if isinstance(v, (int, float))}))
        while self._recent[0][0] < now - UNSURE:
            self._recent.popleft()


def logged_rows(run: wandb.Run) -> int:
    """The rows that the training has logged."""
    return run.log.number if isinstance(run.log, Rows) else 0


def recent_rows(run: wandb.Run) -> Recent:
    """Those of them that W&B may not have written yet."""
    return run.log.recent() if isinstance(run.log, Rows) else []


def restore_rows(run: wandb.Run, rows: int, recent: Recent = ()) -> None:
    """Continue behind so many rows; see `Rows.restore`."""
    if isinstance(run.log, Rows):
        run.log.restore(rows, recent)
