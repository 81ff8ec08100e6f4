"""Learns of signals even while a library's call hangs, when Python runs no handler."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable


class SignalWatch:
    """Calls `told` with the number of each signal that has a handler in Python, in a thread of its own.

    Python runs handlers in the main thread between two of its instructions: never, if a library waits for ever inside
    one. It writes the numbers of signals into a pipe at once; this thread reads them.
    """

    def __init__(self, told: Callable[[int], None]):
        end, self._into = os.pipe()
        os.set_blocking(self._into, False)
        self._before = signal.set_wakeup_fd(self._into, warn_on_full_buffer=False)
        threading.Thread(target=self._read, args=(end, told), name="signals", daemon=True).start()

    def stop(self) -> None:
        """No longer watch; the thread ends."""
        signal.set_wakeup_fd(self._before)
        os.close(self._into)

    def stop_in_child(self) -> None:
        """In a process forked from this one, which has no such thread: its signals are not the parent's."""
        signal.set_wakeup_fd(-1)
        os.close(self._into)

    @staticmethod
    def _read(end: int, told: Callable[[int], None]) -> None:
        while numbers := os.read(end, 64):
            for number in numbers:
                told(number)
        os.close(end)
