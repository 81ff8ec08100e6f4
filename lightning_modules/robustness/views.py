"""The views of an image in a robustness evaluation: uint8 crops that are shifted, corrupted or otherwise changed.

A view turns an image into K ones, (K, size, size, 3), which are evaluated together. It depends only on the image, its
index and a seed, not on the batch, the worker or earlier random numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import InterpolationMode

from datamodules.classification.transforms import MARGIN, centre, evaluation_size
from datamodules.corruptions.appearance_shifts import APPEARANCE_SHIFTS
from datamodules.corruptions.frost import Photographs
from datamodules.corruptions.imagenet_c import corrupt
from datamodules.corruptions.imagenet_p import perturbed
from datamodules.evaluation_data import one_thread
from datamodules.image_files import DataError
from datamodules.samples import LabelledImages

TOGETHER = 8
"""Number of consecutive images that the published shift consistency crops at the same offsets."""

View = Callable[[np.ndarray, int], np.ndarray]
"""(image uint8 (H, W, 3), its index) -> uint8 (K, size, size, 3)."""


@dataclass(frozen=True)
class EvaluationCrop:
    """The crop on which a network is evaluated, before normalisation (see `EvaluationImage`).

    Call it with uint8 (H, W, 3); it returns uint8 (size, size, 3).
    """

    size: int
    resize: int | None = None
    """Length of the shorter side before the centre crop; None: `size`."""
    interpolation: str = "bilinear"
    squash: bool = False
    """Whether both sides, instead of the shorter one, are resized to `resize`."""

    def __call__(self, image: np.ndarray) -> np.ndarray:
        return centre(self._resized(image, self.resize or self.size), self.size)

    def picture(self, image: np.ndarray) -> np.ndarray:
        """The larger image from which the published crops of ImageNet-P and of shift consistency are cut.

        For a network's size of 224 its shorter side is 256, independently of `resize`; other sizes keep this
        proportion. If `resize` is None, the shorter side is `size`.
        """
        return self._resized(image, self.size if self.resize is None else round(self.size * MARGIN))

    def _resized(self, image: np.ndarray, side: int) -> np.ndarray:
        return evaluation_size(image, side, InterpolationMode(self.interpolation), self.squash)


def plain(crop: EvaluationCrop) -> View:
    """One view: the evaluation crop."""
    return partial(_plain, crop=crop)


def shifted(crop: EvaluationCrop) -> View:
    """One view for each of IBN-Net's appearance shifts, in their order."""
    return partial(_shifted, crop=crop)


def corrupted(
    crop: EvaluationCrop, name: str, severities: Sequence[int], seed: int, frost: Photographs | None = None
) -> View:
    """One view for each severity, of the evaluation crop; `frost`: the published photographs, None for painted ones."""
    photographs = {"frost": frost} if name == "frost" and frost else {}
    return partial(_corrupted, crop=crop, name=name, severities=tuple(severities), seed=seed, **photographs)


def sequence(crop: EvaluationCrop, name: str, frames: int | None, seed: int) -> View:
    """One view for each frame of a perturbation sequence, cut from the centre, as in ImageNet-P."""
    return partial(_sequence, crop=crop, name=name, frames=frames, seed=seed)


def published_sequence(size: int) -> View:
    """The frames of ImageNet-P's published videos, centre-cropped to the network's size."""
    return partial(_centred, size=size)


def two_crops(crop: EvaluationCrop, seed: int) -> View:
    """Two crops of one image, a few pixels apart (Zhang, ICML 2019, section 4).

    At size 224, the shorter side is resized to 256, the centre of 256 x 256 is cut out, and each crop's two offsets are
    drawn from 0 to 31. Other sizes keep this proportion of 8 to 7. Images that already have the network's size (resize
    None) are reflect-padded by size // 8 pixels in total instead.

    As in the published code, 8 consecutive images have the same offsets. (The published figures are means over five
    passes; one call is one pass, and other seeds give others.)
    """
    return partial(_two_crops, crop=crop, seed=seed)


def image_seed(seed: int, index: int) -> int:
    """A seed for one image of a set."""
    return int(np.random.SeedSequence([seed, index]).generate_state(1)[0])


def spread(labels: np.ndarray, count: int) -> np.ndarray:
    """The indices of `count` images that represent a set: the first of each class, then the second, and so on.

    Returns:
        Indices, ascending, int64 (min(count, len(labels)),).
    """
    labels = np.asarray(labels)
    by_class = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[by_class], labels[by_class])  # where each one's class begins
    turn = np.empty(len(labels), np.int64)
    turn[by_class] = np.arange(len(labels)) - starts
    return np.sort(np.lexsort((labels, turn))[:count])


class Views(Dataset):
    """(uint8 (K, size, size, 3), label) for each of the chosen images."""

    def __init__(self, samples: LabelledImages, indices: np.ndarray, view: View):
        self.samples, self.indices, self.view = samples, indices, view

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        index = int(self.indices[i])
        image, label = self.samples[index]
        return self.view(image, index), int(label)


def loader(samples: LabelledImages, indices: np.ndarray, view: View, images: int, workers: int) -> DataLoader:
    """Batches with the views of `images` images, in order; does not use the global random state."""
    return DataLoader(
        Views(samples, indices, view),
        images,
        num_workers=min(workers, -(-len(indices) // images)),
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=one_thread,
        generator=torch.Generator(),
    )


def _plain(image: np.ndarray, index: int, *, crop: EvaluationCrop) -> np.ndarray:
    return crop(image)[None]


def _shifted(image: np.ndarray, index: int, *, crop: EvaluationCrop) -> np.ndarray:
    seen = crop(image)
    return np.stack([shift(seen) for shift in APPEARANCE_SHIFTS.values()])


def _corrupted(image: np.ndarray, index: int, *, crop, name, severities, seed, **frost) -> np.ndarray:
    seen = crop(image)
    return np.stack([corrupt(seen, name, severity, image_seed(seed, index), **frost) for severity in severities])


def _sequence(image: np.ndarray, index: int, *, crop, name, frames, seed) -> np.ndarray:
    return perturbed(crop.picture(image), name, image_seed(seed, index), frames, crop.size)


def _centred(video: np.ndarray, index: int, *, size: int) -> np.ndarray:
    if min(video.shape[1:3]) < size:
        raise DataError(
            f"video {index} has {video.shape[2]} x {video.shape[1]} pixels, fewer than the network's {size}."
        )
    top, left = ((side - size) // 2 for side in video.shape[1:3])
    return video[:, top : top + size, left : left + size]


def _two_crops(image: np.ndarray, index: int, *, crop: EvaluationCrop, seed: int) -> np.ndarray:
    size = crop.size
    if crop.resize is None:
        margin = size // 8
        edges = (margin // 2, margin - margin // 2)
        larger = np.pad(crop(image), (edges, edges, (0, 0)), mode="reflect")
    else:
        margin = round(size * MARGIN) - size
        larger = centre(crop.picture(image), size + margin)
    offsets = np.random.default_rng([seed, index // TOGETHER]).integers(max(1, margin), size=(2, 2))
    return np.stack([larger[top : top + size, left : left + size] for top, left in offsets])
