"""Subsampling that is robust to shifts of a few pixels: blur, then stride."""

import copy
from contextlib import AbstractContextManager, nullcontext
from math import comb

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FILTER_SIZES = range(1, 8)


class BlurPool2d(nn.Module):
    """Anti-aliased subsampling (Zhang, ICML 2019, section 3): a depthwise convolution with a binomial low-pass filter.

    The filter is the outer product of two rows of Pascal's triangle, scaled to sum 1: Rect-2, Tri-3, Bin-4, Bin-5, ...
    The map is reflection-padded by floor((k - 1) / 2) above and left and ceil((k - 1) / 2) below and right. A map that
    is too small for reflection (an axis no longer than its padding, such as 1x1 maps) is padded by its border values.
    The backward pass needs the filter alone, so the padded map is not kept.

    Args:
        channels: C, or None for any number of channels.
        filter_size: k, 1 to 7; 1 is plain subsampling.
        stride: one number for both axes, or (vertical, horizontal).

    Attributes:
        filter: (C or 1, 1, k, k), a constant. It is not in the state dict: the checkpoint of a network without blurs
            loads into the same network with blurs, and the other way round.

    Input: (N, C, H, W), floating point. Output: (N, C, (H - 1) // stride + 1, (W - 1) // stride + 1), same type.

    Raises:
        ValueError: `filter_size` is not 1 to 7, `channels` or `stride` is below 1, or the input has another shape.
    """

    filter: Tensor
    stride: tuple[int, int]
    from_checkpoint = False  # whether `load_official` has added this blur

    def __init__(self, channels: int | None, filter_size: int = 4, stride: int | tuple[int, int] = 2):
        super().__init__()
        if not isinstance(filter_size, int) or filter_size not in FILTER_SIZES:
            raise ValueError(f"filter_size is {FILTER_SIZES[0]} to {FILTER_SIZES[-1]}, got {filter_size!r}.")
        if channels is not None and channels < 1:
            raise ValueError(f"BlurPool2d needs at least 1 channel, got channels={channels}.")
        strides = (stride, stride) if isinstance(stride, int) else tuple(stride)
        if len(strides) != 2 or min(strides) < 1:
            raise ValueError(f"stride is a number of 1 or more, or a pair of them; got {stride!r}.")
        self.channels, self.filter_size, self.stride = channels, filter_size, (strides[0], strides[1])
        self.register_buffer("filter", torch.empty(channels or 1, 1, filter_size, filter_size), persistent=False)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Write the filter again, for networks that were created on the meta device."""
        row = torch.tensor([comb(self.filter_size - 1, i) for i in range(self.filter_size)]) / 2 ** (
            self.filter_size - 1
        )
        self.filter.copy_(torch.outer(row, row))

    def forward(self, x: Tensor) -> Tensor:
        self._check(x)
        if self.filter_size == 1:
            return x[..., :: self.stride[0], :: self.stride[1]]
        padding, mode = self._padding(*x.shape[-2:])
        channels = int(x.shape[1]) if torch.jit.is_tracing() else x.shape[1]  # ONNX needs kernels of constant shape
        weight = self.filter.to(x.dtype).expand(channels, -1, -1, -1)  # exact in half precision too
        if torch.is_grad_enabled() and not _is_recorded():
            return _Blur.apply(x, weight, self.stride, padding, mode)
        return _blur(x, weight, self.stride, padding, mode)

    def extra_repr(self) -> str:
        return f"{self.channels}, filter_size={self.filter_size}, stride={self.stride}"

    def _check(self, x: Tensor) -> None:
        shape = tuple(x.shape)
        if x.dim() != 4:
            raise ValueError(f"BlurPool2d expects 4D input, got {x.dim()}D of shape {shape}.")
        if self.channels is not None and shape[1] != self.channels:
            raise ValueError(f"BlurPool2d of {self.channels} channels got {shape[1]}, in input of shape {shape}.")
        if shape[2] == 0 or shape[3] == 0:
            raise ValueError(f"BlurPool2d got an empty map of shape {shape}: there is nothing to blur.")
        if not x.is_floating_point():
            raise ValueError(f"BlurPool2d blurs floating types, got {x.dtype}.")

    def _padding(self, height: int, width: int) -> tuple[tuple[int, int, int, int], str]:
        """(left, right, top, bottom), and "reflect" or, for small maps, "replicate"."""
        before, after = (self.filter_size - 1) // 2, self.filter_size // 2
        mode = "reflect" if after < height and after < width else "replicate"
        return (before, after, before, after), mode


class MaxBlurPool2d(nn.Module):
    """Anti-aliased max pooling (Zhang, ICML 2019, section 3.2): max pooling with stride 1, then a strided blur.

    Autograd would keep the indices of the maxima, 8 bytes for each position. This layer keeps its input alone, which
    the layer before keeps anyway, and computes the maxima again in the backward pass.

    Args:
        pool: an `nn.MaxPool2d` or subclass; the layer uses a copy of it with stride 1.
        filter_size: size of the blur filter, 1 to 7.

    Input: (N, C, H, W). Output: of the same size as the output of `pool`.

    Raises:
        ValueError: as `BlurPool2d`.
    """

    as_released = False  # whether the pool of a ResNet's stem is 2x2, as in the released networks

    def __init__(self, pool: nn.MaxPool2d, filter_size: int = 4):
        super().__init__()
        self.blur = BlurPool2d(None, filter_size, pool.stride)
        self.pool = copy.deepcopy(pool)
        self.pool.stride = (1, 1)

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and not _is_recorded():
            return self.blur(_Recomputed.apply(x, self._dense))
        return self.blur(self._dense(x))

    def _dense(self, x: Tensor) -> Tensor:
        if self.pool.ceil_mode:  # the last window may reach beyond the padding
            beyond = [self._beyond(axis, x.shape[axis]) for axis in (-1, -2)]
            x = F.pad(x, (0, beyond[0], 0, beyond[1]), value=-torch.inf)
        if self.as_released and min(x.shape[-2:]) < 2:  # smaller than the window, which has no padding
            return F.max_pool2d(x, tuple(min(2, size) for size in x.shape[-2:]), 1)
        return self.pool(x)

    def _beyond(self, axis: int, size: int) -> int:
        kernel, padding, dilation = (
            value[axis] if isinstance(value, (tuple, list)) else value
            for value in (self.pool.kernel_size, self.pool.padding, self.pool.dilation)
        )
        return -(size + 2 * padding - dilation * (kernel - 1) - 1) % self.blur.stride[axis]


class _Recomputed(torch.autograd.Function):
    """A function of one tensor that keeps its input alone and is computed again in the backward pass."""

    @staticmethod
    def forward(ctx, x: Tensor, function) -> Tensor:
        ctx.save_for_backward(x)
        ctx.function = function
        return function(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dy: Tensor):
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            y = ctx.function(x)
        return *torch.autograd.grad(y, x, dy), None


class _Blur(torch.autograd.Function):
    """`_blur` without the padded input, which autograd would keep although a linear map does not need it."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, stride, padding, mode: str) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.settings = (x.shape[-2:], stride, padding, mode)
        return _blur(x, weight, stride, padding, mode)

    @staticmethod
    def backward(ctx, dy: Tensor):
        (weight,) = ctx.saved_tensors
        (height, width), stride, (left, right, top, bottom), mode = ctx.settings
        padded = (top + height + bottom, left + width + right)
        dx = _spread(dy, weight, stride, padded)
        dx = _unpadded(_unpadded(dx, -2, top, height, mode), -1, left, width, mode)
        return dx, None, None, None, None


