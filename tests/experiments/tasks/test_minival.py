"""What is held out for picking, and that nothing else is evaluated on."""

import numpy as np
import pytest

from datamodules.classification.domains import ImageDomain
from experiments.tasks.classification_domains import Opened
from experiments.tasks.classification_flags import ClassificationFlags
from experiments.tasks.minival import Minival, divided
from lightning_modules.classification.recipes import CLASSIFICATION_RECIPES

RECIPE = CLASSIFICATION_RECIPES["resnet-rs-200-256"]


class Images:
    """So many images of two classes, each of its own number."""

    classes = ("a", "b")

    def __init__(self, count: int):
        self.labels = np.arange(count) % 2

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int):
        return np.full((8, 8, 3), index % 256, np.uint8), int(self.labels[index])


@pytest.mark.parametrize(("count", "held"), [(1_281_167, 25_623), (1000, 20), (49, 1), (3, 1)])
def test_the_minival_is_two_percent_and_nothing_is_on_both_sides(count, held):
    out, rest = divided(count, 0.02)
    assert len(out) == held and len(out) + len(rest) == count
    np.testing.assert_array_equal(np.sort(np.concatenate([out, rest])), np.arange(count))
    np.testing.assert_array_equal(divided(count, 0.02)[0], out)  # the same for every candidate


def test_candidates_learn_and_are_evaluated_on_the_training_images_alone(monkeypatch):
    opened_splits = []

    def open_images(self, name, split, size):
        opened_splits.append(split)
        return ImageDomain(name, Images(200), Images.classes)

    monkeypatch.setattr(Opened, "_open", open_images)
    minival = Minival(ClassificationFlags(), 0.02)
    learned, evaluated = (minival("shapes", split, RECIPE).samples for split in ("train", "val"))
    assert set(opened_splits) == {"train"} and (len(learned), len(evaluated)) == (196, 4)
    numbers = [{int(samples[i][0][0, 0, 0]) for i in range(len(samples))} for samples in (learned, evaluated)]
    assert numbers[0].isdisjoint(numbers[1]) and numbers[0] | numbers[1] == set(range(200))
    assert all(samples[i][1] == samples.labels[i] for samples in (learned, evaluated) for i in range(len(samples)))
