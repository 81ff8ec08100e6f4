"""The computation that all norms share: two passes over the activation, with a small formula between them.

    (mean, var)[n, c]    moments of x over its spatial axes             one read of x
    (scale, shift)[n, c] = formula(moments, parameters)                 N x C numbers
    y                    = scale * (x - mean) + shift                   one read, one write

The backward pass has one pass that reduces dy and one that writes dx. It needs x and a few N x C vectors. The passes
are in `normshift.backends`, the formulas in `normshift.formulas`.

On CPUs one operator in C++ is a whole layer, forward or backward, for the formulas that it knows (`compiled_form`) and
batches that are not pooled over processes. Everything else goes pass by pass, with the formula in Python between.

`N` is the batch size, `C` the number of channels, `P` the number of spatial positions of a map (1 for (N, C) inputs).
"""

import math
from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from normshift import backends
from normshift.backends.compiled import LayerCall

PLAIN = (Parameter, Tensor)
"""Types of parameters that the operator for a whole layer takes: no subclass whose operations are its own."""


class Moments(NamedTuple):
    """Per-instance statistics of an activation, in float32 (float64 for a float64 input)."""

    mean: Tensor  # (N, C)
    var: Tensor  # (N, C), biased unless the norm has a correction
    positions: int  # P, the spatial positions that each entry is computed from


class Formula:
    """Computes `scale` and `shift`, each broadcastable to (N, C), from moments and parameters.

    A norm implements `__call__` in differentiable torch operations, without side effects. `gradient` is derived from it
    by autograd; a norm that needs more speed overrides it with a gradient derived by hand.
    """

    def __call__(self, moments: Moments, batch: "Batch | None", *parameters: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def own_moments(self, channels: int, training: bool) -> slice:
        """The channels whose scale or shift depends on each image's own moments."""
        return slice(0, channels)

    def compiled_form(self) -> "backends.Mixture | backends.ChannelGates | None":
        """Which of the formulas compiled in C++ and Triton this one is; None if it is none of them."""
        return None

    def gradient(
        self, moments: Moments, batch: "Batch | None", parameters: tuple[Tensor, ...], dscale: Tensor, dshift: Tensor
    ) -> list[Tensor | None]:
        """Gradients with respect to the moments' mean and var (N, C), the batch's mean and var (C,) and the parameters.

        `dscale` and `dshift` are the gradients with respect to this formula's results, (N, C). None stands for 0.
        """
        sources = [*moments[:2], *(batch[:2] if batch else ()), *parameters]
        with torch.enable_grad():
            mean, var, *rest = leaves = [source.detach().requires_grad_() for source in sources]
            own = Moments(mean, var, moments.positions)
            if batch:
                batch, rest = batch._replace(mean=rest[0], var=rest[1]), rest[2:]
            pairs = zip(self(own, batch, *rest), (dscale, dshift), strict=True)
            varying = [(v.expand_as(seed), seed) for v, seed in pairs if v.requires_grad]
        found: list[Tensor | None] = [None] * len(leaves)
        if varying:  # neither is where a formula is two constants
            outputs, seeds = zip(*varying, strict=True)
            found = list(torch.autograd.grad(outputs, leaves, seeds, allow_unused=True))
        return found if batch else [*found[:2], None, None, *found[2:]]


class Batch(NamedTuple):
    """Statistics of a batch, (C,) each: pooled moments in training, running averages in evaluation."""

    mean: Tensor
    var: Tensor
    share: float | Tensor | None = None  # one map's share of all pooled positions; None for running averages
    everywhere: bool = False  # whether the batches of all processes were pooled

    def collected(self, dmean: Tensor, dvar: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients with respect to mean and var, summed over the processes if these were pooled."""
        if self.everywhere:
            both = torch.stack([dmean, dvar])
            torch.distributed.all_reduce(both)
            dmean, dvar = both
        return dmean, dvar


class BatchSource(Protocol):
    """Provides a batch's statistics: a layer with running averages."""

    training: bool

    def batch(self, moments: Moments, backend: ModuleType, observe: bool) -> Batch:
        """In training: the moments pooled by `backend`. `observe`: whether to update the running averages."""

    def running(self, dtype: torch.dtype) -> Batch:
        """In evaluation: the running averages."""

    def local_averages(self) -> "backends.compiled.Averages | None":
        """The running averages for an operator that reads and updates them; None if it may not, as where batches are
        pooled over processes."""


def normalize(
    x: Tensor, formula: Formula, parameters: tuple[Tensor, ...], source: BatchSource | None = None, correction: int = 0
) -> Tensor:
    """Apply a norm's formula to an activation.

    Args:
        x: (N, C) or (N, C, *spatial), any floating type, any layout. An empty `x` passes through, does not change
            running averages and gives gradients of 0; if other processes have data, it takes part in their exchange.
        formula: maps moments and parameters to `(scale, shift)`.
        parameters: the formula's parameters, in any floating type; they are cast to the type of the statistics.
        source: provides the formula's batch statistics; None if it uses none.
        correction: 1 if variances are divided by P - 1, 0 if by P.

    Returns:
        `scale * (x - mean) + shift`, with the shape, type and layout of `x`. It can be differentiated twice.
    """
    if is_transformed():
        return _composite(x, formula, parameters, source, correction)
    x = backends.laid_out(x)
    backend = backends.backend_of(x)
    call = _whole_layer(backend, formula, parameters, source, correction)
    if not call:
        return _Normalize.apply(x, backend, formula, source, correction, *parameters)
    graph = torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in parameters))
    if graph or forward_ad._current_level >= 0:  # forward mode, which autograd refuses rather than to drop tangents
        return _WholeLayer.apply(x, call, formula, source, *parameters)
    return call.forward(x, parameters)[0]


