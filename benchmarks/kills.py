"""Kills trainings at random moments, lets them go on, and compares them with trainings that nothing has interrupted.

    python benchmarks/kills.py --kills 120

Every configuration is a small study of two arms. It is run once without interruption. Then it is started, killed by
SIGKILL at a random moment, started again by the same command, killed again, ..., until it has been killed often enough
and may end. All that it leaves has to be equal, to the last bit: every weight and buffer of every network, the
evaluations inside the checkpoints, gates.parquet, results.csv, metrics.csv, divergence.csv and table.json. Moments are
uniform over the time that the uninterrupted run took after its start; every third kill waits for a file that is being
written, every seventh for a training's result. Of two processes one, or both, or torchrun itself is killed. Checkpoints
are written every 1, 3 or 7 steps. Ends with status 1 if anything differs.
"""

from __future__ import annotations

import argparse
import filecmp
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

import torch

ROOT = Path(__file__).parents[1]
CLASSIFICATION = (
    "cls_imagenet.py --data shapes/photo --recipe laptop --backbone cifar_resnet8 --images 200 --batch-size 32 "
    "--max-steps 27 --mixup 0.2"
)
SEGMENTATION = (
    "seg_gta2city.py --recipe smoke --source streets-game --target streets-fog --scenes 8 --max-steps 11 "
    "--class-uniform 0.5"
)
EVERYWHERE = "--gpus 0 --wandb disabled --resume auto"
TABLES = ("gates.parquet", "results.csv", "metrics.csv", "divergence.csv", "table.json")
LONGEST = 900
"""Seconds after which a command hangs."""


@dataclass(frozen=True)
class Configuration:
    """A study whose interruption is tried."""

    name: str
    line: str
    workers: int
    every: int  # steps between checkpoints
    processes: int = 1

    def command(self, out: Path) -> list[str]:
        script, *flags = f"{self.line} {EVERYWHERE} --workers {self.workers} --save-every {self.every}".split()
        several = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={self.processes}"]
        start = [sys.executable, *(several if self.processes > 1 else [])]
        return [*start, str(ROOT / "experiments" / script), *flags, "--out", str(out)]


CONFIGURATIONS = [
    Configuration("cls bn", f"{CLASSIFICATION} --norm bn gn", workers=0, every=1),
    Configuration("cls sn, average", f"{CLASSIFICATION} --norm sn bn --ema-decay 0.8", workers=1, every=3),
    Configuration(
        "cls bin, reestimated",
        f"{CLASSIFICATION} --norm bin sn --ema-decay 0.8 --ema-statistics reestimated",
        workers=4,
        every=7,
    ),
    Configuration("cls sn, two processes", f"{CLASSIFICATION} --norm sn bn", workers=0, every=1, processes=2),
    Configuration(
        "cls bin, average, two processes", f"{CLASSIFICATION} --norm bin bn --ema-decay 0.8", 1, 3, processes=2
    ),
    Configuration("seg bn", f"{SEGMENTATION} --norm bn ibn-a", workers=1, every=1),
    Configuration("seg sn", f"{SEGMENTATION} --norm sn ibn-b", workers=4, every=3),
    Configuration("seg bin", f"{SEGMENTATION} --norm bin bn", workers=0, every=7),
    Configuration(
        "seg sn, two processes", f"{SEGMENTATION} --norm sn bn --batch-size 4", workers=1, every=3, processes=2
    ),
    Configuration(
        "seg bin, two processes", f"{SEGMENTATION} --norm bin bn --batch-size 4", workers=0, every=1, processes=2
    ),
]


@dataclass
class Trial:
    """What came of a configuration."""

    configuration: Configuration
    kills: int = 0
    starts: int = 0
    differences: list[str] = field(default_factory=list)


def environment() -> dict[str, str]:
    """One thread for each process, so that all of them fit the machine."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path, "MPLBACKEND": "agg"}


def start(configuration: Configuration, out: Path) -> subprocess.Popen:
    """Start the study, in a process group of its own."""
    log = out.with_suffix(".log").open("ab")
    return subprocess.Popen(
        configuration.command(out), stdout=log, stderr=log, env=environment(), start_new_session=True
    )


def began(out: Path, process: subprocess.Popen, since: float) -> None:
    """Wait until a start has imported all it needs: then it writes its flags anew."""
    config = out / "config.yaml"
    while process.poll() is None and not (config.exists() and config.stat().st_mtime > since):
        time.sleep(0.01)


def uninterrupted(configuration: Configuration, out: Path) -> float:
    """Run the study to its end; the seconds that it took after its imports."""
    since = time.time()
    process = start(configuration, out)
    began(out, process, since)
    after = time.monotonic()
    if process.wait(LONGEST):
        raise RuntimeError(f"{configuration.name} ended with {process.returncode}: see {out.with_suffix('.log')}")
    return time.monotonic() - after


def wait_for(process: subprocess.Popen, seconds: float, happened: Callable[[], bool] = lambda: False) -> None:
    """Wait so long, or until something has happened or the process has ended."""
    until = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < until and not happened():
        time.sleep(0.001)


def kill(process: subprocess.Popen, dice: random.Random) -> None:
    """Kill one of the group's processes, or all of them, and wait until all have ended."""
    family = [process.pid, *descendants(process.pid)]
    victims = family if len(family) == 1 or dice.random() < 0.4 else [dice.choice(family)]
    if process.pid in victims or len(family) == 1:
        victims = [process.pid] if dice.random() < 0.5 else family
    for victim in victims:
        end(victim)
    with suppress(subprocess.TimeoutExpired):
        process.wait(90)  # torchrun ends the other processes
    for one in family:
        end(one)
    process.wait()
    time.sleep(0.2)


