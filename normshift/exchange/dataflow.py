"""The data flow of a network: which module computes the input of each norm layer, and what else uses that input.

`traced` finds out with torch.fx, without data. It traces into containers. A module with hooks, or whose forward cannot
be traced, is a black box for its caller, and the modules inside are traced separately. So the result may be incomplete
for modules that a black box calls directly, but it is never wrong. `observed` watches one real forward pass instead.
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
PASSING = (nn.Identity, nn.modules.dropout._DropoutNd)  # in evaluation they return their input
DESCRIBING = {"shape", "size", "dim", "ndim", "ndimension", "dtype", "device", "layout"}


@dataclass(frozen=True)
class Source:
    """The source of a norm's input.

    Attributes:
        module: the module that returned it; None if it was not a module.
        what: a description; "" if unknown.
        alone: whether the norm is its only user.
    """

    module: nn.Module | None
    what: str
    alone: bool


@dataclass
class Flow:
    """The data flow of a network, by the `id` of modules and parameters.

    Attributes:
        calls: how often each module runs.
        sources: the source of each norm's input, in its last call.
        read: parameters that other code than their own module uses.
        untraced: modules whose calls are not known -> the reason.
    """

    calls: Counter = field(default_factory=Counter)
    sources: dict[int, Source] = field(default_factory=dict)
    read: set[int] = field(default_factory=set)
    untraced: dict[int, str] = field(default_factory=dict)


def has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


# Tracing


def traced(model: nn.Module, norms: set[int]) -> Flow:
    """The data flow according to the network's forward methods.

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
    """Trace one module's forward into `flow`; return its black boxes, and for each whether tracing it failed."""
    tracer = _Tracer(norms)
    if "forward" in vars(root):  # replaced on this one object; torch.fx would trace the class's
        return [(root, True)]
    try:
        graph = tracer.trace(root, _defaults(root))
    except Exception:  # a forward that is traced without data may raise anything
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
    """Traces into containers; modules with hooks, or whose forward raises, become black boxes."""

    def __init__(self, norms: set[int]):
        super().__init__()
        self.norms = norms
        self.boxes: dict[int, tuple[nn.Module, bool]] = {}
        self.read: set[int] = set()

    def call_module(self, m, forward, args, kwargs):
        path = self.path_of_module(m)  # raises if the module is not part of the network
        if not _is_whole(m, self.norms):
            if not has_hooks(m):
                last = next(iter(reversed(self.graph.nodes)), None)
                try:
                    return m.forward(*args, **kwargs)
                except Exception:  # a forward that is traced without data may raise anything
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
    """Whether a module is one node in the graph: a norm, a convolution or linear layer, or without children."""
    return id(module) in norms or isinstance(module, LINEAR_MAPS) or next(module.children(), None) is None


def _is_list(module: nn.Module) -> bool:
    return type(module).forward is nn.Module.forward and "forward" not in vars(module)


def _parts(box: nn.Module) -> Iterator[nn.Module]:
    """The modules that a forward can call directly: its children, and those in its module lists."""
    for child in box.children():
        if _is_list(child):
            yield from _parts(child)
        else:
            yield child


def _note_unknown(box: nn.Module, names: dict[int, str], flow: Flow) -> None:
    """Mark the modules that an untraceable forward may call: its parts, and modules inside them that it names."""
    where = repr(names[id(box)]) if names[id(box)] else "the network"
    why = f"the forward of {where}, a {type(box).__name__}, cannot be traced"
    named = _names_in_methods(box) - box._modules.keys()
    inner = [module for name, module in box.named_modules() if "." in name and name.rpartition(".")[2] in named]
    for module in (*_parts(box), *inner):
        flow.untraced[id(module)] = why


def _names_in_methods(module: nn.Module) -> set[str]:
    """Names that a module's own methods use, except in `__init__`."""
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
    """The default values of a forward's arguments, which tracing uses."""
    parameters = inspect.signature(type(module).forward).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _source(node: fx.Node, root: nn.Module, names: dict[int, str]) -> Source:
    """The source of the input of a norm's node in the graph of `root`."""
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
    """Whether a node reads only a tensor's shape, type or device, not its values."""
    if user.op == "call_method":
        return user.target in DESCRIBING
    return user.target is getattr and user.args[1] in DESCRIBING


@contextmanager
def _attributes_restored(model: nn.Module):
    """Restore attributes that forwards write to their modules during tracing."""
    before = [(module, dict(vars(module))) for module in model.modules()]
    try:
        yield
    finally:
        for module, attributes in before:
            for key in vars(module).keys() - attributes.keys():
                del vars(module)[key]
            vars(module).update(attributes)


# Observing a real pass


def observed(model: nn.Module, norms: set[int], example: Tensor | tuple) -> Flow:
    """The data flow in one real forward pass.

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
            watch.count_uses(model(*example if isinstance(example, tuple) else (example,)))
    finally:
        for hook in hooks:
            hook.remove()
    return watch.flow()


class _Watch(TorchDispatchMode):
    """Counts the uses of layers' outputs and of parameters by all operations outside of the layers."""

    def __init__(self, model: nn.Module, norms: set[int]):
        super().__init__()
        self.norms = norms
        self.parameters = {id(parameter) for parameter in model.parameters()}
        self.outputs: dict[int, tuple[Tensor, nn.Module]] = {}  # kept alive, so that no other tensor gets their ids
        self.inputs: dict[int, int | None] = {}  # norm -> the layer output that it got
        self.calls, self.uses, self.inside = Counter[int](), Counter[int](), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if not self.inside:
            self.count_uses((args, kwargs))
        return func(*args, **kwargs)

    def count_uses(self, values) -> None:
        found = (id(value) for value in tree_leaves(values) if isinstance(value, Tensor))
        self.uses.update(key for key in found if key in self.outputs or key in self.parameters)

    def enter(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if not self.inside:
            self.count_uses((args, kwargs))
        if id(module) in self.norms:
            given = id(next(iter(tree_leaves((args, kwargs))), None))
            # looked up now: other tensors are not kept alive, and a later output may get their id
            self.inputs[id(module)] = given if given in self.outputs else None
        self.calls[id(module)] += 1
        self.inside += 1

    def leave(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        self.inside -= 1
        rows = isinstance(module, nn.Linear) and output.dim() != 2  # its channels are not the second axis
        if isinstance(module, LINEAR_MAPS) and not rows:
            self.outputs[id(output)] = output, module

    def flow(self) -> Flow:
        sources = {}
        for norm, tensor in self.inputs.items():
            module = None if tensor is None else self.outputs[tensor][1]
            sources[norm] = Source(module, "", tensor is not None and self.uses[tensor] == 1)
        return Flow(self.calls, sources, self.parameters & self.uses.keys())
