"""CIFAR-10 and CIFAR-100, from the published archives or from a tree of class folders."""

import io
import pickle
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from datamodules.classification.folders import ImageFiles, Published, and_more, class_files, folders_in
from datamodules.image_files import DataError, MissingDataError, file_bytes
from datamodules.in_memory import InMemory

SIDE = 32


@dataclass(frozen=True)
class Archive:
    """The contents of a published archive and of its unpacked folder."""

    published: Published
    file: str
    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    names: str  # the file of class names
    names_key: str
    labels_key: str


ARCHIVES = {
    10: Archive(
        Published("CIFAR-10", "https://www.cs.toronto.edu/~kriz/cifar.html", "cifar-10-python.tar.gz"),
        "cifar-10-python.tar.gz", "cifar-10-batches-py", tuple(f"data_batch_{n}" for n in range(1, 6)),
        ("test_batch",), "batches.meta", "label_names", "labels",
    ),
    100: Archive(
        Published("CIFAR-100", "https://www.cs.toronto.edu/~kriz/cifar.html", "cifar-100-python.tar.gz"),
        "cifar-100-python.tar.gz", "cifar-100-python", ("train",), ("test",), "meta", "fine_label_names",
        "fine_labels",
    ),
}  # fmt: skip


class CIFAR:
    """CIFAR-10 or CIFAR-100 (Krizhevsky 2009): 50,000 and 10,000 images of 32 x 32; item i is (image, label).

    Reads the first that exists of: the unpacked folder of the Python archive, the archive itself (not unpacked), class
    folders train/CLASS/*.jpg or *.png and test/CLASS/... There is no val split: val is test.

    Args:
        root: the folder that holds one of these.
        split: "train", "val" or "test".
        classes: 10 or 100.

    Attributes:
        classes: names of the classes, in alphabetical order, which is the published one.
        labels: int64 (len,).

    Raises:
        MissingDataError: none of these exists, or part of it is missing.
        DataError: an archive is cut short or damaged, or the class folders are not CIFAR's.
    """

    def __init__(self, root: str | Path, split: str, classes: int = 10):
        archive, root = ARCHIVES[classes], Path(root)
        if split not in ("train", "val", "test"):
            raise DataError(
                f"{split!r} is no split of {archive.published.name}, which has train and test (and val, its test)."
            )
        part = "train" if split == "train" else "test"
        if (root / archive.folder).is_dir():
            images, self.labels, self.classes = _unpickled(archive, classes, part, _from_folder(root / archive.folder))
        elif (root / archive.file).is_file():
            members = _members(root / archive.file, archive, part)
            images, self.labels, self.classes = _unpickled(archive, classes, part, members)
        elif (root / part).is_dir():
            files = _ClassFolders(root, part, classes, archive.published.name)
            images, self.labels, self.classes = InMemory(files), files.labels, files.classes
        else:
            raise archive.published.missing(root / archive.file if root.is_dir() else root)
        self._images = images

    @staticmethod
    def archived_as(classes: int) -> tuple[str, str]:
        """The names of the published archive and of the folder that it unpacks to."""
        return ARCHIVES[classes].file, ARCHIVES[classes].folder

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Sample `index`: image uint8 (32, 32, 3) RGB, and label."""
        if isinstance(self._images, InMemory):
            return self._images[index]
        return self._images[index].copy(), int(self.labels[index])


class _ClassFolders(ImageFiles):
    """train/CLASS/*.png or test/CLASS/*.png."""

    def __init__(self, root: Path, part: str, count: int, name: str):
        folders = {part_: set(folders_in(root / part_)) for part_ in ("train", "test") if (root / part_).is_dir()}
        for has, lacks in (("train", "test"), ("test", "train")):
            lacking = folders.get(has, set()) - folders.get(lacks, folders.get(has, set()))
            if lacking:
                raise DataError(
                    f"{root / has} has the class {min(lacking)!r}{and_more(lacking)}, but {root / lacks} does not."
                )
        if len(folders[part]) != count:
            raise DataError(f"{root / part} holds {len(folders[part])} class folders, not the {count} of {name}.")
        classes = sorted(folders[part])
        super().__init__(root / part, *class_files(root / part, classes), classes)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        image, label = super().__getitem__(index)
        if image.shape != (SIDE, SIDE, 3):
            height, width = image.shape[:2]
            raise DataError(f"{self.path(index)} is {width} x {height} pixels, not CIFAR's {SIDE} x {SIDE}.")
        return image, label


def _unpickled(archive: Archive, classes: int, part: str, read: Callable[[str], tuple[str, bytes]]):
    """Images uint8 (n, 32, 32, 3), labels and class names. `read` gives a member's full name and its bytes."""
    batches = [_batch(archive, classes, *read(member)) for member in getattr(archive, part)]
    content, where = _load(*read(archive.names), (archive.names_key,))
    names = content[archive.names_key]
    if not isinstance(names, list) or len(set(map(str, names))) != classes:
        raise DataError(f"{where} does not name {classes} classes: get the archive again.")
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return images, labels, tuple(map(str, names))


def _batch(archive: Archive, classes: int, where: str, data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of one member."""
    batch, where = _load(where, data, ("data", archive.labels_key))
    pixels, labels = np.asarray(batch["data"]), np.asarray(batch[archive.labels_key])
    if pixels.dtype != np.uint8 or pixels.shape != (labels.size, 3 * SIDE * SIDE):
        raise DataError(
            f"{where} holds {pixels.dtype} images of shape {pixels.shape} and {labels.size} labels, where each label "
            "has 3,072 uint8 values."
        )
    if not labels.size or labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"{where} holds a label that is none of 0 to {classes - 1}: get the archive again.")
    return pixels.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1), labels.astype(np.int64)


def _from_folder(folder: Path) -> Callable[[str], tuple[str, bytes]]:
    def read(member: str) -> tuple[str, bytes]:
        try:
            return str(folder / member), file_bytes(folder / member)
        except MissingDataError as error:
            raise MissingDataError(f"{str(error).rstrip('.')}: unpack the archive again.") from error

    return read


def _members(path: Path, archive: Archive, part: str) -> Callable[[str], tuple[str, bytes]]:
    """The members needed of a tar.gz, read in one pass and never unpacked to disk."""
    wanted = {f"{archive.folder}/{member}": member for member in (*getattr(archive, part), archive.names)}
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r|gz") as tar:
            for entry in tar:
                if entry.name.removeprefix("./") in wanted and entry.isfile():
                    found[wanted[entry.name.removeprefix("./")]] = tar.extractfile(entry).read()
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error) as error:
        raise DataError(f"{path} is cut short or damaged ({' '.join(str(error).split())}): get it again.") from error
    lacking = sorted(set(wanted.values()) - found.keys())
    if lacking:
        raise DataError(f"{path} lacks {archive.folder}/{lacking[0]}{and_more(lacking)}: get it again.")

    return lambda member: (f"{path}:{archive.folder}/{member}", found[member])


class _Arrays(pickle.Unpickler):
    """Reads only numpy arrays and plain data, since other pickles may run any code."""

    allowed: ClassVar = {
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str):
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes for Python 2 to read
            return lambda text, encoding: text.encode("latin1")
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no image archive needs")
        return self.allowed[module, name]


def _load(where: str, data: bytes, keys: tuple[str, ...]) -> tuple[dict, str]:
    """A pickled dictionary that has the keys."""
    try:
        content = _Arrays(io.BytesIO(data), encoding="latin1").load()
        content = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in content.items()}
    except Exception as error:  # damaged pickles raise errors of many kinds
        reason = " ".join(str(error).split())
        raise DataError(f"{where} is cut short or damaged ({reason}): get the archive again.") from error
    lacking = [key for key in keys if key not in content]
    if lacking:
        raise DataError(f"{where} lacks {lacking[0]!r}: get the archive again.")
    return content, where
