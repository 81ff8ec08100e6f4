"""Samples kept in memory once they were read or drawn."""

import mmap

import numpy as np

from datamodules.samples import LabelledImages


class InMemory:
    """(image, label) pairs, each of which is made on its first access and then kept as uint8.

    Forked processes share the memory, so that loader workers fill it together and keep it for the next epoch; spawned
    processes fill their own. If two processes make the same sample at once, they write the same bytes.

    Args:
        samples: images, all of one size; kept as `.samples`.

    Raises:
        ValueError: on access to a sample of another size than the first's.
    """

    def __init__(self, samples: LabelledImages):
        self.samples, self.classes, self.labels = samples, samples.classes, samples.labels
        self._shape = samples[0][0].shape
        self._allocate()

    def _allocate(self) -> None:
        count, pixels = len(self.samples), int(np.prod(self._shape))
        # Anonymous memory, and not /dev/shm, of which a container may have very little. It starts as zeros, and takes
        # room only where something was written.
        block = mmap.mmap(-1, count * (pixels + 1))
        self._made = np.frombuffer(block, np.bool_, count)
        self._images = np.frombuffer(block, np.uint8, count * pixels, offset=count).reshape(count, *self._shape)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Sample `index`: image uint8 (H, W, 3), the caller's own to change, and label."""
        if not self._made[index]:  # IndexError beyond the end
            image = self.samples[index][0]
            if image.shape != self._shape:
                raise ValueError(f"sample {index} is of shape {image.shape}, the first of {self._shape}")
            self._images[index] = image
            self._made[index] = True
        return self._images[index].copy(), int(self.labels[index])

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name not in ("_made", "_images")}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._allocate()
