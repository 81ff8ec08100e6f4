"""The data of gate figures, for gates of all norms; figures, report, terminal and W&B use it.

The frames are tidy, with one row for each gate value: norm, seed, epoch, step, layer, depth, statistic, label, value.
The record of a single run may lack norm and seed. There are two kinds of values. Shares are the weights of a layer's
statistics, which the labels name ("in", "ln", "bn" of SN's "mean" and "var"). Gates of channels are one value in [0, 1]
for each channel, labelled by its number (BIN's "rho"). Titles come from the norm (`normshift.registry.GateSpec`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pandas import DataFrame

from normshift.registry import NORMS, GateSpec, gate_spec

if TYPE_CHECKING:
    from normshift import Gate

NEAR = 0.1
"""A channel's gate below this, or above one minus this, has chosen a side."""

RIDGE_BINS = 40
"""Number of bins of [0, 1] in a ridge."""

LEAST_STAGES = 3
"""Networks with fewer stages are divided further."""

MOST_STAGES = 12
"""More names would overlap."""

OTHER_COLOUR = "#777777"
"""The colour of norms that are not registered."""

FREE_COLOURS = ("#4040d8", "#9f9c56", "#194d1c", "#bf2247", "#b764e8", "#00b5b0")
"""Colours that differ from those of our norms and from each other, for norms that name none, in turn."""

ROUNDING = 1e-3
"""Shares may add up to 1 plus this, because of rounding."""

FURTHER = ("#9467bd", "#a17c1f", "#17807e", "#c0507a", "#5b7f2b")
"""Colours for labels that are not names of norms, in turn."""


@dataclass(frozen=True)
class Panel:
    """The gates of one statistic in all layers of one arm, at one or several times.

    Attributes:
        arm: name of the arm, or of the norm.
        title: name of the statistic.
        rows: a tidy frame.
        by_channel: whether each channel has its own value; otherwise the values are shares.
        labels, colours: those of the shares; with `by_channel`, of the statistics that a channel uses at 0 and at 1.
        colour: the norm's colour.
        note: a remark, such as the initial value.
    """

    arm: str
    title: str
    rows: DataFrame
    by_channel: bool
    labels: tuple[str, ...]
    colours: tuple[str, ...]
    colour: str
    note: str = ""

    @property
    def ends(self) -> tuple[str, ...]:
        """The axis labels at 0 and at 1."""
        if not self.by_channel or self.labels == ("0", "1"):
            return "0", "1"
        return tuple(f"{end} {called(label)}" for end, label in enumerate(self.labels))

    def at(self, epoch: int) -> Panel:
        return replace(self, rows=self.rows[self.rows["epoch"] == epoch])

    def shares(self) -> DataFrame:
        """The mean share for each depth (rows) and label (columns); by channel, the mean and 1 minus the mean."""
        if self.by_channel:
            high = self.rows.groupby("depth")["value"].mean()
            low, end = self.labels
            return high.to_frame(end).assign(**{low: 1 - high})[[low, end]]
        mixed = self.rows.pivot_table(index="depth", columns="label", values="value", aggfunc="mean", sort=False)
        return mixed.sort_index().reindex(columns=[*self.labels])

    def sides(self) -> DataFrame:
        """By channel: the shares of a layer's channels near 0 and near 1, for each depth (rows) and label (columns)."""
        values, depth = self.rows["value"], self.rows["depth"]
        near = zip(self.labels, (values < NEAR, values > 1 - NEAR), strict=True)
        return pd.DataFrame({label: side.groupby(depth).mean() for label, side in near})


def panels(frame: DataFrame) -> list[Panel]:
    """The panels of a frame: one for each arm and statistic."""
    named = told_apart(frame)
    arm = "arm" if "arm" in named else "norm"
    return [
        panel
        for (name, statistic), rows in named.groupby([arm, "statistic"], sort=False)
        for panel in _panels(name, statistic, rows)
    ]


def tidy(gates: DataFrame | Iterable[Gate]) -> DataFrame:
    """The gates of a network (`normshift.gates(network)`) as a frame at epoch and step 0; frames stay as they are."""
    if isinstance(gates, pd.DataFrame):
        return gates
    rows = [
        (gate.norm, 0, 0, gate.layer, gate.depth, gate.statistic, label, value)
        for gate in gates
        for label, value in zip(gate.labels, gate.values.tolist(), strict=True)
    ]
    return pd.DataFrame(rows, columns=["norm", "epoch", "step", "layer", "depth", "statistic", "label", "value"])


def finite(frame: DataFrame) -> DataFrame:
    """The rows with finite values; a training that failed may have recorded others."""
    return frame[np.isfinite(frame["value"])]


def last_recorded(frame: DataFrame) -> DataFrame:
    """The gates at the last step of each training in the frame."""
    frame = told_apart(frame)
    training = ["arm" if "arm" in frame else "norm", "seed"]
    return frame[frame["step"] == frame.groupby(training)["step"].transform("max")]


def told_apart(frame: DataFrame) -> DataFrame:
    """The frame with columns norm and seed, which the record of a single network may lack."""
    missing = {"seed": 0} if "seed" not in frame else {}
    if "norm" not in frame:
        known = {gate.statistic: name for name in [*NORMS][::-1] for gate in NORMS[name].gates}
        missing["norm"] = frame["statistic"].map(lambda statistic: known.get(statistic, "gates"))
    return frame.assign(**missing)


