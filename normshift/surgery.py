"""Replacing the norm layers of any network; weights, statistics and settings are carried over."""

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

_apply_fused = apply_behind  # pickles of whole networks by early versions have this name
Where = str | Iterable[str] | Callable[[str, nn.Module], bool] | None


def convert(model: nn.Module, norm: str, *, where: Where = None, inplace: bool = True) -> nn.Module:
    """Replace a network's norm layers by layers of another norm.

    The new layer gets everything that the old one has: parameters (with gradients, hooks, ties and `requires_grad`),
    running statistics, eps, momentum (also None), modes, missing weights or averages, types, devices, hooks, child
    modules, attributes and buffers that were added to it, and synchronisation. If both layers have a parameter, it is
    the same object in both. What an old layer's forward does after its norm (timm's `BatchNormAct2d`, a user's own
    subclass) runs after the new norm. Thus `convert(model, "bn")` does not change a batch-norm network, BIN starts as
    the batch norm that it replaces, and a zero gamma in a block's last norm stays zero. Parameters that only the new
    layer has, such as gates, get their initial values.

    If something cannot be carried over, `convert` raises an error and the network is unchanged. A layer with several
    names in the network is replaced under all of them by one layer. IBN layers split the parameters of the layer that
    they replace, so create optimisers after the conversion.

    A frozen batch norm's successor uses and updates batch statistics in training; its weight and bias stay frozen.
    Inputs need a batch axis, also where torch's instance norms accept a single image without one.

    Args:
        model: any network with batch, instance or group norm layers, or layers of this library.
        norm: a name in `NORMS`. "ibn-a" and "ibn-b" replace the layers that IBN-Net replaces (Pan et al., ECCV 2018,
            fig. 3), in residual networks whose stages are called layer1, layer2, ... (torchvision's, timm's, smp's
            encoders) and, with ibn-a only, in DenseNets.
        where: which layers to replace: shell patterns of module names ("layer1.*.bn2"), or a function of name and
            module. By default all, or those of IBN-Net's scheme. With "ibn-b", an instance norm replaces a chosen norm
            layer and follows the addition of a chosen residual block.
        inplace: change `model` itself; otherwise a deep copy.

    Returns:
        The network; a new layer if `model` is itself a norm layer.

    Raises:
        ValueError: the name is unknown, `where` matches nothing, IBN-Net's scheme does not fit the network, or
            something of a layer, which the message names, cannot be carried over: a forward of its own that does more
            than process the norm's output, a parametrization or pruning mask, a lazy layer, a weight that is shared
            with another layer (IBN only), TorchScript, a reference in a plain list of the network, a forward that
            reads the layer's tensors instead of calling it, `DistributedDataParallel` around new parameters.
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
        plan = ibn_net.placement(model, spec, norms)
    for name in plan.blocks:
        ibn_net.check_sum(model, name)  # before anything is changed
    model = exchange(model, plan.layers)
    for name in plan.blocks:
        ibn_net.normalize_sum(model, name, spec)
    return model


def norm_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Every norm layer that `convert` can replace, by module name, in the network's order."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        part = bool(name) and isinstance(model.get_submodule(name.rpartition(".")[0]), (IBN2d, OwnForward))
        if _is_norm(module) and not part:
            found[name] = module
    return found


def name_layers(model: nn.Module) -> nn.Module:
    """Set the name of every layer of this library to its module name, for formulas that use `Norm.context().name`."""
    for name, layer in norm_layers(model).items():
        if isinstance(layer, Norm):
            layer.module_name = name
    return model


def synchronize(model: nn.Module, *, inplace: bool = True) -> nn.Module:
    """Pool batch statistics over all processes, with gradients, on GPUs and CPUs.

    Sets `sync` of this library's layers. torch's batch norms become `normshift.layers.BatchNorm` with the same key
    names, because torch's `nn.SyncBatchNorm` runs on GPUs only. Layers that are an `nn.SyncBatchNorm` already, and
    frozen batch norms, stay. Everything that a layer has is carried over, as in `convert`. Without a process group the
    network computes the same as before.

    Args:
        model: any network.
        inplace: change `model` itself; otherwise a deep copy.

    Returns:
        The network; a new layer if `model` is itself a batch norm of torch.

    Raises:
        ValueError: something of a layer cannot be carried over; the network is unchanged.
    """
    refuse_scripts(model, "synchronize", ("BatchNorm",))
    model = model if inplace else copy.deepcopy(model)
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
    if isinstance(module, BatchNormView):  # its layer is listed already
        return False
    if isinstance(module, (_NormBase, nn.GroupNorm, Norm)):
        return True
    return type(module).__name__.startswith("FrozenBatchNorm")  # torchvision's and timm's derive from nn.Module alone


def _chosen(model: nn.Module, candidates: dict[str, nn.Module], where: Where) -> list[str]:
    if not candidates:
        raise ValueError(f"{type(model).__name__} has no batch, instance or group norm layer that could be converted.")
    if where is None:
        return list(candidates)
    if callable(where):  # unlike patterns, a function may choose no layer
        return [name for name, module in candidates.items() if where(name, module)]
    patterns = [where] if isinstance(where, str) else list(where)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in candidates):
            shown = ", ".join(list(candidates)[:8])
            raise ValueError(f"where={pattern!r} matches none of the {len(candidates)} norm layers ({shown}, ...).")
    return [name for name in candidates if any(fnmatchcase(name, pattern) for pattern in patterns)]


def exchange(model: nn.Module, chosen: dict[str, Callable[..., nn.Module]]) -> nn.Module:
    """Replace the named layers, under all names that they have in the network; all of them, or none on an error.

    Args:
        model: changed in place.
        chosen: module name -> a callable that creates the new layer, `spec(num_features, dims=...)`.

    Returns:
        `model`; the new layer if `model` is itself the layer.

    Raises:
        ValueError: something of a layer cannot be carried over.
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
