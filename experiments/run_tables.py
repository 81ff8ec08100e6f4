"""What a study left behind, as tidy tables: one row an observation, from a run's folder or from W&B.

    run = read_folder("runs/seg_gta2city")
    run = read_wandb("me/normshift/1a2b3c4d", "me/normshift/5e6f7a8b")

Every table begins with the columns `arm`, the facts that tell the arms apart (`norm`, and what else a study compares,
such as `backbone`, `antialias` or `setting`), and `seed`. What was not measured is an empty table with its columns.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.arm_looks import Look, looks_by_norm
from experiments.flags import UsageError

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
        """How each arm looks in figures: its norm's colour, and a dash and marker of its own."""
        return looks_by_norm({arm: str(facts.get("norm")) for arm, facts in self.arms.items()})


def read_folder(path: Path | str) -> RunTables:
    """The tables of a finished run, from the folder that a study, or `eval_robustness.py`, left behind.

    Raises:
        UsageError: there is no such folder, it holds no run, or the run is not finished.
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
    results = pd.read_csv(path / "results.csv", dtype=TEXTS)
    arms = _arms(path, results)
    labels = list(dict.fromkeys(["arm", *(fact for facts in arms.values() for fact in facts), "seed"]))

    def table(name: str, columns: Iterable[str]) -> DataFrame:
        file = path / name
        if not file.is_file():
            return pd.DataFrame(columns=[*labels, *columns])
        return pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file, dtype=TEXTS)

    logged = table("metrics.csv", METRICS)
    return RunTables(
        name=path.name,
        arms=arms,
        results=results if set(RESULTS) <= {*results} else _long(results, [*labels, "domain", "role"], "measure"),
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
        seeds = range(config["seed"], config["seed"] + config["seeds"])
        parts = [f"{arm}-seed{seed}" for seed, arm in product(seeds, json.loads((path / "arms.json").read_text()))]
    waiting = [part for part in parts if not (path / part / "result.json").is_file()]
    return waiting or ([] if (path / "results.csv").is_file() else ["results.csv"])


def read_wandb(*paths: str, api=None) -> RunTables:
    """The same tables from W&B: each path, ENTITY/PROJECT/RUN, is one training; those of one study belong together.

    W&B holds a little less than the folder. `results` are the last judgement of each network on clean images, facts
    but the norm are in `configs` alone, and there is no divergence. Of BIN it has histograms: each rho comes back as
    the middle of its bin, its label the channel's rank. `depth` is a layer's place among the gated ones, by its name.

    Args:
        api: a `wandb.Api`; by default one of the account that is logged in.

    Raises:
        UsageError: W&B cannot be reached or has no such run, or a run is not finished.
    """
    import pandas as pd
    import wandb

    runs = []
    for path in paths:
        try:
            api = api or wandb.Api()
            run = api.run(path)
            state, config, rows = run.state, dict(run.config), list(run.scan_history())
        except (wandb.errors.Error, ValueError) as error:
            raise UsageError(f"{path} cannot be had from W&B: {' '.join(str(error).split())}") from error
        if state != "finished":
            raise UsageError(f"{path} is half a run: W&B says that it is {state}.")
        runs.append((config, rows))
    if not runs:
        raise UsageError("name the W&B runs to read, each as ENTITY/PROJECT/RUN.")
    frames: dict[str, list] = {"metrics": [], "gates": [], "configs": []}
    for config, rows in runs:
        labels = {"arm": str(config.get("arm", config["norm"])), "norm": config["norm"], "seed": config["seed"]}
        frames["metrics"] += [labels | row for row in _logged(rows)]
        frames["gates"] += [labels | row for row in _gates(rows)]
        frames["configs"].append(labels | _plain(config, labels))
    metrics = pd.DataFrame(frames["metrics"], columns=["arm", "norm", "seed", *METRICS])
    configs = pd.DataFrame(frames["configs"])
    return RunTables(
        name=" ".join(paths),
        arms={row["arm"]: {"norm": row["norm"]} for row in frames["configs"]},
        results=_judged_last(metrics),
        metrics=metrics,
        gates=pd.DataFrame(frames["gates"], columns=["arm", "norm", "seed", *GATES]),
        divergence=pd.DataFrame(columns=["arm", "norm", "seed", *DIVERGENCE]),
        configs=configs,
    )


def _arms(path: Path, results: DataFrame) -> dict[str, dict]:
    """The arms as the study wrote them; those of an evaluation from its results."""
    if (path / "arms.json").is_file():
        return json.loads((path / "arms.json").read_text())
    known = results.drop_duplicates("arm").set_index("arm")
    return known[[fact for fact in ("norm", "backbone", "antialias") if fact in known]].to_dict("index")


def _long(wide: DataFrame, kept: list[str], name: str) -> DataFrame:
    """A row a value, in the order of the rows, of a frame that has a column for each thing measured."""
    kept = [column for column in kept if column in wide]
    long = wide.reset_index(drop=True).melt(kept, var_name=name, value_name="value", ignore_index=False)
    return long.dropna(subset=["value"]).sort_index(kind="stable").reset_index(drop=True)


def _yaml(file: Path) -> dict:
    """A YAML file, tuples in it read as lists; empty where it is missing."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("tag:yaml.org,2002:python/tuple", Loader.construct_yaml_seq)
    return (yaml.load(file.read_text(encoding="utf-8"), Loader) or {}) if file.is_file() else {}


