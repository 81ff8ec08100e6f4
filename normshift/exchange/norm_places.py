"""References to a network's norm layers: other modules that share their tensors, hold them in lists, or read them.

Replacing a layer changes the network's modules only. It is refused with a ValueError if something else would continue
to use the old layer.
"""

import inspect
from collections.abc import Iterator
from functools import cached_property
from types import CodeType

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils._pytree import tree_leaves

from normshift.exchange.succession import halves, refuse_hooks_of_halves, tensors
from normshift.layers import IBN2d

BY_HAND = {"running_mean", "running_var", "batch_norm", "instance_norm", "group_norm"}
"""Names in a forward that normalises with a layer's tensors instead of calling the layer."""


class NetworkOfNorms:
    """A network before the exchange, with the references to its norm layers."""

    def __init__(self, model: nn.Module):
        self.model = model

    @cached_property
    def modules(self) -> dict[str, nn.Module]:
        return dict(self.model.named_modules())

    @cached_property
    def owners(self) -> dict[int, list[nn.Module]]:
        """The modules that have each parameter and buffer, by its `id`."""
        owners: dict[int, list[nn.Module]] = {}
        for module in self.modules.values():
            for value in (*module._parameters.values(), *module._buffers.values()):
                owners.setdefault(id(value), []).append(module)
        return owners

    @cached_property
    def held(self) -> dict[int, str]:
        """See `held_in_attributes`."""
        return held_in_attributes(self.model)

    @cached_property
    def dims(self) -> int | None:
        """The number of spatial dimensions of the network's convolutions; None if they differ."""
        found = {len(m.kernel_size) for m in self.modules.values() if isinstance(m, _ConvNd)}
        return found.pop() if len(found) == 1 else None

    def tensor_near(self, name: str) -> Tensor | None:
        """A floating-point tensor of the layer or of the nearest module around it, for type and device."""
        while True:
            around = self.model.get_submodule(name)
            found = (v for v in (*around.parameters(), *around.buffers()) if v.is_floating_point())
            tensor = next(found, None)
            if tensor is not None or not name:
                return tensor
            name = name.rpartition(".")[0]

    def refuse(self, name: str, old: nn.Module, new: nn.Module) -> None:
        """Raise a ValueError if something in the network would continue to use `old` after `new` replaces it."""
        if new is old:
            return
        if isinstance(old, IBN2d) and not isinstance(new, IBN2d):
            refuse_hooks_of_halves(old, name)
        for part in (old, *halves(old)):
            if id(part) in self.held:
                raise ValueError(
                    f"{name!r} is also held in {self.held[id(part)]}, outside of the network's modules, where it would "
                    "stay the old layer: look it up as a module there."
                )
        self._refuse_shared_halves(name, old, new)
        self._refuse_read_by_hand(name, old)
        self._refuse_wrapped(name, old, new)

    def _refuse_shared_halves(self, name: str, old: nn.Module, new: nn.Module) -> None:
        """Refuse shared parameters if IBN layers are involved, because these split or join parameters."""
        if not isinstance(old, IBN2d) and not isinstance(new, IBN2d):
            return
        mine = {id(part) for part in (old, *halves(old))}
        for part in (old, *halves(old)):
            for key, value in tensors(part).items():
                others = [m for m in self.owners.get(id(value), ()) if id(m) not in mine] if value is not None else []
                if others:
                    raise ValueError(
                        f"the {key} of {name!r} is shared with {self._name(others[0])!r}, and an IBN layer, which "
                        "splits its channels between two norms, cannot share it."
                    )

    def _name(self, module: nn.Module) -> str:
        return next((name for name, m in self.modules.items() if m is module), "")

    def _refuse_read_by_hand(self, name: str, old: nn.Module) -> None:
        for owner_name, owner in self.modules.items():
            leaves = {leaf for leaf, child in owner._modules.items() if child is old}
            if not leaves or owner is old:
                continue
            names = names_in_forward(owner)
            used = {n for n in BY_HAND & names if n not in owner._modules and not _is_own_method(type(owner), n)}
            if leaves & names and used:
                what = sorted(used)[0]
                raise ValueError(
                    f"the forward of {owner_name or 'the network'!r}, a {type(owner).__name__}, normalises by hand "
                    f"with the numbers of {name!r} ({what}) instead of calling it, so another layer there would not "
                    "be used."
                )

    def _refuse_wrapped(self, name: str, old: nn.Module, new: nn.Module) -> None:
        around = self.model.get_submodule(name.rpartition(".")[0])
        if type(around).__name__ == "OptimizedModule":
            raise ValueError(f"{name!r} is compiled, and the compiled code would keep it: convert first, then compile.")
        wrapper = next((m for m in self.modules.values() if type(m).__name__ == "FullyShardedDataParallel"), None)
        if wrapper is None:
            before = {id(p) for p in old.parameters()}
            fresh = [key for key, p in new.named_parameters() if id(p) not in before]
            parallel = [m for m in self.modules.values() if isinstance(m, nn.parallel.DistributedDataParallel)]
            wrapper = parallel[0] if fresh and parallel else None
        if wrapper is not None:
            raise ValueError(
                f"a {type(wrapper).__name__} averages the gradients of the parameters that it was given, and would "
                f"know nothing of those that {name!r} gets: convert the network first and wrap it then."
            )


def refuse_scripts(model: nn.Module, what: str, kinds: tuple[str, ...]) -> None:
    """Refuse a network with TorchScript modules, which cannot be changed, whose class names contain one of `kinds`."""
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule) and any(k in getattr(module, "original_name", "") for k in kinds):
            raise ValueError(
                f"{what} cannot change {name or 'the network'!r}, a {module.original_name} in TorchScript, where "
                f"layers are fixed: {what} first and script or trace then."
            )


def held_in_attributes(model: nn.Module) -> dict[int, str]:
    """Modules in plain lists, tuples, sets and dicts, where a replacement would not reach them: `id` -> where."""
    held: dict[int, str] = {}
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if key == "_modules":
                continue
            leaves = value if isinstance(value, (set, frozenset)) else tree_leaves(value)
            where = f"{key!r} of {name or 'the network'!r}"
            held |= {id(leaf): where for leaf in leaves if isinstance(leaf, nn.Module)}
    return held


def names_in_forward(module: nn.Module) -> set[str]:
    """Names that a module's forward, and the methods that this calls, use; none for torch's own classes."""
    if type(module).__module__.startswith("torch.nn."):
        return set()
    names: set[str] = set()
    pending = {"forward"}
    while pending:
        found = set(_names_of(type(module), pending))
        names, pending = names | found, {n for n in found - names if _is_own_method(type(module), n)}
    return names


def _is_own_method(kind: type, name: str) -> bool:
    method = getattr(kind, name, None)
    return inspect.isfunction(method) and getattr(nn.Module, name, None) is not method


def _names_of(kind: type, methods: set[str]) -> Iterator[str]:
    functions = (inspect.unwrap(getattr(kind, method)) for method in methods if hasattr(kind, method))
    codes = [function.__code__ for function in functions if hasattr(function, "__code__")]
    while codes:
        code = codes.pop()
        yield from code.co_names
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
