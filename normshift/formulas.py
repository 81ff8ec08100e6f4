"""The norms as formulas: from moments, a batch's statistics and parameters to `scale` and `shift`.

`y = scale * (x - mean) + shift`, with the map's own mean. Each formula is written as its paper writes it, and beside it
stands its gradient, derived by hand: autograd on so few numbers costs more than the numbers.

Written throughout: `total` for the gradient by the scale in both of its places, before x and before a mean.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from normshift.engine import Batch, Formula, Moments


@dataclass(frozen=True)
class InstanceFormula(Formula):
    """`weight * (x - mean) / sqrt(var + eps) + bias`."""

    eps: float

    def __call__(self, moments, batch, weight, bias):
        return weight * torch.rsqrt(moments.var + self.eps), bias

    def gradient(self, moments, batch, parameters, dscale, dshift):
        rsigma = torch.rsqrt(moments.var + self.eps)
        through = dscale * rsigma
        dvar = through * rsigma.square_() * (-0.5 * parameters[0])
        return [None, dvar, None, None, through.sum(0), dshift.sum(0)]


@dataclass(frozen=True)
class BatchFormula(Formula):
    """The same with the batch's mean and variance."""

    eps: float

    def __call__(self, moments, batch, weight, bias):
        scale = weight * torch.rsqrt(batch.var + self.eps)
        return scale, torch.addcmul(bias, scale, moments.mean - batch.mean)

    def own_moments(self, channels, training):
        return slice(0, channels) if training else slice(0, 0)

    def gradient(self, moments, batch, parameters, dscale, dshift):
        rsigma = torch.rsqrt(batch.var + self.eps)
        scale = parameters[0] * rsigma
        total = torch.addcmul(dscale, dshift, moments.mean - batch.mean).sum(0, keepdim=True)
        dbias = dshift.sum(0, keepdim=True)
        dvar = total * scale * rsigma.square() * -0.5
        return [dshift * scale, None, -scale * dbias, dvar, (total * rsigma)[0], dbias[0]]


@dataclass(frozen=True)
class BatchInstanceFormula(Formula):
    """`weight * (rho * x_bn + (1 - rho) * x_in) + bias` (Nam and Kim, NeurIPS 2018, eq. 3)."""

    eps: float

    def __call__(self, moments, batch, weight, bias, rho):
        batch_scale = weight * rho * torch.rsqrt(batch.var + self.eps)
        instance_scale = weight * (1 - rho) * torch.rsqrt(moments.var + self.eps)
        return batch_scale + instance_scale, torch.addcmul(bias, batch_scale, moments.mean - batch.mean)

    def gradient(self, moments, batch, parameters, dscale, dshift):
        weight, _, rho = parameters
        of_batch, of_instance = torch.rsqrt(batch.var + self.eps), torch.rsqrt(moments.var + self.eps)
        batch_scale = weight * rho * of_batch
        total = torch.addcmul(dscale, dshift, moments.mean - batch.mean).sum(0, keepdim=True)
        through = dscale * of_instance
        instance_total, dbias = through.sum(0), dshift.sum(0, keepdim=True)
        batch_total = (total * of_batch)[0]
        dvar = through * of_instance.square_() * (weight * (1 - rho) * -0.5)
        dbatch_var = total * batch_scale * of_batch.square() * -0.5
        dweight = torch.lerp(instance_total, batch_total, rho)
        drho = weight * (batch_total - instance_total)
        return [dshift * batch_scale, dvar, -batch_scale * dbias, dbatch_var, dweight, dbias[0], drho]


