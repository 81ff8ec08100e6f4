"""Norm layers. Each has a formula, the formula's parameters and, if it uses batch statistics, running averages."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from types import ModuleType
from typing import ClassVar

import torch
from torch import Tensor, nn

from normshift.backends.compiled import Averages
from normshift.context import Context
from normshift.engine import Batch, BatchSource, Formula, Moments, is_transformed, normalize
from normshift.formulas import (
    BatchFormula,
    BatchInstanceFormula,
    InstanceBatchFormula,
    InstanceFormula,
    SwitchFormula,
    VectorSwitchFormula,
)
from normshift.running_statistics import RunningStatistics
from normshift.sync import pooled_batch
from normshift.unit_interval import keep_in_unit_interval

PER_IMAGE = "its statistics come from each image"


def shares(logits: Tensor) -> Tensor:
    """The softmax of logits, (gates, labels)."""
    return logits.softmax(-1)


@dataclass(frozen=True)
class GateParameter:
    """A parameter that is a gate: its values, in [0, 1], decide how much of each statistic a layer uses.

    Attributes:
        statistic: the kind of gate; the name under which it is recorded and drawn (see `GateSpec`).
        parameter: a parameter of the layer, of any shape.
        labels: what each value belongs to; by default the values' numbers.
        read: a function from the parameter's values, (gates, len(labels)), to values in [0, 1], such as torch.sigmoid
            or `shares`; None if they are in [0, 1] already. Gates with the same function are read in one call.
        fast: whether `parameter_groups` multiplies its learning rate and never decays it, as in BIN's paper.
    """

    statistic: str
    parameter: nn.Parameter
    labels: Sequence[str] = ()
    read: Callable[[Tensor], Tensor] | None = None
    fast: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.labels) or tuple(map(str, range(self.parameter.numel())))


class Norm(nn.Module):
    """Base class of this library's layers: checks the input and applies the formula.

    A subclass provides its `Formula` and the formula's parameters in order. Parameters and buffers beyond those of
    `AffineNorm` are specific to the class: `convert` initialises them and never copies them to a layer of another kind.

    It does not derive from torch's `_BatchNorm`, because torch's SyncBatchNorm conversion would replace it. Tools that
    search for `_BatchNorm` find layers with running averages through a `BatchNormView`.
    """

    ndims: tuple[int, ...] = (2, 3, 4, 5)
    correction: int = 0
    module_name: str = ""  # the layer's name in its network; set by `name_layers`
    generator: torch.Generator | None = None  # for a formula's random numbers; None: torch's default generator
    norm_name: str = ""  # the name under which gates are recorded; set by `NormSpec`, `register_norm`
    published_names: ClassVar[Mapping[str, str]] = {}  # parameter names in published checkpoints -> in this class

    def __init__(self, num_features: int, eps: float = 1e-5):
        super().__init__()
        if num_features < 1:
            raise ValueError(f"{type(self).__name__} needs at least 1 channel, got num_features={num_features}.")
        self.num_features = num_features
        self.eps = eps

    def formula(self) -> Formula:
        raise NotImplementedError

    def formula_parameters(self) -> tuple[Tensor, ...]:
        raise NotImplementedError

    def batch_source(self) -> BatchSource | None:
        """What provides the formula's batch statistics; None if the formula uses none."""
        return None

    def context(self) -> Context:
        """The context of this forward pass (training flag, name, domains, random numbers), for a formula to keep."""
        return Context(self.training, self.module_name, self.generator)

    def gates(self) -> list[GateParameter]:
        """The layer's gates; an empty list if it has none."""
        return []

    def follow_published(self, state: Mapping[str, Tensor]) -> None:
        """Apply settings that a checkpoint from the paper's repository implies but does not contain.

        Args:
            state: the layer's part of the checkpoint.
        """

    def why_not_folded(self) -> str | None:
        """Why `fold` cannot merge this layer into a convolution; None if evaluation is a fixed scale and shift."""
        own = self.formula().own_moments(self.num_features, training=False)
        return PER_IMAGE if own.stop > own.start else None

    def forward(self, x: Tensor) -> Tensor:
        self._check(x)
        return normalize(x, self.formula(), self.formula_parameters(), self.batch_source(), self.correction)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}"

    def _held(self, name: str) -> Tensor:
        """A parameter; found as an attribute of a module it takes longer, which small layers notice."""
        parameter = self._parameters.get(name)
        if parameter is None or name in self.__dict__ or _has(type(self), name):  # type: ignore[arg-type]  # replaced
            return getattr(self, name)
        return parameter

    def _check(self, x: Tensor) -> None:
        if x.dim() in self.ndims and x.shape[1] == self.num_features and x.is_floating_point():
            return
        name, shape = type(self).__name__, tuple(x.shape)
        if x.dim() not in self.ndims:
            wanted = " or ".join(f"{n}D" for n in self.ndims)
            raise ValueError(f"{name} expects {wanted} input, got {x.dim()}D of shape {shape}.")
        if shape[1] != self.num_features:
            raise ValueError(f"{name} of {self.num_features} channels got {shape[1]}, in input of shape {shape}.")
        if not x.is_floating_point():
            raise ValueError(f"{name} normalises floating-point input, got {x.dtype}: convert it, as by x.float().")


