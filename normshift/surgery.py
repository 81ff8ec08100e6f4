"""Exchanging the norm layers of a network that somebody else wrote, weights carried over."""

import copy
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from functools import partial

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from normshift import ibn_net
from normshift.layers import BatchNorm, IBN2d, Norm, RunningStatistics
from normshift.record import GATES, channels_of, layer_record, state_for
from normshift.registry import norm_spec
from normshift.running_statistics import BatchNormView

Where = str | Iterable[str] | Callable[[str, nn.Module], bool] | None


def convert(model: nn.Module, norm: str, *, where: Where = None, inplace: bool = True) -> nn.Module:
    """Give a network another normalization.

    Weights, biases, running statistics, eps, momentum, training mode, `requires_grad`, device and dtype are carried
    over wherever the new layer has the like, so that `convert(model, "bn")` of a batch-norm network changes nothing and
    a zero gamma in a block's last norm stays zero. What a new layer has of its own (gates) starts at its default.
    An activation fused into the old layer (timm's `BatchNormAct2d`) is kept behind the new one.

    Args:
        model: any network with batch, instance or group norm layers, or layers of this library.
        norm: a name in `NORMS`. "ibn-a" and "ibn-b" place their layers as IBN-Net does (Pan et al., ECCV 2018, fig. 3)
            in residual networks whose stages are called layer1, layer2, ... (torchvision's, timm's, smp's encoders)
            and, ibn-a alone, in DenseNets.
        where: which layers, as shell patterns of module names ("layer1.*.bn2") or as a function of name and module.
            By default all of them, or those of IBN-Net's scheme. "ibn-b" puts an instance norm in place of a chosen
            norm layer, and behind the addition in a chosen residual block.
        inplace: change `model` itself; otherwise a deep copy.

    Returns:
        The network; a new layer where `model` is itself a norm layer.

    Raises:
        ValueError: on an unknown name, where nothing matches, or where IBN-Net's scheme does not know the network.
    """
    spec = norm_spec(norm)
    model = model if inplace else copy.deepcopy(model)
    norms = norm_layers(model)
    if spec.placement == "everywhere" or where is not None:
        blocks = {n: m for n, m in model.named_modules() if ibn_net.has_addition(m)} if norm == "ibn-b" else {}
        chosen = _chosen(model, norms | blocks, where)
        plan = ibn_net.Placement({n: spec for n in chosen if n in norms}, [n for n in chosen if n in blocks])
    else:
        plan = ibn_net.placement(model, norm, norms)
    model = _replace_all(model, plan.layers)
    for name in plan.blocks:
        ibn_net.normalize_sum(model, name)
    return model


def norm_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Every norm layer that `convert` can replace, by module name, in the network's own order."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        half_of_ibn = bool(name) and isinstance(model.get_submodule(name.rpartition(".")[0]), IBN2d)
        if _is_norm(module) and not half_of_ibn:
            found[name] = module
    return found


def synchronize(model: nn.Module) -> nn.Module:
    """Take batch statistics over all processes, with gradients, on GPUs and CPUs alike.

    Sets `sync` on this library's layers. torch's batch norms become `normshift.layers.BatchNorm`, under the same key
    names, because torch's own `nn.SyncBatchNorm` runs on GPUs only; where that is in place already, it stays. Without
    a process group nothing changes.
    """
    layers = norm_layers(model).items()
    plain = [n for n, layer in layers if isinstance(layer, _BatchNorm) and not isinstance(layer, nn.SyncBatchNorm)]
    model = _replace_all(model, {name: _batch_norm for name in plain})
    for module in model.modules():
        if isinstance(module, RunningStatistics):
            module.sync = True
    return model


def _batch_norm(num_features: int, dims: int) -> BatchNorm:
    return BatchNorm(num_features)


def _is_norm(module: nn.Module) -> bool:
    if isinstance(module, BatchNormView):  # of a layer that is listed itself
        return False
    if isinstance(module, (_NormBase, nn.GroupNorm, Norm)):
        return True
    return type(module).__name__.startswith("FrozenBatchNorm")  # torchvision's and timm's derive from nn.Module alone


