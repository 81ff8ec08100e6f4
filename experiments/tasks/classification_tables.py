"""The closing tables of classification studies: clean accuracies, and what else networks were evaluated on.

Loads no pandas: scripts import it before they parse their flags.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from experiments.study.tables.table import Table, table_of
from lightning_modules.measures import Measure, measure_of

if TYPE_CHECKING:
    from pandas import DataFrame

COLUMNS = {
    # (part, measure): heading, with the condition's name where a part has several
    ("clean", "top1"): "top-1",
    ("clean", "top5"): "top-5",
    ("shifts", "top1"): "{condition}",
    ("consistency", "consistency"): "shift consistency",
    ("corruptions", "error"): "mean error, corrupted",  # never "corruption error", which is relative to AlexNet's
    ("perturbations", "flip"): "flip probability",
}
LOSS = Measure("loss to shifts", "loss to shifts", better="lower")


def evaluated_table(results: DataFrame, rows: str = "network") -> Table:
    """A row for each network: accuracy on clean and shifted images, shift consistency, mean errors.

    "loss to shifts" is the accuracy on clean images minus the mean over IBN-Net's three shifts (section 4.1).
    """
    scores = results[[rows, "seed"]].drop_duplicates().set_index([rows, "seed"])
    measures = {LOSS.name: LOSS}
    for (part, name), heading in COLUMNS.items():
        chosen, measure = results[(results["part"] == part) & (results["measure"] == name)], measure_of(name)
        conditions = list(dict.fromkeys(chosen["condition"])) if "{" in heading else [None]
        for condition in conditions if len(chosen) else []:
            of_it = chosen if condition is None else chosen[chosen["condition"] == condition]
            column = heading.format(condition=condition)
            scores[column] = measure.scale * of_it.groupby([rows, "seed"])["value"].mean()
            measures[column] = measure
    shifted = [name for name in ("rgb+50", "r+50", "std/1.5") if name in scores]
    if shifted:
        scores[LOSS.name] = scores["top-1"] - scores[shifted].mean(axis=1)
    legend = "accuracies, errors and shares in percent, means over images and conditions."
    return table_of(scores, legend, corner=rows, measures=measures)


def accuracies(results: DataFrame, rows: str, columns: str, measure: str = "top1") -> DataFrame:
    """One measure on clean images, in points, as `table_of` takes it; rows and columns are columns of the results."""
    chosen = results[(results["measure"] == measure) & (results["part"] == "clean")]
    points = chosen.assign(points=100 * chosen["value"])
    order = list(dict.fromkeys(zip(points[rows], points["seed"], strict=True)))  # in the order of the run
    wide = points.pivot_table(
        index=[rows, "seed"], columns=columns, values="points", aggfunc="last", sort=False, dropna=False
    )
    return wide.loc[order, list(dict.fromkeys(points[columns]))].rename_axis(columns=None)
