"""Kills trainings at random moments, lets them go on, and compares them with trainings that nothing has interrupted.

    python benchmarks/kills.py --kills 120

Every configuration is a small study of two arms. It is run once without interruption. Then it is started, killed by
SIGKILL, started again by the same command, killed again, ..., until it may end. All that it leaves has to be equal to
the last bit (`run_differences.py` says how files are compared): networks and the evaluations in their checkpoints,
gates.parquet, results.csv, metrics.csv, divergence.csv, table.json and the rest of the folder.

Most single processes are forks (`warm_start.py`). Half of their kills come in a random step, some time after it began.
The others hit a call of a function: renaming a file, waiting for the disk, a checkpoint, an evaluation, the end of a
training, its results, the tables, the report. Every fifth single process, and all that are two, are started by a
command line, and killed after a random time, uniform over what is left of the study; a few while they import. A process
is killed with its loader's workers or without; of two that torchrun has started, one is, or both, or torchrun itself.
Ends with status 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import torch

from run_differences import differences
from warm_start import Moment, Start, WarmStart

ROOT = Path(__file__).parents[1]
LAPTOP = "--data shapes/photo --recipe laptop --backbone cifar_resnet8 --images 200 --batch-size 32 --max-steps 27"
RESNET_RS = (  # dropout, stochastic depth, RandAugment and moving averages
    "--data shapes/photo --recipe resnet-rs-50-160 --image-size 32 --width 0.125 --images 48 --batch-size 8 "
    "--max-steps 15"
)
ADVERSARIAL = (
    "--setting transfer --adapt dann --data shapes --source photo --target sketch --recipe laptop --images 96 "
    "--backbone cifar_resnet8 --batch-size 16 --max-steps 15"
)
STREETS = (
    "--recipe smoke --source streets-game --target streets-fog --scenes 8 --batch-size 4 --max-steps 11 "
    "--class-uniform 0.5"
)
EVERYWHERE = "--gpus 0 --wandb disabled --resume auto"
LONGEST = 900
"""Seconds after which a command hangs."""
REAL, EARLY = 0.2, 0.05
"""Shares of single processes that a command line starts, and of kills before the training."""
BATCH = "experiments.study.resume.saving:Saving.on_train_batch_start"
CALLS = (
    BATCH,
    "os:replace",
    "os:fsync",
    "experiments.study.resume.checkpoint_files:SafeCheckpoints.save_checkpoint",
    "experiments.study.resume.checkpoint_files:damage",
    "experiments.study.resume.checkpoint_files:newest",
    "experiments.study.resume.metrics_file:MetricsFile.save",
    "experiments.study.resume.saving:Saving.on_validation_start",
    "experiments.study.resume.saving:Saving.on_validation_end",
    "experiments.study.resume.saving:Saving.on_train_epoch_end",
    "lightning_modules.classification.module:ClassificationModule.validation_step",
    "lightning_modules.segmentation.module:SegmentationModule.validation_step",
    "lightning_modules.gates.record:GateRecord.write",
    "experiments.study.trainers:write_ended",
    "experiments.study.loop:evaluated",
    "experiments.study.loop:save_examples",
    "experiments.study.loop:forget_progress",
    "experiments.study.loop:write_report",
    "experiments.study.run_folder:RunFolder.finish",
    "experiments.study.run_folder:RunFolder.gather",
    "experiments.study.run_folder:RunFolder.write_table",
)
NOW = ("", "")


@dataclass(frozen=True)
class Configuration:
    """A study whose interruption is tried."""

    name: str
    line: str
    workers: int
    every: int | None  # steps between checkpoints; None: the default, only time decides
    processes: int = 1

    def script(self, out: Path) -> list[str]:
        script, *flags = f"{self.line} {EVERYWHERE} --workers {self.workers}".split()
        # some 1 to 3 checkpoints in a training, at steps that nobody knows before
        saved = ["--save-minutes", "0.01"] if self.every is None else ["--save-every", str(self.every)]
        return [str(ROOT / "experiments" / script), *flags, *saved, "--out", str(out)]

    def command(self, out: Path) -> list[str]:
        several = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={self.processes}"]
        return [sys.executable, *(several if self.processes > 1 else []), *self.script(out)]

    @property
    def steps(self) -> int:
        words = self.line.split()
        return int(words[words.index("--max-steps") + 1])


def configured(name: str, script: str, flags: str, *how: int | None) -> Configuration:
    return Configuration(name, f"{script}.py {flags}", *how)


CONFIGURATIONS = [
    configured("cls bn gn, mixup", "cls_imagenet", f"{LAPTOP} --mixup 0.2 --norm bn gn", 0, 1),
    configured("cls sn bn, averaged", "cls_imagenet", f"{LAPTOP} --cutmix 1 --norm sn bn --ema-decay 0.8", 1, 3),
    configured(
        "cls bin sn, averaged, reestimated",
        "cls_imagenet",
        f"{LAPTOP} --mixup 0.2 --norm bin sn --ema-decay 0.8 --ema-statistics reestimated",
        *(4, 7),
    ),
    configured("cls bin bn, ResNet-RS", "cls_imagenet", f"{RESNET_RS} --norm bin bn", 0, 3),
    configured("cls sn bin, adversarial", "cls_office_home", f"{ADVERSARIAL} --norm sn bin", 1, None),
    configured("seg bn ibn-a", "seg_gta2city", f"{STREETS} --norm bn ibn-a", 1, 1),
    configured("seg sn ibn-b", "seg_gta2city", f"{STREETS} --norm sn ibn-b", 4, 3),
    configured("seg bin bn", "seg_gta2city", f"{STREETS} --norm bin bn", 0, 7),
    configured("seg bin sn", "seg_gta2city", f"{STREETS} --norm bin sn", 1, None),
    configured("cls sn bn, mixup", "cls_imagenet", f"{LAPTOP} --mixup 0.2 --norm sn bn", 0, 1, 2),
    configured(
        "cls bin bn, averaged, reestimated",
        "cls_imagenet",
        f"{LAPTOP} --mixup 0.2 --norm bin bn --ema-decay 0.8 --ema-statistics reestimated",
        *(1, 3, 2),
    ),
    configured("seg sn bn", "seg_gta2city", f"{STREETS} --norm sn bn", 1, 3, 2),
    configured("seg bin bn, two processes", "seg_gta2city", f"{STREETS} --norm bin bn", 0, 1, 2),
]


class Place(NamedTuple):
    """How far a run is, by its folder: where a start would go on."""

    finished: int  # trainings
    step: int  # of the next one, from its checkpoint
    ended: bool  # the next one, whose results are missing

    def share(self, steps: int) -> float:
        return min(1.0, (self.finished + (1 if self.ended else self.step / steps)) / 2)

    def __str__(self) -> str:
        return f"{self.finished} finished, then {'ended' if self.ended else f'step {self.step}'}"


@dataclass
class Whole:
    """An uninterrupted run, and what is needed to aim at its moments."""

    folder: Path
    before: float  # seconds until its first training begins, without imports
    lasts: float  # seconds from then to its end
    calls: dict[str, int]


@dataclass
class Trial:
    """What came of a configuration."""

    configuration: Configuration
    kills: int = 0
    within: int = 0  # kills behind which a training continued from a checkpoint, or from its end
    starts: int = 0
    runs: int = 0
    differences: list[str] = field(default_factory=list)


def environment() -> dict[str, str]:
    """One thread for each process, so that all of them fit the machine."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path, "MPLBACKEND": "agg"}


