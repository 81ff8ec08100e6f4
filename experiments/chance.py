"""Networks that have learned nothing: what loses nothing because it has nothing must not win.

Chance is what can be had without looking at the images. In top-1 it is 1 / classes; up to a fifth more counts as
chance, since a guesser has luck on a few hundred images. In mIoU it is 1 / classes as well: whoever calls every pixel
the same has one class right and, however frequent it is, an IoU of 1 in it at most and of 0 in the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # pandas loads slowly; a command line that asks for --help need not wait
    from pandas import DataFrame, Series

    from experiments.tables import Table

LUCK = 1.2
"""Times chance that a guesser's top-1 may come to."""


def miou_at_chance(results: DataFrame) -> Series:
    """Whether each row's mIoU is chance's at most; not where fewer than two classes were judged."""
    classes = results[[column for column in results if column.startswith("iou/")]].notna().sum(axis=1)
    return (classes > 1) & (results["miou"] <= 1 / classes.clip(lower=1))


def guessing(results: DataFrame) -> DataFrame:
    """The trainings that learned nothing: a row each, with `arm`, `seed` and `chance` (in [0, 1]).

    Of segmentation those at chance on their source, of classification those at chance on every domain.
    """
    if {"role", "miou"} <= {*results.columns}:
        sources = results[results["role"] == "source"]
        classes = sources[[column for column in sources if column.startswith("iou/")]].notna().sum(axis=1)
        return sources.assign(chance=1 / classes.clip(lower=1))[miou_at_chance(sources)][["arm", "seed", "chance"]]
    if not {"part", "measure", "value", "domain"} <= {*results.columns}:
        return results.iloc[:0].assign(chance=0.0)[["arm", "seed", "chance"]]
    clean = results[(results["part"] == "clean") & results["measure"].isin(["top1", "chance"])]
    wide = clean.pivot_table(index=["arm", "seed", "domain"], columns="measure", values="value", aggfunc="last")
    if not {"top1", "chance"} <= {*wide.columns}:
        return results.iloc[:0].assign(chance=0.0)[["arm", "seed", "chance"]]
    wide = wide.dropna()
    wide["guesses"] = wide["top1"] <= LUCK * wide["chance"]
    by_training = wide.groupby(level=["arm", "seed"]).agg({"guesses": "all", "chance": "max"})
    return by_training[by_training["guesses"]]["chance"].reset_index()


def without_guessers(table: Table, results: DataFrame) -> Table:
    """The table in which rows of which every training learned nothing are compared in nothing."""
    found = guessing(results)
    rows = list(map(str, table.cells.index))
    column = next((c for c in results if set(rows) <= {*results[c].dropna().astype(str)}), None)
    if found.empty or column is None:
        return table
    guesses = {*zip(found["arm"], found["seed"], strict=True)}
    trainings = results.groupby(results[column].astype(str))[["arm", "seed"]]
    of_row = {row: {*zip(part["arm"], part["seed"], strict=True)} for row, part in trainings}
    return compared_in_nothing(table, [row for row in rows if of_row[row] <= guesses], found["chance"].max())


def compared_in_nothing(
    table: Table, unlearned: list[str], chance: float, losses: Iterable[str] | None = None
) -> Table:
    """The table in which some rows are best at nothing, have no losses, and are named below.

    Args:
        unlearned: names of rows. chance: in [0, 1].
        losses: columns in which a network that always says the same is perfect; by default those where less is better.
    """
    if not unlearned:
        return table
    cells = table.cells.copy()
    places = [place for place, row in enumerate(cells.index.astype(str)) if row in unlearned]
    for lost in table.smaller if losses is None else losses:
        for part in ("mean", "sd"):
            cells.iloc[places, cells.columns.get_loc((lost, part))] = float("nan")
    told = f"At chance ({100 * chance:.1f}), so that nothing was learned: {', '.join(unlearned)}; compared in nothing."
    return dataclasses.replace(
        table, cells=cells, unlearned=frozenset(unlearned), legend=f"{table.legend} {told}".strip()
    )