def _chosen(model: nn.Module, candidates: dict[str, nn.Module], where: Where) -> list[str]:
    if not candidates:
        raise ValueError(f"{type(model).__name__} has no batch, instance or group norm layer that could be converted.")
    if where is None:
        return list(candidates)
    if callable(where):  # a function may well choose none
        return [name for name, module in candidates.items() if where(name, module)]
    patterns = [where] if isinstance(where, str) else list(where)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in candidates):
            shown = ", ".join(list(candidates)[:8])
            raise ValueError(f"where={pattern!r} matches none of the {len(candidates)} norm layers ({shown}, ...).")
    return [name for name in candidates if any(fnmatchcase(name, pattern) for pattern in patterns)]


def _replace_all(model: nn.Module, chosen: dict) -> nn.Module:
    """Replace the named layers; one that stands in several places is replaced by one new layer in all of them."""
    replaced: dict[int, nn.Module] = {}
    for name, spec in chosen.items():
        old = model.get_submodule(name)
        if id(old) not in replaced:
            replaced[id(old)] = successor(old, spec, name)
        if not name:
            return replaced[id(old)]
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, replaced[id(old)])
    return model


def successor(old: nn.Module, spec: Callable[..., nn.Module], name: str = "") -> nn.Module:
    """A layer made by `spec(num_features, dims)` that takes over what `old` has learned and how it is set."""
    num_features = channels_of(old)
    if not num_features:
        raise ValueError(f"{name or type(old).__name__} has no channels yet: run a batch through the model first.")
    dims = _dims(old)
    new = spec(num_features, dims=dims)
    if _alike(old, new):
        return old
    new.dims = dims  # group norm and the like do not tell, and may be converted again
    _carry_settings(old, new)
    learned = layer_record(old)
    source = next((value for value in learned.values() if value.is_floating_point()), None)
    if source is not None:
        new.to(source.device, source.dtype)
    if getattr(old, "statistics", None) != getattr(new, "statistics", None):
        # gates over other statistics mean nothing here
        learned = {key: value for key, value in learned.items() if key not in GATES}
    new.load_state_dict(state_for(new, learned), strict=False)
    _keep_fused(old, new)
    return new.train(old.training)


def _alike(old: nn.Module, new: nn.Module) -> bool:
    """Whether a layer already is what it would become."""
    settings = ("statistics", "groups", "num_groups", "ratio", "instance_first")
    return isinstance(old, type(new)) and all(getattr(old, s, None) == getattr(new, s, None) for s in settings)


def _dims(layer: nn.Module) -> int:
    """Spatial dimensions that a layer is for; 2 where it does not say."""
    if hasattr(layer, "dims"):
        return layer.dims
    if isinstance(layer, Norm):
        return {(2, 3): 1, (4,): 2, (5,): 3}.get(layer.ndims, 2)
    for base in type(layer).__mro__:
        if base.__name__[-2:] in ("1d", "2d", "3d"):
            return int(base.__name__[-2])
    return 2


def _carry_settings(old: nn.Module, new: nn.Module) -> None:
    old = old.BN if isinstance(old, IBN2d) else old
    for part in (new, new.IN, new.BN) if isinstance(new, IBN2d) else (new,):
        part.eps = old.eps
        if hasattr(part, "momentum") and getattr(old, "momentum", None) is not None:
            part.momentum = old.momentum
        if hasattr(part, "sync"):
            part.sync = isinstance(old, nn.SyncBatchNorm) or getattr(old, "sync", False)
        for key in {"weight", "bias"} & dict(part.named_parameters()).keys():
            before = getattr(old, key, None)
            getattr(part, key).requires_grad_(isinstance(before, nn.Parameter) and before.requires_grad)


def _keep_fused(old: nn.Module, new: nn.Module) -> None:
    """Keep what is fused behind a norm: timm's `BatchNormAct2d` holds its dropout and activation as children.

    As children again and not in a wrapper, so that the network's key names, and with them its checkpoints, stay valid.
    """
    fused = {name: child for name, child in old.named_children() if not isinstance(child, Norm)}
    for name, child in fused.items():
        new.add_module(name, child)
    if fused:
        new.register_forward_hook(partial(_apply_fused, names=tuple(fused)))


def _apply_fused(layer: nn.Module, inputs: tuple, output: Tensor, names: tuple[str, ...]) -> Tensor:
    for name in names:
        output = layer.get_submodule(name)(output)
    return output
