"""The figures that a report adds to those of the gates; and figures and pictures as data URIs, for a page to carry.

Figures are plain matplotlib without pyplot.
"""

from __future__ import annotations

import re
from base64 import b64encode
from io import BytesIO
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from PIL import Image

from experiments.reporting.arm_styles import LineStyle
from experiments.study.tables.domain_drop import DROP, TARGETS
from lightning_modules.gates.figures import quiet

if TYPE_CHECKING:
    from pandas import DataFrame

    from experiments.study.tables.table import Table
    from lightning_modules.measures import Measure

PICTURE_WIDTH = 320
"""Pixels to which wider predictions are reduced."""

NARROW = 4.3
"""Width in inches of wide figures for phones: the smallest at which titles and legends fit."""

INK = "#3d4650"
"""Colour of the text in figures."""

SINGLE_SEEDS = 24
"""Most thin lines of single seeds in a panel; more would hide the arms' own lines."""

MARKERS = 7
"""Markers along a line: enough to follow it, too few to hide it."""


def draw_drops(
    scores: DataFrame, ranked: list[str], styles: dict[str, LineStyle], title: str, headline: Measure
) -> Figure:
    """A bar for each arm's mean drop and a dot for each seed's; the first of `ranked` is at the bottom."""
    figure, ax = figure_of(4.5, 1.0 + 0.34 * len(ranked), title)
    least, reach = min([0, *scores[DROP].dropna()]), max([0.1, *scores[DROP].dropna()])
    for y, arm in enumerate(ranked):
        seeds, colour = scores.loc[[arm], DROP], styles[arm].colour
        mean = f"{seeds.mean():.{headline.digits}f}"
        ax.barh(y, seeds.mean(), 0.56, color=_pale(colour), linewidth=0)
        ax.plot(seeds, [y] * len(seeds), "o", color=colour, markersize=5, markeredgecolor="white", markeredgewidth=0.8)
        ax.text(max(seeds.max(), 0) + 0.03 * reach, y, mean, va="center", fontsize=8.5, color=INK)
    ax.set_xlim(least, 1.14 * reach)
    row_axis(ax, ranked, f"points of {headline.label} lost" if headline.is_share else f"{headline.label} lost")
    return figure


def draw_heights(
    scores: DataFrame,
    ranked: list[str],
    styles: dict[str, LineStyle],
    targets: list[str],
    title: str,
    headline: Measure,
) -> Figure:
    """A line for each arm, from its score on the source (dot) to the mean of its targets (ring); a tick is a target."""
    figure, ax = figure_of(4.5, 1.0 + 0.34 * len(ranked), title)
    means, lost = scores.groupby("arm").mean(), -1 if headline.smaller_is_better else 1
    for y, arm in enumerate(ranked):
        row, colour = means.loc[arm], styles[arm].colour
        source = row[TARGETS] + lost * row[DROP]
        ax.plot([row[TARGETS], source], [y, y], color=colour, linewidth=2, alpha=0.6)
        ax.plot([row[target] for target in targets], [y] * len(targets), "|", color=colour, markersize=9)
        ax.plot(row[TARGETS], y, "o", color="white", markeredgecolor=colour, markeredgewidth=2, markersize=6.5)
        ax.plot(source, y, "o", color=colour, markersize=7.5)
    ax.set_xlim(left=0)
    row_axis(ax, ranked, headline.axis)
    return figure


def draw_column(table: Table, column: str, styles: dict[str, LineStyle], reach: tuple[float, float]) -> Figure:
    """One column of a closing table: a dot for each row, its standard deviation as a line; the first row is on top.

    `reach` is what the axis has to hold.
    """
    cells = table.cells[column][::-1]
    names = [fill(str(name), 30) for name in cells.index]
    title = fill(f"{column} (smaller is better)" if column in table.smaller else column, 60)
    figure, ax = figure_of(4.5, 0.75 + 0.27 * len(names), title)
    for y, (name, row) in enumerate(cells.iterrows()):
        style, mean, sd = styles[str(name)], row["mean"], row["sd"]
        ax.plot([mean - sd, mean + sd], [y, y], color=style.colour, linewidth=2.2, alpha=0.45)
        ax.plot(mean, y, style.marker, color=style.colour, markersize=7, markeredgecolor="white", markeredgewidth=0.8)
        beside = ax.get_yaxis_transform()
        ax.text(1.02, y, table.text(column, mean), va="center", fontsize=8.5, color=INK, transform=beside)
    edge = 0.08 * (reach[1] - reach[0])
    ax.set_xlim(reach[0] - edge, reach[1] + edge)
    ax.xaxis.get_major_locator().set_params(nbins=5)
    row_axis(ax, names, "")
    return figure


