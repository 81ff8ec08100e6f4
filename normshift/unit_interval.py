"""Parameters that stay in [0, 1], whichever optimiser trains them."""

import threading
import weakref

import torch
from torch import nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

_kept: dict[str, weakref.WeakSet] = {}
_lock = threading.Lock()


def keep_in_unit_interval(layer: nn.Module, name: str) -> None:
    """Clamp the parameter `name` of `layer` to [0, 1] after every step of any torch optimiser that trains it.

    This is the projection of projected gradient descent. It belongs after the step: a clamp in the forward function
    would give no gradient to values outside. A hook of all optimisers does it, so training loops need no code for it,
    also with gradient accumulation or several optimisers.
    """
    with _lock:
        _kept.setdefault(name, weakref.WeakSet()).add(layer)


def _clamp(optimizer: Optimizer, *_) -> None:
    with _lock:
        kept = [layer._parameters.get(name) for name, layers in _kept.items() for layer in layers]
    if not kept:
        return
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for group in _same_kind([p.data for p in kept if id(p) in trained and p.device.type != "meta"]):
        torch._foreach_clamp_min_(group, 0.0)
        torch._foreach_clamp_max_(group, 1.0)


def _same_kind(values: list[torch.Tensor]) -> list[list[torch.Tensor]]:
    groups: dict[tuple, list[torch.Tensor]] = {}
    for value in values:
        groups.setdefault((type(value), value.device, value.dtype), []).append(value)
    return list(groups.values())


register_optimizer_step_post_hook(_clamp)
