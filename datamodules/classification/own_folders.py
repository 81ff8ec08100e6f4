"""Folders of one's own as sets of labelled images, opened by their paths.

Three layouts are read: `CLASS/*`; `train/CLASS/*` with `val/CLASS/*` or `test/CLASS/*`; and `DOMAIN/CLASS/*`, whose
domains are opened together, or each by its own path. Where there is no folder val, every fifth image of each class is
held out for it, as `MultiDomain` does.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path

from datamodules.classification.domain_folders import DomainFolders, MultiDomain, held_out
from datamodules.classification.folders import ImageFiles, Published, and_more, class_files, files_in, folders_in
from datamodules.image_files import DataError, MissingDataError

log = logging.getLogger(__name__)

SPLITS = {
    "train": ("train", "training"), "val": ("val", "valid", "validation", "test"), "test": ("test",),
}  # fmt: skip
"""The folders that a split may be in, the first that is there."""
LAYOUTS = "CLASS/*, train/CLASS/* and val/CLASS/*, or DOMAIN/CLASS/*"


def own_folder(name: str) -> Path | None:
    """The folder that a set's name means if it is a path: one that is there, or one that begins like a path."""
    path = Path(name).expanduser()
    if name and (path.is_dir() or name.startswith(("./", "../", "~", os.sep))):
        return path
    return None


def open_folder(folder: Path, split: str) -> ImageFiles:
    """The images of a split of a folder; "all" are all that it has.

    Raises:
        MissingDataError: the folder is not there, or has no such split, or a class folder is empty.
        DataError: it has none of the layouts; its domains, or its splits, differ in their classes; unknown splits.
    """
    kinds: dict[str, Callable[[], ImageFiles]] = {
        "splits": lambda: _split(folder, split),
        "classes": lambda: _classes(folder, split),
        "domains": lambda: MultiDomain(_domains(folder), folder, split),
    }
    return kinds[_layout(folder)]()


def domains_in(folder: Path, name: str) -> tuple[str, ...]:
    """The domains of a folder `DOMAIN/CLASS/*`, under names that `open_images` opens.

    Args:
        name: of the folder, as the user gave it.

    Raises:
        DataError: the folder has another layout, or a domain's name has a character that has a meaning here.
    """
    if _layout(folder) != "domains":
        raise DataError(f"{folder} has no domains: this needs a folder DOMAIN/CLASS/*.")
    domains = folders_in(folder)
    if special := [domain for domain in domains if {":", "+"} & {*domain}]:
        first = folder / special[0]
        raise DataError(f"{first}: a domain's name may hold neither : nor +{and_more(special)}; rename it.")
    return tuple(f"{name.rstrip('/')}/{domain}" for domain in domains)


def _layout(folder: Path) -> str:
    """Whether a folder's folders are "splits", "classes" or "domains"."""
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise MissingDataError(f"{folder} {what}: a set of your own is a folder with {LAYOUTS}.")
    inside = folders_in(folder)
    if {*inside} & {*SPLITS["train"]}:
        return "splits"
    for child in inside:
        if files_in(folder / child):
            return "classes"
        if any(files_in(folder / child / inner) for inner in folders_in(folder / child)):
            return "domains"
    flat = " (there are images in it, which belong into folders of their classes)" if files_in(folder) else ""
    raise MissingDataError(f"{folder} holds no folder with images{flat}: a set of your own has {LAYOUTS}.")


def _split(folder: Path, split: str) -> ImageFiles:
    """A split that has a folder of its own; where there is none for val, a part of train."""
    if split == "all":
        raise DataError(f"{folder} is divided into splits and cannot be taken as a whole: name {folder}/train.")
    if split not in SPLITS:
        raise DataError(f"{split!r} is no split of {folder}, which has {', '.join(SPLITS)}.")
    inside = folders_in(folder)
    learned = folder / next(name for name in SPLITS["train"] if name in inside)
    own = next((folder / name for name in SPLITS[split] if name in inside), None)
    if own is None and split == "test":
        raise MissingDataError(f"{folder} holds no folder test: evaluate on 'val'.")
    if own in (None, learned):
        return _classes(learned, "all" if {*inside} & {*SPLITS["val"]} else split)
    classes, known = folders_in(own), folders_in(learned)
    strange = sorted({*classes} - {*known})
    if strange or not classes:
        what = f"the class {strange[0]!r}{and_more(strange)}" if strange else "no class folder"
        raise DataError(f"{own} has {what}, and {learned} has {', '.join(known[:5])}{', ...' * (len(known) > 5)}.")
    if absent := [class_ for class_ in known if class_ not in classes]:
        log.warning("%s has no images of the class %r%s", own, absent[0], and_more(absent))
    names, places = class_files(own, classes)
    return ImageFiles(own, names, [known.index(classes[place]) for place in places], known)


def _classes(folder: Path, split: str) -> ImageFiles:
    """A folder of class folders: all of it, or all but what is held out, or that."""
    if split not in ("train", "val", "all"):
        raise DataError(f"{split!r} is no split of {folder}, which has train, val and all.")
    classes = folders_in(folder)
    names, labels = class_files(folder, classes)
    if split != "all":
        held = held_out(folder.name, names, labels)
        chosen = [index for index in range(len(names)) if (index in held) == (split == "val")]
        names, labels = [names[index] for index in chosen], [labels[index] for index in chosen]
    if not names:
        raise DataError(f"{folder} has too few images a class for a {split!r} split: five of each make one of val.")
    return ImageFiles(folder, names, labels, classes)


def _domains(folder: Path) -> DomainFolders:
    """A folder of domains, described as a published set is."""
    own = Published(str(folder), "its source", "DOMAIN/CLASS/*")
    return DomainFolders(folder.name, own, {domain: (domain,) for domain in folders_in(folder)})
