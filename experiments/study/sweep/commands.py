"""The command of a trial: that of the sweep file, with the trial's parameters in the place of W&B's macros."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.study.sweep.sweep_file import ROOT, Sweep

VARIABLE = re.compile(r"\$\{envvar:([A-Z0-9_]*)\}")


def trial_command(sweep: Sweep, values: Mapping[str, Any], out: Path, further: Sequence[str] = ()) -> list[str]:
    """The command of a trial, as W&B's agent makes it, and behind it the flags that the sweep adds.

    Args:
        values: the trial's parameters. out: its folder. further: flags for every trial.
    """
    lists = _arguments(values)
    texts = {"${env}": "/usr/bin/env", "${interpreter}": sys.executable, "${program}": script_of(sweep.program)}
    line: list[str] = []
    for part in sweep.command:
        if part in lists:
            line += lists[part]
        else:
            line.append(VARIABLE.sub(lambda found: os.environ.get(found[1], found[1]), texts.get(part, part)))
    return [*line, *further, "--out", str(out), "--resume", "auto"]


def script_of(program: str | None) -> str:
    """A program's path from here, or else in this repository."""
    if program and not Path(program).exists() and (ROOT / program).exists():
        return str(ROOT / program)
    return program or ""


def _arguments(values: Mapping[str, Any]) -> dict[str, list[str]]:
    """What stands for each macro of W&B."""
    pairs = [f"{name}={value}" for name, value in values.items()]
    return {
        "${args}": [f"--{pair}" for pair in pairs],
        "${args_no_hyphens}": pairs,
        "${args_no_equals}": [text for name, value in values.items() for text in (f"--{name}", str(value))],
        "${args_no_boolean_flags}": [
            f"--{name}" if value is True else f"--{name}={value}"
            for name, value in values.items()
            if value is not False
        ],
        "${args_json}": [json.dumps(dict(values))],
        "${args_append_hydra}": [f"+{pair}" for pair in pairs],
        "${args_override_hydra}": [f"++{pair}" for pair in pairs],
    }
