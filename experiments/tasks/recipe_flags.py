"""The recipe that a study's flags choose, and the parts of it that they override. Loads no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from experiments.study.endings import UsageError

Recipe = TypeVar("Recipe")


def named_recipe(name: str, recipes: Mapping[str, Recipe]) -> Recipe:
    """The recipe of a name. Raises UsageError where there is none."""
    if name not in recipes:
        raise UsageError(f"--recipe {name}: choose from auto, {', '.join(recipes)}.")
    return recipes[name]


def overridden_parts(recipe, flags, but: Collection[str] = ()) -> dict[str, Any]:
    """The parts of a recipe that flags of the same names give; None and False leave the recipe's own.

    Args:
        but: flags that mean something else than the part of that name.
    """
    parts = {f.name for f in dataclasses.fields(recipe)} & {f.name for f in dataclasses.fields(flags)} - {*but}
    given = {part: getattr(flags, part) for part in parts}
    return {part: value for part, value in given.items() if value is not None and value is not False}