def start(configuration: Configuration, out: Path) -> subprocess.Popen:
    """Start the study by its command line, in a process group of its own."""
    with log_of(out).open("ab") as log:
        return subprocess.Popen(
            configuration.command(out), stdout=log, stderr=log, env=environment(), start_new_session=True
        )


def log_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.log")


def uninterrupted(configuration: Configuration, folder: Path, warm: WarmStart, name: str) -> tuple[Whole, list[str]]:
    """Run the study to its end, by its command line and, of single processes, as a fork; what differs between them."""
    whole, fork, counts = folder / f"{name}-whole", folder / f"{name}-fork", folder / f"{name}-calls.json"
    if configuration.processes == 1:
        began = time.monotonic()
        process = warm.start(configuration.script(fork), log_of(fork), counted=CALLS, counts=counts)
        before, lasts = timed(process, fork, began)
    process = start(configuration, whole)
    wait_for(process, LONGEST, changed(whole / "config.yaml"))  # then all is imported
    times = timed(process, whole, time.monotonic())
    if configuration.processes > 1:
        return Whole(whole, *times, {}), []
    found = [f"as a fork: {one}" for one in differences(whole, fork)]
    shutil.rmtree(fork)
    calls = {name: count for name, count in json.loads(counts.read_text()).items() if count}
    return Whole(whole, before, lasts, calls), found