def end(process: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def descendants(parent: int) -> list[int]:
    """The children of a process, and theirs."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = [tuple(map(int, line.split())) for line in listed.splitlines()]
    found, level = [], [parent]
    while level:
        level = [child for child, of in pairs if of in level]
        found += level
    return found


def tried(configuration: Configuration, kills: int, folder: Path, seed: int) -> Trial:
    """Interrupt a study until it has been killed often enough, and compare it; what has ended begins anew."""
    dice, trial = random.Random(f"{seed} {configuration.name}"), Trial(configuration)
    name = "".join(letter if letter.isalnum() else "-" for letter in configuration.name)
    whole = folder / f"{name}-whole"
    lasts = uninterrupted(configuration, whole)
    attempt = 0
    while trial.kills < kills and not trial.differences:
        attempt += 1
        out = folder / f"{name}-{attempt}"
        interrupted(configuration, out, lasts, min(kills - trial.kills, dice.randint(2, 5)), trial, dice)
        trial.differences += [f"{out.name}: {one}" for one in differences(whole, out)]
        if not trial.differences:
            shutil.rmtree(out)
    state = "equal" if not trial.differences else f"DIFFERS: {trial.differences[:3]}"
    print(f"{configuration.name}: {trial.kills} kills, {trial.starts} starts, {state}", flush=True)
    return trial


def interrupted(
    configuration: Configuration, out: Path, lasts: float, kills: int, trial: Trial, dice: random.Random
) -> None:
    """Start the study, kill it, ..., and let the last start end."""
    for killed in range(kills + 1):
        since = time.time()
        process = start(configuration, out)
        trial.starts += 1
        if killed == kills:
            break
        began(out, process, since)
        number = trial.kills + 1
        results = len(list(out.glob("*/result.json")))
        if number % 7 == 0:
            wait_for(process, lasts, lambda results=results: len(list(out.glob("*/result.json"))) > results)
        else:
            wait_for(process, dice.uniform(0, lasts))
        if number % 3 == 0:
            wait_for(process, lasts, lambda: any(out.rglob("*.partial-*")))
        if process.poll() is not None:
            break
        kill(process, dice)
        trial.kills += 1
    if process.wait(LONGEST):
        trial.differences.append(f"{out.name}: status {process.returncode}: see {out.with_suffix('.log')}")


def differences(whole: Path, other: Path) -> list[str]:
    """What is not equal in two runs, to the last bit."""
    found = []
    for file in sorted(whole.rglob("model.ckpt")):
        again = other / file.relative_to(whole)
        if not again.exists():
            found.append(f"{again} is missing")
            continue
        one, two = (torch.load(path, map_location="cpu", weights_only=False) for path in (file, again))
        weights, others = one["state_dict"], two["state_dict"]
        found += [f"{file.parts[-3]} {key}" for key in weights if not torch.equal(weights[key], others[key])]
        found += [f"{file.parts[-3]} {key}" for key in one["study"] if str(one["study"][key]) != str(two["study"][key])]
    for name in TABLES:
        for file in [file for file in (whole / name, *whole.glob(f"*-seed*/{name}")) if file.exists()]:
            again = other / file.relative_to(whole)
            if not again.exists() or not filecmp.cmp(file, again, shallow=False):
                found.append(str(file.relative_to(whole)))
    return found


def table(trials: list[Trial]) -> str:
    """The trials in Markdown."""
    rows = [
        "| study | processes | workers | saved every | kills | starts | |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for trial in trials:
        of, equal = trial.configuration, "differs" if trial.differences else "equal"
        rows.append(
            f"| {of.name} | {of.processes} | {of.workers} | {of.every} | {trial.kills} | {trial.starts} | {equal} |"
        )
    rows.append(f"| all | | | | {sum(t.kills for t in trials)} | {sum(t.starts for t in trials)} | |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=120, help="in all configurations together")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--only", default="", help="configurations whose name contains this")
    parser.add_argument("--at-once", type=int, default=2, help="configurations that run side by side")
    parser.add_argument("--out", type=Path, help="folder for the runs; by default a temporary one")
    flags = parser.parse_args()
    folder = flags.out or Path(tempfile.mkdtemp(prefix="kills-"))
    folder.mkdir(parents=True, exist_ok=True)
    chosen = [one for one in CONFIGURATIONS if flags.only in one.name]
    each = -(-flags.kills // len(chosen))
    with ThreadPoolExecutor(flags.at_once) as threads:
        trials = list(threads.map(lambda one: tried(one, each, folder, flags.seed), chosen))
    print(table(trials))
    if any(trial.differences for trial in trials):
        print(f"the runs that differ are in {folder}", file=sys.stderr)
        sys.exit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
