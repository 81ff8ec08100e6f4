"""Optimisers, learning rates and averages of weights of the classification recipes."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from lightning_modules.classification_recipes import ClassificationRecipe
from normshift import parameter_groups


def step(recipe: ClassificationRecipe, at: int) -> float:
    """A tenth at every milestone (He et al., CVPR 2016)."""
    return 0.1 ** sum(at >= round(m * recipe.epoch_steps) for m in recipe.milestones)


def cosine(recipe: ClassificationRecipe, at: int) -> float:
    """Half a cosine from the end of the warm-up to the end of the training (Loshchilov and Hutter, ICLR 2017)."""
    warmup = warmup_steps(recipe)
    return 0.5 * (1 + math.cos(math.pi * (at - warmup) / max(1, recipe.max_steps - warmup)))


def whole_cosine(recipe: ClassificationRecipe, at: int) -> float:
    """Half a cosine over all steps, whose first ones the warm-up takes the place of (TensorFlow Model Garden's)."""
    return 0.5 * (1 + math.cos(math.pi * at / recipe.max_steps))


def inverse(recipe: ClassificationRecipe, at: int) -> float:
    """(1 + gamma i)^-0.75 at step i, however many there are (Transfer-Learning-Library's)."""
    return (1 + recipe.lr_gamma * at) ** -0.75


def constant(recipe: ClassificationRecipe, at: int) -> float:
    return 1.0


def annealed(recipe: ClassificationRecipe, at: int) -> float:
    """(1 + 10 p)^-0.75 with p the share of the training that is done (Ganin et al., JMLR 2016, section 5.2.2)."""
    return (1 + 10 * at / recipe.max_steps) ** -0.75


SCHEDULES: dict[str, Callable[[ClassificationRecipe, int], float]] = {
    "step": step,
    "cosine": cosine,
    "whole-cosine": whole_cosine,
    "inverse": inverse,
    "constant": constant,
    "annealed": annealed,
}


def warmup_steps(recipe: ClassificationRecipe) -> int:
    return round(recipe.warmup_epochs * recipe.epoch_steps)


def learning_rate(recipe: ClassificationRecipe, at: int) -> float:
    """The rate of optimiser step `at`, counted from 0: a linear warm-up to where the schedule then is, then that."""
    warmup, schedule = warmup_steps(recipe), SCHEDULES[recipe.schedule]
    if at < warmup:
        return recipe.base_lr * schedule(recipe, warmup) * (at + 1) / (warmup + 1)
    return recipe.base_lr * schedule(recipe, at)


def optimizers(recipe: ClassificationRecipe, module: nn.Module, slow: Iterable[nn.Parameter] = ()) -> dict:
    """What Lightning's `configure_optimizers` returns: SGD or Adam over the papers' parameter groups, and the schedule.

    `slow`: the parameters whose rate is `recipe.backbone_lr` times the others'.
    """
    groups = parameter_groups(
        module,
        recipe.base_lr,
        recipe.weight_decay,
        decay_norms=recipe.decay_norms,
        decay_biases=recipe.decay_biases,
        decay_gates=recipe.decay_gates,
    )
    if recipe.backbone_lr != 1:
        groups = divided(groups, {id(parameter) for parameter in slow}, recipe.backbone_lr)
    if recipe.optimizer == "adam":
        optimizer = torch.optim.Adam(groups, lr=recipe.base_lr, betas=(recipe.momentum, recipe.beta2))
    else:
        optimizer = torch.optim.SGD(groups, lr=recipe.base_lr, momentum=recipe.momentum, nesterov=recipe.nesterov)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda at: learning_rate(recipe, at) / recipe.base_lr)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def divided(groups: list[dict], slow: set[int], factor: float) -> list[dict]:
    """Optimiser groups, each in two: the parameters of these ids at `factor` times the rate, and the rest."""
    parts = []
    for group in groups:
        own = [p for p in group["params"] if id(p) in slow]
        parts.append(group | {"name": f"backbone_{group['name']}", "params": own, "lr": factor * group["lr"]})
        parts.append(group | {"params": [p for p in group["params"] if id(p) not in slow]})
    return [part for part in parts if part["params"]]


def ema_decay_at(recipe: ClassificationRecipe, updates: int) -> float:
    """The decay of the averaged weights after so many updates.

    With `ema_warmup` min(decay, (1 + updates) / (10 + updates)), as TensorFlow's ExponentialMovingAverage has it, so
    that the average forgets its beginning; else the decay itself.
    """
    return min(recipe.ema_decay, (1 + updates) / (10 + updates)) if recipe.ema_warmup else recipe.ema_decay


def ema_update(recipe: ClassificationRecipe) -> Callable[[list[Tensor], list[Tensor], Tensor], None]:
    """The `multi_avg_fn` of torch's AveragedModel for a recipe: averages moved, in place, towards current values.

    It depends on nothing but the number of updates, which AveragedModel keeps in a buffer: a resumed training goes on.
    """

    def update(averages: list[Tensor], current: list[Tensor], updates: Tensor) -> None:
        decay = ema_decay_at(recipe, int(updates)) if recipe.ema_warmup else recipe.ema_decay
        get_ema_multi_avg_fn(decay)(averages, current, updates)

    return update


def remembered(recipe: ClassificationRecipe) -> float:
    """The share of its beginning that the average holds after the last step."""
    decays = (ema_decay_at(recipe, at) for at in range(1, recipe.max_steps))
    return math.prod(decays) if recipe.ema_warmup else recipe.ema_decay**recipe.max_steps
