"""How far apart two domains are inside a network, layer by layer (IBN-Net, section 3.1 and fig. 2)."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from normshift.surgery import norm_layers


@dataclass(frozen=True)
class Divergence:
    """Feature divergence of one layer's output between two domains.

    Attributes:
        layer: module name.
        depth: position among the layers looked at, from 0 at the input.
        per_channel: (C,) symmetric Kullback-Leibler divergence, in nats, of the Gaussians that fit each channel's mean
            activation over the images of either domain.
        total: their sum over the channels.
        mean: their mean, which compares layers of different widths.
    """

    layer: str
    depth: int
    per_channel: Tensor

    @property
    def total(self) -> float:
        return self.per_channel.sum().item()

    @property
    def mean(self) -> float:
        return self.per_channel.mean().item()


def feature_divergence(
    model: nn.Module, loader_a: Iterable, loader_b: Iterable, *, layers: Iterable[str] | None = None, eps: float = 1e-6
) -> list[Divergence]:
    """Compare what a network sees in two domains.

    For each channel of a layer, the mean activation of an image is taken as Gaussian over a domain's images, and
    `D = KL(a || b) + KL(b || a)` (IBN-Net, eq. 1-3).

    Behind an instance norm the mean activation of every image is the norm's bias, so its divergence is 0 by
    construction; what the domains still differ in shows in the layers that follow.

    Args:
        model: run in evaluation mode and without gradients; its mode is put back afterwards.
        loader_a, loader_b: batches of images, or tuples that begin with one; two images or more in each.
        layers: names of the modules to look at, in order; by default the output of every norm layer.
        eps: added to the variances, so that a dead channel counts as no divergence.

    Returns:
        One record a layer, in order of depth.

    Raises:
        ValueError: where a domain has fewer than two images.
    """
    names = list(norm_layers(model)) if layers is None else list(layers)
    (mean_a, var_a), (mean_b, var_b) = (_channel_gaussians(model, loader, names) for loader in (loader_a, loader_b))
    records = []
    for depth, name in enumerate(names):
        if name not in mean_a or name not in mean_b:
            continue  # never run: an auxiliary head, say
        va, vb = var_a[name] + eps, var_b[name] + eps
        distance = (mean_a[name] - mean_b[name]).square()
        # the logarithms of the two directions cancel, and so do their two halves of -1/2 against the ratios at va = vb
        records.append(Divergence(name, depth, ((va + distance) / vb + (vb + distance) / va) / 2 - 1))
    return records


@torch.no_grad()
def _channel_gaussians(model: nn.Module, loader: Iterable, names: list[str]) -> tuple[dict, dict]:
    """Mean and variance over the images, per layer and channel, of the spatial mean of the activation."""
    seen: dict[str, list[Tensor]] = {name: [] for name in names}

    def watch(name: str):
        def hook(module: nn.Module, inputs: tuple, output: Tensor) -> None:
            spatial = tuple(range(2, output.dim()))
            seen[name].append((output.mean(spatial, dtype=torch.float64) if spatial else output.double()).cpu())

        return hook

    modules = dict(model.named_modules(remove_duplicate=False))
    handles = [modules[name].register_forward_hook(watch(name)) for name in names]
    training = {module: module.training for module in model.modules()}
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    images = 0
    try:
        model.eval()
        for batch in loader:
            batch = batch[0] if isinstance(batch, (tuple, list)) else batch
            images += len(batch)
            model(batch.to(device))
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in training.items():
            module.training = mode
    if images < 2:
        raise ValueError(f"feature divergence needs two images or more of a domain, got {images}.")
    stacked = {name: torch.cat(means) for name, means in seen.items() if means}
    return {n: m.mean(0) for n, m in stacked.items()}, {n: m.var(0) for n, m in stacked.items()}