def _recipe(path: Path, arm: str, seed: int) -> dict:
    """What the flags amounted to for one training."""
    return _yaml(path / f"{arm}-seed{seed}" / "hparams.yaml").get("recipe") or {}


def _plain(settings: Mapping, taken: Iterable[str]) -> dict:
    """Settings as a table can hold them: lists and mappings as text, and none that would hide a label."""

    def text(value):
        if isinstance(value, (list, tuple)):
            return " ".join(map(str, value))
        return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else value

    return {name: text(value) for name, value in settings.items() if name not in taken}


def _logged(rows: list[dict]) -> Iterable[dict]:
    """W&B's history as rows of `metrics`."""
    for row in rows:
        time = {"step": row.get("trainer/global_step"), "epoch": row.get("epoch")}
        for metric, value in row.items():
            known = metric in ("epoch", "trainer/global_step") or metric.startswith(("_", "gates"))
            if not known and isinstance(value, (int, float)):
                yield time | {"metric": metric, "value": value}


def _gates(rows: list[dict]) -> Iterable[dict]:
    """W&B's history as rows of `gates`."""
    found = []
    for row in rows:
        time = {"epoch": row.get("epoch"), "step": row.get("trainer/global_step")}
        for key, value in row.items():
            if match := re.fullmatch(r"gates/(mean|var)/([^/]+)/(.+)", key):
                found.append((match[3], time, match[1], [(match[2], value)]))
            elif key.startswith("gates/rho/"):
                found.append((key.removeprefix("gates/rho/"), time, "rho", enumerate(_middles(value))))
    depths = {layer: depth for depth, layer in enumerate(sorted({layer for layer, *_ in found}, key=_place))}
    for layer, time, statistic, values in found:
        place = {"layer": layer, "depth": depths[layer], "statistic": statistic}
        yield from (time | place | {"label": str(label), "value": value} for label, value in values)


def _place(layer: str) -> tuple:
    """Sorts layers by name from input to output: numbers as numbers, and what decodes after what encodes."""
    words = re.split(r"(\d+)", layer)  # text and numbers in turn
    return "decoder" in layer, [int(word) if i % 2 else word for i, word in enumerate(words)]


def _middles(histogram: dict) -> list[float]:
    """What a histogram counted, each at the middle of its bin, in ascending order."""
    if "packedBins" in histogram:  # bins of one width, as W&B's server shortens them
        packed = histogram["packedBins"]
        edges = [packed["min"] + i * packed["size"] for i in range(packed["count"] + 1)]
    else:
        edges = histogram["bins"]
    counted = zip(histogram["values"], edges, edges[1:], strict=False)
    return [(low + high) / 2 for count, low, high in counted for _ in range(int(count))]


def _judged_last(metrics: DataFrame) -> DataFrame:
    """The last value of each network's measures on each domain, as rows of `results`."""
    judged = metrics[~metrics["metric"].str.match(r"train/|lr-")]
    last = judged.drop_duplicates(["arm", "seed", "metric"], keep="last")
    names = last["metric"].str.extract(r"^(?P<domain>.+?)/(?P<measure>iou/.+|[^/]+)$")
    return last[["arm", "norm", "seed"]].assign(**names, part="clean", value=last["value"]).reset_index(drop=True)
