"""Runs the studies that claims need, side by side, each in a folder of its own; the same call goes on where it was."""

from __future__ import annotations

import dataclasses
import importlib
import shlex
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.papers.library import STUDIES
from experiments.study.endings import UsageError
from experiments.study.failures import read_failures
from experiments.study.flags import parse
from experiments.study.reader import FolderRun, read_folder
from experiments.study.signals.stops import at_once, deferred, stopped
from experiments.study.sweep.processes import Processes
from experiments.study.sweep.run import POLL, last_line
from experiments.study.time_left import in_words, until

SCRIPTS = Path(__file__).parents[1]
FREE = (
    "seeds", "out", "resume", "wandb", "gpus", "nodes", "workers", "plugin", "data_root", "precision", "channels_last",
    "save_every", "save_minutes", "keep_best", "keep_every", "time_limit", "compile",
)  # fmt: skip
"""Flags in which a study that is finished may differ from what is asked for: they change no claim."""


@dataclass(frozen=True)
class Settings:
    """How studies are run.

    Attributes:
        out: each has its folder there. seeds: of every training. times: how many times as long it is as written.
        processes: studies at once. extra: flags for all.
    """

    out: Path
    seeds: int = 3
    times: int = 1
    processes: int = 1
    extra: tuple[str, ...] = ()


def line_of(name: str, how: Settings) -> list[str]:
    """The command that runs a study, or goes on with it."""
    script, *flags = STUDIES[name].line(how.times)
    settings = ["--seeds", str(how.seeds), "--resume", "auto", "--out", str(how.out / name)]
    return [sys.executable, str(SCRIPTS / script), *flags, *settings, *how.extra]


def finished(name: str, how: Settings) -> FolderRun | None:
    """The run of a study, if it is finished with so many seeds and was started as the study is written now."""
    try:
        run = read_folder(how.out / name)
    except UsageError:
        return None
    config = run.files.config
    asked = flags_of(line_of(name, how)).items()
    written = shlex.split(str(config.get("command", "")))
    left_open = {flag for flag, value in asked if value is None and f"--{flag.replace('_', '-')}" not in written}
    same = all(holds(config.get(flag), value) for flag, value in asked if flag not in left_open.union(FREE))
    return run if same and config.get("seeds", 0) >= how.seeds else None


def flags_of(line: Sequence[str]) -> dict:
    """The values of all flags of a study's command, as its run's config.yaml holds them."""
    module = importlib.import_module(f"experiments.{Path(line[1]).stem}")
    flags = dataclasses.asdict(parse(module.Flags, "", list(line[2:])))
    return {flag: list(value) if isinstance(value, tuple) else value for flag, value in flags.items()}


def holds(began: object, asked: object) -> bool:
    """Whether a run that began with a flag's value has what is asked; of arms it may have more."""
    if isinstance(began, list) and isinstance(asked, list):
        return {*map(str, asked)} <= {*map(str, began)}
    return began == asked


def lost(run: FolderRun) -> str:
    """Which trainings of a run failed, in words; "" if none did."""
    config = run.files.config
    seeds = range(config.get("seed", 0), config.get("seed", 0) + config.get("seeds", 1))
    return "; ".join(map(str, read_failures(run.path, run.arms, seeds)))


def run_studies(names: Collection[str], how: Settings) -> dict[str, str]:
    """Run what is not finished, the longest first.

    Returns:
        Why, of each study that did not finish or of which trainings failed; empty where all are whole.
    """
    before = {name: run for name in names if (run := finished(name, how)) is not None}
    waiting = sorted({*names} - {*before}, key=lambda name: -STUDIES[name].minutes)
    if before:
        print(f"finished before: {', '.join(before)}", flush=True)
    unfinished = {name: why for name, run in before.items() if (why := lost(run))}
    running, places = Processes(how.processes), dict(enumerate(waiting))
    todo, done_minutes, began = list(places), 0.0, time.monotonic()
    deferred()
    try:
        while stopped() is None and (todo or len(running)):
            while todo and not running.is_full:
                number = todo.pop(0)
                name = places[number]
                line = shlex.join(STUDIES[name].line(how.times))
                print(f"{name} {'goes on' if (how.out / name).exists() else 'begins'}: {line}", flush=True)
                running.start(number, line_of(name, how), how.out / f"{name}.log")
            for number, status, seconds in running.ended():
                name = places[number]
                if status:
                    unfinished[name] = last_line(how.out / f"{name}.log")
                else:
                    done_minutes += STUDIES[name].minutes
                left = sum(STUDIES[places[n]].minutes for n in [*todo, *running.seconds()])
                said = unfinished.get(name, f"done in {in_words(seconds)}")
                print(f"{name}: {said}{_left(left, done_minutes, time.monotonic() - began)}", flush=True)
            time.sleep(POLL)
    finally:
        cut = [places[number] for number in running.seconds()]
        if cut:
            running.end((stopped() or 143) - 128)
        at_once()
    return unfinished | {name: "it was stopped" for name in [*cut, *(places[number] for number in todo)]}


def _left(minutes: float, done: float, seconds: float) -> str:
    """How long the studies that are not done still take, if they are as fast as those that are."""
    if not minutes or not done:
        return ""
    expected = seconds * minutes / done
    return f" ({in_words(expected)} left, until {until(expected)})"