def timed(process: Start | subprocess.Popen, out: Path, began: float) -> tuple[float, float]:
    """Seconds until the first training begins, and from then to the end."""
    wait_for(process, LONGEST, lambda: any(out.glob("*-seed*/hparams.yaml")))
    before = time.monotonic() - began
    if process.wait(LONGEST):
        raise RuntimeError(f"the study ended with status {process.returncode}: see {log_of(out)}")
    return before, time.monotonic() - began - before


def changed(file: Path) -> Callable[[], bool]:
    """Says whether a file has been written anew since this call."""

    def written() -> int:
        return file.stat().st_mtime_ns if file.exists() else 0

    now = written()
    return lambda: written() != now


def wait_for(process: Start | subprocess.Popen, seconds: float, happened: Callable[[], bool] = lambda: False) -> None:
    """Wait so long, or until something has happened or the process has ended."""
    until = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < until and not happened():
        time.sleep(0.002)


def place(out: Path) -> Place:
    """Where a start would go on."""
    finished = len(list(out.glob("*-seed*/result.json")))
    step, ended = 0, False
    for checkpoints in out.glob("*-seed*/checkpoints"):
        if not (checkpoints.parent / "result.json").exists():
            ended |= (checkpoints / "ended.json").exists()
            step = max([step, *map(step_of, checkpoints.glob("last.ckpt")), *map(step_of, checkpoints.glob("prev*"))])
    return Place(finished, step, ended)


def step_of(checkpoint: Path) -> int:
    try:
        return torch.load(checkpoint, map_location="cpu", mmap=True, weights_only=False)["study"]["steps"]
    except Exception:  # a damaged one, of which the start has to take no notice either
        return 0


def tried(
    configuration: Configuration, kills: int, folder: Path, seed: int, warm: WarmStart, say: Callable[[str], None]
) -> Trial:
    """Interrupt a study until it has been killed often enough, and compare it; what has ended begins anew."""
    dice, trial = random.Random(f"{seed} {configuration.name}"), Trial(configuration)
    name = f"{configuration.name}-{configuration.processes}".translate({ord(" "): "-", ord(","): None})
    whole, trial.differences = uninterrupted(configuration, folder, warm, name)
    say(f"{name}: whole in {whole.lasts:.1f} s after {whole.before:.1f} s")
    while trial.kills < kills and not trial.differences:
        trial.runs += 1
        out = folder / f"{name}-{trial.runs}"
        until = min(kills, trial.kills + dice.randint(2, 6))
        trial.differences += interrupted(whole, out, until, trial, dice, warm, say)
        trial.differences = trial.differences or [f"{out.name}: {one}" for one in differences(whole.folder, out)]
        if not trial.differences:
            shutil.rmtree(out)
    say("\n".join([f"{name}: {trial.kills} kills in {trial.runs} runs, {verdict(trial)}", *trial.differences[:5]]))
    return trial


