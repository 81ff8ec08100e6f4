"""Which parameters each trial of a sweep has.

A grid is the product of the values, the last parameter changing fastest. A random trial is a function of the seed and
its number alone. optuna's tree-structured Parzen estimator (Bergstra et al. 2011) chooses by the seed, the trial's
number and the trials that have ended by then; so with one process a sweep that goes on chooses as one that was never
stopped.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np

from experiments.study.endings import UsageError
from experiments.study.sweep.parameters import Parameter
from experiments.study.sweep.sweep_file import Sweep
from experiments.study.sweep.trial_files import FINISHED, RUNNING, Trial

MOST_TRIALS = 100_000


def count_of(sweep: Sweep, trials: int | None) -> int:
    """How many trials a sweep has: of a grid all, and never more than `run_cap` and `trials`.

    Raises:
        UsageError: a random sweep or one by optuna has neither `run_cap` nor `trials`; or there are too many.
    """
    limits = [limit for limit in (sweep.run_cap, trials) if limit is not None]
    if sweep.method == "grid":
        limits.append(prod(len(one.values or ()) for one in sweep.parameters))
    elif not limits:
        raise UsageError(f"a sweep by method {sweep.method} has no end of its own: pass --trials, or give it run_cap.")
    if min(limits) > MOST_TRIALS:
        raise UsageError(f"the sweep has {min(limits):,} trials: pass --trials of {MOST_TRIALS:,} or less.")
    return min(limits)


def drawn(sweep: Sweep, number: int, seed: int, known: Sequence[Trial]) -> Trial:
    """A new trial.

    Args:
        number: its number, from 1. known: the trials that have begun before.
    """
    if sweep.method == "grid":
        return Trial(number, next(itertools.islice(grid(sweep.parameters), number - 1, None)))
    if sweep.method == "random":
        places = np.random.default_rng((seed, number)).random(len(sweep.parameters))
        pairs = zip(sweep.parameters, places, strict=True)
        return Trial(number, {one.name: one.at(float(place)) for one, place in pairs})
    places = suggested(sweep, number, seed, known)
    values = {one.name: value_at(one, places.get(one.name, 0)) for one in sweep.parameters}
    return Trial(number, values, places=places)


def grid(parameters: Sequence[Parameter]) -> Iterator[dict[str, Any]]:
    """The parameters of every trial of a grid."""
    names = [one.name for one in parameters]
    for values in itertools.product(*(one.values or () for one in parameters)):
        yield dict(zip(names, values, strict=True))


def value_at(parameter: Parameter, place: float) -> Any:
    """The value at an index of a choice, or at a quantile of any other parameter."""
    return parameter.values[int(place)] if parameter.is_choice and parameter.values else parameter.at(place)


def suggested(sweep: Sweep, number: int, seed: int, known: Sequence[Trial]) -> dict[str, float]:
    """What optuna suggests for the parameters that vary: an index of each choice, a quantile of all others.

    Trials that are under way count as bad ones, so that those side by side differ.
    """
    try:
        import optuna  # slow to import, and only method bayes needs it
    except ModuleNotFoundError as error:
        raise UsageError("method bayes needs the PyPI package optuna: pip install optuna.") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {
        one.name: optuna.distributions.CategoricalDistribution(tuple(range(len(one.values or ()))))
        if one.is_choice
        else optuna.distributions.FloatDistribution(0, 1)
        for one in sweep.parameters
        if one.varies
    }
    states = optuna.trial.TrialState
    running = [trial for trial in known if trial.state == RUNNING]
    mixed = int(np.random.default_rng((seed, number)).integers(2**32))
    sampler = optuna.samplers.TPESampler(seed=mixed, constant_liar=bool(running))
    study = optuna.create_study(sampler=sampler, direction=sweep.goal)
    for trial in [trial for trial in known if trial.state == FINISHED] + running:
        ended = {"state": states.RUNNING} if trial in running else {"state": states.COMPLETE, "value": trial.value}
        study.add_trial(optuna.trial.create_trial(params=trial.places, distributions=space, **ended))
    return dict(study.ask(space).params)
