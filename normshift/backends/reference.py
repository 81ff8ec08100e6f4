"""The passes in plain torch: any type, any device.

On CPUs torch's own group and batch norm are asked for parts of what they do, because their passes are several times
faster than the reductions and the broadcasts that say the same thing. A plane is a channel to them, of a batch of one;
in channels-last each image is a batch.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

aten = torch.ops.aten


def has_formula(compiled_form, channels: int) -> bool:
    """Formulas are evaluated as they are written."""
    return False


SMALL = 2**16  # values of an image in channels-last that are summed sooner than torch is asked image by image
SPAN = 2048  # positions that torch sums one by one, in channels-last, before its rounding shows far from 0


def statistics_type(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def is_plain(x: Tensor) -> bool:
    """Whether this is a tensor with memory of its own, not a stand-in: a fake, a batched or a sharded one."""
    if torch._C._functorch.is_functorch_wrapped_tensor(x) or torch._C._functorch.is_legacy_batchedtensor(x):
        return False
    return type(x).__torch_dispatch__ is Tensor.__torch_dispatch__


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.to(statistics_type(x))
    if x.dim() == 2:
        return x.clone(), torch.zeros_like(x)
    if not x.numel():
        return x.new_zeros(x.shape[:2]), x.new_zeros(x.shape[:2])
    if not _on_cpu(x):
        return torch.var_mean(x, _spatial(x), correction=0)[::-1]
    if _in_planes(x):
        planes = _as_one_image(x).contiguous()  # maps of one position may lie apart, which torch 2.11 refuses
        count = planes.shape[1]
        _, mean, rsigma = aten.native_group_norm(planes, None, None, 1, count, planes.shape[2], count, 0.0)
        return mean.view(x.shape[:2]), rsigma.view(x.shape[:2]).square_().reciprocal_()
    if x[0].numel() < SMALL:
        mean = x.mean(_spatial(x))
        return mean, (x - over(mean, x)).square_().mean(_spatial(x))
    means, variances = _by_span([aten.batch_norm_update_stats(span, None, None, 0.0) for span in _spans(x)], x)
    shares = _shares(x)
    mean = (shares * means).sum(1)
    return mean, (shares * torch.addcmul(variances, *[means - mean[:, None]] * 2)).sum(1)


def written_out_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """The same in operations that every torch and ONNX know, for programs that run elsewhere; to be differentiated."""
    x = x.to(statistics_type(x))
    if x.dim() == 2:
        return x.clone(), torch.zeros_like(x)
    mean = x.mean(_spatial(x), keepdim=True)
    return mean.flatten(1), (x - mean).square().mean(_spatial(x))


def scale_shift(x: Tensor, mean: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    if not _on_cpu(x) or not x.numel() or x.dtype != mean.dtype or not _in_planes(x) or _is_single(x):
        return _scaled(x, mean, scale, shift).to(x.dtype)
    y, planes = torch.empty_like(x, memory_format=torch.contiguous_format), _as_one_image(x)
    vectors = (v.reshape(-1) for v in (scale, shift, mean, torch.ones_like(mean)))
    unused = {"save_mean": mean.new_empty(0), "save_invstd": mean.new_empty(0)}
    aten.native_batch_norm.out(planes, *vectors, False, 0.0, 0.0, out=y.view(planes.shape), **unused)
    return y


def reductions(dy: Tensor, x: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    dy, x = dy.to(mean.dtype), x.to(mean.dtype)
    if x.dim() == 2:
        return dy.clone(), dy * (x - mean)
    if not x.numel():
        return torch.zeros_like(mean), torch.zeros_like(mean)
    planes = _in_planes(x)
    if not _on_cpu(x) or (not planes and x[0].numel() < SMALL):
        return dy.sum(_spatial(x)), (dy * (x - over(mean, x))).sum(_spatial(x))
    if planes:
        dshift, dscale = _sums(_as_one_image(dy.contiguous()), _as_one_image(x), mean.reshape(-1))
        return dshift.view(mean.shape), dscale.view(mean.shape)
    dy = dy.movedim(1, -1).contiguous().movedim(-1, 1)
    centres = (centre for centre in mean for _ in range(_spans_a_map(x)))
    sums = _by_span([_sums(*span) for span in zip(_spans(dy), _spans(x), centres, strict=True)], x)
    dshift, dscale = (values.sum(1) for values in sums)
    return dshift, dscale


def input_gradient(dy: Tensor, x: Tensor, mean: Tensor, scale: Tensor, slope: Tensor, offset: Tensor) -> Tensor:
    return _scaled(x, mean, slope, offset).addcmul_(dy.to(mean.dtype), over(scale, x)).to(x.dtype)


def pooled(mean: Tensor, var: Tensor, dim: int = 0, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """Moments over a further axis of moments, by the law of total variance.

    Never `E[x^2] - mean^2`, which cancels where the mean is large against the spread.
    """
    centre = mean.mean(dim, keepdim=True)
    between = mean - centre
    return centre if keepdim else centre.squeeze(dim), torch.addcmul(var, between, between).mean(dim, keepdim=keepdim)


def update_running(
    running_mean: Tensor, running_var: Tensor, mean: Tensor, var: Tensor, momentum: float, unbiased
) -> None:
    """Let running averages take `momentum` of new moments (C,), of the variance times `unbiased`."""
    running_mean.lerp_(mean.to(running_mean.dtype), momentum)
    running_var.lerp_((var * unbiased).to(running_var.dtype), momentum)


def through_moments(mean: Tensor, scale: Tensor, dshift: Tensor, dmean, dvar, pooled, of_mean: float, of_var: float):
    """`slope` and `offset` of the input's gradient: what reaches it through moments.

    Args:
        dmean, dvar: gradients with respect to each map's own, None for 0.
        pooled: the batch's mean, the gradients with respect to its mean and variance, and a map's share of it; None
            without a batch.
        of_mean, of_var: what of them reaches a position: through the mean, and through the variance for each unit of
            distance.
    """
    grad_mean = torch.mul(scale, dshift).neg_() if dmean is None else torch.addcmul(dmean, scale, dshift, value=-1)
    if pooled:
        batch_mean, dbatch_mean, dbatch_var, share = pooled
        of_batch = dbatch_var * share
        grad_mean = torch.addcmul(grad_mean, mean - batch_mean, of_batch, value=2).add_(dbatch_mean * share)
        dvar = of_batch.expand_as(mean) if dvar is None else dvar + of_batch
    return torch.zeros_like(mean) if dvar is None else dvar * of_var, grad_mean * of_mean


def over(vector: Tensor, x: Tensor) -> Tensor:
    """An (N, C) tensor shaped to broadcast over the spatial axes of x."""
    return vector.reshape(vector.shape + (1,) * (x.dim() - 2))


def _on_cpu(x: Tensor) -> bool:
    return x.device.type == "cpu" and is_plain(x)


def _scaled(x: Tensor, mean: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    if _is_single(x):  # each value is its own mean, which leaves 0 whatever the scale
        return torch.addcmul(over(shift, x), x - over(mean, x), over(scale, x))
    return torch.addcmul(over(torch.addcmul(shift, scale, mean, value=-1), x), x, over(scale, x))


def _is_single(x: Tensor) -> bool:
    return math.prod(x.shape[2:]) == 1


def _spatial(x: Tensor) -> tuple[int, ...]:
    return tuple(range(2, x.dim()))


def _in_planes(x: Tensor) -> bool:
    return x[0].is_contiguous()


def _as_one_image(x: Tensor) -> Tensor:
    """Planes as the channels of one image: (1, N * C, P)."""
    return x.reshape(1, x.shape[0] * x.shape[1], -1)


def _spans(x: Tensor) -> Sequence[Tensor]:
    """The images of a channels-last batch one by one, each in spans of positions: (1, C, up to SPAN, 1)."""
    count, channels, positions = *x.shape[:2], x[0, 0].numel()
    size, strides = (count, 1, channels, positions, 1), (x.stride(0), channels * positions, 1, channels, channels)
    images = x.as_strided(size, strides).unbind()
    return images if positions <= SPAN else [span for image in images for span in image.split(SPAN, 2)]


def _spans_a_map(x: Tensor) -> int:
    return -(-x[0, 0].numel() // SPAN)


def _by_span(found: list[tuple[Tensor, Tensor]], x: Tensor) -> list[Tensor]:
    """What was found for spans, as (N, spans, C)."""
    return [torch.stack(values).unflatten(0, (x.shape[0], -1)) for values in zip(*found, strict=True)]


def _shares(x: Tensor) -> Tensor:
    """Each span's share of a map, (spans, 1)."""
    positions = x[0, 0].numel()
    return x.new_tensor([[min(SPAN, positions - start) / positions] for start in range(0, positions, SPAN)])


def _sums(dy: Tensor, x: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Batch norm's gradients with respect to its bias and, at a standard deviation of 1, to its weight."""
    ones, asked = torch.ones_like(mean), (False, True, True)
    _, dweight, dbias = aten.native_batch_norm_backward(dy, x, ones, None, None, mean, ones, True, 0.0, asked)
    return dbias, dweight
