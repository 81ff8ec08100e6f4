"""Figures of gates, made with matplotlib without pyplot, so that a training can draw them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lightning_modules.gates.panels import (
    NEAR,
    RIDGE_BINS,
    Panel,
    finite,
    last_recorded,
    panels,
    ridges,
    sampled,
    short,
    stages,
    tidy,
)

if TYPE_CHECKING:
    from pandas import DataFrame, Series

    from normshift import Gate

_INK, _FAINT = "#3d4650", "#d7dce1"


def draw_gates(gates: DataFrame | Iterable[Gate]) -> Figure:
    """The gates across the layers, at the last step of each training.

    Shares (SN) get one panel for each statistic, with a bar for each layer, divided into the shares and averaged over
    seeds. Gates of channels (BIN) get ridges, which show the distribution over the recorded channels (and seeds) of
    each layer, and bars with the shares of channels near 0 and 1. Wide layers may be represented by some of their
    channels, see `sampled`.

    Args:
        gates: the gates of a network, `draw_gates(normshift.gates(network))`, or a tidy frame for one or more arms,
            seeds and steps, such as a run's gates.parquet (`lightning_modules.gates.panels`).

    Raises:
        ValueError: there are no gates, or none of their values is finite.
    """
    frame = tidy(gates)
    if frame.empty:
        raise ValueError("no gates to draw: the network has none, or the frame is empty.")
    last = last_recorded(finite(frame))
    if last.empty:
        raise ValueError("no gates to draw: none is finite.")
    drawn = [
        (draw, title, panel, height)
        for panel in panels(last)
        for draw, title, height in (
            [(_ridges, f"{panel.arm}: {panel.title}", 2.2), (_sides, _sides_title(panel), 1.2)]
            if panel.by_channel
            else [(_bars, f"{panel.arm}: {panel.title}", 1.7)]
        )
    ]
    figure, axes = _sheet([height for *_, height in drawn])
    for ax, (draw, title, panel, _) in zip(axes, drawn, strict=True):
        ax.set_title(title, loc="left", fontsize=9, fontweight="normal" if draw is _sides else "bold", color=_INK)
        draw(ax, panel)
        ax.set_xlim(last["depth"].min() - 0.7, last["depth"].max() + 0.7)
    _mark_stages(axes, last.drop_duplicates("depth").set_index("depth")["layer"].sort_index())
    axes[-1].xaxis.get_major_locator().set_params(integer=True)
    axes[-1].set_xlabel("depth: normalization layers from input to output")
    return figure


def draw_gate_movement(frame: DataFrame) -> Figure:
    """The gates during training, in the first, middle and last third of the layers, side by side.

    Shares are averaged over layers, with a thin line for each seed and a bold one for their mean. Gates of channels are
    shown by their quantiles over all recorded channels.

    Args:
        frame: tidy gates of one or more arms and seeds.

    Raises:
        ValueError: the gates were recorded only once.
    """
    frame = finite(frame)
    time = next((name for name in ("epoch", "step") if frame[name].nunique() > 1), None)
    if time is None:
        raise ValueError("the gates were recorded once, so there is no movement to draw.")
    depths = sorted(frame["depth"].unique())
    third = {depth: 3 * i // len(depths) for i, depth in enumerate(depths)}
    rows = panels(frame)
    figure, axes = _sheet([1.7] * len(rows), columns=3)
    for row, panel in enumerate(rows):
        for i, part in panel.rows.groupby(panel.rows["depth"].map(third)):
            ax = axes[3 * row + i]
            (_quantile_lines if panel.by_channel else _share_lines)(ax, panel, part, time)
            ax.set_ylim(0, 1)
            ax.set_yticks([0, 0.5, 1])
            ax.xaxis.get_major_locator().set_params(integer=True, nbins=5)
            if row == 0:
                ax.set_title(("first", "middle", "last")[i] + " third", fontsize=9, color=_INK)
        axes[3 * row].set_ylabel(f"{panel.arm}: {panel.title}")
    for ax in axes[-3:]:
        ax.set_xlabel(time)
    labelled = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(
        labelled.values(), labelled, loc="outside upper right", ncols=len(labelled), frameon=False, fontsize=8.5,
        labelcolor=_INK, handlelength=1.2, handletextpad=0.5, columnspacing=1.4,
    )  # fmt: skip
    return figure


def quiet(ax: Axes) -> None:
    """Remove the box, the tick marks and dark grid lines of an axis."""
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.spines["bottom"].set_color(_FAINT)
    ax.tick_params(length=0, labelsize=8.5, colors=_INK)
    ax.grid(axis="y", color=_FAINT, linewidth=0.6)
    ax.set_axisbelow(True)
    for label in (ax.xaxis.label, ax.yaxis.label):
        label.set(size=8.5, color=_INK)


def _sheet(heights: list[float], columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure with rows of the given heights in inches, and its axes in reading order."""
    figure = Figure(figsize=(8.6, sum(heights) + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    sharing = {"sharex": "all", "sharey": "row" if columns > 1 else "none"}
    grid = figure.subplots(len(heights), columns, squeeze=False, height_ratios=heights, **sharing)
    for ax in grid.flat:
        quiet(ax)
    return figure, list(grid.flat)


def _bars(ax: Axes, panel: Panel) -> None:
    shares = panel.shares()
    floor = shares.iloc[:, 0] * 0
    for name, colour in zip(panel.labels, panel.colours, strict=True):
        legend = f"{short(name) if len(panel.labels) > 1 else 'mean'} {100 * shares[name].mean():.0f} %"
        ax.bar(shares.index, shares[name], 0.84, floor, color=colour, label=legend)
        floor = floor + shares[name].fillna(0)
    ax.set_ylim(0, 1)
    ax.set_yticks([0, 0.5, 1])
    ax.grid(False)
    _legend(ax, columns=shares.shape[1])


def _ridges(ax: Axes, panel: Panel) -> None:
    """One ridge for each layer, which starts at the layer's depth; its width is the root of the share of channels, so
    that small shares are visible."""
    spread, middles = ridges(panel.rows), (np.arange(RIDGE_BINS) + 0.5) / RIDGE_BINS
    for depth, shares in spread[::-1].iterrows():  # from the right, so that a ridge covers the next one
        width = 1.6 * np.sqrt(shares)
        ax.fill_betweenx(middles, depth - 0.4, depth - 0.4 + width, color=panel.colour, alpha=0.8, linewidth=0)
        ax.plot(depth - 0.4 + width, middles, color="white", linewidth=0.6)
    medians = panel.rows.groupby("depth")["value"].median()
    ax.plot(medians.index, medians, "_", color=_INK, markersize=8, label="median")
    ax.set_ylim(-0.02, 1.02)
    low, high = panel.ends
    ax.set_yticks([0, 0.5, 1], [low, "0.5", high])
    _legend(ax, columns=1)


def _sides(ax: Axes, panel: Panel) -> None:
    sides = panel.sides()
    low, high = panel.labels
    for sign, name, colour, word in (
        (1, high, panel.colours[1], f"above {1 - NEAR:g}"),
        (-1, low, panel.colours[0], f"below {NEAR:g}"),
    ):
        legend = f"{word}: {100 * sides[name].mean():.0f} %"
        ax.bar(sides.index, sign * sides[name], 0.84, color=colour, label=legend)
    ax.axhline(0, color=_INK, linewidth=0.6)
    ax.set_ylim(-1.15 * max(0.04, sides[low].max()), 1.15 * max(0.04, sides[high].max()))
    ax.yaxis.get_major_locator().set_params(nbins=4)
    ax.yaxis.set_major_formatter(lambda value, _: f"{100 * abs(value):.0f} %")
    _legend(ax, columns=2)


def _sides_title(panel: Panel) -> str:
    some = sampled(panel.rows)
    return f"channels that chose a side{f' (of {some} in wide layers)' if some else ''}"


def _share_lines(ax: Axes, panel: Panel, rows: DataFrame, time: str) -> None:
    for name, colour in zip(panel.labels, panel.colours, strict=True):
        part = rows[rows["label"] == name]
        for _, seed in part.groupby("seed"):
            ax.plot(seed.groupby(time)["value"].mean(), color=colour, linewidth=0.7, alpha=0.5)
        ax.plot(part.groupby(time)["value"].mean(), color=colour, linewidth=2, label=short(name))


def _quantile_lines(ax: Axes, panel: Panel, rows: DataFrame, time: str) -> None:
    quantiles = rows.groupby(time)["value"].quantile([0.05, 0.25, 0.5, 0.75, 0.95]).unstack()
    for low, high, alpha, label in ((0.05, 0.95, 0.18, "9 in 10 channels"), (0.25, 0.75, 0.35, "half of them")):
        band = {"color": panel.colour, "alpha": alpha, "linewidth": 0, "label": label}
        ax.fill_between(quantiles.index, quantiles[low], quantiles[high], **band)
    ax.plot(quantiles.index, quantiles[0.5], color=panel.colour, linewidth=1.8, label="median")


def _legend(ax: Axes, columns: int) -> None:
    """Add the legend on the title's line, at the right."""
    ax.legend(
        loc="lower right", bbox_to_anchor=(1.0, 0.98), ncols=columns, frameon=False, fontsize=8.5, labelcolor=_INK,
        handlelength=1.0, handleheight=0.9, handletextpad=0.4, columnspacing=1.2, borderpad=0.2,
    )  # fmt: skip


def _mark_stages(axes: list[Axes], layers: Series) -> None:
    """Mark the start of each stage of the network by a gap, and write the stages' names below the last panel."""
    for name, begin, end in stages(list(layers)):
        left, right = layers.index[begin] - 0.5, layers.index[end - 1] + 0.5
        if (right - left) / len(layers) > 0.014 * len(name):  # otherwise names would overlap
            for ax in axes:
                for edge in {left, right} - {layers.index[0] - 0.5, layers.index[-1] + 0.5}:
                    ax.axvline(edge, color="white", linewidth=3)
            axes[-1].annotate(
                name, ((left + right) / 2, 0), (0, -16), ("data", "axes fraction"), "offset points",
                ha="center", va="top", fontsize=8, color=_INK, style="italic",
            )  # fmt: skip
    axes[-1].xaxis.labelpad = 14
