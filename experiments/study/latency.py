"""How long a network takes for an image, measured on the machine at hand."""

import statistics
import time

import torch
from torch import Tensor, nn

WARM_UP = 3
"""Passes that are not timed: the first ones choose algorithms and fetch memory."""


def latency(network: nn.Module, image_size: int, *, batch_size: int = 1, repeats: int = 20) -> float:
    """Milliseconds an image in inference: the median of timed passes, over the images of a batch.

    In float32, on the device that holds the network. Weights do not matter, so the network need not be trained. A GPU's
    work is waited for before and after each pass.

    Args:
        network: takes (N, 3, image_size, image_size); its mode is put back afterwards.
        batch_size: images a pass. One is what a user waits for; many are what a server gets done.
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
    if images.is_cuda:  # a GPU works behind the program's back
        torch.cuda.synchronize(images.device)