def _is_recorded() -> bool:
    """Whether a compiler or tracer records the operators; it could not record a custom autograd function."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def _blur(x: Tensor, weight: Tensor, stride, padding, mode: str) -> Tensor:
    with _no_autocast(x):
        return F.conv2d(F.pad(x, padding, mode), weight, stride=stride, groups=x.shape[1])


def _spread(dy: Tensor, weight: Tensor, stride: tuple[int, int], size: tuple[int, ...]) -> Tensor:
    """The gradient with respect to a padded map of `size` (height, width), by a transposed convolution.

    On a CPU it is computed in 32 bits or more: there torch has no fast depthwise backward pass for 16.
    """
    kind = dy.dtype
    if dy.device.type == "cpu" and kind in (torch.bfloat16, torch.float16):
        dy, weight = dy.float(), weight.float()
    over = [
        whole - (step * (length - 1) + k)
        for whole, step, length, k in zip(size, stride, dy.shape[-2:], weight.shape[-2:], strict=True)
    ]
    with _no_autocast(dy):
        spread = F.conv_transpose2d(dy, weight, stride=stride, output_padding=over, groups=dy.shape[1])
    return spread.to(kind)


def _no_autocast(x: Tensor) -> AbstractContextManager:
    """Switch autocast off, which would change a float32 map's type; on devices without autocast (meta) do nothing."""
    kind = x.device.type
    known = kind in ("cpu", "cuda") or torch.amp.is_autocast_available(kind)  # torch 2.11 cannot trace this call
    return torch.autocast(kind, enabled=False) if known else nullcontext()


def _unpadded(gradient: Tensor, dim: int, before: int, size: int, mode: str) -> Tensor:
    """The gradient with respect to a map, from the gradient with respect to the padded map; along one axis, in place.

    Each padded value's gradient is added to that of the value that it copies.
    """
    after = gradient.shape[dim] - before - size
    inside = gradient.narrow(dim, before, size)
    head, tail = gradient.narrow(dim, 0, before), gradient.narrow(dim, before + size, after)
    if mode == "reflect":
        inside.narrow(dim, 1, before).add_(head.flip(dim))
        inside.narrow(dim, size - 1 - after, after).add_(tail.flip(dim))
    else:
        inside.narrow(dim, 0, 1).add_(head.sum(dim, keepdim=True))
        inside.narrow(dim, size - 1, 1).add_(tail.sum(dim, keepdim=True))
    return inside
