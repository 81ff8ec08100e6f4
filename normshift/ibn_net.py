"""Where IBN-Net has its layers (Pan, Luo, Shi, Tang, ECCV 2018, fig. 3 and section 3.2).

IBN-a: the first norm of every residual block of stages 1 to 3 becomes half IN, half BN. In DenseNets, norm1 of every
third dense layer (the 1st, 4th, 7th, ...) of the first three blocks has IN on the last 40 % of its channels.

IBN-b: the stem's norms become IN, and the last block of stages 1 and 2 gets an IN between addition and activation.

Stage 4 stays as it is, because deep features represent content.
"""

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import fx, nn

from normshift.layers import IBN2d
from normshift.record import channels_of
from normshift.registry import NORMS, NormSpec

LayerFactory = Callable[..., nn.Module]


@dataclass(frozen=True)
class Placement:
    """What a scheme changes in a network."""

    layers: dict[str, LayerFactory]  # name of a norm layer -> constructor of its successor
    blocks: list[str] = field(default_factory=list)  # residual blocks that get an instance norm behind the addition


@dataclass(frozen=True)
class ResidualNetwork:
    """The parts of a residual network, by module name."""

    stem: list[str]  # children before the first stage
    stages: list[list[str]]  # the blocks of layer1, layer2, ...


def placement(model: nn.Module, spec: NormSpec, norms: Iterable[str]) -> Placement:
    """What IBN-Net's scheme changes in a network, whose structure is recognised by the names of its modules.

    Args:
        spec: the norm to place; `spec.placement` is the scheme.
        norms: names of the network's norm layers.

    Raises:
        ValueError: the network is neither residual nor (for "ibn-a") a DenseNet.
    """
    scheme, norms = spec.placement, list(norms)
    residual = _residual_network(model)
    if residual and scheme == "ibn-a":
        return Placement({f"{block}.bn1": spec for stage in residual.stages[:3] for block in stage})
    if residual:
        stem = [name for name in norms if any(name == part or name.startswith(part + ".") for part in residual.stem)]
        return Placement({name: spec for name in stem}, [stage[-1] for stage in residual.stages[:2]])
    dense = [f"{name}.norm1" for name in _dense_layers(model)]
    if dense and scheme == "ibn-a":
        return Placement({name: _four_tenths if spec is NORMS["ibn-a"] else spec for name in dense})
    known = "residual networks (layer1, layer2, ... of blocks with bn1)"
    known += " and DenseNets" if scheme == "ibn-a" else ""
    here = f"{', '.join(norms[:6]) or 'none'}{', ...' if norms[6:] else ''}"
    raise ValueError(
        f"{scheme} does not know where instance norm belongs in {type(model).__name__}: it knows {known}. "
        f"Choose layers yourself with where=[...]; the norm layers here are {here}."
    )


def _residual_network(model: nn.Module) -> ResidualNetwork | None:
    for prefix, owner in model.named_modules():
        children = dict(owner.named_children())
        stages = [name for name in ("layer1", "layer2", "layer3", "layer4") if name in children]
        if len(stages) < 2 or not all(hasattr(block, "bn1") for s in stages for block in children[s].children()):
            continue
        at = f"{prefix}." if prefix else ""
        names = list(children)
        return ResidualNetwork(
            stem=[at + name for name in names[: names.index(stages[0])]],
            stages=[[f"{at}{s}.{index}" for index, _ in children[s].named_children()] for s in stages],
        )
    return None


def _dense_layers(model: nn.Module) -> list[str]:
    """Names of every third dense layer, from the first, of each of the first three blocks."""
    three = ("denseblock1", "denseblock2", "denseblock3")
    blocks = [(name, module) for name, module in model.named_modules() if name.rpartition(".")[2] in three]
    inside = [[f"{at}.{name}" for name, m in block.named_modules() if _is_dense_layer(m)] for at, block in blocks]
    return [name for layers in inside for name in layers[::3]]


def _is_dense_layer(module: nn.Module) -> bool:
    return hasattr(module, "norm1") and hasattr(module, "conv1")


def _four_tenths(num_features: int, dims: int = 2) -> IBN2d:
    return IBN2d(num_features, ratio=0.4, instance_first=False)  # as in the published DenseNets


