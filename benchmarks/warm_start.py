"""Starts scripts of experiments/ as forks of a process that has imported what they need, and kills them at moments.

A start takes some milliseconds this way, so that kills fall into trainings and not into imports. `WarmStart` is for
other scripts; run by itself, this file is the process that forks.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
IMPORTED = (
    "torch._dynamo",
    "experiments.cls_imagenet",
    "experiments.seg_gta2city",
    "experiments.tasks.classification",
    "experiments.tasks.classification_domains",
    "experiments.tasks.segmentation",
)
FORKS_WELL = "jemalloc_bg_thd"
"""A thread of pyarrow's allocator, which prepares for a fork."""


class Moment(NamedTuple):
    """One call of a function."""

    of: str  # MODULE:NAME
    call: int  # from 1
    after: bool  # or before it
    alone: bool  # kill this process alone, and not the loader's workers
    delay: float = 0.0  # seconds from the call to the kill


class WarmStart:
    """A process that forks itself for each start. One start at a time.

    Args:
        statements: Python that it runs after its imports, such as a fault that a test puts in.
    """

    def __init__(self, environment: dict[str, str], statements: str = ""):
        self._process = subprocess.Popen(
            [sys.executable, __file__, statements], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )

    def start(
        self, command: list[str], log: Path, kill: Moment | None = None, counted: tuple[str, ...] = (),
        counts: Path | None = None,
    ) -> Start:  # fmt: skip
        """Start a script.

        Args:
            command: the script and its flags.
            log: gets what it prints.
            kill: when it kills itself.
            counted: functions whose calls it counts, and `counts` the JSON file for them.
        """
        counting = {"counted": counted, "counts": counts and str(counts)}
        request = {"command": command, "log": str(log), "kill": kill, **counting}
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        return Start(self._process)

    def end(self) -> None:
        """End the process; nothing may run in it any more."""
        self._process.stdin.close()
        self._process.wait()


class Start:
    """A script that was started, with what is needed of `subprocess.Popen`."""

    def __init__(self, server: subprocess.Popen):
        self._server, self.returncode = server, None
        self.pid = int(server.stdout.readline())

    def poll(self) -> int | None:
        """Its status, minus the signal if one has killed it; None as long as it runs."""
        if self.returncode is None and select.select([self._server.stdout], [], [], 0)[0]:
            self.returncode = int(self._server.stdout.readline())
        return self.returncode

    def wait(self, seconds: float | None = None) -> int:
        until = None if seconds is None else time.monotonic() + seconds
        while self.poll() is None:
            if until is not None and time.monotonic() > until:
                raise subprocess.TimeoutExpired("script", seconds)
            time.sleep(0.005)
        return self.returncode


def serve(statements: str) -> None:
    """Fork for each request that comes in; in the child this returns when its script has ended."""
    for name in IMPORTED:
        importlib.import_module(name)
    exec(statements, {})
    gc.freeze()
    threads = {file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")}
    if len(threads - {FORKS_WELL}) > 1:
        raise RuntimeError(f"a process with these threads cannot be forked safely: {threads}")
    for line in sys.stdin.buffer:  # nothing is read ahead: each request comes after the answer to the one before
        child = os.fork()
        if child == 0:
            run(json.loads(line))
            return
        answer(child)
        _, status = os.waitpid(child, 0)
        answer(os.waitstatus_to_exitcode(status))


def answer(number: int) -> None:
    os.write(1, f"{number}\n".encode())


def run(request: dict) -> None:
    """Run a script as Python would, in a process group of its own."""
    os.setsid()
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if request["kill"]:
        moment = Moment(*request["kill"])
        watch(moment.of, lambda *now: end(moment) if now == (moment.call, moment.after) else None)
    calls: Counter[str] = Counter()
    for name in request["counted"]:
        watch(name, lambda call, after, name=name: calls.update([name] * (not after)))
    if request["counts"]:
        owner = os.getpid()
        atexit.register(lambda: Path(request["counts"]).write_text(json.dumps(calls)) if os.getpid() == owner else None)
    importlib.import_module(
        "experiments.study.signals.stops"
    ).exit_on_signals()  # as the package does when a script is run
    sys.argv = request["command"]
    runpy.run_path(sys.argv[0], run_name="__main__")


def watch(name: str, happens: Callable[[int, bool], object]) -> None:
    """Call `happens(call, after)` before and after each call, counted from 1, of a function named MODULE:NAME.

    Loader's workers, which are forked from this process, do not count.
    """
    module, _, names = name.partition(":")
    *owners, last = names.split(".")
    owner = functools.reduce(getattr, owners, importlib.import_module(module))
    whole, calls, here = getattr(owner, last), [0], os.getpid()

    @functools.wraps(whole)
    def watched(*arguments, **named):
        if os.getpid() != here:
            return whole(*arguments, **named)
        calls[0] += 1
        call = calls[0]
        happens(call, False)
        try:
            return whole(*arguments, **named)
        finally:
            happens(call, True)

    setattr(owner, last, watched)


def end(moment: Moment) -> None:
    """Kill this process, or its whole group."""
    if moment.delay:
        threading.Timer(moment.delay, end, [moment._replace(delay=0.0)]).start()
    else:
        (os.kill if moment.alone else os.killpg)(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    serve(sys.argv[1])
