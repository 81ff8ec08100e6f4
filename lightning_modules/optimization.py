"""Optimisers and learning rates of the classification recipes."""

import math
from collections.abc import Callable

import torch
from torch import nn

from lightning_modules.classification_recipes import ClassificationRecipe
from normshift import parameter_groups


def step(recipe: ClassificationRecipe, at: int) -> float:
    """A tenth at every milestone (He et al., CVPR 2016)."""
    return 0.1 ** sum(at >= round(m * recipe.epoch_steps) for m in recipe.milestones)


def cosine(recipe: ClassificationRecipe, at: int) -> float:
    """Half a cosine from the end of the warm-up to the end of the training (Loshchilov and Hutter, ICLR 2017)."""
    warmup = warmup_steps(recipe)
    return 0.5 * (1 + math.cos(math.pi * (at - warmup) / max(1, recipe.max_steps - warmup)))


def annealed(recipe: ClassificationRecipe, at: int) -> float:
    """(1 + 10 p)^-0.75 with p the share of the training that is done (Ganin et al., JMLR 2016, section 5.2.2)."""
    return (1 + 10 * at / recipe.max_steps) ** -0.75


SCHEDULES: dict[str, Callable[[ClassificationRecipe, int], float]] = {
    "step": step,
    "cosine": cosine,
    "annealed": annealed,
}


def warmup_steps(recipe: ClassificationRecipe) -> int:
    return round(recipe.warmup_epochs * recipe.epoch_steps)


def learning_rate(recipe: ClassificationRecipe, at: int) -> float:
    """The rate of optimiser step `at`, counted from 0: linear warm-up, then the recipe's schedule."""
    warmup = warmup_steps(recipe)
    if at < warmup:
        return recipe.base_lr * (at + 1) / (warmup + 1)
    return recipe.base_lr * SCHEDULES[recipe.schedule](recipe, at)


def optimizers(recipe: ClassificationRecipe, module: nn.Module) -> dict:
    """What Lightning's `configure_optimizers` returns: SGD over the papers' parameter groups, and the schedule."""
    groups = parameter_groups(module, recipe.base_lr, recipe.weight_decay, decay_norms=recipe.decay_norms)
    optimizer = torch.optim.SGD(groups, lr=recipe.base_lr, momentum=recipe.momentum, nesterov=recipe.nesterov)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda at: learning_rate(recipe, at) / recipe.base_lr)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
