"""A full disk and one that cannot be written: a sentence, nothing lost, and the same end once there is room."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.run_differences import differences
from tests.experiments.study.small_disk import small_disk

ROOT = Path(__file__).parents[3]
STUDY = (
    "--data shapes/photo --norm bn sn --backbone cifar_resnet8 --recipe laptop --images 64 --batch-size 16 --epochs 4 "
    "--workers 1 --gpus 0 --resume auto --save-every 1"
)

pytestmark = pytest.mark.slow


@pytest.fixture
def disk(tmp_path):
    """A file system of its own: a function that gives it a size and, again, the right to be written."""
    with small_disk(tmp_path / "disk", "1m") as folder:
        yield folder, lambda how: subprocess.run(["mount", "-o", f"remount,{how}", folder], check=True)


def study(out: Path, wandb: str = "disabled", **environment) -> subprocess.CompletedProcess:
    script, flags = ROOT / "experiments" / "cls_imagenet.py", f"{STUDY} --wandb {wandb} --out {out}"
    command = [sys.executable, str(script), *flags.split()]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def error_of(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_a_study_goes_on_when_there_is_room(disk, tmp_path):
    """One megabyte is too little for the second checkpoint, two are for the second training."""
    folder, remount = disk
    for size in ("1m", "2m"):
        remount(f"size={size}")
        assert error_of(study(folder / "run")).startswith("error: the disk is full ([Errno 28] No space left on device")
    kept = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    remount("size=9m,ro")
    assert error_of(study(folder / "run")) == (
        f"error: --out {folder / 'run'} cannot be written (Read-only file system): choose another."
    )
    remount("size=9m,rw")
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == kept
    whole = tmp_path / "whole" / "run"
    assert study(folder / "run").returncode == study(whole).returncode == 0
    assert list(differences(whole, folder / "run")) == []


def test_a_full_disk_of_temporary_files_is_named(disk, tmp_path):
    folder, _ = disk
    (folder / "other").write_bytes(bytes((1 << 20) - 8192))
    said = error_of(study(tmp_path / "run", "offline", TMPDIR=str(folder)))  # W&B writes its tables there first
    assert said.startswith(f"error: the disk of {folder}, for temporary files (TMPDIR), is full")
    assert study(tmp_path / "run").returncode == 0
