"""A study as the job of a real SLURM: submitted, signalled, started again, finished, and equal to one left alone.

    make test-slurm

It starts munged, slurmctld and slurmd for this machine in a temporary folder, as root, and ends them afterwards. They
are Debian's packages slurmctld, slurmd, slurm-client and munge. With `--by-time` SLURM sends the signal by itself,
before the job's time is over, which takes some minutes; else `scancel` sends it as soon as the training has begun.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "scancel", "squeue")
STUDY = (
    "cls_imagenet.py --data shapes/photo --norm sn --recipe laptop --backbone cifar_resnet8 --images 200 "
    "--batch-size 16 --ema-decay 0.9 --workers 1 --gpus 0 --wandb disabled --save-minutes 60 --epochs"
)
CONFIGURATION = """
ClusterName=normshift
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={other_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/linear
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SchedulerParameters=sched_interval=1,bf_interval=1
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
JOB = """#!/bin/bash
#SBATCH --job-name=normshift --output={folder}/job.log --open-mode=append --requeue
#SBATCH --time={minutes} --signal=USR1@{seconds} --ntasks=1
srun {command}
"""


def missing() -> list[str]:
    """What this test needs and the machine does not have."""
    lacking = [program for program in NEEDED if shutil.which(program) is None]
    return lacking + ["root"] * (os.geteuid() != 0)


class Slurm:
    """A SLURM of one node in a folder; a context that ends its daemons."""

    def __init__(self, folder: Path):
        self.folder, self._daemons = folder, []

    def __enter__(self) -> Slurm:
        try:
            self._begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _begin(self) -> None:
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        ports = {"port": _free_port(), "other_port": _free_port()}
        text = CONFIGURATION.format(
            folder=self.folder, host=socket.gethostname().split(".")[0], cores=os.cpu_count(), **ports
        )
        configuration = self.folder / "slurm.conf"
        configuration.write_text(text)
        os.environ["SLURM_CONF"] = str(configuration)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        where = {"socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        munge = [f"--{flag}={self.folder}/munge.{ending}" for flag, ending in where.items()]
        self._start("munged", "--foreground", "--force", f"--key-file={key}", *munge)
        wait_until(lambda: (self.folder / "munge.socket").exists(), 20, "munge's socket")
        self._start("slurmctld", "-D", "-f", str(configuration))
        self._start("slurmd", "-D", "-f", str(configuration))
        wait_until(lambda: "idle" in self("sinfo", "--noheader", "--format=%T"), 60, "an idle node")

    def __exit__(self, *_) -> None:
        self("scancel", "--user=root")  # after a failure the job would outlive its SLURM
        with suppress(SystemExit):
            wait_until(lambda: not self("squeue", "--noheader"), 20, "end of the jobs")
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in reversed(self._daemons):
            with suppress(subprocess.TimeoutExpired):
                daemon.wait(10)
            daemon.kill()

    def __call__(self, *command: str) -> str:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        except subprocess.TimeoutExpired:  # the daemon is busy, or has ended
            return ""
        return done.stdout.strip() if not done.returncode else ""

    def _start(self, *command: str) -> None:
        log = (self.folder / f"{command[0]}.out").open("w")
        self._daemons.append(subprocess.Popen(command, stdout=log, stderr=log))


def _free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


def wait_until(happened: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for something; SystemExit names what has not come in time."""
    until = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > until:
            raise SystemExit(f"there was no {what} in {seconds:g} s")
        time.sleep(0.1)


def submitted(slurm: Slurm, epochs: int, minutes: int, seconds: int) -> tuple[str, Path]:
    """Submit the study; the job's number and its run."""
    run = slurm.folder / "run"
    command = f"{sys.executable} {ROOT / 'experiments'}/{STUDY} {epochs} --out {run}"
    script = slurm.folder / "job.sh"
    script.write_text(JOB.format(folder=slurm.folder, minutes=minutes, seconds=seconds, command=command))
    return slurm("sbatch", "--parsable", str(script)), run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--by-time", action="store_true", help="let SLURM send the signal")
    by_time = parser.parse_args().by_time
    if missing():
        raise SystemExit(f"this test needs {', '.join(missing())}: apt-get install {' '.join(PACKAGES)}")
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="slurm-") as name, Slurm(Path(name)) as slurm:
        follow(slurm, by_time)


PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
"""Debian's."""


def follow(slurm: Slurm, by_time: bool) -> None:
    """Follow the job from its submission to its end, and compare its weights."""
    began, epochs = time.monotonic(), 400 if by_time else 10

    def say(what: str) -> None:
        print(f"{time.monotonic() - began:5.1f} s  {what}", flush=True)

    def log() -> str:
        file = slurm.folder / "job.log"
        return file.read_text() if file.exists() else ""

    job, run = submitted(slurm, epochs, *(2, 60) if by_time else (30, 60))
    say(f"job {job} is submitted")
    wait_until(lambda: "step " in log(), 300, f"evaluation in the log of the job: {log()[-2000:]}")
    if not by_time:
        slurm("scancel", "--signal=USR1", job)
        say("it is signalled, as SLURM does before the end of a job's time")
    wait_until(lambda: f"SLURM starts job {job} again" in log(), 300, "word of the requeue")
    say("it has written a checkpoint and asked to be started again")
    wait_until(
        lambda: slurm("squeue", "--noheader", "--format=%T") == "RUNNING" and "report:" not in log(),
        120,
        "second start",
    )
    say("it runs again")
    wait_until(lambda: (run / "sn-seed0" / "result.json").exists(), 600, "result")
    wait_until(lambda: not slurm("squeue", "--noheader"), 120, "end of the job")
    say(f"it has finished: {slurm('scontrol', 'show', 'job', job).split('JobState=')[-1].split()[0]}")
    alone = slurm.folder / "alone"
    script, *flags = f"{STUDY} {epochs}".split()
    command = [sys.executable, str(ROOT / "experiments" / script), *flags, "--out", str(alone)]
    subprocess.run(command, check=True, capture_output=True)
    kept, others = (
        torch.load(path / "sn-seed0" / "checkpoints" / "model.ckpt", weights_only=False)["state_dict"]
        for path in (run, alone)
    )
    different = [key for key in kept if not torch.equal(kept[key], others[key])]
    if different:
        raise SystemExit(f"{len(different)} weights differ from those of a run that was left alone: {different[:5]}")
    say(f"all {len(kept)} weights and buffers are equal to those of a run that was left alone")


if __name__ == "__main__":
    main()
