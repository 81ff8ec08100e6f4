"""Ctrl-C and SIGTERM end a script with the status that a shell knows them by, 130 and 143, whenever they come.

Both are raised as SystemExit. Lightning makes status 1 of a KeyboardInterrupt, and ignores every further one.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_received: list[int] = []


def exit_on_signals() -> None:
    """From now on both signals end this process; those it forks leave Ctrl-C, which reaches them as well, to it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, _stop)


@contextmanager
def signals_exit() -> Iterator[None]:
    """Within it both signals end the process, and what follows a stop that something has swallowed does so, too."""
    if threading.current_thread() is not threading.main_thread():  # where Python takes no handlers
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    exit_on_signals()
    try:
        yield
        exit_if_stopped()
    except BaseException:
        exit_if_stopped()
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if _stop not in before.values():
            _received.clear()


def stopped() -> int | None:
    """The status of the signal that has come, if one has: whatever was raised since then was raised by the stop."""
    return 128 + _received[0] if _received else None


def exit_if_stopped() -> None:
    if _received:
        sys.exit(stopped())


def _stop(number: int, _) -> None:
    again = bool(_received)
    _received.append(number)
    if not again:
        sys.exit(128 + number)
    if number == signal.SIGINT:  # whoever presses Ctrl-C a second time does not want to wait; files are whole
        _leave_at_once()


def _leave_at_once() -> None:
    processes = sys.modules.get("multiprocessing.process")
    for child in processes.active_children() if processes else []:
        child.kill()
    os._exit(stopped())


def _in_child() -> None:
    if signal.getsignal(signal.SIGINT) == _stop:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _received.clear()


os.register_at_fork(after_in_child=_in_child)
