"""Which scaling gives most accuracy for its latency: more layers, more channels or more pixels?

ResNet-RS (Bello et al., NeurIPS 2021), section 6: it depends on the length of the training. Scale depth where a network
can overfit (350 epochs), else width (10 epochs); and scale resolution more slowly than EfficientNet does. The ResNet-RS
networks follow these rules: top-1 is 78.8 with 50 layers at 160 pixels and 84.4 with 420 layers at 320 pixels, and on
TPUs they are 1.7 to 2.7 times as fast as EfficientNets of the same accuracy.

Eight GPUs, with data/imagenet on disk (not run here); the paper's grid:

    python experiments/cls_rs_scaling.py --data imagenet --gpus 8 --depths 26 50 101 200 300 350 400 \\
        --widths 0.25 0.5 1 1.5 2 --sizes 128 160 224 320 448 --strengths 0.5 1 1.5

A laptop, with no data on disk (the embedded shapes):

    python experiments/cls_rs_scaling.py --data shapes/photo

For each network, the study chooses the learning rate (--lrs) and the strength of regularisation (--strengths) on a
held-out 2 % of the training images, then trains with the best ones on all training images. The closing table has a row
for each network: multiply-adds, parameters, measured latency and top-1.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, ClassVar

from experiments.study.endings import one_sentence
from experiments.study.flags import parse
from experiments.tasks.resnet_rs import CostFlags, Laptop, arm_of, finished, resized, sized

if TYPE_CHECKING:
    from pandas import DataFrame

    from experiments.tasks.classification import Arm  # imports torch: --help must not wait for it
    from lightning_modules.classification.recipes import ClassificationRecipe

LAPTOP = Laptop(image_size=32, images=3000, epochs=9)
GRIDS = {
    "shapes": {"depths": [26, 50], "widths": [0.25, 0.5], "sizes": [32, 48]},
    "real": {"depths": [26, 50, 101], "widths": [0.5, 1.0], "sizes": [128, 160]},
    "smoke": {"depths": [26], "widths": [0.25], "sizes": [32, 40]},
}
"""Default grids; the command above gives the paper's."""
STRENGTHS = (0.5, 1.0)


@dataclass
class Flags(CostFlags):
    """Flags of this study."""

    laptop: ClassVar = LAPTOP
    depths: list[int] = field(default_factory=list)
    """Layers to compare, of 26 50 101 152 200 270 300 350 400 420."""
    widths: list[float] = field(default_factory=list)
    """Widths to compare, as factors on the network's numbers of channels."""
    sizes: list[int] = field(default_factory=list)
    """Resolutions to compare: height and width of the input in pixels."""
    lrs: list[float] = field(default_factory=list)
    """Learning rates to choose from; by default only the recipe's."""
    strengths: list[float] = field(default_factory=list)
    """Strengths of regularisation to choose from: factors on dropout, stochastic depth and RandAugment's magnitude; by
    default 0.5 1."""
    minival: float = 0.02
    """Share of the training images held out for this choice."""

    def __post_init__(self):
        super().__post_init__()
        self.refuse(backbone="pass --depths", width="pass --widths", image_size="pass --sizes", lr="pass --lrs")


def main() -> None:
    with one_sentence():
        run(parse(Flags, __doc__))


def run(flags: Flags) -> DataFrame | None:
    """Choose hyper-parameters for every network, then train and evaluate it; returns the results."""
    from experiments.tasks.costs import run_costs  # imports torch: --help must not wait for it
    from experiments.tasks.minival import begun, picked  # imports torch: --help must not wait for it

    study = "cls_rs_scaling"
    question = "Which scaling gives most accuracy for its latency: more layers, more channels or more pixels?"
    flags = sized(flags, LAPTOP, **GRIDS["smoke"])
    candidates = candidates_of(flags, finished(flags, "resnet-rs-50-160", LAPTOP))
    networks = ("depths", "widths", "sizes")
    chosen = picked(flags, study, question, candidates, flags.minival, arm_flags=networks)
    if any(len(group) > 1 for group in candidates.values()) and not begun(flags, study):
        flags = dataclasses.replace(flags, resume="no")  # it was interrupted before it had chosen all of them
    return run_costs(flags, study, question, chosen, arm_flags=networks)


def candidates_of(flags: Flags, recipe: ClassificationRecipe) -> dict[str, dict[str, Arm]]:
    """For every network of the grid, an arm for each learning rate and strength of regularisation."""
    defaults = GRIDS["shapes" if flags.on_shapes else "real"]
    depths, widths, sizes = (getattr(flags, name) or default for name, default in defaults.items())
    groups = {}
    for depth, width, size in product(depths, widths, sizes):
        network = f"{depth}-x{width:g}-{size}px"
        built = dataclasses.replace(resized(recipe, size), backbone=f"resnetrs{depth}", width=width)
        groups[network] = {}
        for lr, strength in product(flags.lrs or [recipe.lr], flags.strengths or STRENGTHS):
            columns = {
                "network": network, "candidate": f"lr {lr:g}, strength {strength:g}", "layers": depth, "width": width,
                "size": size, "lr": lr, "strength": strength,
            }  # fmt: skip
            tried = strengthened(dataclasses.replace(built, lr=lr), strength)
            groups[network][f"{network}-lr{lr:g}-strength{strength:g}"] = arm_of(flags, tried, columns)
    return groups


def strengthened(recipe: ClassificationRecipe, strength: float) -> ClassificationRecipe:
    """The recipe with dropout, stochastic depth and RandAugment's magnitude multiplied by a factor."""
    layers, magnitude = recipe.randaugment
    lasting = layers, max(3, round(strength * magnitude))  # below 3, posterize would keep no bit
    return dataclasses.replace(
        recipe,
        dropout=min(0.9, strength * recipe.dropout),
        stochastic_depth=min(0.9, strength * recipe.stochastic_depth),
        randaugment=lasting if strength else None,
    )


if __name__ == "__main__":
    main()
