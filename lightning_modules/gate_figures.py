"""Pictures of what the gates have learned, and the colours that norms and statistics have in every picture.

The frames are tidy, one row a gate value: norm, seed, epoch, step, layer, depth, statistic ("mean", "var" or "rho"),
label, value; the record of a single run may lack norm and seed. Pictures are plain matplotlib figures without pyplot,
safe to draw inside a training run.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # matplotlib and pandas load in a second or two; a command line that asks for --help need not wait
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame, Series

NORM_COLOURS = {
    "bn": "#3d4650",
    "syncbn": "#adb5bd",
    "in": "#e69f00",
    "ln": "#56b4e9",
    "gn": "#009e73",
    "sn": "#d55e00",
    "sn-in-ln": "#8a2f0b",
    "bin": "#0072b2",
    "ibn-a": "#e05fa8",
    "ibn-b": "#7d2a78",
}
"""One fixed colour a norm: Okabe and Ito's colour-blind safe hues, lighter or darker for close relatives."""

STATISTIC_COLOURS = {name: NORM_COLOURS[name] for name in ("in", "ln", "bn", "gn")}
"""The statistics that SN mixes wear the colours of the norms they belong to."""

NEAR = 0.1
"""A rho below this, or above one minus this, counts as having chosen a side."""

_INK, _FAINT = "#3d4650", "#d7dce1"


def draw_gates(frame: DataFrame) -> Figure:
    """The gates across the layers as they stood at the last step of each run in the frame.

    SN: two panels, mean and variance; a bar a layer, split into the shares of the statistics, averaged over seeds.
    BIN: quantiles of rho over the channels (and seeds) of each layer, and how many of them have chosen a side.

    Args:
        frame: tidy gates of one or more norms, seeds and steps.

    Raises:
        ValueError: where the frame is empty.
    """
    if frame.empty:
        raise ValueError("no gates to draw: the frame is empty.")
    frame = _told_apart(frame)
    last = frame[frame["step"] == frame.groupby(["norm", "seed"])["step"].transform("max")]
    panels = [
        panel
        for (norm, statistic), rows in last.groupby(["norm", "statistic"], sort=False)
        for panel in (
            [(_rho_panel, f"{norm}: rho", rows, 2.2), (_sides_panel, norm, rows, 1.2)]
            if statistic == "rho"
            else [(_share_panel, f"{norm}: {'mean' if statistic == 'mean' else 'variance'}", rows, 1.7)]
        )
    ]
    figure, axes = _sheet([height for *_, height in panels])
    for ax, (draw, title, rows, _) in zip(axes, panels, strict=True):
        ax.set_title(title, loc="left", fontsize=9, fontweight="bold", color=_INK)
        draw(ax, rows)
        ax.set_xlim(last["depth"].min() - 0.7, last["depth"].max() + 0.7)
    _mark_stages(axes, last.drop_duplicates("depth").set_index("depth")["layer"].sort_index())
    axes[-1].xaxis.get_major_locator().set_params(integer=True)
    axes[-1].set_xlabel("depth: normalization layers from input to output")
    return figure


