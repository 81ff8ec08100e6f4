"""What a norm's traffic takes by itself: torch's plainest passes over memory, which do nothing else.

No norm with statistics of its own can do with less than these passes, n being the bytes of the activation:

    forward    read x for its moments                          n read
               read x, write y                                 n read, n written
    backward   read x and dy for the gradients of moments      2 n read
               read x and dy, write dx                         2 n read, n written

The floor is these four (in evaluation the first two), one after the other, over buffers that are there already: it
allocates nothing and computes next to nothing. Batch norm in evaluation, alone, needs the second pass only. It is a
yardstick and no law: what lies in a cache between two passes, or is written past the caches, can come out below it.

Which operation reads fastest differs between machines, libraries and sizes, so several are tried and the fastest is
taken. All work on float32 buffers of as many bytes: narrow types are a matter of bytes here, not of arithmetic.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from paired import Candidate, seconds_a_call

PASSES = {"train": 8, "eval": 3}
"""Bytes read and written, in bytes of the activation."""

READS: dict[str, Callable[..., object]] = {
    "dot": lambda *buffers: torch.dot(buffers[0], buffers[-1]),
    "sum": lambda *buffers: [buffer.sum() for buffer in buffers],
    "amax": lambda *buffers: [buffer.amax() for buffer in buffers],
    "norm": lambda *buffers: [torch.linalg.vector_norm(buffer) for buffer in buffers],
}


def floor(size: int, mode: str, device: str) -> Candidate:
    """The passes over an activation of `size` bytes, with the fastest way to read."""
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
    """Bytes read and written in a second by copying `size` bytes, the median of several tries."""
    source, target = (torch.randn(size // 4, device=device) for _ in range(2))
    candidate = Candidate(lambda: target.copy_(source))
    times = sorted(seconds_a_call(candidate, 3, device) for _ in range(tries))
    return 2 * size / times[tries // 2]
