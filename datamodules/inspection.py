"""Reads every file of a set once, in several processes: what is damaged, which sizes and classes there are."""

from __future__ import annotations

import io
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from datamodules.classification.folders import SUFFIXES, ImageFiles
from datamodules.image_files import JPEG_START, DataError, decode_rgb, decoded
from datamodules.segmentation.labels import IGNORE
from datamodules.segmentation.street_sets import StreetSet

SMALLEST = 8
"""Pixels of a side below which an image is taken for damaged."""
ORIENTATION = 274
"""The EXIF tag that tells viewers to turn an image."""
CHUNK = 16
"""Files that a process reads before it reports."""


@dataclass
class Inspection:
    """What is known of one split.

    Attributes:
        faults: a sentence each, with the file. images: how many were read. sizes: (width, height) -> images.
        classes: name -> images of it, or, for label maps, its share of the pixels that are not ignored.
        digests: of the files' bytes -> (path, label or None), to find images that are there twice.
    """

    name: str
    split: str
    faults: list[str] = field(default_factory=list)
    images: int = 0
    sizes: Counter = field(default_factory=Counter)
    classes: dict[str, float] = field(default_factory=dict)
    digests: dict[bytes, tuple[str, int | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Read:
    """What one file told."""

    path: str
    faults: tuple[str, ...]
    size: tuple[int, int] | None = None
    digest: bytes = b""
    counts: tuple[int, ...] = ()  # pixels of each training id
    label: int | None = None


def inspected(
    name: str,
    split: str,
    samples: Any,
    classes: Sequence[str],
    workers: int,
    told: Callable[[int], None] = lambda _: None,
) -> Inspection:
    """Read all of a split.

    Args:
        samples: `ImageFiles` or a `StreetSet`; of other sets (drawn, or in archives) the labels alone are counted.
        workers: processes. told: is called with the number of files that are read, again and again.
    """
    found = Inspection(name, split)
    if isinstance(samples, ImageFiles):
        found.faults += _beside(samples)
    elif not isinstance(samples, StreetSet):
        found.images = len(samples)
        labels = getattr(samples, "labels", None)
        if labels is not None:
            found.classes = dict(zip(classes, np.bincount(labels, minlength=len(classes)).tolist(), strict=True))
        return found
    pixels = np.zeros(len(classes), np.int64)
    for read in _all_read(samples, workers):
        told(1)
        _add(found, read)
        if read.counts:
            pixels += np.array(read.counts)
    if isinstance(samples, StreetSet):
        found.classes = dict(zip(classes, (pixels / max(1, pixels.sum())).tolist(), strict=True))
    else:
        counts = np.bincount(samples.labels, minlength=len(classes))
        found.classes = dict(zip(classes, counts.tolist(), strict=True))
    return found


def shared_images(found: Sequence[Inspection]) -> list[str]:
    """Images of one split whose bytes are also in another: a network would be evaluated on what it has learned."""
    faults, seen = [], {}
    for one in found:
        for digest, (path, _) in one.digests.items():
            if digest in seen and seen[digest][0] != one.split:
                faults.append(f"{path} is the same image as {seen[digest][1]}, of the split {seen[digest][0]!r}")
            seen.setdefault(digest, (one.split, path))
    return faults


def _add(found: Inspection, read: _Read) -> None:
    found.faults += read.faults
    if read.size is None:
        return
    found.images += 1
    found.sizes[read.size] += 1
    if read.digest in found.digests:
        other, label = found.digests[read.digest]
        what = "the same image" if label == read.label else "the same image, of another class,"
        found.faults.append(f"{read.path} is {what} as {other}")
    else:
        found.digests[read.digest] = read.path, read.label


def _all_read(samples: Any, workers: int) -> Iterator[_Read]:
    """Every sample, read in processes, in order."""
    chunks = [range(first, min(first + CHUNK, len(samples))) for first in range(0, len(samples), CHUNK)]
    if workers < 2:
        for chunk in chunks:
            yield from _chunk(samples, chunk)
        return
    with ProcessPoolExecutor(workers, get_context("fork"), _begin, (samples,)) as pool:
        for reads in pool.map(_own_chunk, chunks):
            yield from reads


_samples: Any = None  # of a process of the pool


def _begin(samples: Any) -> None:
    global _samples
    _samples = samples
    cv2.setNumThreads(0)


def _own_chunk(chunk: range) -> list[_Read]:
    return _chunk(_samples, chunk)


def _chunk(samples: Any, chunk: range) -> list[_Read]:
    read = _pair if isinstance(samples, StreetSet) else _file
    return [read(samples, index) for index in chunk]


def _file(samples: ImageFiles, index: int) -> _Read:
    path = samples.path(index)
    faults, size, digest = _image(path)
    return _Read(str(path), tuple(faults), size, digest, label=int(samples.labels[index]))


def _pair(samples: StreetSet, index: int) -> _Read:
    path, label_path = samples.pairs[index]
    faults, size, digest = _image(path)
    counts: tuple[int, ...] = ()
    try:
        label = samples.label(index)
    except DataError as error:
        faults.append(str(error).rstrip("."))
    else:
        whole = np.bincount(label.reshape(-1), minlength=IGNORE + 1)
        counts = tuple(whole[: len(samples.label_space)].tolist())
        if not sum(counts):
            faults.append(f"{label_path} has no pixel of any class: all are ignored")
    return _Read(str(path), tuple(faults), size, digest, counts)


def _image(path: Path) -> tuple[list[str], tuple[int, int] | None, bytes]:
    """The faults of an image, its (width, height), and a digest of its bytes."""
    kept: list[bytes] = []

    def decode(data: bytes) -> np.ndarray:
        kept.append(data)
        return decode_rgb(data)

    try:
        height, width = decoded(path, decode).shape[:2]
    except DataError as error:
        return [str(error).rstrip(".")], None, b""
    faults = []
    if min(height, width) < SMALLEST:
        faults.append(f"{path} is {width} x {height} pixels, too small for an image")
    if kept[0].startswith(JPEG_START) and b"Exif\0\0" in kept[0][:64] and (turn := _orientation(kept[0])) > 1:
        faults.append(
            f"{path} is to be turned when it is shown (EXIF orientation {turn}), and is read as stored: store it turned"
        )
    return faults, (width, height), sha256(kept[0]).digest()


def _orientation(data: bytes) -> int:
    with Image.open(io.BytesIO(data)) as image:
        return int(image.getexif().get(ORIENTATION, 1))


def _beside(samples: ImageFiles) -> list[str]:
    """Files beside the images that are not read, and images that are there in two formats."""
    faults, stems = [], defaultdict(list)
    for index in range(len(samples)):
        path = samples.path(index)
        stems[path.with_suffix("")].append(path)
    for paths in stems.values():
        if len(paths) > 1:
            faults.append(f"{paths[1]} has the name of {paths[0].name}: are they one image in two formats?")
    for folder in sorted({path.parent for path in stems}):
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if entry.is_file() and not entry.name.startswith(".") and not entry.name.lower().endswith(SUFFIXES):
                faults.append(f"{entry.path} is not read: images end in {', '.join(SUFFIXES)}")
    return faults
