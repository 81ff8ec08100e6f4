"""Anti-aliasing of CNNs (Zhang, "Making Convolutional Networks Shift-Invariant Again", ICML 2019, section 3.2).

    max pool, stride s           ->  max pool, stride 1; blur, stride s
    conv, norm, act; stride s    ->  conv, stride 1; norm; act; blur, stride s
    average pool, stride s       ->  blur, stride s
    1x1 conv of a shortcut       ->  blur, stride s; conv, stride 1

The max pool in a ResNet's stem (3x3, stride 2, padded) becomes a 2x2 pool of stride 1 without padding, then the blur.
The paper describes a 3x3 pool, but the released ResNets, ResNeXts and wide ResNets, whose accuracies the paper's page
gives, were all trained with 2x2, by mistake, as the author has said. `stem_pool=3` is the paper's version.

The network's first conv sees the image at full resolution, where stride 1 would cost most. As in the paper's ResNets,
DenseNets and MobileNetV2, it keeps a stride of 2. AlexNet's stride of 4 becomes 2, and a blur of stride 2 follows the
activation. Adaptive and global pooling stay.

There is no list of architectures. Pools are recognised by their class. For a strided conv, torch.fx traces the forward
of the module that calls it, with that module's children as black boxes; the graph shows what follows the conv, up to
the activation. A blur behind a conv becomes a child of a neighbouring module and runs in a hook of that module. So no
module changes its name, and state dicts have the keys of the plain network.
"""

import copy
import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from normshift.blur_pool import BlurPool2d, MaxBlurPool2d
from normshift.exchange.norm_places import held_in_attributes, refuse_scripts
from normshift.exchange.own_forward import OwnForward, behind, copy_on_cpu
from normshift.surgery import norm_layers

STRIDED = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
UPSAMPLING = (nn.modules.conv._ConvTransposeNd, nn.MaxUnpool1d, nn.MaxUnpool2d, nn.MaxUnpool3d, nn.Fold)
POOLING_FUNCTIONS = {"max_pool2d", "avg_pool2d", "lp_pool2d", "fractional_max_pool2d", "pixel_unshuffle"}
ACTIVATION_FUNCTIONS = {
    "relu", "relu6", "leaky_relu", "prelu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish", "hardtanh",
    "hardsigmoid", "sigmoid", "tanh", "softplus", "softsign", "clamp",
}  # fmt: skip
DROPOUT_FUNCTIONS = {"dropout", "dropout1d", "dropout2d", "feature_dropout", "alpha_dropout"}


STEM_POOLS = (2, 3)


def antialias(model: nn.Module, filter_size: int = 4, *, stem_pool: int = 2, inplace: bool = True) -> nn.Module:
    """Anti-alias every layer with which a network subsamples (Zhang, ICML 2019); see the module's docstring.

    Weights and state-dict keys stay, so checkpoints of the plain network load before and after. Feature maps keep their
    size, except that the 2x2 pool in a ResNet's stem rounds odd sizes down. `antialias`, `convert` and `load_official`
    can be combined in any order.

    Strided `nn.Conv2d`, `nn.MaxPool2d`, `nn.AvgPool2d` and their subclasses are anti-aliased. A network that subsamples
    in another way is refused where this can be detected. Strided slicing inside a function that torch.fx does not trace
    (a shortcut written as a lambda) cannot be detected.

    Args:
        model: a CNN for images. The first conv that it registers counts as its stem.
        filter_size: size of the blur filters, 1 to 7.
        stem_pool: kernel of the max pool in a ResNet's stem: 2, without padding, as in the released networks, or 3,
            padded, as in the paper and in networks trained with early versions of this library. A state dict does not
            say which. Other networks' pools are not affected.
        inplace: change `model` itself; otherwise a deep copy.

    Returns:
        The network; a new layer if `model` is itself a pool.

    Raises:
        ValueError: the network is anti-aliased already, does not subsample, or subsamples in an unsupported way (a
            layer whose own forward ignores its stride, TorchScript, a pool that a plain list holds as well). The
            message names the module, and the network is unchanged.
    """
    BlurPool2d(None, filter_size)  # refuses a wrong size before anything is changed
    if stem_pool not in STEM_POOLS:
        raise ValueError(f"stem_pool is 2 (as released) or 3 (the paper's), got {stem_pool!r}.")
    model = model if inplace else copy.deepcopy(model)
    if _confirmed(model, filter_size):
        set_stem_pool(model, stem_pool)
        return model
    refuse_scripts(model, "antialias", ("Conv2d", "MaxPool2d", "AvgPool2d"))
    _refuse_unknown(model)
    flow = _Flow(model)
    plan = [step for name, module in flow.modules.items() for step in _steps(flow, name, module)]
    if not plan:
        raise ValueError(f"{type(model).__name__} has nothing to anti-alias: behind its first conv nothing is strided.")
    for step in plan:
        model = step(model, filter_size)
    set_stem_pool(model, stem_pool)
    return model


