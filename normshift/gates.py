"""What the gates of a network have learned, and how they are to be trained."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from normshift.layers import BatchInstanceNorm, SwitchNorm
from normshift.surgery import norm_layers


@dataclass(frozen=True)
class Gate:
    """The gates of one layer.

    Attributes:
        layer: module name. depth: position among all norm layers of the network, from 0 at its input.
        norm: "sn" or "bin". statistic: "mean" or "var" (SN's two mixtures), or "rho" (BIN's gate).
        values: on the CPU, float32. SN: the softmax, (len(labels),). BIN: rho, (C,).
        labels: what each value stands for: SN's statistics ("in", "ln", "bn"), BIN's channel numbers as text.
    """

    layer: str
    depth: int
    norm: str
    statistic: str
    values: Tensor
    labels: tuple[str, ...]


def gates(model: nn.Module) -> list[Gate]:
    """The gates of every switchable and batch-instance norm in a network, in order of depth; empty without any."""
    return GateReader(model).gates()


@dataclass(frozen=True)
class Place:
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


class GateReader:
    """Reads all gates of one network, again and again: its layers are looked up once, and one copy brings all values.

    A network of a hundred gated layers on a GPU would otherwise be waited for two hundred times. Layers that are
    exchanged afterwards are not seen.

    Args:
        model: any network.

    Attributes:
        places: what stands where in the values, in order of depth; empty where a network has no gates.
    """

    def __init__(self, model: nn.Module):
        self._parameters: list[nn.Parameter] = []
        self.places: list[Place] = []
        start = 0
        for depth, (name, layer) in enumerate(norm_layers(model).items()):
            for statistic, parameter, labels in _gated(layer):
                norm = "bin" if statistic == "rho" else "sn"
                self.places.append(Place(name, depth, norm, statistic, labels, start))
                self._parameters.append(parameter)
                start += len(labels)
        mixed = [place for place in self.places if place.norm == "sn"]
        self._mixtures = [  # where the logits of all mixtures of as many statistics stand: (mixtures, statistics)
            torch.tensor([range(place.start, place.start + size) for place in mixed if len(place.labels) == size])
            for size in sorted({len(place.labels) for place in mixed})
        ]

    @torch.no_grad()
    def read(self) -> Tensor:
        """All values in one tensor on the CPU, float32: the shares of SN's mixtures, and rho."""
        if not self._parameters:
            return torch.empty(0)
        one_device = len({parameter.device for parameter in self._parameters}) == 1
        pieces = [p.float() if one_device else p.float().cpu() for p in self._parameters]
        values = torch.cat(pieces).cpu()
        for where in self._mixtures:
            values[where] = values[where].softmax(1)
        return values

    def gates(self) -> list[Gate]:
        """The same as records, each a view of what was read."""
        values = self.read()
        return [Gate(p.layer, p.depth, p.norm, p.statistic, values[p.slice], p.labels) for p in self.places]


def _gated(layer: nn.Module) -> list[tuple[str, nn.Parameter, tuple[str, ...]]]:
    """The statistic, the parameter and the labels of each of a layer's gates."""
    if isinstance(layer, SwitchNorm):
        return [("mean", layer.mean_weight, layer.statistics), ("var", layer.var_weight, layer.statistics)]
    if isinstance(layer, BatchInstanceNorm):
        return [("rho", layer.rho, tuple(map(str, range(layer.num_features))))]
    return []


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
    """Optimiser groups that train gates as the papers do.

    rho: learning rate times `gate_lr_multiplier`, no weight decay (BIN, section 4.1). SN's gates: no weight decay, as
    in SN's detection code; `decay_gates=True` lets them decay like the rest, as in its ImageNet code.
    Everything else: `lr` and `weight_decay`; with `decay_norms=False`, norms' weights and biases, and the biases of
    other layers, do not decay (Goyal et al. 2017).

    Args:
        decay_biases: whether biases of layers that have a weight matrix or kernel decay, linear layers and convolutions
            for example; by default what `decay_norms` says. ResNet-RS's code: True beside `decay_norms=False`.

    Returns:
        Groups with "name", "params", "lr" and "weight_decay", for any torch optimiser; a group without parameters is
        left out, and so are parameters that do not require gradients.
    """
    switch, rho = [], []
    for layer in model.modules():
        if isinstance(layer, SwitchNorm):
            switch += [layer.mean_weight, layer.var_weight]
        if isinstance(layer, BatchInstanceNorm):
            rho.append(layer.rho)
    gated = {id(p) for p in (*switch, *rho)}
    rest = [p for p in model.parameters() if id(p) not in gated]
    biases = {id(layer.bias) for layer in model.modules() if _has_kernel(layer)}
    decays = {True: decay_norms if decay_biases is None else decay_biases, False: decay_norms}
    vectors = [p for p in rest if p.ndim <= 1 and not decays[id(p) in biases]]  # what scales or shifts a channel
    kept = {id(p) for p in vectors}
    groups = [
        {"name": "weights", "params": [p for p in rest if id(p) not in kept], "lr": lr, "weight_decay": weight_decay},
        {"name": "norms_and_biases", "params": vectors, "lr": lr, "weight_decay": 0.0},
        {"name": "sn_gates", "params": switch, "lr": lr, "weight_decay": weight_decay if decay_gates else 0.0},
        {"name": "rho", "params": rho, "lr": lr * gate_lr_multiplier, "weight_decay": 0.0},
    ]
    groups = [group | {"params": [p for p in group["params"] if p.requires_grad]} for group in groups]
    return [group for group in groups if group["params"]]


def _has_kernel(layer: nn.Module) -> bool:
    """Whether a layer has a bias, and a weight that is more than a factor for each channel."""
    weight = getattr(layer, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim > 1 and isinstance(getattr(layer, "bias", None), Tensor)
