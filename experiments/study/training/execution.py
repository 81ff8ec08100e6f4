"""How a network is run in a training: its memory layout, whether it is compiled, and what cannot be done as asked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from experiments.study.endings import UsageError

if TYPE_CHECKING:
    from experiments.study.flags import RunFlags
    from lightning_modules.study_module import StudyModule

LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}
"""Channels-last layouts by a weight's number of axes."""
COMPILATION = {"TorchDynamoException", "FailOnRecompileLimitHit"}  # by name, because their module loads slowly
NOT_DETERMINISTIC = re.compile(r"(\S+) does not have a deterministic implementation")


def prepare(module: StudyModule, flags: RunFlags) -> None:
    """Lay out and compile a module's network as the flags say, in place: the keys of its state stay the same."""
    if flags.channels_last == "yes":
        lay_channels_last(module)
    if flags.compile:
        compile_whole(module.compiled_parts())


def compile_whole(parts: list[nn.Module]) -> None:
    """Compile each module as one graph, in place, and forget what was compiled for trainings before.

    torch keeps no more than a few compilations of a function, over all networks of a process, and beyond them runs it
    uncompiled with a warning. A part needs several, for training and evaluation and for batches of other sizes. What is
    compiled is a function of this file, because torch 2.11 compiles the layers of its own containers one by one.
    """
    torch.compiler.reset()  # it also imports torch._dynamo, which loads slowly
    torch._dynamo.config.recompile_limit = 16 * len(parts)
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    for part in parts:
        part._compiled_call_impl = torch.compile(_call_of(part))


def _call_of(part: nn.Module) -> Callable:
    def call(*inputs, **named):
        return part._call_impl(*inputs, **named)

    return call


def lay_channels_last(network: nn.Module) -> None:
    """Lay the weights of all convolutions out channels-last; what follows a convolution then has its layout, too."""
    for parameter in network.parameters():
        if parameter.dim() in LAYOUTS:
            parameter.data = parameter.data.contiguous(memory_format=LAYOUTS[parameter.dim()])


def run_eagerly(module: StudyModule) -> None:
    """Undo `compile_whole`, for what reads a trained network layer by layer: compiled code runs no hooks."""
    for part in module.compiled_parts():
        part._compiled_call_impl = None  # as torch itself undoes it, when it copies a module


def check_optimization(module: StudyModule, flags: RunFlags) -> None:
    """Raise UsageError if a module that steps its optimisers itself is asked to clip or accumulate gradients."""
    asked = ["--clip"] * (flags.clip is not None) + ["--accumulate"] * (flags.accumulate > 1)
    if asked and not module.automatic_optimization:
        raise UsageError(
            f"{' and '.join(asked)}: {type(module).__name__} steps its optimisers itself (manual optimisation), and "
            "Lightning neither clips nor accumulates its gradients: leave the flag out."
        )


@contextmanager
def refusals() -> Iterator[None]:
    """Say in a sentence that an operation has no deterministic form, or that the network cannot be compiled.

    Raises:
        UsageError: instead of torch's errors.
    """
    try:
        yield
    except Exception as error:
        if found := NOT_DETERMINISTIC.search(str(error)):
            raise UsageError(
                f"--deterministic: torch's operation {found[1]} has no deterministic form on this device: leave the "
                "flag out, or choose a network without it."
            ) from error
        if any(base.__name__ in COMPILATION for base in type(error).__mro__):
            lines = [line.strip() for line in str(error).splitlines()]
            reason = next((line for line in lines if line and not line.endswith("raised:")), type(error).__name__)
            raise UsageError(
                f"--compile: torch cannot compile this network here ({reason[:200].rstrip('.')}): leave the flag out."
            ) from error
        raise
