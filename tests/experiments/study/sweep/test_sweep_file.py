"""Sweep files: what W&B takes is taken or refused in a sentence; the commands of trials are those of W&B's agent."""

import json
import os
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from wandb import wandb_agent

from experiments.study.endings import UsageError
from experiments.study.sweep.commands import trial_command
from experiments.study.sweep.sweep_file import METHODS, ROOT, find_sweep, read_sweep

SCHEMA = json.loads((ROOT / "tests" / "experiments" / "wandb_sweep_schema.json").read_text())
PLAIN = {
    "method": "grid",
    "program": "experiments/cls_imagenet.py",
    "metric": {"name": "final/top1", "goal": "maximize"},
    "parameters": {"norm": {"values": ["bn", "sn"]}, "seed": {"value": 3}},
}


@pytest.fixture
def read(tmp_path):
    def read(**changes):
        file = tmp_path / "sweep.yaml"
        file.write_text(yaml.safe_dump({key: v for key, v in (PLAIN | changes).items() if v is not None}))
        return read_sweep(file)

    return read


@pytest.mark.parametrize("name", ["shapes", "streets", "imagenet"])
def test_the_files_here(name, monkeypatch, tmp_path):
    file = find_sweep(f"experiments/sweeps/{name}.yaml" if Path("experiments").is_dir() else f"sweeps/{name}.yaml")
    sweep = read_sweep(file)
    written = yaml.safe_load(file.read_text())
    assert sweep.metric == written["metric"]["name"] and sweep.goal == "maximize" and sweep.method == "grid"
    assert [one.name for one in sweep.parameters] == list(written["parameters"]) and not sweep.ignored
    monkeypatch.chdir(tmp_path)
    assert find_sweep(f"sweeps/{name}.yaml") == ROOT / "experiments" / "sweeps" / f"{name}.yaml"
    with pytest.raises(UsageError, match=r"nothing.yaml: no such file; those here are .*sweeps/shapes.yaml"):
        find_sweep("nothing.yaml")


def test_what_is_read(read):
    sweep = read(run_cap=7, metric={"name": "final/drop", "target": 0.1}, name="x", project="normshift")
    assert (sweep.run_cap, sweep.goal, sweep.target) == (7, "minimize", 0.1)
    assert sweep.command == ("${env}", "${interpreter}", "${program}", "${args}")
    assert [one.varies for one in sweep.parameters] == [True, False] and "name" not in sweep.written
    assert sweep.is_better(0.1, 0.2) and sweep.reaches(0.1) and sweep.reaches(0.05) and not sweep.reaches(0.11)
    assert read().is_better(0.2, 0.1) and not read().reaches(1.0)
    assert [read(method=method).method for method in METHODS] == list(METHODS)


def test_what_is_left_out_is_said(read):
    sweep = read(early_terminate={"type": "hyperband", "min_iter": 3}, metric=PLAIN["metric"] | {"impute": "best"})
    assert [sentence.partition(" ")[0] for sentence in sweep.ignored] == ["early_terminate", "metric.impute"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"method": "custom"}, "method custom: choose from grid, random, bayes"),
        ({"method": None}, "method is missing"),
        ({"scheduler": {"engine": "optuna"}}, "scheduler is not known here; the keys are method,"),
        ({"parameters": None}, "parameters: name one or more"),
        ({"parameters": {"lr": {"min": 0.1, "max": 1.0}}}, "method grid cannot list the values of uniform"),
        ({"parameters": {"out": {"values": [1]}}}, "--out: take it out; each trial gets a folder of its own"),
        ({"command": ["python", "a.py", "--resume=yes"]}, "--resume=yes: take it out"),
        ({"command": "python a.py --out b"}, "--out: take it out"),
        ({"command": [["a"]]}, "command must be a list of texts"),
        ({"command": ["a.py", "${args_json_file}"]}, "command: ${args_json_file} is not known here; known are ${env},"),
        ({"program": None}, "program is missing: name the script"),
        ({"program": 3}, "program must be the path of a script"),
        ({"metric": None}, "metric: name the number to compare, such as name: final/top1"),
        ({"metric": {"name": "a", "goal": "most"}}, "metric: goal most: choose from minimize, maximize"),
        ({"metric": {"name": "a", "target": "x"}}, "metric: target must be a number"),
        ({"metric": {"name": "a", "aim": 1}}, "metric: aim is not known"),
        ({"run_cap": 0}, "run_cap must be an integer, 1 or more"),
        (
            {"method": "bayes", "parameters": {"a": {"values": [1, 2], "probabilities": [1, 2]}}},
            "takes no probabilities",
        ),
    ],
)
def test_refusals_name_the_file_and_the_key(read, tmp_path, changes, says):
    with pytest.raises(UsageError) as refused:
        read(**changes)
    assert str(refused.value).startswith(f"{tmp_path / 'sweep.yaml'}: ") and says in str(refused.value)


