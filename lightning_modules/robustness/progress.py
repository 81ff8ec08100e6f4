"""The progress of a long evaluation: a bar on a terminal, occasional lines in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

EVERY = 0.1
"""Share of the work between two lines of a log."""


@contextmanager
def progress_bar(
    total: float, doing: str = "evaluating", done: str = "evaluated"
) -> Iterator[Callable[[str, float], None]]:
    """Show the progress towards `total`, nothing if it is 0. Yields a function of a description and an amount.

    Args:
        total: the amount of work.
        doing: beginning of the bar's text.
        done: beginning of a log's lines.
    """
    console = Console()
    if not total:
        yield lambda word, amount: None
    elif console.is_terminal:
        columns = (BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("left:"), TimeRemainingColumn())
        with Progress(TextColumn("{task.description}"), *columns, console=console) as progress:
            task = progress.add_task(doing, total=total)
            yield lambda word, amount: progress.update(task, advance=amount, description=word)
    else:
        yield _Log(total, done)


class _Log:
    def __init__(self, total: float, word: str):
        self.word = word
        self.total, self.done, self.printed, self.started = total, 0.0, 0.0, time.monotonic()

    def __call__(self, word: str, done: float) -> None:
        self.done += done / self.total
        if self.done >= min(self.printed + EVERY, 1 - 1e-9):
            self.printed = self.done
            print(f"{self.word} {100 * self.done:.0f} % ({word}), {time.monotonic() - self.started:.0f} s", flush=True)
