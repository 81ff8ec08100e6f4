"""Every schedule and warm-up compared with its formula at every step, and the optimisers of all recipes."""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from datamodules.segmentation.domains import Domain
from datamodules.segmentation.labels import STREET
from lightning_modules.classification.domain_adversarial import DomainAdversarialModule, DomainInvariantModule
from lightning_modules.classification.module import ClassificationModule
from lightning_modules.classification.recipes import CLASSIFICATION_RECIPES
from lightning_modules.optimization import OPTIMIZERS, SCHEDULES, WARMUPS, optimizers, rate_factor
from lightning_modules.segmentation.module import SegmentationModule
from lightning_modules.segmentation.recipes import SEGMENTATION_RECIPES
from lightning_modules.training_recipe import TrainingRecipe


@dataclass(frozen=True, kw_only=True)
class Recipe(TrainingRecipe):
    """Everything that a new task's recipe needs besides names."""

    max_steps: int = 1000
    warmup_steps: int = 0


def recipe(**parts) -> Recipe:
    return Recipe(**{"batch_size": 4, "lr": 0.1, "weight_decay": 1e-4, "schedule": "constant"} | parts)


def factors(of: TrainingRecipe) -> np.ndarray:
    """The share of the highest rate at every step."""
    return np.array([rate_factor(of, at) for at in range(of.max_steps)])


# Schedules

FORMULAS = {
    # schedule: its factor at all steps, of the recipe's steps in all, those of the warm-up, milestones, gamma and power
    "constant": lambda at, steps, warmup, milestones, gamma, power: np.ones_like(at),
    "step": lambda at, steps, warmup, milestones, gamma, power: 10.0 ** -np.searchsorted(milestones, at, "right"),
    "poly": lambda at, steps, warmup, milestones, gamma, power: np.exp(power * np.log1p(-at / steps)),
    "cosine": lambda at, steps, warmup, milestones, gamma, power: (
        np.cos(np.pi / 2 * (at - warmup) / (steps - warmup)) ** 2
    ),
    "whole-cosine": lambda at, steps, warmup, milestones, gamma, power: np.cos(np.pi / 2 * at / steps) ** 2,
    "inverse": lambda at, steps, warmup, milestones, gamma, power: np.exp(-0.75 * np.log1p(gamma * at)),
    "annealed": lambda at, steps, warmup, milestones, gamma, power: np.exp(-0.75 * np.log1p(10 * at / steps)),
}
"""Written another way than there, so that a slip does not stand in both."""


def by_formula(of: TrainingRecipe) -> np.ndarray:
    at, warmup = np.arange(of.max_steps, dtype=np.float64), of.warmup_steps
    numbers = of.max_steps, warmup, sorted(of.milestone_steps), of.lr_gamma, of.poly_power
    found = FORMULAS[of.schedule](at, *numbers)
    end = FORMULAS[of.schedule](np.array([float(warmup)]), *numbers)[0] if of.warmup == "to-schedule" else 1.0
    found[:warmup] = end * np.arange(1, warmup + 1) / (warmup + 1)
    return found


def test_every_schedule_has_a_formula_here():
    assert FORMULAS.keys() == SCHEDULES.keys()


@pytest.mark.parametrize("warmup", WARMUPS)
@pytest.mark.parametrize("warmup_steps", [0, 1, 37])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_are_their_formulas_at_every_step(schedule, warmup_steps, warmup):
    numbers = {"milestones": (100, 250.4, 900), "lr_gamma": 3e-3, "poly_power": 0.9}
    of = recipe(schedule=schedule, warmup=warmup, warmup_steps=warmup_steps, **numbers)
    np.testing.assert_allclose(factors(of), by_formula(of), rtol=1e-11, atol=1e-15)


def test_poly_of_power_one_is_a_line_and_ends_at_zero():
    of = recipe(schedule="poly", poly_power=1.0, max_steps=8)
    assert [rate_factor(of, at) for at in (0, 2, 8, 9)] == [1, 0.75, 0, 0]


