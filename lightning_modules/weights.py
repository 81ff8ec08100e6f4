"""Reading checkpoints to start from, and finding a classifier's head."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from normshift.checkpoints import unwrapped

DISCRIMINATOR = "discriminator"
"""Where a domain-adversarial training keeps what it needs in training alone."""


def read_checkpoint(path: str) -> dict:
    """What a checkpoint file holds.

    Raises:
        ValueError: the file is no checkpoint that torch can read safely.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the file is, torch says it in another class of error
        raise ValueError(f"{path} cannot be read as a checkpoint: {str(error).splitlines()[0]}") from error


def network_weights(checkpoint: Mapping) -> dict[str, Tensor]:
    """The network's own tensors by key; a module of ours holds them under "net."."""
    state = unwrapped(checkpoint)
    if "pytorch-lightning_version" not in checkpoint:
        return state
    return {key.removeprefix("net."): value for key, value in state.items() if key.startswith("net.")}


def head_of(net: nn.Module) -> str:
    """The name of a classifier's last linear layer, whose input are the network's features.

    Raises:
        ValueError: the network has none.
    """
    linear = [name for name, module in net.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError(f"{type(net).__name__} has no linear layer that could be its classifier.")
    return linear[-1]


def with_own_head(net: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's weights; where its head is for another number of classes, the network's own takes its place.

    So it does where the network has a bottleneck before its classifier (`recipe_networks`) and the checkpoint none.
    """
    head, own = head_of(net), net.state_dict()
    outer = head.removesuffix(".fc")
    if outer != head and f"{outer}.weight" in weights:
        kept = {key: value for key, value in weights.items() if not key.startswith(f"{outer}.")}
        return kept | {key: value for key, value in own.items() if key.startswith(f"{outer}.")}
    keys = [key for key in (f"{head}.weight", f"{head}.bias") if key in own and key in weights]
    other = any(own[key].shape != weights[key].shape for key in keys)
    return {**weights, **({key: own[key] for key in keys} if other else {})}