@pytest.mark.parametrize("text", ["", "- a", "a: [", "1: 2", "\x00", "a: &b [*b]", "x" * 1_100_000])
def test_files_that_are_no_sweep(tmp_path, text):
    (tmp_path / "sweep.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"sweep\.yaml: "):
        read_sweep(tmp_path / "sweep.yaml")


def test_a_sweep_that_wandb_takes_is_read(read):
    """The keys and distributions of this test are valid by W&B's schema."""
    sweep = PLAIN | {
        "method": "random",
        "run_cap": 3,
        "parameters": {
            "lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 0.1},
            "n": {"min": 1, "max": 3},
            "w": {"distribution": "q_uniform", "min": 0.5, "max": 1.5, "q": 0.25},
            "norm": {"values": ["bn"], "probabilities": [1.0]},
        },
    }
    assert not list(jsonschema.Draft7Validator(SCHEMA).iter_errors(sweep))
    assert len(read(**sweep).parameters) == 4


VALUES = {"norm": "bn", "batch-size": 4, "lr": 0.1, "sync": True, "off": False, "weights": None}
LINES = [
    ["${env}", "${interpreter}", "${program}", "${args}"],
    ["${interpreter}", "${program}", "${args_no_boolean_flags}", "--last"],
    ["${program}", "${args_no_equals}"],
    ["${program}", "${args_no_hyphens}"],
    ["${program}", "${args_json}"],
    ["${program}", "${args_append_hydra}", "${args_override_hydra}"],
    ["${program}", "${envvar:SWEPT}/${envvar:NOT_THERE}", "7"],
]


@pytest.mark.parametrize("line", LINES)
def test_the_command_is_that_of_wandbs_agent(line, read, monkeypatch, tmp_path):
    started = {}
    process = type("Process", (), {})
    monkeypatch.setattr(wandb_agent, "AgentProcess", lambda command, **_: started.update(command=command) or process())
    for name, value in {"WANDB_DIR": str(tmp_path), "SWEPT": "here", "WANDB_SWEEP_ID": "s"}.items():
        monkeypatch.setenv(name, value)
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"):  # the agent sets them, for us to forget
        monkeypatch.setenv(name, "")
    agent = wandb_agent.Agent(None, None, sweep_id="s")
    agent._sweep_command = list(line)
    program, args = "of/my/own.py", {name: {"value": value} for name, value in VALUES.items()}
    agent._command_run({"run_id": "one", "program": program, "args": args})
    agents = [sys.executable if part == "python" else part for part in started["command"]]
    ours = trial_command(read(command=line, program=program), VALUES, Path("runs/x/trial-001"), ["--gpus", "0"])
    assert ours == [*agents, "--gpus", "0", "--out", "runs/x/trial-001", "--resume", "auto"]


def test_a_program_of_this_repository_is_found_from_elsewhere(read, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    line = trial_command(read(), {}, Path("out"))
    assert line[:3] == ["/usr/bin/env", sys.executable, str(ROOT / "experiments" / "cls_imagenet.py")]
    assert os.path.exists(line[2])
