"""Pictures of what the gates have learned, and the colours that norms and statistics have in every picture.

The frames are tidy, one row a gate value: norm, seed, epoch, step, layer, depth, statistic ("mean", "var", "rho", or
what a user's own norm calls its gate), label, value; the record of a single run may lack norm and seed. Pictures are
plain matplotlib figures without pyplot, safe to draw inside a training run.
"""

from __future__ import annotations

from itertools import groupby, pairwise
from typing import TYPE_CHECKING

from normshift.registry import NORMS, GateSpec, gate_spec

if TYPE_CHECKING:  # matplotlib and pandas load in a second or two; a command line that asks for --help need not wait
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame, Series

OTHER_COLOUR = "#777777"
"""Of a norm or a statistic that has none of its own."""


def norm_colour(norm: str) -> str:
    """One fixed colour a norm: Okabe and Ito's colour-blind safe hues, lighter or darker for close relatives."""
    return (NORMS[norm].colour if norm in NORMS else None) or OTHER_COLOUR


STATISTIC_COLOURS = {name: norm_colour(name) for name in ("in", "ln", "bn", "gn")}
"""The statistics that gates choose between wear the colours of the norms they belong to."""

END_COLOURS = ("#e0a458", "#5b7083")
"""Of the two ends of a gate, where they are no statistics."""

STATISTIC_NAMES = {"in": "instance", "ln": "layer", "bn": "batch", "gn": "group"}

NEAR = 0.1
"""A channel's gate below this, or above one minus this, counts as having chosen a side."""

LEAST_STAGES = 3
"""Stages of a network that has any worth telling apart."""

_INK, _FAINT = "#3d4650", "#d7dce1"


