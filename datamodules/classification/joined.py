"""Sets of labelled images made of other sets: joined, or in part and under other labels; and whether classes agree."""

from collections.abc import Sequence

import numpy as np

from datamodules.image_files import DataError
from datamodules.samples import LabelledImages


class Relabelled:
    """Some images of a set, under other labels; `classes` are what the labels mean, by default the set's own."""

    def __init__(
        self, samples: LabelledImages, chosen: np.ndarray, labels: np.ndarray, classes: Sequence[str] | None = None
    ):
        self.samples, self.chosen, self.labels = samples, chosen, labels
        self.classes = tuple(samples.classes if classes is None else classes)

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self.samples[int(self.chosen[index])][0], int(self.labels[index])


def unlike_classes(theirs: Sequence[str], ours: Sequence[str]) -> str | None:
    """How two sets' classes differ, in words ("10 classes (cat, dog, ...), not the 3 (car, ...)"); None for the same.

    The same names in another order are the same classes: see `in_order_of`.
    """
    if sorted(theirs) == sorted(ours):
        return None
    return f"{_some(theirs)}, not the {_some(ours).replace(' classes', '', 1)}"


def _some(classes: Sequence[str]) -> str:
    return f"{len(classes)} classes ({', '.join(classes[:3])}{', ...' * (len(classes) > 3)})"


def in_order_of(classes: Sequence[str], samples: LabelledImages, name: str, of: str) -> LabelledImages:
    """The samples with labels that count in the order of `classes`: as they are, or relabelled by the classes' names.

    Args:
        name: what the samples are called in a message.
        of: whose classes are asked for, in a message.

    Raises:
        DataError: they have other classes.
    """
    if tuple(samples.classes) == tuple(classes):
        return samples
    unlike = unlike_classes(samples.classes, classes)
    if unlike:
        raise DataError(f"{name} has {unlike} of {of}: a label would mean one thing here and another there.")
    place = {class_: label for label, class_ in enumerate(classes)}
    labels = np.array([place[class_] for class_ in samples.classes], np.int64)[samples.labels]
    return Relabelled(samples, np.arange(len(samples)), labels, classes)


class Joined:
    """Sets of the same classes, one behind the other.

    Args:
        sets: their labels count in the order of the first one's classes.
        names: what they are called in a message; "set 1", ... by default.

    Raises:
        DataError: one has other classes than the first.
    """

    def __init__(self, *sets: LabelledImages, names: Sequence[str] = ()):
        names = names or [f"set {number}" for number in range(1, len(sets) + 1)]
        self.classes = tuple(sets[0].classes)
        self.sets = tuple(
            in_order_of(self.classes, samples, name, names[0]) for samples, name in zip(sets, names, strict=True)
        )
        sets = self.sets
        self.labels = np.concatenate([samples.labels for samples in sets])
        self._ends = np.cumsum([len(samples) for samples in sets])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{index} is out of range for {len(self)} images.")
        index %= len(self)
        which = int(np.searchsorted(self._ends, index, side="right"))
        return self.sets[which][index - (self._ends[which - 1] if which else 0)]
