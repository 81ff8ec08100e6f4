"""The successor of a norm layer inherits its parameters, statistics, settings, hooks, children and attributes.

Both layers share the same objects: parameters (with their gradients, hooks and ties, so optimisers need no change),
running averages, child modules and hooks. Layers that split their channels (IBN) get copies.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.modules.module import _WrappedHook
from torch.nn.utils import parametrize

from normshift.exchange.own_forward import apply_behind, behind, eps_of, is_known
from normshift.layers import BatchNorm, IBN2d, Norm, RunningStatistics
from normshift.record import CHANNELWISE, channels_of, dims_of, gate_keys

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
SETTINGS = {
    "affine", "track_running_stats", "eps", "momentum", "sync", "process_group", "num_groups", "num_channels", "dims",
    "ndims", "statistics", "groups", "correction", "ratio", "instance_first", "first", "module_name",
    "norm_name", "generator", "_compiled_call_impl",
}  # fmt: skip
"""Attributes that are settings of one kind of layer and are not carried over to another."""


def successor(
    old: nn.Module,
    spec: Callable[..., nn.Module],
    name: str = "",
    *,
    dims: int | None = None,
    like: Tensor | None = None,
) -> nn.Module:
    """The layer that replaces `old`; `old` itself if it is of the wanted kind already.

    `old` does not change, but shares its tensors with the successor. Hooks are moved later, by `hand_on_hooks`.

    Args:
        old: a norm layer.
        spec: a callable that creates the new layer, `spec(num_features, dims=...)`.
        name: the old layer's name, for messages.
        dims: number of spatial dimensions, for layers that do not say; by default 2.
        like: a tensor that gives type and device of the new layer if the old one has no tensors.

    Raises:
        ValueError: something of the old layer cannot be carried over.
    """
    where = repr(name) if name else "the layer"
    _refuse_unready(old, where)
    num_features, known = channels_of(old), dims_of(old)
    try:
        new = spec(num_features, dims=known or dims or 2)
    except ValueError as error:
        raise ValueError(f"{where} cannot be exchanged: {error}") from error
    if _alike(old, new):
        return old
    if isinstance(new, _BatchNorm) and getattr(old, "sync", False):
        new = BatchNorm(num_features)  # torch's batch norm would not synchronise
    _set_dims(new, known, dims)
    after = behind(old)
    if after is None:
        raise ValueError(
            f"{where}, a {type(old).__name__}, has a forward of its own, and convert and synchronize cannot tell what "
            "it does besides the norm: put that into a separate module behind the norm, or leave the layer out."
        )
    _refuse_lost_group(old, new, where)
    _carry_settings(old, new)
    _carry_tensors(old, new, where, like)
    if like is not None and not any(value is not None for value in tensors(old).values()):
        for module in after.values():
            module.to(like.device, like.dtype)
    _carry_children(old, new, after, where)
    _carry_attributes(old, new)
    return new


def _refuse_unready(old: nn.Module, where: str) -> None:
    if isinstance(old, LazyModuleMixin):
        raise ValueError(f"{where} has no channels yet: run a batch through the model first.")
    if not channels_of(old):
        raise ValueError(f"{where}, a {type(old).__name__}, is not a norm layer with a known number of channels.")
    for part in (old, *halves(old)):
        made = [key for key in ("weight", "bias") if isinstance(vars(part).get(key), Tensor)]
        if made or parametrize.is_parametrized(part):
            key = made[0] if made else next(iter(part.parametrizations))
            raise ValueError(
                f"the {key} of {where}, a {type(old).__name__}, is computed anew in each pass (a parametrization, "
                "pruning): make it a plain parameter first, as by parametrize.remove_parametrizations or prune.remove."
            )


def _refuse_lost_group(old: nn.Module, new: nn.Module, where: str) -> None:
    """Refuse a process group: torch's layers may synchronise over some processes, this library's use all."""
    ours = any(hasattr(part, "sync") for part in (new, *halves(new)))
    if ours and getattr(old, "process_group", None) is not None:
        raise ValueError(f"{where} synchronises over its own process group, which this library does not support.")


def halves(layer: nn.Module) -> tuple[nn.Module, ...]:
    """An IBN layer's two norms, in the order of their channels."""
    return tuple(getattr(layer, part) for part in layer.parts()) if isinstance(layer, IBN2d) else ()


