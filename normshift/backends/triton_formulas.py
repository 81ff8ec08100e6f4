"""The formulas of normshift/formulas.py and their gradients in Triton, for CUDA; cpu/formulas.h has them for CPUs.

In torch each formula is dozens of kernel launches on a few thousand numbers, so the GPU waits for launches: on an H200,
the formulas of one switchable norm took 2 ms in forward and backward pass, for maps of any size. Here a formula is one
launch, and its gradient one or two. Rows are images, columns are channels. Names and order are those of
cpu/formulas.h.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from normshift.backends import reference
from normshift.backends.triton_launch import launch

WIDEST = 8192  # the most channels of an image that one program can hold in registers
COLUMNS = 32  # channels per program, in kernels that sum over the images
ROWS = 32  # images that such a program reads at a time
FLAT = 1024  # values per program, in elementwise kernels
INSTANCE, BATCH = 0, -1  # statistics of a mixture; any other value is a number of groups

_numbers = [
    "samples", "channels", "count", "split", "first", "last", "momentum", "unbiased", "share", "of_mean", "of_var",
]  # fmt: skip
_kernel = triton.jit(do_not_specialize=_numbers)


def has_formula(compiled_form, channels: int) -> bool:
    """Whether the kernels support this compiled form for so many channels."""
    if compiled_form is None:
        return False
    groups = [count for count in getattr(compiled_form, "statistics", ()) if count not in (INSTANCE, BATCH, 1)]
    even = not groups or (channels & (channels - 1) == 0 and all(count & (count - 1) == 0 for count in groups))
    return channels <= WIDEST and even


def pooled(mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    """Moments over the batch, (C,) each, from those of each image."""
    samples, channels = mean.shape
    whole_mean, whole_var = mean.new_empty(2, channels).unbind()
    tensors = mean, var, whole_mean, whole_var
    launch(_pooled_kernel, _over(channels), tensors, (samples, channels), {"B": COLUMNS, "T": ROWS})
    return whole_mean, whole_var


def update_running(running_mean: Tensor, running_var: Tensor, mean: Tensor, var: Tensor, momentum, unbiased) -> None:
    """Move running averages (C,) by `momentum` towards new moments (C,), the variance multiplied by `unbiased`."""
    fits = all(v.dtype == torch.float32 and v.is_contiguous() for v in (running_mean, running_var, mean, var))
    if not fits or isinstance(momentum, Tensor) or isinstance(unbiased, Tensor):  # a number would have to be copied
        return reference.update_running(running_mean, running_var, mean, var, momentum, unbiased)
    numbers = float(momentum), float(unbiased), len(mean)
    tensors = running_mean, running_var, mean, var
    launch(_update_running_kernel, triton.cdiv(len(mean), FLAT), tensors, numbers, {"B": FLAT})


def mixed(
    mean: Tensor, var: Tensor, batch_mean, batch_var, weight: Tensor, bias: Tensor, mean_weight, var_weight,
    statistics: tuple[int, ...], eps: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Scale and shift (N, C) of a mixture of statistics."""
    scale, shift = torch.empty((2, *mean.shape), dtype=mean.dtype, device=mean.device).unbind()
    tensors, constants = _mixture(mean, var, batch_mean, batch_var, weight, mean_weight, var_weight, statistics)
    launch(_mixed_kernel, len(mean), (*tensors, bias, scale, shift), (mean.shape[1], float(eps)), constants)
    return scale, shift


