"""The table a study ends with: what every norm keeps on the source, on each target, and what it loses between them.

Results are tidy, one row a norm, seed and domain: norm, seed, domain, role ("source" or "target"), miou in 0..1. Tables
are in percentage points of mIoU. The same table is printed, written to `table.md` and shown in the report.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import hypot
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # pandas and rich load slowly; a command line that asks for --help need not wait
    from pandas import DataFrame
    from rich.console import Console

TARGETS = "mean of targets"
DROP = "drop"
MISSING = "–"


def seed_scores(results: DataFrame) -> DataFrame:
    """One row a (norm, seed) and, in points: each source, each target, `mean of targets`, `drop`.

    A seed that lacks one of the targets (its run was cut short) has no mean of targets and no drop: a mean over fewer
    targets would not compare with the others'.
    """
    rows = results.dropna(subset=["norm", "seed", "domain", "role"])
    rows = rows.drop_duplicates(["norm", "seed", "domain"], keep="last")  # a resumed run judges again
    sources, targets = (list(rows.loc[rows["role"] == role, "domain"].unique()) for role in ("source", "target"))
    points = rows.assign(points=100 * rows["miou"])
    scores = points.pivot(index=["norm", "seed"], columns="domain", values="points")
    seen = list(dict.fromkeys(zip(rows["norm"], rows["seed"], strict=True)))  # the order of the run, not the alphabet's
    scores = scores.loc[seen, sources + targets].rename_axis(columns=None)
    scores[TARGETS] = scores[targets].mean(axis=1, skipna=False) if targets else float("nan")
    scores[DROP] = scores[sources].mean(axis=1, skipna=False) - scores[TARGETS] if sources else float("nan")
    return scores


def closing_table(results: DataFrame) -> DataFrame:
    """The closing table as numbers.

    Returns:
        One row a norm, in the order of the run. Columns have two levels: first each source, each target,
        `mean of targets` and `drop` (source minus mean of targets); under each, "mean" and "sd" over the seeds, in
        points, and "n", how many seeds that cell has. The standard deviation is the sample's (n - 1), NaN for one seed.
    """
    import pandas as pd

    grouped = seed_scores(results).groupby(level="norm", sort=False)
    cells = {"mean": grouped.mean(), "sd": grouped.std(), "n": grouped.count()}
    table = pd.concat(cells, axis=1).swaplevel(axis=1)
    columns = cells["mean"].columns
    return table[[(column, part) for column in columns for part in cells]]


def table_rows(table: DataFrame) -> Iterator[tuple[str, list[tuple[str, bool]]]]:
    """Each norm of a closing table with its cells as text, and whether a cell is the best of its column.

    The first cell is the number of seeds. Cells that print alike are best together; a lone norm is best at nothing.
    """
    columns = list(dict.fromkeys(table.columns.get_level_values(0)))
    means = table.xs("mean", axis=1, level=1).round(1)
    for norm, row in table.iterrows():
        counts = {int(row[column, "n"]) for column in columns} - {0}
        cells = [(f"{min(counts)}–{max(counts)}" if len(counts) > 1 else str(max(counts, default=0)), False)]
        for column in columns:
            best = means[column].min() if column == DROP else means[column].max()
            marked = means[column].count() > 1 and means.loc[norm, column] == best
            cells.append((_cell(row[column, "mean"], row[column, "sd"]), bool(marked)))
        yield str(norm), cells


def table_header(table: DataFrame) -> list[str]:
    """The headings that go with `table_rows`."""
    return ["norm", "seeds", *dict.fromkeys(table.columns.get_level_values(0))]


def markdown_table(table: DataFrame) -> str:
    """A closing table in Markdown, best of a column in bold, with a line on how to read it."""
    header = table_header(table)
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    for norm, cells in table_rows(table):
        lines.append([norm, *(f"**{text}**" if best else text for text, best in cells)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + f"\n\n{legend(table)}\n"


def print_table(table: DataFrame, console: Console | None = None) -> None:
    """Print a closing table to the terminal, best of a column in bold green; set close, to fit 80 columns."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    printed = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), caption=legend(table), caption_justify="left")
    for i, heading in enumerate(table_header(table)):
        printed.add_column(re.sub(r"([-:])| ", r"\1\n", heading), justify="right" if i else "left", no_wrap=True)
    for norm, cells in table_rows(table):
        close = [(text.replace(" ± ", "±"), best) for text, best in cells]
        printed.add_row(norm, *(f"[bold green]{text}[/]" if best else text for text, best in close))
    console = console or Console()
    printed.width = console.measure(printed, options=console.options.update(width=1000)).maximum
    console.print(printed, crop=False)  # whatever the terminal's width: a number cut short would be a wrong number


def legend(table: DataFrame) -> str:
    """How to read a closing table: units, spread, and what is missing."""
    counts = table.xs("n", axis=1, level=1)
    spread = " ± standard deviation over seeds" if counts.max().max() > 1 else ", one seed"
    missing = f" {MISSING}: not measured." if (counts == 0).any(axis=None) else ""
    return f"mIoU in percentage points{spread}; drop: source minus mean of targets, smaller is better.{missing}"


def verdict(table: DataFrame) -> str:
    """One sentence on who loses least from source to targets, and on whether the seeds allow to say so."""
    drops = table[DROP].dropna(subset=["mean"]).sort_values("mean")
    if drops.empty:
        return "No norm has been judged on a source and on every target yet, so there is no drop to compare."
    first, name = drops.iloc[0], str(drops.index[0]).upper()  # in capitals: "in loses least" would not read
    if len(drops) == 1:
        return f"{name} loses {first['mean']:.1f} points from source to targets; there is no other norm to compare."
    second = drops.iloc[1]
    gap = f"{second['mean'] - first['mean']:.1f} fewer than {str(drops.index[1]).upper()}"
    loses = f"{name} loses least, {first['mean']:.1f} points from source to targets"
    rest = drops.iloc[1:].iterrows()
    tied = [str(norm).upper() for norm, row in rest if row["mean"] - first["mean"] <= _spread(first, row)]
    if min(first["n"], second["n"]) < 2:
        loses += f", {gap}, but with one seed a difference of chance cannot be told from a real one"
    elif tied:
        loses += f", but the seeds' spread is too wide to tell it from {_listed(tied)}"
    else:
        loses += f", {gap} and more than the seeds' spread (± {_spread(first, second):.1f})"
    return f"{loses}; {_highest(table, drops.index[0])}."


def _highest(table: DataFrame, favourite: str) -> str:
    """Who is best on the targets: losing little from a poor source is no victory."""
    means = table[TARGETS, "mean"].dropna()
    best = means.idxmax()
    if best == favourite:
        return f"it is also the highest on the targets, {means[best]:.1f}"
    return f"the highest on the targets is {str(best).upper()}, {means[best]:.1f} against its {means[favourite]:.1f}"


def _spread(a, b) -> float:
    """Standard deviation of the difference of two independent runs; 0 where unknown."""
    return hypot(*(row["sd"] if row["n"] > 1 else 0.0 for row in (a, b)))


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " or " + names[-1]


def _cell(mean: float, sd: float) -> str:
    if mean != mean:
        return MISSING
    return f"{mean:.1f} ± {sd:.1f}" if sd == sd else f"{mean:.1f}"
