"""Parameters that live in [0, 1], whatever trains them."""

import weakref

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

_kept: dict[str, weakref.WeakSet] = {}


def keep_in_unit_interval(layer: nn.Module, name: str) -> None:
    """Clamp `layer.NAME` to [0, 1] after every step that any torch optimiser takes, for as long as `layer` lives.

    This is the projection of projected gradient descent, so it belongs after the step and not into the forward
    function (a clamp there would pass no gradient back to a value outside), and into the layer's keeping and not
    into a training loop's: gradient accumulation, several optimisers and other people's loops need nothing of it.
    """
    _kept.setdefault(name, weakref.WeakSet()).add(layer)


def _clamp_all(*_) -> None:
    for name, layers in _kept.items():
        found = [getattr(layer, name, None) for layer in layers]
        values = [p.data for p in found if p is not None and p.device.type != "meta"]
        if values:
            for group in _same_kind(values):
                torch._foreach_clamp_min_(group, 0.0)
                torch._foreach_clamp_max_(group, 1.0)


def _same_kind(values: list[torch.Tensor]) -> list[list[torch.Tensor]]:
    groups: dict[tuple, list[torch.Tensor]] = {}
    for value in values:
        groups.setdefault((value.device, value.dtype), []).append(value)
    return list(groups.values())


register_optimizer_step_post_hook(_clamp_all)
