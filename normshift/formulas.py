"""The norms as formulas: each computes `scale` and `shift` from moments, batch statistics and parameters.

The layer returns `y = scale * (x - mean) + shift`, where `mean` is the map's own mean. Each formula is written as in
its paper. Each also has a gradient derived by hand, although `Formula.gradient` derives one by autograd, for two
reasons. The one by hand loses no digits if values are large. And if plain torch runs (float64, (N, C) inputs, no
compiler), forward and backward pass of a layer together are 1.2 to 1.3 times as fast with it (H200, maps of 7x7 to
56x56, batches of 32; 1.1 to 1.3 on a CPU, 14x14 and below). `compiled_form` names the implementation of the formula in
C++ and Triton, which is used if available. Tests compare all of them.

`eq=False`, because torch before 2.12 hashes a traced formula before its fields are set.

Names: `dscale` is the gradient with respect to `scale`, and so on. `grad_mean` and `grad_var` are the gradients with
respect to a mixture's mean and variance; each mixed statistic gets its share of them.
"""

from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from normshift.backends import ChannelGates, Mixture
from normshift.backends.reference import pooled
from normshift.engine import Batch, Formula, Moments


@dataclass(frozen=True, eq=False)
class InstanceFormula(Formula):
    """`weight * (x - mean) / sqrt(var + eps) + bias`."""

    eps: float

    def __call__(self, moments, batch, weight, bias):
        return weight * torch.rsqrt(moments.var + self.eps), bias

    def compiled_form(self):
        return Mixture((0,), self.eps)

    def gradient(self, moments, batch, parameters, dscale, dshift):
        rsigma = torch.rsqrt(moments.var + self.eps)
        through = dscale * rsigma
        dvar = through * rsigma.square_() * (-0.5 * parameters[0])
        return [None, dvar, None, None, through.sum(0), dshift.sum(0)]


@dataclass(frozen=True, eq=False)
class BatchFormula(Formula):
    """`weight * (x - batch mean) / sqrt(batch var + eps) + bias` (Ioffe and Szegedy, ICML 2015, algorithm 1)."""

    eps: float

    def __call__(self, moments, batch, weight, bias):
        scale = weight * torch.rsqrt(batch.var + self.eps)
        return scale, torch.addcmul(bias, scale, moments.mean - batch.mean)

    def own_moments(self, channels, training):
        return slice(0, channels) if training else slice(0, 0)

    def compiled_form(self):
        return Mixture((-1,), self.eps)

    def gradient(self, moments, batch, parameters, dscale, dshift):
        rsigma = torch.rsqrt(batch.var + self.eps)
        scale = parameters[0] * rsigma
        dweight = torch.addcmul(dscale, dshift, moments.mean - batch.mean).sum(0) * rsigma
        dbias = dshift.sum(0)
        dvar = dweight * scale * rsigma * -0.5
        return [dshift * scale, None, -scale * dbias, dvar, dweight, dbias]


@dataclass(frozen=True, eq=False)
class BatchInstanceFormula(Formula):
    """`weight * (rho * x_bn + (1 - rho) * x_in) + bias` (Nam and Kim, NeurIPS 2018, eq. 3)."""

    eps: float

    def __call__(self, moments, batch, weight, bias, rho):
        batch_scale = weight * rho * torch.rsqrt(batch.var + self.eps)
        instance_scale = weight * (1 - rho) * torch.rsqrt(moments.var + self.eps)
        return batch_scale + instance_scale, torch.addcmul(bias, batch_scale, moments.mean - batch.mean)

    def compiled_form(self):
        return ChannelGates(self.eps)

    def gradient(self, moments, batch, parameters, dscale, dshift):
        weight, _, rho = parameters
        of_batch, of_instance = torch.rsqrt(batch.var + self.eps), torch.rsqrt(moments.var + self.eps)
        batch_weight = weight * rho
        batch_scale = batch_weight * of_batch
        grad_of_batch = torch.addcmul(dscale, dshift, moments.mean - batch.mean).sum(0) * of_batch
        through = dscale * of_instance
        grad_of_instance, dbias = through.sum(0), dshift.sum(0)
        dvar = through.mul_(of_instance.square_()).mul_((weight - batch_weight) * -0.5)
        dbatch_var = grad_of_batch * batch_scale * of_batch * -0.5
        dweight = torch.lerp(grad_of_instance, grad_of_batch, rho)
        drho = weight * (grad_of_batch - grad_of_instance)
        return [dshift * batch_scale, dvar, -batch_scale * dbias, dbatch_var, dweight, dbias, drho]


