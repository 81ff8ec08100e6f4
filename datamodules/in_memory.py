"""Samples kept in memory once they were read or drawn."""

import mmap

import numpy as np

from datamodules.samples import LabelledImages, LabelMaps, Samples


class _Kept:
    """Samples, each of which is made on its first access and then kept as uint8.

    Forked processes share the memory, so that loader workers fill it together and keep it for the next epoch; spawned
    processes fill their own. If two processes make the same sample at once, they write the same bytes.

    Args:
        samples: kept as `.samples`.
        size: bytes of a sample.
    """

    def __init__(self, samples: Samples, size: int):
        self.samples, self._size = samples, size
        self._allocate()

    def _allocate(self) -> None:
        count = len(self.samples)
        # Anonymous memory, and not /dev/shm, of which a container may have very little. It starts as zeros, and takes
        # room only where something was written.
        block = mmap.mmap(-1, count * (self._size + 1))
        self._made = np.frombuffer(block, np.bool_, count)
        self._bytes = np.frombuffer(block, np.uint8, count * self._size, offset=count).reshape(count, self._size)

    def __len__(self) -> int:
        return len(self.samples)

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name not in ("_made", "_bytes")}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._allocate()

    def _of(self, index: int) -> np.ndarray:
        """The bytes of a sample, uint8 (size,)."""
        if not self._made[index]:  # IndexError beyond the end
            self._bytes[index] = self._make(index)
            self._made[index] = True
        return self._bytes[index]

    def _make(self, index: int) -> np.ndarray:
        raise NotImplementedError


class InMemory(_Kept):
    """(image, label) pairs, images of one size.

    Raises:
        ValueError: on access to a sample of another size than the first's.
    """

    def __init__(self, samples: LabelledImages):
        self.classes, self.labels = samples.classes, samples.labels
        self._shape = samples[0][0].shape
        super().__init__(samples, int(np.prod(self._shape)))

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Sample `index`: image uint8 (H, W, 3), the caller's own to change, and label."""
        return self._of(index).reshape(self._shape).copy(), int(self.labels[index])

    def _make(self, index: int) -> np.ndarray:
        image = self.samples[index][0]
        if image.shape != self._shape:
            raise ValueError(f"sample {index} is of shape {image.shape}, the first of {self._shape}")
        return image.ravel()


class MapsInMemory(_Kept):
    """Images of one size (height, width) with their label maps."""

    def __init__(self, samples: LabelMaps, size: tuple[int, int]):
        self._shape, self._pixels = size, size[0] * size[1]
        super().__init__(samples, 4 * self._pixels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Sample `index`: image uint8 (H, W, 3) and label uint8 (H, W), the caller's own to change."""
        return self._of(index)[self._pixels :].reshape(*self._shape, 3).copy(), self.label(index)

    def label(self, index: int) -> np.ndarray:
        """The label of sample `index`, the caller's own to change."""
        return self._of(index)[: self._pixels].reshape(self._shape).copy()

    def _make(self, index: int) -> np.ndarray:
        image, label = self.samples[index]
        return np.concatenate([label.ravel(), image.ravel()])
