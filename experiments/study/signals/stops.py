"""Ctrl-C, SIGTERM and SIGUSR1 end a script in order, with the statuses that shells use for them: 130, 143 and 138.

In a training step a signal is only noted: the step ends, a checkpoint is written, and the script exits (`deferred`).
Everywhere else it is raised at once as SystemExit. Lightning would turn a KeyboardInterrupt into status 1, and ignore
every further one. A process that does not end in time after a signal, wherever it hangs, is ended (`_overdue`).
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from experiments.study.signals.slurm import ASKS, is_first_process, requeue
from experiments.study.signals.watch import SignalWatch

SIGNALS = (signal.SIGINT, signal.SIGTERM, ASKS)
GRACE = 25.0
"""Seconds that a step and its checkpoint may take after a signal; schedulers kill after 30."""
LAST_RESORT = 3.0
"""Seconds after these in which Python has to react; it cannot inside a call of a library that waits for ever."""
ECHO = 1.0
"""Seconds in which a further Ctrl-C is the same one: a terminal sends it to all, and torchrun sends it to its own."""
WORKER_GRACE = 40
"""Seconds that a loader's worker goes on after SIGTERM: the step that is to end may need its batch."""

_received: list[int] = []
_left: list[int] = []  # the status with which the script has decided to exit
_first_at = 0.0  # when the first of them came
_deferred = False
_goes_on = False  # whether SLURM's next start of the job would continue
_watch: SignalWatch | None = None
_deadline: threading.Timer | None = None


def exit_on_signals() -> None:
    """From now on the signals end this process. Its child processes, which may also get them, ignore them."""
    signal.signal(signal.SIGALRM, _raise_stop)
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, _stop)


@contextmanager
def signals_exit() -> Iterator[None]:
    """Within it the signals end the process, even if some library has swallowed the SystemExit, or hangs."""
    global _watch
    if threading.current_thread() is not threading.main_thread():  # Python allows handlers only in the main one
        yield
        return
    before = {number: signal.getsignal(number) for number in (*SIGNALS, signal.SIGALRM)}
    exit_on_signals()
    _watch = SignalWatch(_expect_end)
    try:
        yield
        exit_if_stopped()
    except BaseException:
        exit_if_stopped()
        raise
    finally:
        at_once()
        _watch.stop()
        _watch = None
        for number, handler in before.items():
            signal.signal(number, handler)
        if _stop not in before.values():
            _forget()


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


def goes_on() -> None:
    """From now on this process is one that continues if SLURM starts its job again; others would begin anew."""
    global _goes_on
    if not _goes_on:
        _goes_on = True
        atexit.register(requeue_if_asked)


def requeue_if_asked() -> None:
    """Let SLURM start the job again, if its signal before the end of the time is what stopped this process."""
    if _goes_on and stopped() == 128 + ASKS:
        requeue()


def _stop(number: int, _) -> None:
    global _first_at
    if stopped() is not None:
        if number == signal.SIGINT and time.monotonic() - _first_at > ECHO:
            _leave_at_once()  # after a second Ctrl-C do not wait; no file is half written
        return
    _received.append(number)
    _first_at = time.monotonic()
    if not _deferred:
        sys.exit(128 + number)
    _say("stopping after this step, with a checkpoint" + "; Ctrl-C again stops at once" * (number == signal.SIGINT))


def _expect_end(number: int) -> None:
    """A signal has come, whether or not its handler can run: soon the process has to be on its way out."""
    global _deadline
    if number in SIGNALS and signal.getsignal(number) == _stop and _deadline is None:
        _deadline = threading.Timer(GRACE, _overdue, (number,))
        _deadline.daemon = True
        _deadline.start()


def _overdue(number: int) -> None:
    """End a process that has not reacted to a signal in time: without a checkpoint of this step."""
    if not _hangs():
        return
    _say(f"the step has not ended in {GRACE:g} s: stopping without a checkpoint of it")
    os.kill(os.getpid(), signal.SIGALRM)
    time.sleep(LAST_RESORT)
    if _hangs():
        if stopped() is None:
            _received.append(number)
        _leave_at_once()


def _hangs() -> bool:
    return _watch is not None and (_deferred or stopped() is None)


def _raise_stop(*_) -> None:
    if _deferred and stopped() is not None:  # else this handler comes before that of the signal
        at_once()
        sys.exit(stopped())


def _say(what: str) -> None:
    """Write a line to stderr, also from within a signal's handler, where printing may find its buffer in use."""
    if is_first_process():
        os.write(2, f"\n{what}.\n".encode())


def _leave_at_once() -> None:
    processes = sys.modules.get("multiprocessing.process")
    for child in processes.active_children() if processes else []:
        child.kill()
    requeue_if_asked()
    os._exit(stopped())


def _forget() -> None:
    global _deadline
    _received.clear()
    _left.clear()
    if _deadline is not None:
        _deadline.cancel()
        _deadline = None


def _in_child() -> None:
    """A loader's worker goes on while its parent ends the step; it ends by itself when the parent has."""
    global _watch
    at_once()
    if _watch is not None:
        _watch.stop_in_child()
        _watch = None
    if signal.getsignal(signal.SIGTERM) == _stop:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(ASKS, signal.SIG_IGN)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(WORKER_GRACE))
    _forget()


os.register_at_fork(after_in_child=_in_child)
