"""Pictures to be predicted: files and folders of them, each with a name of its own for what is written of it."""

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
    """A picture's file, and the name, without a suffix, of what is written of it; both tell it from all others."""

    file: Path
    name: PurePath


def pictures_in(given: Sequence[str]) -> list[Picture]:
    """The PNG and JPEG files that are given, and those in the folders that are given and in their subfolders.

    A picture is called by its path in its folder. Where two would be called alike, they keep their suffixes, and then
    get their folder's name in front; at last they are numbered.

    Raises:
        UsageError: something is not there, or a folder holds no picture.
    """
    found: dict[Path, tuple[Path, PurePath]] = {}
    for one in map(Path, given):
        if not one.exists():
            raise UsageError(f"{one}: there is no such file or folder.")
        inside = sorted(_files(one)) if one.is_dir() else [one]
        if not inside:
            raise UsageError(f"{one} holds no picture: PNG and JPEG files are read.")
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
    """Reads pictures one after the other; those that cannot be read are remembered, and the others go on.

    Args:
        workers: loader processes.

    Attributes:
        unreadable: a sentence for each picture that could not be read.
    """

    pictures: list[Picture]
    workers: int = 0
    unreadable: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.pictures)

    def each(self, transform: Callable[[Any], Any]) -> Iterator[tuple[Picture, Any]]:
        """Every picture that can be read, and what becomes of it, uint8 (H, W, 3), by the transform."""
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
