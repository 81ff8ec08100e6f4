"""One W&B run for a training, whatever interrupts it, with every row once."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.study.wandb_runs import rows as rows_module
from experiments.study.wandb_runs.offline_files import rows_logged
from experiments.study.wandb_runs.offline_history import read_offline
from experiments.study.wandb_runs.rows import Rows, logged_rows, restore_rows

ROOT = Path(__file__).parents[4]
LINE = (
    "--data shapes/photo --norm sn --recipe laptop --backbone cifar_resnet8 --images 100 --batch-size 20 --epochs 8 "
    "--workers 0 --gpus 0 --wandb offline --save-every 3 --resume auto"
)


NUMBERS = ("trainer/", "train/", "lr", "shapes/", "gates/", "layers/", "final/")


class Run:
    def __init__(self):
        self.rows: dict[int, dict] = {}

    def log(self, data: dict, step: int, commit: bool) -> None:
        assert commit and step not in self.rows and step == max(self.rows, default=step - 1) + 1
        self.rows[step] = data


def test_rows_that_the_run_has_are_dropped():
    """Five rows are logged; the checkpoint knows of two, the run of four."""
    first, data = Run(), [{"loss": value} for value in range(7)]
    Rows(first, 0)
    for row in data[:2]:
        first.log(row)
    assert logged_rows(first) == 2
    second = Run()
    second.rows = dict(enumerate(data[:4]))
    rows = Rows(second, 4)
    restore_rows(second, 2)
    for row in data[2:]:
        second.log(row)
    assert second.rows == dict(enumerate(data)) and rows.number == logged_rows(second) == 7


def test_rows_that_are_missing_are_said(capsys):
    """W&B's own process died with the training, with rows in its memory."""
    run = Run()
    rows = Rows(run, known=3)
    rows.restore(5)
    run.log({"loss": 1.0})
    assert run.rows == {5: {"loss": 1.0}}
    assert "the W&B run has 3 rows, and the training that continues had logged 5" in capsys.readouterr().err


def test_a_longer_training_continues_behind_the_rows_of_its_first_end(capsys):
    """Eight rows were logged, two after the last checkpoint; the longer one is killed with a checkpoint at 9."""
    for checkpoint, begins in ((6, 8), (9, 9)):
        run = Run()
        Rows(run, known=begins, ended=8)
        restore_rows(run, checkpoint)
        run.log({"loss": 1.0}, step=3, commit=False)
        assert run.rows == {begins: {"loss": 1.0}} and capsys.readouterr().err == ""


def test_rows_that_died_with_wandb_are_logged_again(capsys, monkeypatch):
    """Six rows are logged; W&B has written four of them. The checkpoint knows all, and the last three by their data."""
    now = [0.0]
    monkeypatch.setattr(rows_module.time, "monotonic", lambda: now[0])
    first = Run()
    rows = Rows(first, 0)
    for row in range(6):
        now[0] += 20 if row == 3 else 1
        first.log({"loss": float(row), "picture": object()})
    assert [number for number, _ in rows.recent()] == [3, 4, 5]
    second = Run()
    Rows(second, 4)
    restore_rows(second, 6, rows.recent())
    second.log({"loss": 6.0})
    assert second.rows == {row: {"loss": float(row)} for row in (4, 5, 6)} and capsys.readouterr().err == ""
    third = Run()
    Rows(third, 2)
    restore_rows(third, 6, rows.recent())
    assert (
        third.rows == {}
        and "the W&B run has 2 rows, and the training that continues had logged 6" in capsys.readouterr().err
    )


ROWS_THEN_DIE = """
import os, signal, subprocess, sys, time
from pathlib import Path
from experiments.study.wandb_runs.offline_files import rows_logged
from experiments.study.wandb_runs.start import start_training

folder = Path(sys.argv[1])
run = start_training("offline", folder, "group", "name", {})
for row in range(100):
    run.log({"value": row})
until = time.monotonic() + 10
while rows_logged(folder, run.id) < 100 and time.monotonic() < until:
    time.sleep(0.05)
children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(os.getpid())], capture_output=True, text=True).stdout
for child in children.split():
    try:
        os.kill(int(child), signal.SIGKILL)
    except ProcessLookupError:  # ps itself
        pass
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_rows_are_on_the_disk_soon_although_wandb_dies_too(tmp_path):
    """By default W&B's process writes after 15 s, or a block of 32 KiB."""
    command = [sys.executable, "-c", ROWS_THEN_DIE, str(tmp_path)]
    assert (
        subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False).returncode == -signal.SIGKILL
    )
    identity = json.loads((tmp_path / "wandb-run.json").read_text())["id"]
    assert rows_logged(tmp_path, identity) == 100
    (file,) = tmp_path.glob("wandb/offline-run-*")
    file.rename(file.with_name(file.name.removeprefix("offline-")))  # as of a run that was online
    assert rows_logged(tmp_path, identity) == 0 and rows_logged(tmp_path, identity, online=True) == 100


def parts(run: Path) -> list[Path]:
    """The offline parts of the W&B run of a training, in the order of their making."""
    return sorted(run.glob("*-seed0/wandb/offline-run-*/*.wandb"), key=lambda file: file.stat().st_ctime)


def numbers(rows: dict[int, dict]) -> dict[int, dict]:
    """The numbers of each row, by the row's number; what W&B keeps as files is left out, and times."""
    return {
        number: {k: v for k, v in row.items() if isinstance(v, (int, float)) and k.startswith(NUMBERS)}
        for number, row in rows.items()
    }


@pytest.mark.slow
def test_a_killed_training_has_one_run_with_every_row_once(tmp_path):
    line = [sys.executable, str(ROOT / "experiments" / "cls_imagenet.py"), *LINE.split()]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    for name, kills in (("whole", 0), ("run", 2)):
        for kill in range(kills + 1):
            with (tmp_path / f"{name}.log").open("w") as log:
                command = [*line, "--out", str(tmp_path / name)]
                process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
                while kill < kills and process.poll() is None:
                    if f"step {10 * (kill + 1)} of 40" in (tmp_path / f"{name}.log").read_text():
                        process.send_signal(signal.SIGKILL)
                    time.sleep(0.02)
                assert process.wait() == (-signal.SIGKILL if kill < kills else 0)
    (alone,), several = parts(tmp_path / "whole"), parts(tmp_path / "run")
    assert len(several) == 3 and len({file.name for file in several}) == 1  # one run, in three parts
    together: dict[int, dict] = {}
    for file in several:
        found = numbers(read_offline(file).rows)
        assert not together.keys() & found.keys()  # no row twice
        together |= found
    assert together == numbers(read_offline(alone).rows) == numbers(read_offline(tmp_path / "run" / "sn-seed0").rows)
    training = tmp_path / "run" / "sn-seed0"
    identity = json.loads((training / "wandb-run.json").read_text())["id"]
    assert rows_logged(training, identity) == len(together) == max(together) + 1
