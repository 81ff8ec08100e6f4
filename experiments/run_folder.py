"""A study's folder: its flags, one subfolder for each norm and seed, and the tables that gather them."""

import dataclasses
import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch
import yaml
from pytorch_lightning.utilities import rank_zero_only

from experiments.flags import ABOUT, UsageError
from experiments.tables import closing_table, markdown_table
from experiments.trainers import read_metrics

PACKAGES = (
    "torch",
    "torchvision",
    "pytorch-lightning",
    "torchmetrics",
    "timm",
    "segmentation-models-pytorch",
    "albumentations",
)


class RunFolder:
    """`OUT/` with config.yaml, and `OUT/NORM-seedN/` with metrics.csv, gates.parquet, checkpoints and result.json.

    Args:
        path: OUT.
        flags: the study's flags; kept in config.yaml.
        question: what the study asks, for the report.
        about: further facts for config.yaml.

    Raises:
        UsageError: OUT holds another run and `flags.resume` is not set, or other flags than the run was started with.
    """

    def __init__(self, path: Path, flags, question: str, about: dict):
        self.path = path
        config = {
            key: list(v) if isinstance(v, tuple) else v
            for key, v in dataclasses.asdict(flags).items()
            if key != "resume"
        }
        self._config = config | {"question": question, "command": _command(), **_environment(), **about}
        self._minutes_before = 0.0
        if rank_zero_only.rank:
            return  # the first process alone looks after the folder
        if any(path.glob("*-seed*")):
            self._check(config, flags.resume)
        elif flags.resume:
            raise UsageError(f"--resume: there is no run in {path}; leave --resume out to start one.")
        self.path.mkdir(parents=True, exist_ok=True)
        self._write_config()

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    def part(self, norm: str, seed: int) -> Path:
        """The subfolder of one training."""
        return self.path / f"{norm}-seed{seed}"

    def is_finished(self, norm: str, seed: int) -> bool:
        return (self.part(norm, seed) / "result.json").exists()

    def finish(self, norm: str, seed: int, result: dict[str, list[dict]]) -> None:
        """Keep a training's results: lists of rows under the names of the tables they go to."""
        text = json.dumps(result, indent=1)
        partial = self.part(norm, seed) / "result.partial"
        partial.write_text(text)
        partial.rename(self.part(norm, seed) / "result.json")  # a half-written result must not count as finished

    def gather(self, minutes: float) -> pd.DataFrame:
        """Write metrics.csv, gates.parquet, results.csv, divergence.csv and table.md; returns the results."""
        parts = list(self._parts())
        logged = [(read_metrics(part), n, s) for n, s, part in parts]
        metrics = [_labelled(frame, n, s) for frame, n, s in logged if frame is not None]
        if metrics:
            pd.concat(metrics).to_csv(self.path / "metrics.csv", index=False)
        tracked = [pd.read_parquet(file) for _, _, part in parts if (file := part / "gates.parquet").exists()]
        if tracked:
            pd.concat(tracked).to_parquet(self.path / "gates.parquet", index=False)
        found = [
            (n, s, json.loads(file.read_text())) for n, s, part in parts if (file := part / "result.json").exists()
        ]
        results = pd.DataFrame()
        for table in ("results", "divergence"):
            rows = [_labelled(pd.DataFrame(result[table]), n, s) for n, s, result in found if result.get(table)]
            if rows:
                frame = pd.concat(rows)
                frame.to_csv(self.path / f"{table}.csv", index=False)
                results = frame if table == "results" else results
        if len(results):
            (self.path / "table.md").write_text(markdown_table(closing_table(results)) + "\n")
        self._config["minutes"] = round(self._minutes_before + minutes, 1)
        self._write_config()
        return results

    def _parts(self) -> Iterator[tuple[str, int, Path]]:
        for norm in self._config["norm"]:
            for seed in range(self._config["seed"], self._config["seed"] + self._config["seeds"]):
                yield norm, seed, self.part(norm, seed)

    def _write_config(self) -> None:
        self.config_file.write_text(yaml.safe_dump(self._config, sort_keys=False, allow_unicode=True))

    def _check(self, config: dict, resume: bool) -> None:
        if not resume:
            raise UsageError(f"{self.path} holds a run already: pass --resume to go on with it, or another --out.")
        written = yaml.safe_load(self.config_file.read_text())
        before = {k: v for k, v in written.items() if k not in ABOUT}
        # more seeds or norms, and where and how it runs, may change between two halves of a run
        free = {"norm", "seeds", "gpus", "nodes", "workers", "wandb", "out", "data_root"}
        changed = [key for key, value in config.items() if key not in free and before.get(key) != value]
        if changed:
            was = ", ".join(f"{key} was {before.get(key)!r}" for key in changed)
            raise UsageError(
                f"--resume: {self.path} was started with other flags ({was}): repeat them or choose another --out."
            )
        self._minutes_before = written.get("minutes", 0.0)
        self._config |= {key: written[key] for key in ("command", "git", "versions") if key in written}  # of the start


def _labelled(frame: pd.DataFrame, norm: str, seed: int) -> pd.DataFrame:
    return frame.assign(norm=norm, seed=seed)[["norm", "seed", *frame.columns]]


def _command() -> str:
    return shlex.join(["python", *sys.argv])


def _environment() -> dict:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} threads"
    return {
        "machine": f"{platform.system()} {platform.machine()}, {device}",
        "git": _revision(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
    }


def _revision() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=10"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None
