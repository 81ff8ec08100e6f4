"""Runs as tables in long form, read from their folders or from W&B.

    run = read_folder("runs/seg_gta2city")
    runs = read_runs("runs/*")
    run = read_wandb("me/normshift/1a2b3c4d", "me/normshift/5e6f7a8b")

A table is read when it is first used, and then kept. Every table begins with the columns `arm`, the arm's columns
(`norm` and others that a study compares, such as `backbone`, `antialias` or `setting`), and `seed`; for several runs,
`run` comes first. A table that was not measured is empty, with its columns.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from glob import glob, has_magic
from pathlib import Path

import pandas as pd
import pyarrow as pa
from pandas import DataFrame

from experiments.reporting.arm_styles import LineStyle, arm_styles
from experiments.study.endings import UsageError
from experiments.study.run_files import COLUMNS, RunFiles
from experiments.study.run_parts import EXAMPLES, read_measures
from experiments.study.tables_on_disk import joined_tables, to_frame
from experiments.study.wandb_runs.history import read_wandb_tables
from lightning_modules.examples import ExampleFiles, read_examples
from lightning_modules.measures import Measure, headline_of, measure_of


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
    def styles(self) -> dict[str, LineStyle]:
        """Each arm's style in figures."""
        return arm_styles(self.arms).styles

    @cached_property
    def headline(self) -> Measure | None:
        """The main measure of the results; None if they hold no registered one."""
        name = headline_of(self.results["measure"].unique())
        return None if name is None else measure_of(name)


class FolderRun(Run):
    """A run in its folder."""

    def __init__(self, folder: RunFiles):
        super().__init__(folder.path.name, folder.frame, lambda: folder.arms)
        self.path, self.files = folder.path, folder

    @cached_property
    def headline(self) -> Measure | None:
        """The main measure of the results: the one that the study declared, else the first registered one."""
        declared = read_measures(self.path)
        return super().headline if declared is None else measure_of(*declared)

    @cached_property
    def examples(self) -> list[ExampleFiles]:
        """Example images, ground truths and each arm's predictions: files or texts."""
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
        raise UsageError(f"{path} is not finished, without {', '.join(waiting)}: continue it by {again} --resume")
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
    """The last parts of absolute paths, as many as make them different."""
    parts = [path.parts for path in paths]
    count = next(n for n in range(1, max(map(len, parts)) + 1) if len({part[-n:] for part in parts}) == len(parts))
    return ["/".join(part[-count:]) for part in parts]
