"""What every norm keeps on the source, on each target, and what it loses between them: segmentation's closing table.

Results are tidy, one row a norm, seed and domain: norm, seed, domain, role ("source" or "target"), miou in 0..1, and
mean_over, the classes that it is the mean of, in words. The table is in percentage points of mIoU.
"""

from __future__ import annotations

from math import hypot
from typing import TYPE_CHECKING

from experiments.tables import Table, table_of

if TYPE_CHECKING:  # pandas loads slowly; a command line that asks for --help need not wait
    from pandas import DataFrame

TARGETS = "mean of targets"
DROP = "drop"
LEGEND = "mIoU in percentage points{spread}; drop: source minus mean of targets, smaller is better."


def drop_table(results: DataFrame) -> Table:
    """The closing table: a row a norm, in the order of the run; each source, each target, `mean of targets`, `drop`."""
    return table_of(seed_scores(results), LEGEND + means_in_words(results), smaller=frozenset({DROP}))


def means_in_words(results: DataFrame) -> str:
    """A sentence on which classes each domain's mean is over; empty where the results do not say."""
    if "mean_over" not in results:
        return ""
    said = results.dropna(subset=["mean_over"]).groupby("mean_over", sort=False)["domain"].unique()
    if said.empty:
        return ""
    alone = len(said) == 1
    each = [f"over {classes}" + ("" if alone else f": {', '.join(found)}") for classes, found in said.items()]
    return f" Means are {'; '.join(each)}."


def has_domains(results: DataFrame | None) -> bool:
    """Whether results are of networks that were judged, in mIoU, on a source and on targets."""
    return results is not None and {"norm", "seed", "domain", "role", "miou"} <= {*results.columns}


def seed_scores(results: DataFrame) -> DataFrame:
    """One row a (norm, seed) and, in points: each source, each target, `mean of targets`, `drop`.

    A seed that lacks one of the targets (its run was cut short) has no mean of targets and no drop: a mean over fewer
    targets would not compare with the others'. Nor has one that learned nothing, whose source is at chance, a drop.
    """
    from experiments.chance import miou_at_chance

    rows = results.dropna(subset=["norm", "seed", "domain", "role"])
    rows = rows.drop_duplicates(["norm", "seed", "domain"], keep="last")  # a resumed run judges again
    sources, targets = (list(rows.loc[rows["role"] == role, "domain"].unique()) for role in ("source", "target"))
    points = rows.assign(points=100 * rows["miou"])
    scores = points.pivot(index=["norm", "seed"], columns="domain", values="points")
    seen = list(dict.fromkeys(zip(rows["norm"], rows["seed"], strict=True)))  # the order of the run, not the alphabet's
    scores = scores.loc[seen, sources + targets].rename_axis(columns=None)
    scores[TARGETS] = scores[targets].mean(axis=1, skipna=False) if targets else float("nan")
    scores[DROP] = scores[sources].mean(axis=1, skipna=False) - scores[TARGETS] if sources else float("nan")
    guessers = rows[(rows["role"] == "source") & miou_at_chance(rows)]
    nothing = scores.index.isin([*zip(guessers["norm"], guessers["seed"], strict=True)])
    scores[DROP] = scores[DROP].mask(nothing)
    return scores


def verdict(table: Table) -> str:
    """One sentence on who loses least from source to targets, and on whether the seeds allow to say so."""
    drops = table.cells[DROP].dropna(subset=["mean"]).sort_values("mean")
    if drops.empty and table.unlearned:
        return "Nothing was learned: on the source all are at chance, so there is no drop to compare."
    if drops.empty:
        return "No norm has been judged on a source and on every target yet, so there is no drop to compare."
    first, name = drops.iloc[0], _called(drops.index[0])
    if len(drops) == 1:
        return f"{name} loses {first['mean']:.1f} points from source to targets; there is no other norm to compare."
    second = drops.iloc[1]
    gap = f"{round(second['mean'], 1) - round(first['mean'], 1):.1f} fewer than {_called(drops.index[1])}"  # as printed
    loses = f"{name} loses least, {first['mean']:.1f} points from source to targets"
    rest = drops.iloc[1:].iterrows()
    tied = [_called(norm) for norm, row in rest if row["mean"] - first["mean"] <= _spread(first, row)]
    if min(first["n"], second["n"]) < 2:
        loses += f", {gap}, but with one seed a difference of chance cannot be told from a real one"
    elif tied:
        loses += f", but the seeds' spread is too wide to tell it from {_listed(tied)}"
    else:
        loses += f", {gap} and more than the seeds' spread (± {_spread(first, second):.1f})"
    return f"{loses}; {_highest(table, drops.index[0])}."


def _called(row: str) -> str:
    """A norm in capitals: "in loses least" would not read. What else a row may be called stays as it is."""
    from normshift.registry import NORMS

    return row.upper() if row in NORMS else str(row)


def _highest(table: Table, favourite: str) -> str:
    """Who is best on the targets: losing little from a poor source is no victory."""
    means = table.cells[TARGETS, "mean"].dropna()
    best = means.idxmax()
    if best == favourite:
        return f"it is also the highest on the targets, {means[best]:.1f}"
    return f"the highest on the targets is {_called(best)}, {means[best]:.1f} against its {means[favourite]:.1f}"


def _spread(a, b) -> float:
    """Standard deviation of the difference of two independent runs; 0 where unknown."""
    return hypot(*(row["sd"] if row["n"] > 1 else 0.0 for row in (a, b)))


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " or " + names[-1]
