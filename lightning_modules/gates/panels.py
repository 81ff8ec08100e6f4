"""What there is to show of gates, whatever norm they are of and whoever draws it: figures, page, terminal, W&B.

The frames are tidy, one row a gate value: norm, seed, epoch, step, layer, depth, statistic, label, value; the record of
a single run may lack norm and seed. A statistic's values are one of two kinds. Shares say how a layer divides its trust
between what their labels name ("in", "ln", "bn" of SN's "mean" and "var"). Or each channel has a value in [0, 1] of its
own, labelled by its number (BIN's "rho"). What they are called the norm itself says (`normshift.registry.GateSpec`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

from normshift.registry import NORMS, GateSpec, gate_spec

if TYPE_CHECKING:  # slow imports: --help must not wait for them
    from pandas import DataFrame

    from normshift import Gate

NEAR = 0.1
"""A channel's gate below this, or above one minus this, counts as having chosen a side."""

RIDGE_BINS = 40
"""Bins of [0, 1] in a ridge."""

LEAST_STAGES = 3
"""Stages of a network that has any worth telling apart."""

MOST_STAGES = 12
"""More names would run into each other."""

OTHER_COLOUR = "#777777"
"""The colour of a norm that has none."""

ROUNDING = 1e-3
"""By which shares may add up to more than 1."""

FURTHER = ("#9467bd", "#a17c1f", "#17807e", "#c0507a", "#5b7f2b")
"""Colours, in turn, of labels that are no norm's name."""


@dataclass(frozen=True)
class Panel:
    """The gates of one arm that belong together: one statistic of all layers, at one time or at several.

    Attributes:
        arm: the arm's name, or the norm's. title: what the statistic is called. rows: tidy.
        by_channel: each channel has its own value; else the values are shares.
        labels, colours: of the shares; by channel, what a channel uses at 0 and at 1.
        colour: the norm's. note: what is to be known of the statistic, such as where it starts.
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
        """What stands at 0 and at 1 of the axis of channels."""
        if not self.by_channel or self.labels == ("0", "1"):
            return "0", "1"
        return tuple(f"{end} {called(label)}" for end, label in enumerate(self.labels))

    def at(self, epoch: int) -> Panel:
        return replace(self, rows=self.rows[self.rows["epoch"] == epoch])

    def shares(self) -> DataFrame:
        """A row a depth, a column a label, averaged over the rows; by channel, the mean and what it leaves to 1."""
        if self.by_channel:
            high = self.rows.groupby("depth")["value"].mean()
            low, end = self.labels
            return high.to_frame(end).assign(**{low: 1 - high})[[low, end]]
        mixed = self.rows.pivot_table(index="depth", columns="label", values="value", aggfunc="mean", sort=False)
        return mixed.sort_index().reindex(columns=[*self.labels])

    def sides(self) -> DataFrame:
        """By channel: the share of a layer's channels near 0 and near 1, a row a depth, a column a label."""
        import pandas as pd

        values, depth = self.rows["value"], self.rows["depth"]
        near = zip(self.labels, (values < NEAR, values > 1 - NEAR), strict=True)
        return pd.DataFrame({label: side.groupby(depth).mean() for label, side in near})


def panels(frame: DataFrame) -> list[Panel]:
    """All that is to be drawn of a frame: for every arm a panel a statistic."""
    named = told_apart(frame)
    arm = "arm" if "arm" in named else "norm"
    return [
        panel
        for (name, statistic), rows in named.groupby([arm, "statistic"], sort=False)
        for panel in _panels(name, statistic, rows)
    ]


def tidy(gates: DataFrame | Iterable[Gate]) -> DataFrame:
    """The gates of a network (`normshift.gates(network)`) as a frame, all of epoch and step 0; a frame as it is."""
    import pandas as pd

    if isinstance(gates, pd.DataFrame):
        return gates
    rows = [
        (gate.norm, 0, 0, gate.layer, gate.depth, gate.statistic, label, value)
        for gate in gates
        for label, value in zip(gate.labels, gate.values.tolist(), strict=True)
    ]
    return pd.DataFrame(rows, columns=["norm", "epoch", "step", "layer", "depth", "statistic", "label", "value"])