class _BlockTracer(fx.Tracer):
    """Traces one block's forward; every module that it calls is one node."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return True


_ADDITIONS = (operator.add, operator.iadd, torch.add)


def has_addition(block: nn.Module) -> bool:
    """Whether `normalize_sum` can change a module: it has a norm or conv of its own, and an addition in `forward`."""
    if not any(isinstance(getattr(block, key, None), nn.Module) for key in ("bn1", "norm1", "conv1")):
        return False
    try:
        return bool(_additions(_BlockTracer().trace(block)))
    except Exception:  # a forward that torch.fx cannot trace may raise anything
        return False


def _additions(graph: fx.Graph) -> list[fx.Node]:
    return [n for n in graph.nodes if n.target in _ADDITIONS or (n.op == "call_method" and n.target in ("add", "add_"))]


def normalize_sum(model: nn.Module, name: str, spec: LayerFactory) -> None:
    """Add a norm (IBN-b: an instance norm) behind the last addition of the residual block `name`, as its child `IN`.

    The block's forward is traced and rewritten, so this works for torchvision's and timm's blocks, basic and
    bottleneck, with or without SE. The block's other children keep their names. A block with a child `IN` is unchanged.
    """
    block = model.get_submodule(name)
    if hasattr(block, "IN"):
        return
    graph, total, last_norm = _sum_of(block, name)
    convs = [m for m in block.children() if isinstance(m, nn.Conv2d)]  # in pre-activation blocks a norm comes first
    channels = convs[-1].out_channels if convs else channels_of(last_norm)
    block.IN = _like(last_norm, spec(channels))
    with graph.inserting_after(total):
        normalized = graph.call_module("IN", (total,))
    total.replace_all_uses_with(normalized, delete_user_cb=lambda user: user is not normalized)
    new = _rewritten(block, graph)
    for owner in list(model.modules()):  # a block may have several parents
        for leaf in [leaf for leaf, child in owner._modules.items() if child is block]:
            setattr(owner, leaf, new)


def check_sum(model: nn.Module, name: str) -> None:
    """Raise a ValueError if `normalize_sum` cannot rewrite this block, or would change more than the sum."""
    block = model.get_submodule(name)
    if not name:
        raise ValueError("ibn-b changes blocks inside of a network, and this network is itself the block.")
    if not hasattr(block, "IN"):
        _sum_of(block, name)


def _sum_of(block: nn.Module, name: str) -> tuple[fx.Graph, fx.Node, nn.Module]:
    """A block's graph, its last addition, and its last norm."""
    where = f"{name!r}, a {type(block).__name__}"
    if "forward" in vars(block):
        raise ValueError(f"ibn-b cannot change {where}: its forward was replaced on this one object.")
    if not any(channels_of(m) and hasattr(m, "eps") for m in block.children()):
        raise ValueError(f"ibn-b cannot change {where}: none of its children is a norm layer.")
    modes = {id(m): m.training for m in block.modules()}
    codes = {}
    try:
        for training in (not block.training, block.training):
            block.train(training)
            graph = _BlockTracer().trace(block)
            codes[training] = graph.python_code("self").src
    except Exception as error:  # a forward that is traced without data may raise anything
        raise ValueError(f"ibn-b cannot follow the forward of {where}: {error}.") from error
    finally:
        for module in block.modules():
            module.training = modes[id(module)]
    if codes[True] != codes[False]:
        raise ValueError(f"ibn-b cannot change {where}: its forward differs between training and evaluation.")
    if not _additions(graph):
        raise ValueError(f"ibn-b cannot change {where}: it finds no addition in its forward.")
    last_norm = [m for m in block.children() if channels_of(m) and hasattr(m, "eps")][-1]
    return graph, _additions(graph)[-1], last_norm


def _rewritten(block: nn.Module, graph: fx.Graph) -> fx.GraphModule:
    """The block with `graph` as its forward, and its hooks and attributes."""
    new = fx.GraphModule(block, graph, type(block).__name__)
    for key, value in block.__dict__.items():
        if "hooks" in key or key not in new.__dict__:
            new.__dict__[key] = value
    return new


def _like(norm: nn.Module, new: nn.Module) -> nn.Module:
    new.eps = norm.eps
    reference = next((t for t in (*norm.parameters(), *norm.buffers()) if t.is_floating_point()), None)
    if reference is not None:
        new.to(reference.device, reference.dtype)
    return new.train(norm.training)
