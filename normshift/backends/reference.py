"""The passes in plain torch, for any type and device.

On CPUs the passes call parts of torch's group norm and batch norm, which are several times faster than reductions and
broadcasts. For contiguous maps, each of the N * C planes is one channel of a batch of one; for channels-last maps, each
image is one batch.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

aten = torch.ops.aten


def has_formula(compiled_form, channels: int) -> bool:
    """Whether this backend has compiled formulas: it has none."""
    return False


SMALL = 2**16  # up to this many values, a plain reduction over a channels-last image is faster than a call for each
SPAN = 2048  # positions per call in channels-last: torch adds them one by one, so longer sums would lose digits


def statistics_type(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def is_plain(x: Tensor) -> bool:
    """Whether this is an ordinary tensor with memory, not a fake, batched or sharded one."""
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
        planes = _as_one_image(x).contiguous()  # torch 2.11 refuses strided maps of one position
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
    """`moments` in differentiable operations that ONNX has, for exported programs."""
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
    """Pool moments over one axis, by the law of total variance.

    `E[x^2] - mean^2` would lose digits by cancellation if the mean is large compared with the standard deviation.
    """
    centre = mean.mean(dim, keepdim=True)
    between = mean - centre
    return centre if keepdim else centre.squeeze(dim), torch.addcmul(var, between, between).mean(dim, keepdim=keepdim)


def update_running(
    running_mean: Tensor, running_var: Tensor, mean: Tensor, var: Tensor, momentum: float, unbiased
) -> None:
    """Move running averages (C,) by `momentum` towards new moments (C,), the variance multiplied by `unbiased`."""
    running_mean.lerp_(mean.to(running_mean.dtype), momentum)
    running_var.lerp_((var * unbiased).to(running_var.dtype), momentum)


def through_moments(mean: Tensor, scale: Tensor, dshift: Tensor, dmean, dvar, pooled, of_mean: float, of_var: float):
    """`slope` and `offset` of the input's gradient, which flow through the moments.

    Args:
        mean, scale: of each map, (N, C).
        dshift: the gradient with respect to each map's shift.
        dmean, dvar: the gradients with respect to each map's mean and variance; None for 0.
        pooled: the batch's mean, the gradients with respect to its mean and variance, and one map's share of the batch;
            None without batch statistics.
        of_mean: the derivative of a map's mean with respect to one of its values, 1 / P.
        of_var: the derivative of a map's variance with respect to one of its values, divided by x - mean.
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
    if _is_single(x):  # x - mean is exactly 0, which the other form would lose for a large scale
        return torch.addcmul(over(shift, x), x - over(mean, x), over(scale, x))
    return torch.addcmul(over(torch.addcmul(shift, scale, mean, value=-1), x), x, over(scale, x))


def _is_single(x: Tensor) -> bool:
    return math.prod(x.shape[2:]) == 1


def _spatial(x: Tensor) -> tuple[int, ...]:
    return tuple(range(2, x.dim()))


def _in_planes(x: Tensor) -> bool:
    return x[0].is_contiguous()


def _as_one_image(x: Tensor) -> Tensor:
    """Contiguous maps as the channels of one image, (1, N * C, P)."""
    return x.reshape(1, x.shape[0] * x.shape[1], -1)


def _spans(x: Tensor) -> Sequence[Tensor]:
    """The images of a channels-last batch, cut into spans of positions: (1, C, up to SPAN, 1) each."""
    count, channels, positions = *x.shape[:2], x[0, 0].numel()
    size, strides = (count, 1, channels, positions, 1), (x.stride(0), channels * positions, 1, channels, channels)
    images = x.as_strided(size, strides).unbind()
    return images if positions <= SPAN else [span for image in images for span in image.split(SPAN, 2)]


def _spans_a_map(x: Tensor) -> int:
    return -(-x[0, 0].numel() // SPAN)


def _by_span(found: list[tuple[Tensor, Tensor]], x: Tensor) -> list[Tensor]:
    """Results of all spans, stacked to (N, spans, C)."""
    return [torch.stack(values).unflatten(0, (x.shape[0], -1)) for values in zip(*found, strict=True)]


def _shares(x: Tensor) -> Tensor:
    """Each span's share of the positions of a map, (spans, 1)."""
    positions = x[0, 0].numel()
    return x.new_tensor([[min(SPAN, positions - start) / positions] for start in range(0, positions, SPAN)])


def _sums(dy: Tensor, x: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of dy and of dy * (x - mean): batch norm's gradients with respect to bias and weight, if var is 1."""
    ones, asked = torch.ones_like(mean), (False, True, True)
    _, dweight, dbias = aten.native_batch_norm_backward(dy, x, ones, None, None, mean, ones, True, 0.0, asked)
    return dbias, dweight
