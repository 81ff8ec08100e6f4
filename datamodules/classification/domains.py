"""Sets of labelled images by name: `imagenet`, `pacs/photo`, `shapes`, `imagenet-c/fog/3`; your own by their paths."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from datamodules.classification.image_set import Request
from datamodules.classification.joined import Joined, in_order_of
from datamodules.classification.own_folders import LAYOUTS, domains_in, open_folder, own_folder
from datamodules.classification.sets import IMAGE_SETS
from datamodules.image_files import DataError
from datamodules.samples import LabelledImages

NAMES = tuple(name for image_set in IMAGE_SETS.values() for name in image_set.names)


@dataclass(frozen=True)
class ImageDomain:
    """One split of a set of labelled images.

    Attributes:
        name: as the user gave it.
        samples: its images; those of ImageNet-P are videos uint8 (T, H, W, 3).
        classes: names of the classes, in the order of the labels.
    """

    name: str
    samples: LabelledImages
    classes: tuple[str, ...]

    @property
    def on_disk(self) -> bool:
        """Whether this is a real set and not an embedded one."""
        return any(part.replace(":", "/").partition("/")[0] != "shapes" for part in self.name.split("+"))

    @property
    def of_videos(self) -> bool:
        """Whether its samples are ImageNet-P's videos."""
        return self.name.partition("/")[0] == "imagenet-p"

    def in_order_of(self, classes: Sequence[str], of: str) -> "ImageDomain":
        """The domain with labels in the order of `classes`, those of what is called `of`; DataError for others."""
        return replace(self, samples=in_order_of(classes, self.samples, self.name, of), classes=tuple(classes))


def open_images(
    name: str, split: str, data_root: str | Path, *, size: int | None = None, length: int | None = None
) -> ImageDomain:
    """Open a split of a set.

    Args:
        name: one of `NAMES`, of a set that was registered, or the path of a folder (`own_folders`); a set of several
            domains alone means all of them, joined. `NAME:SPLIT` overrides `split`, and `NAME+NAME` joins domains of a
            set, or sets of the same classes.
        split: "train" or "val"; "test" where one is published; "in0", "out0", ... of a trial (`MultiDomain`).
        data_root: the folder whose subfolders are the real sets, each under its name.
        size: side of the images that `shapes` draws, 32 by default; a set on disk keeps its own.
        length: number of images that `shapes` draws; it has no effect on a set on disk.

    Raises:
        MissingDataError: the set is not on disk.
        DataError: an unknown name or split, a damaged set, or joined sets with different classes.
    """
    if "+" in name and not (is_folder(name) and _path_and_split(name)[0].is_dir()):
        opened = [open_images(part, split, data_root, size=size, length=length) for part in name.split("+")]
        if len({part.of_videos for part in opened}) > 1:
            raise DataError(f"{name} joins images and videos: name sets of one kind.")
        samples = Joined(*(part.samples for part in opened), names=[part.name for part in opened])
        return ImageDomain(name, samples, opened[0].classes)
    if is_folder(name):
        path, wanted = _path_and_split(name)
        samples = open_folder(path, wanted or split)
        return ImageDomain(name, samples, tuple(samples.classes))
    plain, _, wanted = name.partition(":")
    set_name, *parts = plain.split("/")
    image_set = IMAGE_SETS.get(set_name)
    if image_set is None or not image_set.has(parts):
        names = ", ".join(name for known in IMAGE_SETS.values() for name in known.names)
        raise DataError(f"unknown set {plain!r}: choose from {names}, or the path of a folder with {LAYOUTS}.")
    root = Path(data_root) / set_name
    samples = image_set.open(Request(plain, tuple(parts), wanted or split, root, size, length))
    return ImageDomain(name, samples, tuple(samples.classes))


def is_folder(name: str) -> bool:
    """Whether a name is a path, of a folder of one's own; names of known sets are none, unless they begin with ./."""
    return name.partition("/")[0].partition(":")[0] not in IMAGE_SETS and _path_and_split(name)[0] is not None


def _path_and_split(name: str) -> tuple[Path | None, str]:
    """The folder of `PATH` or `PATH:SPLIT`, None if it is none, and the split, "" where none is named."""
    path, _, split = name.rpartition(":")
    if path and "/" not in split and not Path(name).expanduser().is_dir():
        return own_folder(path), split
    return own_folder(name), ""


def domains_of(set_name: str, data_root: str | Path) -> tuple[str, ...]:
    """The domains of a set, under names that `open_images` opens: "pacs/photo", ...; of a real set, those on disk.

    Raises:
        MissingDataError: none of the set's domains is on disk.
        DataError: the set is not one of several domains.
    """
    if is_folder(set_name):
        return domains_in(_path_and_split(set_name)[0], set_name)
    several = {name: image_set.domains for name, image_set in IMAGE_SETS.items() if image_set.domains}
    if set_name not in several:
        raise DataError(f"{set_name!r} is no set of several domains: choose from {', '.join(several)}.")
    return several[set_name](Path(data_root) / set_name)
