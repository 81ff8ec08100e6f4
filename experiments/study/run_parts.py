"""Gather the files of a run's finished and unfinished trainings into tables in long form.

Each training has its own folder, OUT/ARM-seedN. This module does not import torch, and skips files that a killed
training left incomplete, so that a report can be made of any run, also of one that is still training.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd
from pandas import DataFrame

from lightning_modules.measures import Measure, find_measure, measures_from_plain

RESULT = "result.json"
"""A training with this file is finished."""

MEASURES_FILE = "measures.json"
"""The file with a run's measures and its headline."""

EXAMPLES = "examples"
"""The folder of a run with its networks' predictions for a few images."""

MOST_SEEDS = 10_000
"""Most seeds of a run: a larger number means that the file is damaged."""


def part_folder(run: Path, arm: str, seed: int) -> Path:
    """The subfolder of one training."""
    return run / f"{arm}-seed{seed}"


def gathered(run: Path, arms: dict[str, dict], seeds: Iterable[int]) -> dict[str, DataFrame]:
    """The tables "metrics", "gates", "results" and "divergence", without empty ones.

    Every row begins with the arm, its columns and the seed.

    Args:
        arms: the things that the run compares, with their columns; their order is that of the rows, seed by seed.
    """
    found: dict[str, list] = {}
    seeds = list(seeds)
    for arm, columns in arms.items():
        for seed in seeds:
            for name, frame in _read_part(part_folder(run, arm, seed)).items():
                found.setdefault(name, []).append(_labelled(frame, {"arm": arm, **columns, "seed": seed}))
    return {name: pd.concat(frames) for name, frames in found.items()}


def read_metrics(part: Path) -> DataFrame | None:
    """The metrics that a training has logged, from all its parts; repeated steps are kept once."""
    whole = None
    for file in [*sorted(part.glob("metrics-*.csv")), *part.glob("metrics.csv")]:
        logged = readable(lambda file=file: pd.read_csv(file, on_bad_lines="skip"))
        if logged is not None and "step" in logged:
            logged = logged.assign(step=pd.to_numeric(logged["step"], errors="coerce")).dropna(subset="step")
            whole = logged if whole is None else pd.concat([whole[whole.step < logged.step.min()], logged])
    return whole


def _read_part(part: Path) -> dict[str, DataFrame]:
    result = read_result(part) or {}
    frames = {
        "metrics": read_metrics(part),
        "gates": read_parquet(part / "gates.parquet"),
        **{name: pd.DataFrame(result[name]) for name in ("results", "divergence") if result.get(name)},
    }
    return {name: frame for name, frame in frames.items() if frame is not None}


def read_result(part: Path) -> dict[str, list[dict]] | None:
    """The results of a finished training; None if the file is missing or damaged."""
    found = readable(lambda: json.loads((part / RESULT).read_text(encoding="utf-8")))
    tables = found.values() if isinstance(found, dict) else [None]
    whole = all(isinstance(rows, list) and all(isinstance(row, dict) for row in rows) for rows in tables)
    return found if whole else None


def read_measures(path: Path) -> tuple[str, dict[str, Measure]] | None:
    """The headline and the measures that a run's study declared; None if the file is missing or damaged."""

    def read() -> tuple[str, dict[str, Measure]]:
        written = json.loads((path / MEASURES_FILE).read_text(encoding="utf-8"))
        measures = measures_from_plain(written["measures"])
        if not isinstance(written["headline"], str):
            raise ValueError("no headline")
        return written["headline"], measures

    return readable(read)


def read_parquet(file: Path) -> DataFrame | None:
    """A table; None if it is missing, damaged or a folder (which pandas would read as a table in parts)."""
    return readable(lambda: pd.read_parquet(file)) if file.is_file() else None


def readable(read: Callable):
    """The value of `read`; None if the file is missing, empty, incomplete or otherwise damaged."""
    try:
        return read()
    except Exception:  # readers of damaged tables and images raise errors of many kinds
        return None


def in_long_form(results: DataFrame) -> DataFrame:
    """Results in long form. Those of older runs, with a column for each measure, are converted."""
    measured = [column for column in results if find_measure(str(column)) is not None]
    if "measure" in results or not measured:
        return results
    kept = [column for column in results if column not in measured]
    long = results.reset_index(drop=True).melt(kept, measured, "measure", "value", ignore_index=False)
    long = long.dropna(subset=["value"]).sort_index(kind="stable").reset_index(drop=True)
    return long.assign(**{name: "clean" for name in ("part", "condition") if name not in long})


def _labelled(frame: DataFrame, labels: dict) -> DataFrame:
    """The frame with the labels in front, in place of columns of the same names."""
    others = [column for column in frame.columns if column not in labels]
    return frame.assign(**labels)[[*labels, *others]]
