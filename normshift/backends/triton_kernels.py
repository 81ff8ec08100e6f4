"""The four passes in Triton, for CUDA. Importing this raises ImportError where Triton is not installed.

A map consists of lines of adjacent elements: planes of positions (NCHW) or rows of channels (channels-last). A program
loads up to 4096 elements of one sample, R tiles of K channels x L positions, into the registers of 128 threads. These
are 32 elements for each thread, so that several 16-byte loads run at once. Each thread sums over the R tiles by itself;
the threads exchange their sums once, at the end. (R is not an axis of one tile, because Triton 3.6 would divide it
among warps, and their sums took up to ten times as long as the loads.)

- `moments` subtracts the mean of a tile, in registers, before it squares; tiles, lanes and cuts are merged by Chan's
  formula (Chan, Golub and LeVeque, 1979).
- If there are fewer maps than an H100 can process at once, maps are cut, and a small second pass merges the cuts.
- `scale_shift` and `input_gradient` start at the end of the activation, because the L2 cache has what was read last.

The sizes below are derived from an H100 (132 multiprocessors of 65,536 registers each, cache lines of 128 bytes).
`benchmarks/triton_sizes.py` compared them with others on an H200: none was much better for all shapes.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from normshift.backends.triton_formulas import (  # noqa: F401 (functions of a backend)
    gated,
    gated_gradient,
    has_formula,
    mixed,
    mixed_gradient,
    pooled,
    through_moments,
    update_running,
)
from normshift.backends.triton_launch import launch

TILE = 4096  # elements of a tile: 32 for each of the 128 threads in four warps
DEPTH = 4  # R: a tile of 1024 elements is one 16-byte load of bfloat16 for every thread
CHANNELS = 64  # channels of a tile in channels-last, unless there are few positions: a cache line of bfloat16
PIECE = 1024  # positions of an elementwise tile in a plane; small, so that little of a plane's last tile is empty
PROGRAMS = 2048  # maps are cut until there are so many programs: two or three times what an H100 runs at once
OPTIONS = {"num_warps": 4, "enable_fp_fusion": True}


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of every map, (N, C) each."""
    source = _lines(x.shape, x.stride())
    if not source:
        return moments(x.contiguous())
    plan = _sums(x.itemsize, source)
    mean, var = x.new_empty(plan.results, dtype=torch.float32).unbind()
    launch(_moments_kernel, plan.programs, (x, mean, var), plan.numbers, plan.constants)
    return (mean, var) if mean.dim() == 2 else _merged(x, mean, var, plan.numbers, source.rows)


