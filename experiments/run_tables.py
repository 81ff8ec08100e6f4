"""What a study left behind, as tidy tables: one row an observation, from a run's folder or from W&B.

    run = read_folder("runs/seg_gta2city")
    run = read_wandb("me/normshift/1a2b3c4d", "me/normshift/5e6f7a8b")

Every table begins with the columns `arm`, the facts that tell the arms apart (`norm`, and what else a study compares,
such as `backbone`, `antialias` or `setting`), and `seed`. What was not measured is an empty table with its columns.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from experiments.failures import FAILED_FILE
from experiments.flags import UsageError
from experiments.reporting.arm_looks import Look, cast
from experiments.reporting.run import MOST_SEEDS
from experiments.run_parts import in_long_form, read_parquet, readable

if TYPE_CHECKING:  # pandas loads slowly; nothing here is needed by a command line that asks for --help
    from pandas import DataFrame

RESULTS = ("measure", "value")
METRICS = ("step", "epoch", "metric", "value")
GATES = ("epoch", "step", "layer", "depth", "statistic", "label", "value")
DIVERGENCE = ("domain", "layer", "depth", "channels", "mean", "total")

TEXTS = {"arm": str, "norm": str, "domain": str, "condition": str, "setting": str}
"""Columns that are no numbers, whatever they look like."""


@dataclass(frozen=True, eq=False)
class RunTables:
    """A run's tables; the columns that they have after arm, facts and seed are given below each."""

    name: str
    arms: dict[str, dict]
    """What was compared, in the study's order, and the facts of each."""
    results: DataFrame
    """A row a judgement of a trained network: `measure` ("miou", "iou/road", "top1", "error", ...), `value` (shares
    are in 0..1), and on what, in the study's words: `domain`, `role` (source or target), `part`, `condition`,
    `severity`."""
    metrics: DataFrame
    """A row a logged value: `step`, `epoch` (from 0; none for learning rates), `metric` ("train/loss",
    "streets-city/miou", ...), `value`."""
    gates: DataFrame
    """A row a gate after one epoch: `epoch` (0 before training), `step`, `layer`, `depth`, `statistic` ("mean",
    "var" of SN; "rho" of BIN), `label` (of SN "in", "ln", "bn"; of BIN the channel), `value` in 0..1."""
    divergence: DataFrame
    """A row a layer between the source and one target: `domain`, `layer`, `depth`, `channels`, `mean` (nats a channel),
    `total` (nats)."""
    configs: DataFrame
    """A row a training; a column a setting: flags, the recipe that they amount to, machine and versions."""

    @property
    def looks(self) -> dict[str, Look]:
        """How each arm looks in every figure."""
        return cast(self.arms).looks


def read_folder(path: Path | str) -> RunTables:
    """The tables of a finished run, from the folder that a study, or `eval_robustness.py`, left behind.

    Of metrics, gates and divergence a file that is damaged is an empty table, and a warning says so.

    Raises:
        UsageError: there is no such folder, it holds no run, the run is not finished, or its config.yaml, arms.json or
            results.csv are damaged.
    """
    import pandas as pd

    path = Path(path)
    if not path.is_dir():
        raise UsageError(f"{path}: there is no such folder; a study's --out says where its run is, such as runs/NAME.")
    if not (path / "config.yaml").is_file():
        raise UsageError(f"{path} holds no run: it has no config.yaml.")
    config = _yaml(path / "config.yaml")
    waiting = unfinished(path)
    if waiting:
        again = config.get("command", "its command")
        raise UsageError(f"{path} is half a run, without {', '.join(waiting)}: go on with it by {again} --resume")
    results = _table(path / "results.csv", ("arm", "seed"))
    if results is None:
        raise _damaged(path / "results.csv", "its command with --resume trains nothing again and writes it anew")
    arms = _arms(path, results)
    labels = list(dict.fromkeys(["arm", *(fact for facts in arms.values() for fact in facts), "seed"]))
    missing = [label for label in labels if label not in results]
    if missing:
        raise UsageError(f"{path / 'results.csv'} has no column {', '.join(missing)}, which arms.json names.")

    def table(name: str, columns: Iterable[str]) -> DataFrame:
        needed = ("arm", "seed", *columns) if name != "metrics.csv" else ("arm", "seed", "step")
        found = _table(path / name, needed)
        if found is None and (path / name).exists():
            warnings.warn(f"{path / name} is damaged: its table is empty.", stacklevel=3)
        return pd.DataFrame(columns=[*labels, *columns]) if found is None else found

    logged = table("metrics.csv", METRICS)
    return RunTables(
        name=path.name,
        arms=arms,
        results=in_long_form(results),
        metrics=logged if "metric" in logged else _long(logged, [*labels, "step", "epoch"], "metric"),
        gates=table("gates.parquet", GATES),
        divergence=table("divergence.csv", DIVERGENCE),
        configs=pd.DataFrame(
            {**dict(zip(labels, row, strict=True)), **_plain(config | _recipe(path, row[0], row[-1]), labels)}
            for row in results[labels].drop_duplicates().itertuples(index=False, name=None)
        ),
    )


