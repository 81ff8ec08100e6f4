"""A run's folder as the report reads it: missing and damaged files are allowed, since a killed run leaves such."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.reporting.arm_styles import ArmStyles, arm_styles
from experiments.study.failures import Failure, read_failures
from experiments.study.run_parts import (
    MEASURES_FILE,
    MOST_SEEDS,
    RESULT,
    gathered,
    in_long_form,
    part_folder,
    read_measures,
    read_metrics,
    read_parquet,
    read_result,
    readable,
)
from experiments.study.tables_on_disk import TEXTS, kept_settings, read_settings, read_what_is_whole
from lightning_modules.measures import Measure, families, find_measure, headline_of

if TYPE_CHECKING:
    from pandas import DataFrame

    from experiments.study.tables import Table

FRAMES = {
    "results.csv": ("arm", "seed"),
    "metrics.csv": ("arm", "seed", "step"),
    "gates.parquet": ("arm", "norm", "seed", "epoch", "step", "layer", "depth", "statistic", "label", "value"),
    "divergence.csv": ("arm", "seed", "domain", "depth", "mean"),
}
"""The tables of a run, and the columns that each of their rows must have."""

NUMBERS = ("seed", "step", "epoch", "depth", "value", "mean", "total", "train/loss")
"""Columns that are always numbers; a text in them means damage."""


@dataclass
class Run:
    """The contents of a run's folder. A table is None if its file is missing, empty or damaged."""

    path: Path
    config: dict
    arms: dict[str, dict]
    """The arms and their columns: those of arms.json, then others that have measurements."""
    table: Table | None
    results: DataFrame | None
    metrics: DataFrame | None
    gates: DataFrame | None
    divergence: DataFrame | None
    unfinished: dict[str, int | None] = field(default_factory=dict)
    """Trainings without a result, with the last step that each has logged, or None."""
    damaged: list[str] = field(default_factory=list)
    """Damaged files, by their paths in the folder."""
    failed: list[Failure] = field(default_factory=list)
    """Trainings that failed; they are not among the unfinished ones."""
    measures: dict[str, Measure] = field(default_factory=dict)
    """The measures that the study declared, by name."""
    declared: list[str] = field(default_factory=list)
    """The headline that the study declared; several for several runs side by side."""

    @cached_property
    def arm_styles(self) -> ArmStyles:
        """The arms' styles in figures."""
        return arm_styles(self.arms)

    @cached_property
    def headlines(self) -> list[Measure]:
        """The main measures of the results: as declared, else the one that `headline_of` finds."""
        names = self.declared or filter(None, [headline_of(self._measured())])
        found = [find_measure(name, self.measures) for name in names]
        return [measure for measure in found if measure is not None]

    @property
    def headline(self) -> Measure | None:
        return next(iter(self.headlines), None)

    @property
    def compares_domains(self) -> bool:
        """Whether networks are evaluated on a source and on targets, or were to be."""
        from experiments.tasks.domain_drop import has_domains

        return "drop" in self.measures or has_domains(self.results)

    def family_members(self, family: str) -> list[str]:
        """The measures of a family that there are results of, such as `iou/road`."""
        named = [] if self.results is None or "measure" not in self.results else self.results["measure"].dropna()
        return families(dict.fromkeys(named), self.measures).get(family, [])

    @property
    def families(self) -> list[str]:
        """Families of measures that there are results of, or were to be."""
        named = [] if self.results is None or "measure" not in self.results else self.results["measure"].dropna()
        said = [measure.family for measure in self.measures.values() if measure.family]
        return list(dict.fromkeys([*said, *families(dict.fromkeys(named), self.measures)]))

    def _measured(self) -> set[str]:
        """Names of measures in the results, and of what was logged as DOMAIN/MEASURE."""
        results = self.results if self.results is not None and "measure" in self.results else None
        logged = [] if self.metrics is None else [column.rpartition("/") for column in self.metrics]
        named = {measure for domain, _, measure in logged if domain and domain != "train"}
        return named if results is None else {*results["measure"].dropna()} | named

    @property
    def domains(self) -> list[str]:
        """Source first, then the targets, then what else was measured."""
        flags = [*listed(self.config.get("source")), *listed(self.config.get("target"))]
        results = [] if self.results is None or "domain" not in self.results else self.results["domain"].dropna()
        logged = [] if self.metrics is None else [column.rpartition("/") for column in self.metrics]
        told_by = {headline.name for headline in self.headlines}
        metrics = [domain for domain, _, measure in logged if domain and measure in told_by]
        return list(dict.fromkeys([*flags, *results, *metrics]))


def read_run(path: Path) -> Run:
    """Read a run's folder; files may be missing or damaged.

    Raises:
        ValueError: it is no run's folder, or its tables name no arms.
    """
    from experiments.study.tables import Table

    if not any((path / name).is_file() for name in ("config.yaml", "results.csv", "metrics.csv")):
        raise ValueError(f"{path} is no run folder: it holds neither config.yaml nor results.csv nor metrics.csv.")
    config = readable(lambda: read_settings(path, "config.yaml", kept_settings(path)))
    config = _plain_keys(config) if isinstance(config, dict) else None
    table = readable(lambda: Table.from_json((path / "table.json").read_text(encoding="utf-8")))
    arms, measured = _written(path / "arms.json"), read_measures(path)
    found = {"config.yaml": config, "table.json": table, "arms.json": arms, MEASURES_FILE: measured}
    config, arms, (headline, measures) = config or {}, arms or {}, measured or (None, {})
    seeds = _seeds(path, config)
    parts = gathered(path, arms, seeds)  # before the gathered files: those are written when a training ends
    frames = {name: _frame(path / name, parts.get(name.partition(".")[0]), of) for name, of in FRAMES.items()}
    damaged = [name for name, what in (found | frames).items() if what is None and _filled(path / name)]
    damaged += _damaged_parts(path, arms, seeds)
    failed = read_failures(path, arms, seeds)
    unfinished = _unfinished(path, _trainings(config, arms, seeds), frames["metrics.csv"])
    for failure in failed:
        unfinished.pop(part_folder(path, failure.arm, failure.seed).name, None)
    declared = [headline] if headline else []
    arms = _arms(arms, [*frames.values()])
    return Run(path, config, arms, table, *frames.values(), unfinished, damaged, failed, measures, declared)


