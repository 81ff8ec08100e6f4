"""Perturbation sequences: frame by frame against hand-worked ones, and what must hold between frames."""

import math

import numpy as np
import pytest
from scipy import ndimage

from datamodules.corruptions.imagenet_p import NOISES, PERTURBATIONS, perturbed
from datamodules.image_files import DataError
from datamodules.worlds.streets.world import Streets

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


def test_snow_turns_about_the_same_flakes(clips):
    means = clips["snow"].mean((1, 2, 3))
    assert means.std() < 0.05 * means.mean()
    assert step(clips["snow"], 1) > 0.1


def test_brightness_passes_through_the_image(scene, clips):
    assert np.abs(clips["brightness"][15].astype(int) - scene).max() <= 1
    grey = perturbed(np.full((70, 70, 3), 100, np.uint8), "brightness", 0)[:, 0, 0, 0]
    expected = [math.floor(max(100 + 5.1 * (index - 15), 0) + 1e-3) for index in range(31)]
    assert np.array_equal(grey, expected)


@pytest.fixture(scope="module")
def picture():
    """ImageNet-P's picture before its middle is cut out: a shorter side of 256 pixels; nothing in it is black."""
    scene = Streets("city", "val", 1, (256, 512))[0][0][:, 100:400]
    return ndimage.gaussian_filter(np.maximum(scene, 20), (1, 1, 0))


def seen(picture, motion, nearest=False):
    """The middle 224 pixels of the picture under a motion about its centre, in float64 by scipy, black outside."""
    rows, columns = (np.arange(224) + (side - 224) // 2 - (side - 1) / 2 for side in picture.shape[:2])
    down, right = np.meshgrid(rows, columns, indexing="ij")
    right, down, scale = np.einsum("ij,jhw->ihw", np.linalg.inv(motion), np.stack([right, down, np.ones_like(down)]))
    places = [place / scale + (side - 1) / 2 for place, side in zip((down, right), picture.shape[:2], strict=True)]
    order = 0 if nearest else 1
    planes = [
        ndimage.map_coordinates(plane.astype(float), places, order=order, mode="grid-constant")
        for plane in picture.transpose(2, 0, 1)
    ]
    return np.stack(planes, -1)


def turned(degrees):
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])


def tilted(degrees, distance):
    """A plane turned about its level and its upright axis, and seen from so far: by hand."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    # a point (x, y, 0) goes to (x cos, y cos - x sin², y sin + x sin cos), and is seen at f / (f + z) of that
    return np.array([[cos, 0, 0], [-(sin**2), cos, 0], [sin * cos / distance, sin / distance, 1]])


MOTIONS = {
    "translate": (41, lambda i, picture: np.array([[1, 0, i - 20], [0, 1, 0], [0, 0, 1.0]])),
    "rotate": (31, lambda i, picture: turned(i - 15)),
    "tilt": (31, lambda i, picture: tilted(i - 15, math.hypot(*picture.shape[:2]))),
    "scale": (31, lambda i, picture: np.diag([0.4 + 0.025 * i, 0.4 + 0.025 * i, 1])),
}


@pytest.mark.parametrize("name", MOTIONS)
@pytest.mark.parametrize("upright", [False, True])
def test_the_picture_moves_and_its_middle_is_seen(name, upright, picture):
    picture = np.ascontiguousarray(picture.swapaxes(0, 1)) if upright else picture
    count, motion = MOTIONS[name]
    clip = perturbed(picture, name, 0, size=224)
    assert clip.shape == (count, 224, 224, 3)
    for index in (0, 7, count // 2, count - 1):
        expected = seen(picture, motion(index, picture), nearest=name == "translate")
        off = np.abs(clip[index] - expected)
        # interpolation rounds; at the picture's own edge it may do so to either side
        assert off.mean() < 0.5 and np.percentile(off, 99.5) <= 1.5
        if name == "translate":
            assert off.max() == 0


def test_zoom_blur_is_a_running_mean(picture):
    clip = perturbed(picture, "zoom_blur", 0, size=224)
    assert np.array_equal(clip[0], picture[16:240, 38:262])
    frames = [seen(picture, np.diag([1 + 0.004 * index, 1 + 0.004 * index, 1])) for index in range(31)]
    for index in (10, 30):
        off = clip[index] - (np.mean(frames[: index + 1], axis=0) - 0.5)
        assert np.abs(off).mean() < 0.5 and np.abs(off).max() < 2


@pytest.mark.parametrize(
    ("name", "black"), [("translate", 0.001), ("rotate", 0.001), ("tilt", 0.001), ("scale", 0.212)]
)
def test_borders_are_black_where_the_picture_ends(name, black):
    """The share of black pixels that the published recipe leaves of photographs, most of which are as wide as this."""
    clip = perturbed(np.full((256, 340, 3), 200, np.uint8), name, 0, size=224)
    assert (clip == 0).all(-1).mean() == pytest.approx(black, abs=0.001)


def test_what_moves_nothing_is_made_of_the_middle(picture):
    for name in ("gaussian_noise", "motion_blur", "snow", "brightness"):
        alone = perturbed(picture[16:240, 38:262], name, 1, frames=3)
        assert np.array_equal(perturbed(picture, name, 1, frames=3, size=224), alone)


def test_a_small_frame_takes_cifars_figures():
    picture = np.full((70, 70, 3), 90, np.uint8)
    assert len(perturbed(picture, "translate", 0, size=64)) == 16 and len(perturbed(picture, "translate", 0)) == 41


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


@pytest.mark.parametrize(("side", "factors"), [(96, 0.4 + np.arange(31) / 40), (48, 0.7 + np.arange(31) / 50)])
def test_scale(side, factors):
    image = np.zeros((side, side, 3), np.uint8)
    half = side // 4
    image[side // 2 - half : side // 2 + half, side // 2 - half : side // 2 + half] = 255
    sides = np.sqrt((perturbed(image, "scale", 0)[..., 0] / 255).sum((1, 2)))
    np.testing.assert_allclose(sides, 2 * half * factors, rtol=0.02)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "fog"}, "'fog' is no perturbation; choose one of gaussian_noise, shot_noise, motion_blur"),
        ({"frames": 0}, "tilt has from 1 to 31 frames, not 0"),
        ({"frames": 32}, "tilt has from 1 to 31 frames, not 32"),
        ({"frames": 1.5}, "tilt has from 1 to 31 frames, not 1.5"),
        ({"size": 33}, "tilt: frames of 33 x 33 cannot be cut from 32 x 32"),
        ({"size": 8}, "tilt: frames of 8 x 8 cannot be cut"),
        ({"seed": -1}, "a seed is a whole number from 0 up"),
        ({"image": np.zeros((32, 32, 3))}, "tilt expects a uint8 RGB array"),
    ],
)
def test_complaints(change, words):
    arguments = {"image": np.zeros((32, 32, 3), np.uint8), "name": "tilt", "seed": 0} | change
    with pytest.raises(DataError, match=words) as error:
        perturbed(**arguments)
    assert str(error.value).endswith(".") and str(error.value).count(". ") == 0
