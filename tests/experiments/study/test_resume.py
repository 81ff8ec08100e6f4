"""Trainings that are resumed after their last step, with a damaged checkpoint, and after real signals."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from experiments import cls_imagenet, seg_gta2city
from experiments.study.flags import parse
from experiments.study.run_folder import RunFolder
from lightning_modules.classification.module import ClassificationModule
from lightning_modules.segmentation.module import SegmentationModule

SHAPES = "--recipe smoke --data shapes/photo --width 0.25 --images 40 --max-steps 22 --workers 0 --wandb disabled"
STUDIES = {
    "cls": (cls_imagenet, ClassificationModule, f"{SHAPES} --norm bin --ema-decay 0.5", "bin"),
    "seg": (
        seg_gta2city,
        SegmentationModule,
        "--recipe smoke --source streets-game --target streets-fog --max-steps 9 --norm bin --workers 0 --scenes 2 "
        "--wandb disabled",
        "bin",
    ),
}


class Stop(BaseException):
    """As sudden as a kill, for all that Lightning knows."""


@pytest.mark.parametrize("name", ["cls", pytest.param("seg", marks=pytest.mark.slow)])
def test_a_training_that_had_ended_is_not_evaluated_twice(name, tmp_path, monkeypatch):
    study, _, line, arm = STUDIES[name]
    line = line.replace("--max-steps 22", "--max-steps 10").replace("--max-steps 9", "--max-steps 4")
    run = tmp_path / arm
    line = f"{line} --out {run}".split()

    def stop(*_, **__) -> None:
        raise Stop

    with monkeypatch.context() as patched:  # stopped behind the last checkpoint, before there are results
        patched.setattr(RunFolder, "finish", stop)
        with pytest.raises(Stop):
            study.run(parse(study.Flags, "", line))
    before = pd.read_csv(run / "metrics.csv")
    assert not list(run.glob("*/result.json")) and (run / f"{arm}-seed0" / "checkpoints" / "last.ckpt").exists()
    results = study.run(parse(study.Flags, "", [*line, "--resume"]))
    pd.testing.assert_frame_equal(pd.read_csv(run / "metrics.csv"), before)
    measure = next(column for column in before if column.endswith(("/top1", "/miou")))
    domain = measure.rpartition("/")[0]
    found = results[(results["domain"] == domain) & (results["measure"] == measure.rpartition("/")[2])]["value"]
    assert found.item() == pytest.approx(before[measure].dropna().iloc[-1])


def test_a_damaged_checkpoint_is_set_aside_and_the_training_still_ends_the_same(tmp_path, monkeypatch, capsys):
    """Stopped in its second epoch; the last checkpoint is then cut in half, and the one before is used."""
    study, module, line, arm = STUDIES["cls"]
    line = f"{line.replace('--max-steps 22', '--max-steps 8')} --save-every 2 --out"
    results = study.run(parse(study.Flags, "", [*line.split(), str(tmp_path / "whole")]))

    def stop(self, *_) -> None:
        if self.global_step == 7:
            raise Stop

    with monkeypatch.context() as patched, pytest.raises(Stop):
        patched.setattr(module, "on_train_batch_start", stop)
        study.run(parse(study.Flags, "", [*line.split(), str(tmp_path / "run")]))
    last = tmp_path / "run" / f"{arm}-seed0" / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    again = study.run(parse(study.Flags, "", [*line.split(), str(tmp_path / "run"), "--resume"]))
    assert "is damaged; it is kept as last-damaged.ckpt" in capsys.readouterr().err
    assert last.with_name("last-damaged.ckpt").exists() and not last.exists()
    pd.testing.assert_frame_equal(again, results)


SCRIPT = Path(__file__).parents[3] / "experiments" / "cls_imagenet.py"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_whatever_ends_the_process_all_steps_are_logged_once(number, tmp_path):
    line = [sys.executable, str(SCRIPT), *SHAPES.replace("--max-steps 22", "--max-steps 40").split(), "--norm", "bin"]
    line += ["--out", str(tmp_path / "run")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(line, stdout=log, stderr=subprocess.STDOUT, env=environment)
        while "step 20 of 40" not in (tmp_path / "log").read_text() and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(number)
        process.wait(60)
    part = tmp_path / "run" / "bin-seed0"
    assert not (part / "result.json").exists()
    subprocess.run([*line, "--resume"], check=True, env=environment, capture_output=True)
    assert torch.load(part / "checkpoints" / "model.ckpt", weights_only=True)["global_step"] == 40
    metrics = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert metrics.dropna(subset=["train/loss"])["step"].tolist() == list(range(4, 40, 5))
    gates = pd.read_parquet(tmp_path / "run" / "gates.parquet")
    assert sorted(gates["epoch"].unique()) == list(range(9)) and not gates.duplicated(["epoch", "layer", "label"]).any()
