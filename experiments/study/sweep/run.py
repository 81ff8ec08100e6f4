"""Runs a sweep: its trials as processes, side by side, each in a folder of its own; resumable."""

from __future__ import annotations

import json
import shlex
import sys
import time
from pathlib import Path

from pandas import DataFrame

from datamodules.whole_file import write_whole
from experiments.study.endings import TrainingsFailed, UsageError
from experiments.study.run_lock import RunLock, locked
from experiments.study.signals.stops import at_once, deferred, exit_if_stopped, stopped
from experiments.study.sweep.closing import shown, write_closing
from experiments.study.sweep.commands import trial_command
from experiments.study.sweep.draws import count_of, drawn
from experiments.study.sweep.processes import PATIENCE, Processes
from experiments.study.sweep.progress import Progress
from experiments.study.sweep.sweep_file import Sweep, find_sweep, read_sweep
from experiments.study.sweep.trial_files import FAILED, FINISHED, Trial, read_trials, write_trial
from experiments.study.sweep.trial_outcome import NoValueError, value_of
from experiments.study.time_left import in_words

SETTINGS = "sweep.json"
"""In a sweep's folder: what it was started with."""
MAY_CHANGE = ("run_cap", "metric")
"""Keys of a sweep file that may change when the sweep goes on."""
POLL = 0.1
"""Seconds between two looks at the processes."""
SMOKE_TRIALS = 2
BY_SIGNAL = (124, 130, 137, 138, 143)
"""Statuses of a process that was stopped, by a signal or its --time-limit, and goes on when the sweep does."""


def run_sweep(flags) -> DataFrame:
    """Run the trials that are left, and end in the table of all.

    Args:
        flags: those of `experiments/sweep.py`.

    Raises:
        UsageError: the sweep cannot be run as it is asked for.
        TrainingsFailed: some trials failed; the table has the others.
    """
    file = find_sweep(flags.file)
    sweep = read_sweep(file)
    count = count_of(sweep, SMOKE_TRIALS if flags.smoke and flags.trials is None else flags.trials)
    out = Path(flags.out.replace("NAME", f"sweep-{file.stem}{'-smoke' * flags.smoke}"))
    for sentence in sweep.ignored:
        print(f"{file}: {sentence}", file=sys.stderr)
    further = [*shlex.split(flags.extra), *["--smoke"] * flags.smoke]
    try:
        lock = locked(out)
        trials = _begin(sweep, flags, out)
    except OSError as error:
        raise UsageError(f"--out {out} cannot be written ({error.strerror or error}): choose another.") from error
    progress = Progress(sweep, out, count, flags.seed, further, Processes(flags.processes), trials, lock)
    if progress.next is None:
        print(f"finished: every trial of {out} has been run before", flush=True)
    try:
        _run_all(progress)
    finally:
        frame = write_closing(sweep, list(progress.trials.values()), out)
    _say_end(progress)
    return frame


def _begin(sweep: Sweep, flags, out: Path) -> dict[int, Trial]:
    """Note what the sweep is started with, or test that it is what it was started with; its trials so far."""
    now = {"sweep": sweep.written, "seed": flags.seed, "extra": flags.extra, "smoke": flags.smoke}
    now = json.loads(json.dumps(now, default=str))
    begun = (out / SETTINGS).exists()
    if flags.resume == "yes" and not begun:
        raise UsageError(f"--resume: there is no sweep in {out}; leave --resume out to start one.")
    if flags.resume == "no" and begun:
        raise UsageError(f"{out} already holds a sweep: pass --resume to continue it, or another --out.")
    trials = {}
    if begun:
        before = _started_with(out, now)
        trials = read_trials(out)
        if before["sweep"].get("metric") != now["sweep"]["metric"]:
            for trial in trials.values():
                if trial.state == FINISHED:
                    _evaluate(trial, sweep, out)
    write_whole(out / SETTINGS, json.dumps(now, indent=1))
    return trials


def _started_with(out: Path, now: dict) -> dict:
    """What a sweep was started with; refused if that is something else than now."""
    try:
        before = json.loads((out / SETTINGS).read_text(encoding="utf-8"))
        changed = [key for key in now if key != "sweep" and before[key] != now[key]]
        keys = sorted({*now["sweep"], *before["sweep"]} - {*MAY_CHANGE})
        changed += [key for key in keys if before["sweep"].get(key) != now["sweep"].get(key)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"--resume: {out / SETTINGS} is damaged: begin anew with another --out.") from error
    if changed:
        raise UsageError(
            f"--resume: {out} was started with another {', '.join(changed)}: repeat it, or choose another --out."
        )
    return before


