"""The images to predict, from files and folders, each with its own name for the output."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path, PurePath
from typing import Any

from torch.utils.data import DataLoader, Dataset

from datamodules.classification.folders import SUFFIXES
from datamodules.image_files import DataError, decode_rgb, decoded
from experiments.study.endings import UsageError


@dataclass(frozen=True)
class Picture:
    """An image's file and the name of its output, without a suffix; both are unique."""

    file: Path
    name: PurePath


def pictures_in(given: Sequence[str]) -> list[Picture]:
    """The given PNG and JPEG files, and those in the given folders and their subfolders.

    An image's name is its path in its folder. If two would have the same name, they keep their suffixes; if that is not
    enough, the folder's name is put in front; else they are numbered.

    Raises:
        UsageError: a file or folder does not exist, or a folder has no image.
    """
    found: dict[Path, tuple[Path, PurePath]] = {}
    for one in map(Path, given):
        if not one.exists():
            raise UsageError(f"{one}: there is no such file or folder.")
        inside = sorted(_files(one)) if one.is_dir() else [one]
        if not inside:
            raise UsageError(f"{one} holds no image: PNG and JPEG files are read.")
        for file in inside:
            found.setdefault(file.resolve(), (file, file.relative_to(one) if one.is_dir() else PurePath(file.name)))
    files = list(found.values())
    plain = [name.with_suffix("") for _, name in files]
    longer = [name for _, name in files]
    longest = [PurePath(file.resolve().parent.name, name) for file, name in files]
    ways = [(each, Counter(each)) for each in (plain, longer, longest)]
    names = [next((each[i] for each, counted in ways if counted[each[i]] == 1), longest[i]) for i in range(len(files))]
    return [Picture(file, name) for (file, _), name in zip(files, _numbered(names), strict=True)]


def _files(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield Path(root, name)


def _numbered(names: list[PurePath]) -> list[PurePath]:
    unlike: dict[PurePath, None] = {}
    for name in names:
        numbers = (name.with_name(f"{name.name}-{number}") for number in count(2))
        own = name if name not in unlike else next(other for other in numbers if other not in unlike)
        unlike[own] = None
    return list(unlike)


@dataclass
class Reading:
    """Reads images one after the other, and records those that cannot be read.

    Args:
        workers: data loader processes.

    Attributes:
        unreadable: a sentence for each image that could not be read.
    """

    pictures: list[Picture]
    workers: int = 0
    unreadable: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.pictures)

    def each(self, transform: Callable[[Any], Any]) -> Iterator[tuple[Picture, Any]]:
        """Every image that can be read, with the transform applied to its pixels, uint8 (H, W, 3)."""
        loader = DataLoader(
            _Read(self.pictures, transform), batch_size=None, num_workers=self.workers, collate_fn=_as_it_is
        )
        for index, (shown, fault) in enumerate(loader):
            if fault:
                self.unreadable.append(fault)
            else:
                yield self.pictures[index], shown


def _as_it_is(read: tuple) -> tuple:
    return read


class _Read(Dataset):
    def __init__(self, pictures: list[Picture], transform: Callable):
        self.pictures, self.transform = pictures, transform

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Any, str]:
        try:
            return self.transform(decoded(self.pictures[index].file, decode_rgb)), ""
        except DataError as error:
            return 0, str(error)
