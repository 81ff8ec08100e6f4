"""What the single trainings of a run have left so far, gathered into tidy tables.

Each training has a folder of its own, OUT/ARM-seedN. Nothing here loads torch, and a file that a killed training left
cut short is passed over: a page can be made of any run, also of one that is under way.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_modules.measures import Measure, find_measure, measures_from_plain

if TYPE_CHECKING:  # imports slowly: --help must not wait for it
    from pandas import DataFrame

RESULT = "result.json"
"""The file whose presence says that a training is finished."""

MEASURES_FILE = "measures.json"
"""What a run measured, and by which measure it is told."""

EXAMPLES = "examples"
"""The folder of a run that holds what its networks make of a few pictures."""

MOST_SEEDS = 10_000
"""More than these no run has: a number of seeds above it is damage."""


def part_folder(run: Path, arm: str, seed: int) -> Path:
    """The subfolder of one training."""
    return run / f"{arm}-seed{seed}"


def gathered(run: Path, arms: dict[str, dict], seeds: Iterable[int]) -> dict[str, DataFrame]:
    """The tables "metrics", "gates", "results" and "divergence", those that there is something of.

    Every row begins with the arm, its columns and the seed.

    Args:
        arms: the things that the run compares, with their columns; their order is that of the rows, seed by seed.
    """
    import pandas as pd

    found: dict[str, list] = {}
    seeds = list(seeds)
    for arm, columns in arms.items():
        for seed in seeds:
            for name, frame in _read_part(part_folder(run, arm, seed)).items():
                found.setdefault(name, []).append(_labelled(frame, {"arm": arm, **columns, "seed": seed}))
    return {name: pd.concat(frames) for name, frames in found.items()}


def read_metrics(part: Path) -> DataFrame | None:
    """What a training has logged, from all its parts; steps that were taken again count once."""
    import pandas as pd

    whole = None
    for file in [*sorted(part.glob("metrics-*.csv")), *part.glob("metrics.csv")]:
        logged = readable(lambda file=file: pd.read_csv(file, on_bad_lines="skip"))
        if logged is not None and "step" in logged:
            logged = logged.assign(step=pd.to_numeric(logged["step"], errors="coerce")).dropna(subset="step")
            whole = logged if whole is None else pd.concat([whole[whole.step < logged.step.min()], logged])
    return whole


def set_aside(metrics: Path) -> None:
    """Rename what an interrupted training has logged: Lightning's logger begins its file anew."""
    if metrics.exists():
        count = len(list(metrics.parent.glob("metrics-*.csv")))
        metrics.rename(metrics.with_name(f"metrics-{count:03d}.csv"))


def _read_part(part: Path) -> dict[str, DataFrame]:
    import pandas as pd

    result = read_result(part) or {}
    frames = {
        "metrics": read_metrics(part),
        "gates": read_parquet(part / "gates.parquet"),
        **{name: pd.DataFrame(result[name]) for name in ("results", "divergence") if result.get(name)},
    }
    return {name: frame for name, frame in frames.items() if frame is not None}


def read_result(part: Path) -> dict[str, list[dict]] | None:
    """What a finished training has left; None where its result is not there, or damaged."""
    found = readable(lambda: json.loads((part / RESULT).read_text(encoding="utf-8")))
    tables = found.values() if isinstance(found, dict) else [None]
    whole = all(isinstance(rows, list) and all(isinstance(row, dict) for row in rows) for rows in tables)
    return found if whole else None


def read_measures(path: Path) -> tuple[str, dict[str, Measure]] | None:
    """The headline and the measures that a run's study declared; None where that is not there or is no such thing."""

    def read() -> tuple[str, dict[str, Measure]]:
        written = json.loads((path / MEASURES_FILE).read_text(encoding="utf-8"))
        measures = measures_from_plain(written["measures"])
        if not isinstance(written["headline"], str):
            raise ValueError("no headline")
        return written["headline"], measures

    return readable(read)


def read_parquet(file: Path) -> DataFrame | None:
    """A table; None where it is missing or damaged. A folder, which pandas takes for a table in parts, is none."""
    import pandas as pd

    return readable(lambda: pd.read_parquet(file)) if file.is_file() else None


def readable(read: Callable):
    """What `read` returns; None where the file is not there, empty, cut off in the middle or otherwise damaged."""
    try:
        return read()
    except Exception:  # readers of tables and pictures raise whatever a damaged file leads them to
        return None


def in_long_form(results: DataFrame) -> DataFrame:
    """Results a row a value. Those of older runs, which have a column for each thing measured, are turned into that."""
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
