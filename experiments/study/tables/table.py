"""The closing table of a study: mean and standard deviation over seeds, in rows and columns that the study chooses.

The same table is printed (`experiments.study.tables.printed`), written to `table.md`, and written as numbers to
`table.json`, which the report reads.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lightning_modules.measures import measure_of

if TYPE_CHECKING:
    from pandas import DataFrame

    from lightning_modules.measures import Measure

MISSING = "–"

STATISTICS = ("mean", "sd", "n")
"""Parts of a cell: mean and standard deviation over the seeds, and the number of seeds."""

Row = tuple[str, list[tuple[str, bool]]]
"""A row's name and its cells: each a text, and whether it is the best of its column. The first cell is the number of
seeds."""


@dataclass(frozen=True, eq=False)
class Table:
    """A closing table: its numbers, and how they are shown.

    Raises:
        ValueError: `smaller`, `unranked` or `digits` names something that is not a column.
    """

    cells: DataFrame
    """Index: the rows' names. Columns of two levels: the column's name, and under it "mean", "sd" and "n"."""
    legend: str
    """How to read the table: units, standard deviation, what is missing."""
    corner: str = "norm"
    """Heading of the first column, which holds the rows' names."""
    smaller: frozenset[str] = frozenset()
    """Columns in which the smallest is best."""
    unranked: frozenset[str] = frozenset()
    """Columns without a best value, such as parameters; if their seeds agree, no standard deviation is shown."""
    digits: Mapping[str, int] = field(default_factory=dict)
    """Decimals of a column; 1 where not given."""
    failed: Mapping[str, int] = field(default_factory=dict)
    """How many trainings of a row failed."""
    unlearned: frozenset[str] = frozenset()
    """Rows at chance, which are never the best."""

    def __post_init__(self):
        unknown = {*self.smaller, *self.unranked, *self.digits} - {*self.columns}
        if unknown:
            raise ValueError(f"no column of this table is called {', '.join(sorted(unknown))}: it has {self.columns}.")

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(self.cells.columns.get_level_values(0)))

    def text(self, column: str, value: float) -> str:
        """A number as this column shows it."""
        digits = self.digits.get(column, 1)
        return MISSING if value != value else f"{round(float(value), digits) + 0.0:.{digits}f}"  # never -0.0

    def header(self) -> list[str]:
        """The headings that go with `rows`."""
        return [self.corner, "seeds", *self.columns]

    def rows(self) -> Iterator[Row]:
        """Each row with its cells as text. Cells with the same text are equally good; a single row is never the
        best."""
        best = {column: self._best(column) for column in self.columns}
        for name, row in self.cells.iterrows():
            cells = [(self._seeds(str(name), {int(row[column, "n"]) for column in best} - {0}), False)]
            for column in best:
                mean = self.text(column, row[column, "mean"])
                wins = mean == best[column] and str(name) not in self.unlearned
                cells.append((self._spread_out(column, mean, row[column, "sd"]), wins))
            yield str(name), cells

    def markdown(self) -> str:
        """The table in Markdown, best of a column in bold, with its legend below."""
        header = self.header()
        lines = [header, ["---", *["---:"] * (len(header) - 1)]]
        for name, cells in self.rows():
            lines.append([name, *(f"**{text}**" if best else text for text, best in cells)])
        escaped = [[text.replace("|", r"\|") for text in line] for line in lines]
        return "\n".join("| " + " | ".join(line) + " |" for line in escaped) + f"\n\n{self.legend}\n"

    def to_json(self) -> str:
        """The table as JSON text; what is not measured is null."""
        numbers = {
            column: {part: [None if v != v else v for v in self.cells[column, part].tolist()] for part in STATISTICS}
            for column in self.columns
        }
        settings = {"smaller": sorted(self.smaller), "unranked": sorted(self.unranked), "digits": dict(self.digits)}
        settings |= {"failed": dict(self.failed), "unlearned": sorted(self.unlearned)}
        about = {"corner": self.corner, "legend": self.legend, **settings}
        return json.dumps(about | {"rows": list(map(str, self.cells.index)), "columns": numbers}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Table:
        """The table that `to_json` wrote. Raises ValueError if the text is not such a table."""
        from pandas import DataFrame  # slow to import, and scripts import this module before --help is answered

        try:
            read = json.loads(text)
            numbers = {(column, part): parts[part] for column, parts in read["columns"].items() for part in STATISTICS}
            cells = DataFrame(numbers, index=read["rows"], dtype=float)
            sets = {name: frozenset(read.get(name, ())) for name in ("smaller", "unranked", "unlearned")}
            about = {"digits": read["digits"], "failed": read.get("failed", {})}
            table = cls(cells, str(read["legend"]), str(read["corner"]), **sets, **about)
            table.markdown()  # fails if numbers of seeds, digits and the like are invalid
            if not table.columns and not table.failed:
                raise KeyError("columns")
            return table
        except (KeyError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError) as error:
            raise ValueError(f"this is no closing table: {error!r}.") from error

    def _seeds(self, name: str, counts: set[int]) -> str:
        """The number of seeds of a row's cells, and of failed ones."""
        seeds = f"{min(counts)}–{max(counts)}" if len(counts) > 1 else str(max(counts, default=0))
        return f"{seeds}, {self.failed[name]} failed" if name in self.failed else seeds

    def _best(self, column: str) -> str | None:
        """The text of the column's best mean; None if there is nothing to compare."""
        means = self.cells[column, "mean"].dropna()
        means = means[~means.index.astype(str).isin(self.unlearned)]
        if column in self.unranked or len(means) < 2:
            return None
        return self.text(column, means.min() if column in self.smaller else means.max())

    def _spread_out(self, column: str, mean: str, sd: float) -> str:
        spread = self.text(column, sd)
        certain = column in self.unranked and not float(spread if sd == sd else 0)
        return mean if sd != sd or certain else f"{mean} ± {spread}"


def table_of(scores: DataFrame, legend: str, *, measures: Mapping[str, Measure] | None = None, **settings) -> Table:
    """The table of the scores of all seeds.

    Args:
        scores: index of two levels, the row's name and the seed; a column for each column of the table, in the units
            shown. NaN means not measured.
        legend: how to read the table. "{spread}" in it becomes " ± standard deviation over seeds", or ", one seed"; if
            it is missing, a sentence is added. If a cell is missing, another sentence says so.
        measures: the measure of each column, which says whether smaller is better and how many decimals are shown.
        settings: `corner`, `smaller`, `unranked` and `digits` of `Table`, for columns that are not a measure's.

    Returns:
        The table, with rows in the order of `scores`. The standard deviation is the sample's (n - 1), NaN for one seed.

    Raises:
        ValueError: `scores` has two lines for one row and seed.
    """
    if scores.index.has_duplicates:
        raise ValueError(f"two scores for one row and seed: {scores.index[scores.index.duplicated()][0]}.")
    grouped = scores.rename(columns=str).astype(float).groupby(level=0, sort=False)
    cells = grouped.agg(["mean", "std", "count"]).rename(columns={"std": "sd", "count": "n"}, level=1)
    counts = grouped.count()
    several = counts.max().max() > 1
    if "{spread}" in legend:
        legend = legend.replace("{spread}", " ± standard deviation over seeds" if several else ", one seed")
    else:
        legend += " ±: standard deviation over seeds." if several else " One seed."
    if (counts == 0).any(axis=None):
        legend += f" {MISSING}: not measured."
    shown = {column: measure for column, measure in (measures or {}).items() if column in counts}
    smaller = {column for column, measure in shown.items() if measure.smaller_is_better}
    settings["smaller"] = frozenset(smaller | settings.get("smaller", frozenset()))
    settings["digits"] = {column: measure.digits for column, measure in shown.items()} | settings.get("digits", {})
    return Table(cells, legend, **settings)


def measures_table(results: DataFrame, names: Iterable[str]) -> Table:
    """The table of results in long form that most tasks can end in: a row an arm, a column a measure.

    Args:
        names: measures, in the order of the columns; those that the clean results do not have are left out. Where there
            are several domains, each has columns of its own.
    """
    import pandas as pd

    clean = results[results["part"] == "clean"]
    order = list(dict.fromkeys(zip(results["arm"], results["seed"], strict=True)))
    several = clean["domain"].nunique() > 1
    columns, measures, units = {}, {}, {}
    for domain, rows in clean.groupby("domain", sort=False):
        for name in names:
            found, measure = rows[rows["measure"] == name], measure_of(name)
            if len(found):
                column = f"{domain}: {measure.label}" if several else measure.label
                columns[column] = measure.scale * found.groupby(["arm", "seed"])["value"].mean()
                measures[column] = measure
                units[measure.label] = f"{measure.label} in {measure.unit}" if measure.unit else measure.label
    scores = pd.DataFrame(columns).reindex(pd.MultiIndex.from_tuples(order, names=["arm", "seed"]))
    corner = "norm" if "norm" in results and (results["norm"] == results["arm"]).all() else "arm"
    return table_of(scores, f"{', '.join(units.values())}{{spread}}.", measures=measures, corner=corner)