def finite(frame: DataFrame) -> DataFrame:
    """The gates that are numbers: a training that failed may have left others."""
    import numpy as np

    return frame[np.isfinite(frame["value"])]


def last_recorded(frame: DataFrame) -> DataFrame:
    """The gates as they stood at the last step of each training in the frame."""
    frame = told_apart(frame)
    training = ["arm" if "arm" in frame else "norm", "seed"]
    return frame[frame["step"] == frame.groupby(training)["step"].transform("max")]


def told_apart(frame: DataFrame) -> DataFrame:
    """The frame with the columns norm and seed, which one network's own record may lack."""
    missing = {"seed": 0} if "seed" not in frame else {}
    if "norm" not in frame:
        known = {gate.statistic: name for name in [*NORMS][::-1] for gate in NORMS[name].gates}
        missing["norm"] = frame["statistic"].map(lambda statistic: known.get(statistic, "gates"))
    return frame.assign(**missing)


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


def sampled(rows: DataFrame) -> int:
    """How many channels of a wide layer stand for all in the gates of one arm; 0 where every channel is there."""
    numbered = rows[rows["label"].str.isdigit()].drop_duplicates(["depth", "statistic", "label"])
    numbers = numbered["label"].astype(int).groupby([numbered["depth"], numbered["statistic"]])
    there = numbers.nunique()
    return int(there[numbers.max() >= there].max()) if (numbers.max() >= there).any() else 0


def called(label: str) -> str:
    """What a label is called in words: "instance" for "in"."""
    return NORMS[label].what.split(" norm")[0] if label in NORMS else label


def short(label: str) -> str:
    """What a label is called in a legend: "IN" for "in"; a user's own as it is."""
    return label.upper() if label in NORMS else label


def norm_colour(norm: str) -> str:
    """The colour that a norm has in every picture."""
    return (NORMS[norm].colour if norm in NORMS else None) or OTHER_COLOUR


def label_colours(labels: Sequence[str]) -> tuple[str, ...]:
    """What is named after a norm wears its colour; others take what is left, in turn."""
    others = [label for label in labels if label not in NORMS]
    return tuple(
        FURTHER[others.index(label) % len(FURTHER)] if label in others else norm_colour(label) for label in labels
    )


def stages(layers: list[str]) -> list[tuple[str, int, int]]:
    """The stages of a network whose layers have these module names: a short name, the first layer, and one past the
    last."""
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
    """Whether none of the names comes again behind another, as a stage's does behind that of its shortcut."""
    return len([*groupby(names)]) == len({*names})


def _panels(arm: str, statistic: str, rows: DataFrame) -> list[Panel]:
    norm, labels = rows["norm"].iloc[0], tuple(rows["label"].unique())
    spec = gate_spec(norm, statistic) or GateSpec(statistic)  # plain where the norm's plug-in was not loaded

    def panel(title: str, rows: DataFrame, labels: Sequence[str], colours: Sequence[str], own: bool = False) -> Panel:
        return Panel(arm, title, rows, own, tuple(labels), tuple(colours), norm_colour(norm), spec.note)

    numbered = all(map(str.isdigit, labels))  # as GateSlot.by_channel has it
    if numbered and len(labels) > 1:
        return [panel(spec.heading, rows, spec.ends, label_colours(spec.ends), own=True)]
    if numbered:  # one gate a layer
        return [panel(spec.heading, rows.assign(label=statistic), [statistic], [norm_colour(norm)])]
    means = rows.groupby(["step", "depth", "label"])["value"].mean()
    if means.groupby(level=["step", "depth"]).sum().max() < 1 + ROUNDING:
        return [panel(spec.heading, rows, labels, label_colours(labels))]
    each = zip(labels, label_colours(labels), strict=True)  # no shares: what one label has is not taken from others
    return [panel(f"{spec.heading} {one}", rows[rows["label"] == one], [one], [colour]) for one, colour in each]