def interrupted(
    whole: Whole, out: Path, until: int, trial: Trial, dice: random.Random, warm: WarmStart, say: Callable[[str], None]
) -> list[str]:
    """Start the study, kill it, ..., and let the last start end; what went wrong."""
    configuration, process = trial.configuration, None
    while trial.kills < until:
        left = until - trial.kills
        at = 1 - dice.random() ** (1 / left)  # so that several kills are uniform over the whole time
        rest = 1 - place(out).share(configuration.steps)
        trial.starts += 1
        if configuration.processes > 1:
            process = start(configuration, out)
            how = kill_processes(process, whole, out, at * rest, dice)
        elif dice.random() < REAL:
            process = start(configuration, out)
            how = kill_command(process, whole, out, at * rest, dice)
        else:
            moment = aimed(whole, at * rest, dice)
            process = warm.start(configuration.script(out), log_of(out), moment)
            process.wait(LONGEST)
            how = said(moment)
        if process.returncode == 0:
            whole.lasts *= 0.7  # it has ended before the moment came: it is faster than the first one was
            break
        if configuration.processes == 1 and process.returncode != -signal.SIGKILL:
            break  # a start has failed, and `ended` says so
        trial.kills += 1
        now = place(out)
        trial.within += bool(now.ended or now.step)
        say(f"  {out.name}: killed {how}: {now}")
        process = None
    return ended(process, out, trial, warm)


def ended(process: Start | subprocess.Popen | None, out: Path, trial: Trial, warm: WarmStart) -> list[str]:
    """Let the last start end."""
    if process is None:
        trial.starts += 1
        forks = trial.configuration.processes == 1
        process = warm.start(trial.configuration.script(out), log_of(out)) if forks else start(trial.configuration, out)
    try:
        status = process.wait(LONGEST)
    except subprocess.TimeoutExpired:
        status = "none: it hangs"
        for one in [process.pid, *descendants(process.pid)]:
            end(one)
    return [f"{out.name}: status {status}: see {log_of(out)}"] if status else []


def aimed(whole: Whole, at: float, dice: random.Random) -> Moment:
    """A moment within a training step, or at one of the calls of another function.

    Args:
        at: share of the calls that come before it.
    """
    name = BATCH if dice.random() < 0.5 else dice.choice(sorted(whole.calls))
    call = max(1, math.ceil(at * whole.calls[name]))
    each = whole.lasts / whole.calls[BATCH]
    delay = dice.uniform(0, 2 * each) if name == BATCH else 0.0
    return Moment(name, call, after=dice.random() < 0.5, alone=dice.random() < 0.3, delay=delay)


def said(moment: Moment) -> str:
    later = f"{1000 * moment.delay:.0f} ms after " if moment.delay else "at "
    which = f"the {'end' if moment.after else 'start'} of call {moment.call} of {moment.of.rpartition(':')[2]}"
    return f"{later}{which}{', alone' * moment.alone}"


def seconds(whole: Whole, at: float, dice: random.Random) -> float:
    """Seconds from a start, without imports, to a kill; `at` is a share of the whole run."""
    return dice.uniform(0, whole.before) if dice.random() < EARLY else whole.before + at * whole.lasts


def kill_after(process: Start | subprocess.Popen, delay: float, dice: random.Random) -> str:
    """Kill a single process after some seconds."""
    wait_for(process, delay)
    alone = dice.random() < 0.3
    if process.poll() is None:
        end(process.pid, os.kill if alone else os.killpg)
    process.wait(LONGEST)
    return f"after {delay:.2f} s{', alone' if alone else ''}"


def kill_command(process: subprocess.Popen, whole: Whole, out: Path, at: float, dice: random.Random) -> str:
    """Kill a single process that a command line has started; a few are still importing."""
    if dice.random() < EARLY:
        return f"{kill_after(process, dice.uniform(0, 8), dice)}, of a command"
    wait_for(process, LONGEST, changed(out / "config.yaml"))
    return f"{kill_after(process, seconds(whole, at, dice), dice)}, of a command"