def scale_shift(x: Tensor, mean: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """`scale * (x - mean) + shift`, in the shape, type and layout of `x`."""
    y, source = torch.empty_like(x), _lines(x.shape, x.stride())
    if not source:
        return y.copy_(scale_shift(x.contiguous(), mean, scale, shift))
    plan = _elementwise(x.itemsize, source, _lines(y.shape, y.stride(), source.rows))
    launch(_scale_shift_kernel, plan.programs, (x, y, mean, scale, shift), plan.numbers, plan.constants)
    return y


def reductions(dy: Tensor, x: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of `dy` and of `dy * (x - mean)` over the positions: the gradients with respect to shift and scale."""
    source = _lines(x.shape, x.stride())
    if not source:
        return reductions(dy, x.contiguous(), mean)
    dy, seed = _beside(x, source, dy)
    plan = _sums(x.itemsize, seed, source)
    sums = x.new_empty(plan.results, dtype=torch.float32)
    dshift, dscale = sums.unbind()
    launch(_reductions_kernel, plan.programs, (dy, x, mean, dshift, dscale), plan.numbers, plan.constants)
    if dshift.dim() > 2:
        dshift, dscale = sums.sum(2).unbind()
    return dshift, dscale


def input_gradient(dy: Tensor, x: Tensor, mean: Tensor, scale: Tensor, slope: Tensor, offset: Tensor) -> Tensor:
    """`scale * dy + slope * (x - mean) + offset`, in the shape, type and layout of `x`."""
    dx, source = torch.empty_like(x), _lines(x.shape, x.stride())
    if not source:
        return dx.copy_(input_gradient(dy, x.contiguous(), mean, scale, slope, offset))
    dy, seed = _beside(x, source, dy)
    plan = _elementwise(x.itemsize, seed, source, _lines(dx.shape, dx.stride(), source.rows))
    tensors = dy, x, dx, mean, scale, slope, offset
    launch(_input_gradient_kernel, plan.programs, tensors, plan.numbers, plan.constants)
    return dx


def _merged(x: Tensor, mean: Tensor, var: Tensor, numbers: tuple[int, ...], rows: bool) -> tuple[Tensor, Tensor]:
    """Moments (N, C) of whole maps from those of their cuts (N, cuts, C)."""
    plan = _merges(mean.shape, numbers, rows)
    whole_mean, whole_var = mean.new_empty(plan.results).unbind()
    launch(_merge_kernel, plan.programs, (x, mean, var, whole_mean, whole_var), plan.numbers, plan.constants)
    return whole_mean, whole_var


# ------------------------------------------------------------------------------------------------ layouts in memory


class _Lines(NamedTuple):
    """The layout of an activation (N, C, *spatial) in memory: lines of adjacent elements, at equal distances."""

    rows: bool  # lines are rows of channels, otherwise planes of positions
    samples: int
    channels: int
    positions: int
    sample: int  # elements from one sample to the next; 0 if there is only one
    line: int  # elements from one line to the next; 0 if there is only one


@lru_cache(4096)
def _lines(shape: torch.Size, strides: tuple[int, ...], rows: bool | None = None) -> _Lines | None:
    """The layout of a tensor; None if it has no separate lines, or not of the kind that `rows` asks for."""
    samples, channels = shape[:2]
    positions = step = 1  # the spatial axes as one axis, and its stride
    for size, stride in zip(reversed(shape[2:]), reversed(strides[2:]), strict=True):
        if size > 1:
            step = step if positions > 1 else stride
            if stride != step * positions:
                return None
            positions *= size
    across = strides[1] if channels > 1 else 1
    if rows is None:
        rows = across == 1 and (positions == 1 or step != 1)
    inner, length, line, count = (across, channels, step, positions) if rows else (step, positions, across, channels)
    if inner != 1 or (count > 1 and line < length):
        return None
    return _Lines(rows, samples, channels, positions, strides[0] * (samples > 1), line * (count > 1))


def _beside(x: Tensor, source: _Lines, dy: Tensor) -> tuple[Tensor, _Lines]:
    """`dy` in the layout of `x`, as a copy if necessary, and its lines."""
    lines = _lines(dy.shape, dy.stride(), source.rows)
    if not lines:
        dy = torch.empty_like(x, dtype=dy.dtype).copy_(dy)
        lines = _lines(dy.shape, dy.stride(), source.rows)
    assert lines is not None  # a copy with the layout of x
    return dy, lines


# ------------------------------------------------------------------------------------- division of work among programs


class _Plan(NamedTuple):
    """How many programs of a kernel run, and their arguments that are not tensors."""

    programs: int
    results: tuple[int, ...]  # shape of its two result vectors, stacked; () if it has none
    numbers: tuple[int, ...]  # channels, positions, cuts, and the kernel's further numbers
    constants: dict[str, int]


@lru_cache(4096)
def _sums(itemsize: int, *tensors: _Lines) -> _Plan:
    """One program for every cut, which is a span of positions that the program reads tile by tile."""
    lines, align = tensors[0], _align(tensors)
    channels, positions = _tile(lines, align * itemsize, TILE)
    maps = lines.samples * triton.cdiv(lines.channels, channels)
    span = triton.cdiv(triton.cdiv(lines.positions, positions), triton.cdiv(PROGRAMS, maps)) * positions
    cuts = triton.cdiv(lines.positions, span)
    depth = min(DEPTH, positions if lines.rows else triton.cdiv(positions, 32))  # 32 positions or more at a time
    return _Plan(
        maps * cuts,
        (2, lines.samples, lines.channels) if cuts == 1 else (2, lines.samples, cuts, lines.channels),
        (lines.channels, lines.positions, cuts, span, *_distances(tensors)),
        {"K": channels, "R": depth, "L": positions // depth, "ROWS": lines.rows, "ALIGN": align, **OPTIONS},
    )


@lru_cache(4096)
def _merges(shape: torch.Size, numbers: tuple[int, ...], rows: bool) -> _Plan:
    """Programs that merge all cuts of some channels."""
    samples, cuts, channels = shape
    depth = triton.next_power_of_2(cuts)
    width = min(CHANNELS, triton.next_power_of_2(channels), max(1, TILE // depth))
    programs = samples * triton.cdiv(channels, width)
    return _Plan(programs, (2, samples, channels), numbers, {"K": width, "S": depth, "ROWS": rows, **OPTIONS})


@lru_cache(4096)
def _elementwise(itemsize: int, *tensors: _Lines) -> _Plan:
    """One program for every tile."""
    lines, align = tensors[0], _align(tensors)
    channels, positions = _tile(lines, align * itemsize, PIECE)
    cuts = triton.cdiv(lines.positions, positions)
    return _Plan(
        lines.samples * triton.cdiv(lines.channels, channels) * cuts,
        (),
        (lines.channels, lines.positions, cuts, *_distances(tensors)),
        {"K": channels, "L": positions, "ROWS": lines.rows, "ALIGN": align, **OPTIONS},
    )


def _tile(lines: _Lines, width: int, longest: int) -> tuple[int, int]:
    """Channels and positions of a tile, powers of two, if a load reads `width` bytes, at most 16."""
    size = TILE if width >= 8 else TILE // 2  # narrow loads are many, and each needs a register for its address
    channels, positions = triton.next_power_of_2(lines.channels), triton.next_power_of_2(lines.positions)
    if lines.rows:
        deep = min(positions, size // min(channels, CHANNELS))
        return min(channels, size // deep), deep
    wide = min(channels, size // min(positions, longest, size))
    return wide, min(positions, size // wide)


def _distances(tensors: tuple[_Lines, ...]) -> list[int]:
    return [distance for lines in tensors for distance in (lines.sample, lines.line)]


def _align(tensors: tuple[_Lines, ...]) -> int:
    """A common divisor of all distances, in elements, at most 8: eight elements of two bytes are the widest load."""
    lines = tensors[0]
    return math.gcd(8, lines.channels if lines.rows else lines.positions, *_distances(tensors))


# -------------------------------------------------------------------------------------------------------- the kernels
# Each is compiled once for a type, a tile and an ALIGN, not for every size and stride.

_sizes = ["channels", "positions", "cuts", "span"]
_distances_of = ["sample", "line", "dy_sample", "dy_line", "x_sample", "x_line", "y_sample", "y_line"]
_kernel = triton.jit(do_not_specialize=_sizes + _distances_of)


@triton.jit
def _place(program, channels, cuts, K: tl.constexpr):
    """A program's sample, its cut of the positions, and its first channel; programs count along the channels first."""
    blocks = tl.cdiv(channels, K)
    others = program // blocks
    n = others // cuts
    return n.to(tl.int64), (others - n * cuts).to(tl.int64), (program - others * blocks) * K


@triton.jit
def _multiple(value, ALIGN: tl.constexpr):
    """The value, in a form that tells the compiler that it is a multiple of ALIGN."""
    return value // ALIGN * ALIGN


@triton.jit
def _offset(channel, position, line, ROWS: tl.constexpr):
    """The offset of an element from the start of its sample, in 64 bits."""
    line = line.to(tl.int64)
    return position * line + channel if ROWS else channel * line + position


@triton.jit
def _load(x, inside):
    return tl.load(x, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _load_about(pivot, x, inside):
    """x - pivot; 0 outside."""
    return tl.load(x, mask=inside, other=pivot).to(tl.float32) - pivot.to(tl.float32)


@triton.jit
def _read_about(pivot, x, kept, left, line, ROWS: tl.constexpr, R: tl.constexpr, L: tl.constexpr):
    """R consecutive tiles of K channels and L positions, minus the pivot; 0 beyond the last position."""
    tiles = ()
    for r in tl.static_range(R):
        inside = kept & (tl.arange(0, L)[None, :] < left - r * L)
        tiles = tiles + (_load_about(pivot, x + _offset(0, r * L, line, ROWS), inside),)  # noqa: RUF005 (Triton's)
    return tiles


@triton.jit
def _sum(tiles, R: tl.constexpr):
    total = tiles[0]
    for r in tl.static_range(1, R):
        total += tiles[r]
    return total


@triton.jit
def _squares(tiles, mean, left, R: tl.constexpr, L: tl.constexpr):
    """The sum of squared distances from a mean, over R tiles."""
    squares = tl.zeros_like(tiles[0])
    for r in tl.static_range(R):
        inside = tl.arange(0, L)[None, :] < left - r * L
        centred = tl.where(inside, tiles[r] - mean, 0.0)
        squares += centred * centred
    return squares


@triton.jit
def _chan(count, mean, squares, more, more_mean, more_squares):
    """Mean, and sum of squared distances from it, of two parts together, by Chan's formula."""
    share = more / (count + more)
    apart = more_mean - mean
    return mean + apart * share, squares + more_squares + apart * apart * (count * share)


@triton.jit
def _pooled(means, within, shares, AXIS: tl.constexpr):
    """Mean and variance of many parts together, by Chan's formula; `within` is each variance times its share."""
    merged = tl.sum(means * shares, AXIS)
    apart = means - tl.expand_dims(merged, AXIS)
    return merged, tl.sum(within + apart * apart * shares, AXIS)


@_kernel
def _moments_kernel(
    x, mean, var, channels, positions, cuts, span, sample, line,
    ROWS: tl.constexpr, ALIGN: tl.constexpr, K: tl.constexpr, R: tl.constexpr, L: tl.constexpr,
):  # fmt: skip
    """Mean and biased variance of K channels over one cut of the positions: (N, cuts, C).

    Everything is computed relative to the map's first element, as an estimate of its mean: if the mean is far from
    zero, float32 would have no digits left for the differences between lanes.
    """
    n, cut, channel = _place(tl.program_id(0), channels, cuts, K)
    channels, positions = _multiple(channels, ALIGN if ROWS else 1), _multiple(positions, 1 if ROWS else ALIGN)
    line, span = _multiple(line, ALIGN), _multiple(span, R * L)
    k = channel + tl.arange(0, K)
    lane = tl.arange(0, L)
    kept = (k < channels)[:, None]
    x += n * _multiple(sample, ALIGN)
    first = tl.load(x + _offset(k, 0, line, ROWS), mask=k < channels, other=0.0)
    pivot = first[:, None]
    x += _offset(0, cut * span, line, ROWS) + _offset(k[:, None], lane[None, :], line, ROWS)

    left = positions - cut * span  # positions of this cut and those after it
    total = tl.minimum(left, span)
    inverse = 1.0 / total.to(tl.float32)
    if total <= R * L:
        tiles = _read_about(pivot, x, kept, left, line, ROWS, R, L)
        merged = tl.sum(_sum(tiles, R), 1) * inverse
        merged_var = tl.sum(_squares(tiles, merged[:, None], left, R, L), 1) * inverse
    else:
        full = (total // (R * L)).to(tl.int32)  # R tiles at a time
        means = tl.zeros((K, L), tl.float32)
        squares = tl.zeros((K, L), tl.float32)
        seen = 0.0  # elements of a lane
        for _ in range(full):
            tiles = _read_about(pivot, x, kept, R * L, line, ROWS, R, L)
            tile_means = _sum(tiles, R) * (1.0 / R)
            tile_squares = _squares(tiles, tile_means, R * L, R, L)
            means, squares = _chan(seen, means, squares, R, tile_means, tile_squares)
            seen += R
            x += _offset(0, R * L, line, ROWS)
        counts = tl.zeros((1, L), tl.float32) + seen
        if full * (R * L) < total:
            last = (left - full * (R * L)).to(tl.int32)
            here = ((last + (L - 1) - lane) // L).to(tl.float32)[None, :]
            tiles = _read_about(pivot, x, kept, last, line, ROWS, R, L)
            tile_means = _sum(tiles, R) * (1.0 / tl.maximum(here, 1.0))
            tile_squares = _squares(tiles, tile_means, last, R, L)
            means, squares = _chan(seen, means, squares, here, tile_means, tile_squares)
            counts += here
        merged, merged_var = _pooled(means, squares * inverse, counts * inverse, 1)

    instances = (n * cuts + cut) * channels + k
    merged += tl.where(cuts == 1, first.to(tl.float32), 0.0)  # otherwise _merge_kernel adds it
    tl.store(mean + instances, merged, mask=k < channels)
    tl.store(var + instances, merged_var, mask=k < channels)


@_kernel
def _merge_kernel(
    x, mean, var, whole_mean, whole_var, channels, positions, cuts, span, sample, line,
    ROWS: tl.constexpr, K: tl.constexpr, S: tl.constexpr,
):  # fmt: skip
    """Moments (N, C) of whole maps from those of their cuts (N, cuts, C): S cuts or fewer, K channels a program."""
    blocks = tl.cdiv(channels, K)
    n = (tl.program_id(0) // blocks).to(tl.int64)
    k = tl.program_id(0) % blocks * K + tl.arange(0, K)
    s = tl.arange(0, S)
    inside = (s < cuts)[:, None] & (k < channels)[None, :]
    instances = (n * cuts + s)[:, None] * channels + k[None, :]
    counts = tl.maximum(tl.minimum(positions - s.to(tl.int64) * span, span), 0)
    shares = (counts.to(tl.float32) / positions.to(tl.float32))[:, None]
    merged, merged_var = _pooled(_load(mean + instances, inside), _load(var + instances, inside) * shares, shares, 0)
    merged += _load(x + n * sample + _offset(k, 0, line, ROWS), k < channels)
    tl.store(whole_mean + n * channels + k, merged, mask=k < channels)
    tl.store(whole_var + n * channels + k, merged_var, mask=k < channels)


@_kernel
def _reductions_kernel(
    dy, x, mean, dshift, dscale, channels, positions, cuts, span, dy_sample, dy_line, x_sample, x_line,
    ROWS: tl.constexpr, ALIGN: tl.constexpr, K: tl.constexpr, R: tl.constexpr, L: tl.constexpr,
):  # fmt: skip
    """Sums of dy and of dy * (x - mean), for K channels over one cut of the positions: (N, cuts, C)."""
    n, cut, channel = _place(tl.program_id(0), channels, cuts, K)
    channels, positions = _multiple(channels, ALIGN if ROWS else 1), _multiple(positions, 1 if ROWS else ALIGN)
    dy_line, x_line, span = _multiple(dy_line, ALIGN), _multiple(x_line, ALIGN), _multiple(span, R * L)
    k = channel + tl.arange(0, K)
    p = tl.arange(0, L)[None, :]
    kept = (k < channels)[:, None]
    dy += (
        n * _multiple(dy_sample, ALIGN) + _offset(0, cut * span, dy_line, ROWS) + _offset(k[:, None], p, dy_line, ROWS)
    )
    x += n * _multiple(x_sample, ALIGN) + _offset(0, cut * span, x_line, ROWS) + _offset(k[:, None], p, x_line, ROWS)
    centre = _load(mean + n * channels + k, k < channels)[:, None]

    left = positions - cut * span  # positions of this cut and those after it
    tiles = tl.cdiv(tl.minimum(left, span), R * L).to(tl.int32)
    dshifts = tl.zeros((K, L), tl.float32)
    dscales = tl.zeros((K, L), tl.float32)
    for i in range(tiles):
        for r in tl.static_range(R):  # unrolled, so that all loads run at once
            inside = kept & (p < left - (i * R + r) * L)
            dy_tile = _load(dy + _offset(0, r * L, dy_line, ROWS), inside)
            x_tile = _load(x + _offset(0, r * L, x_line, ROWS), inside)
            dshifts += dy_tile
            dscales += dy_tile * (x_tile - centre)
        dy += _offset(0, R * L, dy_line, ROWS)
        x += _offset(0, R * L, x_line, ROWS)

    instances = (n * cuts + cut) * channels + k
    tl.store(dshift + instances, tl.sum(dshifts, 1), mask=k < channels)
    tl.store(dscale + instances, tl.sum(dscales, 1), mask=k < channels)


@_kernel
def _scale_shift_kernel(
    x, y, mean, scale, shift, channels, positions, cuts, x_sample, x_line, y_sample, y_line,
    ROWS: tl.constexpr, ALIGN: tl.constexpr, K: tl.constexpr, L: tl.constexpr,
):  # fmt: skip
    """y = scale * (x - mean) + shift, for one tile; the last program computes the first tile."""
    n, cut, channel = _place(tl.num_programs(0) - 1 - tl.program_id(0), channels, cuts, K)
    channels, positions = _multiple(channels, ALIGN if ROWS else 1), _multiple(positions, 1 if ROWS else ALIGN)
    k = channel + tl.arange(0, K)
    p = cut * L + tl.arange(0, L)
    inside = (k < channels)[:, None] & (p < positions)[None, :]
    x += n * _multiple(x_sample, ALIGN) + _offset(k[:, None], p[None, :], _multiple(x_line, ALIGN), ROWS)
    y += n * _multiple(y_sample, ALIGN) + _offset(k[:, None], p[None, :], _multiple(y_line, ALIGN), ROWS)
    instances = n * channels + k
    centre = _load(mean + instances, k < channels)[:, None]
    factor = _load(scale + instances, k < channels)[:, None]
    constant = _load(shift + instances, k < channels)[:, None]
    result = factor * (_load(x, inside) - centre) + constant
    tl.store(y, result.to(y.dtype.element_ty), mask=inside)


@_kernel
def _input_gradient_kernel(
    dy, x, y, mean, scale, slope, offset, channels, positions, cuts,
    dy_sample, dy_line, x_sample, x_line, y_sample, y_line,
    ROWS: tl.constexpr, ALIGN: tl.constexpr, K: tl.constexpr, L: tl.constexpr,
):  # fmt: skip
    """y = scale * dy + slope * (x - mean) + offset, for one tile; the last program computes the first tile."""
    n, cut, channel = _place(tl.num_programs(0) - 1 - tl.program_id(0), channels, cuts, K)
    channels, positions = _multiple(channels, ALIGN if ROWS else 1), _multiple(positions, 1 if ROWS else ALIGN)
    k = channel + tl.arange(0, K)
    p = cut * L + tl.arange(0, L)
    inside = (k < channels)[:, None] & (p < positions)[None, :]
    dy += n * _multiple(dy_sample, ALIGN) + _offset(k[:, None], p[None, :], _multiple(dy_line, ALIGN), ROWS)
    x += n * _multiple(x_sample, ALIGN) + _offset(k[:, None], p[None, :], _multiple(x_line, ALIGN), ROWS)
    y += n * _multiple(y_sample, ALIGN) + _offset(k[:, None], p[None, :], _multiple(y_line, ALIGN), ROWS)
    instances = n * channels + k
    centre = _load(mean + instances, k < channels)[:, None]
    factor = _load(scale + instances, k < channels)[:, None]
    incline = _load(slope + instances, k < channels)[:, None]
    constant = _load(offset + instances, k < channels)[:, None]
    result = factor * _load(dy, inside) + (incline * (_load(x, inside) - centre) + constant)
    tl.store(y, result.to(y.dtype.element_ty), mask=inside)
