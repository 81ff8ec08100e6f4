"""What hands each norm layer its input, and whether anything else takes that too.

`traced` reads it off the forwards with torch.fx, without any data. Containers are gone through; a module whose forward
cannot be traced, or that has hooks, is a black box to its caller, and what stands inside it is traced by itself. So
little is known about what a black box calls directly, and nothing wrong. `observed` watches one real pass instead.
"""

import inspect
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import CodeType

import torch
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

LINEAR_MAPS = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear,
)  # fmt: skip
PASSING = (nn.Identity, nn.modules.dropout._DropoutNd)  # in evaluation they hand on what they are given
DESCRIBING = {"shape", "size", "dim", "ndim", "ndimension", "dtype", "device", "layout"}


@dataclass(frozen=True)
class Source:
    """Where a norm's input comes from.

    Attributes:
        module: what returned it, or None where that was no module.
        what: the same in words, where they are known.
        alone: whether the norm is the only one to take it.
    """

    module: nn.Module | None
    what: str
    alone: bool


@dataclass
class Flow:
    """What is known of a network's data flow, by the `id` of modules and parameters.

    Attributes:
        calls: how often each module runs. sources: of each norm; the last call's where there are several.
        read: parameters that something else than their own module takes.
        untraced: modules of which too little is known, and why.
    """

    calls: Counter = field(default_factory=Counter)
    sources: dict[int, Source] = field(default_factory=dict)
    read: set[int] = field(default_factory=set)
    untraced: dict[int, str] = field(default_factory=dict)


def has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


# Tracing


def traced(model: nn.Module, norms: set[int]) -> Flow:
    """The flow of a network as its forwards say it.

    Args:
        model: in evaluation mode.
        norms: the `id` of every norm layer.
    """
    flow = Flow()
    names = {id(module): name for name, module in model.named_modules()}
    pending, seen = [model], set()
    with _attributes_restored(model):
        while pending:
            root = pending.pop()
            if id(root) in seen or _is_whole(root, norms):
                continue
            seen.add(id(root))
            for box, failed in _trace(root, norms, names, flow):
                if failed:
                    _note_unknown(box, names, flow)
                pending += _parts(box) if failed else [box]
    return flow


def _trace(root: nn.Module, norms: set[int], names: dict[int, str], flow: Flow) -> list[tuple[nn.Module, bool]]:
    """Add to `flow` what one module's forward tells; return the black boxes, and whether tracing them failed."""
    tracer = _Tracer(norms)
    if "forward" in vars(root):  # exchanged on this one object; torch.fx would take its class's
        return [(root, True)]
    try:
        graph = tracer.trace(root, _defaults(root))
    except Exception:  # whatever a forward raises when it is given no numbers
        return [(root, True)]
    finally:
        flow.read |= tracer.read
    for node in graph.nodes:
        if node.op == "call_module":
            called = root.get_submodule(node.target)
            flow.calls[id(called)] += 1
            if id(called) in norms:
                flow.sources[id(called)] = _source(node, root, names)
    return list(tracer.boxes.values())


class _Tracer(fx.Tracer):
    """Goes through containers, around their hooks, and falls back to a black box where a forward raises."""

    def __init__(self, norms: set[int]):
        super().__init__()
        self.norms = norms
        self.boxes: dict[int, tuple[nn.Module, bool]] = {}
        self.read: set[int] = set()

    def call_module(self, m, forward, args, kwargs):
        path = self.path_of_module(m)  # raises where the network does not own it
        if not _is_whole(m, self.norms):
            if not has_hooks(m):
                last = next(iter(reversed(self.graph.nodes)), None)
                try:
                    return m.forward(*args, **kwargs)
                except Exception:  # whatever a forward raises when it is given no numbers
                    self._erase_behind(last)
            self.boxes[id(m)] = m, not has_hooks(m)
        return self.create_proxy("call_module", path, args, kwargs)

    def getattr(self, attr, attr_val, parameter_proxy_cache):
        if isinstance(attr_val, nn.Parameter):
            self.read.add(id(attr_val))
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def _erase_behind(self, last: fx.Node | None) -> None:
        for node in list(reversed(self.graph.nodes)):
            if node is last:
                return
            self.graph.erase_node(node)


def _is_whole(module: nn.Module, norms: set[int]) -> bool:
    """Whether a module is a single thing here: a layer, or without children."""
    return id(module) in norms or isinstance(module, LINEAR_MAPS) or next(module.children(), None) is None


def _is_list(module: nn.Module) -> bool:
    return type(module).forward is nn.Module.forward and "forward" not in vars(module)


def _parts(box: nn.Module) -> Iterator[nn.Module]:
    """The modules that a forward calls by itself: its children, and those in its lists."""
    for child in box.children():
        if _is_list(child):
            yield from _parts(child)
        else:
            yield child


