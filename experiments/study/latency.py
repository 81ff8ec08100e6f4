"""The inference latency of a network on this machine."""

import statistics
import time

import torch
from torch import Tensor, nn

WARM_UP = 3
"""Untimed first passes, which choose algorithms and allocate memory."""


def latency(network: nn.Module, image_size: int, *, batch_size: int = 1, repeats: int = 20) -> float:
    """Milliseconds per image in inference: the median time of a pass, divided by the images of a batch.

    Measured in float32, on the network's device. The network need not be trained, since weights do not matter. The GPU
    is synchronised before and after each pass.

    Args:
        network: takes (N, 3, image_size, image_size); its training mode is restored afterwards.
        batch_size: images per pass: one for the latency of a single request, many for a server's throughput.
    """
    device = next(network.parameters()).device
    images = torch.randn(batch_size, 3, image_size, image_size, device=device)
    training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            times = [_pass(network, images) for _ in range(WARM_UP + repeats)][WARM_UP:]
    finally:
        network.train(training)
    return 1000 * statistics.median(times) / batch_size


def _pass(network: nn.Module, images: Tensor) -> float:
    """Seconds of one pass."""
    _settle(images)
    started = time.perf_counter()
    network(images)
    _settle(images)
    return time.perf_counter() - started


def _settle(images: Tensor) -> None:
    if images.is_cuda:  # a GPU works asynchronously
        torch.cuda.synchronize(images.device)
