"""The figure that compares the robustness of several networks.

The frame is tidy, one row a value: arm, seed, part, condition, severity, measure, value, as `eval_robustness.py` writes
them to results.csv. Plain matplotlib, without pyplot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lightning_modules.gates.figures import quiet
from lightning_modules.measures import measure_of

if TYPE_CHECKING:
    from pandas import DataFrame

    from experiments.reporting.arm_styles import LineStyle

INK = "#3d4650"
WIDTH = 11.0
"""Inches."""
COLUMNS = 4
"""Panels side by side: 15 corruptions and their mean make four rows of them."""


def draw_robustness(results: DataFrame, styles: dict[str, LineStyle]) -> Figure:
    """One figure of what was measured: accuracies and consistency, flips, and error by severity for each corruption.

    A mark is the mean over the seeds; where there are several, thin bars show the standard deviation.

    Args:
        results: tidy, of one network or more.
        styles: colour, dash and marker of each arm.

    Raises:
        ValueError: where there is nothing to draw.
    """
    strips = [strip for strip in (_accuracies, _flips, _errors) if strip(None, results, styles)]
    if not strips:
        raise ValueError("no results to draw: they hold neither accuracies, flips nor errors.")
    heights = [strip(None, results, styles) for strip in strips]
    figure = Figure(figsize=(WIDTH, 0.6 + sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    parts = figure.subfigures(len(strips), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, strip in zip(parts, strips, strict=True):
        strip(part, results, styles)
    known = {ax: ax.get_legend_handles_labels() for ax in figure.axes}
    named = {label: handle for handles, labels in known.values() for handle, label in zip(handles, labels, strict=True)}
    figure.legend(
        [named[arm] for arm in styles if arm in named], [arm for arm in styles if arm in named],
        loc="outside upper left", ncols=6, frameon=False, fontsize=9.5, labelcolor=INK,
    )  # fmt: skip
    return figure


def _accuracies(part, results: DataFrame, styles: dict[str, LineStyle]) -> float:
    """Clean and shifted top-1, consistency, calibration: a strip of panels. Height in inches, 0 for nothing to draw."""
    top1 = results[results["part"].isin(("clean", "shifts")) & (results["measure"] == "top1")]
    found = [top1, *(results[results["measure"] == name] for name in ("consistency", "ece"))]
    panels = [(rows, measure_of(rows["measure"].iloc[0]).axis) for rows in found if len(rows)]
    if part is None or not panels:
        return 2.6 if panels else 0.0
    widths = [max(2.2, rows["condition"].nunique() * 1.1) for rows, _ in panels]
    row = part.subplots(1, len(panels), squeeze=False, width_ratios=widths)[0]
    for ax, (rows, title) in zip(row, panels, strict=True):
        _marks(ax, rows, styles)
        _dress(ax, title)
    return 2.6


def _flips(part, results: DataFrame, styles: dict[str, LineStyle]) -> float:
    rows = results[results["measure"] == "flip"]
    if part is None or rows.empty:
        return 2.6 if len(rows) else 0.0
    ax = part.subplots()
    _marks(ax, rows, styles)
    _dress(ax, "predictions that change from frame to frame, in percent (smaller is better)")
    return 2.6


def _errors(part, results: DataFrame, styles: dict[str, LineStyle]) -> float:
    """Error against severity: a panel for each corruption, and a last one for their mean."""
    rows = results[results["part"] == "corruptions"]
    if rows.empty:
        return 0.0
    names = list(dict.fromkeys(rows["condition"]))
    height = 1.65 * -(-(len(names) + 1) // COLUMNS) + 0.3
    if part is None:
        return height
    part.suptitle("error by severity of the corruption, in percent (smaller is better)", fontsize=10, color=INK)
    axes = part.subplots(-(-(len(names) + 1) // COLUMNS), COLUMNS, sharex=True, sharey=True)
    grid = axes.flat
    for ax, name in zip(grid, [*names, None], strict=False):
        of_it = rows if name is None else rows[rows["condition"] == name]
        _curves(ax, of_it, styles)
        _dress(ax, "mean of all" if name is None else name.replace("_", " "), bold=name is None)
    for ax in list(grid):
        ax.set_visible(False)
    axes.flat[0].set_ylim(bottom=0)  # at last: it ends the fitting of the shared axis to the lines
    axes.flat[0].yaxis.get_major_locator().set_params(nbins=4)
    return height


def _marks(ax: Axes, rows: DataFrame, styles: dict[str, LineStyle]) -> None:
    """A marker for each network in each condition, side by side."""
    conditions, arms = list(dict.fromkeys(rows["condition"])), [arm for arm in styles if arm in set(rows["arm"])]
    measure, step = measure_of(rows["measure"].iloc[0]), 0.7 / max(len(arms), 1)
    for i, arm in enumerate(arms):
        own = rows[rows["arm"] == arm]
        values = measure.scale * own.groupby("condition", sort=False)["value"].agg(["mean", "std"])
        values = values.reindex(conditions)
        at = [place + (i - (len(arms) - 1) / 2) * step for place in range(len(conditions))]
        style = styles[arm]
        ax.errorbar(at, values["mean"], values["std"].fillna(0), fmt="none", ecolor=style.colour, elinewidth=1.4)
        ax.plot(
            at, values["mean"], style.marker, color=style.colour, markersize=7, markeredgecolor="white",
            markeredgewidth=0.8, label=arm,
        )  # fmt: skip
    ax.set_xticks(range(len(conditions)), [name.replace("_", " ") for name in conditions])
    ax.set_xlim(-0.6, len(conditions) - 0.4)
    if len(conditions) == 1:
        ax.set_xticks([])


def _curves(ax: Axes, rows: DataFrame, styles: dict[str, LineStyle]) -> None:
    """Mean over conditions and seeds against severity: a line for each network, with a band of the seeds' standard
    deviation."""
    for arm, style in styles.items():
        of_it = rows[rows["arm"] == arm]
        if of_it.empty:
            continue
        scale = measure_of(of_it["measure"].iloc[0]).scale
        seeds = scale * of_it.groupby(["severity", "seed"])["value"].mean().unstack()
        mean, sd = seeds.mean(axis=1), seeds.std(axis=1).fillna(0)
        ax.fill_between(mean.index, mean - sd, mean + sd, color=style.colour, alpha=0.18, linewidth=0)
        ax.plot(
            mean.index, mean, style.marker, linestyle=style.dash, color=style.colour, markersize=4.5, linewidth=1.5,
            markeredgecolor="white", markeredgewidth=0.5, label=arm,
        )  # fmt: skip
    ax.set_xticks(sorted(rows["severity"].unique()))
    ax.xaxis.set_major_formatter("{x:.0f}")


def _dress(ax: Axes, title: str, bold: bool = False) -> None:
    quiet(ax)
    ax.set_title(title, loc="left", fontsize=9, color=INK, fontweight="bold" if bold else "normal")
