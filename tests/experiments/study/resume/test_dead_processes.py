"""When one of several processes is killed, the others end soon, name it, and leave nothing running."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[4]
KILLED = ROOT / "tests" / "experiments" / "study" / "stopped_script.py"
STUDY = (
    "cls_imagenet.py --data shapes/photo --norm bn --backbone cifar_resnet8 --recipe laptop --images 64 "
    "--batch-size 16 --wandb disabled --workers 1 --max-steps 12 --save-every 1 --gpus 0 --out run"
)
STEP = "call pytorch_lightning:LightningModule.optimizer_step 6"
EVALUATION = "call lightning_modules.classification.module:ClassificationModule.validation_step 1"
BOUND = 60
"""Seconds after a kill in which all processes have ended."""


def environment(**more) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path, "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"} | more


def free_port() -> str:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return str(opened.getsockname()[1])


def started(folder: Path, world: int, moment: str, killed: int, line: str = STUDY) -> list[subprocess.Popen]:
    """The processes of a study, as torchrun would start them, but without anything that watches them."""
    together = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "STOPPED_RANK": str(killed)}
    together |= {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
    command = [sys.executable, str(KILLED), "SIGKILL", moment, *line.split()]
    processes = []
    for rank in range(world):
        with (folder / f"{rank}.txt").open("w") as said:
            own = environment(**together, RANK=str(rank), LOCAL_RANK=str(rank))
            processes.append(subprocess.Popen(command, cwd=folder, env=own, stdout=said, stderr=said))
    return processes


def left_running(folder: Path) -> list[int]:
    """Processes that work in a folder, loaders' workers among them."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and Path(os.readlink(process / "cwd")) == folder:
                if "Z" != (process / "stat").read_text().rpartition(")")[2].split()[0]:
                    found.append(int(process.name))
        except OSError:  # it has ended, or is not ours
            continue
    return found


def wait_for_none(folder: Path, seconds: float = 15.0) -> list[int]:
    ends = time.monotonic() + seconds
    while left_running(folder) and time.monotonic() < ends:
        time.sleep(0.2)
    return left_running(folder)


@pytest.mark.parametrize("killed", [0, 1])
@pytest.mark.parametrize("moment", [STEP, EVALUATION])
def test_the_other_process_names_the_one_that_was_killed(killed, moment, tmp_path):
    processes = started(tmp_path, 2, moment, killed)
    try:
        assert processes[killed].wait(timeout=300) == -signal.SIGKILL
        assert processes[1 - killed].wait(timeout=BOUND) == 1
    finally:
        for process in processes:
            process.kill()
    said = (tmp_path / f"{1 - killed}.txt").read_text()
    pid = processes[killed].pid
    assert re.search(rf"process {killed} of 2 \(counted from 0\), on \S+, pid {pid}, has ended: .*--resume", said), said
    assert "Traceback" not in said and not wait_for_none(tmp_path)
