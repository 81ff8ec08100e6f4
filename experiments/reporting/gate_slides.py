"""The gates of an arm across its layers, epoch by epoch, as the page draws them for its slider.

The page draws the last epoch itself, so that it stands without a script as well; the slider redraws it from `data`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightning_modules.gates.panels import NEAR, RIDGE_BINS, Panel, called, finite, panels, ridges, short, stages

if TYPE_CHECKING:
    from pandas import DataFrame

MOST_FRAMES = 25
"""Most epochs that the slider shows; of a longer training, so many at even distances."""

WHOLE = 1000
"""Shares are in thousandths: whole numbers keep the page small."""

DIGITS = 3.5
"""Bytes of a share, with its comma."""

OVERLAP = 2.4
"""Rows that a ridge reaches up where all channels of a layer agree."""


MOST_NAMES = 40
"""Layers of which each has its name beside its ridge; of more, the stages alone."""


@dataclass
class Slide:
    """One panel of gates. A frame holds, layer by layer, the shares of the parts, in thousandths."""

    title: str
    labels: list[tuple[str, str]]  # what the parts of a bar are, and their colours; for a ridge, what is counted
    frames: list[list[list[int]]]
    shares: list[list[int]]  # for each frame, the legend's numbers in percent of the layers or of their channels
    ridged: bool
    colour: str  # of ridges
    ends: tuple[str, ...]  # of a ridge's axis

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
    panels: list[Slide]
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
        raise ValueError("no gates to show: there are none, or none is finite.")
    drawn = panels(gates.assign(arm=arm))
    numbers = sum(
        RIDGE_BINS * panel.rows["depth"].nunique() if panel.by_channel else panel.shares().size for panel in drawn
    )
    most = int(min(MOST_FRAMES, max(2, budget // (DIGITS * numbers))))
    epochs = _evenly_chosen(sorted(int(epoch) for epoch in gates["epoch"].unique()), most)
    layers = gates.drop_duplicates("depth").sort_values("depth")["layer"].tolist()
    return Slides(arm, epochs, layers, stages(layers), [_slide(panel, epochs) for panel in drawn])


def _slide(panel: Panel, epochs: list[int]) -> Slide:
    frames = [panel.at(epoch) for epoch in epochs]
    if panel.by_channel:
        names = f"below {NEAR:g}", f"above {1 - NEAR:g}"
        told, drawn = [frame.sides() for frame in frames], [ridges(frame.rows) for frame in frames]
    else:
        names = [short(label) for label in panel.labels] if len(panel.labels) > 1 else ["mean"]
        told = drawn = [frame.shares() for frame in frames]
    labels = [*zip(names, panel.colours, strict=True)]
    shares = [[round(100 * share) for share in frame.mean()] for frame in told]
    kept = [_thousandths(frame) for frame in drawn]
    return Slide(panel.title, labels, kept, shares, panel.by_channel, panel.colour, panel.ends)


def caption(drawn: Sequence[Panel]) -> str:
    """What the panels of an arm show, for a reader who does not know its norm; nothing is said twice."""
    return " ".join(dict.fromkeys(sentence for panel in drawn for sentence in _sentences(panel)))


def _sentences(panel: Panel) -> Iterator[str]:
    note = f"; {panel.note}" if panel.note else ""
    named = [(f"the {called(label)}" if called(label) != label else label, label) for label in panel.labels]
    if panel.by_channel:
        low, high = (f"{name}'s moments" if name != label else label for name, label in named)
        uses = "" if panel.labels == ("0", "1") else f": 1 where a channel uses {high}, 0 where {low}"
        yield (
            f"Distribution of {panel.title} over the channels of each layer, from the input (top) to the output"
            f"{uses}{note}."
        )
        yield "The height of a ridge is the square root of the share of channels, so that small shares are visible."
    elif len(panel.labels) == 1:
        yield f"The gate {panel.title} of each layer, averaged over seeds; the legend gives the mean over layers{note}."
    else:
        *most, last = (f"{name} ({short(label)})" if name != label else label for name, label in named)
        yield (
            f"The shares with which each layer uses the statistics of {', '.join(most)} and {last}, averaged over "
            f"seeds; the legend gives their means over layers{note}."
        )


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
