"""The 15 corruptions of ImageNet-C and its 4 extra ones, at five severities, for an image of any size.

    foggy = corrupt(image, "fog", severity=3, seed=7)

Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions and perturbations", ICLR 2019,
section 3 and appendix B. Written from the operations' definitions; the figures for each severity are the published
ones. Two tables of them were published, and the image's size chooses: images whose shorter side is at most 64 pixels
take CIFAR-10-C's, all others ImageNet-C's, in pixels as they stand.

Differences from the published files, because of which errors on these images are never divided by AlexNet's on those:

- the published images went through JPEG of quality 85 after their corruption, and these do not;
- frost is painted, unless the published photographs are given (`corruption_frost`);
- random numbers differ.

Figures in pixels were made for 224 x 224. On images of another size they stay as they are, so that a blur is weaker on
a larger image; what is reckoned from the image's own size (zoom_blur, pixelate, elastic_transform) stays in proportion.
`elastic_transform` is ImageNet-C's own: its first two severities are large affine warps, and change an image more than
its last three do. (The PyPI package `imagecorruptions` has other figures, which rise.)
"""

from collections.abc import Callable
from numbers import Integral
from typing import NamedTuple

import numpy as np

from datamodules.corruptions.blur import defocus_blur, gaussian_blur, glass_blur, motion_blur, zoom_blur
from datamodules.corruptions.digital import (
    brightness,
    contrast,
    elastic_transform,
    jpeg_compression,
    pixelate,
    saturate,
)
from datamodules.corruptions.frost import Photographs
from datamodules.corruptions.frost import frost as frosted
from datamodules.corruptions.noise import gaussian_noise, impulse_noise, shot_noise, speckle_noise
from datamodules.corruptions.weather import fog, snow, spatter
from datamodules.image_files import DataError

SEVERITIES = (1, 2, 3, 4, 5)
SMALLEST, SMALL = 16, 64
"""Pixels of the shorter side: what is accepted, and up to where CIFAR-10-C's figures hold."""


class Corruption(NamedTuple):
    """An operation on (image, figures, random generator), and its figures at severity 1 to 5."""

    operation: Callable[..., np.ndarray]
    imagenet: tuple
    cifar: tuple


TABLE = {
    # standard deviation, of a range of 1
    "gaussian_noise": Corruption(gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38), (0.04, 0.06, 0.08, 0.09, 0.10)),
    # photons that white stands for
    "shot_noise": Corruption(shot_noise, (60, 25, 12, 5, 3), (500, 250, 100, 75, 50)),
    # share of values replaced
    "impulse_noise": Corruption(impulse_noise, (0.03, 0.06, 0.09, 0.17, 0.27), (0.01, 0.02, 0.03, 0.05, 0.07)),
    # radius of the disc, standard deviation of its softened rim
    "defocus_blur": Corruption(
        defocus_blur,
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    ),
    # standard deviation of the blur, reach of a pixel's move, rounds
    "glass_blur": Corruption(
        glass_blur,
        ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
        ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    ),
    # radius, standard deviation along the motion
    "motion_blur": Corruption(
        motion_blur,
        ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    ),
    # step between zoom factors from 1 on, number of factors
    "zoom_blur": Corruption(
        zoom_blur,
        ((0.01, 12), (0.01, 16), (0.02, 11), (0.02, 13), (0.03, 11)),
        ((0.01, 6), (0.01, 12), (0.01, 16), (0.01, 21), (0.01, 26)),
    ),
    # mean and standard deviation of the flakes' noise, its zoom, threshold, radius and standard deviation of the
    # flakes' motion, share of the image that is not whitened
    "snow": Corruption(
        snow,
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
    ),
    # weight of the image, weight of the frost, size of the frost's sheet
    "frost": Corruption(
        frosted,
        ((1, 0.4, 1), (0.8, 0.6, 1), (0.7, 0.7, 1), (0.65, 0.7, 1), (0.6, 0.75, 1)),
        ((1, 0.2, 0.2), (1, 0.3, 0.2), (0.9, 0.4, 0.2), (0.85, 0.4, 0.2), (0.75, 0.45, 0.2)),
    ),
    # weight of the fog, decay of its roughness from one octave to the next
    "fog": Corruption(
        fog,
        ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
        ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    ),
    # added to the value of HSV, of a range of 1
    "brightness": Corruption(brightness, (0.1, 0.2, 0.3, 0.4, 0.5), (0.05, 0.1, 0.15, 0.2, 0.3)),
    # factor on the distance from each channel's mean
    "contrast": Corruption(contrast, (0.4, 0.3, 0.2, 0.1, 0.05), (0.75, 0.5, 0.4, 0.3, 0.15)),
    # amplitude and smoothness of the displacements, reach of the affine warp's corners, as shares of a length, and that
    # length in shorter sides: ImageNet-C reckons with 244 pixels for images of 224
    "elastic_transform": Corruption(
        elastic_transform,
        (
            (2, 0.7, 0.1, 244 / 224),
            (2, 0.08, 0.2, 244 / 224),
            (0.05, 0.01, 0.02, 244 / 224),
            (0.07, 0.01, 0.02, 244 / 224),
            (0.12, 0.01, 0.02, 244 / 224),
        ),
        ((0, 0, 0.08, 1), (0.05, 0.2, 0.07, 1), (0.08, 0.06, 0.06, 1), (0.1, 0.04, 0.05, 1), (0.1, 0.03, 0.03, 1)),
    ),
    # size that the image is reduced to
    "pixelate": Corruption(pixelate, (0.6, 0.5, 0.4, 0.3, 0.25), (0.95, 0.9, 0.85, 0.75, 0.65)),
    # quality
    "jpeg_compression": Corruption(jpeg_compression, (25, 18, 15, 10, 7), (80, 65, 58, 50, 40)),
    # standard deviation as a share of the value
    "speckle_noise": Corruption(speckle_noise, (0.15, 0.2, 0.35, 0.45, 0.6), (0.06, 0.1, 0.12, 0.16, 0.2)),
    # standard deviation in pixels
    "gaussian_blur": Corruption(gaussian_blur, (1, 2, 3, 4, 6), (0.4, 0.6, 0.7, 0.8, 1)),
    # mean and standard deviation of the liquid's noise, smoothness of its drops, threshold, and then opacity of the
    # water or smoothness of the mud's rims
    "spatter": Corruption(
        spatter,
        (
            (0.65, 0.3, 4, 0.69, 0.6, "water"),
            (0.65, 0.3, 3, 0.68, 0.6, "water"),
            (0.65, 0.3, 2, 0.68, 0.5, "water"),
            (0.65, 0.3, 1, 0.65, 1.5, "mud"),
            (0.67, 0.4, 1, 0.65, 1.5, "mud"),
        ),
        (
            (0.62, 0.1, 0.7, 0.7, 0.5, "water"),
            (0.65, 0.1, 0.8, 0.7, 0.5, "water"),
            (0.65, 0.3, 1, 0.69, 0.5, "water"),
            (0.65, 0.1, 0.7, 0.69, 0.6, "mud"),
            (0.65, 0.1, 0.5, 0.68, 0.6, "mud"),
        ),
    ),
    # factor on the saturation of HSV, and what is added to it
    "saturate": Corruption(
        saturate,
        ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
        ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
    ),
}