def set_stem_pool(model: nn.Module, kernel: int) -> None:
    """Set the kernel of the max pools in the stems of anti-aliased ResNets: 2, unpadded, or 3, padded."""
    for module in model.modules():
        if not all(hasattr(module, name) for name in ("conv1", "maxpool", "layer1")):
            continue
        if isinstance(module.maxpool, MaxBlurPool2d) and (module.maxpool.as_released or _is_3x3(module.maxpool.pool)):
            pool, module.maxpool.as_released = module.maxpool.pool, kernel == 2
            pool.kernel_size, pool.padding = kernel, (kernel - 1) // 2


def _is_3x3(pool: nn.MaxPool2d) -> bool:
    """Whether a pool has the settings of a plain ResNet's stem."""
    settings = _pair(pool.kernel_size), _pair(pool.padding), _pair(pool.dilation), pool.ceil_mode
    return settings == ((3, 3), (1, 1), (1, 1), False)


def _confirmed(model: nn.Module, filter_size: int) -> bool:
    """Whether `load_official` has anti-aliased the network with this filter size; if so, accept this first call."""
    blurs = [module for module in model.modules() if isinstance(module, BlurPool2d)]
    if not blurs or not all(blur.from_checkpoint and blur.filter_size == filter_size for blur in blurs):
        return False
    for blur in blurs:
        blur.from_checkpoint = False
    return True


Step = Callable[[nn.Module, int], nn.Module]
"""One change of a network: takes the network and the filter size, returns the network."""


def _steps(flow: "_Flow", name: str, module: nn.Module) -> Iterator[Step]:
    if not isinstance(module, STRIDED) or max(_stride(module)) == 1:
        return
    _refuse_own_forward(name, module)
    if not isinstance(module, nn.Conv2d) and id(module) in flow.held:
        raise ValueError(
            f"antialias cannot replace {name!r}: it is also held in {flow.held[id(module)]}, outside of the network's "
            "modules, where it would stay the old pool."
        )
    if isinstance(module, nn.MaxPool2d):
        yield partial(_replace, old=module, make=_max_blur(name, module))
    elif isinstance(module, nn.AvgPool2d):
        yield partial(_replace, old=module, make=_average_blur(name, module))
    else:
        kept = (2, 2) if module is flow.stem else (1, 1)
        if module is flow.stem and not {_stride(module)} <= {(2, 2), (4, 4)}:
            raise ValueError(f"antialias supports first convs of stride 1, 2 and 4; {name!r} has {module.stride}.")
        if _stride(module) != kept:
            yield partial(_make_dense, conv=module, kept=kept, position=flow.position(name, module))


# Applying the changes


@dataclass(frozen=True)
class _BlurPosition:
    """A blur goes before or behind this module; the maps there have so many channels."""

    module: nn.Module
    behind: bool
    channels: int


def _replace(model: nn.Module, filter_size: int, old: nn.Module, make: Callable[[int], nn.Module]) -> nn.Module:
    """Replace a pool by one that blurs, wherever the network has it; the new pool keeps the hooks of the old one."""
    hooks = {key: value for key, value in old.__dict__.items() if "hooks" in key}
    old.__dict__ |= {key: type(value)() for key, value in hooks.items()}  # the new pool holds a copy of the old one
    new, reference = make(filter_size).train(old.training), next(model.parameters(), None)
    new = new if reference is None else new.to(reference.device)
    new.__dict__ |= hooks
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if module is old and not name:
            return new
        if module is old:
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, new)
    return model


