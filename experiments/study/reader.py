"""What studies left behind, as tidy tables: one row an observation, from runs' folders or from W&B.

    run = read_folder("runs/seg_gta2city")
    runs = read_runs("runs/*")
    run = read_wandb("me/normshift/1a2b3c4d", "me/normshift/5e6f7a8b")

A table is read when it is asked for, and then kept. Every one begins with the columns `arm`, those that tell the arms
apart (`norm`, and what else a study compares, such as `backbone`, `antialias` or `setting`), and `seed`; of several
runs with `run` before them. What was not measured is an empty table with its columns.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from glob import glob, has_magic
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.failures import FAILED_FILE
from experiments.flags import UsageError
from experiments.reporting.arm_looks import Look, cast
from experiments.run_parts import EXAMPLES, MOST_SEEDS, RESULT, in_long_form, read_measures, readable
from experiments.study.tables_on_disk import (
    joined_tables,
    kept_settings,
    long_metrics,
    plain_settings,
    read_settings,
    read_table,
    to_frame,
    with_columns,
)
from experiments.study.wandb_history import read_wandb_tables
from lightning_modules.examples import ExampleFiles, read_examples
from lightning_modules.measures import Measure, headline_of, measure_of

if TYPE_CHECKING:  # these load slowly; nothing here is needed by a command line that asks for --help
    import pyarrow as pa
    from pandas import DataFrame

COLUMNS = {
    "results": ("measure", "value"),
    "metrics": ("step", "epoch", "metric", "value"),
    "gates": ("epoch", "step", "layer", "depth", "statistic", "label", "value"),
    "divergence": ("domain", "layer", "depth", "channels", "mean", "total"),
}
"""The columns that a table has at least, after arm, its columns and seed."""

FILES = {"results": "results.csv", "metrics": "metrics.csv", "gates": "gates.parquet", "divergence": "divergence.csv"}


class RunTables:
    """A run's tables, or those of several; the columns after arm, its columns and seed are given below each."""

    def __init__(self, name: str, load: Callable[[str], DataFrame]):
        self.name, self._load = name, load

    @cached_property
    def results(self) -> DataFrame:
        """A row a value of an evaluated network: `measure` ("miou", "iou/road", "top1", "error", ...), `value` (shares
        are in 0..1), and on what, in the study's words: `domain`, `role` (source or target), `part`, `condition`,
        `severity`."""
        return self._load("results")

    @cached_property
    def metrics(self) -> DataFrame:
        """A row a logged value: `step`, `epoch` (from 0; none for learning rates), `metric` ("train/loss",
        "streets-city/miou", ...), `value`."""
        return self._load("metrics")

    @cached_property
    def gates(self) -> DataFrame:
        """A row a gate after one epoch: `epoch` (0 before training), `step`, `layer`, `depth`, `statistic` ("mean",
        "var" of SN; "rho" of BIN), `label` (of SN "in", "ln", "bn"; of BIN the channel), `value` in 0..1."""
        return self._load("gates")

    @cached_property
    def divergence(self) -> DataFrame:
        """A row a layer between the source and one target: `domain`, `layer`, `depth`, `channels`, `mean` (nats a
        channel), `total` (nats)."""
        return self._load("divergence")

    @cached_property
    def configs(self) -> DataFrame:
        """A row a training; a column a setting: flags, the recipe that they amount to, machine and versions."""
        return self._load("configs")


class Run(RunTables):
    """One run."""

    def __init__(self, name: str, load: Callable[[str], DataFrame], arms: Callable[[], dict[str, dict]]):
        super().__init__(name, load)
        self._arms = arms

    @cached_property
    def arms(self) -> dict[str, dict]:
        """What was compared, in the study's order, and the columns that tell each from the others."""
        return self._arms()

    @property
    def looks(self) -> dict[str, Look]:
        """How each arm looks in every figure."""
        return cast(self.arms).looks

    @cached_property
    def headline(self) -> Measure | None:
        """The measure that the results are told by; None where they hold none that is registered."""
        name = headline_of(self.results["measure"].unique())
        return None if name is None else measure_of(name)


class FolderRun(Run):
    """A run in its folder."""

    def __init__(self, folder: RunFiles):
        super().__init__(folder.path.name, folder.frame, lambda: folder.arms)
        self.path, self.files = folder.path, folder

    @cached_property
    def headline(self) -> Measure | None:
        """The measure that the results are told by: as the study declared it, else the first that is registered."""
        declared = read_measures(self.path)
        return super().headline if declared is None else measure_of(*declared)

    @cached_property
    def examples(self) -> list[ExampleFiles]:
        """Pictures, truths and what each arm's network makes of them: files, or texts."""
        return read_examples(self.path / EXAMPLES, self.arms)


