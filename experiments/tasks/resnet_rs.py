"""Code that the ResNet-RS studies share: flags, the final recipe of the paper or of a laptop, and its arm.

It imports torch only when an arm is made.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from experiments.study.endings import UsageError
from experiments.tasks.classification_flags import ClassificationFlags, chosen_recipe, smoked
from lightning_modules.classification.recipes import ClassificationRecipe

if TYPE_CHECKING:
    from experiments.tasks.classification import Arm


RECIPES = "laptop|smoke|resnet-rs-.*"
"""Recipes of these studies, as a regular expression."""


@dataclass
class ResNetRSFlags(ClassificationFlags):
    """Flags of every study of ResNet-RS."""

    norm: list[str] = field(default_factory=lambda: ["bn"])
    """The norm of all networks: NORMS."""

    laptop: ClassVar = None  # a Laptop; written out, simple-parsing could not resolve it from a function
    """The study's size on the embedded shapes; its script sets it."""

    @classmethod
    def recipes_to_choose(cls) -> dict[str, ClassificationRecipe]:
        return {name: one for name, one in super().recipes_to_choose().items() if re.fullmatch(RECIPES, name)}

    @classmethod
    def default_recipe(cls) -> tuple[str, ClassificationRecipe]:
        return "this study's laptop", finished(cls(), "laptop", cls.laptop)

    def __post_init__(self):
        super().__post_init__()
        if len(self.norm) > 1:
            raise UsageError(f"--norm {' '.join(self.norm)}: all networks of this study have one norm; pass one.")
        if self.weights != "none":
            raise UsageError("--weights: this study compares whole trainings, each from scratch; leave it out.")
        if not re.fullmatch(rf"auto|{RECIPES}", self.recipe):
            raise UsageError(
                f"--recipe {self.recipe}: this study takes laptop, or a ResNet-RS such as resnet-rs-50-160."
            )

    def refuse(self, **instead: str) -> None:
        """Refuse shared flags that contradict a study. Args: instead: what says it there, by the flag's name."""
        for name, said in instead.items():
            if getattr(self, name) is not None:
                raise UsageError(f"--{name.replace('_', '-')} does not go with this study: {said}.")

    @property
    def at_laptop(self) -> bool:
        return self.recipe in ("laptop", "smoke") or (self.recipe == "auto" and self.on_shapes)


@dataclass
class CostFlags(ResNetRSFlags):
    """Flags of the studies whose networks differ in cost."""

    latency_batch: int = 1
    """Images per pass in the measurement of latency."""
    latency_repeats: int = 20
    """Number of timed passes, whose median is the latency."""

    def __post_init__(self):
        super().__post_init__()
        if self.only:
            raise UsageError("--only does not go with this study: the flags that make its grid choose the networks.")


@dataclass(frozen=True)
class Laptop:
    """A study's default size on the embedded shapes."""

    image_size: int  # pixels
    images: int  # to train on
    epochs: int
    parts: dict = field(default_factory=dict)  # of the recipe, besides `LIGHT`


LIGHT = {
    "weight_decay": 2e-4, "decay_norms": False, "label_smoothing": 0.1, "stochastic_depth": 0.05,
    "randaugment": (1, 10), "dropout": 0.1, "ema_decay": 0.98, "batch_size": 32,
}  # fmt: skip
"""Additions to the recipe `laptop`, so that every step changes something. The values are ours: weak regularisation,
because the network is small."""
SMALL_NETWORK = {
    "backbone": "cifar_resnet8", "architecture": {"squeeze_excitation": True, "averaged_shortcut": True},
}  # fmt: skip
"""For the studies of one network. After an ImageNet stem, 32 pixels shrink to one at the end, and such a network hardly
learns in minutes. Of ResNet-D, a CIFAR network can have one part: the averaged shortcuts."""


def sized(flags: ResNetRSFlags, laptop: Laptop, **smoke) -> ResNetRSFlags:
    """The flags with the number of embedded images said. Args: smoke: what a smoke run compares, in flags."""
    if flags.smoke:
        flags = smoked(flags, **{name: getattr(flags, name) or value for name, value in smoke.items()})
    if flags.on_shapes and flags.images is None:
        flags = dataclasses.replace(flags, images=laptop.images)
    return flags


def finished(flags: ResNetRSFlags, published: str, laptop: Laptop) -> ClassificationRecipe:
    """The recipe with everything on: the paper's, or one of the same parts at a laptop's size."""
    recipe = chosen_recipe(flags, published)
    if not flags.at_laptop:
        return recipe
    parts = LIGHT | ({} if flags.backbone else laptop.parts)
    left_open = {name: value for name, value in parts.items() if getattr(flags, name, None) is None}
    recipe = dataclasses.replace(recipe, **left_open)
    if flags.smoke:
        return recipe
    recipe = recipe if flags.image_size else resized(recipe, laptop.image_size)
    return recipe if flags.epochs else recipe.lasting(laptop.epochs)


def resized(recipe: ClassificationRecipe, size: int) -> ClassificationRecipe:
    """The recipe at another resolution; the images that it is evaluated on keep their margin."""
    return dataclasses.replace(recipe, image_size=size, resize=round(size * recipe.resize / recipe.image_size))


def arm_of(flags: ResNetRSFlags, recipe: ClassificationRecipe, columns: dict) -> Arm:
    """A training by the recipe, evaluated on the set that it learns."""
    from experiments.tasks.classification import Arm  # imports torch: --help must not wait for it

    norm, data = flags.norm[0], flags.data
    return Arm(recipe=recipe, norm=norm, train=data, evaluated=(data,), columns=columns | {"norm": norm})


def folder_name(label: str) -> str:
    """A label turned into a folder's name."""
    return label.replace("+ ", "+").replace(" ", "-")