@cache
def _has(kind, name: str) -> bool:
    return hasattr(kind, name)


class AffineNorm(Norm):
    """A norm with a `weight` and a `bias` for each channel, (C,), initialised to 1 and 0."""

    def __init__(self, num_features: int, eps: float = 1e-5):
        super().__init__(num_features, eps)
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))

    def formula_parameters(self):
        return self._held("weight"), self._held("bias")


class InstanceNorm(AffineNorm):
    """Instance normalization with affine parameters. Unlike torch's it accepts 1x1 maps; there it returns `bias`."""

    def formula(self):
        return InstanceFormula(self.eps)


class AffineBatchNorm(RunningStatistics, AffineNorm):
    """An `AffineNorm` whose formula also uses the batch's statistics: pooled in training, running ones in evaluation.

    Args:
        num_features: C.
        eps: added to variances.
        momentum: share of the new batch in the running averages; None for the mean of all batches.
        count_in_state: whether the state dict has the number of batches, as with torch's batch norms.
    """

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, count_in_state: bool = False
    ):
        super().__init__(num_features, eps)
        self._track(num_features, momentum, count_in_state)


class BatchNorm(AffineBatchNorm):
    """Batch normalization (Ioffe and Szegedy, ICML 2015) that can synchronise on any device; the BN half of `IBN2d`."""

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1):
        super().__init__(num_features, eps, momentum, count_in_state=True)  # a key of every published BN

    def formula(self):
        return BatchFormula(self.eps)


