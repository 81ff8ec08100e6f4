"""Segmentation sets of one's own, described by a short YAML file (docs/data.md, "A set of your own").

images: images/{split}/*.jpg
labels: labels/{split}/*.png
classes:
  - {name: soil, id: 0}
  - {name: crop, id: 1, street: vegetation}
ignore: [255]
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from datamodules.image_files import DataError, file_bytes
from datamodules.segmentation.labels import IGNORE, STREET, LabelSpace, trained
from datamodules.segmentation.street_sets import SPLITS, Layout, OneFolderSet

FILE = re.compile(r"(.*\.ya?ml)(?::(\w+))?", re.IGNORECASE)
"""A name that means a description, and the split that it may end in."""
KEYS = {"name", "root", "images", "labels", "splits", "classes", "ignore"}
CLASS_KEYS = {"name", "id", "ids", "colour", "street"}
FRACTIONS = {"train": 0.8, "val": 0.2}
"""Of the sorted images, where neither a folder nor a list divides them."""
MOST_CLASSES = 254
COLOURS = (
    (31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189), (140, 86, 75), (227, 119, 194),
    (188, 189, 34), (23, 190, 207), (174, 199, 232), (255, 187, 120), (152, 223, 138), (255, 152, 150),
)  # fmt: skip
"""Of classes that name none, in turn: matplotlib's, without grey."""


@dataclass(frozen=True)
class Description:
    """What a YAML file says of a set.

    Attributes:
        table: raw value -> training id, of every value that labels may hold; 255 for ignored ones.
        by_colour: whether raw values are colours, red << 16 | green << 8 | blue, and not ids.
    """

    name: str
    root: Path
    images: tuple[str, str]  # folder and suffix
    labels: tuple[str, str]
    splits: Mapping[str, str]
    label_space: LabelSpace
    table: Mapping[int, int]
    by_colour: bool

    @property
    def in_folders(self) -> bool:
        """Whether each split has a folder of its own."""
        return "{split}" in self.images[0]


class OwnSet(OneFolderSet):
    """A split of a set that a YAML file describes; see `StreetSet`.

    Args:
        file: the description. split: "train", "val" or "test".

    Raises:
        DataError: the description is not in order, or the set is not as it says.
    """

    fractions = FRACTIONS

    def __init__(self, file: str | Path, split: str):
        self.described = said = read_description(Path(file))
        self.name, self.url, self.layout = said.name, str(file), f"what {file} says"
        (images, suffix), (labels, label_suffix) = said.images, said.labels
        own_ids = {id_: id_ for id_ in (*said.table.values(), IGNORE)}
        table = own_ids if said.by_colour else said.table
        self.layouts = (Layout(images, suffix, labels, label_suffix, table),)
        self.label_space, self.split_words = said.label_space, said.splits
        self.evaluated = trained(dict(said.table))
        super().__init__(said.root, split)

    def _advice(self) -> str:
        return f"{self.url} says where images and labels lie: mend it, or move them there"

    def _chosen(self, frames: list[str]) -> set[str]:
        return {*frames} if self.described.in_folders else super()._chosen(frames)

    def _ids(self, data: bytes) -> np.ndarray:
        return self._of_colours(data) if self.described.by_colour else super()._ids(data)

    def _of_colours(self, data: bytes) -> np.ndarray:
        """The training ids of a label whose pixels are colours, uint8 (H, W)."""
        with Image.open(io.BytesIO(data)) as file:
            if file.format != "PNG":
                raise ValueError(f"it is a {file.format}, whose compression changes colours; labels are PNGs")
            pixels = np.asarray(file.convert("RGB")).astype(np.int32)
        codes = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
        known = np.array(sorted(self.described.table), np.int32)
        places = np.searchsorted(known, codes).clip(max=len(known) - 1)
        strange = known[places] != codes
        if strange.any():
            raise ValueError(f"it holds the colour {_rgb(int(codes[strange][0]))}, which {self.url} does not name")
        return np.array([self.described.table[code] for code in known.tolist()], np.uint8)[places]


def description_of(name: str) -> tuple[Path, str] | None:
    """The description that a domain's name means, and the split it names, "" for none; None for other names."""
    found = FILE.fullmatch(name)
    return (Path(found[1]).expanduser(), found[2] or "") if found else None


def read_description(file: Path) -> Description:
    """What a YAML file says of a set; DataError, which names the line's key, where it is not in order."""
    try:
        said = yaml.safe_load(file_bytes(file).decode())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{file} is no YAML file: {' '.join(str(error).split())}.") from error
    if not isinstance(said, dict):
        raise DataError(f"{file} describes no set: it needs images, labels and classes.")
    _check_keys(said, KEYS, {"images", "labels", "classes"}, str(file))
    images, labels = (_pattern(said[key], f"{file}: {key}") for key in ("images", "labels"))
    if ("{split}" in images[0]) != ("{split}" in labels[0]):
        raise DataError(f"{file}: images and labels: both hold {{split}}, or neither does.")
    space, table, by_colour = _classes(said["classes"], said.get("ignore"), file)
    return Description(
        str(said.get("name", file.stem)),
        file.parent / Path(str(said.get("root", "."))).expanduser(),
        images,
        labels,
        _splits(said.get("splits"), file, "{split}" in images[0]),
        space,
        table,
        by_colour,
    )


