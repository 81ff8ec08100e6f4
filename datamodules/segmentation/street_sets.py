"""Readers of real street scenes in their published folder layouts; `sets` has one file for each set.

Folders, pairs, sizes and truncated files are checked when the set is built, so that errors do not come hours later.
Only the ids of a label are checked when it is read.
"""

import glob
import io
import logging
import math
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
from PIL import Image
from rich.progress import track

from datamodules.image_files import DataError, MissingDataError, decode_rgb, decoded, lines_of, mismatch
from datamodules.segmentation.labels import STREET, LabelSpace, trained

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
TRAIN_AND_VAL = {"train": "train", "val": "val"}
BY_SERVER = "its labels are withheld by the benchmark's server, and evaluation is done on 'val'"
UNKNOWN = 254
"""Value in a look-up table for ids that the set does not define; no label space has so many classes."""


@dataclass(frozen=True)
class Layout:
    """Folders and suffixes of a split's images and labels, whose paths between folder and suffix are the same."""

    images: str  # a folder under the root; {split} stands for the set's own word for a split
    image_suffix: str
    labels: str
    label_suffix: str
    table: Mapping[int, int]
    """Raw id -> training id. It lists every id that the set defines, with 255 for those that are not trained, so that
    any other id means a wrong or damaged label file."""


