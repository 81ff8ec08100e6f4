"""The parameters of a W&B sweep and their distributions.

Every distribution is a function from [0, 1] to values, its quantile function. Random search and optuna draw numbers
from [0, 1], so that all distributions work with both.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from experiments.study.endings import UsageError

KEYS = {
    "constant": ("value",),
    "categorical": ("values",),
    "categorical_w_probabilities": ("values", "probabilities"),
    "int_uniform": ("min", "max"),
    "uniform": ("min", "max"),
    "q_uniform": ("min", "max", "q"),
    "log_uniform": ("min", "max"),
    "q_log_uniform": ("min", "max", "q"),
    "log_uniform_values": ("min", "max"),
    "q_log_uniform_values": ("min", "max", "q"),
    "normal": ("mu", "sigma"),
    "q_normal": ("mu", "sigma", "q"),
    "log_normal": ("mu", "sigma"),
    "q_log_normal": ("mu", "sigma", "q"),
}
"""W&B's distributions that are known here, and the keys that each takes beside `distribution`."""

DEFAULTS = {"q": 1, "mu": 0.0, "sigma": 1.0}
"""Of keys that may be left out."""

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
"""What W&B allows as a parameter's name."""

TAIL = 1e-9
"""Quantiles closer to 0 or 1 than this are not drawn: those of a normal distribution are infinite."""

MOST_VALUES = 1_000_000
"""Most values of a parameter of a grid."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a sweep."""

    name: str
    distribution: str
    at: Callable[[float], Any]
    """The value at a quantile, a number from 0 to 1."""
    values: tuple[Any, ...] | None = None
    """All its values, where they can be listed."""

    @property
    def varies(self) -> bool:
        return self.distribution != "constant"

    @property
    def is_logarithmic(self) -> bool:
        return "log" in self.distribution

    @property
    def is_choice(self) -> bool:
        """Whether its values are listed in the file, and so have no order."""
        return self.distribution in ("categorical", "categorical_w_probabilities")


def read_parameter(name: str, given: Any) -> Parameter:
    """A parameter from its entry under `parameters` in a sweep file.

    Raises:
        UsageError: W&B would not take it, or its distribution is not one of `KEYS`.
    """
    if not NAME.fullmatch(name):
        raise UsageError(f"parameters: {name!r} cannot be a parameter's name.")
    if not isinstance(given, Mapping):
        raise UsageError(f"parameters.{name}: give it value, or values, or min and max.")
    kind = given.get("distribution", _usual(given))
    if not isinstance(kind, str) or kind not in KEYS:
        keys = ", ".join(map(str, given)) or "no keys"
        said = f"the distribution {kind!r} is not known" if kind else f"it has {keys}, and names no distribution"
        raise UsageError(
            f"parameters.{name}: {said}: give it value, or values, or min and max, or one of {', '.join(KEYS)}."
        )
    unknown = [key for key in given if key not in (*KEYS[kind], "distribution")]
    missing = [key for key in KEYS[kind] if key not in given and key not in DEFAULTS]
    if unknown or missing:
        said = f"takes no {unknown[0]}" if unknown else f"needs {missing[0]}"
        raise UsageError(f"parameters.{name}: {kind} {said}; its keys are {', '.join(KEYS[kind])}.")
    return _made(name, kind, {**DEFAULTS, **given})


def _usual(given: Mapping) -> str | None:
    """The distribution of an entry that names none, as W&B has it."""
    if "value" in given:
        return "constant"
    if "values" in given:
        return "categorical_w_probabilities" if "probabilities" in given else "categorical"
    if {"min", "max"} <= {*given}:
        return "int_uniform" if all(type(given[key]) is int for key in ("min", "max")) else "uniform"
    return None


def _made(name: str, kind: str, given: dict) -> Parameter:
    if kind == "constant":
        value = _plain(name, given["value"])
        return Parameter(name, kind, lambda place: value, (value,))
    if "values" in KEYS[kind]:
        return _choice(name, kind, given)
    for key in KEYS[kind]:
        given[key] = _number(name, key, given[key])
    if kind == "int_uniform":
        return _integers(name, given)
    quantile = _quantile(name, kind, given)
    bounds = _bounds(kind, given)
    if not kind.startswith("q_"):
        return Parameter(name, kind, lambda place: min(max(quantile(_inside(place)), bounds[0]), bounds[1]))
    return _rounded(name, kind, quantile, given["q"], bounds)


