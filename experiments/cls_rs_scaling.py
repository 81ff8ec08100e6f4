"""What is worth its time: more layers, more channels or more pixels?

ResNet-RS (Bello et al., NeurIPS 2021), section 6: it depends on how long one trains. Scale depth where a network can
overfit, in 350 epochs, else width, in 10; and resolution more slowly than EfficientNet does. Its ResNet-RS follow that:
78.8 with 50 layers at 160 pixels, 84.4 with 420 at 320, 1.7 to 2.7 times as fast on TPUs as EfficientNets of the same
accuracy.

Eight GPUs, with data/imagenet on disk (not run here); the paper's grid:

    python experiments/cls_rs_scaling.py --data imagenet --gpus 8 --depths 26 50 101 200 300 350 400 \
        --widths 0.25 0.5 1 1.5 2 --sizes 128 160 224 320 448 --strengths 0.5 1 1.5

A laptop, nothing on disk (the embedded shapes):

    python experiments/cls_rs_scaling.py --data shapes/photo

Learning rate (--lrs) and strength of regularisation (--strengths) are picked, for each network, on 2 % of the training
images that are held out; the best is then trained on all of them. The closing table has a row a network: multiply-adds,
parameters, measured latency, and top-1.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING

from experiments.study.flags import one_sentence, parse
from experiments.tasks.resnet_rs import CostFlags, Laptop, arm_of, finished, resized, sized

if TYPE_CHECKING:  # these load slowly; a command line that asks for --help need not wait
    from pandas import DataFrame

    from experiments.tasks.classification import Arm
    from lightning_modules.classification.recipes import ClassificationRecipe

LAPTOP = Laptop(image_size=32, images=3000, epochs=9)
GRIDS = {
    "shapes": {"depths": [26, 50], "widths": [0.25, 0.5], "sizes": [32, 48]},
    "real": {"depths": [26, 50, 101], "widths": [0.5, 1.0], "sizes": [128, 160]},
    "smoke": {"depths": [26], "widths": [0.25], "sizes": [32, 40]},
}
"""What is compared where the flags do not say it; the paper's whole grid is in the command above."""
STRENGTHS = (0.5, 1.0)


@dataclass
class Flags(CostFlags):
    """Flags of this study."""

    depths: list[int] = field(default_factory=list)
    """Layers to compare, of 26 50 101 152 200 270 300 350 400 420."""
    widths: list[float] = field(default_factory=list)
    """Widths to compare: channels, times the network's own."""
    sizes: list[int] = field(default_factory=list)
    """Resolutions to compare: pixels of a side."""
    lrs: list[float] = field(default_factory=list)
    """Learning rates to pick from; by default the recipe's alone."""
    strengths: list[float] = field(default_factory=list)
    """Factors on dropout, stochastic depth and RandAugment's magnitude to pick from; by default 0.5 1."""
    minival: float = 0.02
    """Share of the training images that is held out for picking."""

    def __post_init__(self):
        super().__post_init__()
        self.refuse(backbone="pass --depths", width="pass --widths", image_size="pass --sizes", lr="pass --lrs")


def main() -> None:
    with one_sentence():
        run(parse(Flags, __doc__))


def run(flags: Flags) -> DataFrame | None:
    """Pick hyper-parameters for every network, then train and evaluate it; returns the results."""
    from experiments.tasks.costs import run_costs
    from experiments.tasks.minival import begun, picked

    study, question = "cls_rs_scaling", "What is worth its time: more layers, more channels or more pixels?"
    flags = sized(flags, LAPTOP, **GRIDS["smoke"])
    candidates = candidates_of(flags, finished(flags, "resnet-rs-50-160", LAPTOP))
    networks = ("depths", "widths", "sizes")
    chosen = picked(flags, study, question, candidates, flags.minival, arm_flags=networks)
    if any(len(group) > 1 for group in candidates.values()) and not begun(flags, study):
        flags = dataclasses.replace(flags, resume=False)  # it was interrupted while it was picking
    return run_costs(flags, study, question, chosen, arm_flags=networks)


def candidates_of(flags: Flags, recipe: ClassificationRecipe) -> dict[str, dict[str, Arm]]:
    """Of every network of the grid, an arm for each learning rate and strength of regularisation."""
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
    """The recipe with its dropout, stochastic depth and RandAugment's magnitude times a factor."""
    layers, magnitude = recipe.randaugment
    lasting = layers, max(3, round(strength * magnitude))  # posterize keeps no bit below 3
    return dataclasses.replace(
        recipe,
        dropout=min(0.9, strength * recipe.dropout),
        stochastic_depth=min(0.9, strength * recipe.stochastic_depth),
        randaugment=lasting if strength else None,
    )


if __name__ == "__main__":
    main()
