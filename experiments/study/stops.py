"""Ctrl-C and SIGTERM end a script at any time, with the statuses that shells use for them, 130 and 143.

Both are raised as SystemExit. Lightning would turn a KeyboardInterrupt into status 1, and ignore every further one.
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
    """From now on both signals end this process. Its child processes, which also get Ctrl-C, ignore it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, _stop)


@contextmanager
def signals_exit() -> Iterator[None]:
    """Within it both signals end the process, even if some library has swallowed the SystemExit."""
    if threading.current_thread() is not threading.main_thread():  # Python allows handlers only in the main one
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


_deferred = False


def deferred() -> None:
    global _deferred
    _deferred = True


def at_once() -> None:
    global _deferred
    _deferred = False


def leave(status: int) -> None:
    at_once()
    sys.exit(status)


def stopped() -> int | None:
    """The exit status of the signal that was received, if any. Errors after it are caused by the stop."""
    return 128 + _received[0] if _received else None


def exit_if_stopped() -> None:
    if _received:
        sys.exit(stopped())


def _stop(number: int, _) -> None:
    again = bool(_received)
    _received.append(number)
    if not again:
        if _deferred:
            return
        sys.exit(128 + number)
    if number == signal.SIGINT:  # after a second Ctrl-C do not wait; no file is half written
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
