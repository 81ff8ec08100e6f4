"""Ctrl-C, SIGTERM and SIGUSR1 end a script in order, with the statuses that shells use for them: 130, 143 and 138.

In a training step a signal is only noted: the step ends, a checkpoint is written, and the script exits (`deferred`).
Everywhere else it is raised at once as SystemExit. Lightning would turn a KeyboardInterrupt into status 1, and ignore
every further one.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from experiments.study.slurm import ASKS, is_first_process, requeue

SIGNALS = (signal.SIGINT, signal.SIGTERM, ASKS)
GRACE = 25.0
"""Seconds that a step and its checkpoint may take after a signal; schedulers kill after 30."""
LAST_RESORT = 3.0
"""Seconds after these in which Python has to react; it cannot inside a call of a library that waits for ever."""
WORKER_GRACE = 40
"""Seconds that a loader's worker goes on after SIGTERM: the step that is to end may need its batch."""

_received: list[int] = []
_left: list[int] = []  # the status with which the script has decided to exit
_deferred = False


def exit_on_signals() -> None:
    """From now on the signals end this process. Its child processes, which may also get them, ignore them."""
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, _stop)
    atexit.register(requeue_if_asked)


@contextmanager
def signals_exit() -> Iterator[None]:
    """Within it the signals end the process, even if some library has swallowed the SystemExit."""
    if threading.current_thread() is not threading.main_thread():  # Python allows handlers only in the main one
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    exit_on_signals()
    try:
        yield
        exit_if_stopped()
    except BaseException:
        exit_if_stopped()
        raise
    finally:
        at_once()
        for number, handler in before.items():
            signal.signal(number, handler)
        if _stop not in before.values():
            _received.clear()
            _left.clear()


def deferred() -> None:
    """From now on a signal is only noted in `stopped`; if nothing reacts in time, the process exits all the same."""
    global _deferred
    _deferred = True


def at_once() -> None:
    """From now on a signal raises SystemExit."""
    global _deferred
    _deferred = False


def leave(status: int) -> NoReturn:
    """Exit with a status. From now on further signals do not interrupt what is still written."""
    at_once()
    _left.append(status)
    sys.exit(stopped())


def stopped() -> int | None:
    """The exit status of the signal that was received, or of `leave`, if any; errors after it are caused by it."""
    if _left:
        return _left[0]
    return 128 + _received[0] if _received else None


def exit_if_stopped() -> None:
    if stopped() is not None:
        sys.exit(stopped())


def requeue_if_asked() -> None:
    """Let SLURM start the job again, if its signal before the end of the time is what stopped this process."""
    if stopped() == 128 + ASKS:
        requeue()


def _stop(number: int, _) -> None:
    again = stopped() is not None
    _received.append(number)
    if again:
        if number == signal.SIGINT:  # after a second Ctrl-C do not wait; no file is half written
            _leave_at_once()
        return
    if not _deferred:
        sys.exit(128 + number)
    signal.signal(signal.SIGALRM, _raise_stop)
    _say("stopping after this step, with a checkpoint" + "; Ctrl-C again stops at once" * (number == signal.SIGINT))
    _after(GRACE, _overdue)


def _overdue() -> None:
    """The step has not ended in time: exit without its checkpoint."""
    if _deferred:
        _say(f"the step has not ended in {GRACE:g} s: stopping without a checkpoint of it")
        os.kill(os.getpid(), signal.SIGALRM)
        _after(LAST_RESORT, lambda: _leave_at_once() if _deferred else None)


def _raise_stop(*_) -> NoReturn:
    at_once()
    sys.exit(stopped())


def _after(seconds: float, call) -> None:
    timer = threading.Timer(seconds, call)
    timer.daemon = True
    timer.start()


def _say(what: str) -> None:
    """Write a line to stderr, also from within a signal's handler, where printing may find its buffer in use."""
    if is_first_process():
        os.write(2, f"\n{what}.\n".encode())


def _leave_at_once() -> None:
    processes = sys.modules.get("multiprocessing.process")
    for child in processes.active_children() if processes else []:
        child.kill()
    os._exit(stopped())


def _in_child() -> None:
    """A loader's worker goes on while its parent ends the step; it ends by itself when the parent has."""
    at_once()
    if signal.getsignal(signal.SIGTERM) == _stop:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(ASKS, signal.SIG_IGN)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(WORKER_GRACE))
    _received.clear()
    _left.clear()


os.register_at_fork(after_in_child=_in_child)
