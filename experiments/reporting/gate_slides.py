"""The gates of an arm across its layers, epoch by epoch: what the page draws, and its slider moves.

The page draws the last epoch itself, so that it stands without a script as well; the slider redraws it from `data`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightning_modules.gate_figures import (
    NEAR,
    OTHER_COLOUR,
    RIDGE_BINS,
    STATISTIC_COLOURS,
    STATISTIC_NAMES,
    by_channel,
    end_label,
    ends_of,
    finite,
    gate_of,
    norm_colour,
    ridges,
    stages,
)

if TYPE_CHECKING:  # pandas loads slowly; a command line that asks for --help need not wait
    from pandas import DataFrame

MOST_FRAMES = 25
"""Epochs that the slider stops at; of a longer training so many, evenly spread."""

WHOLE = 1000
"""Shares are in thousandths: whole numbers keep the page small."""

DIGITS = 3.5
"""Bytes of a share, with its comma."""

OVERLAP = 2.4
"""Rows that a ridge reaches up where all channels of a layer agree."""


MOST_NAMES = 40
"""Layers of which each has its name beside its ridge; of more, the stages alone."""


@dataclass
class Panel:
    """One statistic of all layers. A frame holds, layer by layer, the shares of the parts, in thousandths."""

    title: str
    labels: list[tuple[str, str]]  # what the parts of a bar are, and their colours; for a ridge, what is counted
    frames: list[list[list[int]]]
    shares: list[list[int]]  # what the legend says of each frame, in per cent of the layers, or of their channels
    ridged: bool
    ends: tuple[str, str] = ("0", "1")  # of a ridge's axis

    @property
    def bars(self) -> list[list[tuple[float, float, str]]]:
        """The last frame as bars: for each layer the top, the height and the colour of each part, in [0, 1]."""
        drawn = []
        for shares in self.frames[-1]:
            tops = [1 - sum(shares[: i + 1]) / WHOLE for i in range(len(shares))]
            parts = zip(tops, shares, self.labels, strict=True)
            drawn.append([(round(top, 3), share / WHOLE, colour) for top, share, (_, colour) in parts])
        return drawn

    @property
    def paths(self) -> list[str]:
        """The last frame as ridges; the template's script has the same formula."""
        drawn = []
        for row, shares in enumerate(self.frames[-1]):
            foot = row + OVERLAP
            points = [f"{x + 0.5:g} {foot - OVERLAP * (s / WHOLE) ** 0.5:.2f}" for x, s in enumerate(shares)]
            drawn.append(f"M0 {foot:g}L{'L'.join(points)}L{RIDGE_BINS} {foot:g}Z")
        return drawn


@dataclass
class Slides:
    """The gates of one arm."""

    arm: str
    epochs: list[int]
    layers: list[str]
    stages: list[tuple[str, int, int]]
    panels: list[Panel]
    colour: str = OTHER_COLOUR  # of ridges
    over = OVERLAP
    bins = RIDGE_BINS

    @property
    def data(self) -> str:
        """What the script needs, as JSON without a character that HTML minds."""
        panels = [{"ridged": p.ridged, "frames": p.frames, "shares": p.shares} for p in self.panels]
        about = {"epochs": self.epochs, "whole": WHOLE, "overlap": OVERLAP}
        return json.dumps(about | {"panels": panels}, separators=(",", ":"))

    @property
    def names(self) -> list[str]:
        """What stands beside each ridge: the end of its layer's name; where rows are low, where a stage begins."""
        if len(self.layers) <= MOST_NAMES:
            return [_shortest(layer, self.layers) for layer in self.layers]
        begins = {begin: name for name, begin, _ in self.stages}
        return [begins.get(i, "") for i in range(len(self.layers))]


