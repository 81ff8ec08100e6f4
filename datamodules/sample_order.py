"""The order of training samples and the seed of each one's augmentation, as functions of the seed and the epoch.

Nothing is drawn while a training runs. So the number of loader processes does not matter, a training continues in the
middle of an epoch, and with the same number of samples in a step over all processes, the number of these does not
matter either.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler


class Draw(NamedTuple):
    """A sample to read, and the seed of its augmentation."""

    what: Any  # the index, or whatever the set's `__getitem__` takes
    seed: int


class Order(Protocol):
    """The order of an epoch's samples over all processes."""

    def batches(self, size: int) -> int:
        """Batches of `size` samples in an epoch."""
        ...

    def epoch(self, keys: Sequence[int], first: int, size: int) -> Sequence:
        """What is read in one epoch, at least as much as its batches take.

        Args:
            keys: of the random numbers: the seed and what else tells this order from others.
            first: number of the epoch's first batch, counted over all epochs.
            size: samples of a batch.
        """
        ...


class Shuffled:
    """Every sample once in an epoch, each epoch in an order of its own.

    Args:
        count: samples there are.
        keep_last: keep the last, smaller batch.
    """

    def __init__(self, count: int, keep_last: bool = False):
        self.count, self.keep_last = count, keep_last

    def batches(self, size: int) -> int:
        return -(-self.count // size) if self.keep_last else self.count // size

    def epoch(self, keys: Sequence[int], first: int, size: int) -> np.ndarray:
        return _permutation(self.count, *keys, first // max(1, self.batches(size)))


class Passes:
    """Epochs of a given number of batches, cut from a sequence of passes, each in an order of its own.

    If the last samples of a pass are too few for a step, they are left out. An epoch continues where the one before it
    stopped, as in Transfer-Learning-Library.

    Args:
        count: samples there are. steps: batches of an epoch.
        accumulate: batches whose gradients make one step.
    """

    def __init__(self, count: int, steps: int, accumulate: int = 1):
        self.count, self.steps, self.accumulate = count, steps, accumulate

    def batches(self, size: int) -> int:
        if self.count < size * self.accumulate:
            raise ValueError(f"{self.count} images are fewer than the {size * self.accumulate} of one step.")
        return self.steps

    def epoch(self, keys: Sequence[int], first: int, size: int) -> np.ndarray:
        each = self.count // (size * self.accumulate) * self.accumulate  # batches of a pass
        passes = range(first // each, (first + self.steps - 1) // each + 1)
        orders = [_permutation(self.count, *keys, number)[: each * size] for number in passes]
        return np.concatenate(orders)[first % each * size :]


class FromEach:
    """Batches of as many samples from each part of a joined set, drawn with replacement (DomainBed's).

    Args:
        sizes: samples of each part, the parts lying one behind the other.
        steps: batches of an epoch.
    """

    def __init__(self, sizes: Sequence[int], steps: int):
        self.sizes, self.steps = np.array(sizes), steps

    def batches(self, size: int) -> int:
        return self.steps

    def epoch(self, keys: Sequence[int], first: int, size: int) -> np.ndarray:
        parts = len(self.sizes)
        draw = np.random.default_rng([*keys, first // self.steps])
        drawn = draw.integers(self.sizes, size=(self.steps * size // parts, parts))  # one of each part in turn
        return (drawn + np.cumsum(self.sizes) - self.sizes).reshape(-1)


class TrainingOrder(Sampler[list[Draw]]):
    """The batches of one process, from where the training stands to the end of its epoch: a loader's `batch_sampler`.

    Batch n of an epoch is the samples from n W b to (n + 1) W b of the order, of which each of the W processes takes b.
    If the last batch of an epoch is smaller and cannot be shared equally, it is filled up from the start of the order.

    Args:
        order: of the samples of all processes.
        size: samples of a batch in this process.
        seed: of the training. stream: tells apart loaders of one training.
        world, rank: processes, and which one this is.
        parts: the order takes one sample of each part in turn, as `FromEach`; a batch has them part by part.
        position: says where the training stands whenever the order is iterated: the epoch, and how many of its batches
            are done. If these are more than there are here, the order has been repeated within the epoch, and each time
            it is another one.

    Raises:
        ValueError: fewer samples than one step takes.
    """

    def __init__(
        self,
        order: Order,
        size: int,
        *,
        seed: int = 0,
        stream: int = 0,
        world: int = 1,
        rank: int = 0,
        parts: int = 1,
        position: Callable[[], tuple[int, int]] = lambda: (0, 0),
    ):
        self.order, self.seed, self.stream, self.parts = order, seed, stream, parts
        self.size, self.world, self.rank, self.position = size, world, rank, position
        self._batches = order.batches(size * world)

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Iterator[list[Draw]]:
        if not len(self):
            return
        epoch, done = self.position()
        cycle, start = divmod(done, len(self))
        together = self.size * self.world
        keys = (self.seed, self.stream, cycle)
        whole = self.order.epoch(keys, epoch * len(self), together)
        seeds = sample_seeds((*keys, epoch), len(self) * together)
        for first in range(start * together, len(self) * together, together):
            places = self._share(first, min(together, len(whole) - first))
            read = places % len(whole)
            drawn = whole[read].tolist() if isinstance(whole, np.ndarray) else [whole[place] for place in read]
            yield [Draw(what, seed) for what, seed in zip(drawn, seeds[places].tolist(), strict=True)]

    def _share(self, first: int, count: int) -> np.ndarray:
        """This process's places of a batch of `count` samples, int (n,), part by part; some more if it needs them."""
        each = -(-count // (self.world * self.parts))
        places = first + np.arange(each * self.world * self.parts)
        return places.reshape(self.world, each, self.parts)[self.rank].T.reshape(-1)


class Seeded(Dataset):
    """Samples read by `Draw`: the seed decides all that torch, NumPy's and Python's global generators draw meanwhile.

    torch's generator is restored afterwards; the other two are left as they are.
    """

    def __init__(self, samples: Dataset):
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, draw: Draw):
        before = torch.default_generator.get_state()
        torch.default_generator.manual_seed(draw.seed)  # `torch.manual_seed` takes a hundred times as long
        random.seed(draw.seed)
        np.random.seed(draw.seed % 2**32)
        try:
            return self.samples[draw.what]
        finally:
            torch.default_generator.set_state(before)


GOLDEN = 0x9E3779B97F4A7C15
"""The step of SplitMix64 (Steele et al., OOPSLA 2014), whose output function `_scrambled` is."""


def derived_seed(*keys: int) -> int:
    """A seed in [0, 2^63) that differs wherever one of the keys does."""
    state = 0
    for key in keys:
        state = _scrambled((state + key + GOLDEN) % 2**64)
    return state >> 1


def sample_seeds(keys: Sequence[int], count: int) -> np.ndarray:
    """Seeds of the samples of an epoch, int64 (count,), in [0, 2^63): SplitMix64 from a start that the keys decide."""
    places = np.arange(1, count + 1, dtype=np.uint64)
    return (_scrambled(np.uint64(derived_seed(*keys)) + places * np.uint64(GOLDEN)) >> np.uint64(1)).astype(np.int64)


def _scrambled(state):
    """SplitMix64's output for a state: a Python integer, or uint64 of NumPy, whose products wrap by themselves."""
    kind = type(state) if isinstance(state, int) else np.uint64
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        state = (state ^ (state >> kind(shift))) * kind(factor)
        state = state % 2**64 if kind is int else state
    return state ^ (state >> kind(31))


def is_exact(loader: object) -> bool:
    """Whether a loader can begin in the middle of an epoch, with the samples that it would have had there."""
    return isinstance(getattr(loader, "batch_sampler", None), TrainingOrder)


def from_start(loader: DataLoader, epoch: int) -> DataLoader:
    """The loader, whose order from now on is that of a whole epoch, wherever the training stands."""
    if is_exact(loader):
        loader.batch_sampler.position = lambda: (epoch, 0)
    return loader


def _permutation(count: int, *keys: int) -> np.ndarray:
    return np.random.default_rng(keys).permutation(count)