class SwitchNorm(RunningStatistics, AffineNorm):
    """Switchable Normalization (Luo et al., ICLR 2019, eq. 3-5).

    `y = weight * (x - mu) / sqrt(var + eps) + bias`. `mu` is a mixture of the means named in `statistics`, with the
    softmax of `mean_weight` as shares; `var` is a mixture of the variances, with the softmax of `var_weight`.

    Args:
        num_features: channels (C).
        eps: added to the mixed variance.
        momentum: share of the new batch in the running averages (in the official code: of the old ones); None for the
            mean of all batches.
        statistics: the statistics to mix, in this order: any of "in", "ln", "bn", "gn", each once.
        groups: number of groups of "gn"; divides C into at least two groups of at least two channels.
        correction: the per-instance variance is divided by P - correction, where P is the number of positions. 0 is
            biased and works for 1x1 maps; 1 is the official code's and needs P of 2 or more. For (N, C) inputs,
            statistics=("ln", "bn") with correction=1 is the official 1d layer: both variances are unbiased, over C and
            over N. With 1, state dicts have the official shapes, such as (1, C, 1, 1); a layer that loads such a state
            dict sets its correction to 1.

    Attributes:
        weight: (C,).
        bias: (C,).
        mean_weight: the gates of the mean, (len(statistics),), before the softmax; initialised to 1.
        var_weight: the gates of the variance, likewise.
        running_mean: (C,), if "bn" is mixed.
        running_var: (C,), if "bn" is mixed.
        sync: whether "bn" is pooled over all processes.

    Input and output: (N, C) or (N, C, L) for 1d, (N, C, H, W) for 2d, (N, C, D, H, W) for 3d.

    Raises:
        ValueError: unknown statistics, groups that do not divide C, or an input of another shape.
    """

    STATISTICS = ("in", "ln", "bn", "gn")
    norm_name = "sn"
    _version = 2  # since version 2, the shapes in a state dict tell the correction

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        statistics: tuple[str, ...] = ("in", "ln", "bn"),
        groups: int = 32,
        correction: int = 0,
    ):
        super().__init__(num_features, eps)
        self.statistics = tuple(statistics)
        known = set(self.statistics) <= set(self.STATISTICS)
        if not self.statistics or not known or len(set(self.statistics)) < len(self.statistics):
            raise ValueError(f"statistics are some of {', '.join(self.STATISTICS)}, each once; got {statistics!r}.")
        if "gn" in self.statistics and (groups < 1 or num_features % groups):
            raise ValueError(f"groups={groups} does not divide num_features={num_features}: pass groups that do.")
        if "gn" in self.statistics and groups in (1, num_features):
            same = "all channels in one group are layer norm" if groups == 1 else "one channel a group is instance norm"
            raise ValueError(
                f"groups={groups} of {num_features} channels: {same}, not group norm; pass another number."
            )
        if correction not in (0, 1):
            raise ValueError(f"correction is 0 or 1, got {correction!r}.")
        self.groups = groups
        self.correction = correction
        self.mean_weight = nn.Parameter(torch.ones(len(self.statistics)))
        self.var_weight = nn.Parameter(torch.ones(len(self.statistics)))
        if "bn" in self.statistics:
            self._track(num_features, momentum)

    def formula_parameters(self):
        weight, bias = self._held("weight"), self._held("bias")
        if weight.dim() > 1:
            weight, bias = weight.flatten(), bias.flatten()
        return weight, bias, self._held("mean_weight"), self._held("var_weight")

    def formula(self):
        return SwitchFormula(self.eps, self.statistics, self.groups)

    def follow_published(self, state):
        """Official checkpoints have affine parameters with axes of size 1. Their layers divide by n - 1, with a
        momentum of 0.1 for images and 0.003 for vectors and volumes (devkit/ops/switchable_norm.py)."""
        if "mean_weight" not in state:
            return
        official = state.get("weight", self.weight).dim() > 1
        self.correction = int(official)
        if official:
            self.eps = 1e-5
        if official and "bn" in self.statistics:
            self.momentum = 0.1 if self.ndims == (4,) else 0.003

    def gates(self):
        mixtures = (("mean", self.mean_weight), ("var", self.var_weight))
        return [GateParameter(statistic, weight, self.statistics, shares) for statistic, weight in mixtures]

    def why_not_folded(self):
        return None if self.statistics == ("bn",) else f"{PER_IMAGE}, as a mixture of {', '.join(self.statistics)}"

    def batch_source(self):
        return super().batch_source() if "bn" in self.statistics else None

    def _check(self, x):
        super()._check(x)
        if self.correction and x.shape[0] and prod(x.shape[2:]) == 1:
            raise ValueError(
                "SwitchNorm with correction=1 needs maps of 2 positions or more; correction=0 takes 1x1 maps."
            )

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.correction and keep_vars:  # the caller wants the tensors themselves, which are not reshaped
            getattr(destination, "_metadata", {}).get(prefix[:-1], {}).pop("version", None)
            return
        for key in ("weight", "bias", "running_mean", "running_var"):
            if self.correction and prefix + key in destination:
                ones = self.ndims[-1] - 2 if key in ("weight", "bias") else 1
                shape = (1, -1) if self.ndims[0] == 2 else (1, -1, *[1] * ones)
                destination[prefix + key] = destination[prefix + key].reshape(shape)

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *args):
        weight = state_dict.get(f"{prefix}weight")
        if weight is not None and weight.dim() > 1:
            self.correction = 1
            for key in ("weight", "bias", "running_mean", "running_var"):
                if prefix + key in state_dict:
                    state_dict[prefix + key] = state_dict[prefix + key].flatten()
        elif (local_metadata.get("version") or 1) > 1:  # shapes of version 1 do not tell the correction
            self.correction = 0
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)

    def extra_repr(self) -> str:
        convention = f", correction={self.correction}" if self.correction else ""
        return f"{super().extra_repr()}, statistics={'+'.join(self.statistics)}{convention}"


