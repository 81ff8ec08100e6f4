"""The ten perturbation sequences of ImageNet-P: short clips in which an image changes a little from frame to frame.

    clip = perturbed(image, "tilt", seed=7)  # uint8 (31, H, W, 3)

Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions and perturbations", ICLR 2019,
section 3 and appendix; at the published difficulty 1. As with corruptions, images whose shorter side is at most 64
pixels take CIFAR-10-P's figures, all others ImageNet-P's, in pixels as they stand.

Frames are as large as the image. `translate`, `rotate`, `tilt` and `scale` magnify it about its centre, by the least
factor with which no frame looks past its border, and by the same one in every frame: by 1.18, 1.22, 1.37 and 2.5 for
224 x 224. The published clips were cut from a slightly larger picture and show black borders here and there; so what
they call a scale of 0.4 to 1.15 is 1 to 2.875 here. Nor are these frames stored as video.
"""

from collections.abc import Callable, Iterator
from numbers import Integral
from typing import NamedTuple

import cv2
import numpy as np

from datamodules.corruption_blur import streaked
from datamodules.corruption_digital import with_brightness
from datamodules.corruption_noise import gaussian_noise as add_gaussian_noise
from datamodules.corruption_noise import shot_noise as add_shot_noise
from datamodules.corruption_rounding import cut
from datamodules.corruption_weather import snowed, snowflakes, whitened
from datamodules.corruptions import check_image, generator, is_small
from datamodules.image_files import DataError

Frames = Iterator[np.ndarray]


def perturbed(image: np.ndarray, name: str, seed: int, frames: int | None = None) -> np.ndarray:
    """The frames of a perturbation sequence, the same for the same arguments.

    For mFR, flips are counted between consecutive frames; for `NOISES`, between the first frame and each other one.

    Args:
        image: uint8 RGB (H, W, 3), at least 16 pixels each way; left as it is.
        name: one of `PERTURBATIONS`.
        seed: 0 or more; the noises and the snow draw from it.
        frames: how many of the published frames, from the first on; None for all: 31, but 41 of `translate` (for small
            images 16, and 21 of `motion_blur`).

    Returns:
        uint8 (frames, H, W, 3), contiguous. The first frame of the noises and of the zoom blur is the image itself.

    Raises:
        DataError: an argument is none of these.
    """
    if name not in TABLE:
        raise DataError(f"{name!r} is no perturbation; choose one of {', '.join(TABLE)}.")
    check_image(image, name)
    row = TABLE[name]
    count, *figures = row.cifar if is_small(image) else row.imagenet
    if frames is None:
        frames = count
    if not isinstance(frames, Integral) or not 1 <= frames <= count:
        raise DataError(f"{name} has from 1 to {count} frames, not {frames!r}.")
    rng = generator(seed, tuple(TABLE).index(name))
    clip = np.empty((int(frames), *image.shape), np.uint8)
    for place, frame in zip(clip, row.frames(np.ascontiguousarray(image), count, *figures, rng), strict=False):
        place[:] = frame
    return clip


def noise(corruption: Callable) -> Callable[..., Frames]:
    """The clean image first, and then new noise in every frame."""

    def frames(image, count, amount, rng) -> Frames:
        yield image
        for _ in range(1, count):
            yield corruption(image, amount, rng)

    return frames


def motion_blur(image, count, radius, deviation, turn, rng) -> Frames:
    """A motion whose direction turns by `turn` degrees a frame and ends at 0."""
    pixels = image.astype(np.float32)
    for index in range(count):
        yield cut(streaked(pixels, radius, deviation, angle=turn * (index + 1 - count)))


def zoom_blur(image, count, step, rng) -> Frames:
    """Frame t is the mean of the image zoomed by 1, 1 + step, ..., 1 + t step."""
    pixels = image.astype(np.float32)
    total = np.zeros_like(pixels)
    for index in range(count):
        total += _viewed(pixels, np.diag([1 + index * step, 1 + index * step, 1]))
        yield cut(total / (index + 1))


def snow(image, count, zoom, radius, deviation, rng) -> Frames:
    """The same flakes in every frame; the direction in which they fall turns by 4 degrees."""
    flakes = snowflakes(image.shape[:2], 0.05, 0.3, zoom, 0.5, rng)
    pale = whitened(image, kept=0.85)
    for index in range(count):
        yield snowed(pale, streaked(flakes, radius, deviation, angle=4 * index - 150))


