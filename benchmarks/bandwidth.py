"""The time for a norm's memory traffic alone: torch's simplest passes over memory, without the norm's arithmetic.

A norm that computes statistics needs at least these passes, where n is the size of the activation in bytes:

    forward    read x for its moments                          n read
               read x, write y                                 n read, n written
    backward   read x and dy for the gradients of moments      2 n read
               read x and dy, write dx                         2 n read, n written

The floor is the time of these four passes (in evaluation of the first two), one after the other, over existing buffers,
without allocation and almost without computation. (Batch norm in evaluation needs only the second pass.) A norm can be
faster than the floor if data stay in a cache between two passes, or are written around the caches.

The fastest operation for reading differs between machines, libraries and sizes, so several are tried. All passes use
float32 buffers with the activation's number of bytes, also for 16-bit activations.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from paired import Candidate, seconds_a_call

PASSES = {"train": 8, "eval": 3}
"""Bytes read and written, as multiples of the activation's size."""

READS: dict[str, Callable[..., object]] = {
    "dot": lambda *buffers: torch.dot(buffers[0], buffers[-1]),
    "sum": lambda *buffers: [buffer.sum() for buffer in buffers],
    "amax": lambda *buffers: [buffer.amax() for buffer in buffers],
    "norm": lambda *buffers: [torch.linalg.vector_norm(buffer) for buffer in buffers],
}


def floor(size: int, mode: str, device: str) -> Candidate:
    """The passes over an activation of `size` bytes, with the fastest operation for reading."""
    x, dy, y, dx = (torch.randn(max(1, size // 4), device=device) for _ in range(4))
    read_one, read_two = fastest_read(device, x), fastest_read(device, x, dy)

    def forward() -> None:
        read_one(x)
        y.copy_(x)

    def both() -> None:
        forward()
        read_two(x, dy)
        torch.add(x, dy, out=dx)

    return Candidate(both if mode == "train" else forward)


def fastest_read(device: str, *buffers: Tensor, tries: int = 5) -> Callable[..., object]:
    times = {}
    for name, read in READS.items():
        candidate = Candidate(lambda read=read: read(*buffers))
        times[name] = min(seconds_a_call(candidate, 3, device) for _ in range(tries))
    return READS[min(times, key=times.get)]


def copy_bandwidth(size: int, device: str, tries: int = 9) -> float:
    """Bytes read and written per second when `size` bytes are copied; the median of several tries."""
    source, target = (torch.randn(size // 4, device=device) for _ in range(2))
    candidate = Candidate(lambda: target.copy_(source))
    times = sorted(seconds_a_call(candidate, 3, device) for _ in range(tries))
    return 2 * size / times[tries // 2]
