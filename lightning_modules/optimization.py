"""Every optimiser and every schedule, by the name that recipes use.

A recipe has `optimizer="sgd", schedule="poly"` (`TrainingRecipe`), and its module's `configure_optimizers` returns
`optimizers(recipe, module)`. To add a schedule, write a function of the recipe and the study's step here, and add its
name to `SCHEDULES`.
"""

import math
from collections.abc import Callable, Iterable

import torch
from torch import nn

from lightning_modules.training_recipe import TrainingRecipe
from normshift import parameter_groups

# Schedules: the learning rate at a step, counted from 0, as a share of the highest rate.


def constant(recipe: TrainingRecipe, at: int) -> float:
    return 1.0


def step(recipe: TrainingRecipe, at: int) -> float:
    """A tenth at every milestone (He et al., CVPR 2016)."""
    return 0.1 ** sum(at >= milestone for milestone in recipe.milestone_steps)


def poly(recipe: TrainingRecipe, at: int) -> float:
    """(1 - p)^power, where p is the completed share of the training (Chen et al., TPAMI 2018, DeepLab).

    The rate stays 0 after the last step.
    """
    return max(1 - at / recipe.max_steps, 0.0) ** recipe.poly_power


def cosine(recipe: TrainingRecipe, at: int) -> float:
    """Half a cosine from the end of the warm-up to the end of the training (Loshchilov and Hutter, ICLR 2017)."""
    warmup = recipe.warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (at - warmup) / max(1, recipe.max_steps - warmup)))


def whole_cosine(recipe: TrainingRecipe, at: int) -> float:
    """Half a cosine over all steps; the warm-up replaces the first ones (as in TensorFlow Model Garden)."""
    return 0.5 * (1 + math.cos(math.pi * at / recipe.max_steps))


def inverse(recipe: TrainingRecipe, at: int) -> float:
    """(1 + gamma i)^-0.75 at step i, independent of the number of steps (as in Transfer-Learning-Library)."""
    return (1 + recipe.lr_gamma * at) ** -0.75


def annealed(recipe: TrainingRecipe, at: int) -> float:
    """(1 + 10 p)^-0.75, where p is the completed share of the training (Ganin et al., JMLR 2016, section 5.2.2)."""
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


# Warm-ups: the share in the first `recipe.warmup_steps` steps. The first one is not 0, where no weight would change.


def to_schedule(recipe: TrainingRecipe, at: int) -> float:
    """Linear, to the schedule's rate at the end of the warm-up (as in TensorFlow Model Garden)."""
    warmup = recipe.warmup_steps
    return SCHEDULES[recipe.schedule](recipe, warmup) * (at + 1) / (warmup + 1)


def to_highest(recipe: TrainingRecipe, at: int) -> float:
    """Linear, to the highest rate; the schedule's own rate follows at once (Goyal et al. 2017)."""
    return (at + 1) / (recipe.warmup_steps + 1)


WARMUPS: dict[str, Callable[[TrainingRecipe, int], float]] = {"to-schedule": to_schedule, "to-highest": to_highest}


def rate_factor(recipe: TrainingRecipe, at: int) -> float:
    """The learning rate at the study's step `at`, counted from 0, as a share of `recipe.base_lr`."""
    schedule = WARMUPS[recipe.warmup] if at < recipe.warmup_steps else SCHEDULES[recipe.schedule]
    return schedule(recipe, at)


# Optimisers. The parameter groups have their own learning rates and weight decays.


def sgd(recipe: TrainingRecipe, groups: list[dict]) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=recipe.base_lr, momentum=recipe.momentum, nesterov=recipe.nesterov)


def adam(recipe: TrainingRecipe, groups: list[dict]) -> torch.optim.Optimizer:
    """Weight decay is added to the gradient (Kingma and Ba, ICLR 2015)."""
    return torch.optim.Adam(groups, lr=recipe.base_lr, betas=(recipe.momentum, recipe.beta2))


def adamw(recipe: TrainingRecipe, groups: list[dict]) -> torch.optim.Optimizer:
    """Weight decay is separate from the gradient (Loshchilov and Hutter, ICLR 2019)."""
    return torch.optim.AdamW(groups, lr=recipe.base_lr, betas=(recipe.momentum, recipe.beta2))


OPTIMIZERS: dict[str, Callable[[TrainingRecipe, list[dict]], torch.optim.Optimizer]] = {
    "sgd": sgd,
    "adam": adam,
    "adamw": adamw,
}


def optimizers(recipe: TrainingRecipe, module: nn.Module, backbone: Iterable[nn.Parameter] = ()) -> dict:
    """The optimiser and schedule of a recipe, in the form that Lightning's `configure_optimizers` returns.

    Args:
        module: the module whose parameters are trained, in the groups of `normshift.parameter_groups`.
        backbone: parameters whose learning rate is `recipe.backbone_lr` times that of the others.

    Raises:
        ValueError: the recipe names an unknown optimiser, schedule or warm-up.
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
    """Divide each parameter group: parameters whose `id` is in `slow` get `factor` times the learning rate."""
    parts = []
    for group in groups:
        own = [p for p in group["params"] if id(p) in slow]
        parts.append(group | {"name": f"backbone_{group['name']}", "params": own, "lr": factor * group["lr"]})
        parts.append(group | {"params": [p for p in group["params"] if id(p) not in slow]})
    return [part for part in parts if part["params"]]
