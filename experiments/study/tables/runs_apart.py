"""Arms of runs that were made apart: whether they can be compared, and their differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from experiments.study.endings import UsageError
from experiments.study.flags import ABOUT
from experiments.study.tables.differences import (
    Difference,
    compared,
    corrected,
    of_arm,
    p_text,
    paired,
    references,
    scores_by_seed,
    unpaired,
)

if TYPE_CHECKING:
    from experiments.reporting.run import Run

FREE = (
    *ABOUT, "out", "resume", "seed", "seeds", "gpus", "nodes", "workers", "wandb", "save_every", "save_minutes",
    "keep_best", "keep_every", "time_limit", "config", "plugin", "compile", "norm",
)  # fmt: skip
"""Flags that may differ between runs that measure the same."""


def comparable(runs: Mapping[str, Run]) -> None:
    """Raise UsageError unless all runs measured the same thing on the same domains."""
    measured = {name: _measured(run) for name, run in runs.items()}
    if unknown := [name for name, (headline, _) in measured.items() if not headline]:
        raise UsageError(f"{unknown[0]} holds no measure that is known here: pass the --plugin files of the run.")
    (first, known), *others = measured.items()
    for name, (headline, domains) in others:
        if headline != known[0]:
            raise UsageError(f"{name} measured {headline}, and {first} {known[0]}: not comparable.")
        if domains != known[1]:
            theirs, ours = (", ".join(sorted(found)) or "no domain" for found in (domains, known[1]))
            raise UsageError(
                f"{name} was evaluated on {theirs}, and {first} on {ours}: they measured different things."
            )


def unlike_flags(runs: Mapping[str, Run]) -> list[str]:
    """Flags that differ between the runs, in words, which may explain a difference besides the arms."""
    keys = dict.fromkeys(key for run in runs.values() for key in run.config if key not in FREE)
    values = {key: [run.config.get(key) for run in runs.values()] for key in keys}
    return [
        f"--{key.replace('_', '-')}: {', '.join(map(str, found))}"
        for key, found in values.items()
        if any(value != found[0] for value in found)
    ]


def between(runs: Mapping[str, Run], reference: str | None = None) -> list[Difference]:
    """The differences between the arms of several runs, called ARM@RUN, corrected for all of them; of one run, ARM.

    An arm is compared with that of its name in the first run that has it, or, in that run, with the run's reference
    (`differences.references`); or all with `reference`. Two arms are paired over the seeds that they share; where they
    share fewer than two, Welch's t-test compares them.

    Raises:
        UsageError: there is no arm of the reference's name.
    """
    called = {
        (name, arm): f"{arm}@{name}" if len(runs) > 1 else str(arm)
        for name, run in runs.items()
        for arm in dict.fromkeys(run.results["arm"])
    }
    names = {label: (arm, name) for (name, arm), label in called.items()}
    scores: dict[str, list[pd.Series]] = {}
    for name, run in runs.items():
        for column, values in scores_by_seed(run.results, run.headline).items():
            labels = {arm: label for (of, arm), label in called.items() if of == name}
            scores.setdefault(str(column), []).append(values.rename(index=labels, level=0))
    if reference is not None and reference not in names:
        raise UsageError(f"--reference {reference}: choose from {', '.join(names)}.")
    against = _against(called, runs) if reference is None else {arm: reference for arm in names if arm != reference}
    found = []
    for column, parts in scores.items():
        together = pd.concat(parts)
        found += [one for arm, other in against.items() if (one := _one(together, column, arm, other)) is not None]
    return corrected(found)


def _one(scores: pd.Series, column: str, arm: str, other: str) -> Difference | None:
    ours, theirs = of_arm(scores, arm), of_arm(scores, other)
    if not len(ours) or not len(theirs):
        return None
    shared = paired(scores, arm, other)
    if len(shared) > 1 or len(ours) == len(theirs) == len(shared):
        return compared(arm, other, column, shared)
    return unpaired(arm, other, column, ours.to_numpy(float), theirs.to_numpy(float))


def _against(called: Mapping[tuple[str, str], str], runs: Mapping[str, Run]) -> dict[str, str]:
    """The arm that each arm is compared with, by their labels; `called` are those, by run and arm."""
    first: dict[str, str] = {}
    for (_, arm), label in called.items():
        first.setdefault(arm, label)
    found = {label: first[arm] for (_, arm), label in called.items() if first[arm] != label}
    for name, run in runs.items():
        own = [arm for of, arm in called if of == name and first[arm] == called[of, arm]]
        found |= {called[name, arm]: called[name, other] for arm, other in references(own, run.arms).items()}
    return found


def _measured(run: Run) -> tuple[str, set[str]]:
    """A run's headline measure, and the domains on which it was evaluated."""
    if run.results is None or run.headline is None:
        return "", set()
    return run.headline.name, {*run.results["domain"].dropna().astype(str)}


HEADER = ["arm", "against", "in", "seeds", "difference", "95 % interval", "p", "p (Holm)", "test"]


def rows(found: Sequence[Difference], digits: Mapping[str, int]) -> list[list[str]]:
    """The differences as the cells of a table, under `HEADER`."""
    made = []
    for one in found:
        places = digits.get(one.score, 1)
        low, high = (f"{edge:+.{places}f}" for edge in (one.low, one.high))
        interval = f"{low} to {high}" if one.n > 1 and one.low == one.low else "–"
        p = [p_text(one.p), p_text(one.holm)] if one.n > 1 else ["–", "–"]
        made.append([one.arm, one.reference, one.score, str(one.n), f"{one.mean:+.{places}f}", interval, *p, one.test])
    return made
