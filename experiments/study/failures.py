"""Failed trainings: the file that records each, and how tables show them.

A training fails when a loss, weight or gradient is not finite. `OUT/ARM-seedN/failed.json` then says at which step and
where, and the last finite checkpoint is kept. The study continues with its other arms, and ends with status 3.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from pandas import DataFrame

from datamodules.whole_file import write_whole
from experiments.study.run_parts import RESULT, part_folder
from experiments.study.tables.table import STATISTICS, Table

FAILED_FILE = "failed.json"
"""A training with this file and without a result has failed."""


@dataclass(frozen=True)
class Failure:
    """A training that failed, and why, as half a sentence: "at step 3 the loss is not finite"."""

    arm: str
    seed: int
    why: str

    def __str__(self) -> str:
        return f"{self.arm}, seed {self.seed}: {self.why}"


def write_failure(part: Path, error: Exception) -> None:
    """Record in a training's folder that it failed."""
    details = {"why": str(error)} | {name: getattr(error, name, None) for name in ("step", "what", "layer")}
    part.mkdir(parents=True, exist_ok=True)
    write_whole(part / FAILED_FILE, json.dumps(details, indent=1))


def read_failure(run: Path, arm: str, seed: int) -> Failure | None:
    """The failure of a training; None if it did not fail."""
    part = part_folder(run, arm, seed)
    if (part / RESULT).exists():
        return None
    try:
        why = json.loads((part / FAILED_FILE).read_text())["why"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        why = "it failed, and its failed.json cannot be read"
    return Failure(arm, seed, str(why))


def read_failures(run: Path, arms: Iterable[str], seeds: Iterable[int]) -> list[Failure]:
    """The failed trainings of a run, seed by seed."""
    arms = list(arms)
    found = [read_failure(run, arm, seed) for seed in seeds for arm in arms]
    return [failure for failure in found if failure is not None]


def with_gaps(results: DataFrame, failures: list[Failure], arms: dict[str, dict]) -> DataFrame:
    """The results with added rows for the failed trainings, whose numbers are missing.

    With them the study's table has rows for these trainings. They are copied from the same arm with another seed, or
    else from another arm.
    """
    frames = [results]
    for failure in failures:
        details = arms[failure.arm]
        same = results[results["arm"] == failure.arm]
        like = same if len(same) else results
        one = like[(like["arm"] == like["arm"].iloc[0]) & (like["seed"] == like["seed"].iloc[0])].copy()
        labels = {"arm": failure.arm, **details, "seed": failure.seed}
        measured = one.select_dtypes("number").columns.difference([*labels, "severity"])
        one[measured] = float("nan")
        frames.append(one.assign(**labels))
    whole = pd.concat(frames)
    order = {arm: place for place, arm in enumerate(arms)}
    return whole.sort_values("arm", key=lambda names: names.map(order), kind="stable")


def marked(table: Table | None, failures: list[Failure], arms: dict[str, dict]) -> Table | None:
    """The table with failed trainings counted in their rows and named in the legend; arms without a row get one.

    Args:
        table: None if no training has a result.
    """
    if not failures:
        return table
    if table is None:
        nothing = pd.MultiIndex.from_product([[], STATISTICS])
        table = Table(pd.DataFrame(index=[], columns=nothing, dtype=float), "", corner="arm")
    rows, counts = list(map(str, table.cells.index)), {}
    for failure in failures:
        names = [str(arms[failure.arm].get(table.corner)), failure.arm, *map(str, arms[failure.arm].values())]
        row = next((name for name in names if name in rows), failure.arm)
        counts[row] = counts.get(row, 0) + 1
    cells = table.cells.set_axis(rows).reindex([*rows, *(row for row in counts if row not in rows)])
    for column in table.columns:
        cells[column, "n"] = cells[column, "n"].fillna(0)
    note = " ".join(f"Failed: {failure}." for failure in failures)
    return dataclasses.replace(table, cells=cells, failed=counts, legend=f"{table.legend} {note}".strip())