def _whole_layer(backend: ModuleType, formula: Formula, parameters, source: BatchSource | None, correction: int):
    """The call of the operator for this layer; None if there is none."""
    form = formula.compiled_form() if backend is backends.compiled else None
    if form is None:
        return None
    for parameter in parameters:
        if parameter.dtype is not torch.float32 or type(parameter) not in PLAIN or not parameter.is_cpu:
            return None
    local = getattr(source, "local_averages", lambda: None)  # not every source has to have it
    averages = backends.compiled.NO_AVERAGES if source is None else local()
    return averages and backends.compiled.layer_call(form, averages, correction, len(parameters))


def is_transformed() -> bool:
    """Whether operations are compiled, traced or transformed by `torch.func` rather than just run."""
    if torch.compiler.is_compiling():
        return True
    return torch._C._are_functorch_transforms_active() or torch.jit.is_tracing()


def _is_exported() -> bool:
    """Whether operations are recorded for a program that runs without this library."""
    return torch.compiler.is_exporting() or torch.jit.is_tracing() or torch.onnx.is_in_onnx_export()


class _WholeLayer(torch.autograd.Function):
    """A layer as one operator."""

    @staticmethod
    def forward(ctx, x: Tensor, call: LayerCall, formula: Formula, source: BatchSource | None, *parameters: Tensor):
        y, found = call.forward(x, parameters)
        ctx.call, ctx.formula, ctx.source = call, formula, source
        ctx.save_for_backward(x, found, *parameters)
        return y

    @staticmethod
    def backward(ctx, dy: Tensor):
        x, found, *parameters = ctx.saved_tensors
        call, needed = ctx.call, ctx.needs_input_grad
        if not torch.is_grad_enabled() and backends.reference.is_plain(dy):
            dx, gradients = call.backward(dy, x, found, parameters, needed[0])
            return dx, None, None, None, *gradients
        mean, var, batch_mean, batch_var = call.statistics_of(found)
        moments = Moments(mean, var, math.prod(x.shape[2:]))
        share = 1 / len(x) if call.averages.training else None
        batch = Batch(batch_mean, batch_var, share) if ctx.source else None
        pass_ = _Pass(ctx.formula, ctx.source, call.correction, x, moments, batch, parameters)
        dx, gradients = _gradient(pass_, dy, (needed[0], *needed[4:]))
        return dx, None, None, None, *gradients


