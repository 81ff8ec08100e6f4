"""Class-uniform sampling: the images that contain each class, and the places of the class in them."""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch.utils.data import DataLoader, Dataset

from datamodules.samples import LabelMaps
from datamodules.segmentation.domains import Domain
from datamodules.whole_file import write_whole

TILE = 1024
"""Side of the tiles in which RobustNet locates classes."""


class _OfLabels(Dataset):
    """A callable that gets every label."""

    def __init__(self, samples: LabelMaps, told: Callable[[np.ndarray, int], np.ndarray], classes: int):
        self.samples, self.told, self.classes = samples, told, classes

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.told(self.samples.label(index), self.classes)


def images_by_class(domain: Domain, workers: int = 0) -> dict[int, np.ndarray]:
    """Indices of the images that contain each training id; ids that no image contains are left out.

    Every label is read once, which also finds ids that a set does not define. For a set on disk the result is cached
    under `$XDG_CACHE_HOME/normshift` (by default ~/.cache/normshift), by the names, sizes and times of its label files.
    """
    size = (len(domain.samples), len(domain.label_space))
    presence = _kept(domain, "", size, lambda: np.stack(_every_label(domain, _present, workers)))
    return {c: np.flatnonzero(presence[:, c]) for c in range(presence.shape[1]) if presence[:, c].any()}


def class_weights(domain: Domain, power: float, workers: int = 0) -> np.ndarray:
    """A weight for each class, float (classes,): its share of the labelled pixels, to the power of -`power`.

    They are scaled so that their mean over the pixels is 1. A class without pixels has weight 1. Labels are read and
    results cached as in `images_by_class`.
    """
    size = (len(domain.samples), len(domain.label_space))
    counts = _kept(domain, "-pixels", size, lambda: np.stack(_every_label(domain, _pixels, workers))).sum(0)
    shares = counts / max(1, counts.sum())
    weights = np.where(counts > 0, np.maximum(shares, 1e-12) ** -power, 0)
    return np.where(counts > 0, weights / max(1e-12, float(weights @ shares)), 1.0)


def _pixels(label: np.ndarray, classes: int) -> np.ndarray:
    return np.bincount(label.ravel(), minlength=256)[:classes]


def class_centres(domain: Domain, workers: int = 0) -> dict[int, np.ndarray]:
    """The places of each training id: its centres of mass in all images, int (n, 3) of image, row and column.

    As in RobustNet, there is one centre for each class and each whole tile of 1024 x 1024 from the upper left corner
    (GTA5's images have one tile, Cityscapes' two). Unlike there, an image smaller than a tile is one tile by itself.
    Labels are read and results cached as in `images_by_class`.
    """

    def found() -> np.ndarray:
        rows = _every_label(domain, tile_centres, workers)
        return np.concatenate([np.insert(row, 1, i, axis=1) for i, row in enumerate(rows)])

    centres = _kept(domain, "-centres", (None, 4), found)
    return {int(c): centres[centres[:, 0] == c, 1:] for c in np.unique(centres[:, 0])}


def tile_centres(label: np.ndarray, classes: int) -> np.ndarray:
    """A label's centres of mass by tile, int (n, 3) of training id, row and column; truncated to whole pixels."""
    height, width = (min(TILE, side) for side in label.shape)
    rows, columns = np.mgrid[:height, :width].reshape(2, -1)
    found = []
    for top in range(0, label.shape[0] - height + 1, height):
        for left in range(0, label.shape[1] - width + 1, width):
            tile = label[top : top + height, left : left + width].ravel()
            count = np.bincount(tile, minlength=256)
            there = np.flatnonzero(count[:classes])
            means = [np.bincount(tile, place, minlength=256)[there] // count[there] for place in (rows, columns)]
            found.append(np.stack([there, means[0] + top, means[1] + left], 1).astype(np.int32))
    return np.concatenate(found)


class ClassUniformOrder:
    """RobustNet's epochs: for every class int(images * share / classes) of its centres, plain images for the rest.

    A class's centres are shuffled, and start over where there are too few; which plain images there are is drawn anew
    every epoch. What is read is (image, None) or (image, (row, column)), shuffled. See `sample_order.Order`.

    Args:
        images: how many there are, which is also an epoch's length.
        centres: of `class_centres`. classes: how many the label space has.
    """

    def __init__(self, images: int, centres: dict[int, np.ndarray], classes: int, share: float):
        self.images, self.centres, self.each = images, centres, int(images * share / classes)

    def batches(self, size: int) -> int:
        return self.images // size

    def epoch(self, keys: Sequence[int], first: int, size: int) -> list[tuple[int, tuple[int, int] | None]]:
        draw = np.random.default_rng([*keys, first // max(1, self.batches(size))])
        chosen = []
        for centres in self.centres.values():
            turns = [draw.permutation(len(centres)) for _ in range(-(-self.each // len(centres)))]
            for image, row, column in centres[np.concatenate([np.empty(0, int), *turns])[: self.each]].tolist():
                chosen.append((image, (row, column)))
        chosen += [(int(image), None) for image in draw.permutation(self.images)[: self.images - len(chosen)]]
        return [chosen[index] for index in draw.permutation(self.images)]


def _present(label: np.ndarray, classes: int) -> np.ndarray:
    return np.bincount(label.ravel(), minlength=256)[:classes] > 0


def _every_label(domain: Domain, told: Callable[[np.ndarray, int], np.ndarray], workers: int) -> list[np.ndarray]:
    labels = _OfLabels(domain.samples, told, len(domain.label_space))
    # a generator of its own: what is kept on disk must not decide on the training's random numbers
    loader = DataLoader(labels, batch_size=None, num_workers=workers, generator=torch.Generator())
    rows = track(loader, f"classes in {domain.name}", total=len(loader), transient=True, disable=len(loader) < 5000)
    return [np.asarray(row) for row in rows]


def _kept(domain: Domain, what: str, shape: tuple[int | None, int], find: Callable[[], np.ndarray]) -> np.ndarray:
    """The cached result on disk or, if there is none of that shape, a new one."""
    path = _cache_file(domain, what)
    if path is not None and path.is_file():
        try:
            kept = np.load(path)
        except (OSError, ValueError, EOFError):  # damaged: it is computed again and overwritten
            kept = np.empty(0)
        if kept.ndim == 2 and shape in (kept.shape, (None, kept.shape[1])):
            return kept
    found = find()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda opened: np.save(opened, found), durable=False)
    return found


def _cache_file(domain: Domain, what: str) -> Path | None:
    if not domain.on_disk:
        return None
    digest = hashlib.sha256()
    for _, label in domain.samples.pairs:
        found = label.stat()
        digest.update(f"{label.resolve()} {found.st_size} {found.st_mtime_ns}\n".encode())
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "normshift" / f"{domain.name.replace(':', '-')}-{digest.hexdigest()[:16]}{what}.npy"
