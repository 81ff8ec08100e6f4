"""A study's folder: its flags, one subfolder for each arm and seed, and the tables that gather them.

An arm is one of the things that a study compares: a norm, or a norm on a backbone, or a step of a recipe.
"""

import dataclasses
import json
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch
import yaml
from pytorch_lightning.utilities import rank_zero_only

from datamodules.whole_file import write_whole
from experiments.study.endings import UsageError
from experiments.study.flags import ABOUT, holds_run, resumes
from experiments.study.run_lock import NAME as LOCK
from experiments.study.run_lock import locked
from experiments.study.run_parts import EXAMPLES, MEASURES_FILE, RESULT, gathered, part_folder, read_result
from experiments.study.tables.table import Table
from experiments.study.tables_on_disk import SETTINGS_FILE, parse_yaml, settings_in_json
from lightning_modules.measures import measure_of, measures_to_plain

PACKAGES = (
    "torch",
    "torchvision",
    "pytorch-lightning",
    "torchmetrics",
    "timm",
    "segmentation-models-pytorch",
    "albumentations",
)

HPARAMS = "hparams.yaml"
"""Of a training: its hyper-parameters."""
SHORTER = "result-shorter.json"
"""The results of a training that is being made longer."""

LOGGED = {"arm", "seed", "step", "epoch", "layer", "depth", "statistic", "label", "value"}
"""Columns of the gathered tables, whose names an arm's columns must not have."""


