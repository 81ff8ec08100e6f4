"""What a norm layer has learned, channel by channel, in a form that every other norm layer can take.

A record maps "weight", "bias", "running_mean", "running_var" (C,), and where a layer has them "mean_weight",
"var_weight", "rho", "num_batches_tracked", to tensors. Layers that split their channels (IBN) are joined in it, and the
published checkpoints' shapes and names are made one.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from normshift.layers import IBN2d

CHANNELWISE = ("weight", "bias", "running_mean", "running_var")
GATES = ("mean_weight", "var_weight", "rho")
RENAMED = {"gate": "rho"}  # Batch-Instance Normalization's published checkpoints
_UNTRACKED = {"running_mean": torch.zeros, "running_var": torch.ones}  # what IN's half of an IBN layer never measured


def record(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The record in one layer's state, as it stands in `state_dict` or in a published checkpoint."""
    if "IN.weight" in state and "BN.weight" in state:
        joined = {key: _join(state, key) for key in CHANNELWISE if f"BN.{key}" in state}
        return joined | {k.removeprefix("BN."): v for k, v in state.items() if k == "BN.num_batches_tracked"}
    named = {RENAMED.get(key, key): value for key, value in state.items()}
    # Switchable Normalization publishes (1, C, 1, 1) and (1, C, 1)
    return {key: value.flatten() if key in CHANNELWISE else value for key, value in named.items()}


def layer_record(layer: nn.Module) -> dict[str, Tensor]:
    """The record of a layer; buffers count too, since frozen batch norms keep everything in buffers."""
    state = {**dict(layer.named_parameters()), **dict(layer.named_buffers())}
    return record({key: value.detach() for key, value in state.items()})


def state_for(layer: nn.Module, learned: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The part of a record that `layer` has a place for, under the layer's own key names."""
    if not isinstance(layer, IBN2d):
        own = layer.state_dict()
        return {key: value for key, value in learned.items() if key in own}
    state = {f"{half}.{key}": value for key, value in learned.items() if key in CHANNELWISE
             for half, value in zip(("IN", "BN"), value.tensor_split([layer.half]), strict=True)}  # fmt: skip
    if "num_batches_tracked" in learned:
        state["BN.num_batches_tracked"] = learned["num_batches_tracked"]
    return {key: value for key, value in state.items() if key in layer.state_dict()}


def _join(state: Mapping[str, Tensor], key: str) -> Tensor:
    rest = state[f"BN.{key}"]
    if f"IN.{key}" in state:
        return torch.cat([state[f"IN.{key}"], rest])
    return torch.cat([_UNTRACKED[key](len(state["IN.weight"]), dtype=rest.dtype, device=rest.device), rest])
