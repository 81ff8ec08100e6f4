"""Image files in one folder per class, the layout of most published classification sets."""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datamodules.image_files import DataError, MissingDataError, decode_rgb, decoded, kind_of

SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Published:
    """A published set, described for error messages."""

    name: str
    url: str  # the download page
    layout: str  # in words

    def missing(self, path: Path) -> MissingDataError:
        """The error for a missing file or folder of the set."""
        found = "is a file, not a folder" if path.exists() else "does not exist"
        holds = ""
        if path.parent.is_dir() and not path.exists():
            inside = ", ".join(sorted(os.listdir(path.parent))[:8]) or "nothing"
            holds = f" ({path.parent} holds {inside})"
        return MissingDataError(
            f"{path} {found}{holds}; get {self.name} from {self.url} and point to the folder that holds {self.layout}."
        )


class ImageFiles:
    """Labelled image files: a map-style torch dataset whose item i is (image, label), image uint8 (H, W, 3) RGB.

    Args:
        root: the folder that the names start from.
        names: the files' paths under `root`.
        labels: the class of each file, as an index into `classes`.
        classes: names of the classes.
    """

    def __init__(self, root: Path, names: Sequence[str], labels: Sequence[int], classes: Sequence[str]):
        self.root, self.classes = Path(root), tuple(classes)
        self.labels = np.asarray(labels, np.int64)
        # One array: reading a million Python strings changes their reference counts, and so would copy them, page by
        # page, into every loader process.
        self._names = np.array([os.fsencode(name) for name in names])

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Sample `index`.

        Raises:
            DataError: the file cannot be decoded.
        """
        return decoded(self.path(index), decode_rgb), int(self.labels[index])

    def path(self, index: int) -> Path:
        """The file of sample `index`."""
        return self.root / os.fsdecode(self._names[index])


def folders_in(folder: Path) -> list[str]:
    """Names of the visible folders in a folder, sorted.

    Raises:
        MissingDataError: one of its entries is a link that leads nowhere, and may have been such a folder.
    """
    with os.scandir(folder) as entries:
        found = [entry for entry in entries if not entry.name.startswith(".")]
        lost = sorted(entry.name for entry in found if entry.is_symlink() and not os.path.exists(entry.path))
        if lost:
            raise MissingDataError(f"{Path(folder) / lost[0]} is a link that leads nowhere{and_more(lost)}: remove it.")
        return sorted(entry.name for entry in found if entry.is_dir())


def files_in(folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[str]:
    """Names of the visible files in a folder that end in one of the suffixes, in small letters or large; sorted.

    It uses the types that the folder lists for its entries and checks only links, since checking each of a million
    files would take minutes on a network drive.

    Raises:
        DataError: something of such a name is no file: a folder, a pipe, a link that leads nowhere.
    """
    with os.scandir(folder) as entries:
        found = [entry for entry in entries if not entry.name.startswith(".") and entry.name.lower().endswith(suffixes)]
        strange = sorted(entry.name for entry in found if not entry.is_file())
    if strange:
        first = Path(folder) / strange[0]
        what = kind_of(first.stat().st_mode) if first.exists() else "a link that leads nowhere"
        raise DataError(f"{first} is {what}, and no file{and_more(strange)}: remove it.")
    return sorted(entry.name for entry in found)


def class_files(
    root: Path, classes: Sequence[str], suffixes: tuple[str, ...] = SUFFIXES
) -> tuple[list[str], list[int]]:
    """The files in the class folders under `root`, as CLASS/NAME, and the position in `classes` of each one's class.

    Raises:
        MissingDataError: a class folder holds no such file.
        DataError: something with the name of one is no file.
    """
    names, positions = [], []
    for position, class_ in enumerate(classes):
        found = files_in(root / class_, suffixes)
        if not found:
            raise MissingDataError(f"{root / class_} holds no file named *{' or *'.join(suffixes)}.")
        names += [f"{class_}/{name}" for name in found]
        positions += [position] * len(found)
    return names, positions


def and_more(names: Collection[str]) -> str:
    """The text " and N more" for an error that names the first of several."""
    return f" (and {len(names) - 1} more like it)" if len(names) > 1 else ""