class RunFolder:
    """`OUT/` with config.yaml, arms.json and measures.json, and `OUT/ARM-seedN/` with metrics.csv, gates.parquet,
    checkpoints and result.json.

    Args:
        path: OUT.
        flags: the study's flags; kept in config.yaml.
        question: what the study asks, for the report.
        about: further entries of config.yaml.
        arms: the things compared, in the order of the tables, each with columns (texts, numbers or None) that every row
            of its tables carries beside `arm` and `seed`: {"resnet50-bn": {"norm": "bn", "backbone": "resnet50"}}.
        arm_flags: the flags that choose the arms and nothing else; `--resume` may change them.
        fresh: empty OUT first, as for a smoke run.
        headline: the main measure of the results; kept in measures.json, for programs that read the run.
        measures: all measures of the results, and `drop` and `divergence` if the study measures them.
        fault_of_longer: says why a training, by its arm, seed and earlier hyper-parameters, cannot be made longer; None
            if it can.

    Raises:
        UsageError: an arm's name is no plain file name; OUT cannot be written, or another process writes to it; OUT
            holds another run and `flags.resume` is not set, or other flags, or other columns of an arm, than the run
            was started with, or what it was started with cannot be read any more; or a run of an earlier version.
    """

    def __init__(
        self,
        path: Path,
        flags,
        question: str,
        about: dict,
        arms: dict[str, dict],
        arm_flags: Collection[str] = ("norm",),
        fresh: bool = False,
        headline: str | None = None,
        measures: Sequence[str] = (),
        fault_of_longer: Callable[[str, int, dict], str | None] = lambda *_: "its task cannot tell",
    ):
        self.path, self.arms = path, arms
        self.headline = None if headline is None else measure_of(headline)
        named = dict.fromkeys([*measures, *([] if headline is None else [headline])])
        self._measures = {"headline": headline, "measures": measures_to_plain(named)}
        used_keys = {name for columns in arms.values() for name in columns} & LOGGED
        if used_keys:
            raise ValueError(
                f"a column cannot be called {', '.join(sorted(used_keys))}: metrics and gates have such columns."
            )
        for arm in arms:
            if not re.fullmatch(r"[\w+=,@][\w+=,@.-]*", arm):
                raise UsageError(
                    f"{arm!r} cannot name a folder of the run: only letters, digits and _+=,@.- are allowed."
                )
        config = {
            key: list(v) if isinstance(v, tuple) else v
            for key, v in dataclasses.asdict(flags).items()
            if key != "resume"
        }
        self._config = config | {"question": question, "command": _command(), **_environment(), **about}
        self._minutes_before, self._fault_of_longer = 0.0, fault_of_longer
        if rank_zero_only.rank:
            return  # only the first process writes to the folder
        try:
            self._begin(config, resumes(flags.resume, path) and not fresh, arm_flags, fresh)
        except OSError as error:
            raise UsageError(f"--out {path} cannot be written ({error.strerror or error}): choose another.") from error

    def _begin(self, config: dict, resume: bool, arm_flags: Collection[str], fresh: bool) -> None:
        if resume and not holds_run(self.path):
            raise UsageError(f"--resume: there is no run in {self.path}; leave --resume out to start one.")
        self._lock = locked(self.path)  # held until this object is collected or the process ends
        if fresh:
            _empty(self.path)
        _remove_half_written(self.path)
        if holds_run(self.path):
            self._check(config, resume, arm_flags)
        self._write_config()
        write_whole(self.arms_file, json.dumps(self.arms, indent=1))
        if self.headline is not None:
            write_whole(self.path / MEASURES_FILE, json.dumps(self._measures, indent=1))

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def arms_file(self) -> Path:
        return self.path / "arms.json"

    def part(self, arm: str, seed: int) -> Path:
        """The subfolder of one training."""
        return part_folder(self.path, arm, seed)

    @property
    def seeds(self) -> range:
        return range(self._config["seed"], self._config["seed"] + self._config["seeds"])

    def is_finished(self, arm: str, seed: int) -> bool:
        return (self.part(arm, seed) / RESULT).exists()

    def finish(self, arm: str, seed: int, result: dict[str, list[dict]]) -> None:
        """Keep a training's results: lists of rows under the names of the tables they go to, "results" and
        "divergence". What a row holds is the study's choice; numbers and text."""
        self.part(arm, seed).mkdir(parents=True, exist_ok=True)
        write_whole(self.part(arm, seed) / RESULT, json.dumps(result, indent=1))
        (self.part(arm, seed) / SHORTER).unlink(missing_ok=True)

    def gather(self, minutes: float, table: Callable[[pd.DataFrame], Table | None]) -> pd.DataFrame:
        """Write metrics.csv, gates.parquet, results.csv, divergence.csv, table.md, table.json and settings.json.

        Returns the results.

        Every row of them begins with the arm, its columns and the seed.

        Args:
            minutes: how long this call of the study took.
            table: makes the closing table of the results; None where there is nothing to show yet.
        """
        tables = gathered(self.path, self.arms, self.seeds)
        for name, rows in tables.items():
            if name == "gates":
                write_whole(self.path / "gates.parquet", partial(rows.to_parquet, index=False))
            else:
                write_whole(self.path / f"{name}.csv", partial(rows.to_csv, index=False))
        results = tables.get("results", pd.DataFrame())
        self.write_table(table(results) if len(results) else None)
        self._config["minutes"] = round(self._minutes_before + minutes, 1)
        self._write_config()
        parts = [self.part(arm, seed).name for arm in self.arms for seed in self.seeds]
        settings = ["config.yaml", *(f"{part}/hparams.yaml" for part in parts)]
        write_whole(self.path / SETTINGS_FILE, settings_in_json(self.path, settings))
        return results

    def write_table(self, table: Table | None) -> None:
        """Write the closing table to table.md and table.json, where there is one."""
        if table is not None:
            write_whole(self.path / "table.md", table.markdown() + "\n")
            write_whole(self.path / "table.json", table.to_json() + "\n")

    def _write_config(self) -> None:
        write_whole(self.config_file, yaml.safe_dump(self._config, sort_keys=False, allow_unicode=True))

    def _check(self, config: dict, resume: bool, arm_flags: Collection[str]) -> None:
        if not resume:
            raise UsageError(f"{self.path} already holds a run: pass --resume to continue it, or another --out.")
        for result in self.path.glob(f"*-seed*/{RESULT}"):
            if read_result(result.parent) is None:
                raise UsageError(f"--resume: {result} is damaged: move {result.parent} away to train that anew.")
        remedy = "it held the run's flags; put it back from a copy, or begin anew with another --out"
        written = _mapping(self.config_file, yaml.safe_load, remedy)
        if config.keys() - written.keys() or (self.headline is not None and not (self.path / MEASURES_FILE).exists()):
            raise UsageError(
                f"--resume: {self.path} is of an earlier version, whose results have another form: begin anew with "
                "another --out; report.py and the notebooks still read it."
            )
        before = {k: v for k, v in written.items() if k not in ABOUT}
        # a resumed run may have more seeds or arms, and run elsewhere or in another way
        free = {*arm_flags, "plugin", "seeds", "gpus", "nodes", "workers", "wandb", "out", "data_root"}
        free |= {"save_every", "save_minutes", "keep_best", "keep_every", "time_limit", "compile"}
        changed = {
            key: before.get(key) for key, value in config.items() if key not in free and before.get(key) != value
        }
        if self.arms_file.exists():
            known = _mapping(self.arms_file, json.loads, "remove it, and --resume writes it anew from the flags")
            arms = json.loads(json.dumps(self.arms))  # as YAML reads them back
            changed |= {arm: known[arm] for arm in arms if known.get(arm, arms[arm]) != arms[arm]}
        longer = [key for key in ("max_steps", "epochs") if _is_longer(changed.get(key), config.get(key))]
        if longer and len(changed) == 1:
            self._make_longer(longer[0], changed.pop(longer[0]), config[longer[0]])
        if changed:
            was = ", ".join(f"{key} was {value!r}" for key, value in changed.items())
            raise UsageError(
                f"--resume: {self.path} was started with other flags ({was}): repeat them or choose another --out."
            )
        minutes = written.get("minutes")
        self._minutes_before = minutes if isinstance(minutes, (int, float)) else 0.0
        of_the_start = ("command", "git", "versions", "minutes")  # until `gather` knows the minutes of this call
        self._config |= {key: written[key] for key in of_the_start if key in written}

    def _make_longer(self, key: str, was: int, now: int) -> None:
        """Let trainings that are finished go on, from their last checkpoints; their results are kept until then.

        Raises:
            UsageError: one of them would have been another training from its start.
        """
        begun = [(arm, seed) for arm in self.arms for seed in self.seeds if (self.part(arm, seed) / HPARAMS).exists()]
        for arm, seed in begun:
            before = _mapping(self.part(arm, seed) / HPARAMS, parse_yaml, f"remove {self.part(arm, seed)}")
            fault = self._fault_of_longer(arm, seed, before)
            if fault is not None:
                raise UsageError(
                    f"--resume: {key} was {was} and is now {now}, but {arm} cannot be trained longer, since {fault}: "
                    "repeat the flags or choose another --out."
                )
        for arm, seed in begun:
            if self.is_finished(arm, seed):
                (self.part(arm, seed) / RESULT).replace(self.part(arm, seed) / SHORTER)


