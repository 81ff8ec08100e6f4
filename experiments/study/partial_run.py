"""The files of a run that may have been killed, or is under way: what is missing or damaged is left out, and named."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from pandas import DataFrame

from experiments.study.failures import Failure, read_failures
from experiments.study.run_files import FILES, RunFiles
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
from experiments.study.tables.table import Table
from experiments.study.tables_on_disk import TEXTS, read_what_is_whole
from lightning_modules.measures import Measure, find_measure

NEEDED = {
    "results": ("arm", "seed"),
    "metrics": ("arm", "seed", "step"),
    "gates": ("arm", "norm", "seed", "epoch", "step", "layer", "depth", "statistic", "label", "value"),
    "divergence": ("arm", "seed", "domain", "depth", "mean"),
}
"""The tables of a run, and the columns without which they, or single rows of them, are of no use."""

NUMBERS = ("seed", "step", "epoch", "depth", "value", "mean", "total", "train/loss")
"""Columns that are numbers wherever they are, so that a text in them is damage."""


class PartialRun:
    """What a run's folder holds. Where its name is a file's, None says that this is missing, empty or damaged."""

    def __init__(self, path: Path):
        self.path, self.files = path, RunFiles(path)
        parts = gathered(path, self._named, self.seeds)  # before the gathered files, written when a training ends
        self.frames: dict[str, DataFrame | None] = {
            name: _frame(path / file, parts.get(name), NEEDED[name]) for name, file in FILES.items()
        }

    @property
    def config(self) -> dict:
        """config.yaml; empty where it is missing or damaged."""
        return {str(key): value for key, value in (self.files.whole_config or {}).items()}

    @cached_property
    def closing_table(self) -> Table | None:
        return readable(lambda: Table.from_json((self.path / "table.json").read_text(encoding="utf-8")))

    @cached_property
    def measures(self) -> tuple[str, dict[str, Measure]] | None:
        """The headline and the measures that the study declared."""
        return read_measures(self.path)

    @cached_property
    def _named(self) -> dict[str, dict]:
        """The arms of arms.json, with columns that figures can group by."""
        written = (self.files.whole_arms or {}).items()
        return {arm: {column: _scalar(value) for column, value in columns.items()} for arm, columns in written}

    @property
    def arms(self) -> dict[str, dict]:
        """The arms of arms.json and what else was measured; of those the norm alone is known."""
        arms = dict(self._named)
        for frame in self.frames.values():
            if frame is not None:
                measured = frame.drop_duplicates("arm")
                norms = measured["norm"] if "norm" in frame else [None] * len(measured)
                for arm, norm in zip(measured["arm"], norms, strict=True):
                    arms.setdefault(arm, {"norm": norm})
        return arms

    @cached_property
    def seeds(self) -> list[int]:
        """The seeds of the run's flags; where those are lost, the seeds of its trainings' folders."""
        first, count = self.config.get("seed"), self.config.get("seeds")
        if isinstance(first, int) and isinstance(count, int) and count <= MOST_SEEDS:
            return list(range(first, first + count))
        ends = [folder.name.rpartition("-seed")[2] for folder in self.path.glob("*-seed*")]
        return sorted({int(end) for end in ends if end.isdigit()})

    @cached_property
    def _parts(self) -> dict[tuple[str, int], Path]:
        """The folders of the trainings that there are to be."""
        return {(arm, seed): part_folder(self.path, arm, seed) for seed in self.seeds for arm in self._named}

    @property
    def _trainings(self) -> list[tuple[str, int]]:
        """The arms and seeds that are to have results; of an evaluation those of its networks."""
        named = readable(lambda: [(str(arm), int(seed)) for arm, seed in self.config["trainings"]])
        return list(self._parts) if named is None else named

    @cached_property
    def failed(self) -> list[Failure]:
        """The trainings that failed."""
        return read_failures(self.path, self._named, self.seeds)

    @property
    def unfinished(self) -> dict[str, int | None]:
        """Trainings that have left neither a result nor a failure, and the last step that each has logged."""
        folders = {(arm, seed): part_folder(self.path, arm, seed) for arm, seed in self._trainings}
        if not any(folder.exists() for folder in folders.values()):
            return {}  # if the folders of the trainings are missing, their state is unknown
        metrics = self.frames["metrics"]
        last = {} if metrics is None else metrics.groupby(["arm", "seed"])["step"].max().to_dict()
        failed = {(failure.arm, failure.seed) for failure in self.failed}
        left = {of: part for of, part in folders.items() if of not in failed and read_result(part) is None}
        return {folder.name: int(last[of]) if of in last else None for of, folder in left.items()}

    @property
    def damaged(self) -> list[str]:
        """Files, by their paths in the folder, that are there and cannot be used."""
        read = {
            "config.yaml": self.files.whole_config,
            "table.json": self.closing_table,
            "arms.json": self.files.whole_arms,
            MEASURES_FILE: self.measures,
            **{FILES[name]: frame for name, frame in self.frames.items()},
        }
        damaged = [name for name, what in read.items() if what is None and _filled(self.path / name)]
        for part in self._parts.values():
            checks = {
                RESULT: lambda part=part: read_result(part),
                "metrics.csv": lambda part=part: read_metrics(part),
                "gates.parquet": lambda part=part: read_parquet(part / "gates.parquet"),
            }
            bad = [name for name, check in checks.items() if _filled(part / name) and check() is None]
            damaged += [f"{part.name}/{name}" for name in bad]
        return damaged


def _filled(file: Path) -> bool:
    """Whether there is something at a file's place; a table that nothing has been written to is whole."""
    try:
        return not file.is_file() or file.stat().st_size > 0 if file.exists() else file.is_symlink()
    except OSError:
        return True


def read_frame(file: Path) -> DataFrame | None:
    """One of a run's gathered tables, named in `FILES`; None where it is missing, empty or damaged."""
    return readable(lambda: _frame(file, None, NEEDED[file.stem]))


def _frame(file: Path, rows: DataFrame | None, columns: tuple[str, ...]) -> DataFrame | None:
    """A table of the run, of which rows that lack one of the columns are left out; None where there is nothing.

    Args:
        file: where it was gathered. rows: what is in the trainings' own folders, which then counts.
    """
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


def _scalar(value: object) -> object:
    """A column as figures can group by it."""
    return value if value is None or isinstance(value, (str, int, float)) else str(value)
