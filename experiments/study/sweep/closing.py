"""What a sweep ends in: a table with the best trial first, `sweep.csv`, `table.md` and the picture `sweep.png`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import rich.table
from pandas import DataFrame
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape

from datamodules.whole_file import write_whole
from experiments.study.sweep.picture import draw_sweep
from experiments.study.sweep.trial_files import FAILED, FINISHED, Trial
from experiments.study.time_left import in_words

if TYPE_CHECKING:
    from experiments.study.sweep.sweep_file import Sweep


def write_closing(sweep: Sweep, trials: Sequence[Trial], out: Path, console: Console | None = None) -> DataFrame:
    """Write table, CSV file and picture of the trials so far, print the table, and return what the CSV file holds."""
    trials = ranked(sweep, trials)
    frame = table_of(sweep, trials, out)
    if not trials:
        return frame
    write_whole(out / "sweep.csv", partial(frame.to_csv, index=False))
    header, rows, legend = _shown(sweep, trials)
    write_whole(out / "table.md", _markdown(header, rows, legend))
    _print(header, rows, legend, console or Console())
    finished = [trial for trial in trials if trial.state == FINISHED]
    varying = [one for one in sweep.parameters if one.varies]
    if finished and varying:
        picture = draw_sweep(varying, finished, sweep)
        write_whole(out / "sweep.png", partial(picture.savefig, format="png", dpi=130))
    return frame


def ranked(sweep: Sweep, trials: Sequence[Trial]) -> list[Trial]:
    """The trials, best first; then those that failed or were stopped, by number."""
    sign = -1 if sweep.goal == "maximize" else 1
    return sorted(trials, key=lambda one: (one.value is None, sign * (one.value or 0), one.number))


def table_of(sweep: Sweep, trials: Sequence[Trial], out: Path) -> DataFrame:
    """A row a trial: its number and state, its parameters, the metric, seconds, why it failed, its folder."""
    names = [one.name for one in sweep.parameters]
    rows = [
        {"trial": one.number, "state": one.state}
        | {name: one.parameters.get(name) for name in names}
        | {sweep.metric: one.value, "seconds": round(one.seconds, 1), "why": one.why, "folder": str(out / one.name)}
        for one in trials
    ]
    return pd.DataFrame(rows, columns=["trial", "state", *names, sweep.metric, "seconds", "why", "folder"])


def shown(value: Any) -> str:
    """A parameter or a metric in a table."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def told(sweep: Sweep, trial: Trial) -> str:
    """The parameters of a trial that vary, such as "norm bn, lr 0.1"."""
    varying = [one.name for one in sweep.parameters if one.varies]
    return ", ".join(f"{name} {shown(trial.parameters.get(name))}" for name in varying)


def _shown(sweep: Sweep, trials: Sequence[Trial]) -> tuple[list[str], list[list[str]], str]:
    """The table in texts: heading, rows, and how to read it."""
    varying = [one.name for one in sweep.parameters if one.varies]
    header = ["trial", *varying, sweep.metric, "time"]
    rows = []
    for one in trials:
        value = shown(one.value) if one.value is not None else one.state if one.state == FAILED else "stopped"
        values = [shown(one.parameters.get(name)) for name in varying]
        rows.append([str(one.number), *values, value, in_words(one.seconds) if one.seconds else "–"])
    fixed = [f"{one.name} {shown(one.at(0))}" for one in sweep.parameters if not one.varies]
    way = "largest" if sweep.goal == "maximize" else "smallest"
    legend = f"{sweep.metric}, {way} first{'; all with ' + ', '.join(fixed) if fixed else ''}."
    failed: dict[str, list[str]] = {}
    for one in trials:
        if one.state == FAILED:
            failed.setdefault(one.why, []).append(str(one.number))
    for why, numbers in list(failed.items())[:FEW]:
        legend += f" Trial{'s' * (len(numbers) > 1)} {', '.join(numbers)} failed: {why}."
    legend += " Others failed, too: sweep.csv says why." if len(failed) > FEW else ""
    return header, rows, legend


FEW = 4
"""Most kinds of failures that a legend explains."""


def _markdown(header: list[str], rows: list[list[str]], legend: str) -> str:
    lines = [header, ["---:"] * len(header), *rows]
    escaped = [[text.replace("|", r"\|") for text in line] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in escaped) + f"\n\n{legend}\n"


def _print(header: list[str], rows: list[list[str]], legend: str, console: Console) -> None:
    printed = rich.table.Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in header:
        printed.add_column(escape(heading), justify="right", no_wrap=True)
    for i, row in enumerate(rows):
        style = "bold green" if i == 0 and len(rows) > 1 else None
        printed.add_row(*map(escape, row), style=style)
    printed.width = console.measure(printed, options=console.options.update(width=1000)).maximum
    console.print(printed, crop=False)
    console.print(escape(legend), highlight=False)
