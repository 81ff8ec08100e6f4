"""How far a long evaluation is: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

EVERY = 0.1
"""Share of the work from one line of a log to the next."""


@contextmanager
def progress_bar(total: float) -> Iterator[Callable[[str, float], None]]:
    """Show progress towards `total`, none for 0; gives what to call with a word on the work and how much was done."""
    console = Console()
    if not total:
        yield lambda word, done: None
    elif console.is_terminal:
        columns = (BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("left:"), TimeRemainingColumn())
        with Progress(TextColumn("{task.description}"), *columns, console=console) as progress:
            task = progress.add_task("judging", total=total)
            yield lambda word, done: progress.update(task, advance=done, description=word)
    else:
        yield _Log(total)


class _Log:
    def __init__(self, total: float):
        self.total, self.done, self.said, self.started = total, 0.0, 0.0, time.monotonic()

    def __call__(self, word: str, done: float) -> None:
        self.done += done / self.total
        if self.done >= min(self.said + EVERY, 1 - 1e-9):
            self.said = self.done
            print(f"judged {100 * self.done:.0f} % ({word}), {time.monotonic() - self.started:.0f} s", flush=True)
