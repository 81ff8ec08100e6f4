"""Exchanging the norm layers of any network; what they have learned is carried over."""

import copy
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from normshift import ibn_net
from normshift.exchange.norm_places import NetworkOfNorms, refuse_scripts
from normshift.exchange.own_forward import OwnForward, apply_behind
from normshift.exchange.succession import hand_on_hooks, successor
from normshift.layers import BatchNorm, IBN2d, Norm, RunningStatistics
from normshift.registry import norm_spec
from normshift.running_statistics import BatchNormView

_apply_fused = apply_behind  # its name in networks that were saved whole, hooks and all
Where = str | Iterable[str] | Callable[[str, nn.Module], bool] | None


def convert(model: nn.Module, norm: str, *, where: Where = None, inplace: bool = True) -> nn.Module:
    """Give a network another normalization.

    All that a layer has comes along, as the very objects where the new layer has the like: parameters (with gradients,
    hooks, ties and `requires_grad`), running statistics, eps, momentum (None, too), modes, absent weights or averages,
    types, devices, hooks, child modules, attributes and buffers that were added to it, and the processes that it
    synchronises with. What its forward adds behind the norm (timm's `BatchNormAct2d`, a user's own subclass) runs
    behind the new one. So `convert(model, "bn")` of a batch-norm network changes nothing, BIN starts as the batch norm
    that it replaces, and a zero gamma in a block's last norm stays zero. What a new layer has of its own (gates) starts
    at its default. What cannot be carried over is refused, and then the network is as it was. A layer that stands in
    several places is one layer in all of them afterwards. IBN's halves are new parameters: make optimisers behind it.

    A frozen batch norm's successor follows the batches in training; weight and bias stay frozen. Inputs have a batch
    axis: torch's instance norms take one image without, these do not.

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
        ValueError: on an unknown name, where nothing matches, where IBN-Net's scheme does not know the network, or
            naming the layer and what of it cannot be carried over: a forward of its own that does more than add to the
            norm's output, a parametrization or pruning mask, a lazy layer, a weight that an IBN layer would have to
            share, TorchScript, a list that holds the layer beside the network, a forward that uses its numbers by hand,
            `DistributedDataParallel` around new parameters.
    """
    spec = norm_spec(norm)
    refuse_scripts(model, "convert", ("BatchNorm", "InstanceNorm", "GroupNorm", "SwitchNorm", "IBN"))
    model = model if inplace else copy.deepcopy(model)
    norms = norm_layers(model)
    if spec.placement == "everywhere" or where is not None:
        blocks = (
            {n: m for n, m in model.named_modules() if ibn_net.has_addition(m)} if spec.placement == "ibn-b" else {}
        )
        chosen = _chosen(model, norms | blocks, where)
        plan = ibn_net.Placement({n: spec for n in chosen if n in norms}, [n for n in chosen if n in blocks])
    else:
        plan = ibn_net.placement(model, spec.placement, norms)
    for name in plan.blocks:
        ibn_net.check_sum(model, name)  # before anything is changed
    model = exchange(model, plan.layers)
    for name in plan.blocks:
        ibn_net.normalize_sum(model, name)
    return model


def norm_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Every norm layer that `convert` can replace, by module name, in the network's own order."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        part = bool(name) and isinstance(model.get_submodule(name.rpartition(".")[0]), (IBN2d, OwnForward))
        if _is_norm(module) and not part:
            found[name] = module
    return found


def name_layers(model: nn.Module) -> nn.Module:
    """Tell every layer of this library its name in the network, for formulas that ask (`Norm.context().name`)."""
    for name, layer in norm_layers(model).items():
        if isinstance(layer, Norm):
            layer.module_name = name
    return model


def synchronize(model: nn.Module) -> nn.Module:
    """Take batch statistics over all processes, with gradients, on GPUs and CPUs alike.

    Sets `sync` on this library's layers. torch's batch norms become `normshift.layers.BatchNorm`, under the same key
    names, because torch's own `nn.SyncBatchNorm` runs on GPUs only; where that is in place already, it stays. Frozen
    batch norms stay, too. Without a process group nothing changes: all that a layer has comes along, as in `convert`.

    Raises:
        ValueError: naming the layer and what of it cannot be carried over; the network is as it was.
    """
    refuse_scripts(model, "synchronize", ("BatchNorm",))
    layers = norm_layers(model).items()
    plain = [n for n, layer in layers if isinstance(layer, _BatchNorm) and not isinstance(layer, nn.SyncBatchNorm)]
    model = exchange(model, {name: _batch_norm for name in plain})
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


# Carrying it out


def exchange(model: nn.Module, chosen: dict[str, Callable[..., nn.Module]]) -> nn.Module:
    """Replace the named layers by successors, each wherever it stands; all of them, or none and a ValueError.

    Args:
        model: changed in place.
        chosen: module name -> what makes the new layer, `spec(num_features, dims=...)`.

    Returns:
        `model`; the new layer where `model` is itself the layer.
    """
    network = NetworkOfNorms(model)
    pairs: dict[int, tuple[nn.Module, nn.Module]] = {}
    for name, spec in chosen.items():
        old = model.get_submodule(name)
        if id(old) not in pairs:
            new = successor(old, spec, name, dims=network.dims, like=network.tensor_near(name))
            network.refuse(name, old, new)
            pairs[id(old)] = old, new
    pairs = {key: (old, new) for key, (old, new) in pairs.items() if new is not old}
    for owner in list(model.modules()):
        for leaf, child in list(owner._modules.items()):
            if id(child) in pairs:
                setattr(owner, leaf, pairs[id(child)][1])
    for old, new in pairs.values():
        hand_on_hooks(old, new)
    return pairs[id(model)][1] if id(model) in pairs else model