def mixed_gradient(
    mean: Tensor, var: Tensor, batch_mean, batch_var, weight: Tensor, bias: Tensor, mean_weight, var_weight,
    statistics: tuple[int, ...], eps: float, dscale: Tensor, dshift: Tensor,
) -> list[Tensor]:  # fmt: skip
    """Gradients with respect to mean, var, batch_mean, batch_var, weight, bias, mean_weight and var_weight."""
    (samples, channels), parts = mean.shape, len(statistics)
    dmean, dvar, through, by_mean, by_var = mean.new_empty(5, samples, channels).unbind()
    dots = mean.new_empty(samples, 2, parts)
    vectors, dlogits = mean.new_empty(4, channels), mean.new_empty(2, parts)
    tensors, constants = _mixture(mean, var, batch_mean, batch_var, weight, mean_weight, var_weight, statistics)
    dscale, dshift = dscale.contiguous(), dshift.contiguous()
    found = dmean, dvar, through, by_mean, by_var, dots
    launch(_mixed_gradient_kernel, samples, (*tensors, dscale, dshift, *found), (channels, float(eps)), constants)
    summed = through, dshift, by_mean, by_var, dots, *tensors[-2:], vectors, dlogits
    batch = statistics.index(BATCH) if BATCH in statistics else -1
    shares = {"K": parts, "SHARED": constants["SHARED"], "AT": batch, "B": COLUMNS, "T": ROWS}
    launch(_mixed_sums_kernel, _over(channels), summed, (samples, channels), shares)
    dweight, dbias, dbatch_mean, dbatch_var = vectors.unbind()
    return [dmean, dvar, dbatch_mean, dbatch_var, dweight, dbias, *dlogits.unbind()]


