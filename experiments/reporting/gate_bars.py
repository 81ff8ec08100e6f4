"""The gates of a run on the terminal: a bar a layer, split as the layer splits its trust.

In colour a bar has the colours of the norms that its parts belong to, and their initials; where there is no colour, in
a log or a pipe, it is made of the initials.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from experiments.reporting.run import read_frame
from lightning_modules.gate_figures import (
    NEAR,
    OTHER_COLOUR,
    STATISTIC_COLOURS,
    STATISTIC_NAMES,
    by_channel,
    ends_of,
    finite,
    gate_of,
    last_recorded,
)

if TYPE_CHECKING:  # pandas and rich load slowly; a command line that asks for --help need not wait
    from pandas import DataFrame
    from rich.console import Console
    from rich.text import Text

LINES = 20
"""Lines for an arm; the layers of deeper networks share them, neighbours together."""

ARMS = 4
"""Arms that are shown; the report has the others."""

WIDTH = 24
"""Characters of a bar, where the terminal has 80 columns or more."""

NAME = 20
"""Characters of a layer's name, of which the end counts."""


def print_gates(run: Path, console: Console | None = None) -> None:
    """Print what `RUN/gates.parquet` last recorded, averaged over seeds; nothing where that is missing or damaged."""
    from rich.console import Console

    recorded = read_frame(run / "gates.parquet")
    if recorded is None:
        return
    gates = last_recorded(finite(recorded))
    console = console or Console()
    arms = list(gates["arm"].unique())
    for arm in arms[:ARMS]:
        _print_arm(arm, gates[gates["arm"] == arm], console)
    if len(arms) > ARMS:
        console.print(f"gates of {', '.join(arms[ARMS:])}: in the report\n", style="dim", markup=False)


def _print_arm(arm: str, gates: DataFrame, console: Console) -> None:
    from rich.table import Table

    shares = layer_shares(gates)
    layers = gates.drop_duplicates("depth").set_index("depth")["layer"].sort_index()
    statistics = list(shares)
    labels = list(next(iter(shares.values())))
    width = max(6, min(WIDTH, (console.width - NAME - 10) // len(statistics) - 1))
    table = Table(box=None, padding=(0, 1, 0, 0), title=f"gates of {arm}", title_justify="left", title_style="bold")
    table.add_column("depth", justify="right", style="dim", header_style="dim")
    table.add_column("layer", no_wrap=True, header_style="dim")
    for statistic in statistics:
        table.add_column(gate_of(gates["norm"].iloc[0], statistic).heading, no_wrap=True, header_style="dim")
    together = -(-len(layers) // LINES)
    for first in range(0, len(layers), together):
        depths = layers.index[first : first + together]
        span = f"{depths[0]}" if len(depths) == 1 else f"{depths[0]}–{depths[-1]}"
        bars = [bar(shares[s].reindex(depths).mean(), width, console.color_system is not None) for s in statistics]
        table.add_row(span, shortened(layers[depths[0]]), *bars)
    key = ", ".join(f"{label[0].upper()} {STATISTIC_NAMES.get(label, label)}" for label in labels)
    table.caption, table.caption_justify, table.caption_style = f"{key}{_sides(gates)}", "left", "dim"
    console.print(table)
    console.print()


def layer_shares(gates: DataFrame) -> dict[str, DataFrame]:
    """For each statistic a row a depth and a column a label, summing to 1; of gates of channels the mean, and what it
    leaves to the other end."""
    shares = {}
    for statistic, rows in gates.groupby("statistic", sort=False):
        if by_channel(rows):
            (low, _), (high, _) = ends_of(rows)
            mean = rows.groupby("depth")["value"].mean().to_frame(high)
            shares[statistic] = mean.assign(**{low: 1 - mean[high]})[[low, high]]
        else:
            mixed = rows.pivot_table(index="depth", columns="label", values="value", aggfunc="mean", sort=False)
            shares[statistic] = mixed.sort_index()
    return shares


def bar(shares, width: int, coloured: bool) -> Text:
    """A bar of `width` characters, split as `shares` (a mapping from label to number, summing to 1) say."""
    from rich.text import Text

    text, end, total = Text(), 0, 0.0
    for label, share in shares.items():
        begin, total = end, total + share
        end = round(width * total)
        letter = label[0].upper()
        if coloured:
            colour = STATISTIC_COLOURS.get(label, OTHER_COLOUR)
            ink = "white" if label == "bn" else "black"
            text.append(letter.ljust(end - begin)[: end - begin], style=f"{ink} on {colour}")
        else:
            text.append(letter * (end - begin))
    return text


def shortened(layer: str) -> str:
    """The end of a module's name, which tells it from the others."""
    return layer if len(layer) <= NAME else "…" + layer[1 - NAME :]


def _sides(gates: DataFrame) -> str:
    """How many channels have chosen a side, for each gate of channels."""
    said = []
    for _, rows in gates.groupby("statistic", sort=False):
        if not by_channel(rows):
            continue
        layers = rows["depth"]  # each counts alike, as in the report: of wide layers not all channels were recorded
        sides = rows["value"] < NEAR, rows["value"] > 1 - NEAR
        low, high = (100 * side.groupby(layers).mean().mean() for side in sides)
        names = [STATISTIC_NAMES.get(end, end) for end, _ in ends_of(rows)]
        of_low, of_high = (f"the {name}" if name in STATISTIC_NAMES.values() else name for name in names)
        said.append(f"; mean of layers: {low:.0f} % of channels within {NEAR:g} of {of_low}, {high:.0f} % of {of_high}")
    return "".join(said)