class BatchInstanceNorm(RunningStatistics, AffineNorm):
    """Batch-Instance Normalization (Nam and Kim, NeurIPS 2018, eq. 3-4).

    `y = weight * (rho * x_bn + (1 - rho) * x_in) + bias`, with one gate `rho` for each channel.

    `rho` starts at 1 (batch norm) and stays in [0, 1]: it is clamped after every step of a torch optimiser that trains
    it, and again before it is used. The paper trains it with a higher learning rate and without weight decay:
    `parameter_groups` sets both.

    Args:
        num_features: channels (C).
        eps: added to both variances.
        momentum: share of the new batch in the running averages, as in `nn.BatchNorm2d`.

    Attributes:
        weight: (C,).
        bias: (C,).
        rho: the gates, (C,).
        running_mean: (C,).
        running_var: (C,).
        sync: whether the batch's moments are pooled over all processes.

    Input and output: (N, C) or (N, C, L) for 1d, (N, C, H, W) for 2d, (N, C, D, H, W) for 3d.

    Raises:
        ValueError: the input has another shape.
    """

    norm_name = "bin"
    published_names: ClassVar = {"gate": "rho"}

    def __new__(cls, *args, **kwargs):
        layer = super().__new__(cls)
        keep_in_unit_interval(layer, "rho")  # not in __init__, which copies and unpickled layers do not run
        return layer

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1):
        super().__init__(num_features, eps)
        self.rho = nn.Parameter(torch.ones(num_features))
        self._track(num_features, momentum)

    def formula_parameters(self):
        if is_transformed():
            return self.weight, self.bias, self.rho + (self.rho.clamp(0, 1) - self.rho).detach()
        rho = self._held("rho")
        rho.data.clamp_(0, 1)  # .data, because autograd would refuse an in-place change if a layer runs twice
        return self._held("weight"), self._held("bias"), rho

    def gates(self):
        return [GateParameter("rho", self.rho, fast=True)]

    def why_not_folded(self):
        gated = int((self.rho < 1).sum())
        return f"{PER_IMAGE} where rho is below 1, in {gated} of {self.num_features} channels" if gated else None

    def formula(self):
        return BatchInstanceFormula(self.eps)


class IBN2d(Norm):
    """Instance norm on some of the channels and batch norm on the others (IBN-Net, Pan et al., ECCV 2018, fig. 3a).

    Args:
        num_features: C, at least 2.
        ratio: share of the channels that get instance norm.
        eps, momentum: as in `nn.BatchNorm2d`.
        instance_first: if True, the first `int(C * ratio)` channels get instance norm, as in the published ResNets; if
            False, the first `int(C * (1 - ratio))` channels get batch norm, as in the published DenseNets.

    Attributes:
        IN: the instance norm layer.
        BN: the batch norm layer. The state dict has the published checkpoints' keys (IN.weight, BN.running_mean, ...).

    Input and output: (N, C, H, W).

    Raises:
        ValueError: one of the two norms would have no channel, or the input has another shape.
    """

    ndims = (4,)

    def __init__(
        self,
        num_features: int,
        ratio: float = 0.5,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        instance_first: bool = True,
    ):
        super().__init__(num_features, eps)
        self.ratio, self.instance_first = ratio, instance_first
        self.first = int(num_features * (ratio if instance_first else 1 - ratio))
        if not 0 < self.first < num_features:
            raise ValueError(
                f"IBN2d needs a channel under either norm: num_features={num_features} and ratio={ratio} leave none."
            )
        instance = self.first if instance_first else num_features - self.first
        self.IN = InstanceNorm(instance, eps)
        self.BN = BatchNorm(num_features - instance, eps, momentum)

    def parts(self) -> tuple[str, str]:
        """The two parts' names in the order of their channels."""
        return ("IN", "BN") if self.instance_first else ("BN", "IN")

    def formula_parameters(self):
        first, second = self.parts()
        return (*getattr(self, first).formula_parameters(), *getattr(self, second).formula_parameters())

    def formula(self):
        return InstanceBatchFormula(self.eps, self.first, self.instance_first)

    def batch_source(self):
        return _HalfBatch(self)

    def extra_repr(self) -> str:
        return f"{self.num_features}, ratio={self.ratio}, eps={self.eps}"


class _HalfBatch:
    """Batch statistics for all channels of an `IBN2d`: those of its BN, and mean 0 and variance 1 for IN's channels.

    The formula multiplies IN's batch statistics by 0, so they have to be finite.
    """

    def __init__(self, layer: IBN2d):
        self._norm, self._layer = layer.BN, layer

    @property
    def training(self) -> bool:
        return self._norm.training or self._norm.running_mean is None

    def batch(self, moments: Moments, backend: ModuleType, observe: bool) -> Batch:
        batch, count = pooled_batch(moments, backend, self._norm.sync and self._norm.training)
        own = slice(self._layer.first, None) if self._layer.instance_first else slice(self._layer.first)
        half = batch._replace(mean=batch.mean[own], var=batch.var[own])
        if observe:
            self._norm.observe(half.mean, half.var, count, backend)
        return self._filled(half)

    def running(self, dtype: torch.dtype) -> Batch:
        return self._filled(self._norm.running(dtype))

    def local_averages(self) -> Averages | None:
        return self._norm.batch_source().local_averages()

    def _filled(self, half: Batch) -> Batch:
        missing = self._layer.num_features - self._norm.num_features
        sides = (missing, 0) if self._layer.instance_first else (0, missing)
        pad = nn.functional.pad
        return half._replace(mean=pad(half.mean, sides), var=pad(half.var, sides, value=1.0))