@dataclass(frozen=True, eq=False)
class InstanceBatchFormula(Formula):
    """Instance norm for some channels, batch norm for the others (Pan et al., ECCV 2018).

    It is `BatchInstanceFormula` with `rho` fixed to 0 and 1. The parameters are weight and bias of the first `split`
    channels, then weight and bias of the others.
    """

    eps: float
    split: int
    instance_first: bool

    def __call__(self, moments, batch, *parameters):
        return BatchInstanceFormula(self.eps)(moments, batch, *self._gated(parameters))

    def own_moments(self, channels, training):
        if training:
            return slice(0, channels)
        return slice(0, self.split) if self.instance_first else slice(self.split, channels)

    def compiled_form(self):
        rest = 2**31 if self.instance_first else 0
        return ChannelGates(self.eps, *sorted((self.split, rest)))

    def gradient(self, moments, batch, parameters, dscale, dshift):
        found = BatchInstanceFormula(self.eps).gradient(moments, batch, self._gated(parameters), dscale, dshift)
        weights, biases = (v.tensor_split([self.split]) for v in found[4:6])
        return [*found[:4], weights[0], biases[0], weights[1], biases[1]]

    def _gated(self, parameters) -> tuple[Tensor, Tensor, Tensor]:
        weight, bias = torch.cat(parameters[::2]), torch.cat(parameters[1::2])
        rho = torch.zeros_like(weight)
        (rho[self.split :] if self.instance_first else rho[: self.split]).fill_(1)
        return weight, bias, rho


