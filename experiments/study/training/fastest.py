"""What `auto` means on this machine: number format and memory layout, chosen once for all trainings of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from experiments.study.flags import RunFlags
    from lightning_modules.training_recipe import TrainingRecipe


class Computing(NamedTuple):
    """How a run computes."""

    precision: str  # as Lightning names it
    channels_last: str  # "yes" or "no"
    reason: str = ""  # in a sentence for the log; empty where nothing was left to choose


def chosen(flags: RunFlags, recipe: TrainingRecipe | None, begun: Mapping, gpu: bool) -> Computing:
    """What --precision and --channels-last mean in a run.

    Args:
        recipe: its values count where a flag is not given.
        begun: the config.yaml of the run that is continued, if one is. What it says counts where a flag leaves the
            choice, so that a run goes on as it began, on another machine, too.
        gpu: whether the run uses GPUs.
    """
    usual = Computing("32-true", "no") if recipe is None else recipe
    precision, layout = (
        begun.get(key) if begun.get(key) and given in (None, "auto") else given or getattr(usual, key)
        for key, given in (("precision", flags.precision), ("channels_last", flags.channels_last))
    )
    if "auto" not in (precision, layout):
        return Computing(precision, layout)
    native = has_bfloat16(gpu)
    precision = ("bf16-mixed" if native else "32-true") if precision == "auto" else precision
    if layout == "auto":
        layout = "yes" if not gpu or precision in ("bf16-mixed", "16-mixed") else "no"
    device, does = "GPU" if gpu else "processor", "computes in" if native else "has no instructions for"
    named = "channels-last" if layout == "yes" else "contiguous"
    return Computing(precision, layout, f"computing in {precision}, {named}: this {device} {does} bfloat16")


def has_bfloat16(gpu: bool) -> bool:
    """Whether the GPU, or else the processor, has instructions for bfloat16."""
    if gpu:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return any(there for name, there in torch.cpu.get_capabilities().items() if name.endswith("bf16"))