def draw_gates(frame: DataFrame) -> Figure:
    """The gates across the layers as they stood at the last step of each run in the frame.

    Mixtures (SN): two panels, mean and variance; a bar a layer, split into the shares of the statistics, averaged over
    seeds. Gates of channels (BIN): ridges, how rho is spread over the recorded channels (and seeds) of each layer, and
    how many have chosen a side; of a wide layer some channels stand for all, see `sampled`.

    Args:
        frame: tidy gates of one or more norms, seeds and steps.

    Raises:
        ValueError: where the frame is empty, or none of its values is finite.
    """
    if frame.empty:
        raise ValueError("no gates to draw: the frame is empty.")
    last = last_recorded(finite(frame))
    if last.empty:
        raise ValueError("no gates to draw: none is finite.")
    panels = [
        panel
        for (norm, statistic), rows in last.groupby(["norm", "statistic"], sort=False)
        for panel in (
            [(_ridge_panel, f"{norm}: {gate_of(norm, statistic).heading}", rows, 2.2), (_sides_panel, norm, rows, 1.2)]
            if by_channel(rows)
            else [(_share_panel, f"{norm}: {gate_of(norm, statistic).heading}", rows, 1.7)]
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
    """How the gates moved during training, in the first, middle and last third of the layers, side by side.

    Mixtures (SN): the shares, averaged over layers; a thin line a seed, a bold one for their mean. Gates of channels
    (BIN): the quantiles over all channels that were recorded.

    Args:
        frame: tidy gates of one or more norms and seeds.

    Raises:
        ValueError: where the gates were recorded only once, so that nothing has moved.
    """
    times = finite(frame)
    time = next((name for name in ("epoch", "step") if times[name].nunique() > 1), None)
    if time is None:
        raise ValueError("the gates were recorded once, so there is no movement to draw.")
    frame = _told_apart(finite(frame))
    depths = sorted(frame["depth"].unique())
    third = {depth: 3 * i // len(depths) for i, depth in enumerate(depths)}
    rows = list(frame.groupby(["norm", "statistic"], sort=False))
    figure, axes = _sheet([1.7] * len(rows), columns=3)
    for row, ((norm, statistic), gates) in enumerate(rows):
        for i, part in gates.groupby(gates["depth"].map(third)):
            ax = axes[3 * row + i]
            (_channel_lines if by_channel(part) else _share_lines)(ax, part, time)
            ax.set_ylim(0, 1)
            ax.set_yticks([0, 0.5, 1])
            ax.xaxis.get_major_locator().set_params(integer=True, nbins=5)
            if row == 0:
                ax.set_title(("first", "middle", "last")[i] + " third", fontsize=9, color=_INK)
        axes[3 * row].set_ylabel(f"{norm}: {gate_of(norm, statistic).heading}")
    for ax in axes[-3:]:
        ax.set_xlabel(time)
    labelled = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(
        labelled.values(), labelled, loc="outside upper right", ncols=len(labelled), frameon=False, fontsize=8.5,
        labelcolor=_INK, handlelength=1.2, handletextpad=0.5, columnspacing=1.4,
    )  # fmt: skip
    return figure


def by_channel(rows: DataFrame) -> bool:
    """Whether these gates are the channels' own values, labelled with numbers; otherwise shares of what labels name."""
    return bool(rows["label"].astype(str).str.isdigit().all())


def gate_of(norm: str, statistic: str) -> GateSpec:
    """How a gate is drawn; plainly where its norm is not known here, as of a plug-in that was not loaded."""
    return gate_spec(norm, statistic) or GateSpec(statistic)


def ends_of(rows: DataFrame) -> list[tuple[str, str]]:
    """What the channels of one gate use at 0 and at 1: the names and colours."""
    gate = gate_of(*_told_apart(rows)[["norm", "statistic"]].iloc[0])
    return [(end, STATISTIC_COLOURS.get(end, END_COLOURS[i])) for i, end in enumerate(gate.ends)]


def finite(frame: DataFrame) -> DataFrame:
    """The gates that are numbers: a training that failed may have left others."""
    import numpy as np

    return frame[np.isfinite(frame["value"])]


def last_recorded(frame: DataFrame) -> DataFrame:
    """The gates as they stood at the last step of each training in the frame."""
    frame = _told_apart(frame)
    training = ["arm" if "arm" in frame else "norm", "seed"]
    return frame[frame["step"] == frame.groupby(training)["step"].transform("max")]


def sampled(rows: DataFrame) -> int:
    """How many channels of a wide layer stand for all in the gates of one arm; 0 where every channel is there.

    Args:
        rows: tidy gates, of which the channels' own are labelled with the channels' numbers.
    """
    own = rows[rows["label"].astype(str).str.isdigit()].drop_duplicates(["statistic", "depth", "label"])
    numbers = own["label"].astype(int).groupby([own["statistic"], own["depth"]])
    there = numbers.nunique()
    return int(there[numbers.max() >= there].max()) if (numbers.max() >= there).any() else 0


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
    known = {each: next((n for n in NORMS if gate_spec(n, each)), each) for each in frame["statistic"].unique()}
    norm = frame["statistic"].map(known)
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


RIDGE_BINS = 40
"""Bins of a gate's values in a ridge."""


def ridges(rows: DataFrame) -> DataFrame:
    """How a gate is spread in each layer: a row a depth, a column a bin of [0, 1], the share of the channels in it.

    Each channel counts for its bin and, less, for the two to either side: in layers of few channels, too, a ridge is
    to be seen rather than single channels. What would leave [0, 1] stays in the last bins.
    """
    import numpy as np
    import pandas as pd

    bins = (rows["value"].clip(0, 1) * RIDGE_BINS).astype(int).clip(upper=RIDGE_BINS - 1)
    counts = pd.crosstab(rows["depth"], bins).reindex(columns=np.arange(RIDGE_BINS), fill_value=0)
    padded = np.pad(counts.div(counts.sum(axis=1), axis=0), ((0, 0), (2, 2)), mode="symmetric")
    smooth = sum(weight / 16 * padded[:, i : i + RIDGE_BINS] for i, weight in enumerate((1, 4, 6, 4, 1)))
    return pd.DataFrame(smooth, counts.index)


def _ridge_panel(ax: Axes, rows: DataFrame) -> None:
    """A ridge a layer, its foot at the layer's depth; as wide as the root of the share, so that a few show, too."""
    import numpy as np

    spread = ridges(rows)
    colour, middles = _colour(rows), (np.arange(RIDGE_BINS) + 0.5) / RIDGE_BINS
    for depth, shares in spread[::-1].iterrows():  # from the right, so that a ridge covers what is behind it
        width = 1.6 * np.sqrt(shares)
        ax.fill_betweenx(middles, depth - 0.4, depth - 0.4 + width, color=colour, alpha=0.8, linewidth=0)
        ax.plot(depth - 0.4 + width, middles, color="white", linewidth=0.6)
    medians = rows.groupby("depth")["value"].median()
    ax.plot(medians.index, medians, "_", color=_INK, markersize=8, label="median")
    ax.set_ylim(-0.02, 1.02)
    (low, _), (high, _) = ends_of(rows)
    ax.set_yticks([0, 0.5, 1], [end_label(0, low), "0.5", end_label(1, high)])
    _legend(ax, columns=1)


def _colour(rows: DataFrame) -> str:
    """The colour of the norm that these gates are of."""
    return norm_colour(_told_apart(rows)["norm"].iloc[0])


def end_label(value: int, end: str) -> str:
    """What stands at one end of a gate's axis: the number, and what a channel uses there."""
    meaning = STATISTIC_NAMES.get(end, end)
    return str(value) if meaning == str(value) else f"{value} {meaning}"


def _sides_panel(ax: Axes, rows: DataFrame) -> None:
    depth, (low, high) = rows["depth"], ends_of(rows)
    above, below = ((rows["value"] > 1 - NEAR).groupby(depth).mean(), (rows["value"] < NEAR).groupby(depth).mean())
    for sign, share, end, word in ((1, above, high, f"above {1 - NEAR:g}"), (-1, below, low, f"below {NEAR:g}")):
        legend = f"{word}: {100 * share.mean():.0f} %"
        ax.bar(share.index, sign * share, 0.84, color=end[1], label=legend)
    ax.axhline(0, color=_INK, linewidth=0.6)
    ax.set_ylim(-1.15 * max(0.04, below.max()), 1.15 * max(0.04, above.max()))
    ax.yaxis.get_major_locator().set_params(nbins=4)
    ax.yaxis.set_major_formatter(lambda value, _: f"{100 * abs(value):.0f} %")
    some = sampled(rows)
    title = f"channels that chose a side{f' (of {some} in wide layers)' if some else ''}"
    ax.set_title(title, loc="left", fontsize=9, color=_INK)
    _legend(ax, columns=2)


def _share_lines(ax: Axes, rows: DataFrame, time: str) -> None:
    for name, part in rows.groupby("label", sort=False):
        colour = STATISTIC_COLOURS.get(name)
        for _, seed in part.groupby("seed"):
            ax.plot(seed.groupby(time)["value"].mean(), color=colour, linewidth=0.7, alpha=0.5)
        ax.plot(part.groupby(time)["value"].mean(), color=colour, linewidth=2, label=name.upper())


def _channel_lines(ax: Axes, rows: DataFrame, time: str) -> None:
    _quantile_band(ax, _colour(rows), rows.groupby(time)["value"].quantile([0.05, 0.25, 0.5, 0.75, 0.95]).unstack())


def _quantile_band(ax: Axes, colour: str, quantiles: DataFrame) -> None:
    """Quantiles in the columns, against whatever the index is."""
    x = quantiles.index
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
    for name, begin, end in stages(list(layers)):
        left, right = layers.index[begin] - 0.5, layers.index[end - 1] + 0.5
        if (right - left) / len(layers) > 0.014 * len(name):  # a narrower one's name would run into its neighbour's
            for ax in axes:
                for edge in {left, right} - {layers.index[0] - 0.5, layers.index[-1] + 0.5}:
                    ax.axvline(edge, color="white", linewidth=3)
            axes[-1].annotate(
                name, ((left + right) / 2, 0), (0, -16), ("data", "axes fraction"), "offset points",
                ha="center", va="top", fontsize=8, color=_INK, style="italic",
            )  # fmt: skip
    axes[-1].xaxis.labelpad = 14


def stages(layers: list[str]) -> list[tuple[str, int, int]]:
    """The stages of a network whose layers have these module names: a short name, the first layer, and one past the
    last."""
    prefixes = _prefixes(layers)
    names = [next((w for w in reversed(prefix.split(".")) if not w.isdigit()), prefix) for prefix in prefixes]
    apart = names if len(list(groupby(names))) >= LEAST_STAGES else prefixes  # blocks.0, blocks.1 are not all one
    starts = [i for i, stage in enumerate(apart) if i == 0 or stage != apart[i - 1]]
    return [(names[begin], begin, end) for begin, end in pairwise([*starts, len(layers)])]


def _prefixes(names: list[str]) -> list[str]:
    """The prefix of each module name that cuts the network into the most stages, twelve or fewer."""
    best = [""] * len(names)
    for words in range(1, 5):
        prefixes = [".".join(name.split(".")[:-1][:words]) or name for name in names]
        if 1 + sum(a != b for a, b in pairwise(prefixes)) > 12:
            break
        best = prefixes
    return best
