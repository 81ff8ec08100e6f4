"""Sets of labelled images by name: `imagenet`, `pacs/photo`, `shapes`, `imagenet-c/fog/3`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from datamodules.cifar_sets import CIFAR
from datamodules.image_files import DataError
from datamodules.image_sets import ImageNet, ImageNetC, ImageNetP
from datamodules.in_memory import InMemory
from datamodules.joined import Joined, in_order_of
from datamodules.multi_domain import DOMAIN_SETS, MultiDomain
from datamodules.samples import LabelledImages

NAMES = (
    "imagenet", "imagenet-c/CORRUPTION/SEVERITY", "imagenet-p/PERTURBATION", "cifar10", "cifar100",
    *(name for set_ in DOMAIN_SETS for name in (set_, f"{set_}/DOMAIN")), "shapes", "shapes/STYLE",
)  # fmt: skip
TRAIN_SHAPES, JUDGED_SHAPES = 4000, 1000
"""How many images `shapes` has in its train split, and in each of the others."""
SHAPES_SIZE = 32
KEPT_BYTES = 2**29
"""Drawn images are kept in memory up to this; beyond, they are drawn anew each time."""


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
        """Whether this is a real set, and not drawn here."""
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
        name: one of `NAMES`; a set of several domains alone means all of them, joined. `NAME:SPLIT` overrides `split`,
            and `NAME+NAME` joins domains of one set, or sets of the same classes.
        split: "train" or "val"; "test" where one is published; "in0", "out0", ... of a trial (`MultiDomain`).
        data_root: the folder whose subfolders are the real sets, each under its name.
        size: side of the images that `shapes` draws, 32 by default; a set on disk keeps its own.
        length: how many images `shapes` draws; a set on disk has what it has.

    Raises:
        MissingDataError: the set is not on disk.
        DataError: an unknown name or split, a set that is not in order on disk, or joined sets of unlike classes.
    """
    if "+" in name:
        opened = [open_images(part, split, data_root, size=size, length=length) for part in name.split("+")]
        if len({part.of_videos for part in opened}) > 1:
            raise DataError(f"{name} joins images and videos: name sets of one kind.")
        samples = Joined(*(part.samples for part in opened), names=[part.name for part in opened])
        return ImageDomain(name, samples, opened[0].classes)
    given = name
    name, _, wanted = name.partition(":")
    split = wanted or split
    set_name, *parts = name.split("/")
    root = Path(data_root) / set_name
    if name == "imagenet":
        samples = ImageNet(root, split)
    elif set_name == "imagenet-c" and len(parts) == 2:
        _only_val(name, split)
        samples = ImageNetC(root, parts[0], _severity(name, parts[1]))
    elif set_name == "imagenet-p" and len(parts) == 1:
        _only_val(name, split)
        samples = ImageNetP(root, parts[0])
    elif name in ("cifar10", "cifar100"):
        samples = _cifar(root, split, int(name.removeprefix("cifar")))
    elif set_name in DOMAIN_SETS and len(parts) <= 1:
        domains = tuple(_domain(name, part, DOMAIN_SETS[set_name].folders) for part in parts)
        samples = MultiDomain(set_name, root, split, domains or None)
    elif set_name == "shapes" and len(parts) <= 1:
        samples = _shapes(name, parts, split, size, length)
    else:
        raise DataError(f"unknown set {name!r}: choose from {', '.join(NAMES)}.")
    return ImageDomain(given, samples, tuple(samples.classes))


def domains_of(set_name: str, data_root: str | Path) -> tuple[str, ...]:
    """The domains of a set, under names that `open_images` opens: "pacs/photo", ...; of a real set, those on disk.

    Raises:
        MissingDataError: none of the set's domains is on disk.
        DataError: the set is not one of several domains.
    """
    if set_name == "shapes":
        from datamodules.shapes import STYLES

        return tuple(f"shapes/{style}" for style in STYLES)
    if set_name not in DOMAIN_SETS:
        raise DataError(f"{set_name!r} is no set of several domains: choose from {', '.join(DOMAIN_SETS)}, shapes.")
    facts, root = DOMAIN_SETS[set_name], Path(data_root) / set_name
    found = [domain for domain, names in facts.folders.items() if any((root / name).is_dir() for name in names)]
    if not found:
        raise facts.published.missing(root / next(iter(facts.folders)) if root.is_dir() else root)
    return tuple(f"{set_name}/{domain}" for domain in found)


def _severity(name: str, word: str) -> int:
    if word not in ("1", "2", "3", "4", "5"):
        raise DataError(f"{name!r} asks for severity {word!r} of ImageNet-C, which has 1 to 5.")
    return int(word)


def _only_val(name: str, split: str) -> None:
    if split != "val":
        raise DataError(f"{name!r} has no {split!r} split: it is made of ImageNet's val, and judged on.")


def _cifar(root: Path, split: str, classes: int) -> CIFAR:
    # torchvision's downloads lie in the data folder itself.
    beside = not root.exists() and any((root.parent / part).exists() for part in CIFAR.archived_as(classes))
    return CIFAR(root.parent if beside else root, split, classes)


def _domain(name: str, word: str, known: Iterable[str]) -> str:
    """The domain that a word means, however it is spelt: "Real World", "real_world" and "RealWorld" are one."""
    spelt = {_plain(domain): domain for domain in known}
    if _plain(word) not in spelt:
        raise DataError(f"unknown domain {name!r}: choose from {', '.join(spelt.values())}.")
    return spelt[_plain(word)]


def _plain(word: str) -> str:
    return "".join(letter for letter in word.lower() if letter.isalnum())


def _shapes(name: str, styles: Sequence[str], split: str, size: int | None, length: int | None) -> LabelledImages:
    from datamodules.shapes import STYLES, Shapes

    styles = tuple(_domain(name, style, STYLES) for style in styles) or STYLES
    length = length or (TRAIN_SHAPES if split == "train" else JUDGED_SHAPES)
    try:
        samples = Shapes(split, length=length, size=size or SHAPES_SIZE, styles=styles)
    except ValueError as error:
        raise DataError(str(error)) from error
    return InMemory(samples) if length * samples[0][0].nbytes <= KEPT_BYTES else samples