def ridges(rows: DataFrame) -> DataFrame:
    """The distribution of a gate in each layer: the share of channels for each depth (rows) and bin of [0, 1].

    It is smoothed over two bins to either side, so that layers with few channels have a ridge too. Shares that would
    leave [0, 1] stay in the last bins.
    """
    bins = (rows["value"].clip(0, 1) * RIDGE_BINS).astype(int).clip(upper=RIDGE_BINS - 1)
    counts = pd.crosstab(rows["depth"], bins).reindex(columns=np.arange(RIDGE_BINS), fill_value=0)
    padded = np.pad(counts.div(counts.sum(axis=1), axis=0), ((0, 0), (2, 2)), mode="symmetric")
    smooth = sum(weight / 16 * padded[:, i : i + RIDGE_BINS] for i, weight in enumerate((1, 4, 6, 4, 1)))
    return pd.DataFrame(smooth, counts.index)


def sampled(rows: DataFrame) -> int:
    """How many channels represent a wide layer in the gates of one arm; 0 if all channels were recorded."""
    numbered = rows[rows["label"].str.isdigit()].drop_duplicates(["depth", "statistic", "label"])
    numbers = numbered["label"].astype(int).groupby([numbered["depth"], numbered["statistic"]])
    there = numbers.nunique()
    return int(there[numbers.max() >= there].max()) if (numbers.max() >= there).any() else 0


def called(label: str) -> str:
    """A label in words: "instance" for "in"."""
    return NORMS[label].what.split(" norm")[0] if label in NORMS else label


def short(label: str) -> str:
    """A label in a legend: "IN" for "in"; other labels as they are."""
    return label.upper() if label in NORMS else label


def norm_colour(norm: str) -> str:
    """The colour of a norm in all figures: its own, or the next free one of the norms that are registered without."""
    if norm not in NORMS:
        return OTHER_COLOUR
    return NORMS[norm].colour or free_colour(without_colour().index(norm))


def without_colour() -> list[str]:
    """The registered norms that name no colour."""
    return [name for name in NORMS if NORMS[name].colour is None]


def free_colour(number: int) -> str:
    return FREE_COLOURS[number % len(FREE_COLOURS)]


def label_colours(labels: Sequence[str]) -> tuple[str, ...]:
    """The colours of labels: the norm's colour for names of norms, those of `FURTHER` for others."""
    others = [label for label in labels if label not in NORMS]
    return tuple(
        FURTHER[others.index(label) % len(FURTHER)] if label in others else norm_colour(label) for label in labels
    )


def stages(layers: list[str]) -> list[tuple[str, int, int]]:
    """The stages of a network with layers of these names: (short name, first layer, last layer + 1) for each."""
    cuts = [(names, prefixes) for prefixes in _prefixes(layers) for names in [[*map(_last_word, prefixes)]]]
    names, prefixes = next((cut for cut in cuts if _in_one_piece(cut[0])), cuts[0])
    apart = names if len(list(groupby(names))) >= LEAST_STAGES else prefixes  # blocks.0, blocks.1 are not all one
    starts = [i for i, stage in enumerate(apart) if i == 0 or stage != apart[i - 1]]
    return [(names[begin], begin, end) for begin, end in pairwise([*starts, len(layers)])]


def _prefixes(names: list[str]) -> list[list[str]]:
    """Prefixes of the module names that cut the network into twelve stages or fewer; those with the most first."""
    found = [[""] * len(names)]
    for words in range(1, 5):
        prefixes = [".".join(name.split(".")[:-1][:words]) or name for name in names]
        if 1 + sum(a != b for a, b in pairwise(prefixes)) > MOST_STAGES:
            break
        found.insert(0, prefixes)
    return found


def _last_word(prefix: str) -> str:
    return next((word for word in reversed(prefix.split(".")) if not word.isdigit()), prefix)


def _in_one_piece(names: list[str]) -> bool:
    """Whether equal names are adjacent; a stage's name may come again after that of its shortcut."""
    return len([*groupby(names)]) == len({*names})


def _panels(arm: str, statistic: str, rows: DataFrame) -> list[Panel]:
    norm, labels = rows["norm"].iloc[0], tuple(rows["label"].unique())
    spec = gate_spec(norm, statistic) or GateSpec(statistic)  # the default if the norm's plug-in is not loaded

    def panel(title: str, rows: DataFrame, labels: Sequence[str], colours: Sequence[str], own: bool = False) -> Panel:
        return Panel(arm, title, rows, own, tuple(labels), tuple(colours), norm_colour(norm), spec.note)

    numbered = all(map(str.isdigit, labels))  # as GateSlot.by_channel has it
    if numbered and len(labels) > 1:
        return [panel(spec.heading, rows, spec.ends, label_colours(spec.ends), own=True)]
    if numbered:  # one gate for each layer
        return [panel(spec.heading, rows.assign(label=statistic), [statistic], [norm_colour(norm)])]
    means = rows.groupby(["step", "depth", "label"])["value"].mean()
    if means.groupby(level=["step", "depth"]).sum().max() < 1 + ROUNDING:
        return [panel(spec.heading, rows, labels, label_colours(labels))]
    each = zip(labels, label_colours(labels), strict=True)  # not shares, so each label gets a panel of its own
    return [panel(f"{spec.heading} {one}", rows[rows["label"] == one], [one], [colour]) for one, colour in each]