class _Normalize(torch.autograd.Function):
    """A layer pass by pass."""

    @staticmethod
    def forward(
        ctx, x: Tensor, backend: ModuleType, formula: Formula, source: BatchSource | None, correction: int,
        *parameters: Tensor,
    ):  # fmt: skip
        moments, batch = _statistics(backend.moments, backend, x, formula, source, correction)
        cast = _cast(parameters, moments)
        form = formula.compiled_form()
        ctx.form = form if backend.has_formula(form, x.shape[1]) else None
        if ctx.form:
            scale, shift = ctx.form.evaluate(backend, moments, batch, cast)
        else:
            scale, shift = (v.contiguous() for v in _evaluated(formula, moments, batch, cast))
        ctx.backend, ctx.formula, ctx.source, ctx.correction = backend, formula, source, correction
        ctx.positions, ctx.batch_kind = moments.positions, batch and batch[2:]
        ctx.save_for_backward(x, *moments[:2], scale, *(batch[:2] if batch else ()), *parameters)
        return backend.scale_shift(x, moments.mean, scale, shift)

    @staticmethod
    def backward(ctx, dy: Tensor):
        x, mean, var, scale, *rest = ctx.saved_tensors
        moments, batch = Moments(mean, var, ctx.positions), None
        if ctx.batch_kind:
            batch, rest = Batch(*rest[:2], *ctx.batch_kind), rest[2:]
        pass_ = _Pass(ctx.formula, ctx.source, ctx.correction, x, moments, batch, rest, scale, ctx.backend, ctx.form)
        needed = ctx.needs_input_grad
        dx, gradients = _gradient(pass_, dy, (needed[0], *needed[5:]))
        return dx, None, None, None, None, *gradients


class _Pass(NamedTuple):
    """What a backward pass knows of its forward pass."""

    formula: Formula
    source: BatchSource | None
    correction: int
    x: Tensor
    moments: Moments
    batch: Batch | None
    parameters: Sequence[Tensor]
    scale: Tensor | None = None
    backend: ModuleType = backends.reference
    form: "backends.Mixture | backends.ChannelGates | None" = None  # the formula's, if the backend has it


def _gradient(of: _Pass, dy: Tensor, needed: Sequence[bool]) -> tuple[Tensor | None, Sequence[Tensor | None]]:
    """Gradients with respect to x and the parameters, where `needed`."""
    if torch.is_grad_enabled():  # for a second derivative
        return _differentiable_gradient(of, dy, needed)
    x, moments, batch, correction = of.x, of.moments, of.batch, of.correction
    backend, form = (of.backend, of.form) if backends.reference.is_plain(dy) else (backends.reference, None)
    dshift, dscale = backend.reductions(dy, x, moments.mean)
    cast = _cast(of.parameters, moments)
    if form:
        found = form.gradient(backend, moments, batch, cast, dscale, dshift)
    else:
        found = of.formula.gradient(moments, batch, tuple(cast), dscale, dshift)
    gradients = [
        g.to(p.dtype) if wanted and g is not None else None
        for g, p, wanted in zip(found[4:], of.parameters, needed[1:], strict=True)
    ]
    if not needed[0]:
        return None, gradients
    scale = _evaluated(of.formula, moments, batch, cast)[0] if of.scale is None else of.scale
    slope, offset = _through_moments(correction, backend, moments, batch, found[:4], scale, dshift)
    return backend.input_gradient(dy, x, moments.mean, scale, slope, offset), gradients


def _evaluated(formula: Formula, moments: Moments, batch: Batch | None, parameters: list[Tensor]) -> list[Tensor]:
    """A formula's scale and shift, each (N, C).

    Raises:
        TypeError: it has returned something else. One (N, C) tensor would be taken apart where N is 2.
    """
    found = formula(moments, batch, *parameters)
    if not isinstance(found, (tuple, list)) or len(found) != 2 or not all(isinstance(v, Tensor) for v in found):
        said = tuple(type(v).__name__ for v in found) if isinstance(found, (tuple, list)) else type(found).__name__
        raise TypeError(f"{type(formula).__name__} has to return two tensors, scale and shift; it returned {said}.")
    return [v.expand_as(moments.mean) for v in found]