def unfinished(path: Path) -> list[str]:
    """What a run's folder still lacks: trainings, or the tables of them all; empty for a finished run."""
    config, parts = _yaml(path / "config.yaml"), []
    if (path / "arms.json").is_file():
        first, count = config.get("seed"), config.get("seeds")
        if not (isinstance(first, int) and isinstance(count, int) and 0 < count <= MOST_SEEDS):
            raise _damaged(path / "config.yaml", "it names no seeds; its command with another --out makes the run anew")
        parts = [f"{arm}-seed{seed}" for seed, arm in product(range(first, first + count), _json(path / "arms.json"))]
    ended = ("result.json", FAILED_FILE)  # a training that failed is not waited for
    waiting = [part for part in parts if not any((path / part / name).is_file() for name in ended)]
    return waiting or ([] if (path / "results.csv").is_file() else ["results.csv"])


def read_wandb(*paths: str, api=None) -> RunTables:
    """The same tables from W&B: each path, ENTITY/PROJECT/RUN, is one training; those of one study belong together.

    W&B holds a little less than the folder. Facts but the norm are in `configs` alone, and there is no divergence by
    layer. Layers are called as in W&B's keys ("layer2_0_bn1"). Of BIN it has histograms: each rho comes back as the
    middle of its bin, its label the channel's rank.

    Args:
        api: a `wandb.Api`; by default one of the account that is logged in.

    Raises:
        UsageError: W&B cannot be reached or has no such run, or a run is not finished.
    """
    import pandas as pd
    import wandb

    labels, found = ["arm", "norm", "seed"], {"results": [], "metrics": [], "gates": [], "configs": []}
    for path in paths:
        try:
            api = api or wandb.Api()
            run = api.run(path)
            state, config, rows = run.state, dict(run.config), list(run.scan_history())
            judged = _logged_table(run, rows, "results")
        except (wandb.errors.Error, ValueError) as error:
            raise UsageError(f"{path} cannot be had from W&B: {' '.join(str(error).split())}") from error
        if state != "finished":
            raise UsageError(f"{path} is half a run: W&B says that it is {state}.")
        whose = {"arm": str(config.get("arm", config["norm"])), "norm": config["norm"], "seed": config["seed"]}
        found["results"] += [whose | row for row in judged]
        found["metrics"] += [whose | row for row in _logged(rows)]
        found["gates"] += [whose | row for row in _gates(rows)]
        found["configs"].append(whose | _plain(config, whose))
    if not paths:
        raise UsageError("name the W&B runs to read, each as ENTITY/PROJECT/RUN.")
    results = pd.DataFrame(found["results"]) if found["results"] else pd.DataFrame(columns=[*labels, *RESULTS])
    return RunTables(
        name=" ".join(paths),
        arms={row["arm"]: {"norm": row["norm"]} for row in found["configs"]},
        results=in_long_form(results),
        metrics=pd.DataFrame(found["metrics"], columns=[*labels, *METRICS]),
        gates=pd.DataFrame(found["gates"], columns=[*labels, *GATES]),
        divergence=pd.DataFrame(columns=[*labels, *DIVERGENCE]),
        configs=pd.DataFrame(found["configs"]),
    )


def _arms(path: Path, results: DataFrame) -> dict[str, dict]:
    """The arms as the study wrote them; those of an evaluation from its results."""
    if (path / "arms.json").is_file():
        return _json(path / "arms.json")
    known = results.drop_duplicates("arm").set_index("arm")
    return known[[fact for fact in ("norm", "backbone", "antialias") if fact in known]].to_dict("index")


def _long(wide: DataFrame, kept: list[str], name: str) -> DataFrame:
    """A row a value, in the order of the rows, of a frame that has a column for each thing measured."""
    kept = [column for column in kept if column in wide]
    long = wide.reset_index(drop=True).melt(kept, var_name=name, value_name="value", ignore_index=False)
    return long.dropna(subset=["value"]).sort_index(kind="stable").reset_index(drop=True)


