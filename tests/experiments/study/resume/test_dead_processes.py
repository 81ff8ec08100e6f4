"""When one of several processes is killed, the others end soon, name it, and leave nothing running."""

import os
import platform
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[4]
KILLED = ROOT / "tests" / "experiments" / "study" / "signals" / "stopped_script.py"
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
            works_there = process.name.isdigit() and Path(os.readlink(process / "cwd")) == folder
            if works_there and (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z":  # of zombies
                found.append(int(process.name))
        except OSError:  # it has ended, or is not ours
            continue
    return found


def wait_until(happened: Callable[[], bool], seconds: float = 300.0) -> None:
    ends = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < ends
        time.sleep(0.2)


SLEEPS = """
import sys, time
from types import SimpleNamespace
import torch.distributed as processes
from experiments.study.resume import dead_processes

apart, rank = sys.argv[1] == "apart", int(sys.argv[2])
if apart:  # as if each were on a machine of its own
    own = dead_processes.first_note
    dead_processes.first_note, dead_processes.SILENCE = lambda rank: own(rank)._replace(place=str(rank)), 8.0
processes.init_process_group("gloo")
trainer = SimpleNamespace(world_size=3, global_rank=rank, strategy=SimpleNamespace(launcher=None))
dead_processes.EndsTogether().setup(trainer, None, "fit")
if rank == 2:
    dead_processes.all_done()
else:
    print("ready", flush=True)
    time.sleep(100)
"""


@pytest.mark.parametrize("where", ["together", "apart"])
def test_a_process_that_does_not_wait_for_others_ends_too(where, tmp_path):
    """It is inside something long; before, one of the others has left and one has stood still, which is no death."""
    own = environment(MASTER_ADDR="127.0.0.1", MASTER_PORT=free_port(), WORLD_SIZE="3")
    command, pipe = [sys.executable, "-c", SLEEPS, where], subprocess.PIPE
    first, second, third = (
        subprocess.Popen([*command, str(rank)], env=own | {"RANK": str(rank)}, stdout=pipe, stderr=pipe, text=True)
        for rank in range(3)
    )
    try:
        assert third.wait(100) == 0 and first.stdout.readline() == second.stdout.readline() == "ready\n"
        second.send_signal(signal.SIGSTOP)
        time.sleep(4)
        second.send_signal(signal.SIGCONT)
        time.sleep(4)
        assert first.poll() is None and second.poll() is None
        second.kill()
        assert first.wait(BOUND) == 1
    finally:
        for process in (first, second, third):
            process.kill()
    said = first.stderr.read()
    assert f"process 1 of 3 (counted from 0), on {platform.node()}, pid {second.pid}, has ended: " in said, said


@pytest.mark.parametrize(("moment", "killed"), [(STEP, 0), (EVALUATION, 1)])
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
    assert "Traceback" not in said
    wait_until(lambda: not left_running(tmp_path), BOUND)


@pytest.mark.parametrize("killed", [0, 1])
def test_processes_that_lightning_has_started(killed, tmp_path):
    script, *flags = STUDY.replace("--max-steps 12", "--max-steps 9000").split()
    with (tmp_path / "said.txt").open("w") as said:
        command, own = [sys.executable, str(ROOT / "experiments" / script), *flags], environment(LOCAL_WORLD_SIZE="2")
        first = subprocess.Popen(command, cwd=tmp_path, env=own, stdout=said, stderr=said)
    try:
        wait_until(lambda: (tmp_path / "run" / "bn-seed0" / "checkpoints" / "last.ckpt").exists())
        others = [pid for pid in left_running(tmp_path) if "LOCAL_RANK=1" in started_with(pid)]
        second = min(others)  # its loader's workers are younger
        os.kill((first.pid, second)[killed], signal.SIGKILL)
        assert first.wait(BOUND) == (-signal.SIGKILL, 1)[killed]
        wait_until(lambda: not left_running(tmp_path), BOUND)
    finally:
        first.kill()
    said = (tmp_path / "said.txt").read_text()
    assert f"process {killed} of 2" in said and f"pid {(first.pid, second)[killed]}, has ended: " in said, said


def started_with(pid: int) -> list[str]:
    """The environment with which a process was started."""
    return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")


def by_torchrun(folder: Path, world: int, moment: str, *options: str, killed: int = 1) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world), *options]
    command += [str(KILLED), "SIGKILL", moment, *STUDY.split()]
    own = environment(STOPPED_RANK=str(killed))
    return subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True, timeout=600)


def written(run: Path) -> dict[str, bytes]:
    """What a run leaves, by file: weights, gates, results and metrics."""
    part = run / "bn-seed0"
    weights = torch.load(part / "checkpoints" / "model.ckpt", weights_only=True)["state_dict"]
    files = [run / name for name in ("results.csv", "metrics.csv", "gates.parquet")] + [part / "metrics.csv"]
    return {str(file.relative_to(run)): file.read_bytes() for file in files if file.exists()} | {
        name: value.numpy().tobytes() for name, value in weights.items()
    }


def test_all_processes_come_back_from_the_same_checkpoint(tmp_path, world=4):
    """torchrun starts them anew after a kill; they end as if nothing had happened, bit by bit.

    Of more than two processes the order of a sum also depends on how gradients are put together.
    """
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    assert by_torchrun(whole, world, "import nothing.of.this.name").returncode == 0
    done = by_torchrun(broken, world, STEP, "--max-restarts", "1")
    assert done.returncode == 0 and "process 1 of 4" in done.stderr, done.stderr
    assert written(broken / "run") == written(whole / "run")
    wait_until(lambda: not left_running(broken), BOUND)
