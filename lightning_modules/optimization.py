"""Every optimiser and every schedule, by the name that a recipe has for it.

A recipe says `optimizer="sgd", schedule="poly"` (`TrainingRecipe`), and its module's `configure_optimizers` returns
`optimizers(recipe, module)`. A new schedule is a function of the recipe and of the study's step here, and its name in
`SCHEDULES`.
"""

import math
from collections.abc import Callable, Iterable

import torch
from torch import nn

from lightning_modules.training_recipe import TrainingRecipe
from normshift import parameter_groups

# Schedules: what share of the highest rate a step has, steps counted from 0.


def constant(recipe: TrainingRecipe, at: int) -> float:
    return 1.0


def step(recipe: TrainingRecipe, at: int) -> float:
    """A tenth at every milestone (He et al., CVPR 2016)."""
    return 0.1 ** sum(at >= milestone for milestone in recipe.milestone_steps)


def poly(recipe: TrainingRecipe, at: int) -> float:
    """(1 - p)^power with p the share of the training that is done (Chen et al., TPAMI 2018, DeepLab); power 1: a line.

    A training that goes on behind its last step stands still.
    """
    return max(1 - at / recipe.max_steps, 0.0) ** recipe.poly_power


def cosine(recipe: TrainingRecipe, at: int) -> float:
    """Half a cosine from the end of the warm-up to the end of the training (Loshchilov and Hutter, ICLR 2017)."""
    warmup = recipe.warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (at - warmup) / max(1, recipe.max_steps - warmup)))


def whole_cosine(recipe: TrainingRecipe, at: int) -> float:
    """Half a cosine over all steps, whose first ones the warm-up takes the place of (TensorFlow Model Garden's)."""
    return 0.5 * (1 + math.cos(math.pi * at / recipe.max_steps))


def inverse(recipe: TrainingRecipe, at: int) -> float:
    """(1 + gamma i)^-0.75 at step i, however many there are (Transfer-Learning-Library's)."""
    return (1 + recipe.lr_gamma * at) ** -0.75


def annealed(recipe: TrainingRecipe, at: int) -> float:
    """(1 + 10 p)^-0.75 with p the share of the training that is done (Ganin et al., JMLR 2016, section 5.2.2)."""
    return (1 + 10 * at / recipe.max_steps) ** -0.75


SCHEDULES: dict[str, Callable[[TrainingRecipe, int], float]] = {
    "constant": constant,
    "step": step,
    "poly": poly,
    "cosine": cosine,
    "whole-cosine": whole_cosine,
    "inverse": inverse,
    "annealed": annealed,
}


# Warm-ups: the same share in the first `recipe.warmup_steps` steps. They begin one part above 0, where nothing moves.


def to_schedule(recipe: TrainingRecipe, at: int) -> float:
    """In a line to where the schedule stands at the end of the warm-up (TensorFlow Model Garden's)."""
    warmup = recipe.warmup_steps
    return SCHEDULES[recipe.schedule](recipe, warmup) * (at + 1) / (warmup + 1)


def to_highest(recipe: TrainingRecipe, at: int) -> float:
    """In a line to the highest rate, from which the schedule's then follows at once (Goyal et al. 2017)."""
    return (at + 1) / (recipe.warmup_steps + 1)


WARMUPS: dict[str, Callable[[TrainingRecipe, int], float]] = {"to-schedule": to_schedule, "to-highest": to_highest}


def rate_factor(recipe: TrainingRecipe, at: int) -> float:
    """The rate of the study's step `at`, counted from 0, as a share of `recipe.base_lr`."""
    course = WARMUPS[recipe.warmup] if at < recipe.warmup_steps else SCHEDULES[recipe.schedule]
    return course(recipe, at)


# Optimisers, over parameter groups that have their own rates and weight decay.


def sgd(recipe: TrainingRecipe, groups: list[dict]) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=recipe.base_lr, momentum=recipe.momentum, nesterov=recipe.nesterov)


def adam(recipe: TrainingRecipe, groups: list[dict]) -> torch.optim.Optimizer:
    """Weight decay joins the gradient (Kingma and Ba, ICLR 2015)."""
    return torch.optim.Adam(groups, lr=recipe.base_lr, betas=(recipe.momentum, recipe.beta2))


def adamw(recipe: TrainingRecipe, groups: list[dict]) -> torch.optim.Optimizer:
    """Weight decay apart from the gradient (Loshchilov and Hutter, ICLR 2019)."""
    return torch.optim.AdamW(groups, lr=recipe.base_lr, betas=(recipe.momentum, recipe.beta2))


OPTIMIZERS: dict[str, Callable[[TrainingRecipe, list[dict]], torch.optim.Optimizer]] = {
    "sgd": sgd,
    "adam": adam,
    "adamw": adamw,
}


def optimizers(recipe: TrainingRecipe, module: nn.Module, backbone: Iterable[nn.Parameter] = ()) -> dict:
    """What Lightning's `configure_optimizers` returns: the recipe's optimiser over the papers' groups, and its rates.

    Args:
        module: all that is trained by it.
        backbone: its parameters whose rate is `recipe.backbone_lr` times the others'.

    Raises:
        ValueError: the recipe names an optimiser, a schedule or a warm-up that does not exist.
    """
    check_names(recipe)
    groups = parameter_groups(
        module,
        recipe.base_lr,
        recipe.weight_decay,
        decay_norms=recipe.decay_norms,
        decay_biases=recipe.decay_biases,
        decay_gates=recipe.decay_gates,
    )
    if recipe.backbone_lr != 1:
        groups = divided(groups, {id(parameter) for parameter in backbone}, recipe.backbone_lr)
    optimizer = OPTIMIZERS[recipe.optimizer](recipe, groups)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda at: rate_factor(recipe, at))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def check_names(recipe: TrainingRecipe) -> None:
    for kind, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("warmup", WARMUPS)):
        name = getattr(recipe, kind)
        if name not in known:
            raise ValueError(f"unknown {kind} {name!r}: choose from {', '.join(known)}.")


def divided(groups: list[dict], slow: set[int], factor: float) -> list[dict]:
    """Optimiser groups, each in two: the parameters of these ids at `factor` times the rate, and the rest."""
    parts = []
    for group in groups:
        own = [p for p in group["params"] if id(p) in slow]
        parts.append(group | {"name": f"backbone_{group['name']}", "params": own, "lr": factor * group["lr"]})
        parts.append(group | {"params": [p for p in group["params"] if id(p) not in slow]})
    return [part for part in parts if part["params"]]
