"""The gates of a run on the terminal: a bar for each layer, divided by the shares of its statistics.

In colour a bar has the colours of the norms that its parts belong to, and their initials; where there is no colour, in
a log or a pipe, it is made of the initials.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.study.partial_run import read_frame
from lightning_modules.gates.panels import NEAR, Panel, called, finite, last_recorded, panels

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pandas import DataFrame, Series

LINES = 20
"""Most lines for an arm; in deeper networks, neighbouring layers share a line."""

ARMS = 4
"""Most arms that are shown; the report has the others."""

WIDTH = 24
"""Characters of a bar, where the terminal has 80 columns or more."""

NAME = 20
"""Most characters of a layer's name; its end is shown."""

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
"""For labels whose own letters are all used already."""

DARK = 90
"""Brightness, of 255, below which letters are white."""


def print_gates(run: Path, console: Console | None = None) -> None:
    """Print what `RUN/gates.parquet` last recorded, averaged over seeds; nothing where that is missing or damaged."""
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
    drawn = panels(gates)
    shares = [panel.shares().fillna(0) for panel in drawn]
    colours = {label: colour for panel in drawn for label, colour in zip(panel.labels, panel.colours, strict=True)}
    letters = letters_of([*colours])
    layers = gates.drop_duplicates("depth").set_index("depth")["layer"].sort_index()
    width = max(6, min(WIDTH, (console.width - NAME - 10) // len(drawn) - 1))
    table = Table(box=None, padding=(0, 1, 0, 0), title=f"gates of {arm}", title_justify="left", title_style="bold")
    table.add_column("depth", justify="right", style="dim", header_style="dim")
    table.add_column("layer", no_wrap=True, header_style="dim")
    for panel in drawn:
        table.add_column(panel.title, no_wrap=True, header_style="dim")
    together = -(-len(layers) // LINES)
    for first in range(0, len(layers), together):
        depths = layers.index[first : first + together]
        span = f"{depths[0]}" if len(depths) == 1 else f"{depths[0]}–{depths[-1]}"
        means = [each.reindex(depths).mean() for each in shares]
        bars = [bar(mean, width, letters, colours if console.color_system else None) for mean in means]
        table.add_row(span, shortened(layers[depths[0]]), *bars)
    key = ", ".join(f"{letter} {called(label)}" for label, letter in letters.items() if letter != label)
    said = [text for text in (key, *map(_sides, drawn)) if text]
    table.caption, table.caption_justify, table.caption_style = "; ".join(said), "left", "dim"
    console.print(table)
    console.print()


def bar(shares: Mapping | Series, width: int, letters: Mapping[str, str], colours: Mapping[str, str] | None) -> Text:
    """A bar of `width` characters, divided by `shares` (from label to number).

    Args:
        colours: of the labels; None where the terminal has none.
    """
    text, end, total = Text(), 0, 0.0
    for label, share in shares.items():
        begin, total = end, total + share
        end = round(width * total)
        if colours:
            red, green, blue = (int(colours[label][i : i + 2], 16) for i in (1, 3, 5))
            ink = "white" if 0.3 * red + 0.6 * green + 0.1 * blue < DARK else "black"
            text.append(letters[label].ljust(end - begin)[: end - begin], style=f"{ink} on {colours[label]}")
        else:
            text.append(letters[label] * (end - begin))
    return text


def letters_of(labels: list[str]) -> dict[str, str]:
    """A letter for each label: its first one that no other label uses."""
    letters: dict[str, str] = {}
    for label in labels:
        free = [letter for letter in (label + LETTERS).upper() if letter not in letters.values()]
        letters[label] = free[0] if free else "?"
    return letters


def shortened(layer: str) -> str:
    """The end of a module's name, which tells it from the others."""
    return layer if len(layer) <= NAME else "…" + layer[1 - NAME :]


def _sides(panel: Panel) -> str:
    """How many channels are near each end of the gate."""
    if not panel.by_channel:
        return ""
    sides = 100 * panel.sides().mean()  # each layer counts alike, as in the report: of wide ones some were recorded
    low, high = (f"the {called(label)}" if called(label) != label else label for label in panel.labels)
    (at_low, at_high) = sides
    return (
        f"{panel.title}, mean of layers: {at_low:.0f} % of channels within {NEAR:g} of {low}, {at_high:.0f} % of {high}"
    )