def test_milestones_count_steps_and_each_begins_the_lower_rate():
    of = recipe(schedule="step", milestones=(3, 5), max_steps=7)
    np.testing.assert_allclose(factors(of), [1, 1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_warm_up_meets_its_schedule_without_a_jump(schedule):
    of = recipe(schedule=schedule, warmup_steps=50, milestones=(500,), lr_gamma=3e-3)
    warm = factors(of)[:51]
    np.testing.assert_allclose(np.diff(warm, prepend=0.0), warm[50] / 51, rtol=1e-9)  # a line, from one part above 0
    assert warm[50] == SCHEDULES[schedule](of, 50)


def test_a_warm_up_to_the_highest_rate_is_a_line_whatever_follows():
    of = recipe(schedule="poly", warmup="to-highest", warmup_steps=3, max_steps=10)
    np.testing.assert_allclose(factors(of)[:3], [0.25, 0.5, 0.75])
    np.testing.assert_allclose(factors(of)[3:], [(1 - at / 10) ** 0.9 for at in range(3, 10)])


CLASSIFICATION = {
    # (schedule, warm-up epochs) of the published recipes; the others are in the table of the rates that were worked out
    # by hand (test_classification_recipes.py) or ours
    "sn-step": ("step", 0), "sn-cosine": ("cosine", 5), "resnet-rs-50-160": ("whole-cosine", 5),
    "tll-dann": ("inverse", 0), "domainbed-erm": ("constant", 0), "dann": ("annealed", 0), "laptop": ("cosine", 3),
}  # fmt: skip


@pytest.mark.parametrize("name", CLASSIFICATION_RECIPES)
def test_classification_recipes_follow_their_formula_at_every_step(name):
    of = dataclasses.replace(CLASSIFICATION_RECIPES[name], epoch_length=None)
    of = of.fitted(20 * of.batch_size)  # 20 steps an epoch
    np.testing.assert_allclose(factors(of), by_formula(of), rtol=1e-10, atol=1e-13)
    if name in CLASSIFICATION:
        assert (of.schedule, of.warmup_steps / 20) == CLASSIFICATION[name]


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("robustnet", {0: 0.01, 20_000: 0.01 * 0.5**0.9, 39_999: 0.01 * (1 / 40_000) ** 0.9}),
        ("robustnet-r101", {0: 0.01, 30_000: 0.01 * 0.25**0.9}),
        ("smoke", {0: 0.005, 1: 0.01 * 0.75**0.9, 3: 0.01 * 0.25**0.9}),
    ],
)
def test_segmentation_recipes_decay_as_published(name, rates):
    of = SEGMENTATION_RECIPES[name]
    assert {at: of.base_lr * rate_factor(of, at) for at in rates} == pytest.approx(rates, rel=1e-12)
    at, warmup = np.arange(of.max_steps), of.warmup_steps
    expected = np.where(at < warmup, (at + 1) / (warmup + 1), (1 - at / of.max_steps) ** of.poly_power)
    np.testing.assert_allclose(factors(of), expected, rtol=1e-12)


def test_the_laptop_warms_up_for_its_share_and_ends_in_a_cosine():
    of = SEGMENTATION_RECIPES["laptop"]
    assert of.warmup_steps == of.warmup_share * of.max_steps == 120
    rates = {0: 0.5 / 121, 119: 0.5 * 120 / 121, 120: 0.5, 460: 0.25, 799: 0.25 * (1 - math.cos(math.pi / 680))}
    assert {at: of.base_lr * rate_factor(of, at) for at in rates} == pytest.approx(rates, rel=1e-9)


def test_the_rate_scales_with_the_batch_where_the_recipe_says_so():
    assert recipe(batch_size=64).base_lr == 0.1
    assert recipe(batch_size=64, lr_batch=256).base_lr == pytest.approx(0.025)


# Optimisers

NETWORK = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


@pytest.mark.parametrize(
    ("parts", "kind", "settings"),
    [
        ({}, torch.optim.SGD, {"momentum": 0.9, "nesterov": False}),
        ({"momentum": 0.8, "nesterov": True}, torch.optim.SGD, {"momentum": 0.8, "nesterov": True}),
        ({"optimizer": "adam", "momentum": 0.5}, torch.optim.Adam, {"betas": (0.5, 0.999)}),
        ({"optimizer": "adamw", "beta2": 0.95}, torch.optim.AdamW, {"betas": (0.9, 0.95)}),
    ],
)
def test_a_recipe_names_its_optimiser(parts, kind, settings):
    optimizer = optimizers(recipe(**parts), NETWORK)["optimizer"]
    assert type(optimizer) is kind and parts.get("optimizer", "sgd") in OPTIMIZERS
    for group in optimizer.param_groups:
        assert settings.items() <= group.items()


