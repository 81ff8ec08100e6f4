"""What the processes of a training tell each other beside it: that they run, have left, or have ended.

They tell it through the store by which torch's processes find each other, over a connection of their own, so that
nothing in it waits for the training and the training does not wait for it.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from datetime import timedelta
from typing import NamedTuple

from torch.distributed import TCPStore

PERIOD = 2.0
"""Seconds between two beats."""
RUNS, LEFT, ENDED = "runs", "left", "ended"
"""What a process says of itself; who has left is not missed, who has ended ends all others."""


class Note(NamedTuple):
    """What one process says of itself."""

    rank: int
    host: str
    place: str  # the running system and its name space of process numbers, where a number means one process
    pid: int
    beat: int = 0
    state: str = RUNS
    status: int | None = None  # of its exit, where a signal or the limit of time ended it


class Heartbeats(threading.Thread):
    """Exchanges notes with the other processes every `PERIOD` seconds, until `close`.

    Args:
        rank: of this process.
        notes: the first notes of all processes.
        key: under which they exchange, the same in all of them and in no earlier round.

    Attributes:
        heard: the last note of each other process.
        missed: exchanges since the note of each other process last changed. Counting this process's own exchanges, and
            not seconds, keeps a machine that stood still from taking the others for dead.
        answered: when the store last answered.
        lost: whether the store has closed the connection.
        verdict: the sentence about the process that ended first, as all processes read it; empty while all run.
    """

    def __init__(self, rank: int, notes: list[Note], key: str):
        super().__init__(name="heartbeats", daemon=True)
        self.own = notes[rank]
        self.heard = {note.rank: note for note in notes if note.rank != rank}
        self.missed = dict.fromkeys(self.heard, 0)
        self.answered, self.lost, self.verdict = time.monotonic(), False, ""
        self._key, self._proposed, self._closed = key, "", False
        self._there: set[int] = set()  # who has written to the store
        self._wake, self._rounds, self._done = threading.Event(), 0, threading.Condition()

    def run(self) -> None:
        try:
            address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
            store = TCPStore(address, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=10))
            while not self._closed:
                self._exchange(store)
                with self._done:
                    self._rounds, self.answered = self._rounds + 1, time.monotonic()
                    self._done.notify_all()
                self._wake.wait(PERIOD)
                self._wake.clear()
        except RuntimeError:  # torch.distributed.DistError, and what older stores raise
            with self._done:
                self.lost = True
                self._done.notify_all()

    def refresh(self, seconds: float) -> None:
        """Exchange now; waits until that is done, impossible, or some seconds are over."""
        with self._done:
            rounds = self._rounds + 2  # one may be under way
            ends = time.monotonic() + seconds
            while self._rounds < rounds and not (self.lost or self._closed) and time.monotonic() < ends:
                self._wake.set()
                self._done.wait(0.2)

    def say(self, state: str, status: int | None = None, seconds: float = 6.0) -> None:
        """Tell the others that this process has left or is ending; waits until it is told, or some seconds."""
        self.own = self.own._replace(state=state, status=status)
        self.refresh(seconds)

    def propose(self, verdict: str, seconds: float) -> str:
        """Tell the others which process has ended; returns what was told first, by whichever process."""
        self._proposed = verdict
        self.refresh(seconds)
        return self.verdict or verdict

    def close(self) -> None:
        self._closed = True
        self._wake.set()

    def _exchange(self, store: TCPStore) -> None:
        self.own = self.own._replace(beat=self.own.beat + 1)
        store.set(self._of(self.own.rank), json.dumps(self.own))
        there = sorted(rank for rank in self.missed if rank in self._there or store.check([self._of(rank)]))
        self._there.update(there)
        notes = store.multi_get([self._of(rank) for rank in there]) if there else []
        for rank in self.missed:
            self.missed[rank] += 1
        for rank, written in zip(there, notes, strict=True):
            note = Note(*json.loads(written))
            if note != self.heard[rank]:
                self.heard[rank], self.missed[rank] = note, 0
        verdict = f"{self._key}/verdict"
        if self._proposed or store.check([verdict]):
            self.verdict = store.compare_set(verdict, "", self._proposed).decode() or self._proposed

    def _of(self, rank: int) -> str:
        return f"{self._key}/{rank}"


def first_note(rank: int) -> Note:
    """What this process says of itself at the start."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as opened:
            place = f"{opened.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not on this system
        place = ""
    return Note(rank, platform.node(), place, os.getpid())
