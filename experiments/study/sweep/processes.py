"""Trials as processes side by side, which end in order when the sweep is stopped or dies."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from experiments.study.signals.stops import GRACE, LAST_RESORT

PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None

PATIENCE = GRACE + LAST_RESORT + 7
"""Seconds that a process has to end after a signal, before it is killed."""

OF_AN_AGENT = ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH")
"""Variables with which W&B's agent tells a training which trial it is."""


@dataclass
class _Running:
    process: subprocess.Popen
    place: int
    began: float


class Processes:
    """Up to `count` processes at once, each in one of the places 0 to `count` - 1, by the numbers of their trials.

    Each is the head of a process group of its own, so that a Ctrl-C in the terminal reaches it once, through `signal`.
    If this process is killed, they get SIGTERM (on Linux).
    """

    def __init__(self, count: int):
        self.count = count
        self._running: dict[int, _Running] = {}

    def __len__(self) -> int:
        return len(self._running)

    def has(self, number: int) -> bool:
        return number in self._running

    @property
    def is_full(self) -> bool:
        return len(self) >= self.count

    def start(self, number: int, line: Sequence[str], log: Path) -> None:
        """Start a trial. What it prints goes behind what is in the file `log`.

        Raises:
            OSError: the program cannot be started.
        """
        place = min({*range(self.count)} - {one.place for one in self._running.values()})
        with log.open("ab") as written:
            process = subprocess.Popen(
                line,
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=subprocess.STDOUT,
                env=environment(place, self.count),
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        self._running[number] = _Running(process, place, time.monotonic())

    def ended(self) -> list[tuple[int, int, float]]:
        """The trials that have ended since the last call: number, exit status (negative: of a signal) and seconds."""
        over = {number: one for number, one in self._running.items() if one.process.poll() is not None}
        for number in over:
            del self._running[number]
        now = time.monotonic()
        return [(number, one.process.returncode, now - one.began) for number, one in over.items()]

    def seconds(self) -> dict[int, float]:
        """How long each process has been running, by the number of its trial."""
        return {number: time.monotonic() - one.began for number, one in self._running.items()}

    def signal(self, number: int) -> None:
        """Send a signal to every process and its children."""
        for one in self._running.values():
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(one.process.pid, number)

    def end(self, number: int, patience: float = PATIENCE) -> None:
        """Send a signal to all, wait until they have ended, and kill those that do not."""
        self.signal(number)
        until = time.monotonic() + patience
        while time.monotonic() < until and any(one.process.poll() is None for one in self._running.values()):
            time.sleep(0.1)
        self.signal(signal.SIGKILL)  # workers of a process that has ended, too
        for one in self._running.values():
            one.process.wait()


def _end_with_parent() -> None:
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def environment(place: int, count: int, before: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of a process: several share the cores and the GPUs."""
    before = dict(os.environ if before is None else before)
    found = {name: value for name, value in before.items() if name not in OF_AN_AGENT}
    if count > 1:
        found.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
        if gpus := visible_gpus(found):
            own = gpus[place::count] if count <= len(gpus) else [gpus[place % len(gpus)]]
            found["CUDA_VISIBLE_DEVICES"] = ",".join(own)
    return found


def visible_gpus(variables: Mapping[str, str]) -> list[str]:
    """The names of the GPUs that a process would see, as in CUDA_VISIBLE_DEVICES."""
    if "CUDA_VISIBLE_DEVICES" in variables:
        return [name for name in variables["CUDA_VISIBLE_DEVICES"].split(",") if name.strip()]
    ask = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        said = subprocess.run(ask, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in said.splitlines() if line.strip()]
