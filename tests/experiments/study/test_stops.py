"""Ctrl-C and SIGTERM, at whatever moment they come, end a script with their own status and without a traceback."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from experiments.study import stops

ROOT = Path(__file__).parents[3]
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
        str(ROOT / "tests" / "experiments" / "study" / "stopped_script.py"),
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
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
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
