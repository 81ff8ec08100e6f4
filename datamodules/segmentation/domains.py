"""Domains by name: `streets-night`, `gta5`, `camvid:test`, `my/farm.yaml`."""

from dataclasses import dataclass
from pathlib import Path

from datamodules.image_files import DataError, MissingDataError
from datamodules.in_memory import MapsInMemory
from datamodules.samples import LabelMaps
from datamodules.segmentation.labels import LabelSpace
from datamodules.segmentation.own_set import OwnSet, description_of
from datamodules.segmentation.sets import STREET_SETS
from datamodules.segmentation.street_sets import StreetSet
from datamodules.worlds.streets.world import APPEARANCES, Streets

PREFIX = "streets-"
TRAIN_SCENES, EVALUATED_SCENES = 2000, 40
"""Number of scenes in an embedded domain's train split and in each other split."""
KEPT = 10**9
"""Most bytes that an embedded domain's split takes in memory; scenes of a larger one are drawn anew each time."""

DOMAINS = (*(PREFIX + appearance for appearance in APPEARANCES), *STREET_SETS)


@dataclass(frozen=True)
class Domain:
    """One split of a set, and how a network's predictions are evaluated on it.

    Attributes:
        name: as the user gave it. samples: its images and their labels.
        evaluated: training ids that count. fold: predicted id -> evaluated id, for sets that merge classes of ours.
    """

    name: str
    samples: LabelMaps
    label_space: LabelSpace
    evaluated: tuple[int, ...]
    fold: dict[int, int]

    @property
    def on_disk(self) -> bool:
        """Whether this is a real set, and not drawn here."""
        return isinstance(self.samples, StreetSet)

    def plain(self) -> dict:
        """The part that a checkpoint stores besides the label space: name, and how predictions are evaluated."""
        return {
            "name": self.name,
            "evaluated": list(self.evaluated),
            "fold": [list(pair) for pair in self.fold.items()],
        }

    @classmethod
    def of(cls, plain: "Domain | dict", label_space: LabelSpace) -> "Domain":
        """The domain that `plain` gave, without its samples."""
        if isinstance(plain, Domain):
            return plain
        return cls(plain["name"], (), label_space, tuple(plain["evaluated"]), dict(map(tuple, plain["fold"])))


def split_of(name: str, split: str) -> tuple[str, str]:
    """The set and the split that a name means, `split` where it does not say."""
    if described := description_of(name):
        return str(described[0]), described[1] or split
    set_name, _, wanted = name.partition(":")
    return set_name, wanted or split


def open_all(wanted: list[tuple[str, str, int | None]], data_root: str | Path, height: int | None) -> list[Domain]:
    """`open_domain` for several (name, split, scenes); sets that are not on disk are reported together."""
    opened, missing = [], {}
    for name, split, scenes in wanted:
        try:
            opened.append(open_domain(name, split, data_root, height, scenes))
        except MissingDataError as error:
            missing.setdefault(name, str(error).rstrip("."))
    if missing:
        raise MissingDataError(f"{'; '.join(missing.values())}.")
    return opened


def open_domain(
    name: str, split: str, data_root: str | Path, height: int | None = None, scenes: int | None = None
) -> Domain:
    """Open a domain.

    Args:
        name: one of `DOMAINS`, of a set that was registered, or the path of a YAML file (`own_set`); `NAME:SPLIT`
            overrides `split`.
        data_root: the folder whose subfolders are the real sets, each under its name (bdd100k holds both of its tasks).
        height: of the scenes drawn by an embedded domain, 128 by default; their width is twice that.
        scenes: how many scenes an embedded domain has.

    Raises:
        DataError: an unknown name or split, or a set that is not in order on disk.
    """
    set_name, split = split_of(name, split)
    if set_name.startswith(PREFIX) and set_name in DOMAINS:
        length = scenes or (TRAIN_SCENES if split == "train" else EVALUATED_SCENES)
        height = height or 128
        try:
            drawn = Streets(set_name.removeprefix(PREFIX), split, length, (height, 2 * height))
        except ValueError as error:
            raise DataError(str(error)) from error
        samples = MapsInMemory(drawn, drawn.size) if 8 * length * height**2 <= KEPT else drawn
        return Domain(name, samples, drawn.label_space, drawn.evaluated, {})
    if description_of(name):
        samples = OwnSet(set_name, split)
        return Domain(name, samples, samples.label_space, samples.evaluated, {})
    if set_name not in STREET_SETS:
        known = ", ".join(dict.fromkeys([*DOMAINS, *STREET_SETS]))
        raise DataError(f"unknown domain {name!r}: choose from {known}, NAME:SPLIT, or a YAML file of your own set.")
    samples = STREET_SETS[set_name](Path(data_root) / set_name.removesuffix("-drivable"), split)
    return Domain(name, samples, samples.label_space, samples.evaluated, dict(samples.fold))