CORRUPTIONS = tuple(TABLE)[:15]
"""The corruptions that mCE averages, in ImageNet-C's order."""
EXTRA_CORRUPTIONS = tuple(TABLE)[15:]
"""Published for choosing hyper-parameters; no part of mCE."""


def corrupt(image: np.ndarray, name: str, severity: int, seed: int, frost: Photographs | None = None) -> np.ndarray:
    """The image, corrupted; the same for the same arguments.

    Args:
        image: uint8 RGB (H, W, 3), at least 16 pixels each way; left as it is.
        name: one of `CORRUPTIONS` or `EXTRA_CORRUPTIONS`.
        severity: 1 (mild) to 5.
        seed: 0 or more. Corruptions and severities draw independently of each other from the same seed.
        frost: the published photographs, from `frost_photographs`; None for painted frost.

    Returns:
        A new contiguous uint8 array (H, W, 3).

    Raises:
        DataError: an argument is none of these.
    """
    if name not in TABLE:
        raise DataError(f"{name!r} is no corruption; choose one of {', '.join(TABLE)}.")
    if severity not in SEVERITIES:
        raise DataError(f"{severity!r} is no severity of {name}; choose 1, 2, 3, 4 or 5.")
    check_image(image, name)
    rng = generator(seed, tuple(TABLE).index(name), int(severity))
    row = TABLE[name]
    figures = (row.cifar if is_small(image) else row.imagenet)[int(severity) - 1]
    photographs = {"photographs": frost} if name == "frost" else {}
    return np.ascontiguousarray(row.operation(np.ascontiguousarray(image), figures, rng, **photographs))


def is_small(image: np.ndarray) -> bool:
    """Whether the figures published for CIFAR hold, rather than ImageNet's."""
    return min(image.shape[:2]) <= SMALL


def check_image(image: np.ndarray, what: str) -> None:
    """Raise DataError unless `image` is uint8 (H, W, 3) and large enough."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise DataError(f"{what} expects a uint8 RGB array (H, W, 3), got {found}.")
    if min(image.shape[:2]) < SMALLEST:
        raise DataError(
            f"{what} expects at least {SMALLEST} x {SMALLEST} pixels, got {image.shape[0]} x {image.shape[1]}."
        )


def generator(seed: int, *stream: int) -> np.random.Generator:
    """Random numbers that belong to one seed and one stream of it; DataError for a negative or broken seed."""
    if not isinstance(seed, Integral) or seed < 0:
        raise DataError(f"a seed is a whole number from 0 up, not {seed!r}.")
    return np.random.Generator(np.random.SFC64([int(seed), *stream]))