def draw_gate_movement(frame: DataFrame) -> Figure:
    """How the gates moved during training, in three thirds of the network's depth side by side.

    SN: the shares, averaged over layers; a thin line a seed, a bold one for their mean. BIN: the quantiles of rho.

    Args:
        frame: tidy gates of one or more norms and seeds.

    Raises:
        ValueError: where the gates were recorded only once, so that nothing has moved.
    """
    time = next((name for name in ("epoch", "step") if frame[name].nunique() > 1), None)
    if time is None:
        raise ValueError("the gates were recorded once, so there is no movement to draw.")
    frame = _told_apart(frame)
    depths = sorted(frame["depth"].unique())
    third = {depth: 3 * i // len(depths) for i, depth in enumerate(depths)}
    rows = list(frame.groupby(["norm", "statistic"], sort=False))
    figure, axes = _sheet([1.7] * len(rows), columns=3)
    for row, ((norm, statistic), gates) in enumerate(rows):
        for i, part in gates.groupby(gates["depth"].map(third)):
            ax = axes[3 * row + i]
            (_rho_lines if statistic == "rho" else _share_lines)(ax, part, time)
            ax.set_ylim(0, 1)
            ax.set_yticks([0, 0.5, 1])
            ax.xaxis.get_major_locator().set_params(integer=True, nbins=5)
            if row == 0:
                ax.set_title(("first", "middle", "last")[i] + " third of the layers", fontsize=9, color=_INK)
        name = {"mean": "mean", "var": "variance", "rho": "rho"}[statistic]
        axes[3 * row].set_ylabel(f"{norm}: {name}")
    for ax in axes[-3:]:
        ax.set_xlabel(time)
    labelled = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(
        labelled.values(), labelled, loc="outside upper right", ncols=len(labelled), frameon=False, fontsize=8.5,
        labelcolor=_INK, handlelength=1.2, handletextpad=0.5, columnspacing=1.4,
    )  # fmt: skip
    return figure


MOST_HISTOGRAMS = 12
"""Layers that a figure shows one by one; of a deeper network, so many at even distances."""


def draw_rho_histograms(frame: DataFrame) -> Figure:
    """How BIN's rho is spread over the channels of each layer at the last step, a panel a layer, seeds together.

    Args:
        frame: tidy gates of one or more seeds; those of SN are passed over.

    Raises:
        ValueError: where none of them is a rho.
    """
    import numpy as np

    rho = frame[frame["statistic"] == "rho"]
    if rho.empty:
        raise ValueError("no rho to draw: the frame has none of BIN's gates.")
    rho = _told_apart(rho)
    last = rho[rho["step"] == rho.groupby(["norm", "seed"])["step"].transform("max")]
    layers = last.drop_duplicates("depth").set_index("depth")["layer"].sort_index()
    shown = layers.iloc[np.linspace(0, len(layers) - 1, min(len(layers), MOST_HISTOGRAMS)).round().astype(int)]
    figure, axes = _sheet([1.3] * -(-len(shown) // 4), columns=4)
    for ax, (depth, layer) in zip(axes, shown.items(), strict=False):
        values = last.loc[last["depth"] == depth, "value"]
        ax.hist(values, 20, (0, 1), weights=[1 / len(values)] * len(values), color=NORM_COLOURS["bin"], rwidth=0.9)
        ax.set_title(f"{depth}  {layer.removeprefix('net.')}", loc="left", fontsize=8.5, color=_INK)
        ax.set_ylim(0, 1)
        ax.set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
    for ax in axes[len(shown) :]:
        ax.set_visible(False)
    for ax in axes[max(0, len(shown) - 4) : len(shown)]:
        ax.tick_params(labelbottom=True)
        ax.set_xticks([0, 0.5, 1], ["instance", "0.5", "batch"])
    return figure


def quiet(ax: Axes) -> None:
    """Take away what does not carry data: the box, the tick marks, dark grid lines."""
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.spines["bottom"].set_color(_FAINT)
    ax.tick_params(length=0, labelsize=8.5, colors=_INK)
    ax.grid(axis="y", color=_FAINT, linewidth=0.6)
    ax.set_axisbelow(True)
    for label in (ax.xaxis.label, ax.yaxis.label):
        label.set(size=8.5, color=_INK)


def _told_apart(frame: DataFrame) -> DataFrame:
    """The frame with the columns norm and seed, which one run's own record may lack."""
    norm = frame["statistic"].map({"rho": "bin"}).fillna("sn")
    missing = {name: value for name, value in (("norm", norm), ("seed", 0)) if name not in frame}
    return frame.assign(**missing)


def _sheet(heights: list[float], columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure with rows of the given heights in inches, and its axes in reading order."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.6, sum(heights) + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    sharing = {"sharex": "all", "sharey": "row" if columns > 1 else "none"}
    grid = figure.subplots(len(heights), columns, squeeze=False, height_ratios=heights, **sharing)
    for ax in grid.flat:
        quiet(ax)
    return figure, list(grid.flat)


def _share_panel(ax: Axes, rows: DataFrame) -> None:
    shares = rows.pivot_table(index="depth", columns="label", values="value", aggfunc="mean", sort=False).sort_index()
    floor = shares.iloc[:, 0] * 0
    for name in shares:
        legend = f"{name.upper()} {100 * shares[name].mean():.0f} %"
        ax.bar(shares.index, shares[name], 0.84, floor, color=STATISTIC_COLOURS.get(name), label=legend)
        floor = floor + shares[name]
    ax.set_ylim(0, 1)
    ax.set_yticks([0, 0.5, 1])
    ax.grid(False)
    _legend(ax, columns=shares.shape[1])


def _rho_panel(ax: Axes, rows: DataFrame) -> None:
    quantiles = rows.groupby("depth")["value"].quantile([0.05, 0.25, 0.5, 0.75, 0.95]).unstack()
    _rho_band(ax, quantiles)
    ax.set_ylim(-0.02, 1.02)
    ax.set_yticks([0, 0.5, 1], ["0  instance", "0.5", "1  batch"])
    _legend(ax, columns=3)


def _sides_panel(ax: Axes, rows: DataFrame) -> None:
    depth = rows["depth"]
    batch, instance = ((rows["value"] > 1 - NEAR).groupby(depth).mean(), (rows["value"] < NEAR).groupby(depth).mean())
    for sign, share, name, word in ((1, batch, "bn", f"above {1 - NEAR:g}"), (-1, instance, "in", f"below {NEAR:g}")):
        legend = f"{word}: {100 * share.mean():.0f} %"
        ax.bar(share.index, sign * share, 0.84, color=STATISTIC_COLOURS[name], label=legend)
    ax.axhline(0, color=_INK, linewidth=0.6)
    ax.set_ylim(-1.15 * max(0.04, instance.max()), 1.15 * max(0.04, batch.max()))
    ax.yaxis.get_major_locator().set_params(nbins=4)
    ax.yaxis.set_major_formatter(lambda value, _: f"{100 * abs(value):.0f} %")
    ax.set_title("channels that chose a side", loc="left", fontsize=9, color=_INK)
    _legend(ax, columns=2)


def _share_lines(ax: Axes, rows: DataFrame, time: str) -> None:
    for name, part in rows.groupby("label", sort=False):
        colour = STATISTIC_COLOURS.get(name)
        for _, seed in part.groupby("seed"):
            ax.plot(seed.groupby(time)["value"].mean(), color=colour, linewidth=0.7, alpha=0.5)
        ax.plot(part.groupby(time)["value"].mean(), color=colour, linewidth=2, label=name.upper())


def _rho_lines(ax: Axes, rows: DataFrame, time: str) -> None:
    _rho_band(ax, rows.groupby(time)["value"].quantile([0.05, 0.25, 0.5, 0.75, 0.95]).unstack())


def _rho_band(ax: Axes, quantiles: DataFrame) -> None:
    """Quantiles in the columns, against whatever the index is."""
    colour, x = NORM_COLOURS["bin"], quantiles.index
    for low, high, alpha, label in ((0.05, 0.95, 0.18, "9 in 10 channels"), (0.25, 0.75, 0.35, "half of them")):
        ax.fill_between(x, quantiles[low], quantiles[high], color=colour, alpha=alpha, linewidth=0, label=label)
    ax.plot(x, quantiles[0.5], color=colour, linewidth=1.8, label="median")


def _legend(ax: Axes, columns: int) -> None:
    """On the title's line, at the right."""
    ax.legend(
        loc="lower right", bbox_to_anchor=(1.0, 0.98), ncols=columns, frameon=False, fontsize=8.5, labelcolor=_INK,
        handlelength=1.0, handleheight=0.9, handletextpad=0.4, columnspacing=1.2, borderpad=0.2,
    )  # fmt: skip


def _mark_stages(axes: list[Axes], layers: Series) -> None:
    """A gap where a stage of the network begins, and the stages' names below the last panel."""
    stages = _stages(list(layers))
    starts = [i for i, stage in enumerate(stages) if i == 0 or stage != stages[i - 1]]
    for begin, end in pairwise([*starts, len(stages)]):
        left, right = layers.index[begin] - 0.5, layers.index[end - 1] + 0.5
        name = next((word for word in reversed(stages[begin].split(".")) if not word.isdigit()), stages[begin])
        if (right - left) / len(stages) > 0.014 * len(name):  # a narrower one's name would run into its neighbour's
            for ax in axes:
                for edge in {left, right} - {layers.index[0] - 0.5, layers.index[-1] + 0.5}:
                    ax.axvline(edge, color="white", linewidth=3)
            axes[-1].annotate(
                name, ((left + right) / 2, 0), (0, -16), ("data", "axes fraction"), "offset points",
                ha="center", va="top", fontsize=8, color=_INK, style="italic",
            )  # fmt: skip
    axes[-1].xaxis.labelpad = 14


def _stages(names: list[str]) -> list[str]:
    """The prefix of each module name that cuts the network into the most stages, twelve or fewer."""
    best = [""] * len(names)
    for words in range(1, 5):
        stages = [".".join(name.split(".")[:-1][:words]) or name for name in names]
        if 1 + sum(a != b for a, b in pairwise(stages)) > 12:
            break
        best = stages
    return best
