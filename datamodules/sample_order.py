"""The order of training images, and how often each is drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler


class Passes(Sampler[int]):
    """Epochs of a given number of images, cut from a sequence of passes, each in a new random order.

    If the last images of a pass are too few for a batch, they are left out. An epoch continues where the one before it
    stopped, as in Transfer-Learning-Library. Each process gets its own share of each pass.

    Args:
        count: images there are. batch_size: images a step and process. steps: steps of an epoch.
        world, rank: processes, and which one this is.

    Raises:
        ValueError: fewer images than one step takes.
    """

    def __init__(self, count: int, batch_size: int, steps: int, world: int = 1, rank: int = 0):
        if count < batch_size * world:
            raise ValueError(f"{count} images are fewer than the {batch_size * world} of one step.")
        self.count, self.batch_size, self.steps, self.world, self.rank = count, batch_size, steps, world, rank
        self._seed, self._passes, self._left = torch.initial_seed() % 10_007, 0, []

    def __len__(self) -> int:
        return self.steps * self.batch_size

    def __iter__(self) -> Iterator[int]:
        for _ in range(self.steps):
            if not self._left:
                self._left = self._another_pass()
            yield from self._left.pop()

    def _another_pass(self) -> list[list[int]]:
        order = torch.Generator().manual_seed(self._seed + 10_007 * self._passes)
        self._passes += 1
        mine = torch.randperm(self.count, generator=order)[self.rank :: self.world]
        whole = self.count // (self.batch_size * self.world) * self.batch_size
        return [batch.tolist() for batch in mine[:whole].split(self.batch_size)][::-1]


class FromEach(Sampler[list[int]]):
    """Batches of as many images from each part of a joined set, drawn with replacement (DomainBed's).

    Args:
        sizes: images of each part, the parts lying one behind the other.
        from_each: images of each part in a batch.
        steps: batches of an epoch.
    """

    def __init__(self, sizes: Sequence[int], from_each: int, steps: int):
        self.sizes, self.from_each, self.steps = tuple(sizes), from_each, steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(self.steps):
            batch, start = [], 0
            for size in self.sizes:
                batch += (start + torch.randint(size, (self.from_each,))).tolist()
                start += size
            yield batch


def is_exact(loader) -> bool:
    return False
