"""Should weight decay be lowered when other regularisers are added?

ResNet-RS (Bello et al., NeurIPS 2021), Table 2: yes. Top-1 on held-out training images of ImageNet, with weight decay
1e-4 and 4e-5: a ResNet-50 has 79.7 and 78.7 without other regularisers, and 82.2 and 82.7 with RandAugment, label
smoothing and dropout; a ResNet-200 has 82.5 and 81.7 without, and 85.3 and 85.5 with those and stochastic depth.

Eight GPUs, with data/imagenet on disk (not run here); the first command trains ResNet-200 at 256 pixels:

    python experiments/cls_rs_weight_decay.py --data imagenet --gpus 8
    python experiments/cls_rs_weight_decay.py --data imagenet --gpus 8 --recipe resnet-rs-50-160

Here each network is trained on all training images and evaluated on the validation set.

A laptop, with no data on disk (the embedded shapes, a ResNet-8 for CIFAR):

    python experiments/cls_rs_weight_decay.py --data shapes/photo --seeds 3

The closing table gives top-1, with a row for each set of regularisers, a column for each weight decay, and the gain of
the lowest weight decay over the highest.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from experiments.study.endings import one_sentence
from experiments.study.flags import parse
from experiments.study.tables.table import Table, table_of
from experiments.tasks.classification_tables import accuracies
from experiments.tasks.resnet_rs import SMALL_NETWORK, Laptop, ResNetRSFlags, arm_of, finished, folder_name, sized

if TYPE_CHECKING:
    from pandas import DataFrame

    from experiments.tasks.classification import Arm  # imports torch: --help must not wait for it
    from lightning_modules.classification.recipes import ClassificationRecipe

LAPTOP = Laptop(image_size=32, images=4000, epochs=6, parts=SMALL_NETWORK)


@dataclass
class Flags(ResNetRSFlags):
    """Flags of this study."""

    laptop: ClassVar = LAPTOP
    weight_decays: list[float] = field(default_factory=list)
    """Weight decays to compare; by default the recipe's and 2.5 times the recipe's."""

    def __post_init__(self):
        super().__post_init__()
        self.refuse(weight_decay="it compares several; pass --weight-decays")


REGULARISERS = {"label_smoothing": 0.0, "randaugment": None, "dropout": 0.0, "stochastic_depth": 0.0}
"""The regularisers in the order in which Table 2 adds them, each with the value that turns it off.

Its top-1 on held-out training images under weight decay 1e-4 and 4e-5; RA RandAugment, LS label smoothing, DO dropout,
SD stochastic depth: ResNet-50 79.7/78.7 with none, 82.4/82.3 RA-LS, 82.2/82.7 RA-LS-DO; ResNet-200 82.5/81.7 with none,
85.2/84.9 RA-LS, 85.3/85.5 RA-LS-SD-DO.
"""


def main() -> None:
    with one_sentence():
        run(parse(Flags, __doc__))


def run(flags: Flags) -> DataFrame | None:
    """Train and evaluate every set of regularisers under every weight decay; returns the results."""
    from experiments.tasks.classification import run_arms  # imports torch: --help must not wait for it

    flags = sized(flags, LAPTOP)
    arms = arms_of(flags, finished(flags, "resnet-rs-200-256", LAPTOP))
    question = "Should weight decay be lowered when other regularisers are added?"
    return run_arms(flags, "cls_rs_weight_decay", question, arms, weight_decay_table, arm_flags=("weight_decays",))


def arms_of(flags: Flags, recipe: ClassificationRecipe) -> dict[str, Arm]:
    """An arm for each set of regularisers and each weight decay, the highest first."""
    values = sorted(set(flags.weight_decays or (recipe.weight_decay, 2.5 * recipe.weight_decay)), reverse=True)
    arms = {}
    for label, regularised in regularised_recipes(recipe):
        for value in values:
            changed = dataclasses.replace(regularised, weight_decay=value)
            columns = {"regularisers": label, "weight decay": f"{value:g}"}
            arms[f"{folder_name(label)}-wd{value:g}"] = arm_of(flags, changed, columns)
    return arms


def regularised_recipes(recipe: ClassificationRecipe) -> list[tuple[str, ClassificationRecipe]]:
    """(label, recipe): first with weight decay as the only regulariser, then with one more at a time."""
    rows = [("none", dataclasses.replace(recipe, **REGULARISERS))]
    for name in REGULARISERS:
        changed = dataclasses.replace(rows[-1][1], **{name: getattr(recipe, name)})
        if changed != rows[-1][1]:  # the recipe has it
            rows.append((f"+ {name.replace('_', ' ').replace('randaugment', 'RandAugment')}", changed))
    return rows


def weight_decay_table(results: DataFrame) -> Table:
    """Top-1, with a row for each set of regularisers, a column for each weight decay, and the gain of the lowest."""
    scores = accuracies(results, rows="regularisers", columns="weight decay")
    values = sorted(scores.columns, key=float)
    legend = "top-1 accuracy in percent by weight decay; each row adds a regulariser to those above it."
    if len(values) > 1:
        scores["gain"] = scores[values[0]] - scores[values[-1]]
        legend += f" gain: that with {values[0]} minus that with {values[-1]}."
    return table_of(scores, legend, corner="regularisers")


if __name__ == "__main__":
    main()
