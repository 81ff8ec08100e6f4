"""Networks at chance, which have no drop because they have learned nothing, and so must not count as the best.

Chance is the score of a constant or random prediction; a task's results give it in rows of the measure `chance`. In
top-1 it is 1 / classes; up to a fifth more counts as chance, since random predictions vary on a few hundred images. In
mIoU it is 1 / classes, too: if all pixels get one class, its IoU is 1 at most, and that of all other classes is 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING

from lightning_modules.measures import CHANCE, headline_of, measure_of

if TYPE_CHECKING:  # imports slowly: --help must not wait for it
    from pandas import DataFrame

    from experiments.study.tables.table import Table
    from lightning_modules.measures import Measure

LUCK = measure_of("top1").luck
"""Factor on chance up to which a top-1 counts as chance."""


def guessing(results: DataFrame, headline: Measure | None = None) -> DataFrame:
    """The trainings that learned nothing: a row each, with `arm`, `seed` and `chance` (in [0, 1]).

    They are those that are at chance on every domain or, where domains have a role, on every source. Results without
    the measure `chance` have none.

    Args:
        headline: the measure that is compared with chance; by default the one that `headline_of` finds.
    """
    nothing = results.iloc[:0].assign(chance=0.0)[["arm", "seed", "chance"]]
    if not {"part", "measure", "value", "domain"} <= {*results.columns}:
        return nothing
    headline = headline or headline_in(results)
    clean = results[results["part"] == "clean"]
    if "role" in clean and (clean["role"] == "source").any():
        clean = clean[clean["role"] == "source"]
    wide = clean.pivot_table(index=["arm", "seed", "domain"], columns="measure", values="value", aggfunc="last")
    if headline is None or not {headline.name, CHANCE} <= {*wide.columns}:
        return nothing
    wide = wide[[headline.name, CHANCE]].dropna()
    value, chance = wide[headline.name], wide[CHANCE]
    less = headline.smaller_is_better
    wide["guesses"] = headline.luck * value >= chance if less else value <= headline.luck * chance
    by_training = wide.groupby(level=["arm", "seed"]).agg({"guesses": "all", CHANCE: "max"})
    return by_training[by_training["guesses"]][CHANCE].reset_index()


def headline_in(results: DataFrame) -> Measure | None:
    """The headline measure of results for which none is given."""
    name = headline_of(results["measure"].unique()) if "measure" in results else None
    return None if name is None else measure_of(name)


def without_guessers(table: Table, results: DataFrame, headline: Measure | None = None) -> Table:
    """The table in which rows whose trainings are all at chance are never the best."""
    found = guessing(results, headline)
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
    """The table in which some rows are never the best, have no losses, and are named in the legend.

    Args:
        unlearned: names of rows. chance: in [0, 1].
        losses: columns in which a network that always predicts the same class is perfect; by default those where
            smaller is better.
    """
    if not unlearned:
        return table
    cells = table.cells.copy()
    places = [place for place, row in enumerate(cells.index.astype(str)) if row in unlearned]
    for lost in table.smaller if losses is None else losses:
        for part in ("mean", "sd"):
            cells.iloc[places, cells.columns.get_loc((lost, part))] = float("nan")
    note = f"At chance ({100 * chance:.1f}) and left out of the comparison: {', '.join(unlearned)}."
    return dataclasses.replace(
        table, cells=cells, unlearned=frozenset(unlearned), legend=f"{table.legend} {note}".strip()
    )