def kill_processes(process: subprocess.Popen, whole: Whole, out: Path, at: float, dice: random.Random) -> str:
    """Kill one of the two processes, all of them, or torchrun, some when a file is written or a training has ended."""
    wait_for(process, LONGEST, changed(out / "config.yaml"))
    wait_for(process, seconds(whole, at, dice))
    when, pattern = dice.choice([NOW, NOW, ("at a file", "*-seed*/*/*.partial-*"), ("at a result", "*/ended.json")])
    if pattern:
        before = {*out.glob(pattern)}
        wait_for(process, whole.lasts, lambda: bool({*out.glob(pattern)} - before))
    ranks = children(process.pid)
    victims = dice.choice([ranks, [process.pid], *([rank] for rank in ranks)]) if ranks else [process.pid]
    family = [process.pid, *descendants(process.pid)]
    if process.poll() is None:
        for victim in victims:
            end(victim)
    waited = time.monotonic()
    with suppress(subprocess.TimeoutExpired):
        process.wait(90)  # torchrun ends the other processes
    waited = time.monotonic() - waited
    for one in family:
        if str(out).encode() in command_of(one):  # and not another process by now, with the same number
            end(one)
    process.wait()
    who = "torchrun" if victims == [process.pid] else "both" if victims == ranks else "one"
    return f"{who} of two {when}, ended after {waited:.1f} s"


def end(process: int, how: Callable[[int, int], None] = os.kill) -> None:
    with suppress(ProcessLookupError):
        how(process, signal.SIGKILL)


def command_of(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:  # it has ended
        return b""


def children(parent: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True, check=False)
    return [int(word) for word in listed.stdout.split()]


def descendants(parent: int) -> list[int]:
    """The children of a process, and theirs."""
    return [one for child in children(parent) for one in (child, *descendants(child))]


def verdict(trial: Trial) -> str:
    return "DIFFERS" if trial.differences else "equal"


def table(trials: list[Trial]) -> str:
    """The trials in Markdown."""
    rows = ["| study | processes | workers | saved every | kills | went on within | starts | runs | |"]
    rows.append("|---|---:|---:|---:|---:|---:|---:|---:|---|")
    for trial in trials:
        of = trial.configuration
        counts = f"{trial.kills} | {trial.within} | {trial.starts} | {trial.runs}"
        how = f"{of.name} | {of.processes} | {of.workers} | {of.every or '0.6 s'}"
        rows.append(f"| {how} | {counts} | {verdict(trial)} |")
    sums = (sum(getattr(trial, name) for trial in trials) for name in ("kills", "within", "starts", "runs"))
    rows.append(f"| all | | | | {' | '.join(map(str, sums))} | |")
    return "\n".join(rows)


def shares(kills: int, chosen: list[Configuration]) -> list[int]:
    """Kills of each configuration, half as many of those with several processes, whose starts take long."""
    weights = [1 / one.processes for one in chosen]
    return [math.ceil(kills * weight / sum(weights)) for weight in weights]


def all_tried(
    chosen: list[Configuration], kills: int, folder: Path, seed: int = 0, at_once: int = 2, statements: str = ""
) -> list[Trial]:
    """Try configurations, `at_once` side by side.

    Args:
        statements: Python that runs in forks before the study (`WarmStart`).
    """
    warm: SimpleQueue[WarmStart] = SimpleQueue()
    for _ in range(at_once):
        warm.put(WarmStart(environment(), statements))
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {what}", flush=True)

    def one(configuration: Configuration, share: int) -> Trial:
        mine = warm.get()
        try:
            return tried(configuration, share, folder, seed, mine, say)
        finally:
            warm.put(mine)

    with ThreadPoolExecutor(at_once) as threads:
        trials = list(threads.map(one, chosen, shares(kills, chosen)))
    while not warm.empty():
        warm.get().end()
    return trials


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=120, help="in all configurations together")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--only", default="", help="configurations whose name contains this")
    parser.add_argument("--at-once", type=int, default=2, help="configurations that run side by side")
    parser.add_argument("--out", type=Path, help="folder for the runs; by default a temporary one")
    flags = parser.parse_args()
    chosen = [one for one in CONFIGURATIONS if flags.only in one.name]
    if not chosen:
        parser.error(f"--only {flags.only}: choose part of {', '.join(one.name for one in CONFIGURATIONS)}")
    folder = flags.out or Path(tempfile.mkdtemp(prefix="kills-"))
    folder.mkdir(parents=True, exist_ok=True)
    trials = all_tried(chosen, flags.kills, folder, flags.seed, flags.at_once)
    print(table(trials))
    if any(trial.differences for trial in trials):
        print(f"the runs that differ are in {folder}", file=sys.stderr)
        sys.exit(1)
    if flags.out is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
