"""Samples that are made once."""

import multiprocessing
import pickle

import numpy as np
import pytest
from torch.utils.data import DataLoader

from datamodules.in_memory import InMemory, MapsInMemory


class Counted:
    """Images that know how often they were made, in whatever process."""

    classes = ("even", "odd")

    def __init__(self, length=6, odd_one=None):
        self.labels, self.odd_one = np.arange(length) % 2, odd_one
        self.made = multiprocessing.get_context("fork").Value("i", 0)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        with self.made.get_lock():
            self.made.value += 1
        size = (5, 7) if index == self.odd_one else (4, 7)
        return np.full((*size, 3), [index, 100 + index, 255 - index], np.uint8), int(self.labels[index])


def test_each_sample_is_made_once_and_comes_back_as_it_was():
    samples = Counted()
    kept = InMemory(samples)
    before = samples.made.value
    for _ in range(3):
        for index in (3, 0, 5, -1):
            image, label = kept[index]
            np.testing.assert_array_equal(image, samples[index % 6][0])
            assert label == index % 2 and image.flags.c_contiguous and image.flags.writeable
            image[:] = 0  # the caller's own
    compared = 3 * 4
    assert samples.made.value - before - compared == 3  # 3, 0 and 5, which is -1 too
    assert len(kept) == 6 and kept.classes == ("even", "odd") and kept.labels is samples.labels


def test_loader_workers_fill_one_memory():
    samples = Counted()
    kept = InMemory(samples)
    before = samples.made.value
    for _ in range(3):
        loader = DataLoader(kept, 2, num_workers=2, multiprocessing_context="fork")
        seen = [int(value) for images, _ in loader for value in images[:, 0, 0, 0]]
        assert seen == list(range(6))
    assert samples.made.value - before == 6
    assert int(kept[5][0][0, 0, 0]) == 5 and samples.made.value - before == 6  # this process sees what they made


def test_a_pickled_copy_fills_its_own():
    class Plain(Counted):
        def __getstate__(self):
            return {"labels": self.labels, "odd_one": None}

        def __getitem__(self, index):
            return np.full((4, 7, 3), index, np.uint8), int(self.labels[index])

    global Copied
    Copied = Plain
    Plain.__qualname__ = "Copied"
    kept = InMemory(Plain())
    kept[2]
    copy = pickle.loads(pickle.dumps(kept))
    np.testing.assert_array_equal(copy[2][0], kept[2][0])
    assert len(pickle.dumps(kept)) < 2000  # the pixels do not travel


class Maps:
    def __init__(self):
        self.made = []

    def __len__(self):
        return 3

    def __getitem__(self, index):
        self.made.append(index)
        pixels = np.arange(4 * 6, dtype=np.uint8).reshape(4, 6)
        return np.stack([pixels + index, pixels, pixels], -1), pixels + 100 + index


def test_maps_come_back_with_their_images():
    kept, plain = MapsInMemory(Maps(), (4, 6)), Maps()
    for _ in range(2):
        for index in (1, 2):
            image, label = kept[index]
            np.testing.assert_array_equal(image, plain[index][0])
            np.testing.assert_array_equal(label, plain[index][1])
            np.testing.assert_array_equal(kept.label(index), label)
            image[:], label[:] = 0, 0  # the caller's own
    assert kept.samples.made == [1, 2] and len(kept) == 3


def test_beyond_the_end_and_of_another_size():
    kept = InMemory(Counted(odd_one=4))
    with pytest.raises(IndexError):
        kept[6]
    with pytest.raises(ValueError, match=r"sample 4 is of shape \(5, 7, 3\), the first of \(4, 7, 3\)"):
        kept[4]