def _choice(name: str, kind: str, given: dict) -> Parameter:
    values = given["values"]
    if not isinstance(values, list) or not values:
        raise UsageError(f"parameters.{name}: values must be a list with one value or more.")
    values = tuple(_plain(name, value) for value in values)
    weights = given.get("probabilities", [1] * len(values))
    if not isinstance(weights, list) or len(weights) != len(values):
        raise UsageError(f"parameters.{name}: probabilities must be a list of {len(values)} numbers, one a value.")
    weights = np.array([_number(name, "probabilities", weight) for weight in weights], float)
    if (weights < 0).any() or not math.isfinite(weights.sum()) or weights.sum() <= 0:
        raise UsageError(f"parameters.{name}: probabilities must be 0 or more, and not all 0.")
    ends = np.cumsum(weights / weights.sum())
    last = int(np.flatnonzero(weights)[-1])
    return Parameter(
        name, kind, lambda place: values[min(int(np.searchsorted(ends, place, side="right")), last)], values
    )


def _integers(name: str, given: dict) -> Parameter:
    low, high = given["min"], given["max"]
    if int(low) != low or int(high) != high or high < low:
        raise UsageError(f"parameters.{name}: int_uniform needs integers, min no larger than max.")
    low, count = int(low), int(high) - int(low) + 1
    listed = tuple(range(low, low + count)) if count <= MOST_VALUES else None
    return Parameter(name, "int_uniform", lambda place: low + min(int(place * count), count - 1), listed)


def _quantile(name: str, kind: str, given: dict) -> Callable[[float], float]:
    """The quantile function of a continuous distribution, without rounding."""
    plain = kind.removeprefix("q_")
    if "mu" in KEYS[kind]:
        if given["sigma"] <= 0:
            raise UsageError(f"parameters.{name}: sigma must be larger than 0.")
        known = stats.norm(given["mu"], given["sigma"])
        return lambda place: float(known.ppf(place)) if plain == "normal" else _exp(float(known.ppf(place)))
    low, high = given["min"], given["max"]
    if high <= low:
        raise UsageError(f"parameters.{name}: min must be smaller than max.")
    if plain == "log_uniform_values":
        if low <= 0:
            raise UsageError(f"parameters.{name}: min of {kind} must be larger than 0.")
        low, high = math.log(low), math.log(high)
    known = stats.uniform(low, high - low)
    return lambda place: float(known.ppf(place)) if plain == "uniform" else _exp(float(known.ppf(place)))


def _bounds(kind: str, given: dict) -> tuple[float, float]:
    """The smallest and the largest value."""
    if "mu" in KEYS[kind]:
        return -math.inf, math.inf
    if kind.endswith("log_uniform"):  # whose min and max are exponents
        return _exp(given["min"]), _exp(given["max"])
    return given["min"], given["max"]


def _exp(exponent: float) -> float:
    return math.exp(exponent) if exponent < 709 else math.inf


def _rounded(
    name: str, kind: str, quantile: Callable[[float], float], step: float, bounds: tuple[float, float]
) -> Parameter:
    """Values rounded to multiples of q that lie within the bounds."""
    if step <= 0:
        raise UsageError(f"parameters.{name}: q must be larger than 0.")
    first, last = (
        edge if math.isinf(edge) else turn(round(edge / step, 9))
        for edge, turn in zip(bounds, (math.ceil, math.floor), strict=True)
    )
    if first > last:
        raise UsageError(f"parameters.{name}: no multiple of q = {step:g} lies between min and max.")

    def multiple(count: float) -> float | int:
        value = round(count) * step
        return int(value) if isinstance(step, int) else float(f"{value:.12g}")  # 0.3, not 0.30000000000000004

    listed = None
    if kind == "q_uniform" and last - first < MOST_VALUES:
        listed = tuple(multiple(count) for count in range(first, last + 1))
    return Parameter(
        name, kind, lambda place: multiple(min(max(round(quantile(_inside(place)) / step), first), last)), listed
    )


def _inside(place: float) -> float:
    return min(max(place, TAIL), 1 - TAIL)


def _number(name: str, key: str, given: Any) -> float | int:
    """A number of an entry; YAML reads 1e-4 as a text."""
    if isinstance(given, str):
        with suppress(ValueError):
            given = float(given)
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not _is_finite(given):
        raise UsageError(f"parameters.{name}: {key} must be a finite number.")
    return given


def _is_finite(number: float | int) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # an integer that is larger than any float
        return False


def _plain(name: str, value: Any) -> Any:
    """A value that can be one argument of a command line."""
    if value is not None and not isinstance(value, (str, int, float, bool)):
        raise UsageError(f"parameters.{name}: {value!r} is no text, number or truth value.")
    return value
