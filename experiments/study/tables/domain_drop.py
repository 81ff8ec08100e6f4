"""The closing table of every arm's score on the source and on each target, and of the drop between them.

Results are in long form, with the role of each domain, "source" or "target". The table gives their headline measure, in
the unit in which it is shown.
"""

from __future__ import annotations

from collections.abc import Callable
from math import hypot
from typing import TYPE_CHECKING

from experiments.study.tables.chance import guessing, headline_in
from experiments.study.tables.table import Table, table_of
from lightning_modules.measures import Measure
from normshift.registry import NORMS

if TYPE_CHECKING:
    from pandas import DataFrame

TARGETS = "mean of targets"
DROP = "drop"
KEPT = "kept"
"""The mean of targets in percent of the source: drops alone grow with what there is to lose."""
POINTS = Measure("", "")
"""The measure of tables that name none: a share."""


def drop_table(results: DataFrame, headline: Measure | None = None) -> Table:
    """The closing table: a row for each arm; columns are each source and target, `mean of targets`, `drop`, `kept`.

    Args:
        headline: the measure; by default the one that `headline_of` finds in the results.
    """
    headline = headline or _headline(results)
    scores = seed_scores(results, headline)
    order = f"{TARGETS} minus source" if headline.smaller_is_better else f"source minus {TARGETS}"
    unit = f" in {headline.unit}" if headline.unit else ""
    drop = f"drop: {order}, smaller is better"
    kept = f"; {KEPT}: {TARGETS} in percent of the source" if KEPT in scores else ""
    legend = f"{headline.label}{unit}{{spread}}; {drop}{kept}.{means_in_words(results)}"
    measures = dict.fromkeys(scores, headline) | {DROP: drop_measure(headline)}
    measures |= {KEPT: KEPT_MEASURE} if KEPT in scores else {}
    corner = "norm" if "norm" in results and (results["norm"] == results["arm"]).all() else "arm"
    return table_of(scores, legend, measures=measures, corner=corner)


def drop_measure(headline: Measure) -> Measure:
    """The drop of a measure, in its unit."""
    return Measure(DROP, f"{headline.label} lost", headline.unit, "lower", headline.scale, headline.digits)


KEPT_MEASURE = Measure(KEPT, "share of the source kept", "%", scale=1, digits=0)


def means_in_words(results: DataFrame) -> str:
    """A sentence on the classes over which each domain's mean is taken; empty if the results do not name them."""
    if "mean_over" not in results:
        return ""
    said = results.dropna(subset=["mean_over"]).groupby("mean_over", sort=False)["domain"].unique()
    if said.empty:
        return ""
    alone = len(said) == 1
    each = [f"over {classes}" + ("" if alone else f": {', '.join(found)}") for classes, found in said.items()]
    return f" Means are {'; '.join(each)}."


def has_domains(results: DataFrame | None) -> bool:
    """Whether the networks of the results were evaluated on a source and on targets."""
    if results is None or not {"arm", "seed", "domain", "role", "measure", "value"} <= {*results.columns}:
        return False
    return {"source", "target"} & {*results["role"].dropna()} != set()


