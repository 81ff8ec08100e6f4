"""The ten perturbation sequences of ImageNet-P: short clips in which an image changes a little from frame to frame.

    clip = perturbed(image, "tilt", seed=7)  # uint8 (31, H, W, 3)

Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions and perturbations", ICLR 2019,
section 3 and appendix; at the published difficulty 1. As with corruptions, images whose shorter side is at most 64
pixels take CIFAR-10-P's figures, all others ImageNet-P's, in pixels as they stand.

Published frames are 224 x 224 and show the middle of a picture whose shorter side has 256 pixels: what moves is the
picture, and black comes in where it ends.

    clip = perturbed(picture, "tilt", seed=7, size=224)  # uint8 (31, 224, 224, 3)

What changes no geometry (noises, motion blur, snow, brightness) is made of the middle alone. A picture of another size
moves by as many pixels and degrees. Without a `size` frames are as large as the image and their borders black; so are
those of images of CIFAR's size (how CIFAR-10-P fills its borders we do not know).

Published frames were stored as H.264 video, which these are not: flip probabilities measured on these are never divided
by AlexNet's on those.
"""

from collections.abc import Callable, Iterator
from numbers import Integral
from typing import NamedTuple

import cv2
import numpy as np

from datamodules.classification.transforms import centre
from datamodules.corruptions.blur import streaked
from datamodules.corruptions.digital import with_brightness
from datamodules.corruptions.imagenet_c import SMALLEST, check_image, generator, is_small
from datamodules.corruptions.noise import gaussian_noise as add_gaussian_noise
from datamodules.corruptions.noise import shot_noise as add_shot_noise
from datamodules.corruptions.rounding import cut
from datamodules.corruptions.weather import snowed, snowflakes, whitened
from datamodules.image_files import DataError

Frames = Iterator[np.ndarray]


def perturbed(
    image: np.ndarray, name: str, seed: int, frames: int | None = None, size: int | None = None
) -> np.ndarray:
    """The frames of a perturbation sequence, the same for the same arguments.

    For mFR, flips are counted between consecutive frames; for `NOISES`, between the first frame and each other one.

    Args:
        image: uint8 RGB (H, W, 3), at least 16 pixels each way; left as it is.
        name: one of `PERTURBATIONS`.
        seed: 0 or more; the noises and the snow draw from it.
        frames: how many of the published frames, from the first on; None for all: 31, but 41 of `translate` (for small
            images 16, and 21 of `motion_blur`).
        size: pixels of a side of the frames, which show the image's middle; None for the whole image.

    Returns:
        uint8 (frames, H, W, 3) or (frames, size, size, 3), contiguous. The first frame of the noises and of the zoom
        blur is what is shown of the image itself.

    Raises:
        DataError: an argument is none of these.
    """
    if name not in TABLE:
        raise DataError(f"{name!r} is no perturbation; choose one of {', '.join(TABLE)}.")
    check_image(image, name)
    if size is not None and not SMALLEST <= size <= min(image.shape[:2]):
        raise DataError(f"{name}: frames of {size} x {size} cannot be cut from {image.shape[0]} x {image.shape[1]}.")
    shown = centre(image, size) if size else image
    row = TABLE[name]
    count, *figures = row.cifar if is_small(shown) else row.imagenet
    if frames is None:
        frames = count
    if not isinstance(frames, Integral) or not 1 <= frames <= count:
        raise DataError(f"{name} has from 1 to {count} frames, not {frames!r}.")
    rng = generator(seed, tuple(TABLE).index(name))
    clip = np.empty((int(frames), *shown.shape), np.uint8)
    seen = (Camera(np.ascontiguousarray(image), shown.shape[:2]),) if row.moves else (np.ascontiguousarray(shown),)
    for place, frame in zip(clip, row.frames(*seen, count, *figures, rng), strict=False):
        place[:] = frame
    return clip


