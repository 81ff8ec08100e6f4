"""A sweep under way: its trials, what is left of it, and the lines that it prints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from experiments.study.run_lock import RunLock
from experiments.study.sweep.closing import told
from experiments.study.sweep.processes import Processes
from experiments.study.sweep.sweep_file import Sweep
from experiments.study.sweep.trial_files import FINISHED, RUNNING, Trial
from experiments.study.time_left import in_words, until


@dataclass
class Progress:
    """A sweep under way."""

    sweep: Sweep
    out: Path
    count: int
    """How many trials there are to be."""
    seed: int
    further: list[str]
    """Flags for every trial."""
    processes: Processes
    trials: dict[int, Trial]
    """Those that have begun, by number."""
    lock: RunLock
    stopped: set[int] = field(default_factory=set)
    """Trials that were stopped from outside, and are left for the next call."""

    @property
    def waiting(self) -> Iterator[int]:
        """The numbers of the trials that are to be started."""
        over = {number for number, trial in self.trials.items() if trial.state != RUNNING} | self.stopped
        return (n for n in range(1, self.count + 1) if n not in over and not self.processes.has(n))

    @property
    def next(self) -> int | None:
        """The trial to start next; None if there is none, or the metric's target is reached."""
        best = self.best
        reached = best is not None and best.value is not None and self.sweep.reaches(best.value)
        return None if reached else next(self.waiting, None)

    @property
    def best(self) -> Trial | None:
        """The best trial so far."""
        best = None
        for trial in self.trials.values():
            if trial.value is not None and (best is None or self.sweep.is_better(trial.value, best.value)):
                best = trial
        return best

    def left(self) -> str:
        """How long the sweep still takes, such as "10 min left, until 16:32"; "" if that is unknown or nothing is left.

        A trial takes as long as those that have finished did on average.
        """
        done = [trial.seconds for trial in self.trials.values() if trial.state == FINISHED]
        waiting = 0 if self.next is None else len(list(self.waiting))
        if not done or not (waiting or len(self.processes)):
            return ""
        mean = sum(done) / len(done)
        running = [self.trials[number].seconds + ran for number, ran in self.processes.seconds().items()]
        seconds = waiting * mean + sum(max(0.0, mean - ran) for ran in running)
        seconds /= min(self.processes.count, waiting + len(self.processes))
        return f"{in_words(seconds)} left, until {until(seconds)}"

    def say(self, trial: Trial, *parts: str) -> None:
        """Print a line on a trial."""
        said = "; ".join(filter(None, parts))
        print(f"trial {trial.number} of {self.count} ({told(self.sweep, trial)}): {said}", flush=True)
