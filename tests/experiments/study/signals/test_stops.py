"""Ctrl-C, SIGTERM and SIGUSR1, whenever they come, end a script with their own status and without a traceback."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from experiments.study.signals import stops

ROOT = Path(__file__).parents[4]
STUDY = (
    "cls_imagenet.py --data shapes/photo --norm bn bin --backbone cifar_resnet8 --recipe laptop --images 64 "
    "--batch-size 16 --wandb disabled --workers 1 --epochs 2 --gpus 0 --out run"
)
STEP = "call pytorch_lightning:LightningModule.optimizer_step"
REPORT = "call experiments.reporting.page:write_report"


def ended(name: str, moment: str, line: str, folder: Path) -> subprocess.CompletedProcess:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    command = [
        sys.executable,
        str(ROOT / "tests" / "experiments" / "study" / "signals" / "stopped_script.py"),
        name,
        moment,
        *line.split(),
    ]
    environment = os.environ | {"PYTHONPATH": path, "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.mark.parametrize(
    ("moment", "line"),
    [
        ("import yaml", STUDY),
        ("import simple_parsing", "seg_gta2city.py --smoke"),
        ("import experiments.reporting.sections", "report.py ."),
        ("import wandb_workspaces", "dashboard.py --project normshift"),
    ],
)
def test_ctrl_c_while_a_script_starts(moment, line, tmp_path):
    done = ended("SIGINT", moment, line, tmp_path)
    assert done.returncode == 130 and done.stderr == "" and not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1"])
@pytest.mark.parametrize(
    "moment",
    [
        "import torch",
        "import pytorch_lightning",
        "call datamodules.classification.domains:open_images 1",
        f"{STEP} 3",
        f"{STEP} 11",  # of the second arm
        f"{STEP} 3; {REPORT} 1",  # while what there is is left
        "call lightning_modules.classification.module:ClassificationModule.validation_step 1",
        "call experiments.study.run_folder:RunFolder.gather 1",  # between two arms
        f"{REPORT} 1",
    ],
)
def test_a_signal_at_a_moment_of_a_study(name, moment, tmp_path):
    done = ended(name, moment, STUDY, tmp_path)
    assert done.returncode == 128 + getattr(signal, name), done.stderr
    again = ended(name, "import nothing.of.this.name", f"{STUDY}{' --resume' * (tmp_path / 'run').exists()}", tmp_path)
    assert again.returncode == 0 and (tmp_path / "run" / "report.html").exists()


def test_what_is_raised_after_a_signal_was_raised_by_it():
    with pytest.raises(SystemExit) as stopped, stops.signals_exit():
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except SystemExit as error:
            raise RuntimeError("a loader's worker ended") from error
    assert stopped.value.code == 130
    with pytest.raises(SystemExit) as stopped, stops.signals_exit():
        with suppress(SystemExit):  # as a bare except does
            os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)  # schedulers repeat themselves
    assert stopped.value.code == 143 and stops.stopped() is None


STEP_OF = """
import ctypes, os, signal, sys, time
from experiments.study.signals import stops
stops.GRACE, stops.LAST_RESORT, stops.ECHO = {grace}, 0.3, 0.5
stops.exit_on_signals()
with stops.signals_exit():
    stops.deferred()
    print("begun", flush=True)
    {step}
    print("ended", flush=True)
    stops.exit_if_stopped()
"""
LONG = "time.sleep(60)"
HANGS = "mutex = ctypes.create_string_buffer(64); [ctypes.CDLL(None).pthread_mutex_lock(mutex) for _ in 'ab']"
"""A lock that is never given free: the call goes on after a signal, and Python runs no handler."""
WAITS = "[time.sleep(0.05) for _ in range(40)]"
AFTER = "not ended in 0.4 s: stopping without a checkpoint"


@pytest.mark.parametrize(
    ("step", "grace", "signals", "status", "prints", "says"),
    [
        (WAITS, 25, [("SIGTERM", 0)], 143, "ended", "stopping after this step, with a checkpoint"),
        (WAITS, 25, [("SIGUSR1", 0), ("SIGTERM", 0)], 138, "ended", "stopping after this step"),  # as SLURM may send
        (WAITS, 25, [("SIGINT", 0), ("SIGINT", 0.1)], 130, "ended", "Ctrl-C again stops at once"),  # torchrun's echo
        (LONG, 25, [("SIGINT", 0), ("SIGINT", 0.9)], 130, "", "Ctrl-C again stops at once"),
        (LONG, 25, [("SIGTERM", 0), ("SIGINT", 0.9)], 143, "", "stopping after this step"),
        (LONG, 0.4, [("SIGTERM", 0)], 143, "", AFTER),
        (HANGS, 0.4, [("SIGTERM", 0)], 143, "", AFTER),
        (HANGS, 0.4, [("SIGUSR1", 0), ("SIGINT", 0.2)], 138, "", AFTER),
    ],
)
def test_a_step_ends_after_a_signal_or_is_ended(step, grace, signals, status, prints, says, tmp_path):
    command = [sys.executable, "-c", STEP_OF.format(step=step, grace=grace)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        assert process.stdout.readline() == "begun\n"
        for name, later in signals:
            time.sleep(later)
            process.send_signal(getattr(signal, name))
        printed, said = process.communicate(timeout=60)
    assert (process.returncode, printed.strip()) == (status, prints) and says in said and "Traceback" not in said


def test_only_what_goes_on_is_started_again_by_slurm(monkeypatch, tmp_path):
    """An evaluation would begin anew for ever; a study asks also when its step has to be cut off."""
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    (tmp_path / "scontrol").chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "PYTHONPATH": str(ROOT)
    }  # fmt: skip
    for first, asked in (("", ""), ("stops.goes_on()\n", "requeue 7\n")):
        for step in (WAITS, HANGS):
            (tmp_path / "asked").write_text("")
            program = STEP_OF.format(step=step, grace=3).replace("with stops", f"{first}with stops", 1)
            with subprocess.Popen(
                [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True
            ) as process:
                process.stdout.readline()
                process.send_signal(signal.SIGUSR1)
            assert process.returncode == 138 and (tmp_path / "asked").read_text() == asked