def test_adamw_decays_apart_from_the_gradient():
    weight = nn.Linear(2, 2, bias=False)
    before = weight.weight.detach().double()
    optimizer = optimizers(recipe(optimizer="adamw", weight_decay=0.5), weight)["optimizer"]
    weight.weight.grad = torch.tensor([[1.0, -2.0], [3.0, -4.0]])
    optimizer.step()
    expected = before * (1 - 0.1 * 0.5) - 0.1 * weight.weight.grad.sign().double()  # a first step is of size one
    torch.testing.assert_close(weight.weight.detach().double(), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("kind", "known"), [("optimizer", "sgd, adam"), ("schedule", "constant"), ("warmup", "to-")])
def test_an_unknown_name_is_answered_with_those_that_there_are(kind, known):
    with pytest.raises(ValueError, match=f"unknown {kind} 'typo': choose from .*{known}"):
        optimizers(recipe(**{kind: "typo"}), NETWORK)


ALL, KERNELS, NORMS = (23, 4887), (9, 4767), (14, 120)
"""Tensors and numbers of the network below: all but its gates, those of more than one axis and the classifier's bias,
and the norms' weights and biases."""
GATES = {"sn": ("gates", (14, 42)), "bin": ("fast_gates", (7, 60))}
SGD = {
    # recipe: (highest rate, weight decay, that of SN's gates)
    "ibn-step": (0.1, 1e-4, 0), "sn-step": (0.1, 1e-4, 1e-4), "sn-cosine": (0.1, 1e-4, 1e-4),
    "bin-cifar": (0.1, 1e-4, 0), "antialiased": (0.1, 1e-4, 0), "antialiased-alexnet": (0.01, 1e-4, 0),
    "antialiased-vgg": (0.1, 5e-5, 0), "antialiased-mobilenet": (0.05, 4e-5, 0),
    "antialiased-finetune": (0.01, 1e-4, 0), "finetune": (0.01, 1e-4, 0), "office-home": (0.01, 5e-4, 0),
    "laptop": (0.3, 5e-4, 0), "smoke": (0.01 / 32, 1e-4, 0),
}  # fmt: skip


def tiny(name: str, **parts):
    """A recipe with a small network; its training settings are the recipe's."""
    sizes = {"backbone": "cifar_resnet8", "width": 0.25, "image_size": 16, "resize": None, "small_images": False}
    return dataclasses.replace(CLASSIFICATION_RECIPES[name], **sizes, **parts)


def groups(module: pl.LightningModule) -> list[tuple]:
    """(name, (tensors, numbers), rate, weight decay) of the optimiser's groups."""
    found = []
    for group in module.configure_optimizers()["optimizer"].param_groups:
        size = len(group["params"]), sum(parameter.numel() for parameter in group["params"])
        found.append((group["name"], size, group["initial_lr"], group["weight_decay"]))
    return found


def module_of(name: str, norm: str, kind=ClassificationModule) -> ClassificationModule:
    of = tiny(name)
    return kind(of.fitted(10 * of.batch_size), norm, ("a", "b", "c"), ["x"], data="u+v")


@pytest.mark.parametrize("norm", GATES)
@pytest.mark.parametrize("name", SGD)
def test_groups_of_recipes_that_decay_all_alike(name, norm):
    lr, decay, gates_decay = SGD[name]
    gates, size = GATES[norm]
    expected = [("weights", ALL, lr, decay)]
    expected += [(gates, size, lr, gates_decay) if norm == "sn" else (gates, size, pytest.approx(10 * lr), 0)]
    found = module_of(name, norm)
    assert groups(found) == expected
    nesterov = name in ("finetune", "laptop")
    assert {group["nesterov"] for group in found.configure_optimizers()["optimizer"].param_groups} == {nesterov}


