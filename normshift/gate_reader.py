"""What the gates of a network have learned, and how they are to be trained."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from normshift.layers import GateParameter, Norm
from normshift.surgery import norm_layers


@dataclass(frozen=True)
class Gate:
    """The gates of one kind of one layer.

    Attributes:
        layer: module name.
        depth: position among all norm layers of the network, from 0 at its input.
        norm: the norm's name, "sn" or "bin" for example.
        statistic: what these gates decide on: "mean" or "var" (SN's two mixtures), "rho" (BIN's gate), or what a user's
            own layer calls it.
        values: on the CPU, float32, in [0, 1]. SN: the softmax, (len(labels),). BIN: rho, (C,).
        labels: what each value stands for: SN's statistics ("in", "ln", "bn"), BIN's channel numbers as text.
    """

    layer: str
    depth: int
    norm: str
    statistic: str
    values: Tensor
    labels: tuple[str, ...]


def gates(model: nn.Module) -> list[Gate]:
    """The gates of every layer in a network that has any, in order of depth; empty without."""
    return GateReader(model).gates()


def announced(layer: nn.Module) -> list[GateParameter]:
    """A layer's gates: whatever kind it is of, it says them itself.

    Raises:
        ValueError: what it announces is no parameter, but a tensor made of one: its values would be read once and stay
            as they were, and its learning rate would be the weights'.
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
    """Which gates these are: a `Gate` without its values, which are `values[start : start + len(labels)]`."""

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
        """Whether the values are the channels' own, labelled with numbers; otherwise they are shares."""
        return all(map(str.isdigit, self.labels))


class GateReader:
    """Reads all gates of one network, again and again: its layers are looked up once, and one copy brings all values.

    A network of a hundred gated layers on a GPU would otherwise be waited for two hundred times. Layers that are
    exchanged afterwards are not seen.

    Args:
        model: any network.

    Attributes:
        slots: what stands where in the values, in order of depth; empty where a network has no gates.

    Raises:
        ValueError: a layer announces what is no parameter, or other than one label for each value of a gate. `read`
            raises it where a gate's own function returns another shape than it was given.
    """

    def __init__(self, model: nn.Module):
        self._parameters: list[nn.Parameter] = []
        self.slots: list[GateSlot] = []
        read: dict[tuple[Callable, int], list[range]] = defaultdict(list)  # by function and number of labels
        start = 0
        for depth, (name, layer) in enumerate(norm_layers(model).items()):
            for gate in announced(layer):
                _check_labels(gate, layer, name)
                norm, size = getattr(layer, "norm_name", "") or type(layer).__name__, len(gate.names)
                self.slots.append(GateSlot(name, depth, norm, gate.statistic, gate.names, start))
                self._parameters.append(gate.parameter)
                if gate.read is not None:
                    read[gate.read, size].append(range(start, start + size))
                start += size
        self._flat = all(parameter.ndim == 1 for parameter in self._parameters)
        self._read = [(function, torch.tensor(where)) for (function, _), where in read.items()]

    @torch.no_grad()
    def read(self) -> Tensor:
        """All values in one tensor on the CPU, float32, in [0, 1]."""
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
        """The same as records, each a view of what was read."""
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
    """Optimiser groups that train gates as the papers do, each as its layer announces it (`GateParameter`).

    Fast gates (rho): learning rate times `gate_lr_multiplier`, no weight decay (BIN, section 4.1). Others (SN's): no
    weight decay, as in SN's detection code; `decay_gates=True` lets them decay like the rest, as in its ImageNet code.
    Everything else: `lr` and `weight_decay`; with `decay_norms=False`, norms' weights and biases, and the biases of
    other layers, do not decay (Goyal et al. 2017).

    Args:
        decay_biases: whether biases of layers that have a weight matrix or kernel decay, linear layers and convolutions
            for example; by default what `decay_norms` says. ResNet-RS's code: True beside `decay_norms=False`.

    Returns:
        Groups with "name", "params", "lr" and "weight_decay", for any torch optimiser; a group without parameters is
        left out, and so are parameters that do not require gradients.
    """
    gates = [gate for layer in model.modules() for gate in announced(layer)]
    gated = {id(gate.parameter) for gate in gates}
    rest = [p for p in model.parameters() if id(p) not in gated]
    biases = {id(layer.bias) for layer in model.modules() if _has_kernel(layer)}
    decays = {True: decay_norms if decay_biases is None else decay_biases, False: decay_norms}
    vectors = [p for p in rest if p.ndim <= 1 and not decays[id(p) in biases]]  # what scales or shifts a channel
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
    """Whether a layer has a bias, and a weight that is more than a factor for each channel."""
    weight = getattr(layer, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim > 1 and isinstance(getattr(layer, "bias", None), Tensor)