def _run_all(progress: Progress) -> None:
    """Start trials while there are any, until all have ended; after a signal, end them in order."""
    _wait_for_orphans(progress)
    deferred()
    try:
        while stopped() is None and (progress.next is not None or len(progress.processes)):
            while not progress.processes.is_full and (number := progress.next) is not None:
                _start(progress, number)
            for ended in progress.processes.ended():
                _end(progress, *ended)
            time.sleep(POLL)
    finally:
        if len(progress.processes):
            progress.processes.end((stopped() or 143) - 128)
            for ended in progress.processes.ended():
                _end(progress, *ended)
        at_once()


def _start(progress: Progress, number: int) -> None:
    trial = progress.trials.get(number)
    if trial is None:
        trial = drawn(progress.sweep, number, progress.seed, list(progress.trials.values()))
        progress.trials[number] = trial
        write_trial(progress.out, trial)
    folder = progress.out / trial.name
    line = trial_command(progress.sweep, trial.parameters, folder, progress.further)
    progress.say(trial, "goes on" if folder.exists() else "begins")
    try:
        progress.processes.start(number, line, progress.out / f"{trial.name}.log")
    except OSError as error:
        said = f"{line[0]} cannot be started ({error.strerror or error})"
        raise UsageError(f"{said}: correct command or program in the sweep file.") from error


def _end(progress: Progress, number: int, status: int, seconds: float) -> None:
    """Keep what a trial has come to, and say so."""
    trial = progress.trials[number]
    trial.seconds += seconds
    if status < 0 or status in BY_SIGNAL:
        progress.stopped.add(number)
        write_trial(progress.out, trial)
        if stopped() is None:
            progress.say(trial, f"was stopped (status {status}); --resume goes on with it", progress.left())
        return
    if status:
        trial.state, trial.why = FAILED, f"status {status}, {last_line(progress.out / f'{trial.name}.log')}"
        write_trial(progress.out, trial)
    else:
        _evaluate(trial, progress.sweep, progress.out)
    if trial.state == FAILED:
        progress.say(trial, f"failed: {trial.why}", progress.left())
        return
    said, best = f"{progress.sweep.metric} {shown(trial.value)}", progress.best
    if best is not None and best is not trial:
        said += f" (best: {shown(best.value)} of trial {best.number})"
    progress.say(trial, said, in_words(trial.seconds), progress.left())


def _evaluate(trial: Trial, sweep: Sweep, out: Path) -> None:
    """Read the metric of a trial that has ended, and keep it."""
    try:
        trial.value, trial.state = value_of(out / trial.name, sweep.metric), FINISHED
    except NoValueError as error:
        trial.value, trial.state, trial.why = None, FAILED, str(error)
    write_trial(out, trial)


def last_line(log: Path) -> str:
    """The last line that a trial printed, which says why it failed."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        lines = []
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it has printed nothing")
    return last.removeprefix("error: ")[:300].rstrip(".")


def _wait_for_orphans(progress: Progress) -> None:
    """Wait until no process of a sweep that was killed writes to a trial's folder."""
    last = time.monotonic() + PATIENCE
    for number in list(progress.waiting):
        folder = progress.out / f"trial-{number:03d}"
        while folder.exists():
            try:
                RunLock(folder)
                break
            except UsageError:
                if time.monotonic() > last:
                    raise
                time.sleep(POLL)


def _say_end(progress: Progress) -> None:
    """Say where everything is; raise what the sweep's exit status is to say."""
    files = [progress.out / name for name in ("sweep.csv", "table.md", "sweep.png")]
    print(f"sweep: {', '.join(str(file) for file in files if file.exists())}")
    exit_if_stopped()
    failed = [trial.name for trial in progress.trials.values() if trial.state == FAILED]
    lost = [progress.trials[number].name for number in sorted(progress.stopped)]
    if failed or lost:
        said = [f"{len(failed)} of {progress.count} trials failed ({', '.join(failed)})"] * bool(failed)
        said += [f"{', '.join(lost)} stopped before the end, and --resume goes on there"] * bool(lost)
        repeat = " --resume does not repeat failed trials; to repeat one, remove its .json file and folder first."
        raise TrainingsFailed(f"{'; '.join(said)}. The others are in {progress.out}.{repeat * bool(failed)}")
