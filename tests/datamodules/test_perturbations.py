"""Perturbation sequences: frame by frame against hand-worked ones, and what must hold between frames."""

import math

import numpy as np
import pytest
from scipy import ndimage

from datamodules.image_files import DataError
from datamodules.perturbations import NOISES, PERTURBATIONS, perturbed
from datamodules.streets import Streets

MOVES = ("translate", "rotate", "tilt", "scale")
DRAWN = ("gaussian_noise", "shot_noise", "snow")
"""These draw; the rest does not."""


@pytest.fixture(scope="module")
def scene():
    return Streets("city", "val", 1, (96, 112))[0][0]


@pytest.fixture(scope="module")
def clips(scene):
    return {name: perturbed(scene, name, seed=1) for name in PERTURBATIONS}


def step(clip, distance):
    """Mean change between frames `distance` apart."""
    return np.abs(clip[distance:].astype(float) - clip[:-distance]).mean()


def test_names_are_the_papers():
    assert PERTURBATIONS == (
        "gaussian_noise", "shot_noise", "motion_blur", "zoom_blur", "snow", "brightness", "translate", "rotate",
        "tilt", "scale",
    )  # fmt: skip
    assert NOISES == ("gaussian_noise", "shot_noise")


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_frames(name, scene, clips):
    kept = scene.copy()
    clip = clips[name]
    assert clip.shape == (41 if name == "translate" else 31, 96, 112, 3)
    assert clip.dtype == np.uint8 and clip.flags.c_contiguous
    assert np.array_equal(clip, perturbed(scene, name, seed=1)) and np.array_equal(scene, kept)
    assert np.array_equal(clip, perturbed(scene, name, seed=2)) == (name not in DRAWN)
    assert np.array_equal(clip[:3], perturbed(scene, name, seed=1, frames=3))


@pytest.mark.parametrize("name", PERTURBATIONS)
@pytest.mark.parametrize("shape", [(16, 16), (33, 64)], ids=str)
def test_small_images(name, shape, scene):
    clip = perturbed(scene[: shape[0], : shape[1]], name, seed=0)
    assert clip.shape == ({"translate": 16, "motion_blur": 21}.get(name, 31), *shape, 3)


@pytest.mark.parametrize("name", sorted(set(PERTURBATIONS) - set(NOISES)))
def test_near_frames_are_alike(name, clips):
    near, further, far = (step(clips[name], distance) for distance in (1, 4, 12))
    assert near < 0.6 * further < 0.8 * far


@pytest.mark.parametrize("name", NOISES)
def test_noises_start_clean_and_come_anew(name, scene, clips):
    assert np.array_equal(clips[name][0], scene)
    assert step(clips[name][1:], 1) == pytest.approx(step(clips[name][1:], 12), rel=0.02)


def test_noise_amounts():
    grey = np.full((80, 80, 3), 120, np.uint8)
    small = grey[:40, :40]
    for image, name, deviation in (
        (grey, "gaussian_noise", 0.03 * 255),
        (small, "gaussian_noise", 0.02 * 255),
        (grey, "shot_noise", math.sqrt(120 * 255 / 300)),
        (small, "shot_noise", math.sqrt(120 * 255 / 700)),
    ):
        frames = perturbed(image, name, 0)[1:].astype(float)
        assert frames.std() == pytest.approx(math.hypot(deviation, math.sqrt(1 / 12)), rel=0.02)
        assert frames.mean() == pytest.approx(119.5, abs=0.1)


def test_motion_blur_ends_level(scene):
    """Its last frame looks to the right alone."""
    weights = np.exp(-(np.arange(21) ** 2) / 18)
    wide = np.pad(scene.astype(float), ((0, 0), (0, 20), (0, 0)), mode="edge")
    expected = sum(w * wide[:, i : i + 112] for i, w in enumerate(weights / weights.sum()))
    assert np.abs(perturbed(scene, "motion_blur", 0)[-1] - (expected - 0.5)).max() < 0.55


def test_zoom_blur_is_a_running_mean(scene, clips):
    clip = clips["zoom_blur"]
    assert np.array_equal(clip[0], scene)
    centre = (np.array(scene.shape[:2]) - 1) / 2
    total = np.zeros(scene.shape)
    for index in range(11):
        inverse = np.full(2, 1 / (1 + 0.004 * index))
        for channel in range(3):
            plane = scene[..., channel].astype(float)
            total[..., channel] += ndimage.affine_transform(plane, inverse, centre * (1 - inverse), order=1)
    change = clip[10] - (total / 11 - 0.5)
    assert np.abs(change).mean() < 0.5 and np.abs(change).max() < 4  # OpenCV interpolates in 32nds of a pixel


def test_snow_turns_about_the_same_flakes(clips):
    means = clips["snow"].mean((1, 2, 3))
    assert means.std() < 0.05 * means.mean()
    assert step(clips["snow"], 1) > 0.1