def _is_longer(was: object, now: object) -> bool:
    return isinstance(was, int) and isinstance(now, int) and now > was


def _mapping(file: Path, read: Callable[[str], object], remedy: str) -> dict:
    """Read a file of the run.

    Raises:
        UsageError: it is missing or damaged; the message says what to do.
    """
    try:
        found = read(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        found = None
    if not isinstance(found, dict):
        raise UsageError(f"--resume: {file} is {'damaged' if file.exists() else 'missing'}: {remedy}.")
    return found


def _empty(folder: Path) -> None:
    """Remove everything in a folder except its lock."""
    for found in folder.iterdir():
        if found.is_dir() and not found.is_symlink():
            shutil.rmtree(found)
        elif found.name != LOCK:
            found.unlink()


def _remove_half_written(folder: Path) -> None:
    """Remove what killed processes have left half written; another, such as report.py, may be writing its page now."""
    for where in (folder, folder / EXAMPLES, *folder.glob("*-seed*")):
        for found in where.glob("*.partial-*"):
            process = found.name.rpartition("-")[2]
            if process.isdigit() and not Path("/proc", process).exists():
                found.unlink(missing_ok=True)


def _command() -> str:
    return shlex.join(["python", *sys.argv])


def _environment() -> dict:
    threads = f"{torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else threads
    return {
        "machine": f"{platform.system()} {platform.machine()}, {device}",
        "git": _revision(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
    }


def _revision() -> str | None:
    command = ["git", "-C", str(Path(__file__).parents[1]), "describe", "--always", "--dirty", "--abbrev=10"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None
