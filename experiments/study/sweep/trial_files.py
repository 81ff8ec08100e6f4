"""What a sweep keeps on disk of each trial: `OUT/trial-001.json` beside its folder `OUT/trial-001`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from datamodules.whole_file import write_whole
from experiments.study.endings import UsageError

RUNNING, FINISHED, FAILED = "running", "finished", "failed"
STATES = (RUNNING, FINISHED, FAILED)


@dataclass
class Trial:
    """One trial of a sweep."""

    number: int
    """From 1."""
    parameters: dict[str, Any]
    state: str = RUNNING
    """A trial that has begun and not ended is running; so is one that was stopped, until the sweep goes on."""
    value: float | None = None
    """The metric, of a finished trial."""
    seconds: float = 0.0
    """How long it took, with all its interruptions left out."""
    why: str = ""
    """Why it failed."""
    places: dict[str, float] = field(default_factory=dict)
    """Where its parameters lie, in optuna's terms."""

    @property
    def name(self) -> str:
        return f"trial-{self.number:03d}"


def write_trial(out: Path, trial: Trial) -> None:
    write_whole(out / f"{trial.name}.json", json.dumps(asdict(trial), indent=1))


def read_trials(out: Path) -> dict[int, Trial]:
    """The trials that have begun in a sweep's folder, by number.

    Raises:
        UsageError: a file of one is damaged.
    """
    found = {}
    for file in sorted(out.glob("trial-*.json")):
        try:
            trial = Trial(**json.loads(file.read_text(encoding="utf-8")))
            whole = trial.state in STATES and isinstance(trial.parameters, dict) and file.stem == trial.name
            if not whole or (trial.state == FINISHED and not isinstance(trial.value, float)):
                raise ValueError("not as it was written")
        except (OSError, ValueError, TypeError) as error:
            folder = file.with_suffix("")
            raise UsageError(f"--resume: {file} is damaged: remove it and {folder} to run it anew.") from error
        found[trial.number] = trial
    return found