def _make_dense(model: nn.Module, filter_size: int, conv: nn.Conv2d, kept: tuple, position: _BlurPosition) -> nn.Module:
    strides = tuple(whole // part for whole, part in zip(_stride(conv), kept, strict=True))
    conv.stride = kept
    _attach(position, BlurPool2d(position.channels, filter_size, strides).to(conv.weight.device))
    return model


def _attach(position: _BlurPosition, blur: BlurPool2d) -> None:
    """Make the blur a child of its neighbour, so that the two are moved and copied together, and run it in a hook."""
    side, neighbour = "blur_behind" if position.behind else "blur_before", position.module
    name = side + "_" * sum(child.startswith(side) for child, _ in neighbour.named_children())
    neighbour.add_module(name, blur.train(neighbour.training))
    if position.behind:
        neighbour.register_forward_hook(partial(_blur_output, name=name))
    else:
        neighbour.register_forward_pre_hook(partial(_blur_input, name=name))


def _blur_output(module: nn.Module, inputs: tuple, output: Tensor, name: str) -> Tensor:
    return module.get_submodule(name)(output)


def _blur_input(module: nn.Module, inputs: tuple, name: str) -> tuple:
    return module.get_submodule(name)(inputs[0]), *inputs[1:]


# Pools


class _FloorBlurPool2d(BlurPool2d):
    """Replaces a 2x2 average pool that ignores the last row and column of a map of odd size."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        return super().forward(x[..., : height // 2 * 2, : width // 2 * 2])


def _max_blur(name: str, pool: nn.MaxPool2d) -> Callable[[int], MaxBlurPool2d]:
    if pool.return_indices:
        raise ValueError(f"antialias cannot blur {name!r}: it returns indices, which mean nothing behind a blur.")
    settings = _pair(pool.padding), _pair(pool.kernel_size), _pair(pool.dilation), _stride(pool)
    for padding, kernel, dilation, stride in zip(*settings, strict=True):
        if pool.ceil_mode and padding + stride > dilation * (kernel - 1) + 1:  # torch leaves out windows of padding
            raise ValueError(f"antialias does not support the ceil_mode of {name!r} with this padding: {pool}.")
    return partial(MaxBlurPool2d, pool)


def _average_blur(name: str, pool: nn.AvgPool2d) -> Callable[[int], BlurPool2d]:
    """A constructor, by filter size, of the blur that replaces an average pool and gives maps of the same size."""
    kernel, stride, padding = _pair(pool.kernel_size), _stride(pool), _pair(pool.padding)
    same = type(pool).__name__.endswith("Same")  # timm's, whose output is always (H - 1) // stride + 1
    if kernel == stride == (2, 2) and padding == (0, 0):
        kind = BlurPool2d if pool.ceil_mode or same else _FloorBlurPool2d
        return lambda filter_size: kind(None, filter_size, 2)
    centred = same or (padding == tuple(k // 2 for k in kernel) and not pool.ceil_mode)
    if kernel in ((1, 1), (3, 3)) and centred:
        return lambda filter_size: BlurPool2d(None, filter_size, (stride[0], stride[1]))
    raise ValueError(
        f"antialias knows average pools of 2x2 with stride 2, and of 1x1 or padded 3x3; {name!r} is {pool}. "
        "Where it pools the whole map, make it an nn.AdaptiveAvgPool2d(1)."
    )


# Networks that are refused


def _refuse_unknown(model: nn.Module) -> None:
    for name, module in model.named_modules():
        kind, own = type(module).__name__, isinstance(module, STRIDED)
        if isinstance(module, BlurPool2d):
            raise ValueError(f"{type(model).__name__} is anti-aliased already: it blurs in {name!r}.")
        leaf = not own and not isinstance(module, UPSAMPLING) and next(module.children(), None) is None
        if leaf and max(_stride(module)) > 1:
            raise ValueError(f"antialias does not know how to anti-alias {name!r}, a {kind} of stride {module.stride}.")
        called = set() if own else _called_in_forward(type(module)) & POOLING_FUNCTIONS
        if called:
            raise ValueError(
                f"antialias cannot change the call of {sorted(called)[0]} in the forward of {name!r}, a {kind}: make "
                "it a module (nn.MaxPool2d, nn.AvgPool2d), or adaptive_avg_pool2d where it pools the whole map."
            )


def _refuse_own_forward(name: str, module: nn.Module) -> None:
    """Refuse a layer with a forward of its own that does not obey `stride`, so that setting it would have no effect."""
    base = next(kind for kind in STRIDED if isinstance(module, kind))
    own = any(getattr(type(module), f, None) is not getattr(base, f, None) for f in ("forward", "_conv_forward"))
    known = not own or type(module).__name__.endswith("Same")  # timm's
    if "forward" in vars(module) or not (known or (base is not nn.AvgPool2d and _follows_stride(module))):
        raise ValueError(
            f"antialias cannot tell how {name!r}, a {type(module).__name__} with a forward of its own, subsamples: "
            f"make it a plain {base.__name__}."
        )


def _follows_stride(module: Any) -> bool:
    """Whether the layer's output has the size that its stride implies, and is larger at stride 1; tried on zeros."""
    channels, plain = getattr(module, "in_channels", 1), copy_on_cpu(module)
    strides: tuple[int, ...] = _stride(module)
    dense: Any = copy_on_cpu(module)
    dense.stride = (1, 1)
    try:
        for size in (32, 33, 34):
            x = torch.zeros(1, channels, size, size)
            whole, part = dense(x).shape[2:], plain(x).shape[2:]
            if any((w - 1) // s + 1 != p or w <= p for w, p, s in zip(whole, part, strides, strict=True) if s > 1):
                return False
    except Exception:  # a forward that needs other arguments than one map may raise anything
        return False
    return True


def _called_in_forward(kind: type) -> set[str]:
    """Names that the forward methods of a class use; none for torch's own classes."""
    if kind.__module__.startswith("torch.nn."):
        return set()
    functions = [inspect.unwrap(f) for key, f in inspect.getmembers(kind, inspect.isfunction) if "forward" in key]
    return {name for function in functions for name in function.__code__.co_names}


def _stride(module: nn.Module) -> tuple[int, ...]:
    """A module's stride for each axis; 1 if it has none."""
    stride = getattr(module, "stride", 1)
    stride = getattr(module, "kernel_size", 1) if stride is None else stride
    pair = _pair(stride)
    return pair if all(isinstance(s, int) for s in pair) else (1, 1)


def _pair(value) -> tuple:
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return values * 2 if len(values) == 1 else values


# What follows a conv


class _LocalTracer(fx.Tracer):
    """Traces one module's forward; every module that it calls is one node."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return True


@dataclass
class _Flow:
    """Finds what follows each conv of a network."""

    model: nn.Module
    graphs: dict[str, fx.Graph] = field(default_factory=dict)

    @cached_property
    def modules(self) -> dict[str, nn.Module]:
        return dict(self.model.named_modules())

    @cached_property
    def uses(self) -> Counter:
        """How many names each module has in the network, by its `id`."""
        return Counter(id(module) for _, module in self.model.named_modules(remove_duplicate=False))

    @cached_property
    def norms(self) -> set[int]:
        return {id(layer) for layer in norm_layers(self.model).values()}

    @cached_property
    def held(self) -> dict[int, str]:
        return held_in_attributes(self.model)

    @cached_property
    def stem(self) -> nn.Module | None:
        return next((module for module in self.modules.values() if isinstance(module, nn.Conv2d)), None)

    def position(self, name: str, conv: nn.Conv2d) -> _BlurPosition:
        """Behind the activation that follows the conv; beside the conv if there is no activation.

        Without an activation the blur commutes with the norm that follows, so it goes where it costs least: before a
        1x1 conv (a shortcut's), and directly behind any other.
        """
        owner, end = self._activation(name)
        if end is not None:
            return self._position_behind(owner, end, name, conv.out_channels)
        if _pair(conv.kernel_size) == (1, 1) and not any(_pair(conv.padding)):
            return _BlurPosition(conv, behind=False, channels=conv.in_channels)
        return _BlurPosition(conv, behind=True, channels=conv.out_channels)

    def _activation(self, name: str) -> tuple[str, fx.Node | None]:
        """The activation that follows a module, with norms in between, inside its container or after it.

        The empty modules that timm keeps behind an activation for a blur are included, and so are functions there,
        because a blur needs a module.

        Returns:
            The name of the module whose graph has the activation, and the last node; None without an activation.
        """
        owner = self._owner(name)
        node, active = self._call(owner, name), False
        while len(node.users) == 1:
            (user,) = node.users
            if user.op == "output" and user.args[0] is node and owner and not active:
                name, owner = owner, self._owner(owner)
                node = self._call(owner, name)
                continue
            role = self._role(owner, user)
            if role is None or (active and role != "empty" and user.op == "call_module"):
                break
            node, active = user, active or role == "activation"
        return owner, node if active else None

    def _position_behind(self, owner: str, node: fx.Node, name: str, channels: int) -> _BlurPosition:
        """Beside a module that runs once, so that its hook blurs this map alone; beside a norm only if there is no
        other: torch's conversion to SyncBatchNorm drops the children of the norms that it replaces."""
        (user, *others), module = node.users, self._end_of(self._only(owner, node), last=True)
        if module is not None and id(module) not in self.norms:
            return _BlurPosition(module, behind=True, channels=channels)
        follower = None if others else self._end_of(self._only(owner, user), last=False)
        if follower is not None and user.args and user.args[0] is node:
            return _BlurPosition(follower, behind=False, channels=channels)
        container = self.modules[owner]
        called = not isinstance(container, nn.Sequential) and self.uses[id(container)] == 1
        if user.op == "output" and not others and user.args[0] is node and called:
            return _BlurPosition(container, behind=True, channels=channels)
        if module is not None:
            return _BlurPosition(module, behind=True, channels=channels)
        raise ValueError(
            f"antialias finds no module for the blur behind {name!r}, because its activation, in the forward of "
            f"{owner or 'the network'!r}, a {type(container).__name__}, is not a module that runs once: make it one."
        )

    def _role(self, owner: str, node: fx.Node) -> str | None:
        """What a node does to a map: "empty" (nothing), "pointwise" (norm, dropout), "activation"; None: other."""
        if node.op in ("call_function", "call_method"):
            function = getattr(node.target, "__name__", str(node.target)).rstrip("_")
            if function in ACTIVATION_FUNCTIONS:
                return "activation"
            return "pointwise" if function in DROPOUT_FUNCTIONS else None
        return self._role_of(self.modules[owner].get_submodule(str(node.target))) if node.op == "call_module" else None

    def _role_of(self, module: nn.Module) -> str | None:
        kind, children = type(module), list(module.children())
        if isinstance(module, nn.Identity) or (isinstance(module, nn.Sequential) and not children):
            return "empty"
        if isinstance(module, OwnForward):
            return "activation"
        if id(module) in self.norms:  # timm's hold their activation as a child
            children = list((behind(module) or dict(module.named_children())).values())
        if kind is nn.Sequential:  # `fold` may replace a norm with its activation by one
            return self._role_of_all(children)
        is_norm = "Norm" in kind.__name__ and not any(isinstance(m, nn.Conv2d) for m in module.modules())
        if id(module) in self.norms or is_norm or kind.__name__ == "InstanceHalf2d":
            return "activation" if any(self._role_of(child) == "activation" for child in children) else "pointwise"
        if kind.__name__.startswith("Drop"):
            return "pointwise"
        if "activation" in kind.__module__ and not isinstance(module, nn.MultiheadAttention):
            return "activation"
        bare = not children and not any(True for _ in (*module.parameters(), *module.buffers()))
        return "activation" if bare and not kind.__module__.startswith("torch.nn.") else None  # a user's own

    def _role_of_all(self, children: list[nn.Module]) -> str | None:
        """The role of several layers, one after the other."""
        roles = [self._role_of(child) for child in children]
        if None in roles:
            return None
        return next((role for role in ("activation", "pointwise") if role in roles), "empty")

    def _only(self, owner: str, node: fx.Node) -> nn.Module | None:
        """The module that a node calls; None if it is called elsewhere too."""
        if node.op != "call_module":
            return None
        module = self.modules[owner].get_submodule(str(node.target))
        calls = sum(n.op == "call_module" and n.target == node.target for n in self.graphs[owner].nodes)
        return module if calls == 1 and self.uses[id(module)] == 1 else None

    def _end_of(self, module: nn.Module | None, last: bool) -> nn.Module | None:
        """The last or first layer of a sequential container: as its child, a blur would run a second time."""
        while isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward and len(module):
            module = module[-1 if last else 0]
            module = module if self.uses[id(module)] == 1 else None
        return module

    def _owner(self, name: str) -> str:
        """The module whose forward calls a module: its nearest parent that has a forward."""
        parent = name.rpartition(".")[0]
        while parent and type(self.modules[parent]).forward is nn.Module.forward:
            parent = parent.rpartition(".")[0]
        return parent

    def _call(self, owner: str, name: str) -> fx.Node:
        target = name[len(owner) + 1 :] if owner else name
        nodes = [n for n in self._graph(owner).nodes if n.op == "call_module" and n.target == target]
        if len(nodes) != 1:
            raise ValueError(
                f"antialias cannot tell what follows {name!r}: the forward of {owner or 'the network'!r}, a "
                f"{type(self.modules[owner]).__name__}, calls it {len(nodes)} times."
            )
        return nodes[0]

    def _graph(self, owner: str) -> fx.Graph:
        if owner not in self.graphs:
            where = f"{owner or 'the network'!r}, a {type(self.modules[owner]).__name__}"
            try:
                graph = _LocalTracer().trace(self.modules[owner])
            except Exception as error:  # a forward that is traced without data may raise anything
                raise ValueError(f"antialias cannot follow the forward of {where}: {error}.") from error
            if any(_is_strided_slice(node) for node in graph.nodes):
                raise ValueError(f"antialias cannot change the slicing with a step in the forward of {where}.")
            self.graphs[owner] = graph
        return self.graphs[owner]


def _is_strided_slice(node: fx.Node) -> bool:
    index = node.args[1] if getattr(node.target, "__name__", "") == "getitem" else ()
    return isinstance(index, tuple) and any(isinstance(i, slice) and i.step not in (None, 1) for i in index)
