"""The passes over an activation, and their backends: C++ on CPUs, Triton on CUDA, plain torch everywhere.

`x` is (N, C, *spatial) with P positions in a map, or (N, C) with P = 1. Statistics and vectors are (N, C), contiguous,
in float32 (float64 for a float64 `x`). A backend is a module with the functions below; all backends agree up to
rounding. `NORMSHIFT_KERNELS=torch` in the environment selects plain torch for everything. Empty tensors always go to
plain torch, which returns statistics of 0.

    moments(x)                                            mean and biased variance of every map
    scale_shift(x, mean, scale, shift)                    scale * (x - mean) + shift, laid out as x
    reductions(dy, x, mean)                               sums of dy and of dy * (x - mean) over the positions
    input_gradient(dy, x, mean, scale, slope, offset)     scale * dy + slope * (x - mean) + offset, laid out as x

and, on N x C numbers,

    pooled(mean, var)                                     moments over the batch, (C,) each, from those of each image
    update_running(running_mean, running_var, mean, var, momentum, unbiased)
                                                          running averages move by `momentum` towards new moments
    through_moments(...)                                  slope and offset of the input's gradient

C++ also has whole layers, forward and backward, which call no function from here: `compiled.layer_call`.

The four passes are also operators (`torch.ops.normshift.moments`, ...), which `torch.compile` and `torch.export` do not
decompose. The engine uses `moments` when it is compiled; norms that are written for a compiler can use all four.
"""

import functools
import os
import warnings
from types import ModuleType

import torch
from torch import Tensor

from normshift.backends import compiled, reference
from normshift.backends.compiled_forms import ChannelGates, Mixture
from normshift.backends.reference import over, statistics_type

__all__ = [
    "ChannelGates", "Mixture", "backend_of", "compiled", "is_laid_out", "laid_out", "over", "reference",
    "statistics_type",
]  # fmt: skip

NARROW = (torch.float32, torch.bfloat16, torch.float16)
"""Types that the C++ and Triton kernels support; plain torch computes the others."""


_environment = os.environ._data  # type: ignore[attr-defined]  # os.environ.get takes a microsecond to find nothing
_KEY = os.environ.encodekey("NORMSHIFT_KERNELS")


def backend_of(x: Tensor) -> ModuleType:
    """The backend for a tensor, by its type, device and layout.

    Raises:
        ValueError: `NORMSHIFT_KERNELS` is neither "auto" nor "torch".
    """
    if _KEY in _environment and _is_plain_wanted():
        return reference
    if x.dtype not in NARROW or x.dim() == 2 or not x.numel() or not reference.is_plain(x):
        return reference
    if x.is_cpu:
        return compiled if compiled.load() else reference
    return (triton_backend() if x.is_cuda else None) or reference


def _is_plain_wanted() -> bool:
    wanted = os.environ["NORMSHIFT_KERNELS"]
    if wanted not in ("auto", "torch"):
        raise ValueError(f"NORMSHIFT_KERNELS={wanted}: it is auto, or torch for plain torch alone.")
    return wanted == "torch"


def laid_out(x: Tensor) -> Tensor:
    """`x` itself if every backend supports its layout (`is_laid_out`); otherwise a contiguous copy."""
    return x if is_laid_out(x) else x.contiguous()


def is_laid_out(x: Tensor) -> bool:
    """Whether the maps of `x` are contiguous or channels-last; the batch axis may have any stride."""
    dim = x.dim()
    if x.is_contiguous() or (dim == 4 and x.is_contiguous(memory_format=torch.channels_last)) or dim == 2:
        return True
    return _is_dense(x, (*range(2, dim), 1)) or _is_dense(x, range(1, dim))


@functools.cache
def triton_backend() -> ModuleType | None:
    """The Triton backend, or None if it does not run here: Triton or the compiler that it needs may be missing."""
    try:
        from normshift.backends import triton_kernels

        triton_kernels.moments(torch.zeros(1, 1, 2, 2, device="cuda"))
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        warnings.warn(f"normshift's Triton kernels do not run here: its norms use plain torch. {reason}", stacklevel=2)
        return None
    return triton_kernels


def _is_dense(x: Tensor, axes) -> bool:
    """Whether these axes, of which the last is innermost, lie in memory without gaps."""
    expected = 1
    for axis in reversed(tuple(axes)):
        if x.shape[axis] != 1 and x.stride(axis) != expected:
            return False
        expected *= x.shape[axis]
    return True


# ---------------------------------------------------------------------------------------------- operators for compilers


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    x = laid_out(x)
    return backend_of(x).moments(x)


def _scale_shift(x: Tensor, mean: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    x = laid_out(x)
    return backend_of(x).scale_shift(x, mean, scale, shift)


def _reductions(dy: Tensor, x: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    x = laid_out(x)
    return backend_of(x).reductions(dy, x, mean)


def _input_gradient(dy: Tensor, x: Tensor, mean: Tensor, scale: Tensor, slope: Tensor, offset: Tensor) -> Tensor:
    x = laid_out(x)
    return backend_of(x).input_gradient(dy, x, mean, scale, slope, offset)


_vectors = "(Tensor, Tensor)"
_library = torch.library.Library("normshift", "DEF")
for _function, _arguments, _returns in (
    (_moments, "Tensor x", _vectors),
    (_scale_shift, "Tensor x, Tensor mean, Tensor scale, Tensor shift", "Tensor"),
    (_reductions, "Tensor dy, Tensor x, Tensor mean", _vectors),
    (_input_gradient, "Tensor dy, Tensor x, Tensor mean, Tensor scale, Tensor slope, Tensor offset", "Tensor"),
):
    _library.define(f"{_function.__name__[1:]}({_arguments}) -> {_returns}")
    _library.impl(_function.__name__[1:], _function, "CompositeExplicitAutograd")


def _two_vectors(x: Tensor) -> tuple[Tensor, Tensor]:
    mean, var = (torch.empty(x.shape[:2], dtype=statistics_type(x), device=x.device) for _ in range(2))
    return mean, var


torch.library.register_fake("normshift::moments", lambda x: _two_vectors(x))
torch.library.register_fake("normshift::reductions", lambda dy, x, mean: _two_vectors(x))
torch.library.register_fake("normshift::scale_shift", lambda x, *vectors: torch.empty_like(laid_out(x)))
torch.library.register_fake("normshift::input_gradient", lambda dy, x, *vectors: torch.empty_like(laid_out(x)))


def _moments_of_batches(info, in_dims, x: Tensor):
    """For `vmap`: its batches are joined with the batch axis."""
    batches = x.movedim(in_dims[0], 0)
    found = torch.ops.normshift.moments(batches.flatten(0, 1))
    return tuple(v.unflatten(0, batches.shape[:2]) for v in found), (0, 0)


torch.library.register_vmap("normshift::moments", _moments_of_batches)