def _check_keys(said: Mapping, known: set[str], needed: set[str], where: str) -> None:
    if strange := sorted(map(str, {*said} - known)):
        raise DataError(f"{where}: unknown key {strange[0]!r}: choose from {', '.join(sorted(known))}.")
    if lacking := sorted(needed - {*said}):
        raise DataError(f"{where}: {lacking[0]} is missing.")


def _pattern(pattern: object, where: str) -> tuple[str, str]:
    """A folder and a suffix of `FOLDER/*SUFFIX`."""
    folder, _, last = str(pattern).rpartition("/")
    if not isinstance(pattern, str) or not last.startswith("*") or last.count("*") > 1 or "*" in folder or last == "*":
        raise DataError(f"{where}: {pattern!r} is no pattern FOLDER/*SUFFIX, such as images/{{split}}/*.png.")
    return folder or ".", last[1:]


def _splits(said: object, file: Path, in_folders: bool) -> dict[str, str]:
    """The set's own words for splits."""
    if said is None:
        return {split: split for split in (SPLITS if in_folders else FRACTIONS)}
    if not isinstance(said, dict) or not said or {*said} - {*SPLITS}:
        raise DataError(f"{file}: splits: pass the set's own words for train, val and test, such as {{val: valid}}.")
    return {str(split): str(word) for split, word in said.items()}


def _classes(said: object, ignored: object, file: Path) -> tuple[LabelSpace, dict[int, int], bool]:
    """The label space, what each value of a label means, and whether values are colours."""
    if not isinstance(said, list) or len(said) < 2 or not all(isinstance(one, dict) and "name" in one for one in said):
        raise DataError(f"{file}: classes: list two classes or more, each with a name.")
    if len(said) > MOST_CLASSES:
        raise DataError(f"{file}: classes: there are {len(said)}, more than the {MOST_CLASSES} that a label can hold.")
    for one in said:
        _check_keys(one, CLASS_KEYS, {"name"}, f"{file}: class {one['name']!r}")
    names = [str(one["name"]) for one in said]
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(f"{file}: there are two classes {twice[0]!r}.")
    by_colour = not any({"id", "ids"} & {*one} for one in said) and all("colour" in one for one in said)
    on_street = any("street" in one for one in said)
    table: dict[int, int] = {}
    for place, one in enumerate(said):
        meant = _street(one, file) if on_street else place
        for value in _values(one, place, by_colour, f"{file}: class {one['name']!r}"):
            if value in table:
                what = f"colour {_rgb(value)}" if by_colour else f"id {value}"
                raise DataError(f"{file}: class {one['name']!r}: the {what} is that of another class, too.")
            table[value] = meant
    if ignored is None:
        ignored = [] if by_colour else [IGNORE]
    for value in ignored if isinstance(ignored, list) else [ignored]:
        table.setdefault(_value(value, by_colour, f"{file}: ignore"), IGNORE)
    if on_street:
        return STREET, table, by_colour
    palette = tuple(_colour(one, place, file) for place, one in enumerate(said))
    return LabelSpace("own", tuple(names), palette), table, by_colour


def _street(one: Mapping, file: Path) -> int:
    """Which of Cityscapes' classes a class is; 255 for one that is none of them."""
    name = one.get("street")
    if name is None:
        return IGNORE
    if name not in STREET.classes:
        raise DataError(f"{file}: class {one['name']!r}: street: {name!r} is none of {', '.join(STREET.classes)}.")
    return STREET.classes.index(name)


def _values(one: Mapping, place: int, by_colour: bool, where: str) -> list[int]:
    """The values of a class in labels: its colour, its ids, or by default its place in the list."""
    if by_colour:
        return [_value(one["colour"], True, where)]
    values = one.get("ids", one.get("id", place))
    return [_value(value, False, where) for value in (values if isinstance(values, list) else [values])]


def _value(value: object, by_colour: bool, where: str) -> int:
    """A label's value: an id from 0 to 255, or a colour's code."""
    numbers = value if isinstance(value, list) else [value]
    if len(numbers) != (3 if by_colour else 1) or not all(type(one) is int and 0 <= one <= 255 for one in numbers):
        wanted = "a colour [red, green, blue], each" if by_colour else "an id"
        raise DataError(f"{where}: {value!r} is not {wanted} from 0 to 255.")
    return numbers[0] << 16 | numbers[1] << 8 | numbers[2] if by_colour else numbers[0]


def _colour(one: Mapping, place: int, file: Path) -> tuple[int, int, int]:
    if "colour" not in one:
        return COLOURS[place % len(COLOURS)]
    return _rgb(_value(one["colour"], True, f"{file}: class {one['name']!r}: colour"))


def _rgb(code: int) -> tuple[int, int, int]:
    return code >> 16, code >> 8 & 255, code & 255
