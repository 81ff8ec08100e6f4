"""Does a gate per channel between batch norm and instance norm help when training and test data are of one domain?

Batch-Instance Normalization (Nam and Kim, NeurIPS 2018): top-1 of BN against BIN. CIFAR-10, ResNet-110: 93.72 +- 0.18
against 94.29 +- 0.09. CIFAR-100: AlexNet 50.62/51.00, VGG-19 72.29/72.50, ResNet-56 72.92/75.05, ResNet-110
74.26/75.88, PreResNet-110 76.49/77.84, WRN-28-10 80.92/81.48, ResNeXt-29 80.50/81.57, DenseNet-BC 76.93/77.80.

One GPU, with data/cifar10 and data/cifar100 on disk (not run here):

    python experiments/cls_cifar.py --data cifar10 --gpus 1 --norm bn bin --seeds 5
    python experiments/cls_cifar.py --data cifar100 --gpus 1 --norm bn bin --seeds 5 --backbone cifar_alexnet \\
        cifar_vgg19 cifar_bin_resnet56 cifar_bin_resnet110 cifar_preresnet110 cifar_wrn28_10 cifar_resnext29_8x64 \\
        cifar_densenet_bc100_12

The recipe is that of BIN's published code. Like that code, the table gives the best test accuracy of all epochs, and
says so; --selection last gives the last epoch's. For "ResNet-110" the code builds bottleneck blocks, 164 layers in all:
cifar_bin_resnet110. The paper does not say whether its tables are of these or of basic blocks
(cifar_bin_resnet110_basic). cifar_resnet110 is He et al.'s network, whose shortcuts have no parameters.

A laptop, with no data on disk (the embedded shapes, all four styles mixed):

    python experiments/cls_cifar.py --norm bn bin sn

The study trains every backbone with every norm and seed. The closing table gives top-1, with a row for each backbone
and a column for each norm. OUT then holds table.md, report.html, results.csv, metrics.csv, gates.parquet and
checkpoints.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from experiments.study.endings import one_sentence
from experiments.study.flags import parse
from experiments.study.tables.table import table_of
from experiments.tasks.classification_flags import ClassificationFlags, chosen_recipe, smoked
from experiments.tasks.classification_tables import accuracies

if TYPE_CHECKING:
    from pandas import DataFrame

QUESTION = "Is a classifier more accurate with a norm whose gates choose batch or instance norm for each channel?"


@dataclass
class Flags(ClassificationFlags):
    """Flags of this study."""

    norm: list[str] = field(default_factory=lambda: ["bn", "bin"])
    """Norms to compare, of NORMS."""
    backbone: list[str] = field(default_factory=list)
    """Networks to compare: CIFAR networks such as cifar_resnet110 cifar_wrn28_10, or torchvision or timm names; by
    default the recipe's."""


def main() -> None:
    with one_sentence():
        run(parse(Flags, __doc__))


def run(flags: Flags):
    """Train and evaluate every backbone, norm and seed; returns the results."""
    from experiments.tasks.classification import Arm, run_arms  # imports torch: --help must not wait for it

    flags = smoked(flags) if flags.smoke else flags
    single = dataclasses.replace(flags, backbone=None)
    recipe = chosen_recipe(single, "bin-cifar")
    arms = {}
    for backbone in flags.backbone or [recipe.backbone]:
        for norm in flags.norm:
            arms[f"{backbone.replace('/', '-')}-{norm}"] = Arm(
                recipe=dataclasses.replace(recipe, backbone=backbone),
                norm=norm,
                train=flags.data,
                evaluated=(flags.data,),
                columns={"norm": norm, "backbone": backbone},
            )
    return run_arms(flags, "cls_cifar", QUESTION, arms, table)


def table(results: DataFrame):
    """Top-1 on the set's test images, with a row for each backbone and a column for each norm."""
    scores = accuracies(results, rows="backbone", columns="norm")
    return table_of(scores, "top-1 accuracy in percent.", corner="backbone")


if __name__ == "__main__":
    main()
