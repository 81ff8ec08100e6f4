"""What the gates of a network have learned, and how they are to be trained."""

from dataclasses import dataclass

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
    found = []
    for depth, (name, layer) in enumerate(norm_layers(model).items()):
        if isinstance(layer, SwitchNorm):
            for statistic, logits in (("mean", layer.mean_weight), ("var", layer.var_weight)):
                values = logits.detach().float().softmax(0).cpu()
                found.append(Gate(name, depth, "sn", statistic, values, layer.statistics))
        if isinstance(layer, BatchInstanceNorm):
            values = layer.rho.detach().float().cpu().clone()
            found.append(Gate(name, depth, "bin", "rho", values, tuple(map(str, range(layer.num_features)))))
    return found


def parameter_groups(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    gate_lr_multiplier: float = 10.0,
    *,
    decay_norms: bool = True,
) -> list[dict]:
    """Optimiser groups that train gates as the papers do.

    rho: learning rate times `gate_lr_multiplier`, no weight decay (BIN, section 4.1). SN's gates: no weight decay.
    Everything else: `lr` and `weight_decay`; with `decay_norms=False`, norms' weights and biases, and the biases of
    other layers, do not decay (as ResNet-RS trains, and Goyal et al. 2017 before it).

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
    vectors = [] if decay_norms else [p for p in rest if p.ndim <= 1]  # what scales or shifts a channel
    kept = {id(p) for p in vectors}
    groups = [
        {"name": "weights", "params": [p for p in rest if id(p) not in kept], "lr": lr, "weight_decay": weight_decay},
        {"name": "norms_and_biases", "params": vectors, "lr": lr, "weight_decay": 0.0},
        {"name": "sn_gates", "params": switch, "lr": lr, "weight_decay": 0.0},
        {"name": "rho", "params": rho, "lr": lr * gate_lr_multiplier, "weight_decay": 0.0},
    ]
    groups = [group | {"params": [p for p in group["params"] if p.requires_grad]} for group in groups]
    return [group for group in groups if group["params"]]
