"""What full trainings take: operations and memory of one image, and from them hours and gigabytes on a GPU.

    python benchmarks/run_sizes.py

For each recipe the network is built on torch's meta device, where tensors have sizes and no values. Counted are the
floating-point operations of a forward pass (torch's FlopCounterMode: a multiplication and an addition are two), and the
bytes that autograd keeps for the backward pass in float32. The rest is arithmetic:

    hours = images * 3 * operations / RATE       the backward pass counts as two forward passes
    memory = batch * kept / 2 + 16 * parameters  half of it in bf16-mixed; weights, gradients, momentum, work space

RATE is what one GPU was measured to reach with ResNet-50 and batch norm (benchmarks/README.md, "On a GPU"). Small images
reach less of it. No training of this length has been run: these are estimates.
"""

import argparse
from collections.abc import Iterator, Sequence
from typing import NamedTuple

RESNET50_IMAGES = 2900
"""Images a second of ResNet-50 at 224 pixels, training in bfloat16 and channels-last on one H200, measured."""

IMAGENET = 1_281_167
"""Its training images."""



class Training(NamedTuple):
    """One training of a study."""

    study: str
    recipe: str
    images: int  # seen over the whole training
    batch: int


def trainings() -> list[Training]:
    """The trainings that are shown, with the lengths of their recipes."""
    from lightning_modules.classification.recipes import CLASSIFICATION_RECIPES
    from lightning_modules.segmentation.recipes import SEGMENTATION_RECIPES

    rows = []
    for recipe in ("robustnet", "robustnet-r101"):
        found = SEGMENTATION_RECIPES[recipe]
        rows.append(Training("seg_gta2city", recipe, found.max_steps * found.batch_size, found.batch_size))
    for study, recipe, length in (
        ("cls_imagenet", "ibn-step", IMAGENET),
        ("cls_resnet_rs", "resnet-rs-50-160", IMAGENET),
        ("cls_rs_scaling", "resnet-rs-200-256", IMAGENET),
        ("cls_cifar", "bin-cifar", 50_000),
        ("cls_office_home", "office-home", 12_000),
    ):
        found = CLASSIFICATION_RECIPES[recipe]
        rows.append(Training(study, recipe, round(found.epochs * length), found.batch_size))
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args(arguments)
    from run_counts import counts  # imports torch

    rate = RESNET50_IMAGES * 3 * counts("ibn-step").operations
    print("| study | recipe | parameters | operations an image | kept an image | batch | GPU memory | hours on one GPU |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for cells in rows(rate):
        print(f"| {' | '.join(cells)} |", flush=True)


def rows(rate: float) -> Iterator[list[str]]:
    from run_counts import counts

    for training in trainings():
        found = counts(training.recipe)
        hours = training.images * 3 * found.operations / rate / 3600
        memory = training.batch * found.kept / 2 + 16 * found.parameters
        yield [
            f"`{training.study}.py`", f"`{training.recipe}`", f"{found.parameters / 1e6:.1f} M",
            f"{found.operations / 1e9:.1f} G", f"{found.kept / 1e6:.0f} MB", f"{training.batch}",
            f"{memory / 1e9:.0f} GB", f"{hours:.1f}",
        ]  # fmt: skip


if __name__ == "__main__":
    main()
