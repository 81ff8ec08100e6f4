"""The papers' formulas in plain torch operations: what the layers are held against.

Everything is taken straight from the activation, over all its positions at once, so that nothing here shares the
library's way (moments per instance, pooled by the law of total variance) of getting there.
"""

import torch
from torch import Tensor, nn

from normshift import (
    BatchInstanceNorm1d,
    BatchInstanceNorm2d,
    BatchInstanceNorm3d,
    IBN2d,
    SwitchNorm1d,
    SwitchNorm2d,
    SwitchNorm3d,
)
from normshift.layers import BatchNorm, InstanceNorm1d, InstanceNorm2d, InstanceNorm3d

SWITCH = (SwitchNorm1d, SwitchNorm2d, SwitchNorm3d)
BATCH_INSTANCE = (BatchInstanceNorm1d, BatchInstanceNorm2d, BatchInstanceNorm3d)
INSTANCE = (InstanceNorm1d, InstanceNorm2d, InstanceNorm3d)


def written_out(layer: nn.Module, x: Tensor, state: dict[str, Tensor]) -> Tensor:
    """What `layer` should return for `x`, with the parameters and running statistics of `state` for its own."""
    maps = x.reshape(x.shape[0], x.shape[1], -1)  # N, C, positions
    if isinstance(layer, SWITCH):
        y = _switch(layer, maps, state)
    elif isinstance(layer, BATCH_INSTANCE):
        batch = _standardized(maps, *_batch_moments(layer, maps, state), layer.eps)
        instance = _standardized(maps, *_moments(maps, (2,)), layer.eps)
        rho = _column(state["rho"])
        y = _column(state["weight"]) * (rho * batch + (1 - rho) * instance) + _column(state["bias"])
    elif isinstance(layer, IBN2d):
        y = _ibn(layer, maps, state)
    elif isinstance(layer, BatchNorm):
        y = _affine(_standardized(maps, *_batch_moments(layer, maps, state), layer.eps), state)
    else:
        assert isinstance(layer, INSTANCE)
        y = _affine(_standardized(maps, *_moments(maps, (2,)), layer.eps), state)
    return y.reshape(x.shape)


def state_of(layer: nn.Module) -> dict[str, Tensor]:
    """A layer's parameters (as leaves that require gradients) and buffers, copied in float64."""
    parameters = {name: p.detach().double().requires_grad_() for name, p in layer.named_parameters()}
    return parameters | {name: b.detach().double() for name, b in layer.named_buffers()}


def randomize(layer: nn.Module) -> nn.Module:
    """Give every parameter and running statistic a value that tells it from every other."""
    with torch.no_grad():
        for name, tensor in (*layer.named_parameters(), *layer.named_buffers()):
            if name.endswith("rho"):
                tensor.uniform_(0.1, 0.9)
            elif name.endswith("running_var"):
                tensor.uniform_(0.5, 2.0)
            elif tensor.is_floating_point():
                tensor.normal_()
    return layer


def _switch(layer, maps, state):
    if layer.correction:
        found = {name: _published(layer, name, maps, state) for name in layer.statistics}
    else:
        found = {name: _statistic(layer, name, maps, state) for name in layer.statistics}
    means, variances = zip(*(found[name] for name in layer.statistics), strict=True)
    mean = sum(share * value for share, value in zip(state["mean_weight"].softmax(0), means, strict=True))
    var = sum(share * value for share, value in zip(state["var_weight"].softmax(0), variances, strict=True))
    return _affine(_standardized(maps, mean, var, layer.eps), state)


def _statistic(layer, name, maps, state):
    n, c, p = maps.shape
    if name == "in":
        return _moments(maps, (2,))
    if name == "ln":
        return _moments(maps, (1, 2))
    if name == "bn":
        return _batch_moments(layer, maps, state)
    mean, var = _moments(maps.reshape(n, layer.groups, c // layer.groups, p), (2, 3))
    return tuple(m.expand(n, layer.groups, c // layer.groups, 1).reshape(n, c, 1) for m in (mean, var))


def _published(layer, name, maps, state):
    """With the unbiased per-instance variance of the published code, from which it takes all the others."""
    if name == "bn" and not layer.training:
        return _batch_moments(layer, maps, state)
    n, c, _ = maps.shape
    mean = maps.mean(2, keepdim=True)
    var = maps.var(2, correction=1, keepdim=True)
    if name == "in":
        return mean, var
    second = var + mean**2
    if name == "gn":
        mean, second = (m.reshape(n, layer.groups, -1, 1) for m in (mean, second))
        pooled = mean.mean(2, keepdim=True), second.mean(2, keepdim=True)
        mean, second = (m.expand(n, layer.groups, c // layer.groups, 1).reshape(n, c, 1) for m in pooled)
    else:
        axis = {"ln": 1, "bn": 0}[name]
        mean, second = mean.mean(axis, keepdim=True), second.mean(axis, keepdim=True)
    return mean, second - mean**2


def _ibn(layer, maps, state):
    half = len(state["IN.weight"] if layer.instance_first else state["BN.weight"])
    first, rest = maps[:, :half], maps[:, half:]
    if not layer.instance_first:
        first, rest = rest, first
    instance = {key.removeprefix("IN."): value for key, value in state.items() if key.startswith("IN.")}
    batch = {key.removeprefix("BN."): value for key, value in state.items() if key.startswith("BN.")}
    y_instance = _affine(_standardized(first, *_moments(first, (2,)), layer.eps), instance)
    y_batch = _affine(_standardized(rest, *_batch_moments(layer, rest, batch), layer.eps), batch)
    return torch.cat([y_instance, y_batch] if layer.instance_first else [y_batch, y_instance], 1)


def _batch_moments(layer, maps, state):
    if layer.training:
        return _moments(maps, (0, 2))
    return _column(state["running_mean"]), _column(state["running_var"])


def _moments(maps, axes):
    mean = maps.mean(axes, keepdim=True)
    return mean, (maps - mean).square().mean(axes, keepdim=True)


def _standardized(maps, mean, var, eps):
    return (maps - mean) / (var + eps).sqrt()


def _affine(maps, state):
    return _column(state["weight"]) * maps + _column(state["bias"])


def _column(vector):
    return vector[None, :, None]
