"""A closing table on the terminal."""

from __future__ import annotations

import re

import rich.table
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape

from experiments.study.tables.table import Table


def print_table(table: Table, console: Console | None = None) -> None:
    """Print the table to the terminal, best of a column in bold green; set close, to fit 80 columns."""
    legend = escape(table.legend)
    printed = rich.table.Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), caption=legend, caption_justify="left")
    for i, heading in enumerate(table.header()):
        heading = escape(re.sub(r"([-:])| ", r"\1\n", heading))
        printed.add_column(heading, justify="right" if i else "left", no_wrap=True)
    for name, cells in table.rows():
        close = [(text.replace(" ± ", "±"), best) for text, best in cells]
        printed.add_row(escape(name), *(f"[bold green]{text}[/]" if best else text for text, best in close))
    console = console or Console()
    printed.width = console.measure(printed, options=console.options.update(width=1000)).maximum
    console.print(printed, crop=False)  # also on a narrow terminal: a cropped number would be wrong