def _filled(file: Path) -> bool:
    """Whether a file exists; an empty table counts as whole."""
    try:
        return not file.is_file() or file.stat().st_size > 0 if file.exists() else file.is_symlink()
    except OSError:
        return True


def _plain_keys(config: dict) -> dict:
    return {str(key): value for key, value in config.items()}


def _damaged_parts(path: Path, arms: dict, seeds: list[int]) -> list[str]:
    """Damaged files of single trainings."""
    damaged = []
    for part in (part_folder(path, arm, seed) for seed in seeds for arm in arms):
        checks = {
            RESULT: lambda part=part: read_result(part),
            "metrics.csv": lambda part=part: read_metrics(part),
            "gates.parquet": lambda part=part: read_parquet(part / "gates.parquet"),
        }
        bad = [name for name, check in checks.items() if _filled(part / name) and check() is None]
        damaged += [f"{part.name}/{name}" for name in bad]
    return damaged


def _seeds(path: Path, config: dict) -> list[int]:
    """The seeds of the run's flags; where those are lost, the seeds of its trainings' folders."""
    first, count = config.get("seed"), config.get("seeds")
    if isinstance(first, int) and isinstance(count, int) and count <= MOST_SEEDS:
        return list(range(first, first + count))
    ends = [folder.name.rpartition("-seed")[2] for folder in path.glob("*-seed*")]
    return sorted({int(end) for end in ends if end.isdigit()})


def _trainings(config: dict, arms: dict, seeds: list[int]) -> list[tuple[str, int]]:
    """The arms and seeds that are to have results; of an evaluation those of its networks."""
    named = readable(lambda: [(str(arm), int(seed)) for arm, seed in config["trainings"]])
    return [(arm, seed) for seed in seeds for arm in arms] if named is None else named


def _unfinished(path: Path, trainings: list[tuple[str, int]], metrics: DataFrame | None) -> dict[str, int | None]:
    folders = {(arm, seed): part_folder(path, arm, seed) for arm, seed in trainings}
    if not any(folder.exists() for folder in folders.values()):
        return {}  # if the folders of the trainings are missing, their state is unknown
    last = {} if metrics is None else metrics.groupby(["arm", "seed"])["step"].max().to_dict()
    left = {of: folder for of, folder in folders.items() if read_result(folder) is None}
    return {folder.name: int(last[of]) if of in last else None for of, folder in left.items()}


def read_frame(file: Path) -> DataFrame | None:
    """One of a run's gathered tables, named in `FRAMES`; None where it is missing, empty or damaged."""
    return readable(lambda: _frame(file, None, FRAMES[file.name]))


def _frame(file: Path, rows: DataFrame | None, columns: tuple[str, ...]) -> DataFrame | None:
    """A table of the run, of which rows that lack one of the columns are left out; None where there is nothing.

    Args:
        file: where it was gathered. rows: what is in the trainings' own folders, which then counts.
    """
    import numpy as np
    import pandas as pd

    table = _read(file) if rows is None else rows.reset_index(drop=True)
    table = in_long_form(table) if table is not None and file.name == "results.csv" else table
    if table is None or not set(columns) <= set(table.columns) or not table.columns.is_unique:
        return None
    for column in table.columns.difference(TEXTS):
        numbers = pd.to_numeric(table[column], errors="coerce").replace([np.inf, -np.inf], np.nan)
        if numbers.notna().any() or column in NUMBERS or _is_measure(column):
            table[column] = numbers  # another column of a study may well be text
    table = table.dropna(subset=list(columns)).reset_index(drop=True)
    texts = {column: table[column].map(str, na_action="ignore") for column in table.columns.intersection(TEXTS)}
    return table.assign(**texts) if len(table) else None


def _is_measure(column: str) -> bool:
    """Whether a column of the metrics is what was logged as DOMAIN/MEASURE."""
    return "/" in column and find_measure(column.rpartition("/")[2]) is not None


def _read(file: Path) -> DataFrame | None:
    table = readable(lambda: read_what_is_whole(file))
    if table is None:
        return None
    if "arm" not in table and {"norm", "seed"} <= {*table.columns}:
        raise ValueError(
            f"{file.parent} was written before tables had a column arm: repeat its command with --resume, which "
            "trains nothing again and writes them anew."
        )
    return table


def _written(arms: Path) -> dict[str, dict] | None:
    """The arms of arms.json; None if the file is missing or damaged."""
    read = readable(lambda: json.loads(arms.read_text(encoding="utf-8")))
    if not isinstance(read, dict) or not all(isinstance(columns, dict) for columns in read.values()):
        return None
    return {arm: {column: _scalar(value) for column, value in columns.items()} for arm, columns in read.items()}


def _scalar(value: object) -> object:
    """A column as figures can group by it."""
    return value if value is None or isinstance(value, (str, int, float)) else str(value)


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
