"""Label spaces: the classes of a segmentation network's output channels."""

from dataclasses import dataclass, field

IGNORE = 255
"""The training id of pixels that are ignored in training and evaluation."""


@dataclass(frozen=True)
class LabelSpace:
    """The classes of a network's output channels: a name and an RGB colour for each training id.

    Two are equal if their classes are.
    """

    name: str = field(compare=False)
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...] = field(compare=False)

    def __len__(self) -> int:
        return len(self.classes)

    def first_other(self, other: "LabelSpace") -> str:
        """Where as many classes as another space's differ first, in words."""
        pairs = zip(self.classes, other.classes, strict=False)
        unlike = [(place, *pair) for place, pair in enumerate(pairs) if pair[0] != pair[1]]
        if len(self) != len(other) or not unlike:
            return ""
        place, ours, theirs = unlike[0]
        return f" (class {place} is {ours!r} in one and {theirs!r} in the other)"

    def plain(self) -> dict:
        """Texts and numbers alone, as a checkpoint keeps it."""
        return {"name": self.name, "classes": list(self.classes), "palette": [list(colour) for colour in self.palette]}

    @classmethod
    def of(cls, plain: "LabelSpace | dict") -> "LabelSpace":
        """The label space that `plain` gave."""
        if isinstance(plain, LabelSpace):
            return plain
        return cls(str(plain["name"]), tuple(plain["classes"]), tuple(tuple(colour) for colour in plain["palette"]))


STREET = LabelSpace(
    "street",
    ("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
     "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
    ((128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153), (250, 170, 30),
     (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142),
     (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32)),
)  # fmt: skip
"""Cityscapes' 19 training ids and colours."""

DRIVABLE = LabelSpace(
    "drivable",
    ("background", "direct", "alternative"),
    ((0, 0, 0), (219, 94, 86), (86, 211, 219)),
)
"""BDD100K's drivable area, the WAD 2018 task: the lane one drives in, lanes one could change to, and the rest."""


def trained(table: dict[int, int]) -> tuple[int, ...]:
    """The training ids a table can produce, in ascending order and without 255."""
    return tuple(sorted(set(table.values()) - {IGNORE}))