def slides(arm: str, gates: DataFrame, budget: int) -> Slides:
    """The gates of an arm, averaged over the seeds that have come so far; of gates of channels, all channels together.

    Args:
        budget: bytes that the slider's data may take, more or less; of deep networks it stops at fewer epochs.

    Raises:
        ValueError: where there are no gates, or none that is finite.
    """
    gates = finite(gates)
    if gates.empty:
        raise ValueError("no gates to show: none is there, or none is finite.")
    norm = gates["norm"].iloc[0] if "norm" in gates else ""
    kinds = {statistic: by_channel(rows) for statistic, rows in gates.groupby("statistic", sort=False)}
    ridged = gates["statistic"].map(kinds)
    bars = gates[~ridged].groupby(["statistic", "depth"])["label"].nunique().sum()
    numbers = bars + RIDGE_BINS * len(gates[ridged].drop_duplicates(["statistic", "depth"]))
    most = int(min(MOST_FRAMES, max(2, budget // (DIGITS * numbers))))
    epochs = _evenly_chosen(sorted(int(epoch) for epoch in gates["epoch"].unique()), most)
    layers = gates.drop_duplicates("depth").sort_values("depth")["layer"].tolist()
    panels = []
    for statistic, rows in gates.groupby("statistic", sort=False):
        each = [rows[rows["epoch"] == epoch] for epoch in epochs]
        title = gate_of(norm, statistic).heading
        panels.append(_ridge_panel(title, each) if kinds[statistic] else _share_panel(title, each, norm))
    return Slides(arm, epochs, layers, stages(layers), panels, norm_colour(norm))


def ridge_caption(gates: DataFrame) -> str:
    """What the ridges of an arm's gates show."""
    norm, (statistic, rows) = gates["norm"].iloc[0], next(iter(gates.groupby("statistic", sort=False)))
    gate = gate_of(norm, statistic)
    low, high = (f"the {STATISTIC_NAMES[end]}'s moments" if end in STATISTIC_NAMES else end for end, _ in ends_of(rows))
    uses = "" if gate.ends == ("0", "1") else f": 1 where a channel uses {high}, 0 where {low}"
    note = f"; {gate.note}" if gate.note else ""
    return (
        f"How {gate.heading} is spread over the channels of each layer, from the input at the top to the output"
        f"{uses}{note}. A ridge is as high as the square root of the share of channels, so that a few show, too."
    )


def _ridge_panel(title: str, frames: list[DataFrame]) -> Panel:
    (low, low_colour), (high, high_colour) = ends_of(frames[0])
    counted = [(f"below {NEAR:g}", low_colour), (f"above {1 - NEAR:g}", high_colour)]
    sides = [
        [rows["value"].lt(NEAR).groupby(rows["depth"]).mean(), rows["value"].gt(1 - NEAR).groupby(rows["depth"]).mean()]
        for rows in frames
    ]
    shares = [[round(100 * side.mean()) for side in both] for both in sides]
    ridged = [_thousandths(ridges(rows)) for rows in frames]
    return Panel(title, counted, ridged, shares, True, (end_label(0, low), end_label(1, high)))


def _share_panel(title: str, frames: list[DataFrame], norm: str) -> Panel:
    names = list(frames[0]["label"].unique())
    mixed = [
        rows.pivot_table(index="depth", columns="label", values="value", aggfunc="mean").sort_index()[names]
        for rows in frames
    ]
    labels = [(name.upper(), STATISTIC_COLOURS.get(name, norm_colour(norm))) for name in names]
    shares = [[round(100 * share) for share in frame.mean()] for frame in mixed]
    return Panel(title, labels, [_thousandths(frame) for frame in mixed], shares, False)


def _shortest(layer: str, layers: list[str]) -> str:
    """The end of a layer's name: three parts, or as many more as tell it from the others."""
    parts = layer.split(".")
    ends = (".".join(parts[-count:]) for count in range(3, len(parts) + 1))
    return next((end for end in ends if sum(f".{other}".endswith(f".{end}") for other in layers) == 1), layer)


def _evenly_chosen(epochs: list[int], most: int) -> list[int]:
    """The first, the last and others evenly between them, `most` at most."""
    if len(epochs) <= most:
        return epochs
    return [epochs[round(i * (len(epochs) - 1) / (most - 1))] for i in range(most)]


def _thousandths(shares: DataFrame) -> list[list[int]]:
    return (WHOLE * shares.fillna(0)).round().astype(int).values.tolist()
