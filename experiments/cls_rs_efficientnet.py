"""Do EfficientNets need resolutions as high as compound scaling gives them?

ResNet-RS (Bello et al., NeurIPS 2021), section 7.2: no. If the resolution grows more slowly than in EfficientNet's
compound scaling, they are as accurate and faster.

Eight GPUs, with data/imagenet on disk (not run here):

    python experiments/cls_rs_efficientnet.py --data imagenet --gpus 8 --networks b0 b1 b2 b3 b4 b5 b6 b7

The paper keeps EfficientNet's own hyper-parameters; here all are trained by ResNet-RS's recipe, in which RandAugment's
magnitude grows with the resolution as in the paper.

A laptop, with no data on disk (the embedded shapes, B0 and B1 at 64 pixels and more):

    python experiments/cls_rs_efficientnet.py --data shapes/photo

The closing table has a row for each network and resolution: multiply-adds, parameters, measured latency and top-1.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from experiments.study.endings import UsageError, one_sentence
from experiments.study.flags import parse
from experiments.tasks.resnet_rs import CostFlags, Laptop, arm_of, finished, resized, sized

if TYPE_CHECKING:
    from pandas import DataFrame

    from experiments.tasks.classification import Arm  # imports torch: --help must not wait for it
    from lightning_modules.classification.recipes import ClassificationRecipe

LAPTOP = Laptop(image_size=64, images=1600, epochs=8)
EFFICIENTNETS = {
    # network: (its own resolution (Tan and Le, ICML 2019), the slow one, dropout)
    "b0": (224, 224, 0.2),
    "b1": (240, 232, 0.2),
    "b2": (260, 240, 0.3),
    "b3": (300, 256, 0.3),
    "b4": (380, 288, 0.4),
    "b5": (456, 320, 0.4),
    "b6": (528, 344, 0.5),
    "b7": (600, 368, 0.5),
}
"""The slow resolutions are 224 times the square root of (own / 224), to a multiple of 8. [unverified]: the paper shows
its choices in a figure alone (Figure 5)."""


@dataclass
class Flags(CostFlags):
    """Flags of this study."""

    laptop: ClassVar = LAPTOP
    networks: list[str] = field(default_factory=list)
    """EfficientNets to compare, of b0 b1 b2 b3 b4 b5 b6 b7; by default all, on the embedded shapes b0 and b1."""

    def __post_init__(self):
        super().__post_init__()
        self.refuse(backbone="pass --networks", width="EfficientNets keep their own width")
        for network in self.networks:
            if network not in EFFICIENTNETS:
                raise UsageError(f"--networks {network}: choose from {', '.join(EFFICIENTNETS)}.")


def main() -> None:
    with one_sentence():
        run(parse(Flags, __doc__))


def run(flags: Flags) -> DataFrame | None:
    """Train and evaluate every network at both resolutions; returns the results."""
    from experiments.tasks.costs import run_costs  # imports torch: --help must not wait for it

    flags = sized(flags, LAPTOP, networks=["b0", "b1"])
    arms = arms_of(flags, finished(flags, "resnet-rs-152-224", LAPTOP))
    question = "Do EfficientNets need resolutions as high as compound scaling gives them?"
    return run_costs(flags, "cls_rs_efficientnet", question, arms, arm_flags=("networks",))


def arms_of(flags: Flags, recipe: ClassificationRecipe) -> dict[str, Arm]:
    """Each network at its own and, if that differs, at its slow resolution; the recipe's resolution is B0's."""
    arms = {}
    for network in flags.networks or (["b0", "b1"] if flags.on_shapes else list(EFFICIENTNETS)):
        *sizes, dropout = EFFICIENTNETS[network]
        for scaling, size in zip(("own", "slow"), sizes, strict=True):
            magnitude = recipe.randaugment[1] if flags.at_laptop else magnitude_at(size)
            tried = dataclasses.replace(
                resized(recipe, round(size * recipe.image_size / 224)),
                backbone=f"efficientnet_{network}",
                width=1.0,
                dropout=dropout,
                stochastic_depth=0.2,
                stochastic_depth_by="block",
                randaugment=(2, magnitude),
            )
            if tried not in [other.recipe for other in arms.values()]:
                columns = {"network": f"{network}-{tried.image_size}px-{scaling}", "size": tried.image_size}
                arms[columns["network"]] = arm_of(flags, tried, columns | {"scaling": scaling})
    return arms


def magnitude_at(size: int) -> int:
    """RandAugment's magnitude at a resolution (section 7.2)."""
    return 10 if size <= 224 else 15 if size <= 320 else 20


if __name__ == "__main__":
    main()
