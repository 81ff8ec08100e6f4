"""Random choices that are the same on every machine and in every release of numpy."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from numpy.random import PCG64, SeedSequence

T = TypeVar("T")


class Dice:
    """Random choices from raw PCG64 words, whose stream numpy promises never to change (unlike `Generator`'s).

    Args:
        entropy: integers of at least 0, which tell this stream from all others.
    """

    def __init__(self, *entropy: int):
        self._words = _words(PCG64(SeedSequence(entropy)))

    def word(self) -> int:
        """A uniform integer below 2**32."""
        return next(self._words)

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * next(self._words) / 4294967296.0

    def chance(self, probability: float) -> bool:
        return next(self._words) < probability * 4294967296.0

    def pick(self, options: Sequence[T]) -> T:
        return options[next(self._words) * len(options) >> 32]


def _words(bits: PCG64) -> Iterator[int]:
    """The upper halves of raw words, each block of 768 from its end; in parts, for few dice roll that often."""
    while True:
        block = bits.random_raw(768)[::-1]
        for start in range(0, 768, 96):
            yield from (block[start : start + 96] >> 32).tolist()