def _alike(old: nn.Module, new: nn.Module) -> bool:
    """Whether a layer is of the wanted kind already, with the same settings."""
    if isinstance(old, BatchNorm) and old.sync and isinstance(new, _BatchNorm):
        return not isinstance(new, nn.SyncBatchNorm)
    if isinstance(old, _InstanceNorm) and old.running_mean is not None:  # ours cannot use averages in evaluation
        return type(new).__name__.startswith("InstanceNorm")
    settings = ["statistics", "groups", "num_groups", "ratio", "instance_first"]
    if isinstance(new, Norm) and vars(old).get("norm_name") != new.norm_name:  # two norms may share a class
        settings += _own_settings(new)
    return isinstance(old, type(new)) and all(getattr(old, s, None) == getattr(new, s, None) for s in settings)


def _own_settings(layer: Norm) -> list[str]:
    """Names of the attributes that hold a layer's own settings: numbers, texts and tuples."""
    known = SETTINGS | {"num_features", "training"}
    plain = (bool, int, float, str, tuple, type(None))
    return [key for key, v in vars(layer).items() if key not in known and key[0] != "_" and isinstance(v, plain)]


def _set_dims(new: nn.Module, known: int | None, dims: int | None) -> None:
    """Let the successor of a layer that accepts any number of dimensions (group norm) accept any, too."""
    if known is not None:
        new.dims = known
    elif isinstance(new, Norm) and not isinstance(new, IBN2d):
        new.ndims = Norm.ndims
    if known is None and dims is not None:
        new.dims = dims


def _carry_settings(old: nn.Module, new: nn.Module) -> None:
    source = old.BN if isinstance(old, IBN2d) else old
    for part in (new, *halves(new)):
        part.eps = eps_of(source)
        part.training = source.training
        if hasattr(part, "momentum") and hasattr(source, "momentum"):
            part.momentum = source.momentum
        if hasattr(part, "sync"):
            part.sync = isinstance(source, nn.SyncBatchNorm) or getattr(source, "sync", False)
        if hasattr(part, "track_running_stats") and _keeps_averages(source):
            part.track_running_stats = source.track_running_stats
    if isinstance(old, Norm) and isinstance(new, Norm):
        new.__dict__ |= {key: value for key, value in vars(old).items() if key in ("module_name", "generator")}
    if hasattr(old, "statistics") and hasattr(new, "statistics"):
        new.correction = old.correction


def _keeps_averages(layer: nn.Module) -> bool:
    """Whether `track_running_stats` is a setting of this kind of layer."""
    return isinstance(layer, (_BatchNorm, RunningStatistics)) and hasattr(layer, "track_running_stats")


# Tensors


def _carry_tensors(old: nn.Module, new: nn.Module, where: str, like: Tensor | None) -> None:
    held = _joined(old, where) if isinstance(old, IBN2d) else tensors(old)
    reference = next((value for value in held.values() if value is not None and value.is_floating_point()), like)
    if reference is not None:
        new.to(reference.device, reference.dtype)
    held = {key: value for key, value in held.items() if key not in gate_keys(old) or _means_the_same(key, old, new)}
    if not isinstance(new, IBN2d):
        _place(new, held, where)
        return
    for key in held.keys() & {"weight", "bias"}:
        _refuse_gradient_hooks(held[key], f"{where}.{key}")
    for part, rows in zip(halves(new), (slice(new.first), slice(new.first, None)), strict=True):
        share = {key: _rows(value, rows) if key in CHANNELWISE else value for key, value in held.items()}
        _place(part, share, where)


