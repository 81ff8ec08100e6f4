"""Sets made of other sets."""

import numpy as np
import pytest

from datamodules.classification.joined import Joined, Relabelled, in_order_of, unlike_classes
from datamodules.image_files import DataError


class Numbers:
    def __init__(self, start: int, count: int, classes=("even", "odd")):
        self.start, self.labels, self.classes = start, np.arange(start, start + count) % 2, classes

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int):
        return np.full((2, 2, 3), self.start + index, np.uint8), int(self.labels[index])


def test_joined_sets_stand_one_behind_the_other():
    joined = Joined(Numbers(0, 3), Numbers(10, 1), Numbers(20, 2))
    assert [int(image[0, 0, 0]) for image, _ in (joined[i] for i in range(len(joined)))] == [0, 1, 2, 10, 20, 21]
    assert [label for _, label in (joined[i] for i in range(6))] == joined.labels.tolist() == [0, 1, 0, 0, 0, 1]
    assert joined[-1][0][0, 0, 0] == 21 and joined.classes == ("even", "odd")
    with pytest.raises(IndexError):
        joined[6]


def test_relabelled_images_keep_their_pixels():
    part = Relabelled(Numbers(0, 5), np.array([4, 1]), np.array([1, 0]))
    assert len(part) == 2 and part.labels.tolist() == [1, 0]
    assert (part[0][0][0, 0, 0], part[0][1]) == (4, 1) and (part[1][0][0, 0, 0], part[1][1]) == (1, 0)


def test_the_same_classes_in_another_order_are_matched_by_name():
    joined = Joined(Numbers(0, 3), Numbers(0, 3, ("odd", "even")))
    assert [label for _, label in (joined[i] for i in range(6))] == joined.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert joined.classes == ("even", "odd")
    same = Numbers(0, 3)
    assert in_order_of(["even", "odd"], same, "a", "b") is same
    assert in_order_of(("odd", "even"), same, "a", "b").classes == ("odd", "even")


@pytest.mark.parametrize("classes", [("even", "strange"), ("even",), ("even", "odd", "neither"), ("even", "even")])
def test_other_classes_are_not_joined(classes):
    other = Numbers(0, 1, classes)
    with pytest.raises(DataError, match=r"^set 2 has \d classes \(even.*\), not the 2 \(even, odd\) of set 1: a label"):
        Joined(Numbers(0, 3), other)
    assert unlike_classes(classes, ("even", "odd")) and not unlike_classes(("odd", "even"), ("even", "odd"))
