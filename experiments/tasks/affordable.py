"""Whether a machine without GPUs can train as long as a recipe for GPUs says, before it begins to."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from experiments.study.endings import UsageError
from experiments.study.time_left import in_words
from lightning_modules.classification.backbones import complexity

if TYPE_CHECKING:
    from torch import nn

    from experiments.study.settings import RunSettings

MOST_SECONDS = 3600
"""What a training may take that nobody has given a length."""
PASSES = 3
"""A training step costs as much as so many forward passes: one, and two of its size for the gradients."""


def check_affordable(network: Callable[[], nn.Module], size: int, images: int, steps: int, run: RunSettings) -> None:
    """Refuse a training that would take very long on this machine's CPU and whose length is only the recipe's.

    The estimate is from below: the operations of convolutions and matrix products, at the speed of a matrix product.

    Args:
        network: builds what is trained. size: side of the images. images: of one step, over all processes.

    Raises:
        UsageError: it would take more than an hour.
    """
    flags = run.flags
    chosen = flags.max_steps or getattr(flags, "epochs", None) or flags.recipe != "auto"
    if run.accelerator != "cpu" or chosen or run.smoke:
        return
    seconds = PASSES * 2 * complexity(network(), size)[1] * images * steps / (run.world * operations_per_second())
    if seconds > MOST_SECONDS:
        raise UsageError(
            f"this machine has no GPU, and the recipe's {steps:,} steps of {images} images of {size} x {size} would "
            f"take {in_words(seconds)} or more for each training: pass --recipe laptop, or --max-steps N for fewer."
        )


def operations_per_second(side: int = 1024) -> float:
    """Multiplications and additions of a matrix product in a second, the fastest of three."""
    matrix, taken = torch.rand(side, side), []
    for _ in range(3):
        began = time.perf_counter()
        torch.mm(matrix, matrix)
        taken.append(time.perf_counter() - began)
    return 2 * side**3 / min(taken)