class Runs(RunTables, Mapping[str, Run]):
    """Several runs, in the order of their names; their tables begin with the column `run`."""

    def __init__(self, runs: dict[str, FolderRun]):
        super().__init__(f"{len(runs)} runs", self._joined)
        self._runs = runs

    def __getitem__(self, name: str) -> FolderRun:
        return self._runs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._runs)

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def labels(self) -> list[str]:
        """The columns that every table begins with."""
        labels = dict.fromkeys(label for run in self._runs.values() for label in run.files.labels)
        return ["run", "arm", *(label for label in labels if label not in ("arm", "seed")), "seed"]

    def _joined(self, kind: str) -> DataFrame:
        import pandas as pd
        import pyarrow as pa

        if kind == "configs":
            rows = [{"run": name} | row for name, run in self._runs.items() for row in run.files.configs()]
            known = dict.fromkeys([*self.labels, *(column for row in rows for column in row)])
            return pd.DataFrame(rows, columns=list(known))

        def read(name: str) -> pa.Table:
            table = self._runs[name].files.table(kind)
            return table.add_column(0, "run", pa.repeat(pa.scalar(name), len(table)))

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            tables = list(pool.map(read, self._runs))
        return to_frame(joined_tables(tables, self.labels))


def read_folder(path: Path | str) -> FolderRun:
    """A finished run, from the folder that a study, or an evaluation, left behind.

    Of metrics, gates and divergence a file that is damaged is an empty table, and a warning says so.

    Raises:
        UsageError: there is no such folder, it holds no run, the run is not finished, or its config.yaml or arms.json
            are damaged. `results` raises it where results.csv is.
    """
    path = Path(path)
    if not path.is_dir():
        raise UsageError(f"{path}: there is no such folder; a study's --out says where its run is, such as runs/NAME.")
    if not (path / "config.yaml").is_file():
        raise UsageError(f"{path} holds no run: it has no config.yaml.")
    files = RunFiles(path)
    waiting = files.unfinished
    if waiting:
        again = files.config.get("command", "its command")
        raise UsageError(f"{path} is half a run, without {', '.join(waiting)}: go on with it by {again} --resume")
    return FolderRun(files)


def read_runs(*paths: Path | str) -> Runs:
    """Many finished runs at once.

    Args:
        paths: folders of runs, or patterns of such, as "runs/*". Of a pattern, folders without a run are left out, and
            those of unfinished or damaged runs as well, which a warning names.

    Raises:
        UsageError: as `read_folder` does of a folder that is named; no run is found.
    """
    found: dict[Path, FolderRun] = {}
    left_out = []
    for path in map(str, paths):
        for folder in sorted(map(Path, glob(path))) if has_magic(path) else [Path(path)]:
            if has_magic(path) and not (folder / "config.yaml").is_file():
                continue
            try:
                found.setdefault(folder.absolute(), read_folder(folder))
            except UsageError as error:
                if not has_magic(path):
                    raise
                left_out.append(str(error))
    if left_out:
        warnings.warn(f"{len(left_out)} runs are left out: {left_out[0]}{' ...' * (len(left_out) > 1)}", stacklevel=2)
    if not found:
        raise UsageError(f"there is no finished run in {' '.join(map(str, paths))}.")
    return Runs(dict(zip(distinct_names(list(found)), found.values(), strict=True)))


def read_wandb(*paths: str, api=None) -> Run:
    """The same tables from W&B: each path, ENTITY/PROJECT/RUN, is one training; those of one study belong together.

    W&B holds a little less than the folder. Columns of arms but the norm are in `configs` alone, and there is no
    divergence by layer. Layers are called as in W&B's keys ("layer2_0_bn1"). Of BIN it has histograms: each rho comes
    back as the middle of its bin, its label the channel's rank.

    Args:
        api: a `wandb.Api`; by default one of the account that is logged in.

    Raises:
        UsageError: W&B cannot be reached or has no such run, or a run is not finished.
    """
    arms, tables = read_wandb_tables(paths, api, COLUMNS)
    return Run(" ".join(paths), tables.__getitem__, lambda: arms)


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """The last parts of absolute paths, as many as tell them apart."""
    parts = [path.parts for path in paths]
    count = next(n for n in range(1, max(map(len, parts)) + 1) if len({part[-n:] for part in parts}) == len(parts))
    return ["/".join(part[-count:]) for part in parts]


class RunFiles:
    """The files of a run's folder."""

    def __init__(self, path: Path):
        self.path = path

    @cached_property
    def _kept(self) -> dict:
        return kept_settings(self.path)

    @cached_property
    def config(self) -> dict:
        """config.yaml: the flags and what they were used with; empty where it is missing."""
        if not (self.path / "config.yaml").is_file():
            return {}
        found = readable(lambda: read_settings(self.path, "config.yaml", self._kept))
        if not isinstance(found, dict):
            raise self._damaged("config.yaml", "put it back from a copy, or make the run anew with another --out")
        return found

    @cached_property
    def _written_arms(self) -> dict[str, dict] | None:
        """arms.json; None where there is none, as in an evaluation's folder."""
        if not (self.path / "arms.json").is_file():
            return None
        found = readable(lambda: json.loads((self.path / "arms.json").read_bytes()))
        if not isinstance(found, dict) or not all(isinstance(columns, dict) for columns in found.values()):
            raise self._damaged("arms.json", "remove it, and the run's command with --resume writes it anew")
        return found

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
        import pandas as pd

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
        import pyarrow as pa

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
            import pyarrow as pa

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
