"""The two passes that every norm of this family shares.

    (mean, var)[n, c]    moments of x over its spatial axes             one read of x
    (scale, shift)[n, c] = formula(moments, parameters)                 N x C numbers
    y                    = scale * (x - mean) + shift                   one read, one write

A norm is a formula: a function of a few lines from per-instance moments and parameters to `(scale, shift)`. The
backward pass, mixed precision and the memory kept for it (x and a few N x C vectors) are written here once.

`N` is the batch, `C` the channels, `P` the number of spatial positions of one map (1 for an (N, C) input).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Moments(NamedTuple):
    """Per-instance statistics of an activation, in float32 (float64 for a float64 input)."""

    mean: Tensor  # (N, C)
    var: Tensor  # (N, C), biased: divided by the number of positions
    positions: int  # spatial positions that each entry was taken over


Formula = Callable[..., tuple[Tensor, Tensor]]
"""`formula(moments, *parameters) -> (scale, shift)`, each broadcastable to (N, C)."""


def normalize(x: Tensor, formula: Formula, *parameters: Tensor) -> Tensor:
    """Apply a norm's formula to an activation.

    Args:
        x: (N, C) or (N, C, *spatial), any floating type, any layout; N, C and every spatial size at least 1.
        formula: maps the moments of `x` and the parameters to `(scale, shift)`.
        parameters: tensors the formula depends on, in any floating type; they reach it in the statistics' type.

    Returns:
        `scale * (x - mean) + shift`, with the shape, type and layout of `x`.
    """
    if torch.compiler.is_compiling():  # the compiler derives and fuses a backward pass of its own
        return _composite(x, formula, *parameters)
    if torch.is_grad_enabled():
        return _Normalize.apply(formula, x, *parameters)
    moments = _moments(x)
    return _apply(x, moments, *formula(moments, *_cast(parameters, moments)))


def pooled(moments: Moments, dim: int) -> Moments:
    """Moments over a further axis of (N, C, ...) moments, by the law of total variance; that axis is kept, with size 1.

    Never `E[x^2] - mean^2`, which cancels where the mean is large against the spread.
    """
    mean, var, positions = moments
    pooled_mean = mean.mean(dim, keepdim=True)
    pooled_var = var.mean(dim, keepdim=True) + mean.var(dim, correction=0, keepdim=True)
    return Moments(pooled_mean, pooled_var, positions * mean.shape[dim])


class _Normalize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, formula: Formula, x: Tensor, *parameters: Tensor) -> Tensor:
        moments = _moments(x)
        with torch.enable_grad():  # the formula's own gradient is autograd on N x C numbers
            mean, var = moments.mean.requires_grad_(), moments.var.requires_grad_()
            leaves = [p.detach().requires_grad_(p.requires_grad) for p in parameters]
            scale, shift = (v.expand_as(mean) for v in formula(moments, *_cast(leaves, moments)))
        ctx.formula_graph = (mean, var, leaves, scale, shift)
        ctx.save_for_backward(x)
        return _apply(x, moments, scale.detach(), shift.detach())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dy: Tensor):
        (x,) = ctx.saved_tensors
        mean, var, leaves, scale, shift = ctx.formula_graph
        dshift, dscale = _reductions(dy, x, mean.detach())
        wanted = [mean, var, *(p for p in leaves if p.requires_grad)]
        dmean, dvar, *rest = _formula_gradient(((scale, dscale), (shift, dshift)), wanted)
        dparameters = iter(rest)
        gradients = [next(dparameters) if p.requires_grad else None for p in leaves]
        if not ctx.needs_input_grad[1]:
            return None, None, *gradients
        dx = _input_gradient(dy, x, mean.detach(), scale.detach(), dmean, dvar, dshift)
        return None, dx, *gradients


def _composite(x: Tensor, formula: Formula, *parameters: Tensor) -> Tensor:
    """The same arithmetic as differentiable torch operations."""
    wide = x.to(_statistics_type(x))
    var, mean = torch.var_mean(wide.flatten(2), -1, correction=0) if x.dim() > 2 else (torch.zeros_like(wide), wide)
    moments = Moments(mean, var, x[0, 0].numel())
    return _apply(x, moments, *formula(moments, *_cast(parameters, moments)))


def _statistics_type(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _cast(parameters, moments: Moments) -> list[Tensor]:
    return [p.to(moments.mean.dtype) for p in parameters]


def _over(vector: Tensor, x: Tensor) -> Tensor:
    """An (N, C) tensor shaped to broadcast over the spatial axes of x."""
    return vector.reshape(vector.shape + (1,) * (x.dim() - 2))


def _moments(x: Tensor) -> Moments:
    if x.dim() == 2:
        mean = x.to(_statistics_type(x), copy=True)
        return Moments(mean, torch.zeros_like(mean), 1)
    spatial = tuple(range(2, x.dim()))
    mean = x.mean(spatial, dtype=_statistics_type(x))
    positions = x[0, 0].numel()
    spread = torch.linalg.vector_norm(x - _over(mean, x), dim=spatial)  # centred before it is squared
    return Moments(mean, spread.square() / positions, positions)


def _apply(x: Tensor, moments: Moments, scale: Tensor, shift: Tensor) -> Tensor:
    offset = torch.addcmul(shift, scale, moments.mean, value=-1)
    scale = scale.expand_as(offset)
    return torch.addcmul(_over(offset, x), x, _over(scale, x)).to(x.dtype)


def _formula_gradient(outputs_and_seeds, wanted: list[Tensor]):
    """Autograd through the formula alone. None for what the formula does not depend on (in evaluation, say)."""
    connected = [(output, seed) for output, seed in outputs_and_seeds if output.requires_grad]
    if not connected:
        return [None] * len(wanted)
    outputs, seeds = zip(*connected, strict=True)
    return torch.autograd.grad(outputs, wanted, seeds, retain_graph=True, allow_unused=True)


def _reductions(dy: Tensor, x: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the loss by shift and by scale: sum of dy, and sum of dy * (x - mean), over the spatial axes."""
    centred = x - _over(mean, x)
    if x.dim() == 2:
        return dy.to(mean.dtype), dy * centred
    spatial = tuple(range(2, x.dim()))
    return dy.sum(spatial, dtype=mean.dtype), (dy * centred).sum(spatial)


def _input_gradient(dy, x, mean, scale, dmean, dvar, dshift) -> Tensor:
    """dx = scale * dy + q * x + r, with q and r gathering the two ways through the moments."""
    positions = x[0, 0].numel()
    through_mean = -scale * dshift if dmean is None else dmean - scale * dshift
    r = through_mean / positions
    if dvar is None:
        return torch.addcmul(_over(r, x), dy, _over(scale, x)).to(x.dtype)
    q = dvar * (2 / positions)
    dx = torch.addcmul(_over(r - q * mean, x), x, _over(q, x))
    return dx.addcmul_(dy.to(dx.dtype), _over(scale, x)).to(x.dtype)
