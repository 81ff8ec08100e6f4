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
        depth: position among the layers that were compared, from 0 at the input.
        per_channel: (C,), the symmetric Kullback-Leibler divergence in nats between two Gaussians: the channel's mean
            activation over the images of one domain, and over those of the other.
        total: the sum over the channels.
        mean: the mean over the channels, for comparing layers of different widths.
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
    """The divergence between a network's features of two domains, layer by layer.

    A channel's mean activation is one number for each image, modelled as Gaussian over the images of a domain. The
    divergence is `D = KL(a || b) + KL(b || a)` (IBN-Net, Pan et al., ECCV 2018, eq. 1-3).

    Behind an instance norm the mean activation of every image is the norm's bias, so the divergence there is 0 by
    construction; remaining differences between the domains show in later layers.

    Args:
        model: runs in evaluation mode, without gradients; its mode is restored afterwards.
        loader_a, loader_b: batches of images, or tuples whose first entry is one; at least two images each.
        layers: names of the modules whose output is compared, in order; by default all norm layers.
        eps: added to the variances, so that a dead channel has divergence 0.

    Returns:
        One record for each layer, in order of depth.

    Raises:
        ValueError: a domain has fewer than two images.
    """
    names = list(norm_layers(model)) if layers is None else list(layers)
    (mean_a, var_a), (mean_b, var_b) = (_channel_gaussians(model, loader, names) for loader in (loader_a, loader_b))
    records = []
    for depth, name in enumerate(names):
        if name not in mean_a or name not in mean_b:
            continue  # the layer did not run, such as an auxiliary head
        va, vb = var_a[name] + eps, var_b[name] + eps
        distance = (mean_a[name] - mean_b[name]).square()
        # in the sum of both directions the logarithms cancel; the two terms of -1/2 give the -1
        records.append(Divergence(name, depth, ((va + distance) / vb + (vb + distance) / va) / 2 - 1))
    return records


@torch.no_grad()
def _channel_gaussians(model: nn.Module, loader: Iterable, names: list[str]) -> tuple[dict, dict]:
    """Mean and variance, over the images, of each channel's spatial mean: two dicts from layer name to (C,)."""
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
            with torch.compiler.set_stance("force_eager"):  # compiled code would not run the hooks
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