def _means_the_same(key: str, old: nn.Module, new: nn.Module) -> bool:
    """Whether the parameter `key` is a gate with the same labels in both layers."""
    meanings = (
        {gate.names for gate in layer.gates() if gate.parameter is layer._parameters.get(key)}
        for layer in (old, new)
        if isinstance(layer, Norm)
    )
    return len(set(map(frozenset, meanings))) == 1


def tensors(layer: nn.Module) -> dict[str, Tensor | None]:
    """A layer's parameters and buffers by name; None for those that its settings leave out."""
    held = layer._parameters | layer._buffers
    constant = layer._non_persistent_buffers_set & {"weight", "bias"}  # in our layers without affine parameters
    held = {key: None if key in constant else value for key, value in held.items()}
    without = set() if isinstance(layer, (_BatchNorm, RunningStatistics)) else {k for k in STATISTICS if k in held}
    return {key: value for key, value in held.items() if value is not None or key not in without}


def _place(new: nn.Module, held: dict[str, Tensor | None], where: str) -> None:
    """Give a layer the tensors for its parameters and buffers; repeated copies for parameters of a larger shape."""
    for key, value in held.items():
        own = new._parameters.get(key)
        if value is not None and own is not None and own.shape != value.shape:
            _repeat(value, own, f"{where}.{key}")
        elif key in new._buffers:
            new._buffers[key] = value
        elif key in new._parameters and value is None:
            _leave_out(new, key)
        elif key in new._parameters and value is not None:  # a plain tensor if the old layer is a frozen batch norm
            new._parameters[key] = value if isinstance(value, nn.Parameter) else nn.Parameter(value.clone(), False)


@torch.no_grad()
def _repeat(value: Tensor, own: nn.Parameter, what: str) -> None:
    """Fill a parameter of shape (domains, C), for example, with (C,) values."""
    if value.shape != own.shape[-value.dim() :]:
        raise ValueError(f"{what} is {tuple(value.shape)}, which no parameter of shape {tuple(own.shape)} can hold.")
    own.copy_(value.expand_as(own))
    own.requires_grad_(value.requires_grad)


def _leave_out(layer: nn.Module, key: str) -> None:
    """Remove a layer's weight or bias from its parameters and state dict."""
    value = layer._parameters.pop(key)
    if isinstance(layer, Norm) and value is not None:  # its formula needs a tensor
        layer.register_buffer(key, value.detach(), persistent=False)
    else:
        layer.register_parameter(key, None)
        layer.affine = layer.weight is not None or layer.bias is not None


def _rows(value: Tensor | None, rows: slice) -> Tensor | None:
    """A copy of some channels of a parameter or buffer, with gradient and attributes."""
    if value is None:
        return None
    part = value.detach()[rows].clone()
    if not isinstance(value, nn.Parameter):
        return part
    part = nn.Parameter(part, value.requires_grad)
    part.grad = None if value.grad is None else value.grad[rows].clone()
    part.__dict__ |= vars(value)
    return part


def _joined(ibn: IBN2d, where: str) -> dict[str, Tensor | None]:
    """The tensors of both halves of an IBN layer, joined; running averages of IN's channels are 0 and 1."""
    held = {}
    for key in ("weight", "bias"):
        parts: list[Any] = [tensors(half)[key] for half in halves(ibn)]
        for part in parts:
            _refuse_gradient_hooks(part, f"{where}.{key}")
        if len({(part is None, part is not None and part.requires_grad) for part in parts}) > 1:
            raise ValueError(
                f"{where}: the {key} of one half is trained and that of the other is not; one weight cannot be both."
            )
        held[key] = None if parts[0] is None else _together(parts)
    averages = tensors(ibn.BN)
    for key, fill in (("running_mean", 0.0), ("running_var", 1.0)):
        value = averages.get(key)
        held[key] = None
        if value is not None:
            never = value.new_full((ibn.IN.num_features,), fill)
            held[key] = torch.cat([never, value] if ibn.instance_first else [value, never])
    return held | {"num_batches_tracked": averages.get("num_batches_tracked")}


