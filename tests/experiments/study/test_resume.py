"""A training that is stopped and resumed takes exactly the steps of one that is not, in every study."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from experiments import cls_batch_size, cls_imagenet, cls_office_home, cls_rs_weight_decay, seg_gta2city
from experiments.study.endings import UsageError
from experiments.study.flags import parse
from experiments.study.run_folder import RunFolder
from lightning_modules.classification.domain_adversarial import DomainAdversarialModule
from lightning_modules.classification.module import ClassificationModule
from lightning_modules.segmentation.module import SegmentationModule
from lightning_modules.weight_averaging import AveragedWeights

SHAPES = "--recipe smoke --data shapes/photo --width 0.25 --images 40 --max-steps 22 --workers 0 --wandb disabled"
STUDIES = {
    # epochs of five steps and one of two
    "cls": (cls_imagenet, ClassificationModule, f"{SHAPES} --norm bin --ema-decay 0.5", "bin"),
    "batch-size": (cls_batch_size, ClassificationModule, f"{SHAPES} --norm sn --settings 2x4", "sn-2x4"),
    "dann": (
        cls_office_home,
        DomainAdversarialModule,
        f"{SHAPES.replace('/photo', '')} --norm bin --setting transfer --adapt dann --source photo --target sketch",
        "bin-photo-to-sketch",
    ),
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


def trained(monkeypatch, study, module: type, line: str, stops: list[int]) -> tuple[list[list[int]], list[int]]:
    """Run a study, resuming it after each stop; the steps that each call began, and those that were evaluated."""
    begun: list[list[int]] = []
    evaluated: list[int] = []
    original = module.on_validation_epoch_end

    def count(self, *_) -> None:
        if stops and self.global_step >= stops[0]:
            stops.pop(0)
            raise Stop
        begun[-1].append(self.global_step)

    def evaluate(self) -> None:
        original(self)
        evaluated.append(self.evaluated_at)

    with monkeypatch.context() as patched:
        patched.setattr(module, "on_train_batch_start", count)
        patched.setattr(module, "on_validation_epoch_end", evaluate)
        for call in range(len(stops) + 1):
            begun.append([])
            flags = parse(study.Flags, "", (line + " --resume" * bool(call)).split())
            if stops:
                with pytest.raises(Stop):
                    study.run(flags)
            else:
                study.run(flags)
    return begun, evaluated


@pytest.mark.parametrize("name", ["cls", *(pytest.param(name, marks=pytest.mark.slow) for name in [*STUDIES][1:])])
def test_steps_epochs_and_evaluations_are_those_of_a_whole_training(name, tmp_path, monkeypatch):
    study, module, line, arm = STUDIES[name]
    updates = []  # of the average, when a training ends
    put_in_place = AveragedWeights.put_in_place

    def counted(self, *arguments) -> None:
        updates.append(int(self._average_model.n_averaged))
        put_in_place(self, *arguments)

    monkeypatch.setattr(AveragedWeights, "put_in_place", counted)
    steps, epoch, in_turn = (9, 2, 1) if name == "seg" else (22, 5, 2 if name == "batch-size" else 1)
    _, evaluated = trained(monkeypatch, study, module, f"{line} --out {tmp_path / 'whole'}", [])
    stops = [1, 2 * epoch + 1, steps - 1]  # in the first epoch, the third and the last
    calls, evaluated_in_parts = trained(monkeypatch, study, module, f"{line} --out {tmp_path / 'run'}", list(stops))

    begins = [0, 0, 2 * epoch, (steps - 1) // epoch * epoch]  # each call goes on from the last whole epoch
    ends = [*stops, steps]
    expected = [[step for step in range(*part) for _ in range(in_turn)] for part in zip(begins, ends, strict=True)]
    assert calls == expected
    assert evaluated_in_parts == evaluated and evaluated[-1] == steps
    assert updates == ([22, 22] if "--ema-decay" in line else [])
    whole, run = (tmp_path / folder for folder in ("whole", "run"))
    kept = torch.load(run / f"{arm}-seed0" / "checkpoints" / "model.ckpt", weights_only=True)
    assert kept["global_step"] == steps
    gates, once = (pd.read_parquet(folder / "gates.parquet") for folder in (run, whole))
    keys = ["arm", "seed", "epoch", "step", "layer", "statistic", "label"]
    pd.testing.assert_frame_equal(gates[keys], once[keys])  # no epoch is missing, none is there twice
    assert not gates.duplicated(keys).any() and gates["epoch"].max() == -(-steps // epoch)
    logged, all_at_once = (pd.read_csv(folder / "metrics.csv") for folder in (run, whole))
    for column in all_at_once.columns[all_at_once.notna().any()].drop(["arm", "norm", "seed"]):
        there = (frame.dropna(subset=[column])[["step", "epoch"]].fillna(-1) for frame in (logged, all_at_once))
        pd.testing.assert_frame_equal(*(frame.reset_index(drop=True) for frame in there), check_dtype=False)


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


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A run stopped in its second epoch, and its command line."""
    run = tmp_path_factory.mktemp("interrupted") / "run"
    line = f"{SHAPES.replace('--max-steps 22', '--max-steps 10')} --norm bn --out"
    with pytest.MonkeyPatch.context() as patched, pytest.raises(Stop):

        def stop(self, *_) -> None:
            if self.global_step == 7:
                raise Stop

        patched.setattr(ClassificationModule, "on_train_batch_start", stop)
        cls_imagenet.run(parse(cls_imagenet.Flags, "", [*line.split(), str(run)]))
    return run, [*line.split()]


