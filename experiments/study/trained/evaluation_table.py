"""The closing table of trained networks that were evaluated on sets by name."""

from __future__ import annotations

import pandas as pd
from pandas import DataFrame

from experiments.study.tables.chance import without_guessers
from experiments.study.tables.domain_drop import drop_table, means_in_words
from experiments.study.tables.table import Table, table_of
from lightning_modules.measures import Measure, measure_of

MEAN = "mean"


def evaluation_table(results: DataFrame, headline: Measure) -> Table:
    """A row for each arm, with mean and standard deviation over its seeds.

    If sets have a role, the columns are the headline on sources and targets, and the drop, as in the studies. Otherwise
    there is a column for each set, with the headline on clean images, and one for each measure of each further part,
    with its mean over conditions and severities.
    """
    roles = {*results["role"].dropna()} if "role" in results else set()
    table = drop_table(results, headline) if roles == {"source", "target"} else _columns_table(results, headline)
    return without_guessers(table, results, headline)


def _columns_table(results: DataFrame, headline: Measure) -> Table:
    keys = [(results["part"] == "clean") & (results["measure"] == headline.name), results["part"] != "clean"]
    measures: dict[str, Measure] = {}
    columns = {}
    alone = results["domain"].nunique() == 1
    clean = results[keys[0]]
    for domain, rows in clean.groupby("domain", sort=False):
        columns[domain] = headline.scale * rows.groupby(["arm", "seed"], sort=False)["value"].mean()
        measures[domain] = headline
    if len(columns) > 1:
        columns[MEAN] = pd.DataFrame(columns).mean(axis=1, skipna=False)
        measures[MEAN] = headline
    for (domain, part, name), rows in results[keys[1]].groupby(["domain", "part", "measure"], sort=False):
        column = _heading("" if alone else domain, part, name)
        measures[column] = measure = _measure(name)
        columns[column] = measure.scale * rows.groupby(["arm", "seed"], sort=False)["value"].mean()
    order = list(dict.fromkeys(zip(results["arm"], results["seed"], strict=True)))
    scores = pd.DataFrame(columns).reindex(pd.MultiIndex.from_tuples(order, names=["arm", "seed"]))
    unit = f" in {headline.unit}" if headline.unit else ""
    said = f"{headline.label}{unit}{{spread}}" if len(clean) else "Means{spread}"
    more = "; further measures are means over conditions and severities" if keys[1].any() else ""
    return table_of(scores, f"{said}{more}.{means_in_words(results)}", measures=measures, corner="arm")


def _heading(domain: str, part: str, measure: str) -> str:
    label = _measure(measure).label
    told = label if part in label or measure == part else f"{label}, {part}"
    return f"{domain}: {told}" if domain else told


def _measure(name: str) -> Measure:
    return measure_of(name)