def seed_scores(results: DataFrame, headline: Measure | None = None) -> DataFrame:
    """One row for each (arm, seed), in the unit shown: each source, each target, `mean of targets`, `drop`, and of
    shares `kept`.

    If a seed lacks one of the targets (its run was stopped), it has no mean of targets and no drop, since a mean over
    fewer targets cannot be compared with the others. If its source is at chance, it has no drop either.
    """
    headline = headline or _headline(results)
    rows = results[results["measure"] == headline.name].dropna(subset=["arm", "seed", "domain", "role"])
    if "part" in rows:
        rows = rows[rows["part"] == "clean"]
    rows = rows.drop_duplicates(["arm", "seed", "domain"], keep="last")  # a resumed run evaluates again
    sources, targets = (list(rows.loc[rows["role"] == role, "domain"].unique()) for role in ("source", "target"))
    shown = rows.assign(shown=headline.scale * rows["value"])
    scores = shown.pivot(index=["arm", "seed"], columns="domain", values="shown")
    seen = list(dict.fromkeys(zip(rows["arm"], rows["seed"], strict=True)))  # the run's order, not the alphabet's
    scores = scores.loc[seen, sources + targets].rename_axis(columns=None)
    scores[TARGETS] = scores[targets].mean(axis=1, skipna=False) if targets else float("nan")
    source = scores[sources].mean(axis=1, skipna=False) if sources else float("nan")
    lost = source - scores[TARGETS]
    scores[DROP] = -lost if headline.smaller_is_better else lost
    if headline.is_share and not headline.smaller_is_better:
        scores[KEPT] = 100 * scores[TARGETS] / source
    guessers = guessing(results, headline)
    nothing = scores.index.isin([*zip(guessers["arm"], guessers["seed"], strict=True)])
    for column in {DROP, KEPT} & {*scores}:
        scores[column] = scores[column].mask(nothing)
    return scores


def _headline(results: DataFrame) -> Measure:
    found = headline_in(results)
    if found is None:
        raise ValueError("these results hold no registered measure: name the headline that the table is of.")
    return found


def verdict(table: Table, headline: Measure = POINTS) -> str:
    """One sentence on the arm with the smallest drop, and on the seeds' spread beside its lead."""
    unit = " points" if headline.is_share else f" {headline.unit}".rstrip()
    drops = table.cells[DROP].dropna(subset=["mean"]).sort_values("mean")
    if drops.empty and table.unlearned:
        return "Nothing was learned: on the source all are at chance, so there is no drop to compare."
    if drops.empty:
        return "No network has been evaluated on a source and on every target yet, so there is no drop to compare."
    first, name, shown = drops.iloc[0], _called(drops.index[0]), _decimals(headline)
    if len(drops) == 1:
        return f"{name} loses {shown(first['mean'])}{unit} from source to targets; there is no other norm to compare."
    second = drops.iloc[1]
    gap = shown(round(second["mean"], headline.digits) - round(first["mean"], headline.digits))  # as printed
    gap = f"{gap} fewer than {_called(drops.index[1])}"
    loses = f"{name} loses least, {shown(first['mean'])}{unit} from source to targets"
    rest = drops.iloc[1:].iterrows()
    tied = [_called(norm) for norm, row in rest if row["mean"] - first["mean"] <= _pooled_sd(first, row)]
    if min(first["n"], second["n"]) < 2:
        loses += f", {gap}, but with one seed a difference of chance cannot be told from a real one"
    elif tied:
        loses += f", but the seeds' spread is too wide to tell it from {_listed(tied)}"
    else:
        loses += f", {gap} (the seeds' spread: ± {shown(_pooled_sd(first, second))})"
    return f"{loses}; {_best(table, drops.index[0], headline)}."


def _called(row: str) -> str:
    """A norm's name in capitals, since "in loses least" would be unreadable; other names are unchanged."""
    return row.upper() if row in NORMS else str(row)


def _best(table: Table, favourite: str, headline: Measure) -> str:
    """Half a sentence on the arm that is best on the targets: a small drop from a low score is no success."""
    means, shown = table.cells[TARGETS, "mean"].dropna(), _decimals(headline)
    best, word = (means.idxmin(), "lowest") if headline.smaller_is_better else (means.idxmax(), "highest")
    if best == favourite:
        return f"it is also the {word} on the targets, {shown(means[best])}"
    return f"the {word} on the targets is {_called(best)}, {shown(means[best])} against its {shown(means[favourite])}"


def _decimals(measure: Measure) -> Callable[[float], str]:
    """A number in a measure's unit, with its decimals."""
    return f"{{:.{measure.digits}f}}".format


def _pooled_sd(a, b) -> float:
    """Standard deviation of the difference of two independent runs; 0 where unknown."""
    return hypot(*(row["sd"] if row["n"] > 1 else 0.0 for row in (a, b)))


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " or " + names[-1]
