"""The tables of trainings from what they have logged to W&B."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from tempfile import TemporaryDirectory

import pandas as pd
from pandas import DataFrame

from experiments.study.endings import UsageError
from experiments.study.run_parts import in_long_form
from experiments.study.tables_on_disk import plain_settings


def read_wandb_tables(
    paths: Sequence[str], api, columns: Mapping[str, Sequence[str]]
) -> tuple[dict[str, dict], dict[str, DataFrame]]:
    """The arms, and the tables by name, with the columns that each has at least; see `reader.read_wandb`."""
    import wandb  # slow to import, and folders of runs are read without it

    labels, found = ["arm", "norm", "seed"], {"results": [], "metrics": [], "gates": [], "configs": []}
    for path in paths:
        try:
            api = api or wandb.Api()
            run = api.run(path)
            state, config, rows = run.state, dict(run.config), list(run.scan_history())
            evaluated = _logged_table(run, rows, "results")
        except (wandb.errors.Error, ValueError) as error:
            raise UsageError(f"{path} cannot be read from W&B: {' '.join(str(error).split())}") from error
        if state != "finished":
            raise UsageError(f"{path} is not finished: W&B says that it is {state}.")
        whose = {"arm": str(config.get("arm", config["norm"])), "norm": config["norm"], "seed": config["seed"]}
        found["results"] += [whose | row for row in evaluated]
        found["metrics"] += [whose | row for row in _logged(rows)]
        found["gates"] += [whose | row for row in _gates(rows)]
        found["configs"].append(whose | plain_settings(config, whose))
    if not paths:
        raise UsageError("name the W&B runs to read, each as ENTITY/PROJECT/RUN.")
    results = found["results"]
    tables = {name: pd.DataFrame(found[name], columns=[*labels, *columns[name]]) for name in ("metrics", "gates")}
    tables["results"] = in_long_form(
        pd.DataFrame(results or None, columns=None if results else [*labels, *columns["results"]])
    )
    tables["divergence"] = pd.DataFrame(columns=[*labels, *columns["divergence"]])
    tables["configs"] = pd.DataFrame(found["configs"])
    return {row["arm"]: {"norm": row["norm"]} for row in found["configs"]}, tables


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


GATE_KEY = re.compile(r"layers/gates/([^/]+)/([^/]+)/(\d+)_(.+)")
"""Statistic, label, depth and layer; of gates that are the channels' own, "histogram" stands for the labels."""


def _gates(rows: list[dict]) -> Iterator[dict]:
    """W&B's history as rows of `gates`, those of the steps that ended an epoch."""
    only_gates = ("_", "gates/", "layers/", "epoch", STEP)
    epochs = {row[STEP]: row["epoch"] for row in rows if "epoch" in row and all(k.startswith(only_gates) for k in row)}
    keys = {key: match.groups() for row in rows for key in row if (match := GATE_KEY.fullmatch(key))}
    own = {statistic for statistic, label, _, _ in keys.values() if label == "histogram"}
    for row in rows:
        for key, value in row.items():
            statistic, label, depth, layer = keys.get(key, (None, None, None, None))
            if statistic is None or row[STEP] not in epochs or (statistic in own and label != "histogram"):
                continue
            place = {"epoch": epochs[row[STEP]], "step": row[STEP], "layer": layer, "depth": int(depth)}
            for name, each in enumerate(_middles(value)) if statistic in own else [(label, value)]:
                yield place | {"statistic": statistic, "label": str(name), "value": each}


def _middles(histogram: dict) -> list[float]:
    """What a histogram counted, each at the middle of its bin, in ascending order."""
    if "packedBins" in histogram:  # bins of one width, as W&B's server shortens them
        packed = histogram["packedBins"]
        edges = [packed["min"] + i * packed["size"] for i in range(packed["count"] + 1)]
    else:
        edges = histogram["bins"]
    counted = zip(histogram["values"], edges, edges[1:], strict=False)
    return [(low + high) / 2 for count, low, high in counted for _ in range(int(count))]
