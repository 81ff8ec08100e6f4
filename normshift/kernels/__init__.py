"""Four passes over an activation, and who makes them: compiled C++ on CPUs, Triton on CUDA, plain torch everywhere.

`x` is (N, C, *spatial) with P positions in a map, or (N, C), where P is 1. Statistics and vectors are (N, C),
contiguous, in float32 (float64 for a float64 `x`). The homes are modules with the four functions below, and agree up
to rounding; `NORMSHIFT_KERNELS=torch` in the environment leaves all to plain torch.

As operators (`torch.ops.normshift.moments`, ...) the same functions go through `torch.compile` and `torch.export`.
"""

import functools
import os
from types import ModuleType

import torch
from torch import Tensor

from normshift.kernels import compiled, reference
from normshift.kernels.reference import over, statistics_type

__all__ = ["home_of", "input_gradient", "laid_out", "moments", "over", "reductions", "scale_shift", "statistics_type"]

NARROW = (torch.float32, torch.bfloat16, torch.float16)
"""Types that compiled kernels take; the others are plain torch's."""


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of every map, centred before it is squared: two (N, C) vectors."""
    x = laid_out(x)
    return home_of(x).moments(x)


def scale_shift(x: Tensor, mean: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """`scale * (x - mean) + shift`, in the shape, type and layout of `x`."""
    x = laid_out(x)
    return home_of(x).scale_shift(x, mean, scale, shift)


def reductions(dy: Tensor, x: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of `dy` and of `dy * (x - mean)` over the positions: the gradients by shift and by scale, (N, C) each."""
    x = laid_out(x)
    return home_of(x).reductions(dy, x, mean)


def input_gradient(dy: Tensor, x: Tensor, mean: Tensor, scale: Tensor, slope: Tensor, offset: Tensor) -> Tensor:
    """`scale * dy + slope * (x - mean) + offset`, in the shape, type and layout of `x`."""
    x = laid_out(x)
    return home_of(x).input_gradient(dy, x, mean, scale, slope, offset)


def laid_out(x: Tensor) -> Tensor:
    """`x` itself where its maps are dense planes or channels-last rows, as every home takes it; otherwise a copy."""
    if x.dim() == 2 or _is_dense(x, range(1, x.dim())) or _is_dense(x, (*range(2, x.dim()), 1)):
        return x
    return x.contiguous()


def home_of(x: Tensor) -> ModuleType:
    """Who works on a tensor of that kind."""
    wanted = os.environ.get("NORMSHIFT_KERNELS", "auto")
    if wanted not in ("auto", "torch"):
        raise ValueError(f"NORMSHIFT_KERNELS={wanted}: it is auto, or torch for plain torch alone.")
    if wanted == "torch" or x.dtype not in NARROW or x.dim() == 2:
        return reference
    if x.device.type == "cpu":
        return compiled if compiled.load() else reference
    return (_triton() if x.is_cuda else None) or reference


@functools.cache
def _triton() -> ModuleType | None:
    try:
        from normshift.kernels import triton_kernels
    except ImportError:
        return None
    return triton_kernels


def _is_dense(x: Tensor, axes) -> bool:
    """Whether these axes, the last of them innermost, lie without gaps; the batch may have any stride."""
    expected = 1
    for axis in reversed(tuple(axes)):
        if x.shape[axis] != 1 and x.stride(axis) != expected:
            return False
        expected *= x.shape[axis]
    return True


# ---------------------------------------------------------------------------------------------- operators for compilers

_vectors = "(Tensor, Tensor)"
_library = torch.library.Library("normshift", "DEF")
for _function, _arguments, _returns in (
    (moments, "Tensor x", _vectors),
    (scale_shift, "Tensor x, Tensor mean, Tensor scale, Tensor shift", "Tensor"),
    (reductions, "Tensor dy, Tensor x, Tensor mean", _vectors),
    (input_gradient, "Tensor dy, Tensor x, Tensor mean, Tensor scale, Tensor slope, Tensor offset", "Tensor"),
):
    _library.define(f"{_function.__name__}({_arguments}) -> {_returns}")
    _library.impl(_function.__name__, _function, "CompositeExplicitAutograd")


def _two_vectors(x: Tensor) -> tuple[Tensor, Tensor]:
    kind = {"dtype": statistics_type(x), "device": x.device}
    return torch.empty(x.shape[:2], **kind), torch.empty(x.shape[:2], **kind)


torch.library.register_fake("normshift::moments", lambda x: _two_vectors(x))
torch.library.register_fake("normshift::reductions", lambda dy, x, mean: _two_vectors(x))
torch.library.register_fake("normshift::scale_shift", lambda x, *vectors: torch.empty_like(laid_out(x)))
torch.library.register_fake("normshift::input_gradient", lambda dy, x, *vectors: torch.empty_like(laid_out(x)))
