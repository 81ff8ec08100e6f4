"""The limit of time of a study, before which it stops with a checkpoint."""

from __future__ import annotations

import re
import sys
import time

from experiments.study.endings import UsageError
from experiments.study.signals.slurm import is_first_process

STATUS = 124
"""Exit status of a study that has stopped before its limit, as of `timeout`."""
RESERVE = 15.0
"""Seconds for writing a checkpoint and the report."""


class TimeLimit:
    """So many seconds from the study's start.

    Args:
        text: minutes, HH:MM:SS or D-HH:MM:SS. started: in seconds since the epoch.

    Raises:
        UsageError: it is none of these.
    """

    def __init__(self, text: str, started: float):
        self.text, self.ends = text, started + seconds_of(text)

    def reached(self, margin: float = 0.0) -> bool:
        """Whether what takes `margin` seconds would end too late to leave time for a checkpoint."""
        return time.time() + margin + RESERVE >= self.ends

    def say(self, stopped: str) -> None:
        """Print where the study has stopped; in the first process.

        Args:
            stopped: the beginning of a sentence.
        """
        if is_first_process():
            said = f"{stopped}, since --time-limit {self.text} is near; the same command, with --resume, goes on."
            print(said, file=sys.stderr, flush=True)


def seconds_of(text: str) -> float:
    """Seconds of a limit of time, as for `TimeLimit`."""
    clock = re.fullmatch(r"(?:(\d{1,4})-)?(\d{1,4}):([0-5]\d):([0-5]\d)", text.strip())
    if clock and any(int(part or 0) for part in clock.groups()):
        days, hours, minutes, seconds = (int(part or 0) for part in clock.groups())
        return float(((24 * days + hours) * 60 + minutes) * 60 + seconds)
    if re.fullmatch(r"\d{1,7}(\.\d*)?", text.strip()) and float(text) > 0:
        return 60 * float(text)
    raise UsageError(f"--time-limit {text}: pass minutes, HH:MM:SS or D-HH:MM:SS.")
