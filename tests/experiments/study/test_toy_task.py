"""A toy task through everything that is written once for all tasks: from its command line to its report and back."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from experiments.reporting.page import write_report
from experiments.study.endings import TrainingsFailed
from experiments.study.flags import parse
from experiments.study.reader import read_folder
from experiments.study.trained.networks import trained_networks
from experiments.study.wandb_runs.offline_history import read_offline
from lightning_modules.examples import read_examples
from lightning_modules.study_module import StudyModule
from tests.experiments.refusals import refused
from tests.experiments.study import toy_study
from tests.experiments.study.toy_study import Flags
from tests.experiments.study.toy_task import Brighter

ROOT = Path(__file__).parents[3]
HERE = "tests.experiments.study"
QUICK = "--gpus 0 --workers 0"
ARMS = ["sn-0.1", "bn-0.1"]


def study(line: str, out: Path) -> pd.DataFrame:
    return toy_study.run(parse(Flags, "", [*QUICK.split(), *line.split(), "--out", str(out)]))


def called(*command: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run of two arms and two seeds, logged to W&B offline."""
    out = tmp_path_factory.mktemp("runs") / "toy"
    study("--seeds 2 --wandb offline", out)
    return out


@pytest.mark.parametrize("name", ["toy_task", "toy_study"])
def test_it_is_small(name):
    lines = Path(__file__).with_name(f"{name}.py").read_text().splitlines()
    assert len([line for line in lines if line.strip()]) < 60


def test_help_lists_its_own_flags_before_torch_is_loaded():
    code = f"import sys; from {HERE} import toy_study; sys.argv = ['toy_study.py', '--help']\n"
    code += "try: toy_study.main()\nexcept SystemExit: print('torch' in sys.modules)"
    printed = called("-c", code).stdout
    assert "Learning rates to compare." in printed and "Norms to compare, of bin bn" in printed
    assert printed.endswith("False\n")


def test_results_are_long_rows_of_its_own_measure(finished):
    results = pd.read_csv(finished / "results.csv")
    assert list(results)[:4] == ["arm", "norm", "lr", "seed"]
    assert list(zip(results.arm, results.seed, strict=True)) == [(arm, seed) for arm in ARMS for seed in (0, 1)]
    assert set(results.measure) == {"hits"} and results.value.between(0, 1).all()
    rows = json.loads((finished / "bn-0.1-seed1" / "result.json").read_text())["results"]
    assert rows[0]["value"] == results.value.iloc[-1]


def test_its_table_gates_and_examples_are_in_the_report(finished):
    assert (finished / "table.md").read_text().startswith("| arm | seeds | squares told right |")
    html = (finished / "report.html").read_text()
    assert "Which norm sees where it is brighter?" in html and "squares told right" in html and "left" in html
    gates = pd.read_parquet(finished / "gates.parquet")
    assert set(gates.arm) == {"sn-0.1"} and sorted(gates.epoch.unique()) == list(range(7))
    examples = read_examples(finished / "examples", ARMS)
    assert [set(one.predictions) for one in examples] == [set(ARMS)] * 2
    assert examples[0].truth in ("left", "right") and examples[0].picture.exists()


def test_a_checkpoint_alone_is_the_network(finished):
    network = Brighter.load_from_checkpoint(finished / "sn-0.1-seed0" / "checkpoints" / "model.ckpt")
    assert isinstance(network, StudyModule) and network.steps == 6 and network.hparams.norm == "sn"
    assert [one.arm for one in trained_networks([str(finished)])] == [arm for arm in ARMS for _ in (0, 1)]


def test_wandb_has_the_same(finished):
    logged = read_offline(finished / "bn-0.1-seed0", wait=60)
    last = {key: value for call in logged.rows.values() for key, value in call.items()}
    value = json.loads((finished / "bn-0.1-seed0" / "result.json").read_text())["results"][0]["value"]
    assert last["final/hits"] == value == last["squares/hits"]
    assert last["results"]["_type"] == "table-file" and "examples" in last
    settings = logged.config
    assert (settings["arm"], settings["lr"], settings["seed"]) == ("bn-0.1", 0.1, 0)


def test_a_run_is_read_back(finished):
    run = read_folder(finished)
    assert list(run.arms) == ARMS and run.results.measure.unique().tolist() == ["hits"]
    assert {"train/loss", "squares/hits"} <= set(run.metrics.metric) and len(run.gates)


def test_a_configuration_is_read_back(finished, tmp_path):
    config = yaml.safe_load((finished / "config.yaml").read_text())
    assert config["lrs"] == [0.1] and config["seeds"] == 2 and config["question"].startswith("Which norm")
    again = parse(Flags, "", ["--config", str(finished / "config.yaml"), "--seeds", "1", "--out", str(tmp_path)])
    assert (again.lrs, again.seeds, again.norm) == ([0.1], 1, ["sn", "bn"])


def test_a_second_run_is_refused_and_a_resumed_one_adds_an_arm(finished, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    line = f"{QUICK} --seeds 2 --wandb disabled --out {copy}"
    assert "already holds a run" in refused(toy_study, capsys, line)
    before = pd.read_csv(copy / "results.csv")
    again = study("--seeds 2 --wandb disabled --norm sn bn bin --resume", copy)
    pd.testing.assert_frame_equal(again[again.norm != "bin"].reset_index(drop=True), before, check_exact=False)
    assert "unknown norm 'b'" in refused(toy_study, capsys, f"{QUICK} --norm b --out {tmp_path / 'b'}")


KILLED = f"""
import os, signal, sys
from {HERE} import toy_study
from {HERE}.toy_task import Brighter
def stop(self, *_):
    if self.hparams.norm == "bn" and self.steps == 4:
        os.kill(os.getpid(), signal.SIGKILL)
Brighter.on_train_batch_start = stop
toy_study.main()
"""


def test_a_killed_run_is_resumed_and_comes_to_the_same(finished, tmp_path):
    out = tmp_path / "run"
    done = called("-c", KILLED, *QUICK.split(), "--wandb", "disabled", "--out", str(out))
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (out / "sn-0.1-seed0" / "result.json").exists() and not (out / "bn-0.1-seed0" / "result.json").exists()
    html = re.sub("</?span.*?>", "", write_report(out).read_text())
    assert "begun but not finished: bn-0.1-seed0" in html
    results = study("--wandb disabled --resume", out)
    whole = pd.read_csv(finished / "results.csv")
    whole = whole[whole.seed == 0].reset_index(drop=True)
    pd.testing.assert_frame_equal(results.reset_index(drop=True), whole, check_exact=False)
    assert pd.read_csv(out / "metrics.csv").groupby("arm")["squares/hits"].count().to_dict() == dict.fromkeys(ARMS, 6)


def test_an_arm_that_fails_fails_alone(tmp_path):
    with pytest.raises(TrainingsFailed, match=r"1 of the trainings failed: bn-1e.12, seed 0: at step"):
        study("--norm bn --lrs 1e12 0.1 --wandb offline", tmp_path)
    results = pd.read_csv(tmp_path / "results.csv")
    assert set(results.arm) == {"bn-0.1"}
    table = (tmp_path / "table.md").read_text()
    assert "0, 1 failed" in table and "Failed: bn-1e+12, seed 0" in table
    assert "Failed, without a result" in (tmp_path / "report.html").read_text()
