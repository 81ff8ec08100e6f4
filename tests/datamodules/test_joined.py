"""Sets made of other sets."""

import numpy as np
import pytest

from datamodules.joined import Joined, Relabelled


class Numbers:
    classes = ("even", "odd")

    def __init__(self, start: int, count: int):
        self.start, self.labels = start, np.arange(start, start + count) % 2

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