@pytest.mark.parametrize("name", [name for name in CLASSIFICATION_RECIPES if name.startswith("resnet-rs-")])
def test_groups_of_resnet_rs(name):
    found = groups(module_of(name, "bin"))
    kept = [("weights", KERNELS, 1.6, 4e-5), ("norms_and_biases", NORMS, 1.6, 0)]
    assert found == [*kept, ("fast_gates", (7, 60), 16.0, 0)]


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("linear", ClassificationModule, [("weights", (2, 51), 1.6, 0)]),
        ("dann", DomainAdversarialModule, [("weights", (29, 1_072_920), 0.01, 5e-4), ("fast_gates", (7, 60), 0.1, 0)]),
        ("domainbed-erm", ClassificationModule, [("weights", ALL, 5e-5, 0), ("fast_gates", (7, 60), 5e-4, 0)]),
        ("domainbed-dann", DomainInvariantModule, [
            ("weights", (29, 75_545), 5e-5, 0), ("fast_gates", (7, 60), 5e-4, 0),
        ]),
        ("tll-dann", DomainAdversarialModule, [
            ("backbone_weights", (21, 4836), 0.001, 1e-3), ("weights", (16, 1_323_524), 0.01, 1e-3),
            ("backbone_fast_gates", (7, 60), 0.01, 0),
        ]),
        ("tll-erm", ClassificationModule, [
            ("backbone_weights", (21, 4836), 1e-4, 5e-4), ("weights", (2, 51), 0.001, 5e-4),
            ("backbone_fast_gates", (7, 60), 0.001, 0),
        ]),
    ],
)  # fmt: skip
def test_groups_of_the_other_recipes(name, kind, expected):
    assert groups(module_of(name, "bin", kind)) == [(*row[:2], pytest.approx(row[2]), row[3]) for row in expected]


def test_groups_of_network_and_auxiliary_head_together():
    """RobustNet's are in test_robustnet.py."""
    of = SEGMENTATION_RECIPES["smoke"]
    found = groups(SegmentationModule(of, "bin", [Domain("streets", [], STREET, tuple(range(19)), {})]))
    assert found == [("weights", (99, 12_482_742), 0.01, 5e-4), ("fast_gates", (30, 6960), pytest.approx(0.1), 0)]


def test_only_weights_decay_in_the_laptops_recipe():
    network = SegmentationModule(
        SEGMENTATION_RECIPES["laptop"], "bin", [Domain("streets", [], STREET, tuple(range(19)), {})]
    )
    maps = sum(p.numel() for p in network.parameters() if p.dim() == 4)
    weights, others, gates = groups(network)
    assert weights == ("weights", (34, maps), 0.5, 5e-4)
    assert others[0] == "norms_and_biases" and others[2:] == (0.5, 0)
    assert gates[0] == "fast_gates" and gates[2:] == (pytest.approx(5.0), 0)


# Going on from a checkpoint


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_restarted_schedule_goes_on_with_the_same_rates(schedule):
    of = recipe(schedule=schedule, warmup_steps=3, milestones=(5, 8), lr_gamma=0.1, max_steps=12)
    whole = stepped(optimizers(of, NETWORK), 12)
    for stop in range(12):  # also within the warm-up, and at its joint
        first = optimizers(of, NETWORK)
        begun = stepped(first, stop)
        again = optimizers(of, NETWORK)
        again["optimizer"].load_state_dict(first["optimizer"].state_dict())
        again["lr_scheduler"]["scheduler"].load_state_dict(first["lr_scheduler"]["scheduler"].state_dict())
        assert begun + stepped(again, 12 - stop) == whole, stop


def stepped(configured: dict, steps: int) -> list[float]:
    """The learning rates of the first steps."""
    optimizer, schedule, rates = configured["optimizer"], configured["lr_scheduler"]["scheduler"], []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


class Rates(pl.Callback):
    """The learning rate of each optimiser step."""

    def __init__(self):
        self.rates = []

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.rates.append(optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_resumed_training_goes_on_with_the_same_rates(accumulate, tmp_path):
    of = tiny("laptop", batch_size=4, lr_batch=4, warmup_epochs=1).fitted(24)  # 6 steps an epoch, 6 warm up

    def train(epochs: int, checkpoint=None) -> tuple[pl.Trainer, list[float]]:
        watch = Rates()
        trainer = pl.Trainer(
            max_epochs=epochs, callbacks=[watch], accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, accumulate_grad_batches=accumulate,
        )  # fmt: skip
        count = of.batch_size // accumulate
        images = DataLoader(TensorDataset(torch.randn(24, 3, 16, 16), torch.arange(24) % 3), count)
        trainer.fit(ClassificationModule(of, "bn", ("a", "b", "c"), ["x"]), images, ckpt_path=checkpoint)
        return trainer, watch.rates

    trainer, first = train(2)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    _, second = train(3, str(tmp_path / "half.ckpt"))
    expected = [of.base_lr * rate_factor(of, at) for at in range(18)]
    assert first + second == pytest.approx(expected, rel=1e-15) and math.isclose(expected[6], of.base_lr)
