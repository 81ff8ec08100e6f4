"""What all processes of a training decide together at the same step: to save, or to stop."""

from __future__ import annotations

import torch
import torch.distributed as processes


class Agreement:
    """The largest number that any process proposes, the same in all of them.

    With one process it costs nothing. The numbers go over gloo, so that no GPU is waited for.

    Args:
        world: processes of the training; torch.distributed is initialised where there are several.
    """

    def __init__(self, world: int):
        self._several = world > 1
        self._waiting: tuple[processes.Work, torch.Tensor] | None = None
        gpu = self._several and processes.get_backend() != "gloo"
        self._group = processes.new_group(backend="gloo") if gpu else None

    def now(self, proposed: int) -> int:
        """The largest of the numbers; waits for all processes."""
        return self._read(self._begin(proposed)) if self._several else proposed

    def a_step_later(self, proposed: int) -> int:
        """The largest of the numbers that were proposed in the call before, whose exchange ran beside the step.

        With one process: of this call.
        """
        if not self._several:
            return proposed
        before, self._waiting = self._waiting, self._begin(proposed)
        return self._read(before) if before else 0

    def _begin(self, proposed: int) -> tuple[processes.Work, torch.Tensor]:
        number = torch.tensor([proposed])
        return processes.all_reduce(number, processes.ReduceOp.MAX, self._group, async_op=True), number

    @staticmethod
    def _read(begun: tuple[processes.Work, torch.Tensor]) -> int:
        work, number = begun
        work.wait()
        return int(number)
