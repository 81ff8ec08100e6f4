"""Appearance shifts against float64 arithmetic; the painted one against what a painting must and must not change."""

import pickle

import numpy as np
import pytest

from datamodules.corruptions.appearance_shifts import APPEARANCE_SHIFTS
from datamodules.image_files import DataError
from datamodules.worlds.streets.world import Streets


@pytest.fixture(scope="module")
def scene():
    return Streets("city", "val", 1, (96, 112))[0][0]


def test_names_are_the_papers():
    assert tuple(APPEARANCE_SHIFTS) == ("rgb+50", "r+50", "std/1.5", "painted")


@pytest.mark.parametrize("name", APPEARANCE_SHIFTS)
@pytest.mark.parametrize("shape", [(16, 16), (17, 96), (96, 112)], ids=str)
def test_any_image(name, shape, scene):
    image = scene[: shape[0], : shape[1]]
    kept = image.copy()
    out = APPEARANCE_SHIFTS[name](image)
    assert out.dtype == np.uint8 and out.shape == image.shape and out.flags.c_contiguous
    assert np.array_equal(out, APPEARANCE_SHIFTS[name](kept)) and np.array_equal(image, kept)
    assert not np.array_equal(out, image)


@pytest.mark.parametrize("name", APPEARANCE_SHIFTS)
def test_workers_can_be_sent_one(name, scene):
    assert np.array_equal(pickle.loads(pickle.dumps(APPEARANCE_SHIFTS[name]))(scene), APPEARANCE_SHIFTS[name](scene))


@pytest.mark.parametrize(("name", "added"), [("rgb+50", (50, 50, 50)), ("r+50", (50, 0, 0))])
def test_added_light(name, added):
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = np.stack([levels, levels[::-1], levels.T], axis=2)
    assert np.array_equal(APPEARANCE_SHIFTS[name](image), np.minimum(image.astype(int) + added, 255))


def test_deviation_divided(scene):
    out, image = APPEARANCE_SHIFTS["std/1.5"](scene).astype(float), scene.astype(float)
    means = image.mean((0, 1))
    assert np.abs(out - (means + (image - means) / 1.5)).max() <= 0.5 + 1e-6
    np.testing.assert_allclose(out.std((0, 1)), image.std((0, 1)) / 1.5, rtol=0.01)
    np.testing.assert_allclose(out.mean((0, 1)), means, atol=0.3)


def test_painting_smooths_texture_and_keeps_edges():
    rng = np.random.default_rng(0)
    image = np.clip(rng.normal(70, 12, (96, 96, 3)), 0, 255)
    image[:, 48:] += 120
    image = np.clip(image, 0, 255).astype(np.uint8)
    out = APPEARANCE_SHIFTS["painted"](image).astype(float)
    assert out[10:-10, 10:38].std((0, 1)).max() < 12
    grey = out.mean(2)
    assert np.argmax(np.abs(np.diff(grey.mean(0)))) in (46, 47, 48)
    assert grey[:, 56:].mean() - grey[:, :40].mean() > 70


def test_paintings_palette():
    """Shadows lean towards violet-blue, lights towards warm; neither is left black or white."""
    dark, light = (APPEARANCE_SHIFTS["painted"](np.full((64, 64, 3), value, np.uint8)) for value in (0, 255))
    dark, light = dark.mean((0, 1)), light.mean((0, 1))
    assert dark[2] > dark[0] + 5 and dark[2] > 15
    assert light[0] > light[2] + 5 and light[2] < 250


@pytest.mark.parametrize("name", APPEARANCE_SHIFTS)
def test_complaints(name):
    for wrong in (np.zeros((32, 32, 3)), np.zeros((32, 32), np.uint8), "cat.png"):
        with pytest.raises(DataError, match=r"expects a uint8 RGB array \(H, W, 3\), got .*\.$"):
            APPEARANCE_SHIFTS[name](wrong)
