"""What full trainings take: operations and memory of one image, and from them hours and gigabytes on a GPU.

    python benchmarks/run_sizes.py

For each recipe the network is built on torch's meta device, where tensors have sizes and no values. Counted are the
floating-point operations of a forward pass (torch's FlopCounterMode: a multiplication and an addition are two), and the
bytes that autograd keeps for the backward pass in float32. The rest is arithmetic:

    hours on one GPU = images * 3 * operations / RATE    the backward pass counts as two forward passes
    core-hours = images * seconds to decode and crop one
    memory = batch * kept / 2 + 16 * parameters          half in bf16-mixed; weights, gradients, momentum, work space

RATE is what one GPU was measured to reach with ResNet-50 and batch norm, and the seconds are measured as well
(benchmarks/README.md, "On a GPU" and "Input pipelines"). No training of this length has been run: these are estimates.
"""

import argparse
from collections.abc import Sequence
from typing import NamedTuple

RESNET50_IMAGES = 2900
"""Images a second of ResNet-50 at 224 pixels, training in bfloat16 and channels-last on one H200, measured."""

IMAGENET = 1_281_167
"""Its training images."""

PHOTOGRAPH, STREET = 2.81e-3, 73e-3
"""Seconds of one core for an image on its way into a network: a photograph to 224 pixels, a street to 768, measured."""


class Training(NamedTuple):
    """One training of a study."""

    study: str
    recipe: str
    images: int  # seen over the whole training
    batch: int
    decoding: float | None  # seconds of a core for an image; None: they are in memory, and too small for RATE


def trainings() -> list[Training]:
    """The trainings that are shown, with the lengths of their recipes."""
    from lightning_modules.classification.recipes import CLASSIFICATION_RECIPES
    from lightning_modules.segmentation.recipes import SEGMENTATION_RECIPES

    rows = []
    for recipe in ("robustnet", "robustnet-r101"):
        found = SEGMENTATION_RECIPES[recipe]
        rows.append(Training("seg_gta2city", recipe, found.max_steps * found.batch_size, found.batch_size, STREET))
    for study, recipe, length, decoding in (
        ("cls_imagenet", "ibn-step", IMAGENET, PHOTOGRAPH),
        ("cls_resnet_rs", "resnet-rs-50-160", IMAGENET, PHOTOGRAPH),
        ("cls_rs_scaling", "resnet-rs-200-256", IMAGENET, PHOTOGRAPH),
        ("cls_cifar", "bin-cifar", 50_000, None),
        ("cls_office_home", "office-home", 12_000, PHOTOGRAPH),
    ):
        found = CLASSIFICATION_RECIPES[recipe]
        rows.append(Training(study, recipe, round(found.epochs * length), found.batch_size, decoding))
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args(arguments)
    from run_counts import counts  # imports torch

    rate = RESNET50_IMAGES * 3 * counts("ibn-step").operations
    print("| study | recipe | operations an image | kept an image | batch | memory of the batch | hours | core-hours |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for training in trainings():
        print(f"| {' | '.join(cells(training, rate))} |", flush=True)


def cells(training: Training, rate: float) -> list[str]:
    from run_counts import counts

    found, hours, cores = counts(training.recipe), None, None
    if training.decoding is not None:
        hours = training.images * 3 * found.operations / rate / 3600
        cores = training.images * training.decoding / 3600
    memory = training.batch * found.kept / 2 + 16 * found.parameters
    return [
        f"`{training.study}.py`", f"`{training.recipe}`", f"{found.operations / 1e9:.1f} G",
        f"{found.kept / 1e6:.0f} MB", f"{training.batch}", f"{memory / 1e9:.0f} GB",
        *("-" if one is None else f"{one:.2g}" if one < 100 else f"{one:.0f}" for one in (hours, cores)),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