def _table(file: Path, needed: Iterable[str]) -> DataFrame | None:
    """A table from its file; None where that is missing, damaged or without a column that is needed."""
    import pandas as pd

    parquet = file.suffix == ".parquet"
    table = read_parquet(file) if parquet else readable(lambda: pd.read_csv(file, dtype=TEXTS))
    return None if table is None or not {*needed} <= {*table.columns} else table


def _json(file: Path) -> dict[str, dict]:
    """The arms and their facts."""
    found = readable(lambda: json.loads(file.read_text(encoding="utf-8")))
    if not isinstance(found, dict) or not all(isinstance(facts, dict) for facts in found.values()):
        raise _damaged(file, "remove it, and the run's command with --resume writes it anew")
    return found


def _damaged(file: Path, remedy: str) -> UsageError:
    return UsageError(f"{file} is damaged: {remedy}.")


def _yaml(file: Path) -> dict:
    """A YAML file, tuples in it read as lists; empty where it is missing."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("tag:yaml.org,2002:python/tuple", Loader.construct_yaml_seq)
    if not file.is_file():
        return {}
    found = readable(lambda: yaml.load(file.read_text(encoding="utf-8"), Loader) or {})
    if not isinstance(found, dict):
        raise _damaged(file, "put it back from a copy, or make the run anew by its command with another --out")
    return found


def _recipe(path: Path, arm: str, seed: int) -> dict:
    """What the flags amounted to for one training."""
    try:
        recipe = _yaml(path / f"{arm}-seed{seed}" / "hparams.yaml").get("recipe")
    except UsageError:
        recipe = None
    return recipe if isinstance(recipe, dict) else {}


def _plain(settings: Mapping, taken: Iterable[str]) -> dict:
    """Settings as a table can hold them: lists and mappings as text, and none that would hide a label."""

    def text(value):
        if isinstance(value, (list, tuple)):
            return " ".join(map(str, value))
        return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else value

    return {name: text(value) for name, value in settings.items() if name not in taken}


STEP = "trainer/global_step"


def _logged_table(run, rows: list[dict], key: str) -> Iterable[dict]:
    """The rows of a table as it was last logged to a W&B run."""
    file = next((row[key]["path"] for row in reversed(rows) if key in row), None)
    if file is None:
        return []
    with TemporaryDirectory() as folder, run.file(file).download(root=folder) as opened:
        table = json.load(opened)
    return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]


def _logged(rows: list[dict]) -> Iterator[dict]:
    """W&B's history as rows of `metrics`: numbers, but those of single layers."""
    for row in rows:
        time = {"step": row.get(STEP), "epoch": row.get("epoch")}
        for metric, value in row.items():
            plain = metric not in ("epoch", STEP) and not metric.startswith(("_", "layers/"))
            if plain and isinstance(value, (int, float)):
                yield time | {"metric": metric, "value": value}


GATE_KEY = re.compile(r"layers/gates/(?:(mean|var)/([^/]+)|rho/histogram)/(\d+)_(.+)")
"""SN's statistic and label, where it is SN's; depth and layer."""


def _gates(rows: list[dict]) -> Iterator[dict]:
    """W&B's history as rows of `gates`, those of the steps that ended an epoch."""
    only_gates = ("_", "gates/", "layers/", "epoch", STEP)
    epochs = {row[STEP]: row["epoch"] for row in rows if "epoch" in row and all(k.startswith(only_gates) for k in row)}
    for row in rows:
        for key, value in row.items():
            match = GATE_KEY.fullmatch(key)
            if match is None or row[STEP] not in epochs:
                continue
            statistic, label, depth, layer = match.groups()
            place = {"epoch": epochs[row[STEP]], "step": row[STEP], "layer": layer, "depth": int(depth)}
            values = [(label, value)] if label else enumerate(_middles(value))
            for label, each in values:
                yield place | {"statistic": statistic or "rho", "label": str(label), "value": each}


def _middles(histogram: dict) -> list[float]:
    """What a histogram counted, each at the middle of its bin, in ascending order."""
    if "packedBins" in histogram:  # bins of one width, as W&B's server shortens them
        packed = histogram["packedBins"]
        edges = [packed["min"] + i * packed["size"] for i in range(packed["count"] + 1)]
    else:
        edges = histogram["bins"]
    counted = zip(histogram["values"], edges, edges[1:], strict=False)
    return [(low + high) / 2 for count, low, high in counted for _ in range(int(count))]
