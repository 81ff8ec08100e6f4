"""A task of two optimisers in one file: from its study to evaluate.py and predict.py."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from experiments import evaluate, predict
from experiments.reporting.page import write_report
from experiments.study.endings import TrainingsFailed
from experiments.study.flags import parse
from experiments.study.reader import read_folder
from lightning_modules.checkpoints import load_network
from tests.experiments.study import toy_pictures
from tests.experiments.study.toy_pictures import Flags, Negative

FILE = Path(toy_pictures.__file__)
QUICK = "--gpus 0 --workers 0 --wandb disabled"


def study(line: str, out: Path) -> pd.DataFrame:
    return toy_pictures.run(parse(Flags, "", f"{QUICK} {line} --out {out}".split()))


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "toy"
    study("--seeds 2", out)
    return out


@pytest.fixture
def as_plugin():
    yield
    sys.modules.pop("plugin_toy_pictures", None)


def test_two_updates_are_one_step_and_both_losses_are_drawn(finished):
    run = read_folder(finished)
    assert run.metrics.step.max() == 5 and {"train/loss", "train/critic_loss"} <= {*run.metrics.metric}
    assert load_network(finished / "sn-seed0" / "checkpoints" / "model.ckpt").steps == 6
    html = write_report(finished).read_text()
    assert "training loss" in html and "training critic loss" in html and "how sure the network is" not in html


def test_the_table_has_a_column_for_each_of_its_measures(finished):
    header, *_, legend = [line for line in (finished / "table.md").read_text().splitlines() if line]
    assert header == "| norm | seeds | error | pixels nearly right |"
    assert legend.startswith("error in grey levels, pixels nearly right in percentage points ± standard deviation")


def test_a_stopped_training_goes_on_and_comes_to_the_same(finished, tmp_path, monkeypatch):
    def stop(self, *_):
        if self.steps == 5:
            raise RuntimeError("stopped")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="stopped"):
        patch.setattr(Negative, "on_train_batch_start", stop)
        study("--norm bn --save-every 1", tmp_path)
    assert (tmp_path / "bn-seed0" / "checkpoints" / "last.ckpt").exists()
    resumed, whole = study("--norm bn --resume", tmp_path), pd.read_csv(finished / "results.csv")
    whole = whole[(whole.norm == "bn") & (whole.seed == 0)].reset_index(drop=True)
    pd.testing.assert_frame_equal(resumed.reset_index(drop=True), whole, rtol=0.01)  # sums in another order


def test_a_loss_that_is_not_finite_ends_one_arm_in_a_sentence(tmp_path, monkeypatch):
    forward = Negative.forward

    def broken(self, pictures):
        return forward(self, pictures) * (float("nan") if self.training and self.steps == 3 else 1)

    monkeypatch.setattr(Negative, "forward", broken)
    with pytest.raises(TrainingsFailed, match="bn, seed 0: at step 4 the loss is not finite"):
        study("--norm bn", tmp_path)


def test_evaluate_and_predict_take_it_as_a_plugin(finished, tmp_path, as_plugin):
    """Its checkpoints come from a run in which the file was a module of another name."""
    line = f"{finished} --plugin {FILE} {QUICK} --out {tmp_path / 'evaluated'}"
    results = evaluate.run(parse(evaluate.Flags, "", line.split()))
    before = pd.read_csv(finished / "results.csv")
    pd.testing.assert_series_equal(results.value.reset_index(drop=True), before.value)
    picture = np.full((5, 7, 3), 200, np.uint8)
    Image.fromarray(picture).save(tmp_path / "grey.png")
    line = (
        f"{finished / 'sn-seed0'} {tmp_path / 'grey.png'} --plugin {FILE} --gpus 0 --workers 0 --out {tmp_path / 'p'}"
    )
    predict.run(parse(predict.Flags, "", line.split()))
    network = load_network(finished / "sn-seed0" / "checkpoints" / "model.ckpt")
    with torch.no_grad():
        made = toy_pictures.shown(network(torch.tensor(picture).movedim(-1, 0)[None].float() / 255)[0])
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "p" / "pictures" / "grey.png")), made)


def test_without_its_file_the_file_is_asked_for(finished, tmp_path):
    script, network = str(FILE.parents[3] / "experiments" / "evaluate.py"), str(finished / "sn-seed0")
    line = [sys.executable, script, network, "--gpus", "0", "--wandb", "disabled", "--out", str(tmp_path)]
    said = subprocess.run(line, capture_output=True, text=True, cwd=FILE.parents[3]).stderr
    assert "is of a Negative" in said and "pass its file by --plugin" in said and "Traceback" not in said


def test_fewer_samples_than_a_step_takes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="there are 8 samples to learn from, fewer than the 9 of one step"):
        study("--norm bn --batch-size 9", tmp_path)
