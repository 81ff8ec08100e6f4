"""Bounds of numeric flags, which are the same in every script that has a flag of that name, and types of values.

A flag that is not in `BOUNDS` lies between -LARGEST and LARGEST. Upper bounds are far above useful values: they only
keep a typing error from filling the memory or starting thousands of processes.
"""

from __future__ import annotations

import dataclasses
import math
import os
import types
import typing
from contextlib import suppress
from typing import Any, NamedTuple

LARGEST = 1e12
SEEDS = 2**32 - 1
"""The largest seed that NumPy takes."""


class Bounds(NamedTuple):
    """The least and the largest value of a flag, or of each value of a flag that takes several."""

    low: float
    high: float


BOUNDS = {
    "gpus": Bounds(0, 1024),
    "nodes": Bounds(1, 4096),
    "workers": Bounds(0, max(64, 2 * (os.cpu_count() or 1))),
    "batch_size": Bounds(1, 2**20),
    "accumulate": Bounds(1, 2**16),
    "clip": Bounds(1e-12, LARGEST),
    "patience": Bounds(1, 10**6),
    "epochs": Bounds(1, 10**6),
    "max_steps": Bounds(1, 10**9),
    "save_every": Bounds(1, 10**9),
    "save_minutes": Bounds(0, 10**6),
    "keep_every": Bounds(1, 10**9),
    "seed": Bounds(0, SEEDS),
    "seeds": Bounds(1, 1000),
    "image_size": Bounds(16, 4096),
    "images": Bounds(20, 10**6),
    "width": Bounds(0.05, 64),
    "lr": Bounds(1e-12, LARGEST),
    "weight_decay": Bounds(0, LARGEST),
    "mixup": Bounds(0, 1000),
    "cutmix": Bounds(0, 1000),
    "ema_decay": Bounds(0, 1),
    "antialias": Bounds(0, 7),
    "confidence": Bounds(0, 1),
    "weight_decays": Bounds(0, LARGEST),
    "depths": Bounds(1, 2000),
    "widths": Bounds(0.05, 64),
    "sizes": Bounds(16, 4096),
    "lrs": Bounds(1e-12, LARGEST),
    "strengths": Bounds(0, 100),
    "minival": Bounds(1e-6, 0.5),
    "latency_batch": Bounds(1, 2**16),
    "latency_repeats": Bounds(1, 10**6),
    "height": Bounds(0, 8192),
    "crop": Bounds(32, 8192),
    "class_uniform": Bounds(0, 1),
    "scenes": Bounds(1, 10**6),
    "frames": Bounds(2, 10**4),
    "layers": Bounds(0, 2000),
}


def check_bounds(flags, **other: Bounds) -> str | None:
    """What is wrong with the first flag whose number is out of its bounds, or whose text is none; None where all is
    well.

    Args:
        flags: an instance of a script's flags.
        other: bounds that are this script's own.
    """
    for field in dataclasses.fields(flags):
        value = getattr(flags, field.name)
        for one in value if isinstance(value, (list, tuple)) else [value]:
            low, high = (BOUNDS | other).get(field.name, Bounds(-LARGEST, LARGEST))
            wrong = _wrong(one, low, high)
            if wrong:
                return f"{flag(field.name)} {shown(one)}: {wrong}"
    return None


def _wrong(value, low: float, high: float) -> str:
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
            return "it holds bytes that are no text."
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        if isinstance(value, float) and not math.isfinite(value):
            return "it must be a finite number."
        if value < low:
            return f"it must be {plain(low)} or more."
        if value > high:
            return f"it must be {plain(high)} or less."
    return ""


def flag(name: str) -> str:
    """A field's flag."""
    return f"--{name.replace('_', '-')}"


def plain(number: float) -> str:
    """A bound in readable form: 4294967295, 0.05, 1e-12."""
    return str(int(number)) if float(number).is_integer() and abs(number) < LARGEST else f"{number:g}"


def shown(value) -> str:
    """A value in a sentence, cut where it is long."""
    text = "of many digits" if _long(value) else f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _long(value) -> bool:
    return isinstance(value, int) and value.bit_length() > 10_000  # Python does not print such numbers


def fitting(value: Any, kind: Any) -> Any:
    """Convert a value of a config.yaml to its flag's type: lists to tuples, and integers and texts such as "1e-3"
    (which YAML reads as text) to floats.

    Raises:
        TypeError: it does not have that type; the message says what was expected.
    """
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else fitting(value, next(one for one in parts if one is not type(None)))
    if origin in (list, tuple):
        count = len(parts) if origin is tuple else None
        if not isinstance(value, (list, tuple)) or count not in (None, len(value)):
            raise TypeError(f"expected a list of {'' if count is None else f'{count} '}{NAMES[parts[0]]}s")
        return origin(fitting(one, parts[0]) for one in value)
    if kind is float and type(value) in (int, str):
        with suppress(ValueError, OverflowError):
            return float(value)
    if type(value) is not kind:
        raise TypeError(f"expected {'an' if kind is int else 'a'} {NAMES[kind]}")
    return value


NAMES = {int: "integer", float: "number", str: "text", bool: "value true or false"}