def brightness(image, count, step, rng) -> Frames:
    """The value of HSV from 15 steps below the image's to 15 above."""
    for index in range(count):
        yield with_brightness(image, (index - 15) * step)


def translate(image, count, first, rng) -> Frames:
    """A pixel to the right in every frame, from `first` on."""
    return _moved(image, [_shift(first + index) for index in range(count)])


def rotate(image, count, rng) -> Frames:
    """A degree clockwise in every frame, from -15 to 15."""
    return _moved(image, [_rotation(index - 15) for index in range(count)])


def tilt(image, count, step, rng) -> Frames:
    """The picture's plane turned in space by `step` degrees a frame about both of its axes, from -15 steps to 15."""
    distance = np.hypot(*image.shape[:2])
    return _moved(image, [_tilting(step * (index - 15), distance) for index in range(count)])


def scale(image, count, first, step, rng) -> Frames:
    """Magnified in steps of `step`, from `first` on; see above for what it is relative to."""
    factors = (first + step * index for index in range(count))
    return _moved(image, [np.diag([factor, factor, 1]) for factor in factors])


class Perturbation(NamedTuple):
    """What gives the frames, the published number of frames and what the function takes before the generator."""

    frames: Callable[..., Frames]
    imagenet: tuple
    cifar: tuple


TABLE = {
    "gaussian_noise": Perturbation(noise(add_gaussian_noise), (31, 0.03), (31, 0.02)),
    "shot_noise": Perturbation(noise(add_shot_noise), (31, 300), (31, 700)),
    "motion_blur": Perturbation(motion_blur, (31, 10, 3, 4), (21, 6, 1.8, 9)),
    "zoom_blur": Perturbation(zoom_blur, (31, 0.004), (31, 0.004)),
    "snow": Perturbation(snow, (31, 3, 14, 4), (31, 2, 10, 2)),
    "brightness": Perturbation(brightness, (31, 0.02), (31, 0.015)),
    "translate": Perturbation(translate, (41, -20), (16, -7)),
    "rotate": Perturbation(rotate, (31,), (31,)),
    "tilt": Perturbation(tilt, (31, 1), (31, 0.75)),
    "scale": Perturbation(scale, (31, 0.4, 0.025), (31, 0.7, 0.02)),
}

PERTURBATIONS = tuple(TABLE)
"""In ImageNet-P's order."""
NOISES = ("gaussian_noise", "shot_noise")
"""Sequences without an order in time: every frame is compared with the first."""


def _shift(right: float) -> np.ndarray:
    return np.float64([[1, 0, right], [0, 1, 0], [0, 0, 1]])


def _rotation(degrees: float) -> np.ndarray:
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.float64([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])


def _tilting(degrees: float, distance: float) -> np.ndarray:
    """The plane turned about its horizontal and its vertical axis, seen from `distance` pixels."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    about_x = np.float64([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    about_y = np.float64([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])
    turned = about_x @ about_y
    turned[:, 2] = 0, 0, distance
    return np.diag([distance, distance, 1]) @ turned


def _moved(image: np.ndarray, motions: list[np.ndarray]) -> Frames:
    """The image under each motion (3 x 3, pixels about the centre), magnified so that no frame shows its border."""
    half = (np.float64(image.shape[1::-1]) - 1) / 2
    corners = np.float64([[x, y, 1] for x in (-half[0], half[0]) for y in (-half[1], half[1])]).T
    seen = [np.linalg.inv(motion) @ corners for motion in motions]
    magnification = max(np.abs(points[:2] / points[2] / half[:, None]).max() for points in seen)
    for motion in motions:
        yield _viewed(image, motion @ np.diag([magnification, magnification, 1]))


def _viewed(image: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """The image under a motion (3 x 3, pixels about the centre)."""
    height, width = image.shape[:2]
    centred = np.float64([[1, 0, (width - 1) / 2], [0, 1, (height - 1) / 2], [0, 0, 1]])
    matrix = centred @ motion @ np.linalg.inv(centred)
    return cv2.warpPerspective(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
