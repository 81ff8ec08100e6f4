"""RandAugment as ResNet-RS was trained with it: TensorFlow's sixteen operations, at magnitudes beyond ten as well.

After `efficientnet/autoaugment.py` of github.com/tensorflow/tpu, whose figures are in `argument`. timm's operations,
which `image_transforms.RandAugment` runs, differ in kind: they shift by shares of the picture and have no Cutout.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import cv2
import numpy as np

GREY = 128
"""What fills the space that a picture leaves, and what Cutout paints."""
GREY_WEIGHTS = np.array([0.2989, 0.5870, 0.1140], np.float32)
"""Red's, green's and blue's share of a grey level."""


class TensorFlowRandAugment:
    """RandAugment (Cubuk et al. 2020) with the operations of TensorFlow's code, each of which is always applied.

    Args:
        layers: operations that each image goes through, drawn with replacement.
        magnitude: their strength; 10 is the full scale, and nothing is cut off there: at 15 a rotation turns by 45
            degrees. Translation (10 pixels for each unit) and Cutout (a square of 8) do not depend on the image's size.
            Solarize changes nothing from 10 on, and posterize keeps more bits the higher the magnitude, as published.

    Call with uint8 (H, W, 3) and the dice to draw from; returns uint8 (H, W, 3).

    Raises:
        ValueError: the magnitude is below 3, where posterized images have no bits left.
    """

    def __init__(self, layers: int, magnitude: float):
        if magnitude < 3:
            raise ValueError(f"RandAugment's magnitude is 3 or more, not {magnitude}")
        self.layers, self.magnitude = layers, magnitude

    def __call__(self, image: np.ndarray, dice: random.Random) -> np.ndarray:
        for _ in range(self.layers):
            image = apply(dice.choice(tuple(OPERATIONS)), image, self.magnitude, dice)
        return image


def apply(name: str, image: np.ndarray, magnitude: float, dice: random.Random) -> np.ndarray:
    """One operation of `OPERATIONS` on uint8 (H, W, 3)."""
    if name == "Cutout":
        centre = dice.randrange(image.shape[0]), dice.randrange(image.shape[1])
        return cutout(image, int(4 * magnitude), *centre)
    if name in ("AutoContrast", "Equalize", "Invert"):
        return OPERATIONS[name](image)
    value = argument(name, magnitude)
    if name in SIGNED and dice.random() < 0.5:
        value = -value
    return OPERATIONS[name](image, value)


def argument(name: str, magnitude: float) -> float:
    """What an operation does at a magnitude: degrees, bits, grey levels, a factor, a slope, or pixels."""
    share = magnitude / 10
    return {
        "Rotate": 30 * share, "Posterize": int(4 * share), "Solarize": int(256 * share),
        "SolarizeAdd": int(110 * share), "ShearX": 0.3 * share, "ShearY": 0.3 * share, "TranslateX": 100 * share,
        "TranslateY": 100 * share,
    }.get(name, 0.1 + 1.8 * share)  # fmt: skip


def blended(start: np.ndarray, image: np.ndarray, factor: float) -> np.ndarray:
    """start + factor (image - start), cut to [0, 255] and truncated, as TensorFlow casts."""
    start = start.astype(np.float32)
    return (start + np.float32(factor) * (image - start)).clip(0, 255).astype(np.uint8)


def auto_contrast(image: np.ndarray) -> np.ndarray:
    """Each channel stretched to 0 and 255."""
    low, high = image.min((0, 1)).astype(np.float32), image.max((0, 1)).astype(np.float32)
    scale = 255 / np.maximum(high - low, 1)
    stretched = (image * scale - low * scale).clip(0, 255).astype(np.uint8)
    return np.where(high > low, stretched, image)


def equalize(image: np.ndarray) -> np.ndarray:
    """Each channel's histogram made level, as PIL's `ImageOps.equalize` does."""
    return cv2.merge([_level(channel) for channel in cv2.split(image)])