def _together(parts: list[nn.Parameter]) -> nn.Parameter:
    whole = nn.Parameter(torch.cat([part.detach() for part in parts]), parts[0].requires_grad)
    gradients = [part.grad for part in parts if part.grad is not None]
    if len(gradients) == len(parts):
        whole.grad = torch.cat(gradients)
    return whole


def _refuse_gradient_hooks(value: Tensor | None, what: str) -> None:
    if value is not None and (value._backward_hooks or getattr(value, "_post_accumulate_grad_hooks", None)):
        raise ValueError(f"{what} has gradient hooks, which a split or joined parameter could not keep.")


# Children, attributes and hooks


def _carry_children(old: nn.Module, new: nn.Module, after: dict[str, nn.Module], where: str) -> None:
    """Make the old layer's children the new one's, under the same names, so that checkpoints still fit."""
    kept = {name: child for name, child in old.named_children() if name not in of_its_kind(old)} | after
    for name, child in kept.items():
        if hasattr(new, name):
            raise ValueError(f"{where}: a {type(new).__name__} has {name!r} already, and cannot take the old layer's.")
        new.add_module(name, child)
    if after:
        new.register_forward_hook(partial(apply_behind, names=tuple(after)))


def _carry_attributes(old: nn.Module, new: nn.Module) -> None:
    """Carry over attributes, parameters and buffers that do not belong to the old layer's class."""
    used_names = SETTINGS | vars(new).keys() | set(dir(type(new))) | of_its_kind(old)
    for key, value in vars(old).items():
        if key not in used_names and "hook" not in key:
            vars(new)[key] = value
    known = CHANNELWISE | {*STATISTICS} | of_its_kind(old)
    for key, value in old._buffers.items():
        if key not in known:
            new.register_buffer(key, value, persistent=key not in old._non_persistent_buffers_set)
    for key, value in old._parameters.items():
        if key not in known:
            new.register_parameter(key, value)
    if vars(old).get("_compiled_call_impl") is not None:
        new.compile()


def of_its_kind(layer: nn.Module) -> set[str]:
    """Names of attributes, tensors and children that a `Norm` has because of its class; none for other layers."""
    if not isinstance(layer, Norm) or not is_known(layer):
        return set()
    own = gate_keys(layer)
    try:
        with torch.device("meta"):
            fresh = type(layer)(layer.num_features)
    except Exception:  # a class that needs more arguments may raise anything; then only its gates are known
        return own
    return own | vars(fresh).keys() | fresh._parameters.keys() | fresh._buffers.keys() | fresh._modules.keys()


def refuse_hooks_of_halves(old: nn.Module, name: str) -> None:
    for half in halves(old):
        if any(value for key, value in vars(half).items() if key.endswith("_hooks")):
            raise ValueError(f"a half of {name!r} has hooks, and its successor has no halves: remove them first.")


def hand_on_hooks(old: nn.Module, new: nn.Module) -> None:
    """Move a layer's hooks to its successor, in their order and after activations; handles can still remove them."""
    own = list(new._forward_hooks.items())  # run the activation behind the norm, as part of the layer
    for key in [key for key in vars(old) if key.endswith(("_hooks", "_hooks_with_kwargs", "_hooks_always_called"))]:
        moved, vars(old)[key] = vars(old)[key], vars(old)[key].copy()
        vars(new)[key] = moved  # handles refer to this very dict
    for number, hook in list(new._forward_hooks.items()):
        if getattr(hook, "func", None) is apply_behind:
            del new._forward_hooks[number]
    for number, hook in reversed(own):
        new._forward_hooks[number] = hook
        new._forward_hooks.move_to_end(number, last=False)
    new._is_full_backward_hook = old._is_full_backward_hook
    for number, hook in new._load_state_dict_pre_hooks.items():
        if isinstance(hook, _WrappedHook) and hook.with_module:
            new._load_state_dict_pre_hooks[number] = _WrappedHook(hook.hook, new)
