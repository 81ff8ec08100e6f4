"""Domains that do not belong together are refused before anything is trained."""

from types import SimpleNamespace

import numpy as np
import pytest

from datamodules.classification.domains import ImageDomain
from experiments.study.endings import UsageError
from experiments.tasks.classification_checks import check_classes


def checked(adapt_to=None, **domains):
    """What a study says of an arm that learns `train` and is evaluated on the others."""

    def opened(name, split, recipe):
        classes, labels = domains[name]
        samples = SimpleNamespace(classes=classes, labels=np.array(labels), __len__=lambda: len(labels))
        return ImageDomain(name.replace("_", "/"), samples, tuple(classes))

    evaluated = tuple(name for name in domains if name not in ("train", adapt_to))
    check_classes(SimpleNamespace(train="train", evaluated=evaluated, adapt_to=adapt_to, recipe=None), opened)


PETS = ["cat", "dog"]


@pytest.mark.parametrize(
    ("domains", "said"),
    [
        ({"other": (["cat", "cow"], [0, 1])}, r"other has 2 classes \(cat, cow\), not the 2 \(cat, dog\) of train"),
        ({"other": (PETS, [0, 1]), "target": (["a"], [0]), "adapt_to": "target"}, r"target has 1 classes \(a\)"),
        ({"imagenet-p_tilt": (PETS, [0, 1])}, "imagenet-p/tilt holds videos"),
    ],
)
def test_other_classes(domains, said):
    with pytest.raises(UsageError, match=said):
        checked(train=(PETS, [0, 1]), **domains)


def test_classes_without_an_image_to_learn(capsys):
    """Of ImageNet any folders will do, but those of train and val must have something in common."""
    checked(train=(PETS, [0, 1]), other=(PETS, [1]))
    assert not capsys.readouterr().out
    checked(train=(PETS, [0, 0]), other=(PETS, [0, 1]))
    assert "other shows 1 classes (dog) of which train has no image to learn" in capsys.readouterr().out
    with pytest.raises(UsageError, match=r"shows 1 classes \(dog\) of which train has no image to learn, and no other"):
        checked(train=(PETS, [0, 0]), other=(PETS, [1, 1]))
