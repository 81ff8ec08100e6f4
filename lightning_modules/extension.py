"""Whether a training can be made longer: whether the longer one would have taken the same steps so far."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from lightning_modules.optimization import rate_factor
from lightning_modules.training_recipe import TrainingRecipe

LENGTHS = {"max_steps", "epochs", "milestones", "warmup_epochs"}
"""Parts of recipes that say how long a training is, or move with it; they act through the learning rate alone."""


def fault_of_longer(before: Mapping, now: Mapping, recipe: TrainingRecipe | None) -> str | None:
    """Why a training cannot become a longer one, as the middle of a sentence; None if it can.

    Args:
        before: hyper-parameters of the training that there is. now: those of the longer one.
        recipe: of the longer one, where it has one; `before["recipe"]` is then the other's.
    """
    for name in sorted({*before, *now} - {"recipe"}):
        if _plain(before.get(name)) != _plain(now.get(name)):
            return f"{name} would be {now.get(name)!r} and was {before.get(name)!r}"
    if recipe is None:
        return None
    try:
        old = type(recipe)(**{key: tuple(v) if isinstance(v, list) else v for key, v in before["recipe"].items()})
    except (KeyError, TypeError, AttributeError):
        return "its recipe cannot be read"
    for part in dataclasses.fields(recipe):
        was, is_ = getattr(old, part.name), getattr(recipe, part.name)
        if part.name not in LENGTHS and was != is_:
            return f"{part.name} depends on its length: it was {was} and would be {is_}"
    if (at := first_other_rate(old, recipe)) is not None:
        return (
            f"its learning rate ({recipe.schedule}) depends on its length: at step {at} it would have been another one"
        )
    return None


def first_other_rate(before: TrainingRecipe, now: TrainingRecipe) -> int | None:
    """The first step of a training, from 0, at which another recipe has another rate; None if there is none."""
    steps = range(before.max_steps)
    return next((at for at in steps if rate_factor(before, at) != rate_factor(now, at)), None)


def _plain(value: object) -> object:
    """Tuples as lists, as they are read back."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value
