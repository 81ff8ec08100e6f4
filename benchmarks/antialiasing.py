"""The cost of anti-aliasing: time of forward and backward pass, and memory kept between them; plain network = 1.

    python benchmarks/antialiasing.py

Each round runs the plain network and its anti-aliased copies in turn, so that other load on the machine affects all of
them equally. Ratios are between runs of the same round; the median, lowest and highest are printed. Memory is what
autograd keeps for the backward pass, without parameters, each storage counted once; on a GPU also the peak.
"""

import argparse
import copy
import statistics
import time

import torch
import torchvision
from torch import nn

from kept import bytes_kept
from normshift import antialias

NETWORKS = ("resnet18", "resnet50", "mobilenet_v2", "densenet121")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS, help="torchvision's names")
    parser.add_argument("--filters", type=int, nargs="+", default=(3, 4, 5), help="filter sizes")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--size", type=int, default=224, help="of the images, in pixels")
    parser.add_argument("--rounds", type=int, default=10, help="timed passes of each network")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--channels-last", action="store_true")
    flags = parser.parse_args()
    layout = torch.channels_last if flags.channels_last else torch.contiguous_format
    images = torch.randn(flags.batch_size, 3, flags.size, flags.size, device=flags.device)
    images = images.to(memory_format=layout)
    print(
        "| network | filter | time, plain = 1 (lowest-highest) | kept for backward, MB | plain = 1 | peak, plain = 1 |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: |", flush=True)
    for name in flags.networks:
        plain = getattr(torchvision.models, name)().to(flags.device, memory_format=layout).train()
        arms = {0: plain} | {size: antialias(copy.deepcopy(plain), size) for size in flags.filters}
        kept = {size: kept_by(network, images) for size, network in arms.items()}
        seconds: dict[int, list[float]] = {size: [] for size in arms}
        peaks: dict[int, int] = {}
        for measured in range(flags.rounds + 1):
            for size, network in arms.items():
                elapsed, peaks[size] = one_pass(network, images)
                if measured:  # the first round is a warm-up
                    seconds[size].append(elapsed)
        for size in arms:
            ratios = [s / p for s, p in zip(seconds[size], seconds[0], strict=True)]
            spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
            peak = f"{peaks[size] / peaks[0]:.2f}" if peaks[0] else "-"
            time_ = spread if size else f"{statistics.median(seconds[0]):.3f} s"
            memory = f"{kept[size] / 1e6:.0f} | {kept[size] / kept[0]:.2f}"
            print(f"| {name} | {size or 'plain'} | {time_} | {memory} | {peak} |", flush=True)


def one_pass(network: nn.Module, images: torch.Tensor) -> tuple[float, int]:
    """Seconds of a forward and backward pass, and its peak of GPU memory in bytes (0 on a CPU)."""
    on_gpu = images.is_cuda
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    before, started = torch.cuda.memory_allocated() if on_gpu else 0, time.perf_counter()
    network(images).sum().backward()
    if on_gpu:
        torch.cuda.synchronize()
    elapsed = time.perf_counter() - started
    peak = torch.cuda.max_memory_allocated() - before if on_gpu else 0
    network.zero_grad(set_to_none=True)
    return elapsed, peak


def kept_by(network: nn.Module, images: torch.Tensor) -> int:
    """Bytes that autograd keeps for the backward pass, without parameters, buffers and images."""
    return bytes_kept(lambda: network(images), (*network.parameters(), *network.buffers(), images))


if __name__ == "__main__":
    main()
