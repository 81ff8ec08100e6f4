"""Corruptions of light, colour, geometry and storage. `imagenet_c.TABLE` explains the parameters."""

from functools import lru_cache

import cv2
import numpy as np
from PIL import Image

from datamodules.corruptions.rounding import cut


def brightness(image, added, rng):
    """Adds to the value of HSV, up to its end."""
    return with_brightness(image, added)


def with_brightness(image: np.ndarray, added: float) -> np.ndarray:
    """uint8: the image with `added` (of a range of 1, may be negative) on the value of its HSV colours."""
    hue, saturation, value = cv2.split(_hsv(image))
    return _rgb(hue, saturation, np.clip(value + np.float32(added), 0, 1))


def saturate(image, figures, rng):
    """Scales and shifts the saturation of HSV. Grey has hue 0, so what is added turns it reddish, as published."""
    factor, added = figures
    hue, saturation, value = cv2.split(_hsv(image))
    return _rgb(hue, np.clip(saturation * np.float32(factor) + np.float32(added), 0, 1), value)


def _hsv(image):
    return cv2.cvtColor(image.astype(np.float32) / np.float32(255), cv2.COLOR_RGB2HSV)


def _rgb(hue, saturation, value):
    return cut(cv2.cvtColor(cv2.merge([hue, saturation, value]), cv2.COLOR_HSV2RGB) * np.float32(255))


def contrast(image, factor, rng):
    """Draws every value towards its channel's mean."""
    means = np.array(cv2.mean(image)[:3])
    levels = np.arange(256)[:, None]
    return cv2.LUT(image, cut(((levels - means) * factor + means).astype(np.float32)[None]))


def pixelate(image, size, rng):
    """Reduces the image by a box filter, and enlarges it by repeating pixels."""
    height, width = image.shape[:2]
    reduced = Image.fromarray(image).resize((int(width * size), int(height * size)), Image.Resampling.BOX)
    return cv2.resize(np.asarray(reduced), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)


def jpeg_compression(image, quality, rng):
    """Through JPEG and back, with colour at half the resolution."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, stored = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.cvtColor(cv2.imdecode(stored, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def elastic_transform(image, figures, rng):
    """Smooth random displacements, after an affine warp of three random corners where its reach is not 0.

    `figures` are shares of a length: of 244 pixels for images of 224, as published, in proportion for images of another
    shorter side; for small images, of the shorter side itself.
    """
    *shares, length = figures
    amplitude, smoothness, reach = (share * length * min(image.shape[:2]) for share in shares)
    image = image.astype(np.float32)
    if reach:
        image = _warped(image, reach, rng)
    if not amplitude:
        return cut(image)
    height, width = image.shape[:2]
    moves = (2 * rng.random((2, height, width), np.float32) - 1) * np.float32(amplitude)
    down, right = (smoothed(move, smoothness) for move in moves)
    right += np.arange(width, dtype=np.float32)
    down += np.arange(height, dtype=np.float32)[:, None]
    return cut(cv2.remap(image, right, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))


def smoothed(values: np.ndarray, deviation: float) -> np.ndarray:
    """A Gaussian blur of float32 (H, W) out to three standard deviations; the border reflects, edge pixels twice."""
    radius = int(3 * deviation + 0.5)
    if radius < min(values.shape):
        return cv2.GaussianBlur(values, (2 * radius + 1,) * 2, deviation, borderType=cv2.BORDER_REFLECT)
    down, right = (_smoothing(side, radius, deviation) for side in values.shape)
    return down @ values @ right.T


@lru_cache(maxsize=16)
def _smoothing(side: int, radius: int, deviation: float) -> np.ndarray:
    """The same blur of a line as a matrix, float32 (side, side): its reach is longer than the line, which repeats."""
    steps = np.arange(-radius, radius + 1)
    weights = np.exp(-(steps**2) / (2 * deviation**2))
    seen = (np.arange(side)[:, None] + steps) % (2 * side)
    seen = np.minimum(seen, 2 * side - 1 - seen)
    matrix = np.stack([np.bincount(row, weights, side) for row in seen])
    return (matrix / weights.sum()).astype(np.float32)


def _warped(image, reach, rng):
    """An affine warp that moves three corners of a square about the centre by up to `reach` pixels each way."""
    height, width = image.shape[:2]
    centre, half = np.float32([width // 2, height // 2]), min(height, width) // 3
    corners = centre + half * np.float32([[1, 1], [1, -1], [-1, -1]])
    moved = corners + rng.uniform(-reach, reach, (3, 2)).astype(np.float32)
    matrix = cv2.getAffineTransform(corners, moved)
    return cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)