def gated(
    mean: Tensor,
    var: Tensor,
    batch_mean: Tensor,
    batch_var: Tensor,
    weight,
    bias,
    rho,
    first: int,
    last: int,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Scale and shift (N, C) between batch and instance norm."""
    scale, shift = torch.empty((2, *mean.shape), dtype=mean.dtype, device=mean.device).unbind()
    tensors, numbers = _gates(mean, var, batch_mean, batch_var, weight, rho, first, last)
    tensors, constants = (*tensors, bias[0], bias[-1], scale, shift), {"LEARNED": rho is not None, "B": FLAT}
    launch(_gated_kernel, triton.cdiv(mean.numel(), FLAT), tensors, (mean.numel(), *numbers, float(eps)), constants)
    return scale, shift


def gated_gradient(
    mean: Tensor, var: Tensor, batch_mean: Tensor, batch_var: Tensor, weight, bias, rho, first: int, last: int,
    eps: float, dscale: Tensor, dshift: Tensor,
) -> list[Tensor]:  # fmt: skip
    """Gradients with respect to mean, var, batch_mean, batch_var, weight, bias and rho."""
    samples, channels = mean.shape
    dmean, dvar = mean.new_empty(2, samples, channels).unbind()
    vectors = mean.new_empty(5, channels)
    tensors, numbers = _gates(mean, var, batch_mean, batch_var, weight, rho, first, last)
    tensors = (*tensors, dscale.contiguous(), dshift.contiguous(), dmean, dvar, vectors)
    constants = {"LEARNED": rho is not None, "B": COLUMNS, "T": ROWS}
    launch(_gated_gradient_kernel, _over(channels), tensors, (samples, *numbers, float(eps)), constants)
    return [dmean, dvar, *vectors.unbind()]


def through_moments(mean: Tensor, scale: Tensor, dshift: Tensor, dmean, dvar, pooled, of_mean: float, of_var: float):
    """Slope and offset of the input's gradient; see `reference.through_moments`."""
    *batch, share = pooled or (mean, mean, mean, 0.0)
    if dmean is None or dvar is None or isinstance(share, Tensor):
        return reference.through_moments(mean, scale, dshift, dmean, dvar, pooled, of_mean, of_var)
    slope, offset = mean.new_empty(2, *mean.shape).unbind()
    tensors = mean, scale, dshift, dmean.contiguous(), dvar.contiguous(), *batch, slope, offset
    numbers = mean.numel(), mean.shape[1], float(share), of_mean, of_var
    constants = {"POOLS": pooled is not None, "B": FLAT}
    launch(_through_moments_kernel, triton.cdiv(mean.numel(), FLAT), tensors, numbers, constants)
    return slope, offset


def _over(channels: int) -> int:
    return triton.cdiv(channels, COLUMNS)


def _mixture(mean, var, batch_mean, batch_var, weight, mean_weight, var_weight, statistics):
    """The arguments of both kernels of a mixture. `mean` stands for absent tensors, which the kernels do not read."""
    wide = triton.next_power_of_2(mean.shape[1])
    shared = mean_weight is not None
    tensors = [mean if v is None else v.contiguous() for v in (mean, var, batch_mean, batch_var, weight)]
    logits = [mean if v is None else v.contiguous() for v in (mean_weight, var_weight)]
    of = (*statistics, *[INSTANCE] * (4 - len(statistics)))
    names = {"S0": of[0], "S1": of[1], "S2": of[2], "S3": of[3]}
    warps = max(1, min(8, wide // 256))
    return [*tensors, *logits], {**names, "K": len(statistics), "SHARED": shared, "C2": wide, "num_warps": warps}


def _gates(mean, var, batch_mean, batch_var, weight, rho, first: int, last: int):
    """The tensors and numbers that both kernels of gates need."""
    channels = mean.shape[1]
    split = len(weight[0])
    gate = mean if rho is None else rho.contiguous()
    tensors = [mean, var, batch_mean.contiguous(), batch_var.contiguous(), gate, weight[0], weight[-1]]
    return tensors, (channels, split, first, min(last, channels))


# -------------------------------------------------------------------------------------------------------- the kernels


@_kernel
def _pooled_kernel(mean, var, whole_mean, whole_var, samples, channels, B: tl.constexpr, T: tl.constexpr):
    """By the law of total variance, as in `reference.pooled`."""
    c = tl.program_id(0) * B + tl.arange(0, B)
    total = tl.zeros((B,), tl.float32)
    for start in range(0, samples, T):
        n = start + tl.arange(0, T)
        at, inside = n[:, None] * channels + c[None, :], (n < samples)[:, None] & (c < channels)[None, :]
        total += tl.sum(tl.load(mean + at, mask=inside, other=0.0), 0)
    centre = total / samples
    total = tl.zeros((B,), tl.float32)
    for start in range(0, samples, T):
        n = start + tl.arange(0, T)
        at, inside = n[:, None] * channels + c[None, :], (n < samples)[:, None] & (c < channels)[None, :]
        between = tl.where(inside, tl.load(mean + at, mask=inside, other=0.0) - centre[None, :], 0.0)
        total += tl.sum(tl.load(var + at, mask=inside, other=0.0) + between * between, 0)
    tl.store(whole_mean + c, centre, mask=c < channels)
    tl.store(whole_var + c, total / samples, mask=c < channels)


@_kernel
def _update_running_kernel(running_mean, running_var, mean, var, momentum, unbiased, channels, B: tl.constexpr):
    c = tl.program_id(0) * B + tl.arange(0, B)
    inside = c < channels
    old_mean, old_var = tl.load(running_mean + c, mask=inside), tl.load(running_var + c, mask=inside)
    new_mean, new_var = tl.load(mean + c, mask=inside), tl.load(var + c, mask=inside) * unbiased
    tl.store(running_mean + c, old_mean + momentum * (new_mean - old_mean), mask=inside)
    tl.store(running_var + c, old_var + momentum * (new_var - old_var), mask=inside)


@triton.jit
def _share(logits, k: tl.constexpr, K: tl.constexpr, SHARED: tl.constexpr):
    """The k-th of K entries of the softmax; 1 if there are no logits."""
    if not SHARED:
        return 1.0
    of = tl.arange(0, 4)
    values = tl.load(logits + of, mask=of < K, other=float("-inf"))
    shares = tl.exp(values - tl.max(values, 0))
    return tl.sum(tl.where(of == k, shares, 0.0), 0) / tl.sum(shares, 0)


@triton.jit
def _pool(values, channels, S: tl.constexpr, C2: tl.constexpr):
    """The mean of each channel's group, for S groups of channels."""
    if S == 1:
        return tl.zeros((C2,), tl.float32) + tl.sum(values, 0) / channels
    groups = tl.reshape(values, (S, C2 // S))
    means = tl.sum(groups, 1) / (C2 // S)
    return tl.reshape(tl.broadcast_to(means[:, None], (S, C2 // S)), (C2,))


@triton.jit
def _statistic(mean, var, batch_mean, batch_var, inside, channels, S: tl.constexpr, C2: tl.constexpr):
    """The means and variances (C,) of one statistic S, for one image."""
    if S == 0:
        return mean, var
    elif S == -1:
        return batch_mean, batch_var
    else:
        pooled_mean = _pool(mean, channels, S, C2)
        between = tl.where(inside, mean - pooled_mean, 0.0)
        return pooled_mean, _pool(var + between * between, channels, S, C2)


@triton.jit
def _image(mean, var, batch_mean, batch_var, channels, BATCH: tl.constexpr, C2: tl.constexpr):
    """Channel numbers and their mask, and moments of this program's image and of the batch; 0 where masked."""
    c = tl.arange(0, C2)
    inside = c < channels
    row = tl.program_id(0) * channels + c
    own_mean, own_var = tl.load(mean + row, mask=inside, other=0.0), tl.load(var + row, mask=inside, other=0.0)
    if BATCH:
        of_mean = tl.load(batch_mean + c, mask=inside, other=0.0)
        of_var = tl.load(batch_var + c, mask=inside, other=0.0)
    else:
        of_mean, of_var = own_mean, own_var
    return c, inside, row, own_mean, own_var, of_mean, of_var


@triton.jit
def _mix(
    own_mean, own_var, of_mean, of_var, inside, channels, mean_weight, var_weight,
    S0: tl.constexpr, S1: tl.constexpr, S2: tl.constexpr, S3: tl.constexpr, K: tl.constexpr, SHARED: tl.constexpr,
    C2: tl.constexpr,
):  # fmt: skip
    """The mixture of distances between the image's mean and each statistic's mean, and the mixture of variances."""
    m, v = _statistic(own_mean, own_var, of_mean, of_var, inside, channels, S0, C2)
    distance = _share(mean_weight, 0, K, SHARED) * (own_mean - m)
    variance = _share(var_weight, 0, K, SHARED) * v
    if K > 1:
        m, v = _statistic(own_mean, own_var, of_mean, of_var, inside, channels, S1, C2)
        distance += _share(mean_weight, 1, K, SHARED) * (own_mean - m)
        variance += _share(var_weight, 1, K, SHARED) * v
    if K > 2:
        m, v = _statistic(own_mean, own_var, of_mean, of_var, inside, channels, S2, C2)
        distance += _share(mean_weight, 2, K, SHARED) * (own_mean - m)
        variance += _share(var_weight, 2, K, SHARED) * v
    if K > 3:
        m, v = _statistic(own_mean, own_var, of_mean, of_var, inside, channels, S3, C2)
        distance += _share(mean_weight, 3, K, SHARED) * (own_mean - m)
        variance += _share(var_weight, 3, K, SHARED) * v
    return distance, variance


@_kernel
def _mixed_kernel(
    mean, var, batch_mean, batch_var, weight, mean_weight, var_weight, bias, scale, shift, channels, eps,
    S0: tl.constexpr, S1: tl.constexpr, S2: tl.constexpr, S3: tl.constexpr, K: tl.constexpr, SHARED: tl.constexpr,
    C2: tl.constexpr,
):  # fmt: skip
    BATCH: tl.constexpr = S0 == -1 or S1 == -1 or S2 == -1 or S3 == -1
    c, inside, row, own_mean, own_var, of_mean, of_var = _image(mean, var, batch_mean, batch_var, channels, BATCH, C2)
    distance, variance = _mix(
        own_mean, own_var, of_mean, of_var, inside, channels, mean_weight, var_weight, S0, S1, S2, S3, K, SHARED, C2
    )
    factor = tl.load(weight + c, mask=inside, other=0.0) * tl.rsqrt(variance + eps)
    constant = tl.load(bias + c, mask=inside, other=0.0)
    tl.store(scale + row, factor, mask=inside)
    tl.store(shift + row, constant + factor * distance, mask=inside)


@triton.jit
def _distribute(
    k: tl.constexpr, S: tl.constexpr, own_mean, own_var, of_mean, of_var, inside, channels, distance, variance,
    grad_mean, grad_var, dmean, dvar, mean_weight, var_weight, dots, K: tl.constexpr, SHARED: tl.constexpr,
    C2: tl.constexpr,
):  # fmt: skip
    """Add statistic k's part to the gradients with respect to an image's moments; store its sums for the logits."""
    m, v = _statistic(own_mean, own_var, of_mean, of_var, inside, channels, S, C2)
    tl.store(dots + k, tl.sum(tl.where(inside, grad_mean * (distance - (own_mean - m)), 0.0), 0))
    tl.store(dots + K + k, tl.sum(tl.where(inside, grad_var * (v - variance), 0.0), 0))
    a, b = _share(mean_weight, k, K, SHARED), _share(var_weight, k, K, SHARED)
    if S == 0:
        return dmean + a * grad_mean, dvar + b * grad_var
    elif S == -1:
        return dmean, dvar
    else:
        of_group = b * _pool(grad_var, channels, S, C2)
        return dmean + a * _pool(grad_mean, channels, S, C2) + 2 * (own_mean - m) * of_group, dvar + of_group


@_kernel
def _mixed_gradient_kernel(
    mean, var, batch_mean, batch_var, weight, mean_weight, var_weight, dscale, dshift,
    dmean, dvar, through, by_mean, by_var, dots, channels, eps,
    S0: tl.constexpr, S1: tl.constexpr, S2: tl.constexpr, S3: tl.constexpr, K: tl.constexpr, SHARED: tl.constexpr,
    C2: tl.constexpr,
):  # fmt: skip
    BATCH: tl.constexpr = S0 == -1 or S1 == -1 or S2 == -1 or S3 == -1
    c, inside, row, own_mean, own_var, of_mean, of_var = _image(mean, var, batch_mean, batch_var, channels, BATCH, C2)
    distance, variance = _mix(
        own_mean, own_var, of_mean, of_var, inside, channels, mean_weight, var_weight, S0, S1, S2, S3, K, SHARED, C2
    )
    rsigma = tl.rsqrt(variance + eps)
    factor = tl.load(weight + c, mask=inside, other=0.0) * rsigma
    grad_shift = tl.load(dshift + row, mask=inside, other=0.0)
    passed = (tl.load(dscale + row, mask=inside, other=0.0) + grad_shift * distance) * rsigma
    own, grad_mean = grad_shift * factor, -grad_shift * factor
    grad_var = tl.where(inside, passed * rsigma * factor * -0.5, 0.0)
    of_own = tl.zeros((C2,), tl.float32)
    dots += tl.program_id(0) * (2 * K)
    own, of_own = _distribute(
        0, S0, own_mean, own_var, of_mean, of_var, inside, channels, distance, variance, grad_mean, grad_var, own,
        of_own, mean_weight, var_weight, dots, K, SHARED, C2,
    )  # fmt: skip
    if K > 1:
        own, of_own = _distribute(
            1, S1, own_mean, own_var, of_mean, of_var, inside, channels, distance, variance, grad_mean, grad_var, own,
            of_own, mean_weight, var_weight, dots, K, SHARED, C2,
        )  # fmt: skip
    if K > 2:
        own, of_own = _distribute(
            2, S2, own_mean, own_var, of_mean, of_var, inside, channels, distance, variance, grad_mean, grad_var, own,
            of_own, mean_weight, var_weight, dots, K, SHARED, C2,
        )  # fmt: skip
    if K > 3:
        own, of_own = _distribute(
            3, S3, own_mean, own_var, of_mean, of_var, inside, channels, distance, variance, grad_mean, grad_var, own,
            of_own, mean_weight, var_weight, dots, K, SHARED, C2,
        )  # fmt: skip
    tl.store(dmean + row, own, mask=inside)
    tl.store(dvar + row, of_own, mask=inside)
    tl.store(through + row, passed, mask=inside)
    if BATCH:
        tl.store(by_mean + row, grad_mean, mask=inside)
        tl.store(by_var + row, grad_var, mask=inside)


@triton.jit
def _column_sums(values, samples, channels, c, T: tl.constexpr, B: tl.constexpr):
    total = tl.zeros((B,), tl.float32)
    for start in range(0, samples, T):
        n = start + tl.arange(0, T)
        inside = (n < samples)[:, None] & (c < channels)[None, :]
        total += tl.sum(tl.load(values + n[:, None] * channels + c[None, :], mask=inside, other=0.0), 0)
    return total


@_kernel
def _mixed_sums_kernel(
    through, dshift, by_mean, by_var, dots, mean_weight, var_weight, vectors, dlogits, samples, channels,
    K: tl.constexpr, SHARED: tl.constexpr, AT: tl.constexpr, B: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """Gradients that are sums over the images: weight, bias, logits, and the batch's moments (statistic AT)."""
    c = tl.program_id(0) * B + tl.arange(0, B)
    inside = c < channels
    tl.store(vectors + c, _column_sums(through, samples, channels, c, T, B), mask=inside)
    tl.store(vectors + channels + c, _column_sums(dshift, samples, channels, c, T, B), mask=inside)
    if AT >= 0:
        a, b = _share(mean_weight, AT, K, SHARED), _share(var_weight, AT, K, SHARED)
        tl.store(vectors + 2 * channels + c, a * _column_sums(by_mean, samples, channels, c, T, B), mask=inside)
        tl.store(vectors + 3 * channels + c, b * _column_sums(by_var, samples, channels, c, T, B), mask=inside)
    if tl.program_id(0) == 0 and SHARED:
        entry = tl.arange(0, 8)
        sums = _column_sums(dots, samples, 2 * K, entry, T, 8)
        for k in tl.static_range(K):
            of_mean, of_var = _share(mean_weight, k, K, SHARED), _share(var_weight, k, K, SHARED)
            tl.store(dlogits + k, of_mean * tl.sum(tl.where(entry == k, sums, 0.0), 0))
            tl.store(dlogits + K + k, of_var * tl.sum(tl.where(entry == K + k, sums, 0.0), 0))


@triton.jit
def _gate(rho, weight, others, c, inside, split, first, last, LEARNED: tl.constexpr):
    """Gates and weights of channels c; `weight` belongs to the first `split` channels, `others` to the rest."""
    gate = tl.load(rho + c, mask=inside, other=0.0) if LEARNED else ((c >= first) & (c < last)).to(tl.float32)
    return gate, _halved(weight, others, c, inside, split)


@triton.jit
def _halved(values, others, c, inside, split):
    """The values of channels c, from `values` for the first `split` channels and from `others` for the rest."""
    return tl.where(
        c < split,
        tl.load(values + c, mask=inside & (c < split), other=0.0),
        tl.load(others + c - split, mask=inside & (c >= split), other=0.0),
    )


@_kernel
def _gated_kernel(
    mean, var, batch_mean, batch_var, rho, weight, others, bias, other_bias, scale, shift,
    count, channels, split, first, last, eps, LEARNED: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * B + tl.arange(0, B)
    inside, c = i < count, i % channels
    gate, factor = _gate(rho, weight, others, c, inside, split, first, last, LEARNED)
    of_batch = factor * gate * tl.rsqrt(tl.load(batch_var + c, mask=inside, other=1.0) + eps)
    of_instance = factor * (1 - gate) * tl.rsqrt(tl.load(var + i, mask=inside, other=1.0) + eps)
    apart = tl.load(mean + i, mask=inside, other=0.0) - tl.load(batch_mean + c, mask=inside, other=0.0)
    tl.store(scale + i, of_batch + of_instance, mask=inside)
    tl.store(shift + i, _halved(bias, other_bias, c, inside, split) + of_batch * apart, mask=inside)


@_kernel
def _gated_gradient_kernel(
    mean, var, batch_mean, batch_var, rho, weight, others, dscale, dshift, dmean, dvar, vectors, samples,
    channels, split, first, last, eps, LEARNED: tl.constexpr, B: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    c = tl.program_id(0) * B + tl.arange(0, B)
    there = c < channels
    gate, factor = _gate(rho, weight, others, c, there, split, first, last, LEARNED)
    of_batch = tl.rsqrt(tl.load(batch_var + c, mask=there, other=1.0) + eps)
    centre = tl.load(batch_mean + c, mask=there, other=0.0)
    batch_scale, instance_weight = factor * gate * of_batch, factor * (1 - gate) * -0.5
    by_batch = tl.zeros((B,), tl.float32)
    by_instance = tl.zeros((B,), tl.float32)
    dbias = tl.zeros((B,), tl.float32)
    for start in range(0, samples, T):
        n = start + tl.arange(0, T)
        at, inside = n[:, None] * channels + c[None, :], (n < samples)[:, None] & there[None, :]
        of_instance = tl.rsqrt(tl.load(var + at, mask=inside, other=1.0) + eps)
        grad_scale = tl.load(dscale + at, mask=inside, other=0.0)
        grad_shift = tl.load(dshift + at, mask=inside, other=0.0)
        apart = tl.load(mean + at, mask=inside, other=0.0) - centre[None, :]
        passed = grad_scale * of_instance
        by_batch += tl.sum(tl.where(inside, grad_scale + grad_shift * apart, 0.0), 0) * of_batch
        by_instance += tl.sum(passed, 0)
        dbias += tl.sum(grad_shift, 0)
        tl.store(dmean + at, grad_shift * batch_scale[None, :], mask=inside)
        tl.store(dvar + at, passed * of_instance * of_instance * instance_weight[None, :], mask=inside)
    tl.store(vectors + c, -batch_scale * dbias, mask=there)
    tl.store(vectors + channels + c, by_batch * batch_scale * of_batch * -0.5, mask=there)
    tl.store(vectors + 2 * channels + c, gate * by_batch + (1 - gate) * by_instance, mask=there)
    tl.store(vectors + 3 * channels + c, dbias, mask=there)
    tl.store(vectors + 4 * channels + c, factor * (by_batch - by_instance), mask=there)


@_kernel
def _through_moments_kernel(
    mean, scale, dshift, dmean, dvar, batch_mean, dbatch_mean, dbatch_var, slope, offset,
    count, channels, share, of_mean, of_var, POOLS: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * B + tl.arange(0, B)
    inside = i < count
    factor, grad_shift = tl.load(scale + i, mask=inside, other=0.0), tl.load(dshift + i, mask=inside, other=0.0)
    by_mean = tl.load(dmean + i, mask=inside, other=0.0) - factor * grad_shift
    by_var = tl.load(dvar + i, mask=inside, other=0.0)
    if POOLS:
        c = i % channels
        of_batch = share * tl.load(dbatch_var + c, mask=inside, other=0.0)
        apart = tl.load(mean + i, mask=inside, other=0.0) - tl.load(batch_mean + c, mask=inside, other=0.0)
        by_mean += share * tl.load(dbatch_mean + c, mask=inside, other=0.0) + 2 * apart * of_batch
        by_var += of_batch
    tl.store(slope + i, by_var * of_var, mask=inside)
    tl.store(offset + i, by_mean * of_mean, mask=inside)
