"""A network's tensors in a checkpoint, without the containers and prefixes that training code adds."""

from collections import Counter
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

CONTAINERS = ("state_dict", "model_state_dict", "model", "network", "net", "weights")
"""Keys under which a checkpoint may hold the network, in the order in which they are tried."""

WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""Names that torch.compile, FSDP and activation checkpointing put into keys."""

DEEPEST = 4  # parts of the longest prefix that is removed


def unwrapped(checkpoint: Mapping) -> dict[str, Tensor]:
    """A checkpoint's tensors by key, without nesting ("state_dict") and prefixes (torch.compile, DDP, `AveragedModel`).

    Raises:
        ValueError: the checkpoint is not a mapping, or it contains several networks.
    """
    state = _network_of(checkpoint)
    state = {_without_wrappers(k): v for k, v in state.items() if isinstance(k, str) and isinstance(v, Tensor)}
    averaged = {key: value for key, value in state.items() if key != "n_averaged"}
    while averaged and all(key.startswith("module.") for key in averaged):
        state = averaged = {key.removeprefix("module."): value for key, value in averaged.items()}
    return state


def bare(state: Mapping[str, Tensor], own: Iterable[str]) -> dict[str, Tensor]:
    """A state dict without the prefix of the network's keys, such as "model." in a Lightning module's state dict.

    Keys without the prefix belong to other modules and are left out.

    Args:
        own: the network's keys.

    Raises:
        ValueError: the state dict contains the network several times, such as a student and its teacher.
    """
    own, found = set(own), Counter[str]()
    for key in state:
        parts = key.split(".")
        for depth in range(1, min(len(parts), DEEPEST + 1)):
            if ".".join(parts[depth:]) in own:
                found[".".join(parts[:depth]) + "."] += 1
    most = max(found.values(), default=0)
    if most <= sum(key in own for key in state):
        return dict(state)
    prefixes = sorted(prefix for prefix, count in found.items() if count == most)
    if len(prefixes) > 1:
        raise ValueError(
            f"the checkpoint holds such a network {len(prefixes)} times, under {' and '.join(prefixes)}: pass one of "
            "them, its tensors alone, without that prefix."
        )
    (prefix,) = prefixes
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def inner(model: nn.Module) -> nn.Module:
    """The network inside of torch.compile, DDP and `AveragedModel`."""
    while True:
        within = getattr(model, "_orig_mod", None) or (
            getattr(model, "module", None) if [name for name, _ in model.named_children()] == ["module"] else None
        )
        if not isinstance(within, nn.Module):
            return model
        model = within


def _network_of(checkpoint) -> Mapping:
    """The mapping from keys to tensors, found inside of a checkpoint."""
    if isinstance(checkpoint, nn.Module):
        return checkpoint.state_dict()
    if not isinstance(checkpoint, Mapping):
        kind = type(checkpoint).__name__
        raise ValueError(f"a checkpoint is a state dict, tensors by name, and this one is of type {kind}.")
    for key in CONTAINERS:
        if isinstance(checkpoint.get(key), (Mapping, nn.Module)):
            return _network_of(checkpoint[key])
    if any(isinstance(value, Tensor) and value.dim() for value in checkpoint.values()):
        return checkpoint
    inside = [key for key, value in checkpoint.items() if isinstance(value, nn.Module) or _holds_tensors(value)]
    if len(inside) > 1:
        raise ValueError(
            f"the checkpoint holds several networks, {', '.join(map(str, inside[:8]))}: pass one of them by itself, as "
            f"checkpoint[{inside[0]!r}]."
        )
    return _network_of(checkpoint[inside[0]]) if inside else checkpoint


def _holds_tensors(value) -> bool:
    return isinstance(value, Mapping) and any(isinstance(v, Tensor) and v.dim() for v in value.values())


def _without_wrappers(key: str) -> str:
    return ".".join(part for part in key.split(".") if part not in WRAPPERS)
