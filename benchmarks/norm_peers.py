"""The layers that ours are compared with: our own in plain torch, and the norms as published.

The published forms compute the papers' formulas term by term, like public implementations: whole activations are
normalised by broadcasting, and autograd keeps all intermediate results. They have the parameters of our layers, with
the same names, and agree with our layers up to rounding.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from normshift.layers import BatchInstanceNorm, IBN2d, InstanceNorm, SwitchNorm

VARIABLE = "NORMSHIFT_KERNELS"


@contextmanager
def kernels(choice: str) -> Iterator[None]:
    """Set the kernels of our layers: "auto", or "torch" for plain torch."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = choice
    try:
        yield
    finally:
        del os.environ[VARIABLE]
        if before is not None:
            os.environ[VARIABLE] = before


class PublishedSwitchNorm2d(nn.Module):
    """Switchable Normalization (Luo et al., ICLR 2019, eq. 3-5), of IN, LN and BN.

    The variance is biased, as in the paper; in the authors' code it is unbiased, at the same cost.
    """

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight, self.bias = nn.Parameter(torch.ones(num_features)), nn.Parameter(torch.zeros(num_features))
        self.mean_weight, self.var_weight = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def forward(self, x: Tensor) -> Tensor:
        mean_in, var_in = x.mean((2, 3), keepdim=True), x.var((2, 3), correction=0, keepdim=True)
        second = var_in + mean_in**2
        mean_ln = mean_in.mean(1, keepdim=True)
        var_ln = second.mean(1, keepdim=True) - mean_ln**2
        mean_bn, var_bn = self._batch(mean_in, second)
        shares, var_shares = self.mean_weight.softmax(0), self.var_weight.softmax(0)
        mean = shares[0] * mean_in + shares[1] * mean_ln + shares[2] * mean_bn
        var = var_shares[0] * var_in + var_shares[1] * var_ln + var_shares[2] * var_bn
        y = (x - mean) / (var + self.eps).sqrt()
        return (y * _on_maps(self.weight) + _on_maps(self.bias)).to(x.dtype)

    def _batch(self, mean_in: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        if not self.training:
            return _on_maps(self.running_mean), _on_maps(self.running_var)
        mean = mean_in.mean(0, keepdim=True)
        var = second.mean(0, keepdim=True) - mean**2
        with torch.no_grad():
            self.running_mean.lerp_(mean.flatten().to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(var.flatten().to(self.running_var.dtype), self.momentum)
        return mean, var


class PublishedBatchInstanceNorm2d(nn.Module):
    """Batch-Instance Normalization (Nam and Kim, NeurIPS 2018, eq. 3): batch norm's output plus instance norm's."""

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight, self.bias = nn.Parameter(torch.ones(num_features)), nn.Parameter(torch.zeros(num_features))
        self.rho = nn.Parameter(torch.ones(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def forward(self, x: Tensor) -> Tensor:
        averages, weight = (self.running_mean, self.running_var), self.weight * self.rho
        of_batch = F.batch_norm(x, *averages, weight, self.bias, self.training, self.momentum, self.eps)
        # F.instance_norm refuses maps of one position, which DeepLab has
        of_instance = torch.instance_norm(x, None, None, None, None, True, 0.0, self.eps, True)
        return (of_batch + of_instance * _on_maps(self.weight * (1 - self.rho))).to(x.dtype)


class PublishedIBN2d(nn.Module):
    """IBN-a's layer (IBN-Net, Pan et al., ECCV 2018, fig. 3a): the channels are split, normalised and concatenated."""

    def __init__(self, num_features: int, half: int, eps: float = 1e-5, momentum: float = 0.1):
        super().__init__()
        self.half = half
        self.IN = nn.InstanceNorm2d(half, eps, affine=True)
        self.BN = nn.BatchNorm2d(num_features - half, eps, momentum)

    def forward(self, x: Tensor) -> Tensor:
        first, rest = torch.split(x, [self.half, x.shape[1] - self.half], 1)
        return torch.cat((self.IN(first.contiguous()), self.BN(rest.contiguous())), 1)


def published(layer: nn.Module) -> nn.Module | None:
    """The published form of one of our layers, with a copy of its state; None if there is none."""
    if isinstance(layer, SwitchNorm) and layer.statistics == ("in", "ln", "bn") and not layer.correction:
        peer = PublishedSwitchNorm2d(layer.num_features, layer.eps, layer.momentum)
    elif isinstance(layer, BatchInstanceNorm):
        peer = PublishedBatchInstanceNorm2d(layer.num_features, layer.eps, layer.momentum)
    elif isinstance(layer, IBN2d) and layer.instance_first:
        peer = PublishedIBN2d(layer.num_features, layer.first, layer.BN.eps, layer.BN.momentum)
    elif isinstance(layer, InstanceNorm):
        peer = nn.InstanceNorm2d(layer.num_features, layer.eps, affine=True)
    else:
        return None
    weight = next(layer.parameters())
    peer.to(weight.device, weight.dtype).load_state_dict(layer.state_dict())
    return peer.train(layer.training)


def publish(network: nn.Module) -> nn.Module:
    """Replace each of our layers by its published form, if it has one; changes `network` and returns it."""
    for name, child in network.named_children():
        peer = published(child)
        if peer is None:
            publish(child)
        else:
            setattr(network, name, peer)
    return network


def _on_maps(vector: Tensor) -> Tensor:
    return vector[None, :, None, None]
