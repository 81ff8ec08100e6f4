"""The norms by name."""

from collections.abc import Callable
from dataclasses import dataclass
from math import gcd

from torch import nn

from normshift import layers


@dataclass(frozen=True)
class NormSpec:
    """How a name becomes layers: one factory for each number of spatial dimensions, and where they go.

    `NORMS["sn"](64)` builds the 2d layer, `NORMS["sn"](64, dims=1)` the 1d one.
    """

    what: str
    factories: dict[int, Callable[[int], nn.Module]]
    placement: str = "everywhere"  # or the name of IBN-Net's scheme, which `convert` carries out

    def __call__(self, num_features: int, dims: int = 2) -> nn.Module:
        """A fresh layer of `num_features` channels for `dims` spatial dimensions."""
        if dims not in self.factories:
            known = " and ".join(f"{d}d" for d in self.factories)
            raise ValueError(f"{self.what} exists for {known} maps, not for {dims}d ones.")
        return self.factories[dims](num_features)


def _same(factory: Callable[[int], nn.Module]) -> dict[int, Callable[[int], nn.Module]]:
    return {1: factory, 2: factory, 3: factory}


def _switch_without_batch(layer: type[layers.SwitchNorm]) -> Callable[[int], nn.Module]:
    return lambda num_features: layer(num_features, statistics=("in", "ln"))


def _group_norm(num_features: int) -> nn.GroupNorm:
    return nn.GroupNorm(gcd(32, num_features), num_features)


_SWITCH = {1: layers.SwitchNorm1d, 2: layers.SwitchNorm2d, 3: layers.SwitchNorm3d}
_INSTANCE = {1: layers.InstanceNorm1d, 2: layers.InstanceNorm2d, 3: layers.InstanceNorm3d}
_BATCH_INSTANCE = {1: layers.BatchInstanceNorm1d, 2: layers.BatchInstanceNorm2d, 3: layers.BatchInstanceNorm3d}

NORMS: dict[str, NormSpec] = {
    "bn": NormSpec("batch norm", {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}),
    "syncbn": NormSpec("batch norm over all processes (on GPUs)", _same(nn.SyncBatchNorm)),
    "in": NormSpec("instance norm", _INSTANCE),
    "ln": NormSpec("layer norm over channels and positions", _same(lambda c: nn.GroupNorm(1, c))),
    "gn": NormSpec("group norm, of 32 groups or what of 32 divides the channels", _same(_group_norm)),
    "sn": NormSpec("switchable norm", _SWITCH),
    "sn-in-ln": NormSpec("switchable norm of IN and LN", {d: _switch_without_batch(c) for d, c in _SWITCH.items()}),
    "bin": NormSpec("batch-instance norm", _BATCH_INSTANCE),
    "ibn-a": NormSpec("IBN-a", {2: layers.IBN2d}, placement="ibn-a"),
    "ibn-b": NormSpec("IBN-b", {2: layers.InstanceNorm2d}, placement="ibn-b"),
}  # fmt: skip
"""What `convert` and every `--norm` flag accept."""


def norm_spec(name: str) -> NormSpec:
    """The entry of `NORMS`, or a ValueError that lists the names there are."""
    if name not in NORMS:
        raise ValueError(f"unknown norm {name!r}: choose from {', '.join(NORMS)}.")
    return NORMS[name]