@dataclass(frozen=True, eq=False)
class SwitchFormula(Formula):
    """`weight * (x - mu) / sqrt(var + eps) + bias`, with mixtures of moments (Luo et al., ICLR 2019, eq. 3-5)."""

    eps: float
    statistics: tuple[str, ...]
    groups: int

    def __call__(self, moments, batch, weight, bias, mean_weight, var_weight):
        means, variances = zip(*(self._statistic(name, moments, batch) for name in self.statistics), strict=True)
        distances = [moments.mean - mean for mean in means]  # a mixture of the means would lose digits far from 0
        distance, var = _mixed(distances, mean_weight.softmax(0)), _mixed(variances, var_weight.softmax(0))
        scale = weight * torch.rsqrt(var + self.eps)
        return scale, torch.addcmul(bias, scale, distance)

    def compiled_form(self):
        codes = {"in": 0, "bn": -1, "ln": 1, "gn": self.groups}
        return Mixture(tuple([codes[name] for name in self.statistics]), self.eps)

    def gradient(self, moments, batch, parameters, dscale, dshift):
        weight, _, *logits = parameters
        mean_shares, var_shares = (v.softmax(0) for v in logits)
        means, variances = zip(*(self._statistic(name, moments, batch) for name in self.statistics), strict=True)
        distances = [moments.mean - mean for mean in means]
        distance, var = _mixed(distances, mean_shares), _mixed(variances, var_shares)
        rsigma = torch.rsqrt(var + self.eps)
        through = torch.addcmul(dscale, dshift, distance).mul_(rsigma)
        dweight = through.sum(0)
        dmean = dshift * (weight * rsigma)
        grad_mean, grad_var = -dmean, through.mul_(rsigma.square_()).mul_(weight * -0.5)  # with respect to the mixtures
        gradients = [dmean, None, None, None]
        for name, found, *shares in zip(self.statistics, means, mean_shares, var_shares, strict=True):
            self._distribute(name, moments, found, grad_mean, grad_var, shares, gradients)
        dlogits = (
            _logit_gradient(distances, distance, mean_shares, dmean),
            _logit_gradient(variances, var, var_shares, grad_var),
        )
        return [*gradients, dweight, dshift.sum(0), *dlogits]

    def _statistic(self, name: str, moments: Moments, batch: Batch | None) -> tuple[Tensor, Tensor]:
        """Mean and variance, broadcastable to (N, C)."""
        if name == "bn":
            assert batch is not None  # the layer provides them
            return batch[:2]
        if name == "in":
            return moments[:2]
        if name == "ln":
            return pooled(*moments[:2], 1, keepdim=True)
        means, variances = (self._grouped(m) for m in moments[:2])
        mean, var = (m.expand_as(means).flatten(1) for m in pooled(means, variances, 2, keepdim=True))
        return mean, var

    def _grouped(self, values: Tensor) -> Tensor:
        rows, channels = values.shape
        return values.reshape(rows, self.groups, channels // self.groups)

    def _distribute(self, name: str, moments: Moments, found, grad_mean, grad_var, shares, gradients: list) -> None:
        """Add one statistic's part to the gradients with respect to the moments and the batch's statistics."""
        if name == "bn":
            gradients[2:4] = (by.sum(0) * share for by, share in zip((grad_mean, grad_var), shares, strict=True))
            return
        if name == "ln":
            grad_mean, grad_var = pooled_gradient(moments.mean, found, 1, grad_mean, grad_var, shares)
        elif name == "gn":
            mean, found, grad_mean, grad_var = (self._grouped(v) for v in (moments.mean, found, grad_mean, grad_var))
            grouped = pooled_gradient(mean, found, 2, grad_mean, grad_var, shares)
            grad_mean, grad_var = (v.reshape(moments.mean.shape) for v in grouped)
        else:
            grad_mean, grad_var = grad_mean * shares[0], grad_var * shares[1]
        gradients[0] = gradients[0] + grad_mean
        gradients[1] = grad_var if gradients[1] is None else gradients[1] + grad_var


@dataclass(frozen=True, eq=False)
class VectorSwitchFormula(SwitchFormula):
    """`SwitchFormula` for (N, C) inputs with unbiased variances, over C and over N, as in the official 1d layer."""

    def compiled_form(self):
        return None

    def gradient(self, moments, batch, parameters, dscale, dshift):
        return Formula.gradient(self, moments, batch, parameters, dscale, dshift)

    def _statistic(self, name, moments, batch):
        mean, var = super()._statistic(name, moments, batch)
        if name == "ln":
            channels = moments.mean.shape[1]
            return mean, var * (channels / (channels - 1))
        unbiased = batch.share is None  # running averages, which are unbiased already
        return mean, var if unbiased else var / (1 - batch.share)


def _mixed(values, shares: Tensor) -> Tensor:
    first, *rest = zip(values, shares.unbind(), strict=True)
    return reduce(lambda mixed, term: torch.addcmul(mixed, *term), rest, torch.mul(*first))


def _logit_gradient(values, mixed: Tensor, shares: Tensor, grad_mixed: Tensor) -> Tensor:
    """The gradient with respect to the logits whose softmax is a mixture's shares.

    Shares sum to 1, so subtracting a constant from all values does not change the result. Subtracting the mixture keeps
    the digits of small differences between large values.
    """
    return shares * torch.stack([((value - mixed) * grad_mixed).sum() for value in values])


def pooled_gradient(mean: Tensor, pooled_mean: Tensor, dim: int, grad_mean: Tensor, grad_var: Tensor, shares) -> tuple:
    """The backward pass of `pooled(mean, var, dim)`: gradients with respect to mean and var, (N, ...).

    The gradients with respect to its results are `grad_mean` and `grad_var`, each times its share, summed over `dim`.
    """
    grad_mean, grad_var = (
        by.sum(dim, keepdim=True) * (share / mean.shape[dim])
        for by, share in zip((grad_mean, grad_var), shares, strict=True)
    )
    return torch.addcmul(grad_mean, mean - pooled_mean, grad_var, value=2), grad_var.expand_as(mean)
