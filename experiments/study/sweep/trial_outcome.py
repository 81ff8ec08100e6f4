"""What a trial has come to: the numbers that W&B's summary of its run has, from its folder."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from experiments.study.endings import UsageError
from experiments.study.run_parts import RESULT, read_measures, read_metrics, read_result
from experiments.study.wandb_runs.outcome import outcome
from lightning_modules.measures import find_measure, register_measure

SHOWN = 12
"""Most keys that a message names."""


class NoValueError(ValueError):
    """A trial has no finite value of the metric, or no results at all; the message says so in half a sentence."""


def value_of(folder: Path, metric: str) -> float:
    """The metric of a trial, the mean over its trainings.

    Raises:
        NoValueError: it has no results, or the number is not finite.
        UsageError: there is no such number in them.
    """
    declared = read_measures(folder)
    for measure in declared[1].values() if declared else ():
        if find_measure(measure.name) is None:  # of a task of the user's own
            register_measure(measure)
    parts = sorted(result.parent for result in folder.glob(f"*-seed*/{RESULT}"))
    found = [_summary(part, declared[0] if declared else None) for part in parts]
    if not found:
        raise NoValueError(f"it has left no results in {folder}")
    numbers = [summary[metric] for summary in found if metric in summary]
    if not numbers:
        known = sorted(found[0], key=lambda key: (not key.startswith("final/"), key))
        more = ", ..." if len(known) > SHOWN else ""
        raise UsageError(
            f"metric.name {metric}: the results in {folder} have no such number; they have "
            f"{', '.join(known[:SHOWN])}{more}."
        )
    value = sum(numbers) / len(numbers)
    if not math.isfinite(value):
        raise NoValueError(f"its {metric} is not finite")
    return value


def _summary(part: Path, headline: str | None) -> dict[str, float]:
    """The numbers of one training: what it logged last, and what it came to."""
    result, logged = read_result(part) or {}, read_metrics(part)
    last = {} if logged is None else logged.apply(pd.to_numeric, errors="coerce").ffill().iloc[-1:].to_dict("list")
    found = {str(key): float(value) for key, (value,) in last.items() if value == value}
    rows = result.get("results", [])
    return found | (outcome(rows, result.get("divergence", []), headline) if rows else {})
