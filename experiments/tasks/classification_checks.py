"""Whether the arms of a classification study fit their data, their flags and the machine: before the first training."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from datamodules.image_files import DataError
from experiments.study.endings import UsageError
from experiments.study.settings import RunSettings
from experiments.tasks.classification_domains import Opened
from experiments.tasks.classification_flags import ClassificationFlags
from lightning_modules.classification.recipes import ClassificationRecipe
from lightning_modules.weight_averaging import remembered
from normshift.registry import NORMS

if TYPE_CHECKING:
    from experiments.tasks.classification import Arm

REMEMBERED = 0.2
"""Largest weight that the initial values may still have in an average of weights when it is evaluated."""


def fitted(flags: ClassificationFlags, arm: Arm, opened: Opened) -> Arm:
    """The arm with its recipe fitted to its data."""
    images = len(opened(arm.train, "train", arm.recipe).samples)
    try:
        recipe = arm.recipe.fitted(images, flags.max_steps)
    except ValueError as error:
        raise UsageError(f"{arm.train}: {error}") from error
    share = remembered(recipe.max_steps, recipe.ema_decay, recipe.ema_warmup) if recipe.ema_decay else 0.0
    if share > REMEMBERED and not flags.smoke:
        raise UsageError(
            f"an average of decay {recipe.ema_decay:g} would be {100 * share:.0f} % its first step's weights after "
            f"{recipe.max_steps} steps: train longer, or pass a lower --ema-decay, 0 for none."
        )
    if arm.adapt_to and len(opened(arm.adapt_to, "train", recipe).samples) < recipe.batch_size:
        raise UsageError(f"{arm.adapt_to} has fewer images than the {recipe.batch_size} of one step to adapt to.")
    return dataclasses.replace(arm, recipe=recipe)


def check_averages(flags: ClassificationFlags, recipes: list[ClassificationRecipe]) -> None:
    """Raise UsageError if --ema-statistics has nothing to reestimate."""
    if flags.ema_statistics != "reestimated":
        return
    averaged = [recipe for recipe in recipes if recipe.ema_decay]
    if not averaged:
        raise UsageError("--ema-statistics reestimated: no weights are averaged; pass --ema-decay as well.")
    if any(recipe.frozen_norms or recipe.trains == "head" for recipe in averaged):
        raise UsageError(
            "--ema-statistics reestimated: the recipe freezes the norms, whose statistics must not change."
        )


def check_classes(arm: Arm, opened: Opened) -> None:
    """Raise UsageError if an arm's training and evaluation domains have different classes, or are videos."""
    train = opened(arm.train, "train", arm.recipe)
    others = [opened(name, "val", arm.recipe) for name in arm.evaluated]
    others += [opened(arm.adapt_to, "train", arm.recipe)] if arm.adapt_to else []
    for domain in (train, *others):
        if domain.of_videos:
            raise UsageError(f"{domain.name} holds videos: eval_robustness.py --published evaluates on them.")
        try:
            labels = domain.in_order_of(train.classes, train.name).samples.labels
        except DataError as error:
            raise UsageError(str(error)) from error
        strange = sorted(set(labels.tolist()) - set(train.samples.labels.tolist()))
        if strange and domain.on_disk:  # a part of ImageNet's folders to learn, and others to be evaluated on
            said = f"{domain.name} shows {len(strange)} classes ({train.classes[strange[0]]}"
            said = f"{said}{', ...' * (len(strange) > 1)}) of which {train.name} has no image to learn"
            if len(strange) == len(set(labels.tolist())):
                raise UsageError(f"{said}, and no other: let their folders be of the same classes.")
            print(f"warning: {said}: every prediction for their images is wrong.")


def check_processes(arm: Arm, run: RunSettings) -> None:
    """Raise UsageError if the running processes cannot train the arm."""
    shares = arm.turns(run)[0]
    if arm.recipe.batch_size % shares:
        by = run.shares_in_words if arm.processes is None else f"{shares} processes"
        raise UsageError(f"--batch-size {arm.recipe.batch_size} cannot be shared by {by}: pass a multiple of {shares}.")
    if arm.recipe.keep_last and run.flags.accumulate > 1:
        raise UsageError(
            "--accumulate: this recipe also trains on an epoch's last, smaller batch, whose images would count more "
            "than others: leave it out."
        )
    if arm.recipe.tells_domains and run.world > 1:
        raise UsageError("domainbed-dann: its alternating steps need a single process; pass --gpus 1 --nodes 1.")
    if arm.norm in NORMS and NORMS[arm.norm].synchronized and run.accelerator == "cpu" and run.world > 1:
        raise UsageError(f"--norm {arm.norm}: torch's own needs GPUs to synchronise; on CPUs: --norm bn --sync-norm.")
