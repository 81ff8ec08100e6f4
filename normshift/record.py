"""A record: the parameters and statistics of a norm layer, in a form that fits every other norm layer.

It maps "weight", "bias", "running_mean", "running_var" (C,) and, if the layer has them, the names of gates and
"num_batches_tracked" to tensors. Layers that split their channels (IBN) have one record for all channels. The shapes
and key names of published checkpoints are translated.
"""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from normshift.layers import IBN2d, Norm

CHANNELWISE = {"weight", "bias", "running_mean", "running_var"}


def record(state: Mapping[str, Tensor], layer: nn.Module) -> dict[str, Tensor]:
    """The record of one layer's state in a published checkpoint, for `layer`, which may be of another kind."""
    own_name = published_names(layer)
    named = {own_name.get(key, key): value for key, value in state.items()}
    # Switchable Normalization publishes (1, C, 1, 1) and (1, C, 1)
    return {key: value.flatten() if key in CHANNELWISE and _is_a_row(value) else value for key, value in named.items()}


def _is_a_row(value: Tensor) -> bool:
    return value.numel() == max(value.shape, default=1)


def state_for(layer: nn.Module, learned: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries of a record that `layer` has in its state dict, under the layer's own key names."""
    own = layer.state_dict()
    if not isinstance(layer, IBN2d):
        return {key: value for key, value in learned.items() if key in own}
    state: dict[str, Tensor] = {}
    for key, value in learned.items():
        shares = value.tensor_split([layer.first]) if key in CHANNELWISE else (value, value)
        state |= {f"{part}.{key}": share for part, share in zip(layer.parts(), shares, strict=True)}
    return {key: value for key, value in state.items() if key in own}


def published_names(layer: nn.Module) -> dict[str, str]:
    """Names of a layer's parameters in published checkpoints -> names in the layer."""
    return layer.published_names if isinstance(layer, Norm) else {}


def gate_keys(layer: nn.Module) -> set[str]:
    """Names of a layer's parameters that are gates."""
    found = {id(gate.parameter) for gate in layer.gates()} if isinstance(layer, Norm) else set()
    return {name for name, parameter in layer.named_parameters(remove_duplicate=False) if id(parameter) in found}


def channels_of(layer: nn.Module) -> int:
    """The number of channels of any norm layer; 0 for a lazy layer that has seen no batch yet."""
    count = getattr(layer, "num_features", None) or getattr(layer, "num_channels", None)
    weight = getattr(layer, "weight", None)
    return count or (0 if weight is None or isinstance(layer, LazyModuleMixin) else len(weight))


def dims_of(layer: nn.Module) -> int | None:
    """The number of spatial dimensions of a norm layer's input; None if it accepts several, or does not say."""
    if hasattr(layer, "dims"):
        return layer.dims
    if isinstance(layer, Norm):
        return {(2, 3): 1, (4,): 2, (5,): 3}.get(layer.ndims)
    for base in type(layer).__mro__:
        if base.__name__[-2:] in ("1d", "2d", "3d"):
            return int(base.__name__[-2])
    return None