class StreetSet:
    """A split of a published data set: a map-style torch dataset. A subclass describes one set.

    Args:
        root: the folder that holds the set.
        split: "train", "val" or "test".

    Attributes:
        pairs: (image path, label path) of every sample, sorted.
        table: raw id -> training id, for the layout that was found.

    Raises:
        MissingDataError: the root, a split, an image or a label is not there.
        DataError: a file is cut short or unreadable, or a label is not of its image's size.
    """

    name: ClassVar[str]
    url: ClassVar[str]  # the download page
    layout: ClassVar[str]  # the published layout in words, for messages and help texts
    layouts: ClassVar[tuple[Layout, ...]]  # releases differ; the first whose folders exist is read
    label_space: ClassVar[LabelSpace] = STREET
    evaluated: ClassVar[
        tuple[int, ...]
    ]  # the training ids that count; where a set does not say, all that its labels have
    fold: ClassVar[Mapping[int, int]] = {}  # predicted training id -> training id that counts
    split_words: ClassVar[Mapping[str, str]] = {split: split for split in SPLITS}
    withheld: ClassVar[Mapping[str, str]] = {}  # splits without public labels, and why
    flawed: ClassVar[frozenset[str]] = frozenset()  # frames broken as published, left out
    share_unlabelled: ClassVar[float] = 0.0  # left out with a warning up to this share, an error beyond
    share_mismatched: ClassVar[float] = 0.0

    def __init_subclass__(cls) -> None:
        if "layouts" in vars(cls) and "evaluated" not in vars(cls):
            cls.evaluated = trained(cls.layouts[0].table)

    def __init__(self, root: str | Path, split: str) -> None:
        self.root, self.split = Path(root), split
        layout = self._find_layout()
        self.table = layout.table
        self._lut = _lookup(layout.table)
        self.pairs = self._checked(self._paired(layout))

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Sample `index`: image uint8 (H, W, 3) RGB, label uint8 (H, W) of training ids, 255 ignored.

        Raises:
            DataError: a file cannot be decoded, or the label holds an id that the set does not define.
        """
        return decoded(self.pairs[index][0], decode_rgb), self.label(index)

    def label(self, index: int) -> np.ndarray:
        """The label of sample `index` alone."""
        label_path = self.pairs[index][1]
        ids = decoded(label_path, self._ids)
        label = cv2.LUT(ids, self._lut)
        if (label == UNKNOWN).any():
            unknown = sorted(set(np.unique(ids).tolist()) - set(self.table))
            known = sorted(id_ for id_ in self.table if id_ >= 0)
            raise DataError(f"{label_path} holds {_ids_in_words(unknown)}, but {self.name} defines {_ranges(known)}.")
        return label

    @staticmethod
    def _ids(data: bytes) -> np.ndarray:
        """The class ids in a label file, uint8 (H, W). PIL, because OpenCV turns palette indices into colours."""
        with Image.open(io.BytesIO(data)) as file:
            if file.format != "PNG":
                raise ValueError(f"it is a {file.format}, whose compression changes class ids; labels are PNGs")
            if file.mode not in ("L", "P"):
                raise ValueError(
                    f"it stores {file.mode} pixels where a label has one class id a pixel (a palette or grey PNG)"
                )
            return np.asarray(file)

    def _find_layout(self) -> Layout:
        if self.split in self.withheld:
            raise MissingDataError(f"{self.name} has no {self.split!r} split to read: {self.withheld[self.split]}.")
        if self.split not in self.split_words:
            raise DataError(f"{self.split!r} is no split of {self.name}, which has {', '.join(self.split_words)}.")
        advice = self._advice()
        if not self.root.is_dir():
            found = "is a file, not a folder" if self.root.exists() else "does not exist"
            raise MissingDataError(f"{self.root} {found}; {advice}.")
        missing = [
            [folder for folder in (layout.images, layout.labels) if not self._folder(folder).is_dir()]
            for layout in self.layouts
        ]
        if [] in missing:
            return self.layouts[missing.index([])]
        nearest = " and ".join(str(self._folder(folder)) for folder in min(missing, key=len))
        holds = ", ".join(sorted(path.name for path in self.root.iterdir())[:8]) or "nothing"
        raise MissingDataError(
            f"{nearest} not found for the {self.split!r} split of {self.name} ({self.root} holds {holds}); {advice}."
        )

    def _advice(self) -> str:
        return f"get {self.name} from {self.url} and point to the folder that holds {self.layout}"

    def _folder(self, pattern: str) -> Path:
        return self.root / pattern.format(split=self.split_words[self.split])

    def _paired(self, layout: Layout) -> dict[str, tuple[Path, Path]]:
        """Frame name -> (image, label) for every frame of the split, each known to have both."""
        image_folder, label_folder = self._folder(layout.images), self._folder(layout.labels)
        images = _frames(image_folder, layout.image_suffix)
        label_files = _frames(label_folder, layout.label_suffix)
        for folder, suffix, files in (
            (image_folder, layout.image_suffix, images),
            (label_folder, layout.label_suffix, label_files),
        ):
            if not files:
                raise MissingDataError(f"{folder} holds no file named *{suffix}, so {self.name} cannot be read.")
        names = self._chosen(sorted(images.keys() | label_files.keys())) - self.flawed
        imageless = {
            name: f"{label_files[name]} is a label without its image {image_folder / (name + layout.image_suffix)}"
            for name in sorted(names - images.keys())
        }
        unlabelled = {
            name: f"{images[name]} is an image without its label {label_folder / (name + layout.label_suffix)}"
            for name in sorted(names - label_files.keys())
        }
        self._leave_out(imageless, len(names), 0, MissingDataError)
        self._leave_out(unlabelled, len(names), self.share_unlabelled, MissingDataError)
        return {name: (images[name], label_files[name]) for name in sorted(names - unlabelled.keys())}

    def _chosen(self, frames: list[str]) -> set[str]:
        """Which of the frames found belong to the split: all, where splits are folders."""
        return set(frames)

    def _checked(self, pairs: Mapping[str, tuple[Path, Path]]) -> list[tuple[Path, Path]]:
        """The pairs of complete files of one size. It reads the ends of each file, in threads because disks are
        slow."""
        mismatched = {}
        with ThreadPoolExecutor(max_workers=16) as pool:
            complaints = track(
                pool.map(mismatch, pairs.values()),
                description=f"checking {self.name} {self.split}",
                total=len(pairs),
                transient=True,
                disable=2 * len(pairs) <= 2000,
            )
            for name, complaint in zip(pairs, complaints, strict=True):
                if complaint:
                    mismatched[name] = complaint
        self._leave_out(mismatched, len(pairs), self.share_mismatched, DataError)
        return [pair for name, pair in pairs.items() if name not in mismatched]

    def _leave_out(self, flaws: Mapping[str, str], total: int, share: float, error: type[DataError]) -> None:
        """Warn of frames that are left out; raise if there are more than the published set is known to have."""
        if not flaws:
            return
        more = f" (and {len(flaws) - 1} more of {total} frames like it)" if len(flaws) > 1 else ""
        if len(flaws) > share * total:
            raise error(f"{next(iter(flaws.values()))}{more}.")
        log.warning("%s: left out of the %r split: %s", self.name, self.split, "; ".join(flaws.values()))


class OneFolderSet(StreetSet):
    """A set published as one folder of frames, divided by `{train,val,test}.txt` or, without them, by fractions."""

    fractions: ClassVar[Mapping[str, float]]  # of the sorted frames, one after the other, where there is no list

    def _chosen(self, frames: list[str]) -> set[str]:
        listed = self._listed()
        if listed is None:
            return self._fraction(frames)
        source, names = listed
        absent = names - set(frames)
        if absent == names:
            raise MissingDataError(f"None of the {len(names)} frames that {source} lists is in {self.root}.")
        if absent:  # the archives come in parts, and one may well want only some
            log.warning("%d of %d frames in %s are not on disk, %s first", len(absent), len(names), source, min(absent))
        return names - absent

    def _listed(self) -> tuple[Path, set[str]] | None:
        """The file that lists the split's frames, and their names; None if the set has no lists."""
        lists = {split: self.root / f"{split}.txt" for split in self.split_words}
        if not any(path.is_file() for path in lists.values()):
            return None
        path = lists[self.split]
        if not path.is_file():
            found = ", ".join(str(other) for other in lists.values() if other.is_file())
            raise MissingDataError(f"{path} is missing: the {self.split!r} split must be listed there, as in {found}.")
        # A line is a name or a path, and some lists name the label after it.
        return path, {Path(line.split()[0]).stem for line in lines_of(path)}

    def _fraction(self, frames: list[str]) -> set[str]:
        """Contiguous and not shuffled, since neighbouring frames are similar and must not be in two splits."""
        before = sum(self.fractions[split] for split in list(self.fractions)[: list(self.fractions).index(self.split)])
        first, last = (math.ceil(len(frames) * part) for part in (before, before + self.fractions[self.split]))
        log.warning(
            "%s has no split lists in %s: taking frames %d to %d of %d, sorted by name, as the %r split",
            self.name, self.root, first + 1, last, len(frames), self.split,
        )  # fmt: skip
        if first == last:
            raise DataError(f"{self.root} holds {len(frames)} frames, too few for {self.name}'s {self.split!r} split.")
        return set(frames[first:last])


