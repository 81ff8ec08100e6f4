"""Sets of several domains, each a folder of class folders."""

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np

from datamodules.classification.folders import ImageFiles, Published, and_more, class_files, folders_in
from datamodules.classification.image_set import ImageSet, Request
from datamodules.image_files import DataError, MissingDataError, lines_of

log = logging.getLogger(__name__)

TRIAL = re.compile(r"(in|out)(\d+)")
"""Splits of a trial of DomainBed's protocol."""


@dataclass(frozen=True)
class DomainFolders:
    """A set of several domains, each a folder of class folders."""

    name: str
    published: Published
    folders: Mapping[str, tuple[str, ...]]  # domain -> its folder's name, by release

    def as_set(self) -> ImageSet:
        """The set as its name opens it: all domains joined, or one."""
        return ImageSet((self.name, f"{self.name}/DOMAIN"), self._opened, self._on_disk)

    def _opened(self, request: Request) -> "MultiDomain":
        domains = tuple(known_domain(request.name, part, self.folders) for part in request.parts)
        return MultiDomain(self, request.root, request.split, domains or None)

    def _on_disk(self, root: Path) -> tuple[str, ...]:
        found = [domain for domain, names in self.folders.items() if any((root / name).is_dir() for name in names)]
        if not found:
            raise self.published.missing(root / next(iter(self.folders)) if root.is_dir() else root)
        return tuple(f"{self.name}/{domain}" for domain in found)


def known_domain(name: str, word: str, known: Iterable[str]) -> str:
    """The domain of a name in any spelling: "Real World", "real_world" and "RealWorld" are the same."""
    spelt = {_plain(domain): domain for domain in known}
    if _plain(word) not in spelt:
        raise DataError(f"unknown domain {name!r}: choose from {', '.join(spelt.values())}.")
    return spelt[_plain(word)]


def _plain(word: str) -> str:
    return "".join(letter for letter in word.lower() if letter.isalnum())


