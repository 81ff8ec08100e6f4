"""The seeds of many dice at once: what numpy's SeedSequence makes of every sample's numbers, in whole arrays.

Seeding dice one by one takes a tenth of the time that drawing a small picture takes.
"""

import numpy as np
from numpy.random.bit_generator import ISeedSequence


class Seed(ISeedSequence):
    """The state that a PCG64 starts from, uint64 (4,), where it would ask a SeedSequence for it."""

    def __init__(self, state: np.ndarray):
        self._state = state

    def generate_state(self, n_words: int, dtype: type = np.uint32) -> np.ndarray:
        return self._state


def seeds(*entropy: int | np.ndarray) -> np.ndarray:
    """`SeedSequence(entropy).generate_state(4, np.uint64)` for each of N samples, uint64 (N, 4).

    Args:
        entropy: integers of at least 0, alike for all samples, and (N,) arrays of integers below 2**32.
    """
    words = [word for number in entropy for word in _words(number)]
    words += [np.zeros(1, np.uint32)] * (4 - len(words))
    hashed = _Hash(0x43B0D7E5, 0x931E8875)
    pool = [hashed(word) for word in words[:4]]
    for source in range(len(words)):
        for target in range(4):
            if source != target:
                other = hashed(pool[source] if source < 4 else words[source])
                pool[target] = _folded(pool[target] * np.uint32(0xCA01F9DD) - other * np.uint32(0x4973F715))
    hashed = _Hash(0x8B51F9DD, 0x58F38DED)
    halves = np.stack([hashed(pool[number % 4]) for number in range(8)], 1).astype(np.uint64)
    return halves[:, 0::2] | halves[:, 1::2] << np.uint64(32)


class _Hash:
    """A multiplicative hash of uint32 arrays, whose constant changes whenever it is used."""

    def __init__(self, constant: int, factor: int):
        self.constant, self.factor = constant, factor

    def __call__(self, words: np.ndarray) -> np.ndarray:
        words = words ^ np.uint32(self.constant)
        self.constant = self.constant * self.factor % 2**32
        return _folded(words * np.uint32(self.constant))


def _folded(words: np.ndarray) -> np.ndarray:
    return words ^ words >> np.uint32(16)


def _words(number: int | np.ndarray) -> list[np.ndarray]:
    """A number in words of 32 bits, the lowest first: each uint32, (1,) or (N,)."""
    if isinstance(number, np.ndarray):
        return [number.astype(np.uint32)]
    count = max(1, (int(number).bit_length() + 31) // 32)
    return [np.array([int(number) >> 32 * place & 0xFFFFFFFF], np.uint32) for place in range(count)]