def draw_curves(
    metrics: DataFrame,
    column: str,
    title: str,
    styles: dict[str, LineStyle],
    measure: Measure | None = None,
    top: float | None = None,
) -> Figure:
    """A column of the metrics against the step: a bold line for each arm, and its seeds (`SINGLE_SEEDS`).

    Args:
        measure: of which the column is; says how values are shown.
        top: upper end of the axis, whose lower end then is 0; without it the axis fits the curves.
    """
    figure, ax = figure_of(4.5, 2.6, title)
    rows = metrics.dropna(subset=[column])
    single = shows_single_seeds(rows)
    scale = 1 if measure is None else measure.scale
    width = max(1, (rows["step"].max() + 1) / 100)  # average over a hundredth of the run: losses of steps are noisy
    binned = rows["step"].floordiv(width) if rows.groupby(["arm", "seed"]).size().max() > 120 else rows["step"]
    rows = rows.assign(bin=binned)
    for i, (arm, part) in enumerate(rows.groupby("arm", sort=False)):
        seeds = part.groupby(["bin", "seed"])[column].mean().unstack() * scale
        steps = part.groupby("bin")["step"].mean()
        ends = seeds.apply(lambda seed: seed.last_valid_index())
        common = seeds.loc[:, ends >= 0.9 * ends.max()].dropna()  # a seed just begun must not cut the mean short
        if seeds.shape[1] > 1 and single:
            ax.plot(steps, seeds, color=styles[arm].colour, linewidth=0.6, alpha=0.35)
        elif seeds.shape[1] > 1:
            mean, sd = common.mean(axis=1), common.std(axis=1)
            band = {"color": styles[arm].colour, "alpha": 0.13, "linewidth": 0}
            ax.fill_between(steps[common.index], mean - sd, mean + sd, **band)
        _line(ax, styles[arm], i, steps[common.index], common.mean(axis=1))
    if top is not None:
        ax.set_ylim(0, top)
    ax.set_xlim(0, 1.03 * max(1, metrics["step"].max()))  # the whole run's, so that all panels have one axis
    ax.set_xlabel("step")
    ax.set_ylabel(measure.axis if measure is not None else column.partition("/")[2].replace("_", " "))
    return figure


def shows_single_seeds(metrics: DataFrame) -> bool:
    """Whether curves of these metrics have a line for each seed; else a band is one standard deviation wide."""
    return metrics.groupby(["arm", "seed"]).ngroups <= SINGLE_SEEDS


def draw_divergence(rows: DataFrame, title: str, styles: dict[str, LineStyle], limits: tuple[float, float]) -> Figure:
    """Feature divergence between the source and one target against depth on a logarithmic axis, a line for each arm."""
    figure, ax = figure_of(4.5, 2.7, title)
    for i, (arm, part) in enumerate(rows.groupby("arm", sort=False)):
        line = np.exp(np.log(part["mean"]).groupby(part["depth"]).mean())
        _line(ax, styles[arm], i, line.index, line)
    ax.set_yscale("log")
    ax.minorticks_off()
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.set_xlabel("depth of the layer")
    ax.set_ylabel("divergence, nats a channel")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_ylim(limits)
    return figure


def draw_key(style: LineStyle) -> Figure:
    """An arm's line alone, 38 by 13 pixels, for the page's legend."""
    figure = Figure(figsize=(38 / 96, 13 / 96))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.axis("off")
    _line(ax, style, 0, [0, 1, 2], [0, 0, 0], markevery=[1])
    ax.set_xlim(0.05, 1.95)
    return figure


def narrowed(figure: Figure) -> Figure:
    """The same figure laid out anew at NARROW inches: a wide one reduced to a phone's width could not be read."""
    figure.set_size_inches(NARROW, figure.get_size_inches()[1])
    return figure


def svg_uri(figure: Figure) -> str:
    """A figure as a data URI, its text in the reader's own font."""
    buffer = BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "normshift"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, 'Segoe UI', Roboto, sans-serif", buffer.getvalue().decode())
    svg = re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", svg)  # a hundredth of a point is plenty
    return "data:image/svg+xml;base64," + b64encode(svg.encode()).decode()


def picture_uri(file: Path, photograph: bool) -> str | None:
    """A prediction as a data URI, reduced to PICTURE_WIDTH; None where it is missing or cut off."""
    try:
        with Image.open(file) as opened:
            image = opened.convert("RGB")
    except (
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
    ):  # from damaged files
        return None
    if image.width > PICTURE_WIDTH:
        size = (PICTURE_WIDTH, max(1, round(image.height * PICTURE_WIDTH / image.width)))
        image = image.resize(size, Image.Resampling.LANCZOS if photograph else Image.Resampling.NEAREST)
    buffer = BytesIO()
    if photograph:
        image.save(buffer, "JPEG", quality=84)
        return "data:image/jpeg;base64," + b64encode(buffer.getvalue()).decode()
    image.quantize(64).save(buffer, "PNG", optimize=True)  # label colours: a palette loses nothing
    return "data:image/png;base64," + b64encode(buffer.getvalue()).decode()


def _line(ax: Axes, style: LineStyle, place: int, x, y, markevery=None) -> None:
    """An arm's bold line with a few markers, set off from those of its neighbours by its `place` among them."""
    if markevery is None and len(x) > MARKERS:
        every = -(-len(x) // MARKERS)
        markevery = (place * every // 3 % every, every)
    ax.plot(
        x, y, linestyle=style.dash, marker=style.marker, markevery=markevery, color=style.colour,
        linewidth=1.7, markersize=6.5, markeredgecolor="white", markeredgewidth=0.7,
    )  # fmt: skip


def _pale(colour: str) -> tuple[float, ...]:
    """A lighter, opaque tint of the colour, through which the grid does not show."""
    return tuple(1 - 0.45 * (1 - part) for part in to_rgb(colour))


def figure_of(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    """A figure of that many inches with one panel without a frame."""
    figure = Figure(figsize=(width, height), layout="constrained")
    ax = figure.add_subplot()
    ax.set_title(title, loc="left", fontsize=9.5, fontweight="bold", color=INK)
    quiet(ax)
    return figure, ax


def row_axis(ax: Axes, names: list[str], label: str) -> None:
    """Put the names on the vertical axis, and draw vertical grid lines."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(-0.6, len(names) - 0.4)
    ax.grid(False, axis="y")
    ax.grid(axis="x", color="#d7dce1", linewidth=0.6)
    ax.set_xlabel(label)