@dataclass(frozen=True)
class SwitchFormula(Formula):
    """`weight * (x - mu) / sqrt(var + eps) + bias`, with mixtures of moments (Luo et al., ICLR 2019, eq. 3-5)."""

    eps: float
    statistics: tuple[str, ...]
    groups: int

    def __call__(self, moments, batch, weight, bias, mean_weight, var_weight):
        mean, var = self._mixed(self._found(moments, batch), mean_weight.softmax(0), var_weight.softmax(0))
        scale = weight * torch.rsqrt(var + self.eps)
        return scale, torch.addcmul(bias, scale, moments.mean - mean)

    def gradient(self, moments, batch, parameters, dscale, dshift):
        weight, _, *logits = parameters
        found, shares = self._found(moments, batch), [v.softmax(0) for v in logits]
        mixed_mean, mixed_var = self._mixed(found, *shares)
        rsigma = torch.rsqrt(mixed_var + self.eps)
        scale = weight * rsigma
        through = torch.addcmul(dscale, dshift, moments.mean - mixed_mean).mul_(rsigma)  # total / sigma
        dmean = dshift * scale
        by_mean, by_var = -dmean, through * scale * rsigma * -0.5  # by the mixtures
        # As shares sum to 1, a softmax's gradient is unmoved by what is taken off all statistics: the mixture, here,
        # without which a mean far from 0 would drown the differences between the statistics.
        dlogits = [
            share * torch.stack([(by * (v - mixed)).sum() for v in values])
            for share, by, mixed, values in zip(
                shares, (by_mean, by_var), (mixed_mean, mixed_var), zip(*found, strict=True), strict=True
            )
        ]
        gradients = [dmean, None, None, None]
        for at, name in enumerate(self.statistics):
            self._distribute(name, moments, found[at], shares[0][at] * by_mean, shares[1][at] * by_var, gradients)
        return [*gradients, through.sum(0), dshift.sum(0), *dlogits]

    def _found(self, moments: Moments, batch: Batch | None) -> list[tuple[Tensor, Tensor]]:
        return [self._statistic(name, moments, batch) for name in self.statistics]

    def _statistic(self, name: str, moments: Moments, batch: Batch | None) -> tuple[Tensor, Tensor]:
        """Mean and variance that broadcast to (N, C)."""
        if name == "bn":
            return batch[:2]
        if name == "in":
            return moments[:2]
        if name == "ln":
            return pooled(*moments[:2], 1)
        grouped = [m.unflatten(1, (self.groups, -1)) for m in moments[:2]]
        return tuple(m.expand_as(grouped[0]).flatten(1) for m in pooled(*grouped, 2))

    @staticmethod
    def _mixed(found, mean_shares: Tensor, var_shares: Tensor) -> tuple[Tensor, Tensor]:
        means, variances = zip(*found, strict=True)
        return tuple(
            sum(share * value for share, value in zip(shares.unbind(), values, strict=True))
            for shares, values in ((mean_shares, means), (var_shares, variances))
        )

    def _distribute(self, name: str, moments: Moments, found, by_mean: Tensor, by_var: Tensor, gradients: list) -> None:
        """Add what one statistic's gradients, (N, C) before they are summed, are by the moments and the batch."""
        if name == "bn":
            gradients[2:4] = by_mean.sum(0, keepdim=True), by_var.sum(0, keepdim=True)
            return
        if name == "in":
            of_mean, of_var = by_mean, by_var
        elif name == "ln":
            of_mean, of_var = pooled_gradient(moments.mean, found[0], 1, by_mean, by_var)
        else:
            split = [v.unflatten(1, (self.groups, -1)) for v in (moments.mean, found[0], by_mean, by_var)]
            of_mean, of_var = (v.flatten(1) for v in pooled_gradient(split[0], split[1], 2, *split[2:]))
        gradients[0] = gradients[0] + of_mean
        gradients[1] = of_var if gradients[1] is None else gradients[1] + of_var


@dataclass(frozen=True)
class SideBySide(Formula):
    """One formula for the first channels and another for the rest, each with two parameters."""

    first: Formula
    second: Formula
    split: int

    def __call__(self, moments, batch, *parameters):
        halves = zip(
            (self.first, self.second), self._halves(moments, batch), (parameters[:2], parameters[2:]), strict=True
        )
        found = [formula(*half, *of_half) for formula, half, of_half in halves]
        rows = moments.mean.shape[0]
        return tuple(torch.cat([v.expand(rows, -1) for v in values], 1) for values in zip(*found, strict=True))

    def own_moments(self, channels, training):
        first = self.first.own_moments(self.split, training)
        second = self.second.own_moments(channels - self.split, training)
        own = [range(channels)[first], range(channels)[self.split :][second]]
        own = [channels for channels in own if len(channels)]
        return slice(own[0].start, own[-1].stop) if own else slice(0, 0)

    def gradient(self, moments, batch, parameters, dscale, dshift):
        halves = zip(
            (self.first, self.second),
            self._halves(moments, batch),
            (parameters[:2], parameters[2:]),
            *(v.tensor_split([self.split], 1) for v in (dscale, dshift)),
            strict=True,
        )
        first, second = (formula.gradient(*half, of_half, *by) for formula, half, of_half, *by in halves)
        like = (*moments[:2], *batch[:2])
        joined = (
            None if a is None and b is None else torch.cat(_zeros_where_none(a, b, v, self.split), 1)
            for a, b, v in zip(first[:4], second[:4], like, strict=True)
        )
        return [*joined, *first[4:], *second[4:]]

    def _halves(self, moments: Moments, batch: Batch):
        own = zip(*(m.tensor_split([self.split], 1) for m in moments[:2]), strict=True)
        shared = zip(*(b.tensor_split([self.split], 1) for b in batch[:2]), strict=True)
        return [(Moments(*m, moments.positions), Batch(*b, *batch[2:])) for m, b in zip(own, shared, strict=True)]


def _zeros_where_none(first: Tensor | None, second: Tensor | None, like: Tensor, split: int) -> list[Tensor]:
    zeros = like.new_zeros(()).expand_as(like).tensor_split([split], 1)
    return [zero if value is None else value for value, zero in zip((first, second), zeros, strict=True)]


def pooled(mean: Tensor, var: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Moments over a further axis of moments, by the law of total variance; that axis is kept, with size 1.

    Never `E[x^2] - mean^2`, which cancels where the mean is large against the spread.
    """
    between, pooled_mean = torch.var_mean(mean, dim, correction=0, keepdim=True)
    return pooled_mean, var.mean(dim, keepdim=True) + between


def pooled_gradient(
    mean: Tensor, pooled_mean: Tensor, dim: int, by_mean: Tensor, by_var: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradients by `pooled`'s arguments, from those by its results; these are summed over `dim` first."""
    size = mean.shape[dim]
    by_mean, by_var = (v.sum(dim, keepdim=True) / size for v in (by_mean, by_var))
    return torch.addcmul(by_mean, mean - pooled_mean, by_var, value=2), by_var.expand_as(mean)