def _level(channel: np.ndarray) -> np.ndarray:
    counts = np.bincount(channel.ravel(), minlength=256)
    step = (channel.size - counts[channel.max()]) // 255
    if not step:
        return channel
    table = (np.cumsum(counts) - counts + step // 2) // step
    return table.clip(0, 255).astype(np.uint8)[channel]


def invert(image: np.ndarray) -> np.ndarray:
    return 255 - image


def posterize(image: np.ndarray, bits: int) -> np.ndarray:
    """The upper bits alone; eight or more leave the image as it is."""
    cut = max(0, 8 - bits)
    return image >> cut << cut


def solarize(image: np.ndarray, threshold: int) -> np.ndarray:
    """Pixels of the threshold and above inverted; none beyond 255."""
    return np.where(image < threshold, image, 255 - image)


def solarize_add(image: np.ndarray, addition: int) -> np.ndarray:
    """Pixels below 128 made lighter."""
    return np.where(image < 128, np.minimum(image.astype(np.int64) + addition, 255), image).astype(np.uint8)


def color(image: np.ndarray, factor: float) -> np.ndarray:
    """Away from the image's own grey levels."""
    grey = (image @ GREY_WEIGHTS * np.float32(255.5 / 255)).astype(np.uint8)  # TensorFlow's way back to bytes
    return blended(np.broadcast_to(grey[..., None], image.shape), image, factor)


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Away from one grey: pixels / 256, at most 255, and not the image's mean, which is a slip of TensorFlow's code."""
    grey = min(255, image.shape[0] * image.shape[1] // 256)
    return blended(np.full_like(image, grey), image, factor)


def brightness(image: np.ndarray, factor: float) -> np.ndarray:
    return blended(np.zeros_like(image), image, factor)


def sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    """Away from a smoothed image: 3x3 ones with 5 in the middle, by 13; the border stays as it is."""
    smooth = image.copy()
    if min(image.shape[:2]) > 2:
        kernel = np.ones((3, 3), np.float32)
        kernel[1, 1] = 5
        sums = cv2.filter2D(image.astype(np.float32), -1, kernel)[1:-1, 1:-1]  # whole numbers: exact
        smooth[1:-1, 1:-1] = (sums / 13).astype(np.uint8)
    return blended(smooth, image, factor)


def moved(image: np.ndarray, matrix: list[list[float]]) -> np.ndarray:
    """Pixel (x, y) becomes the nearest one to matrix (x, y, 1) of the image; grey where there is none."""
    height, width = image.shape[:2]
    (a, b, c), (d, e, f) = matrix
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    x = np.floor(a * columns + b * rows + np.float32(c + 0.5)).astype(np.int32)
    y = np.floor(d * columns + e * rows + np.float32(f + 0.5)).astype(np.int32)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    out = image[y.clip(0, height - 1), x.clip(0, width - 1)]
    out[~inside] = GREY
    return out


def rotate(image: np.ndarray, degrees: float) -> np.ndarray:
    """About the middle, in mathematics' sense."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    x, y = (image.shape[1] - 1) / 2, (image.shape[0] - 1) / 2
    return moved(image, [[cosine, -sine, x - cosine * x + sine * y], [sine, cosine, y - sine * x - cosine * y]])


def shear_x(image: np.ndarray, slope: float) -> np.ndarray:
    return moved(image, [[1, slope, 0], [0, 1, 0]])


def shear_y(image: np.ndarray, slope: float) -> np.ndarray:
    return moved(image, [[1, 0, 0], [slope, 1, 0]])


def translate_x(image: np.ndarray, pixels: float) -> np.ndarray:
    return moved(image, [[1, 0, pixels], [0, 1, 0]])


def translate_y(image: np.ndarray, pixels: float) -> np.ndarray:
    return moved(image, [[1, 0, 0], [0, 1, pixels]])


def cutout(image: np.ndarray, half: int, row: int, column: int) -> np.ndarray:
    """A grey square of side 2 `half` round a pixel, cut off at the borders."""
    out = image.copy()
    out[max(0, row - half) : row + half, max(0, column - half) : column + half] = GREY
    return out


OPERATIONS: dict[str, Callable[..., np.ndarray]] = {
    "AutoContrast": auto_contrast, "Equalize": equalize, "Invert": invert, "Rotate": rotate, "Posterize": posterize,
    "Solarize": solarize, "Color": color, "Contrast": contrast, "Brightness": brightness, "Sharpness": sharpness,
    "ShearX": shear_x, "ShearY": shear_y, "TranslateX": translate_x, "TranslateY": translate_y, "Cutout": cutout,
    "SolarizeAdd": solarize_add,
}  # fmt: skip
SIGNED = frozenset({"Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY"})
"""Operations that go either way, by equal chance."""
