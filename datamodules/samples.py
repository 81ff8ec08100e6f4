"""Protocols of sets of samples: a task accepts any class with these members."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np

Target = TypeVar("Target", covariant=True)


class Samples(Protocol[Target]):
    """Images uint8 (H, W, 3) RGB, each with its label; a map-style torch dataset."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[np.ndarray, Target]: ...


class LabelledImages(Samples[int], Protocol):
    """Images of one class each. Videos, uint8 (T, H, W, 3), are labelled in the same way."""

    @property
    def labels(self) -> np.ndarray:
        """The class of every image, int64 (len,), known without reading any."""
        ...

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes, in the order of the labels."""
        ...


class LabelMaps(Samples[np.ndarray], Protocol):
    """Images with a label for each pixel: uint8 (H, W) of training ids, 255 ignored."""

    def label(self, index: int, /) -> np.ndarray:
        """The label of sample `index` alone, which may cost less than the whole sample."""
        ...