def _frames(folder: Path, suffix: str) -> dict[str, Path]:
    """Frame name -> file, for the files under a folder that end in suffix. Follows links, skips hidden files."""
    found = sorted(glob.iglob(f"**/*{suffix}", root_dir=folder, recursive=True))
    return {Path(name).as_posix().removesuffix(suffix): folder / name for name in found}


def _lookup(table: Mapping[int, int]) -> np.ndarray:
    """A raw id -> training id table as uint8 (256,), with UNKNOWN for ids that the table does not have."""
    lut = np.full(256, UNKNOWN, np.uint8)
    for raw, training in table.items():
        if raw >= 0:
            lut[raw] = training
    return lut


def _ids_in_words(ids: Iterable[int]) -> str:
    ids = list(ids)
    return f"the id {ids[0]}" if len(ids) == 1 else f"the ids {', '.join(map(str, ids))}"


def _ranges(ids: list[int]) -> str:
    """[0, 1, 2, 255] -> "0 to 2 and 255"."""
    runs: list[list[int]] = []
    for id_ in ids:
        if runs and id_ == runs[-1][1] + 1:
            runs[-1][1] = id_
        else:
            runs.append([id_, id_])
    return " and ".join(str(first) if first == last else f"{first} to {last}" for first, last in runs)