def _note_unknown(box: nn.Module, names: dict[int, str], flow: Flow) -> None:
    """Mark what only an untraceable forward could tell: its own parts, and those of its parts that it names."""
    where = repr(names[id(box)]) if names[id(box)] else "the network"
    why = f"the forward of {where}, a {type(box).__name__}, cannot be traced"
    named = _names_in_methods(box) - box._modules.keys()
    inner = [module for name, module in box.named_modules() if "." in name and name.rpartition(".")[2] in named]
    for module in (*_parts(box), *inner):
        flow.untraced[id(module)] = why


def _names_in_methods(module: nn.Module) -> set[str]:
    """Names that a module's methods use, but for `__init__` and what every module has."""
    found = inspect.getmembers(type(module), inspect.isfunction)
    own = [f for key, f in found if key != "__init__" and getattr(nn.Module, key, None) is not f]
    own += [getattr(f, "__func__", f) for key, f in vars(module).items() if key == "forward"]
    names, codes = set(), [f.__code__ for f in map(inspect.unwrap, own) if hasattr(f, "__code__")]
    while codes:
        code = codes.pop()
        names |= set(code.co_names)
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return names


def _defaults(module: nn.Module) -> dict:
    """The values that a forward's arguments have by default: it is traced as if it were given no others."""
    parameters = inspect.signature(type(module).forward).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _source(node: fx.Node, root: nn.Module, names: dict[int, str]) -> Source:
    """What stands before a norm's node in the graph of `root`."""
    alone, module = True, None
    while node.all_input_nodes:
        node = node.all_input_nodes[0]
        alone = alone and sum(not _describes(user) for user in node.users) == 1
        module = root.get_submodule(str(node.target)) if node.op == "call_module" else None
        if not isinstance(module, PASSING) or has_hooks(module):
            break
    if module is not None:
        return Source(module, f"{names[id(module)]!r}, a {type(module).__name__}", alone)
    if node.op == "placeholder":
        return Source(None, f"the input of {names[id(root)]!r}" if names[id(root)] else "the network's input", alone)
    return Source(None, f"the function {getattr(node.target, '__name__', node.target)}", alone)


def _describes(user: fx.Node) -> bool:
    """Whether a node reads a tensor's shape or type and no number of it."""
    if user.op == "call_method":
        return user.target in DESCRIBING
    return user.target is getattr and user.args[1] in DESCRIBING


@contextmanager
def _attributes_restored(model: nn.Module):
    """Undo what forwards write to their modules while they are traced."""
    before = [(module, dict(vars(module))) for module in model.modules()]
    try:
        yield
    finally:
        for module, attributes in before:
            for key in vars(module).keys() - attributes.keys():
                del vars(module)[key]
            vars(module).update(attributes)


# Watching


def observed(model: nn.Module, norms: set[int], example: Tensor | tuple) -> Flow:
    """The flow of a network in one real pass.

    Args:
        model: in evaluation mode.
        norms: the `id` of every norm layer.
        example: the network's input, or a tuple of its positional arguments.
    """
    watch, hooks = _Watch(model, norms), []
    for module in model.modules():
        if id(module) in norms or isinstance(module, LINEAR_MAPS):
            hooks.append(module.register_forward_pre_hook(watch.enter, with_kwargs=True))
            hooks.append(module.register_forward_hook(watch.leave))
    try:
        with torch.no_grad(), watch:
            watch.take(model(*example if isinstance(example, tuple) else (example,)))
    finally:
        for hook in hooks:
            hook.remove()
    return watch.flow()


class _Watch(TorchDispatchMode):
    """Sees every operation on a layer's output, outside of the layers themselves."""

    def __init__(self, model: nn.Module, norms: set[int]):
        super().__init__()
        self.norms = norms
        self.parameters = {id(parameter) for parameter in model.parameters()}
        self.made: dict[int, tuple[Tensor, nn.Module]] = {}  # kept alive, so that no other tensor takes their ids
        self.handed: dict[int, int | None] = {}
        self.calls, self.taken, self.inside = Counter[int](), Counter[int](), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if not self.inside:
            self.take((args, kwargs))
        return func(*args, **kwargs)

    def take(self, values) -> None:
        found = (id(value) for value in tree_leaves(values) if isinstance(value, Tensor))
        self.taken.update(key for key in found if key in self.made or key in self.parameters)

    def enter(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if not self.inside:
            self.take((args, kwargs))
        if id(module) in self.norms:
            handed = id(next(iter(tree_leaves((args, kwargs))), None))
            # looked up at once: what no layer made is not kept, and a later tensor may have its id
            self.handed[id(module)] = handed if handed in self.made else None
        self.calls[id(module)] += 1
        self.inside += 1

    def leave(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        self.inside -= 1
        rows = isinstance(module, nn.Linear) and output.dim() != 2  # a norm takes the second axis for the channels
        if isinstance(module, LINEAR_MAPS) and not rows:
            self.made[id(output)] = output, module

    def flow(self) -> Flow:
        sources = {}
        for norm, tensor in self.handed.items():
            module = None if tensor is None else self.made[tensor][1]
            sources[norm] = Source(module, "", tensor is not None and self.taken[tensor] == 1)
        return Flow(self.calls, sources, self.parameters & self.taken.keys())
