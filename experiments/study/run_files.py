"""The files of one run's folder: read when they are asked for, and said to be damaged where they are."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable
from functools import cached_property
from itertools import product
from pathlib import Path

import pandas as pd
import pyarrow as pa
from pandas import DataFrame

from experiments.study.endings import UsageError
from experiments.study.failures import FAILED_FILE
from experiments.study.run_parts import MOST_SEEDS, RESULT, in_long_form, readable
from experiments.study.tables_on_disk import (
    kept_settings,
    long_metrics,
    plain_settings,
    read_settings,
    read_table,
    to_frame,
    with_columns,
)

COLUMNS = {
    "results": ("measure", "value"),
    "metrics": ("step", "epoch", "metric", "value"),
    "gates": ("epoch", "step", "layer", "depth", "statistic", "label", "value"),
    "divergence": ("domain", "layer", "depth", "channels", "mean", "total"),
}
"""The columns that a table has at least, after arm, its columns and seed."""

FILES = {"results": "results.csv", "metrics": "metrics.csv", "gates": "gates.parquet", "divergence": "divergence.csv"}


class RunFiles:
    """The files of a run's folder."""

    def __init__(self, path: Path):
        self.path = path

    @cached_property
    def _kept(self) -> dict:
        return kept_settings(self.path)

    @cached_property
    def whole_config(self) -> dict | None:
        """config.yaml; None where it is missing or damaged."""
        found = readable(lambda: read_settings(self.path, "config.yaml", self._kept))
        return found if isinstance(found, dict) else None

    @cached_property
    def config(self) -> dict:
        """config.yaml: the flags and what they were used with; empty where it is missing."""
        if not (self.path / "config.yaml").is_file():
            return {}
        if self.whole_config is None:
            raise self._damaged("config.yaml", "put it back from a copy, or make the run anew with another --out")
        return self.whole_config

    @cached_property
    def whole_arms(self) -> dict[str, dict] | None:
        """arms.json; None where it is missing or damaged."""
        found = readable(lambda: json.loads((self.path / "arms.json").read_bytes()))
        whole = isinstance(found, dict) and all(isinstance(columns, dict) for columns in found.values())
        return found if whole else None

    @cached_property
    def _written_arms(self) -> dict[str, dict] | None:
        """arms.json; None where there is none, as in an evaluation's folder."""
        if (self.path / "arms.json").is_file() and self.whole_arms is None:
            raise self._damaged("arms.json", "remove it, and the run's command with --resume writes it anew")
        return self.whole_arms

    @cached_property
    def arms(self) -> dict[str, dict]:
        """The arms as the study wrote them; those of an evaluation from its results."""
        if self._written_arms is not None:
            return self._written_arms
        results = to_frame(self._results)
        known = results.drop_duplicates("arm").set_index("arm")
        return known[[column for column in ("norm", "backbone", "antialias") if column in known]].to_dict("index")

    @cached_property
    def labels(self) -> list[str]:
        """The columns that every table begins with."""
        return list(dict.fromkeys(["arm", *(name for columns in self.arms.values() for name in columns), "seed"]))

    @cached_property
    def trainings(self) -> list[tuple[str, int]]:
        """The arms and seeds that are to be trained, or were."""
        if self._written_arms is None:
            return []
        if (named := self.config.get("trainings")) is not None:  # of an evaluation, whose networks have their own seeds
            return [(str(arm), int(seed)) for arm, seed in named]
        first, count = self.config.get("seed"), self.config.get("seeds")
        if not (isinstance(first, int) and isinstance(count, int) and 0 < count <= MOST_SEEDS):
            raise self._damaged("config.yaml", "it names no seeds; its command with another --out makes the run anew")
        return [(arm, seed) for seed, arm in product(range(first, first + count), self._written_arms)]

    @cached_property
    def unfinished(self) -> list[str]:
        """What the run still lacks: trainings, or the tables of them all; empty for a finished run."""
        ended = (RESULT, FAILED_FILE)  # a training that failed is not waited for
        parts = [f"{arm}-seed{seed}" for arm, seed in self.trainings]
        waiting = [part for part in parts if not any(os.path.isfile(self.path / part / name) for name in ended)]
        return waiting or ([] if (self.path / "results.csv").is_file() else ["results.csv"])

    def frame(self, kind: str) -> DataFrame:
        """One of the tables of `RunTables`."""
        return to_frame(self.table(kind)) if kind in FILES else pd.DataFrame(self.configs() or None)

    def table(self, kind: str) -> pa.Table:
        """One of the tables that there are files of, in Arrow."""
        if kind == "results":
            missing = [label for label in self.labels if label not in self._results.column_names]
            if missing:
                raise UsageError(
                    f"{self.path / 'results.csv'} has no column {', '.join(missing)}, which arms.json names."
                )
            return self._results

        needed = ("arm", "seed", "step") if kind == "metrics" else ("arm", "seed", *COLUMNS[kind])
        found = self._readable(FILES[kind], needed)
        if found is None:
            if (self.path / FILES[kind]).exists():
                warnings.warn(f"{self.path / FILES[kind]} is damaged: its table is empty.", stacklevel=4)
            return with_columns(pa.table({}), [*self.labels, *COLUMNS[kind]])
        known = [label for label in self.labels if label in found.column_names]
        return long_metrics(found, known) if kind == "metrics" else found

    @cached_property
    def _results(self) -> pa.Table:
        found = self._readable("results.csv", ("arm", "seed"))
        if found is None:
            raise self._damaged("results.csv", "its command with --resume trains nothing again and writes it anew")
        if "measure" not in found.column_names:  # of a run of before
            found = pa.Table.from_pandas(in_long_form(to_frame(found)), preserve_index=False)
        return with_columns(found, [], COLUMNS["results"])

    def configs(self) -> list[dict]:
        """The settings of each training, in the order of the other tables."""
        if self._written_arms is None:
            labels = to_frame(self._results)[self.labels].drop_duplicates()
            trainings = labels.to_dict("records")
        else:
            seeds = dict.fromkeys(seed for _, seed in self.trainings)
            trainings = [
                {"arm": arm, **columns, "seed": seed}
                for arm, columns in self.arms.items()
                for seed in seeds
                if os.path.isfile(self.path / f"{arm}-seed{seed}" / RESULT)
            ]
        return [row | plain_settings(self.config | self._recipe(row["arm"], row["seed"]), row) for row in trainings]

    def _recipe(self, arm: str, seed: int) -> dict:
        """What the flags amounted to for one training."""
        found = readable(lambda: read_settings(self.path, f"{arm}-seed{seed}/hparams.yaml", self._kept))
        recipe = found.get("recipe") if isinstance(found, dict) else None
        return recipe if isinstance(recipe, dict) else {}

    def _readable(self, name: str, needed: Iterable[str]) -> pa.Table | None:
        """A table from its file; None where that is missing, damaged or without a column that is needed."""
        table = readable(lambda: read_table(self.path / name))
        return None if table is None or not {*needed} <= {*table.column_names} else table

    def _damaged(self, name: str, remedy: str) -> UsageError:
        return UsageError(f"{self.path / name} is damaged: {remedy}.")
