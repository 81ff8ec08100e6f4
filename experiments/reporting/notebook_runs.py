"""The runs that the notebooks show: those in runs/notebooks or, if they are missing, small ones that are trained first.

Two environment variables change that: NORMSHIFT_SIZE is "small" where it is not set, "full" for the runs that the
committed notebooks show (`make notebooks`) or "smoke" for a few seconds' (the tests); NORMSHIFT_RUNS is a folder to
use in place of runs/notebooks.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from experiments.study.endings import UsageError
from experiments.study.run_files import RunFiles

ROOT = Path(__file__).parents[2]
SIZES = ("smoke", "small", "full")


def ensure_run(name: str, command: str, small: str = "") -> Path:
    """The folder of a finished run; where there is none, the command is run first, which takes a minute or two.

    Args:
        name: of the folder in runs/notebooks; "-small" or "-smoke" is added to that of a run of such a size.
        command: a study and its flags, without --out, as for the full run: "cls_cifar.py --norm sn bin".
        small: flags that follow those of the command and make the run small.

    Raises:
        UsageError: NORMSHIFT_SIZE is no size, or the command fails; the message says how.
    """
    size = os.environ.get("NORMSHIFT_SIZE", "small")
    if size not in SIZES:
        raise UsageError(f"NORMSHIFT_SIZE={size}: choose from {', '.join(SIZES)}.")
    runs = Path(os.environ.get("NORMSHIFT_RUNS") or ROOT / "runs" / "notebooks")
    folder = runs / (name if size == "full" else f"{name}-{size}")
    if size == "small" and _finished(runs / name):
        folder = runs / name  # what shows more is there already
    study, *flags = shlex.split(command.replace(f"{ROOT}/", ""))
    if folder.name != name:
        flags += shlex.split(small) + (["--smoke"] if size == "smoke" else [])
    out = folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder
    line = [f"experiments/{study}", *flags, "--out", str(out)]
    print("python", shlex.join(line))
    if not _finished(folder):
        _make(line + (["--wandb", "disabled"] if study.startswith(("cls_", "seg_", "eval_")) else []), folder)
    return folder


def _finished(folder: Path) -> bool:
    return (folder / "config.yaml").is_file() and not RunFiles(folder).unfinished


def _make(line: list[str], folder: Path) -> None:
    """Run a study, from the repository's root; what it prints is shown only if it fails."""
    if (folder / "config.yaml").is_file():
        line = [*line, "--resume"]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, *line],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path, "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise UsageError(f"python {shlex.join(line)}\nended with:\n{(done.stdout + done.stderr)[-2000:]}")
