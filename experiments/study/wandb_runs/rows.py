"""Numbers the rows of a W&B run, so that a training that is interrupted logs each of them once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import wandb  # slow to import, and --wandb disabled needs none


class Rows:
    """Takes the place of a run's `log`: each call is one row, and its number is W&B's step.

    A resumed training logs again what came after its checkpoint. Rows that the run has already are dropped: they are
    equal.

    Args:
        run: its `log` is replaced. known: the rows that the run has from before.
    """

    def __init__(self, run: wandb.Run, known: int):
        self._log, self._known, self.number = run.log, known, 0
        run.log = self

    def __call__(self, data: dict[str, Any]) -> None:
        if self.number >= self._known:
            self._log(data, step=self.number, commit=True)
        self.number += 1


def logged_rows(run: wandb.Run) -> int:
    """The rows that the training has logged."""
    return run.log.number if isinstance(run.log, Rows) else 0


def restore_rows(run: wandb.Run, rows: int) -> None:
    """Continue behind so many rows."""
    if isinstance(run.log, Rows):
        run.log.number = rows