class MultiDomain(ImageFiles):
    """One domain, or several joined, of a set whose domains are folders of class folders.

    If the set's own lists of a domain exist (DomainNet's `DOMAIN_train.txt` and `DOMAIN_test.txt`), they define train
    and test, and val is test. Otherwise val is every fifth image of each class, ordered by a hash of the names, and
    train is the rest. "out3" are the images that trial 3 of DomainBed's protocol holds out, a fifth of all, rounded
    down, and "in3" the rest; the order is drawn by a hash of the trial and the domain (Gulrajani and Lopez-Paz, ICLR
    2021). The rule is DomainBed's, but the random draws differ.

    Args:
        folders: the set.
        root: the folder that holds the domains' folders.
        split: "train", "val" or "all"; "test" where there are lists; "inTRIAL" or "outTRIAL".
        domains: those to join; all by default.

    Attributes:
        classes: sorted; the same in all domains.

    Raises:
        MissingDataError: a domain is missing, a class folder is empty, or none of a list's images exists.
        DataError: no such domain or split, or domains on disk differ in their classes.
    """

    def __init__(self, folders: DomainFolders, root: str | Path, split: str, domains: tuple[str, ...] | None = None):
        self.published, self.folders, self.name = folders.published, folders.folders, folders.name
        if split not in ("train", "val", "test", "all") and not TRIAL.fullmatch(split):
            raise DataError(f"{split!r} is no split of {self.published.name}, which has train, val and all.")
        root = Path(root)
        if not root.is_dir():
            raise self.published.missing(root)
        opened = {domain: self._folder(root, domain) for domain in domains or self.folders}
        classes = self._classes(root, opened)
        names, labels = [], []
        for domain, folder in opened.items():
            found, positions = class_files(folder, classes)
            chosen = self._chosen(root, folder, domain, found, positions, split)
            names += [f"{folder.name}/{found[index]}" for index in chosen]
            labels += [positions[index] for index in chosen]
        if not names:
            raise DataError(f"{root} has too few images a class for a {split!r} split of {self.published.name}.")
        super().__init__(root, names, labels, classes)

    def _folder(self, root: Path, domain: str) -> Path:
        for name in self.folders[domain]:
            if (root / name).is_dir():
                return root / name
        raise self.published.missing(root / self.folders[domain][0])

    def _classes(self, root: Path, folders: Mapping[str, Path]) -> list[str]:
        """The class folders of the domains opened, which those of all domains on disk must equal."""
        opened = next(iter(folders.values()))
        classes = folders_in(opened)
        if not classes:
            raise MissingDataError(f"{opened} holds no class folder.")
        present = (root / name for names in self.folders.values() for name in names if (root / name).is_dir())
        for other in present:
            ours, theirs = set(classes), set(folders_in(other))
            for has, lacks, lacking in ((opened, other, ours - theirs), (other, opened, theirs - ours)):
                if lacking:
                    raise DataError(f"{has} has the class {min(lacking)!r}{and_more(lacking)}, but {lacks} does not.")
        return classes

    def _chosen(
        self, root: Path, folder: Path, domain: str, names: list[str], positions: list[int], split: str
    ) -> list[int]:
        """Which of a domain's images belong to the split."""
        if trial := TRIAL.fullmatch(split):
            everything = self._chosen(root, folder, domain, names, positions, "all")
            return _of_trial(domain, everything, *trial.groups())
        lists = {part: root / f"{folder.name}_{part}.txt" for part in ("train", "test")}
        if any(path.is_file() for path in lists.values()):
            return self._listed(lists, folder, names, split)
        if split == "test":
            raise DataError(f"{domain} of {self.published.name} has no published test split: evaluate on 'val'.")
        if split == "all":
            return list(range(len(names)))
        held = held_out(domain, names, positions)
        return [index for index in range(len(names)) if (index in held) == (split == "val")]

    def _listed(self, lists: Mapping[str, Path], folder: Path, names: list[str], split: str) -> list[int]:
        listed: set[str] = set()
        for part in ("train", "test") if split == "all" else ("train" if split == "train" else "test",):
            if not lists[part].is_file():
                raise self.published.missing(lists[part])
            # A line is DOMAIN/CLASS/NAME and a label.
            lines = [line.rsplit(maxsplit=1)[0] for line in lines_of(lists[part])]
            listed |= {line.partition("/")[2] for line in lines}
        chosen = [index for index, name in enumerate(names) if name in listed]
        if not chosen:
            raise MissingDataError(f"None of the {len(listed)} images that {folder.name}'s lists name is in {folder}.")
        if len(chosen) < len(listed):
            absent = min(listed - set(names))
            log.warning("%d of the %d images listed for %s are not on disk, %s first",
                        len(listed) - len(chosen), len(listed), folder, absent)  # fmt: skip
        return chosen


def _of_trial(domain: str, images: list[int], part: str, trial: str) -> list[int]:
    """A trial's part of a domain's images: "out", a fifth of them, or "in", the rest."""
    seed = blake2b(f"{int(trial)}/{domain}".encode(), digest_size=8).digest()
    order = np.random.default_rng(int.from_bytes(seed, "big")).permutation(len(images))
    aside = len(images) // 5
    return sorted(images[i] for i in (order[:aside] if part == "out" else order[aside:]))


def held_out(domain: str, names: list[str], positions: list[int]) -> set[int]:
    """Every fifth image of each class, ordered by a hash, since neighbouring names often show the same object."""

    def hashed(index: int) -> bytes:
        return blake2b(f"{domain}/{names[index]}".encode("utf-8", "surrogateescape"), digest_size=8).digest()

    by_class: dict[int, list[int]] = {}
    for index, position in enumerate(positions):
        by_class.setdefault(position, []).append(index)
    return {index for members in by_class.values() for index in sorted(members, key=hashed)[4::5]}
