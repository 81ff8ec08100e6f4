"""The sweeps are what W&B takes for one, and the trials that W&B's own agent makes of them run.

`wandb_sweep_schema.json` is W&B's schema, from its package `sweeps` 0.3.0 (MIT license, copyright 2021 Weights and
Biases), which itself cannot be installed here: it wants numpy below 2. W&B has no controller that works offline
(`wandb.controller` asks the server), so the agent gets its two trials from the test. Ours is tested in test_sweep.py.
"""

import importlib
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from wandb import wandb_agent

from experiments.study.flags import parse

ROOT = Path(__file__).parents[2]
SWEEPS = sorted((ROOT / "experiments" / "sweeps").glob("*.yaml"))
SCHEMA = json.loads(Path(__file__).with_name("wandb_sweep_schema.json").read_text())


def read(file: Path) -> dict:
    return yaml.safe_load(file.read_text())


def grid(sweep: dict) -> list[dict]:
    """Every trial's parameters, as W&B hands them out."""
    values = {
        name: parameter.get("values", [parameter.get("value")]) for name, parameter in sweep["parameters"].items()
    }
    return [dict(zip(values, trial, strict=True)) for trial in itertools.product(*values.values())]


@pytest.fixture
def command(monkeypatch, tmp_path):
    """The command and the environment with which W&B's agent would start a trial."""
    started = {}
    monkeypatch.setattr(
        wandb_agent,
        "AgentProcess",
        lambda command, env, **_: started.update(command=command, env=env) or type("P", (), {})(),
    )
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"):  # the agent sets them, for us to forget
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")

    def make(sweep: dict, trial: dict, run_id: str = "trial") -> tuple[list[str], dict]:
        agent = wandb_agent.Agent(None, None, sweep_id="sweep")
        agent._sweep_command = list(sweep["command"])
        args = {name: {"value": value} for name, value in trial.items()}
        agent._command_run({"run_id": run_id, "program": sweep["program"], "args": args})
        return started["command"], started["env"]

    return make


@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: file.stem)
def test_schema(file):
    sweep = read(file)
    errors = [error.message for error in jsonschema.Draft7Validator(SCHEMA).iter_errors(sweep)]
    assert not errors
    assert {"norm", "backbone", "batch-size"} <= set(sweep["parameters"])
    assert (ROOT / sweep["program"]).is_file() and sweep["project"] == "normshift"


def test_schema_refuses():
    wrong = read(SWEEPS[0]) | {"method": "guess"}
    assert not jsonschema.Draft7Validator(SCHEMA).is_valid(wrong)
    assert not jsonschema.Draft7Validator(SCHEMA).is_valid(read(SWEEPS[0]) | {"parameters": {"norm": ["bn"]}})


@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: file.stem)
def test_every_trial_is_one_network_of_its_study(file, command):
    sweep = read(file)
    study = importlib.import_module(f"experiments.{Path(sweep['program']).stem}")
    for trial in grid(sweep):
        line, _ = command(sweep, trial)
        assert line[:3] == ["/usr/bin/env", "python", sweep["program"]]
        flags = parse(study.Flags, "", line[3:])
        assert flags.norm == [trial["norm"]] and flags.backbone == trial["backbone"] and flags.seeds == 1
        assert flags.batch_size == trial["batch-size"]


@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: file.stem)
def test_two_trials(file, command, tmp_path, monkeypatch):
    """First and last of the grid, small; each in a folder of its own, though both have one and the same command."""
    sweep = read(file)
    study = importlib.import_module(f"experiments.{Path(sweep['program']).stem}")
    trials = grid(sweep)
    monkeypatch.chdir(tmp_path)
    for run_id, trial in (("first", trials[0]), ("second", trials[-1])):
        line, env = command(sweep, trial | {"backbone": "resnet18"}, run_id)
        monkeypatch.setenv("WANDB_RUN_ID", env["WANDB_RUN_ID"])
        results = study.run(parse(study.Flags, "", [*line[3:], "--smoke", "--gpus", "0"]))
        assert len(results)
    folders = [folder for folder in (tmp_path / "runs").iterdir() if (folder / "table.md").exists()]
    assert {folder.name.rpartition("-")[2] for folder in folders} == {"first", "second"}


@pytest.mark.slow
@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: file.stem)
def test_two_trials_as_processes(file, command, tmp_path):
    sweep = read(file)
    for run_id, trial in zip(("first", "second"), grid(sweep), strict=False):
        line, env = command(sweep, trial, run_id)
        path = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
        line[line.index(sweep["program"])] = str(ROOT / sweep["program"])
        smoke = [*line, "--smoke", "--gpus", "0"]
        subprocess.run(smoke, env=env | {"PATH": path, "PYTHONPATH": str(ROOT)}, cwd=tmp_path, check=True)
    assert len(list(tmp_path.glob("runs/*/table.md"))) == 2