class InstanceNorm1d(InstanceNorm):
    ndims = (2, 3)


class InstanceNorm2d(InstanceNorm):
    ndims = (4,)


class InstanceNorm3d(InstanceNorm):
    ndims = (5,)


class SwitchNorm1d(SwitchNorm):
    ndims = (2, 3)
    __doc__ = SwitchNorm.__doc__

    def forward(self, x):
        if not self._unbiased_over_vectors(x) or not x.numel():
            return super().forward(x)
        self._check(x)
        formula = VectorSwitchFormula(self.eps, self.statistics, self.groups)
        source = _Vectors(self) if "bn" in self.statistics else None
        return normalize(x, formula, self.formula_parameters(), source)

    def _unbiased_over_vectors(self, x: Tensor) -> bool:
        return bool(self.correction) and x.dim() == 2 and set(self.statistics) <= {"ln", "bn"}

    def _check(self, x):
        if not self._unbiased_over_vectors(x):
            return super()._check(x)
        Norm._check(self, x)
        alone = self.training and not self.sync and len(x) == 1
        if ("ln" in self.statistics and x.shape[1] < 2) or ("bn" in self.statistics and alone):
            raise ValueError(
                f"SwitchNorm1d with correction=1 needs 2 channels and 2 vectors or more, got {tuple(x.shape)}."
            )


class _Vectors:
    """Batch statistics for (N, C) inputs of a `SwitchNorm1d` with correction=1: its running variance is unbiased."""

    def __init__(self, layer: SwitchNorm1d):
        self._layer, self.running = layer, layer.running

    @property
    def training(self) -> bool:
        return self._layer.training or self._layer.running_mean is None

    def batch(self, moments: Moments, backend: ModuleType, observe: bool) -> Batch:
        batch, count = pooled_batch(moments, backend, self._layer.sync and self._layer.training)
        if observe and batch.share is not None:
            self._layer.observe(batch.mean, batch.var / (1 - batch.share), count, backend)
        return batch

    def local_averages(self) -> None:
        """None: no operator knows these variances."""


class SwitchNorm2d(SwitchNorm):
    ndims = (4,)
    __doc__ = SwitchNorm.__doc__


class SwitchNorm3d(SwitchNorm):
    ndims = (5,)
    __doc__ = SwitchNorm.__doc__


class BatchInstanceNorm1d(BatchInstanceNorm):
    ndims = (2, 3)
    __doc__ = BatchInstanceNorm.__doc__


class BatchInstanceNorm2d(BatchInstanceNorm):
    ndims = (4,)
    __doc__ = BatchInstanceNorm.__doc__


class BatchInstanceNorm3d(BatchInstanceNorm):
    ndims = (5,)
    __doc__ = BatchInstanceNorm.__doc__


# torch's layers for the norms "ln" and "gn"


def layer_norm(num_features: int) -> nn.GroupNorm:
    """One group of all channels: mean and variance over channels and positions."""
    return nn.GroupNorm(1, num_features)


def group_norm(num_features: int) -> nn.GroupNorm:
    """Group norm with `group_count(num_features)` groups."""
    return nn.GroupNorm(group_count(num_features), num_features)


def group_count(num_features: int) -> int:
    """The number of groups of "gn" for a number of channels: at least two groups, of at least two channels each.

    The aim is 32 groups (Wu and He, ECCV 2018, section 4.1), or for fewer than 64 channels one group for every four
    channels, as in diffusion networks (Karras et al., NeurIPS 2022). The result is the largest divisor of the channels
    up to that number. Groups of one channel would be instance norm; a single group would be layer norm.

    Raises:
        ValueError: the channels cannot be divided in this way: fewer than 4, or a prime number.
    """
    wanted = 32 if num_features >= 64 else num_features // 4
    possible = [groups for groups in range(2, num_features // 2 + 1) if num_features % groups == 0]
    if not possible:
        raise ValueError(
            f"group norm needs channels that divide into 2 groups or more of 2 channels or more, got {num_features}: "
            "take ln or in there, or leave these layers out (where=)."
        )
    return max((groups for groups in possible if groups <= wanted), default=possible[0])
