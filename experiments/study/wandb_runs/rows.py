"""Numbers the rows of a W&B run, so that a training that is interrupted logs each of them once."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import wandb  # slow to import, and --wandb disabled needs none


class Rows:
    """Takes the place of a run's `log`: each call is one row, and its number is W&B's step.

    A resumed training logs again what came after its checkpoint. Rows that the run has already are dropped: they are
    equal.

    Args:
        run: its `log` is replaced. known: the rows that the run has from before. ended: those that a shorter training
            had logged at its end, if this one makes it longer; it continues behind them.
    """

    def __init__(self, run: wandb.Run, known: int, ended: int = 0):
        self._log, self._known, self._ended, self.number = run.log, known, ended, 0
        run.log = self

    def __call__(self, data: dict[str, Any], step: int | None = None, commit: bool | None = None) -> None:
        """As `wandb.Run.log`; step and commit, with which others may call it, do not change the numbers."""
        if self.number >= self._known:
            self._log(data, step=self.number, commit=True)
        self.number += 1

    def restore(self, rows: int) -> None:
        """Continue behind so many rows."""
        if self._known < rows:
            print(
                f"the W&B run has {self._known} rows, and the training that continues had logged {rows}: the rest is "
                "missing there; metrics.csv has it.",
                file=sys.stderr,
                flush=True,
            )
        self.number = max(rows, self._ended)


def logged_rows(run: wandb.Run) -> int:
    """The rows that the training has logged."""
    return run.log.number if isinstance(run.log, Rows) else 0


def restore_rows(run: wandb.Run, rows: int) -> None:
    """Continue behind so many rows."""
    if isinstance(run.log, Rows):
        run.log.restore(rows)
