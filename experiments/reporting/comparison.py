"""The table of differences between the arms of several runs, printed and in Markdown."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from datamodules.whole_file import write_whole
from experiments.reporting.run import Run, read_run
from experiments.study.endings import UsageError
from experiments.study.reader import distinct_names
from experiments.study.tables.differences import digits_of, in_words
from experiments.study.tables.runs_apart import HEADER, between, comparable, rows, unlike_flags


def compare(folders: list[Path], reference: str | None = None, out: Path | None = None) -> None:
    """Print how the arms of some runs differ, and what else differs between the runs.

    Args:
        reference: the arm, ARM@RUN, with which all are compared; see `between`. out: a file for the table in Markdown.

    Raises:
        UsageError: a folder is no run or has no results, or the runs measured different things.
    """
    runs = _read(folders)
    comparable(runs)
    found = between(runs, reference)
    if not found:
        raise UsageError("there is nothing to compare: these runs hold one arm, or trainings at chance alone.")
    digits = digits_of(next(iter(runs.values())).headline)
    lines = rows(found, digits)
    said = in_words(found, digits) or "One seed each: a difference of chance cannot be told from a real one."
    notes = [said, *(f"The runs differ in {flag}." for flag in unlike_flags(runs))]
    _print(lines)
    print("\n".join(notes))
    if out is not None:
        write_whole(out, _markdown(lines) + f"\n\n{' '.join(notes)}\n")
        print(f"table: {out}")


def _read(folders: list[Path]) -> dict[str, Run]:
    """The runs by name."""
    try:
        runs = [read_run(folder) for folder in folders]
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error
    whole = [folder.resolve() for folder in folders]
    names = distinct_names(whole) if len(whole) > 1 else [whole[0].name]
    if empty := [name for name, run in zip(names, runs, strict=True) if run.results is None]:
        raise UsageError(f"{empty[0]} has no results yet: let it finish a training first.")
    return dict(zip(names, runs, strict=True))


def _print(lines: list[list[str]]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for place, heading in enumerate(HEADER):
        table.add_column(heading, justify="right" if 3 <= place <= 7 else "left", no_wrap=True)
    for line in lines:
        table.add_row(*line)
    console = Console()
    table.width = console.measure(table, options=console.options.update(width=1000)).maximum
    console.print(table, crop=False)  # also on a narrow terminal: a cropped number would be wrong


def _markdown(lines: list[list[str]]) -> str:
    escaped = [[cell.replace("|", r"\|") for cell in line] for line in (HEADER, ["---"] * len(HEADER), *lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)