def without(*names: str):
    return lambda kept: {key: value for key, value in kept.items() if key not in names}


def of_other_shapes(kept: dict) -> dict:
    return kept | {"state_dict": {key: value[:1] if value.ndim else value for key, value in kept["state_dict"].items()}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda raw: raw[: len(raw) // 2], "is damaged"),
        (lambda raw: b"", "is empty"),
        (lambda raw: b"no checkpoint", "is damaged"),
        (without("loops", "optimizer_states"), "is not the checkpoint of a training under way"),
        (lambda kept: kept["state_dict"], "is not the checkpoint of a training under way"),
        (of_other_shapes, "is of another network"),
    ],
    ids=["cut", "empty", "text", "weights", "state-dict", "shapes"],
)
def test_a_checkpoint_that_cannot_be_gone_on_from_is_named(change, said, interrupted, tmp_path):
    run, line = tmp_path / "run", interrupted[1]
    shutil.copytree(interrupted[0], run)
    last = run / "bn-seed0" / "checkpoints" / "last.ckpt"
    if said in ("is damaged", "is empty"):
        last.write_bytes(change(last.read_bytes()))
    else:
        torch.save(change(torch.load(last, weights_only=False)), last)
    flags = parse(cls_imagenet.Flags, "", [*line, str(run), "--resume"])
    with pytest.raises(UsageError, match=f"--resume: .*last.ckpt {said}: remove it"):
        cls_imagenet.run(flags)
    last.unlink()
    if said == "is empty":  # what the sentence advises
        assert len(cls_imagenet.run(flags))


@pytest.mark.slow
def test_a_step_of_resnet_rs_is_resumed(tmp_path, monkeypatch):
    line = "--smoke --max-steps 19 --weight-decays 0.001 --wandb disabled"
    arms = cls_rs_weight_decay.run(parse(cls_rs_weight_decay.Flags, "", f"{line} --out {tmp_path / 'whole'}".split()))
    calls, _ = trained(monkeypatch, cls_rs_weight_decay, ClassificationModule, f"{line} --out {tmp_path / 'run'}", [18])
    per_arm = list(range(19))
    assert calls[1][-len(per_arm) * (arms["arm"].nunique() - 1) :] == per_arm * (arms["arm"].nunique() - 1)
    first = calls[0] + calls[1][: len(calls[1]) - len(per_arm) * (arms["arm"].nunique() - 1)]
    assert sorted({*first}) == per_arm and first[-1] == 18


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
