"""When one process of a training dies, the others end too, in less than a minute, with a sentence that names it.

Otherwise they would wait for it: the time limit of a collective operation is a day, because one process may evaluate
for hours while the others wait. Each process is watched by a thread of all the others (`Watch`), which also works while
the main thread is inside a library. On the same machine the operating system tells at once that a process is over,
however busy it was; on another machine it counts as dead when it has been silent for `SILENCE` seconds.
"""

from __future__ import annotations

import multiprocessing
import os
import select
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch.distributed as processes

from experiments.study.resume.heartbeats import ENDED, LEFT, PERIOD, Heartbeats, first_note
from experiments.study.signals import stops

SILENCE = 40.0
"""Seconds after which a silent process on another machine is dead: a library may keep Python from running for 20."""
GRACE = 3.0
"""Seconds in which the main thread may notice by itself that another process has ended, and write its report."""
LAST_RESORT = 30.0
"""Seconds after which the process exits although its main thread has not ended it."""
REMEDY = "this process ends too; the same command, with --resume, goes on from the last checkpoint"
BROKEN = ("gloo", "nccl", "connection", "broken pipe", "store", "timed out")
"""Words of errors with which a collective operation fails when another process has ended."""


class Ended(NamedTuple):
    """What has ended, in words, and the status with which this process ends for that reason."""

    what: str
    status: int = 1


class EndsTogether(pl.Callback):
    """Watches the other processes from the first training on, until `all_done`; see this module's docstring."""

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        if stage != "fit" or trainer.world_size < 2 or (_watches and not _watches[-1].closed):
            return
        everyone: list[Any] = [None] * trainer.world_size
        processes.all_gather_object(everyone, (first_note(trainer.global_rank), str(uuid.uuid4())))
        notes, (key, *_) = zip(*everyone, strict=True)  # the key is never that of an earlier round
        procs = getattr(trainer.strategy.launcher, "procs", [])
        started = list(procs)
        procs.clear()  # Lightning's observer would kill this process without a word when one of them ends
        _watches[:] = [Watch(Heartbeats(trainer.global_rank, list(notes), key), started)]
        _watches[-1].start()


class Watch(threading.Thread):
    """Ends this process when one of the others is dead.

    Args:
        beats: the exchange with the others; it is started here.
        started: processes that this one has started.
    """

    def __init__(self, beats: Heartbeats, started: list[subprocess.Popen]):
        super().__init__(name="watch", daemon=True)
        self.beats, self.started, self.closed = beats, started, False
        self.hosts_store = beats.own.rank == 0 and not _agent()
        self.found: Ended | None = None
        self._known, self._ending = threading.Event(), threading.Event()
        self._open: dict[int, int] = {}  # descriptors of the processes on this machine, by rank
        self._dead: set[int] = set()

    def run(self) -> None:
        self.beats.start()
        while not self.closed:
            self._look(1.0)
            found = self._ended()
            if found is not None and not self.closed:
                self._end(found)
                return

    def ends(self, error: BaseException) -> None:
        """The main thread is ending by this error: wait for its reason if that may be another process, and say so.

        Raises:
            SystemExit: another process has ended, which is why a collective operation failed.
        """
        stopped = stops.stopped()
        if _is_broken(error):
            self._ending.set()
            self._known.wait(GRACE if stopped else SILENCE + 15)
        if self.found is not None and not stopped:
            raise SystemExit(self.found.status) from error
        self._tell(ENDED, stopped)

    def leave(self) -> None:
        """This process has done its part; from now on it is not missed."""
        self._tell(LEFT)

    def _tell(self, state: str, status: int | None = None) -> None:
        self.closed = True
        self._ending.set()
        self.join(2 * GRACE)
        self.beats.say(state, status)
        self._wait_for_others()
        self.beats.close()

    def _look(self, seconds: float) -> None:
        """Wait until a process on this machine ends, or some seconds are over."""
        for rank, note in list(self.beats.heard.items()):
            if rank not in self._open and rank not in self._dead and note.place and note.place == self.beats.own.place:
                try:
                    self._open[rank] = os.pidfd_open(note.pid)
                except ProcessLookupError:
                    self._dead.add(rank)
                except (AttributeError, OSError):  # not on this system
                    continue
        poll = select.poll()
        for descriptor in self._open.values():
            poll.register(descriptor, select.POLLIN)
        over = {descriptor for descriptor, _ in poll.poll(1000 * seconds)}
        for rank, descriptor in list(self._open.items()):
            if descriptor in over:
                self._dead.add(rank)
                os.close(self._open.pop(rank))

    def _ended(self) -> Ended | None:
        """What has ended, if anything has."""
        beats = self.beats
        running = [rank for rank in self._dead if self.beats.heard[rank].state not in (LEFT, ENDED)]
        if 0 in running and not _agent():
            beats.close()  # the store has ended with it
        elif running and not beats.verdict:
            beats.refresh(6)  # perhaps they have said that they have left
        said = [note for note in beats.heard.values() if note.state == ENDED]
        status = next((note.status for note in said if note.status), 1)
        if beats.verdict:
            return Ended(beats.verdict, status)
        self._dead |= {
            rank for rank, missed in beats.missed.items() if missed * PERIOD > SILENCE and rank not in self._open
        }
        for rank in [*(note.rank for note in said), *sorted(self._dead)]:
            if self.beats.heard[rank].state != LEFT:
                return Ended(self._called(rank), status)
        if beats.lost or time.monotonic() - beats.answered > SILENCE:
            return Ended(f"torchrun on {os.environ['MASTER_ADDR']}" if _agent() else self._called(0), status)
        return None

    def _end(self, found: Ended) -> None:
        """End this process, or let its main thread do it if it has begun to."""
        what = self.beats.propose(found.what, 6)
        if self._ending.wait(GRACE) and self.closed:
            return
        status = stops.stopped() or found.status
        sys.stdout.flush()
        print(f"\n{what} has ended: {REMEDY}.", file=sys.stderr, flush=True)
        self.found = Ended(what, status)
        self._known.set()
        if self._ending.is_set():
            time.sleep(LAST_RESORT)
        else:
            self.beats.say(ENDED, status)
            self._wait_for_others()
        for child in [*multiprocessing.active_children(), *self.started]:
            child.kill()
        os._exit(status)

    def _wait_for_others(self, seconds: float = 10.0) -> None:
        """Let the others read from this process's store what has ended."""
        ends = time.monotonic() + seconds * self.hosts_store
        while time.monotonic() < ends:
            self._look(0.2)
            if all(rank in self._dead or self.beats.heard[rank].state in (LEFT, ENDED) for rank in self.beats.missed):
                return

    def _called(self, rank: int) -> str:
        note = self.beats.heard[rank]
        return f"process {rank} of {len(self.beats.heard) + 1} (counted from 0), on {note.host}, pid {note.pid},"


_watches: list[Watch] = []


@contextmanager
def ends_together() -> Iterator[None]:
    """An error within it ends the other processes too, and one that another process has caused becomes an exit."""
    try:
        yield
    except BaseException as error:
        if _watches and not _watches[-1].closed:
            _watches[-1].ends(error)
        raise


def all_done() -> None:
    """This process has done all its trainings; it may end while others go on."""
    if _watches and not _watches[-1].closed:
        _watches[-1].leave()


def _agent() -> bool:
    """Whether torchrun, and not the first process, holds the store."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _is_broken(error: BaseException) -> bool:
    """Whether an error may come from a collective operation in which another process has ended."""
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(word in said for word in BROKEN)
