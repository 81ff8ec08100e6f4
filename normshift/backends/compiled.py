"""The passes, the formulas and whole layers in C++ (`normshift/backends/cpu`)."""

from __future__ import annotations

import threading
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from normshift.backends import reference
from normshift.backends.compiled_forms import ChannelGates, Mixture
from normshift.backends.cpu_library import load

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LayerCall", "load"]


def has_formula(compiled_form, channels: int) -> bool:
    """Whether this backend has the formula: it has every compiled form."""
    return compiled_form is not None


@cache
def operator(name: str):
    """One of the compiled functions; cached, because looking up an operator in torch is slow.

    The engine differentiates them, so they need none of what torch does for autograd: that took 1 of 9 microseconds.
    """
    with _lock:  # the cache alone would let two threads register at once, which torch refuses
        if name not in _registered:
            for key in ("AutogradCPU", "ADInplaceOrView"):
                _registrations.impl(name, torch.library.fallthrough_kernel, key)
            _registered.add(name)
    return getattr(torch.ops.normshift_cpu, name).default


_registrations = torch.library.Library("normshift_cpu", "IMPL")
_registered: set[str] = set()
_lock = threading.Lock()


# ------------------------------------------------------------------------------------------------------- whole layers


class Averages(NamedTuple):
    """Running averages that a layer in C++ uses, and updates in training; tensors are None where there are none."""

    mean: Tensor | None = None  # (C,), as is the next; for IBN, of the channels that use the batch
    var: Tensor | None = None
    batches: Tensor | None = None  # their number, an integer
    momentum: float | None = 0.0  # None for the mean of all batches
    training: bool = True  # whether the batch's own statistics are used
    observed: bool = False  # whether the averages are updated in training


NO_AVERAGES = Averages()


class LayerCall(NamedTuple):
    """What one operator for a whole layer needs beside the activation and the parameters, forward and backward."""

    statistics: tuple[int, ...]
    first: int  # the channels first..last use the batch
    last: int
    eps: float
    averages: Averages
    correction: int

    def forward(self, x: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The output, and statistics for the backward pass: (2 N + 2, C), see `statistics_of`."""
        statistics, first, last, eps, averages, correction = self
        mean, var, batches, momentum, training, observed = averages
        return operator("layer")(
            x, parameters, mean, var, batches, statistics, first, last, eps, momentum, training, observed, correction
        )

    def backward(
        self, dy: Tensor, x: Tensor, found: Tensor, parameters: Sequence[Tensor], of_x: bool
    ) -> tuple[Tensor | None, list[Tensor]]:
        """Gradients with respect to x, None if not asked for, and to the parameters."""
        statistics, first, last, eps, averages, correction = self
        training = averages.training
        gradients = operator("layer_gradient")(
            dy, x, found, parameters, statistics, first, last, eps, training, correction, of_x
        )
        return (gradients.pop() if of_x else None), gradients

    def statistics_of(self, found: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Means and variances of the images, (N, C), and of the batch, (C,)."""
        images = (len(found) - 2) // 2
        return found[:images], found[images:-2], found[-2], found[-1]


def layer_call(form: Mixture | ChannelGates, averages: Averages, correction: int, parameters: int) -> LayerCall:
    """The call for a formula's compiled form with so many parameters."""
    everywhere = 2**31
    if isinstance(form, Mixture) and (len(form.statistics) > 1 or form.statistics[0] > 0 or parameters > 2):
        last = everywhere if -1 in form.statistics else 0
        return LayerCall(form.statistics, 0, last, form.eps, averages, correction)
    if isinstance(form, Mixture):  # instance norm or batch norm: gates that are fixed
        first, last = 0, -form.statistics[0] * everywhere
    else:
        first, last = (0, everywhere) if parameters == 3 else (form.first, form.last)
    return LayerCall((), first, last, form.eps, averages, correction)


# ----------------------------------------------------------------------------------------------------------- passes


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    return operator("moments")(x)


def scale_shift(x: Tensor, mean: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return operator("scale_shift")(x, mean, scale, shift)


def reductions(dy: Tensor, x: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    return operator("reductions")(dy, x, mean)


def input_gradient(dy: Tensor, x: Tensor, mean: Tensor, scale: Tensor, slope: Tensor, offset: Tensor) -> Tensor:
    return operator("input_gradient")(dy, x, mean, scale, slope, offset)


# --------------------------------------------------------------------------------------------------------- formulas


def mixed(*arguments) -> tuple[Tensor, Tensor]:
    return operator("mixed")(*arguments)


def mixed_gradient(*arguments) -> list[Tensor]:
    return operator("mixed_gradient")(*arguments)


def gated(*arguments) -> tuple[Tensor, Tensor]:
    return operator("gated")(*arguments)


def gated_gradient(*arguments) -> list[Tensor]:
    return operator("gated_gradient")(*arguments)


def pooled(mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    return operator("pooled")(mean, var)


def update_running(running_mean: Tensor, running_var: Tensor, mean: Tensor, var: Tensor, momentum: float, unbiased):
    fits = all(v.dtype == torch.float32 and v.is_contiguous() for v in (running_mean, running_var))
    update = operator("update_running") if fits else reference.update_running
    update(running_mean, running_var, mean, var, momentum, float(unbiased))


def through_moments(mean: Tensor, scale: Tensor, dshift: Tensor, dmean, dvar, pooled, of_mean: float, of_var: float):
    if dmean is None or dvar is None:  # only formulas without a compiled form
        return reference.through_moments(mean, scale, dshift, dmean, dvar, pooled, of_mean, of_var)
    *batch, share = pooled or (None, None, None, 0.0)
    return operator("through_moments")(mean, scale, dshift, dmean, dvar, *batch, float(share), of_mean, of_var)
