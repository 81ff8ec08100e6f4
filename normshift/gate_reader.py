"""Reading the values of a network's gates, and the parameter groups that train them as in the papers."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from normshift.layers import GateParameter, Norm
from normshift.surgery import norm_layers


@dataclass(frozen=True)
class Gate:
    """The values of one kind of gate in one layer.

    Attributes:
        layer: module name.
        depth: position among all norm layers of the network, from 0 at its input.
        norm: the norm's name, such as "sn" or "bin".
        statistic: the kind of gate: "mean" or "var" (SN's two mixtures), "rho" (BIN's gate), or the name that a user's
            own layer gives.
        values: on the CPU, float32, in [0, 1]. SN: the softmax, (len(labels),). BIN: rho, (C,).
        labels: what each value belongs to: SN's statistics ("in", "ln", "bn"), BIN's channel numbers as text.
    """

    layer: str
    depth: int
    norm: str
    statistic: str
    values: Tensor
    labels: tuple[str, ...]


def gates(model: nn.Module) -> list[Gate]:
    """All gates of a network, in order of depth; an empty list if it has none."""
    return GateReader(model).gates()


def announced(layer: nn.Module) -> list[GateParameter]:
    """The gates that a layer announces by its method `gates`; none for other modules than norms.

    Raises:
        ValueError: a gate is no parameter but a tensor computed from one: it would be recorded as it was before
            training, and trained at the learning rate of the weights.
    """
    found = layer.gates() if isinstance(layer, Norm) else []
    for gate in found:
        if not isinstance(gate.parameter, nn.Parameter):
            raise ValueError(
                f"{type(layer).__name__}: gate {gate.statistic!r} is no nn.Parameter: announce the parameter itself, "
                "and by read= how its values are read."
            )
    return found


@dataclass(frozen=True)
class GateSlot:
    """A `Gate` without its values, which are `values[start : start + len(labels)]` of `GateReader.read()`."""

    layer: str
    depth: int
    norm: str
    statistic: str
    labels: tuple[str, ...]
    start: int

    @property
    def slice(self) -> slice:
        return slice(self.start, self.start + len(self.labels))

    @property
    def by_channel(self) -> bool:
        """Whether there is one value for each channel (the labels are numbers) rather than for each statistic."""
        return all(map(str.isdigit, self.labels))


class GateReader:
    """Reads all gates of one network repeatedly; it finds the layers once and copies all values from the GPU at once.

    With a copy for each gate, a network of a hundred switchable norms would synchronise with the GPU two hundred times
    for each reading. Layers that are replaced later are not noticed.

    Args:
        model: any network.

    Attributes:
        slots: which gate has which values, in order of depth; empty if the network has no gates.

    Raises:
        ValueError: a gate is no parameter, or has not as many labels as values. `read` raises it if a gate's function
            returns another shape.
    """

    def __init__(self, model: nn.Module):
        self._parameters: list[nn.Parameter] = []
        self.slots: list[GateSlot] = []
        ranges: dict[tuple[Callable, int], list[range]] = defaultdict(list)  # by function and number of labels
        start = 0
        for depth, (name, layer) in enumerate(norm_layers(model).items()):
            for gate in announced(layer):
                _check_labels(gate, layer, name)
                norm, size = getattr(layer, "norm_name", "") or type(layer).__name__, len(gate.names)
                self.slots.append(GateSlot(name, depth, norm, gate.statistic, gate.names, start))
                self._parameters.append(gate.parameter)
                if gate.read is not None:
                    ranges[gate.read, size].append(range(start, start + size))
                start += size
        self._flat = all(parameter.ndim == 1 for parameter in self._parameters)
        self._read = [(function, torch.tensor(where)) for (function, _), where in ranges.items()]

    @torch.no_grad()
    def read(self) -> Tensor:
        """The values of all gates in one tensor, (values,), on the CPU, float32, in [0, 1]."""
        if not self._parameters:
            return torch.empty(0)
        one_device = len({parameter.device for parameter in self._parameters}) == 1
        pieces = [p.float() if one_device else p.float().cpu() for p in self._parameters]
        values = torch.cat(pieces if self._flat else [piece.flatten() for piece in pieces]).cpu()
        for function, where in self._read:
            given = values[where]  # (gates, labels)
            found = function(given)
            if found.shape != given.shape:
                raise ValueError(
                    f"gate {self._statistic(int(where.flatten()[0]))!r}: read= maps values (gates, labels) to the same "
                    f"shape; given {tuple(given.shape)}, it returned {tuple(found.shape)}."
                )
            values[where] = found
        return values

    def _statistic(self, place: int) -> str:
        return next(slot.statistic for slot in self.slots if place in range(slot.start, slot.slice.stop))

    def gates(self) -> list[Gate]:
        """The values as one record for each gate; records are views of one tensor."""
        values = self.read()
        return [Gate(s.layer, s.depth, s.norm, s.statistic, values[s.slice], s.labels) for s in self.slots]


def _check_labels(gate: GateParameter, layer: nn.Module, name: str) -> None:
    if len(gate.names) != gate.parameter.numel():
        raise ValueError(
            f"{type(layer).__name__} {name!r}: gate {gate.statistic!r} has {gate.parameter.numel()} values and "
            f"{len(gate.names)} labels."
        )


def parameter_groups(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    gate_lr_multiplier: float = 10.0,
    *,
    decay_norms: bool = True,
    decay_biases: bool | None = None,
    decay_gates: bool = False,
) -> list[dict]:
    """Parameter groups for an optimiser, with the learning rates and weight decays that the papers use for gates.

    Fast gates (BIN's rho) get `lr * gate_lr_multiplier` and no weight decay (BIN, section 4.1). Other gates (SN's) get
    `lr` and no weight decay, as in SN's detection code, or `weight_decay` with `decay_gates=True`, as in its ImageNet
    code. All other parameters get `lr` and `weight_decay`.

    Args:
        model: any network.
        lr: learning rate.
        weight_decay: weight decay.
        gate_lr_multiplier: factor of the learning rate of fast gates.
        decay_norms: whether the norms' weights and biases, and the biases of other layers, decay; they do not in Goyal
            et al. (2017).
        decay_biases: whether the biases of linear layers, convolutions and other layers with a weight matrix or kernel
            decay; by default as `decay_norms`. ResNet-RS's code has True with `decay_norms=False`.
        decay_gates: whether gates that are not fast decay.

    Returns:
        Groups with "name", "params", "lr" and "weight_decay", for any torch optimiser. Parameters that do not require
        gradients are left out, and so are empty groups.
    """
    gates = [gate for layer in model.modules() for gate in announced(layer)]
    gated = {id(gate.parameter) for gate in gates}
    rest = [p for p in model.parameters() if id(p) not in gated]
    biases = {id(layer.bias) for layer in model.modules() if _has_kernel(layer)}
    decays = {True: decay_norms if decay_biases is None else decay_biases, False: decay_norms}
    vectors = [p for p in rest if p.ndim <= 1 and not decays[id(p) in biases]]
    kept = {id(p) for p in vectors}
    slow, fast = ([gate.parameter for gate in gates if gate.fast == kind] for kind in (False, True))
    groups: list[dict] = [
        {"name": "weights", "params": [p for p in rest if id(p) not in kept], "lr": lr, "weight_decay": weight_decay},
        {"name": "norms_and_biases", "params": vectors, "lr": lr, "weight_decay": 0.0},
        {"name": "gates", "params": slow, "lr": lr, "weight_decay": weight_decay if decay_gates else 0.0},
        {"name": "fast_gates", "params": fast, "lr": lr * gate_lr_multiplier, "weight_decay": 0.0},
    ]
    groups = [group | {"params": [p for p in group["params"] if p.requires_grad]} for group in groups]
    return [group for group in groups if group["params"]]


def _has_kernel(layer: nn.Module) -> bool:
    """Whether a layer has a bias, and a weight of more than one axis."""
    weight = getattr(layer, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim > 1 and isinstance(getattr(layer, "bias", None), Tensor)
