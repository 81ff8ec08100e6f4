"""The description of a set of labelled images by which it is opened."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from datamodules.samples import LabelledImages


@dataclass(frozen=True)
class Request:
    """A request for a set's images: `pacs/photo` with the split "val", in data/pacs."""

    name: str
    parts: tuple[str, ...]  # of the name, those behind the set's own: ("photo",)
    split: str
    root: Path  # the set's folder; a set that is drawn has none
    size: int | None = None  # side of drawn images
    length: int | None = None  # how many are drawn


@dataclass(frozen=True)
class ImageSet:
    """A set that its name opens.

    Attributes:
        names: how it is asked for, in capitals what the user chooses: ("pacs", "pacs/DOMAIN").
        open: gives the images; raises DataError where they are not in order, or there is no such part or split.
        domains: of a set of several domains, those under a folder, as they are asked for: ("pacs/photo", ...).
    """

    names: tuple[str, ...]
    open: Callable[[Request], LabelledImages]
    domains: Callable[[Path], tuple[str, ...]] | None = None

    @property
    def name(self) -> str:
        return self.names[0].partition("/")[0]

    def has(self, parts: Sequence[str]) -> bool:
        """Whether one of the names has so many parts behind the set's own."""
        return len(parts) in {name.count("/") for name in self.names}