def _statistics(measure, backend: ModuleType, x: Tensor, formula: Formula, source: BatchSource | None, correction: int):
    """The moments, computed by `measure` only for channels whose scale or shift needs them, and batch statistics."""
    positions, channels, kind = math.prod(x.shape[2:]), x.shape[1], backends.statistics_type(x)
    training = source is None or source.training
    own = formula.own_moments(channels, training)
    if own == slice(0, channels):
        mean, var = measure(x)
        moments = Moments(mean, var, positions)
        if correction:
            moments = moments._replace(var=moments.var * _corrected(positions))
        batch = source and (source.batch(moments, backend, observe=True) if training else source.running(kind))
        return moments, batch
    assert source is not None  # a formula that does not need all moments of the images uses the batch's
    batch = source.running(kind)
    fixed = [v.repeat(x.shape[0], 1) for v in batch[:2]]
    if own.stop > own.start:
        some = x[:, own]
        # measuring all channels is faster than copying some of them
        measured = measure(some) if backends.is_laid_out(some) else (v[:, own] for v in measure(x))
        sides = [(part[:, : own.start], part[:, own.stop :]) for part in fixed]
        fixed = [torch.cat([left, v, right], 1) for (left, right), v in zip(sides, measured, strict=True)]
    mean, var = fixed
    return Moments(mean, var, positions), batch


def _corrected(positions: int) -> float:
    return positions / max(positions - 1, 1)  # fewer than 2 positions only in empty inputs


def _through_moments(
    correction: int, backend: ModuleType, moments: Moments, batch: Batch | None, found, scale: Tensor, dshift: Tensor
):
    """(slope, offset) of `dx = scale * dy + slope * (x - mean) + offset`: the gradient that flows through moments."""
    of_mean = 1 / max(moments.positions, 1)
    of_var = 2 * of_mean * (_corrected(moments.positions) if correction else 1)
    pooled = None
    if batch and batch.share is not None:
        by_batch = (torch.zeros_like(batch.mean) if gradient is None else gradient for gradient in found[2:])
        pooled = (batch.mean, *batch.collected(*by_batch), batch.share)
    return backend.through_moments(moments.mean, scale, dshift, *found[:2], pooled, of_mean, of_var)


def _differentiable_gradient(of: _Pass, dy: Tensor, needed: Sequence[bool]):
    """The gradient in plain torch operations, which can be differentiated again."""
    source = _Replay(of.source, of.batch) if of.source and of.batch else of.source
    x, *parameters = (v.view_as(v) for v in (of.x, *of.parameters))  # distinct, even if one depends on or is another
    inputs = [v for v, wanted in zip((x, *parameters), needed, strict=True) if wanted]
    y = _composite(x, of.formula, parameters, source, of.correction)
    found = iter(torch.autograd.grad(y, inputs, dy, create_graph=True, allow_unused=True))
    dx, *gradients = (next(found) if wanted else None for wanted in needed)
    return dx, gradients


class _Replay:
    """A source for a batch that its layer has already counted in its running averages."""

    def __init__(self, source: BatchSource, batch: Batch):
        self.training, self._source, self._batch = batch.share is not None, source, batch

    def batch(self, moments: Moments, backend: ModuleType, observe: bool) -> Batch:
        return self._source.batch(moments, backend, observe=False)

    def running(self, dtype: torch.dtype) -> Batch:
        return self._batch


def _composite(x: Tensor, formula, parameters, source, correction: int) -> Tensor:
    """`normalize` in differentiable operations, of which only the moments are a kernel of this library.

    A compiler fuses the pointwise ones with their neighbours, and `torch.func` can transform each. Exported programs
    contain no kernel, because they run without this library, for example as ONNX.
    """
    measure = backends.reference.written_out_moments if _is_exported() else _Moments.apply
    moments, batch = _statistics(measure, backends.reference, x, formula, source, correction)
    scale, shift = _evaluated(formula, moments, batch, _cast(parameters, moments))
    mean, scale, shift = (backends.over(v, x) for v in (moments.mean, scale, shift))
    return torch.addcmul(shift, x - mean, scale).to(x.dtype)


class _Moments(torch.autograd.Function):
    """Mean and variance as one operator, which compilers do not decompose."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor):
        return torch.ops.normshift.moments(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs, output[0])

    @staticmethod
    def backward(ctx, dmean: Tensor, dvar: Tensor):
        x, mean = ctx.saved_tensors
        positions = max(math.prod(x.shape[2:]), 1)
        slope, offset = dvar * (2 / positions), dmean / positions
        return torch.addcmul(backends.over(offset, x), x - backends.over(mean, x), backends.over(slope, x)).to(x.dtype)


def _cast(parameters, moments: Moments) -> list[Tensor]:
    kind = moments.mean.dtype
    return [p if p.dtype == kind else p.to(kind) for p in parameters]
