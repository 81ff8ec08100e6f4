"""Every value that a flag offers does what it says, to the end, in both kinds of study."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest
import torch

from experiments import cls_imagenet, cls_office_home, eval_robustness, seg_gta2city
from experiments.reporting.page import write_report
from experiments.study.flags import PRECISIONS, WANDB, parse
from tests.experiments.refusals import refused

QUICK = "--smoke --max-steps 1 --gpus 0"
CLASSIFY = f"{QUICK} --images 40 --backbone cifar_resnet8"
SEGMENT = f"{QUICK} --norm bn --batch-size 2"


def study(module, line: str, out: Path) -> pd.DataFrame:
    line = f"{line} --out {out}" + ("" if "--wandb" in line else " --wandb disabled")
    results = module.run(parse(module.Flags, "", line.split()))
    assert len(results) and (out / "report.html").exists() and (out / "table.md").exists()
    for file in out.glob("*/result.json"):
        assert all(math.isfinite(v) for row in json.loads(file.read_text())["results"] for v in row.values()
                   if isinstance(v, float) and row["part"] == "clean" and row["measure"] != "miou")  # fmt: skip
    return results


@pytest.mark.parametrize(
    "values",
    [
        "--norm bn --precision 64-true --crop random --evaluate shifts",
        pytest.param("--norm bn --precision 32-true --crop resized", marks=pytest.mark.slow),
        pytest.param("--norm sn bin --precision bf16-mixed --crop padded", marks=pytest.mark.slow),
        pytest.param("--norm sn bin ibn-a --precision 64-true --crop centre --ema-decay 0.5", marks=pytest.mark.slow),
    ],
)
def test_classification(values, tmp_path):
    study(cls_imagenet, f"{CLASSIFY} {values}", tmp_path / "run")


def test_a_network_of_64_bits_is_evaluated_as_it_was_trained(tmp_path):
    run = tmp_path / "run"
    results = study(cls_imagenet, f"{CLASSIFY} --norm bn --precision 64-true", run)
    weights = torch.load(run / "bn-seed0" / "checkpoints" / "model.ckpt", weights_only=True)["state_dict"]
    assert {w.dtype for w in weights.values() if w.is_floating_point()} == {torch.float64}
    line = (
        f"{run} --data shapes --images 10 --parts clean --gpus 0 --workers 0 --wandb disabled --out {tmp_path / 'eval'}"
    )
    again = eval_robustness.run(parse(eval_robustness.Flags, "", line.split()))
    assert set(again["measure"]) >= {"top1"} and len(results)
    assert again["value"].between(0, 1e3).all()


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["mixed", "leave-one-out", "transfer", "transfer --adapt dann"])
@pytest.mark.parametrize("precision", ["32-true", "64-true"])
def test_settings_and_precisions(setting, precision, tmp_path):
    line = f"{QUICK} --norm bn --setting {setting} --precision {precision}"
    if "transfer" in setting:
        line += " --source photo"
    study(cls_office_home, line, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [
        "--precision 64-true --evaluation sliding --norm-in decoder",
        "--precision 32-true --evaluation whole --norm-in encoder",
        "--precision bf16-mixed --evaluation sliding --norm-in both --no-augment-colour",
        "--precision 64-true --evaluation whole --class-uniform 0.5",
    ],
)
def test_segmentation(values, tmp_path):
    study(seg_gta2city, f"{SEGMENT} {values}", tmp_path / "run")
    write_report(tmp_path / "run")


@pytest.mark.parametrize("module", [cls_imagenet, seg_gta2city])
def test_half_precision_without_a_gpu_is_refused_before_anything_is_written(module, tmp_path, capsys):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    error = refused(module, capsys, f"{QUICK} --norm bn --precision 16-mixed --out {tmp_path / 'run'}")
    assert "--precision 16-mixed needs a GPU" in error and not (tmp_path / "run").exists()
    assert set(PRECISIONS) == {"32-true", "bf16-mixed", "16-mixed", "64-true"}  # what the tests above run


@pytest.mark.slow
@pytest.mark.parametrize("mode", WANDB)
def test_wandb_modes(mode, tmp_path, monkeypatch, capfd):
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # where nobody answers
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    study(cls_imagenet, f"{CLASSIFY} --norm bn --wandb {mode}", tmp_path / "run")
    kept = list((tmp_path / "run").rglob("*.wandb"))
    assert len(kept) == (mode in ("online", "offline"))  # of a smoke run nobody asked for more
    said = capfd.readouterr().err
    assert ("W&B: you are not logged in; runs stay offline" in said) == (mode == "online")
