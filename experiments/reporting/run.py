"""What a study left in its folder, for the report: read forgivingly, because a killed run leaves files cut short."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.reporting.arm_looks import Cast, cast
from experiments.run_parts import RESULT, gathered, part_folder
from lightning_modules.measures import MEASURES

if TYPE_CHECKING:
    from pandas import DataFrame

    from experiments.tables import Table

FRAMES = {
    "results.csv": ("arm", "seed"),
    "metrics.csv": ("arm", "seed", "step"),
    "gates.parquet": ("arm", "norm", "seed", "epoch", "step", "layer", "depth", "statistic", "label", "value"),
    "divergence.csv": ("arm", "seed", "domain", "depth", "mean"),
}
"""The tables of a run, and the columns without which they, or single rows of them, are of no use."""

TEXTS = ("arm", "norm", "domain", "role", "layer", "statistic", "label")
"""Columns that are never numbers, whatever they look like."""


@dataclass
class Run:
    """What a run folder holds. A frame, or the table, is None where its file is missing, empty or damaged."""

    path: Path
    config: dict
    arms: dict[str, dict]
    """What was compared, and the facts about each: those of arms.json, then whatever else was measured."""
    table: Table | None
    results: DataFrame | None
    metrics: DataFrame | None
    gates: DataFrame | None
    divergence: DataFrame | None
    unfinished: dict[str, int | None] = field(default_factory=dict)
    """Trainings that have left no result, and the last step that each has logged, None where it has logged nothing."""

    @cached_property
    def cast(self) -> Cast:
        """How the arms look in the figures."""
        return cast(self.arms)

    @property
    def segments(self) -> bool:
        """Whether the networks segment: then a report has chapters on domains, predictions and classes."""
        columns = [] if self.results is None else self.results.columns
        return "label_space" in self.config or "miou" in columns

    @property
    def domains(self) -> list[str]:
        """Source first, then the targets, then what else was measured."""
        flags = [*listed(self.config.get("source")), *listed(self.config.get("target"))]
        results = [] if self.results is None or "domain" not in self.results else self.results["domain"].dropna()
        logged = [] if self.metrics is None else [column.rpartition("/") for column in self.metrics]
        metrics = [domain for domain, _, measure in logged if domain and measure in MEASURES]
        return list(dict.fromkeys([*flags, *results, *metrics]))


def read_run(path: Path) -> Run:
    """Read a run folder, forgiving whatever a killed run left behind.

    Raises:
        ValueError: where it is no run folder, or one whose tables name no arms.
    """
    import yaml

    from experiments.tables import Table

    if not any((path / name).is_file() for name in ("config.yaml", "results.csv", "metrics.csv")):
        raise ValueError(f"{path} is no run folder: it holds neither config.yaml nor results.csv nor metrics.csv.")
    try:
        config = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        config = None
    try:
        table = Table.from_json((path / "table.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        table = None
    config = config if isinstance(config, dict) else {}
    arms, seeds = _written(path / "arms.json"), _seeds(path, config)
    parts = gathered(path, arms, seeds)  # before the gathered files: those are written when a training ends
    frames = [_frame(path / name, parts.get(name.partition(".")[0]), columns) for name, columns in FRAMES.items()]
    unfinished = _unfinished(path, arms, seeds, frames[list(FRAMES).index("metrics.csv")])
    return Run(path, config, _arms(arms, frames), table, *frames, unfinished)


def _seeds(path: Path, config: dict) -> list[int]:
    """The seeds of the run's flags; where those are lost, the seeds of its trainings' folders."""
    first, count = config.get("seed"), config.get("seeds")
    if isinstance(first, int) and isinstance(count, int):
        return list(range(first, first + count))
    ends = [folder.name.rpartition("-seed")[2] for folder in path.glob("*-seed*")]
    return sorted({int(end) for end in ends if end.isdigit()})


def _unfinished(path: Path, arms: dict, seeds: list[int], metrics: DataFrame | None) -> dict[str, int | None]:
    folders = {(arm, seed): part_folder(path, arm, seed) for seed in seeds for arm in arms}
    if not any(folder.exists() for folder in folders.values()):
        return {}  # a folder that was tidied up, or has nothing yet, does not say what came of its trainings
    last = {} if metrics is None else metrics.groupby(["arm", "seed"])["step"].max().to_dict()
    left = {of: folder for of, folder in folders.items() if not (folder / RESULT).exists()}
    return {folder.name: int(last[of]) if of in last else None for of, folder in left.items()}


def _frame(file: Path, rows: DataFrame | None, columns: tuple[str, ...]) -> DataFrame | None:
    """A table of the run, of which rows that lack one of the columns are left out; None where there is nothing.

    Args:
        file: where it was gathered. rows: what is in the trainings' own folders, which then counts.
    """
    import pandas as pd

    table = _read(file) if rows is None else rows.reset_index(drop=True)
    if table is None or not set(columns) <= set(table.columns):
        return None
    for column in table.columns.difference(TEXTS):
        numbers = pd.to_numeric(table[column], errors="coerce")
        table[column] = numbers if numbers.notna().any() else table[column]  # a study's column may well be text
    table = table.dropna(subset=list(columns)).reset_index(drop=True)
    return table if len(table) else None


def _read(file: Path) -> DataFrame | None:
    import pandas as pd

    names = {"arm": str, "norm": str, "domain": str}  # an arm called 50 is no number
    try:
        read = pd.read_parquet(file) if file.suffix == ".parquet" else None
        table = pd.read_csv(file, on_bad_lines="skip", dtype=names) if read is None else read
    except (OSError, ValueError):  # not there, empty, or cut off in the middle
        return None
    if "arm" not in table and {"norm", "seed"} <= {*table.columns}:
        raise ValueError(
            f"{file.parent} was written before tables had a column arm: repeat its command with --resume, which "
            "trains nothing again and writes them anew."
        )
    return table


def _written(arms: Path) -> dict[str, dict]:
    try:
        return json.loads(arms.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _arms(written: dict[str, dict], frames: list[DataFrame | None]) -> dict[str, dict]:
    """The arms of arms.json and what else was measured; of those the norm alone is known."""
    arms = dict(written)
    for frame in frames:
        if frame is not None:
            measured = frame.drop_duplicates("arm")
            norms = measured["norm"] if "norm" in frame else [None] * len(measured)
            for arm, norm in zip(measured["arm"], norms, strict=True):
                arms.setdefault(arm, {"norm": norm})
    return arms


def listed(value: object) -> list[str]:
    """A flag of one value or several as a list of texts."""
    return [] if value is None else [str(v) for v in value] if isinstance(value, (list, tuple)) else [str(value)]