def test_brightness_passes_through_the_image(scene, clips):
    assert np.abs(clips["brightness"][15].astype(int) - scene).max() <= 1
    grey = perturbed(np.full((70, 70, 3), 100, np.uint8), "brightness", 0)[:, 0, 0, 0]
    expected = [math.floor(max(100 + 5.1 * (index - 15), 0) + 1e-3) for index in range(31)]
    assert np.array_equal(grey, expected)


@pytest.mark.parametrize("name", MOVES)
def test_moves_leave_one_colour(name):
    image = np.empty((75, 90, 3), np.uint8)
    image[:] = 10, 120, 250
    assert (perturbed(image, name, 0) == image).all()


@pytest.mark.parametrize("name", ["translate", "rotate", "tilt"])
@pytest.mark.parametrize("shape", [(100, 100), (80, 110), (110, 80)], ids=str)
def test_moves_never_look_past_the_border(name, shape):
    """Along a steep ramp every pixel differs from the next; past the border they would be alike."""
    for axis in (0, 1):
        levels = 2 * np.arange(shape[axis], dtype=np.uint8)
        ramp = np.broadcast_to(levels[:, None] if axis == 0 else levels, shape)
        clip = perturbed(np.dstack([ramp] * 3), name, 0)[..., 0].astype(int)
        assert np.diff(clip, axis=1 + axis).min() >= 1


def test_translate_by_a_pixel_a_frame(clips):
    clip = clips["translate"].astype(int)
    assert np.abs(clip[1:, :, 1:] - clip[:-1, :, :-1]).max() <= 2


def test_rotate_mirrors(scene, clips):
    """Turning the mirrored image one way is turning the image the other way."""
    mirrored = perturbed(scene[:, ::-1], "rotate", 0)[::-1, :, ::-1].astype(int)
    assert np.abs(mirrored - clips["rotate"]).mean() < 0.3


def test_rotate_turns_clockwise_by_a_degree():
    image = np.zeros((101, 101, 3), np.uint8)
    image[50, :] = 255  # a level line
    for index, frame in enumerate(perturbed(image, "rotate", 0)):
        rows, columns = np.nonzero(frame[..., 0] > 60)
        slope = np.polyfit(columns - 50, rows - 50, 1, w=frame[rows, columns, 0])[0]
        assert math.degrees(math.atan(slope)) == pytest.approx(index - 15, abs=0.3)


def test_tilt_brings_one_corner_nearer():
    """Squares at two opposite corners of a centred square grow and shrink as the plane turns, and swap over."""
    image = np.zeros((151, 151, 3), np.uint8)
    for corner in (45, 105):
        image[corner - 8 : corner + 9, corner - 8 : corner + 9] = 255
    first, level, last = (perturbed(image, "tilt", 0)[index][..., 0] / 255 for index in (0, 15, 30))
    upper, lower = (level[:75, :75].sum(), level[76:, 76:].sum())
    assert upper == pytest.approx(lower, rel=0.01)
    ratio = first[:75, :75].sum() / first[76:, 76:].sum()
    assert ratio == pytest.approx(last[76:, 76:].sum() / last[:75, :75].sum(), rel=0.05) and abs(ratio - 1) > 0.1


@pytest.mark.parametrize(("side", "factors"), [(96, 1 + np.arange(31) / 16), (48, 1 + np.arange(31) / 35)])
def test_scale_starts_with_the_image(side, factors):
    image = np.zeros((side, side, 3), np.uint8)
    half = side // 8
    image[side // 2 - half : side // 2 + half, side // 2 - half : side // 2 + half] = 255
    clip = perturbed(image, "scale", 0)
    assert np.array_equal(clip[0], image)
    sides = np.sqrt((clip[..., 0] / 255).sum((1, 2)))
    np.testing.assert_allclose(sides, 2 * half * factors, rtol=0.02)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "fog"}, "'fog' is no perturbation; choose one of gaussian_noise, shot_noise, motion_blur"),
        ({"frames": 0}, "tilt has from 1 to 31 frames, not 0"),
        ({"frames": 32}, "tilt has from 1 to 31 frames, not 32"),
        ({"frames": 1.5}, "tilt has from 1 to 31 frames, not 1.5"),
        ({"seed": -1}, "a seed is a whole number from 0 up"),
        ({"image": np.zeros((32, 32, 3))}, "tilt expects a uint8 RGB array"),
    ],
)
def test_complaints(change, words):
    arguments = {"image": np.zeros((32, 32, 3), np.uint8), "name": "tilt", "seed": 0} | change
    with pytest.raises(DataError, match=words) as error:
        perturbed(**arguments)
    assert str(error.value).endswith(".") and str(error.value).count(". ") == 0