class Camera:
    """Shows the middle of a picture, uint8 (H, W, 3), under motions of the picture about its centre.

    Args:
        shape: height and width of what it shows, at most the picture's.
    """

    def __init__(self, picture: np.ndarray, shape: tuple[int, int]):
        self.picture, self.shape = picture, shape
        height, width = picture.shape[:2]
        self.diagonal = float(np.hypot(height, width))
        self._centred = _shift((width - 1) / 2, (height - 1) / 2)
        top, left = (round((side - part) / 2) for side, part in zip(picture.shape, shape, strict=False))  # as `centre`
        self._cut = _shift(-left, -top)

    def __call__(self, motion: np.ndarray, nearest: bool = False, picture: np.ndarray | None = None) -> np.ndarray:
        """The view, (height, width, 3), of the type of the picture.

        Args:
            motion: float64 (3, 3), of places in pixels right and down from the picture's centre.
            nearest: repeat pixels; else they are interpolated linearly.
            picture: another one of this one's size.
        """
        matrix = self._cut @ self._centred @ motion @ np.linalg.inv(self._centred)
        sampling = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
        picture = self.picture if picture is None else picture
        if not motion[2, :2].any():
            return cv2.warpAffine(picture, matrix[:2] / matrix[2, 2], self.shape[::-1], flags=sampling)
        return cv2.warpPerspective(picture, matrix, self.shape[::-1], flags=sampling)


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


def zoom_blur(camera, count, step, rng) -> Frames:
    """Frame t is the mean of the picture scaled by 1, 1 + step, ..., 1 + t step."""
    pixels = camera.picture.astype(np.float32)
    total = np.zeros((*camera.shape, 3), np.float32)
    for index in range(count):
        total += camera(_scaling(1 + index * step), picture=pixels)
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


def translate(camera, count, first, rng) -> Frames:
    """A pixel to the right in every frame, from `first` on."""
    return (camera(_shift(first + index), nearest=True) for index in range(count))


def rotate(camera, count, rng) -> Frames:
    """A degree clockwise in every frame, from -15 to 15."""
    return (camera(_rotation(index - 15)) for index in range(count))


def tilt(camera, count, step, rng) -> Frames:
    """The picture's plane turned in space by `step` degrees a frame about both of its axes, from -15 steps to 15."""
    return (camera(_tilting(step * (index - 15), camera.diagonal)) for index in range(count))


def scale(camera, count, first, step, rng) -> Frames:
    """The picture scaled in steps of `step`, from `first` on: 0.4 to 1.15 for ImageNet-P."""
    return (camera(_scaling(first + step * index)) for index in range(count))


class Perturbation(NamedTuple):
    """What gives the frames, the published number of frames and what the function takes before the generator."""

    frames: Callable[..., Frames]
    imagenet: tuple
    cifar: tuple
    moves: bool = False
    """Whether it moves a picture of which a part is seen: its function takes a `Camera`, others the image itself."""


TABLE = {
    "gaussian_noise": Perturbation(noise(add_gaussian_noise), (31, 0.03), (31, 0.02)),
    "shot_noise": Perturbation(noise(add_shot_noise), (31, 300), (31, 700)),
    "motion_blur": Perturbation(motion_blur, (31, 10, 3, 4), (21, 6, 1.8, 9)),
    "zoom_blur": Perturbation(zoom_blur, (31, 0.004), (31, 0.004), moves=True),
    "snow": Perturbation(snow, (31, 3, 14, 4), (31, 2, 10, 2)),
    "brightness": Perturbation(brightness, (31, 0.02), (31, 0.015)),
    "translate": Perturbation(translate, (41, -20), (16, -7), moves=True),
    "rotate": Perturbation(rotate, (31,), (31,), moves=True),
    "tilt": Perturbation(tilt, (31, 1), (31, 0.75), moves=True),
    "scale": Perturbation(scale, (31, 0.4, 0.025), (31, 0.7, 0.02), moves=True),
}

PERTURBATIONS = tuple(TABLE)
"""In ImageNet-P's order."""
NOISES = ("gaussian_noise", "shot_noise")
"""Sequences without an order in time: every frame is compared with the first."""


def _shift(right: float, down: float = 0) -> np.ndarray:
    return np.float64([[1, 0, right], [0, 1, down], [0, 0, 1]])


def _scaling(factor: float) -> np.ndarray:
    return np.diag([factor, factor, 1.0])


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
