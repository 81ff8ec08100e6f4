"""The passes in plain torch: any type, any device, any strides."""

import torch
from torch import Tensor


def statistics_type(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    if x.dim() == 2:
        mean = x.to(statistics_type(x), copy=True)
        return mean, torch.zeros_like(mean)
    mean = x.mean(_spatial(x), dtype=statistics_type(x))
    spread = torch.linalg.vector_norm(x - over(mean, x), dim=_spatial(x))
    return mean, spread.square() / x[0, 0].numel()


def scale_shift(x: Tensor, mean: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    offset = torch.addcmul(shift, scale, mean, value=-1)
    return torch.addcmul(over(offset, x), x, over(scale, x)).to(x.dtype)


def reductions(dy: Tensor, x: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    centred = x - over(mean, x)
    if x.dim() == 2:
        return dy.to(mean.dtype), dy * centred
    return dy.sum(_spatial(x), dtype=mean.dtype), (dy * centred).sum(_spatial(x))


def input_gradient(dy: Tensor, x: Tensor, mean: Tensor, scale: Tensor, slope: Tensor, offset: Tensor) -> Tensor:
    dx = torch.addcmul(over(offset - slope * mean, x), x, over(slope, x))
    return dx.addcmul_(dy.to(dx.dtype), over(scale, x)).to(x.dtype)


def over(vector: Tensor, x: Tensor) -> Tensor:
    """An (N, C) tensor shaped to broadcast over the spatial axes of x."""
    return vector.reshape(vector.shape + (1,) * (x.dim() - 2))


def _spatial(x: Tensor) -> tuple[int, ...]:
    return tuple(range(2, x.dim()))
