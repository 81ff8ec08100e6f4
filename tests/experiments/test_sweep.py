"""Sweeps on this machine: of a program that takes no time, and of a real study."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image

from experiments import sweep
from experiments.study.endings import TrainingsFailed, UsageError, one_sentence
from experiments.study.flags import parse
from experiments.study.sweep.parameters import read_parameter
from experiments.study.sweep.processes import Processes, environment
from experiments.study.sweep.progress import Progress
from experiments.study.sweep.sweep_file import Sweep
from experiments.study.sweep.trial_files import FINISHED, RUNNING, Trial, read_trials

ROOT = Path(__file__).parents[2]
FAKE = Path(__file__).parent / "study" / "sweep" / "fake_study.py"
PLAIN = {
    "method": "grid",
    "program": str(FAKE),
    "metric": {"name": "final/top1", "goal": "maximize"},
    "parameters": {"norm": {"values": ["bn", "sn"]}, "x": {"values": [0.1, 0.3, 0.9]}, "seeds": {"value": 2}},
}


@pytest.fixture
def swept(tmp_path, monkeypatch):
    """Runs a sweep; its file is PLAIN with changes, its folder `out`."""
    monkeypatch.chdir(tmp_path)

    def swept(line: str = "", **changes) -> pd.DataFrame:
        Path("plain.yaml").write_text(yaml.safe_dump(PLAIN | changes, sort_keys=False))
        return sweep.run(parse(sweep.Flags, "", ["plain.yaml", "--out", "out", *shlex.split(line)]))

    return swept


def starts(number: int) -> int:
    """How often a trial was started."""
    return len(Path(f"out/trial-{number:03d}/starts.txt").read_text().splitlines())


def test_a_grid_ends_in_a_table_a_file_and_a_picture(swept, capsys):
    table = swept()
    assert list(table.columns) == ["trial", "state", "norm", "x", "seeds", "final/top1", "seconds", "why", "folder"]
    assert table["trial"].tolist() == [2, 5, 1, 4, 3, 6]  # by the distance of x from 0.3, then by number
    assert table["norm"].tolist() == ["bn", "sn"] * 3
    means = [1 - (x - 0.3) ** 2 + 0.005 for x in table["x"]]  # over two seeds, the second 0.01 better
    assert table["final/top1"].tolist() == pytest.approx(means)
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if line.startswith("trial ")]
    assert lines[0] == "trial 1 of 6 (norm bn, x 0.1): begins" and len(lines) == 12
    assert re.fullmatch(r"trial 1 of 6 \(norm bn, x 0.1\): final/top1 0.965; .+; .+ left, until .+", lines[1])
    assert "(best: 1.005 of trial 2)" in lines[5] and "left" not in lines[-1]
    assert "final/top1, largest first; all with seeds 2." in printed and "sweep: out/sweep.csv" in printed
    pd.testing.assert_frame_equal(pd.read_csv("out/sweep.csv")[["trial", "x"]], table[["trial", "x"]])
    rows = Path("out/table.md").read_text().splitlines()
    assert rows[0] == "| trial | norm | x | final/top1 | time |" and rows[2].startswith("| 2 | bn | 0.3 | 1.005 |")
    with Image.open("out/sweep.png") as picture:
        assert picture.width > picture.height > 200 and len(picture.convert("RGB").getcolors(10**6)) > 20
    assert Path("out/trial-001.log").read_text() == "trains bn\n"


def test_smaller_is_better_and_other_keys(swept):
    assert swept(metric={"name": "train/loss"})["train/loss"].tolist() == [0.25] * 6
    table = swept("--resume", metric={"name": "final/shifts/top1", "goal": "minimize"})
    assert table["x"].tolist() == [0.9, 0.9, 0.1, 0.1, 0.3, 0.3] and starts(1) == 1


def test_a_metric_that_is_not_there(swept):
    with pytest.raises(
        UsageError, match=r"metric.name final/drop: the results in out/trial-001 have no such number; they"
    ):
        swept(metric={"name": "final/drop"})
    assert not Path("out/trial-002").exists()
    assert len(swept("--resume")) == 6 and starts(1) == 2  # with the file corrected


def test_a_failing_trial_is_marked_and_the_others_go_on(swept, capsys):
    failing = PLAIN["parameters"] | {"fails": {"value": "bn"}, "x": {"values": [0.1, 0.2]}}
    with pytest.raises(TrainingsFailed, match=r"2 of 4 trials failed \(trial-001, trial-002\). The others are in out"):
        swept(parameters=failing)
    said = capsys.readouterr().out
    why = "status 3, 1 of the trainings failed: bn, seed 0: at step 3 the loss is not finite"
    assert f"trial 1 of 4 (norm bn, x 0.1): failed: {why}" in said and f"Trials 1, 2 failed: {why}." in " ".join(
        said.split()
    )
    table = pd.read_csv("out/sweep.csv")
    assert table["state"].tolist() == ["finished"] * 2 + ["failed"] * 2 and table["why"].iloc[2] == why
    with pytest.raises(TrainingsFailed):
        swept("--resume", parameters=failing)
    assert starts(1) == starts(3) == 1 and "finished: every trial of out has been run before" in capsys.readouterr().out
    Path("out/trial-001.json").unlink()
    with pytest.raises(TrainingsFailed):
        swept("--resume", parameters=failing)
    assert starts(1) == 2 and starts(2) == 1


def test_a_trial_that_crashes_or_leaves_nothing(swept):
    with pytest.raises(TrainingsFailed):
        swept(parameters={"norm": {"values": ["bn", "sn"]}, "crashes": {"value": "sn"}})
    assert read_trials(Path("out"))[2].why == "status 1, RuntimeError: a fault of the program"
    with pytest.raises(TrainingsFailed):
        swept("--out empty", command=["true"], parameters={"n": {"values": [1, 2]}})
    assert read_trials(Path("empty"))[1].why == "it has left no results in empty/trial-001"
    with pytest.raises(UsageError, match=r"nothing-of-this-name cannot be started .No such file.*correct command"):
        swept("--out never", command=["nothing-of-this-name"])


def test_random_trials_go_on_where_they_were(swept):
    space = {"method": "random", "parameters": {"x": {"min": 0.0, "max": 1.0}, "norm": {"values": ["bn", "sn"]}}}
    first = swept("--trials 3 --seed 4", **space)
    with pytest.raises(UsageError, match="already holds a sweep: pass --resume"):
        swept("--trials 5 --seed 4", **space)
    with pytest.raises(UsageError, match="out was started with another seed: repeat it"):
        swept("--trials 5 --resume", **space)
    with pytest.raises(UsageError, match="another parameters: repeat it"):
        swept("--trials 5 --seed 4 --resume", method="random", parameters={"x": {"min": 0.0, "max": 2.0}})
    more = swept("--trials 5 --seed 4 --resume auto", **space).set_index("trial")
    whole = swept("--trials 5 --seed 4 --out whole", **space).set_index("trial")
    assert more.loc[first["trial"], "x"].tolist() == first["x"].tolist() and starts(1) == 1
    assert more[["x", "norm", "final/top1"]].equals(whole[["x", "norm", "final/top1"]])


def test_a_target_that_is_reached_ends_the_sweep(swept):
    table = swept(metric=PLAIN["metric"] | {"target": 1.0})
    assert table["trial"].tolist() == [2, 1]


def test_optuna_and_a_resumed_sweep_choose_alike(swept):
    pytest.importorskip("optuna")
    space = {"method": "bayes", "parameters": {"x": {"min": 0.0, "max": 1.0}}, "run_cap": 12}
    whole = swept("--out whole", **space)
    swept("--trials 11", **space)
    again = swept("--resume", **space)
    assert again[["trial", "x"]].equals(whole[["trial", "x"]]) and abs(whole["x"].iloc[0] - 0.3) < 0.1


def test_trials_side_by_side(swept):
    began = time.monotonic()
    parameters = {"x": {"values": [0.1, 0.2, 0.3, 0.4]}, "sleeps": {"value": 2.0}}
    table = swept("--processes 4", parameters=parameters)
    assert len(table) == 4 and table["seconds"].min() >= 2.0
    assert time.monotonic() - began < table["seconds"].sum()


def test_processes_share_cores_and_gpus(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    eight = {"CUDA_VISIBLE_DEVICES": ",".join("01234567"), "WANDB_SWEEP_ID": "s", "PATH": ""}
    assert environment(0, 1, eight) == {"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7", "PATH": ""}
    assert environment(1, 4, eight) == {"CUDA_VISIBLE_DEVICES": "1,5", "OMP_NUM_THREADS": "2", "PATH": ""}
    two = {"CUDA_VISIBLE_DEVICES": "3,GPU-5", "OMP_NUM_THREADS": "1"}
    assert [environment(place, 3, two)["CUDA_VISIBLE_DEVICES"] for place in range(3)] == ["3", "GPU-5", "3"]
    assert environment(0, 3, two)["OMP_NUM_THREADS"] == "1"
    assert environment(0, 2, {"CUDA_VISIBLE_DEVICES": ""})["CUDA_VISIBLE_DEVICES"] == ""


def test_how_much_is_left(tmp_path, monkeypatch):
    """Two trials took 10 and 30 s; of four that are left, one has run for 5 s, before an interruption, and for 3 s."""
    parameters = (read_parameter("n", {"min": 1, "max": 6}),)
    asked = Sweep("grid", parameters, "top1", "maximize", ("a",), target=0.9)
    trials = {n: Trial(n, {}, FINISHED, value, s) for n, value, s in ((1, 0.5, 10.0), (2, 0.6, 30.0))}
    trials[3] = Trial(3, {}, seconds=5.0)
    progress = Progress(asked, tmp_path, 6, 0, [], Processes(2), trials, None)
    monkeypatch.setattr(Processes, "seconds", lambda self: {3: 3.0})
    monkeypatch.setattr(Processes, "has", lambda self, number: number == 3)
    monkeypatch.setattr(Processes, "__len__", lambda self: 1)
    assert progress.left().startswith("36 s left, until ")  # (3 * 20 + 20 - 5 - 3) / 2
    assert (progress.next, progress.best.number) == (4, 2)
    trials[2].value = 0.9
    assert progress.next is None and progress.left().startswith("12 s left, until ")


def started(folder: Path, *line: str) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "experiments" / "sweep.py"), "plain.yaml", "--out", "out", *line]
    code = "import signal, sys, runpy; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += f"sys.argv = {command[1:]!r}; sys.modules['__main__'].__file__ = sys.argv[0]; "
    code += "runpy.run_path(sys.argv[0], run_name='__main__')"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with (folder / "sweep.log").open("a") as log:
        return subprocess.Popen([sys.executable, "-c", code], cwd=folder, env=environment, stdout=log, stderr=log)


def wait_for(found, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize("name", ["SIGINT", pytest.param("SIGTERM", marks=pytest.mark.slow), "SIGKILL"])
def test_a_sweep_that_is_stopped_ends_its_trials_and_goes_on(name, tmp_path, monkeypatch):
    """Two trials are under way; they end in order, also if the sweep is killed, and go on where they were."""
    monkeypatch.chdir(tmp_path)
    slow = {"x": {"values": [0.1, 0.2, 0.3]}, "sleeps": {"value": 30}}
    Path("plain.yaml").write_text(yaml.safe_dump(PLAIN | {"parameters": slow}, sort_keys=False))
    process = started(tmp_path, "--processes", "2")
    logs = [Path(f"out/trial-00{i}.log") for i in (1, 2)]
    wait_for(lambda: all(log.exists() and log.read_text() for log in logs))
    process.send_signal(getattr(signal, name))
    status = {"SIGINT": 130, "SIGTERM": 143, "SIGKILL": -9}[name]
    assert process.wait(timeout=60) == status, Path("sweep.log").read_text()
    wait_for(lambda: all(log.read_text() == "trains bn\nstopped in order\n" for log in logs))
    assert [trial.state for trial in read_trials(Path("out")).values()] == [RUNNING] * 2
    log = Path("sweep.log").read_text()
    assert "Traceback" not in log and ("| stopped |" in Path("out/table.md").read_text() if status > 0 else True)
    Path("out/trial-003").mkdir()
    Path("out/trial-003/slept.txt").touch()
    assert started(tmp_path, "--processes", "2", "--resume").wait(timeout=60) == 0
    assert [trial.state for trial in read_trials(Path("out")).values()] == [FINISHED] * 3
    assert [starts(i) for i in (1, 2, 3)] == [2, 2, 1]
    assert "trial 1 of 3 (x 0.1): goes on" in Path("sweep.log").read_text()


def test_a_trial_that_is_killed_alone_is_left_for_the_next_call(swept, capsys):
    """By the killer of a machine without memory, for example; the program of this test kills itself, once."""
    kill = f'test -e $0.killed || {{ touch $0.killed; kill -9 $$; }}; exec {sys.executable} {FAKE} "$@"'
    with pytest.raises(TrainingsFailed, match=r"trial-001 stopped before the end, and --resume goes on there"):
        swept(command=["sh", "-c", kill, "marker", "${args}"])
    assert "trial 1 of 6 (norm bn, x 0.1): was stopped (status -9); --resume goes on with it" in capsys.readouterr().out
    assert len(swept("--resume", command=["sh", "-c", kill, "marker", "${args}"])) == 6


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "name a sweep file, such as sweeps/shapes.yaml"),
        ("a.yaml --processes 0", "--processes 0: it must be 1 or more"),
        ("a.yaml --trials 0", "--trials 0: it must be 1 or more"),
        ("a.yaml --extra='--out x'", "--extra: take out --out; the sweep passes it"),
        ('a.yaml --extra="\'"', "--extra ': no closing quotation"),
        ("a.yaml --resume maybe", "--resume maybe: choose from auto, yes, no"),
        ("a.yaml", "a.yaml: no such file; those here are sweeps/imagenet.yaml"),
        ("sweeps/shapes.yaml --out new --resume", "--resume: there is no sweep in new; leave --resume out"),
    ],
)
def test_command_lines_that_are_refused(line, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped, one_sentence():
        sweep.run(parse(sweep.Flags, "", shlex.split(line)))
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and says in error and error.count("\n") == 1


@pytest.mark.parametrize("damage", ["", "{", '{"number": 1}', "[]"])
def test_damaged_files_of_a_sweep(swept, damage):
    swept()
    whole = Path("out/trial-001.json").read_text()
    Path("out/trial-001.json").write_text(damage)
    with pytest.raises(UsageError, match=r"trial-001\.json is damaged: remove it and out/trial-001 to run it anew"):
        swept("--resume")
    Path("out/trial-001.json").write_text(whole)
    assert json.loads(whole)["parameters"] == {"norm": "bn", "x": 0.1, "seeds": 2}
    Path("out/sweep.json").write_text(damage)
    with pytest.raises(UsageError, match=r"sweep\.json is damaged: begin anew with another --out"):
        swept("--resume")


@pytest.mark.slow
def test_a_sweep_of_a_real_study(tmp_path, monkeypatch, capsys):
    """Two trials of the shapes' sweep, with the least that a training can be."""
    monkeypatch.chdir(tmp_path)
    line = ["sweeps/shapes.yaml", "--smoke", "--extra=--gpus 0 --max-steps 1 --images 40"]
    table = sweep.run(parse(sweep.Flags, "", line))
    assert table["norm"].tolist() == ["bn", "bn"] and sorted(table["batch-size"]) == [4, 16]
    out = tmp_path / "runs" / "sweep-shapes-smoke"
    for i in (1, 2):
        folder = out / f"trial-00{i}"
        found = pd.read_csv(folder / "results.csv").query("part == 'clean' and measure == 'top1'")["value"].mean()
        assert (
            table.set_index("trial").loc[i, "final/top1"] == pytest.approx(found) and (folder / "report.html").exists()
        )
    before = (out / "trial-001" / "results.csv").stat().st_mtime_ns
    assert len(sweep.run(parse(sweep.Flags, "", [*line, "--resume"]))) == 2
    assert (out / "trial-001" / "results.csv").stat().st_mtime_ns == before
