"""The norms by name."""

from collections.abc import Callable
from dataclasses import dataclass

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


def group_count(num_features: int) -> int:
    """Groups of "gn" over so many channels, two or more of two channels or more each.

    32 where that leaves two channels for each (Wu and He, ECCV 2018, section 4.1), and of fewer than 64 channels one
    for every four, as diffusion networks have it (Karras et al., NeurIPS 2022: at least 4 channels a group); of what
    divides the channels, the largest number up to that. One channel a group would be instance norm, one group layer
    norm.

    Raises:
        ValueError: where the channels cannot be divided so: 1 to 3 of them, or a prime number.
    """
    wanted = 32 if num_features >= 64 else num_features // 4
    possible = [groups for groups in range(2, num_features // 2 + 1) if num_features % groups == 0]
    if not possible:
        raise ValueError(
            f"group norm needs channels that divide into 2 groups or more of 2 channels or more, got {num_features}: "
            "take ln or in there, or leave these layers out (where=)."
        )
    return max((groups for groups in possible if groups <= wanted), default=possible[0])


def _group_norm(num_features: int) -> nn.GroupNorm:
    return nn.GroupNorm(group_count(num_features), num_features)


_SWITCH = {1: layers.SwitchNorm1d, 2: layers.SwitchNorm2d, 3: layers.SwitchNorm3d}
_INSTANCE = {1: layers.InstanceNorm1d, 2: layers.InstanceNorm2d, 3: layers.InstanceNorm3d}
_BATCH_INSTANCE = {1: layers.BatchInstanceNorm1d, 2: layers.BatchInstanceNorm2d, 3: layers.BatchInstanceNorm3d}

NORMS: dict[str, NormSpec] = {
    "bn": NormSpec("batch norm", {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}),
    "syncbn": NormSpec("batch norm over all processes (on GPUs)", _same(nn.SyncBatchNorm)),
    "in": NormSpec("instance norm", _INSTANCE),
    "ln": NormSpec("layer norm over channels and positions", _same(lambda c: nn.GroupNorm(1, c))),
    "gn": NormSpec("group norm, of 32 groups; below 64 channels of 4 channels a group", _same(_group_norm)),
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
