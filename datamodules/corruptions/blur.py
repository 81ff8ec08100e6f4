"""Blur of a lens, of frosted glass and of a moving camera. `imagenet_c.TABLE` explains the parameters."""

import cv2
import numpy as np

from datamodules.corruptions.rounding import DELTA, cut

FAINTEST = 1e-4
"""Weights below this are left out of a motion blur: they change no value by one."""


def gaussian_blur(image, deviation, rng):
    """A Gaussian of standard deviation `deviation` pixels; the border repeats."""
    return cut(gaussian(image.astype(np.float32), deviation))


def defocus_blur(image, figures, rng):
    """A disc of `radius` pixels, its rim softened by a Gaussian so that it does not alias."""
    return cv2.filter2D(image, cv2.CV_8U, disc(*figures), delta=DELTA)


def disc(radius: float, deviation: float) -> np.ndarray:
    """Weights of an out-of-focus lens, float32, square, of odd side.

    As published, discs of radius 8 and 10 fill their square and mirror what softening would spread beyond it, so that
    they add up to a little more than 1 and brighten the image by 1%.
    """
    reach = min(int(radius) + 2, 8) if radius <= 8 else int(radius)
    along = np.arange(-reach, reach + 1)
    inside = (along**2 + along[:, None] ** 2 <= radius**2).astype(np.float32)
    side = 3 if radius <= 8 else 5
    return cv2.GaussianBlur(inside / inside.sum(), (side, side), deviation)


def glass_blur(image, figures, rng):
    """A Gaussian blur, pixels shuffled over `reach` for some rounds, and the blur again."""
    deviation, reach, rounds = figures
    pixels = cut(gaussian(image.astype(np.float32), deviation))
    for _ in range(rounds):
        offsets = rng.integers(-reach, reach, (2, *image.shape[:2]), np.int32)
        pixels = shuffled(pixels, offsets, reach)
    return cut(gaussian(pixels.astype(np.float32), deviation))


def shuffled(pixels: np.ndarray, offsets: np.ndarray, reach: int) -> np.ndarray:
    """Every pixel takes over the one at its offset: last row first and from right to left, each seeing earlier copies.

    Pixels closer than `reach` + 1 to the top or left, or `reach` to the bottom or right, stay. This is the published
    shuffle, whose loop means to swap but copies. Here nothing loops over pixels: a pixel that looks ahead of itself
    looks at a copy, whose source is looked up in turn, and such chains are halved until they end.

    Args:
        pixels: (H, W, ...).
        offsets: int (2, H, W), down and to the right, from -`reach` to `reach` - 1.
        reach: pixels.
    """
    height, width = pixels.shape[:2]
    here = np.arange(height * width, dtype=np.int32).reshape(height, width)
    moves = np.s_[reach + 1 : height - reach + 1, reach + 1 : width - reach + 1]
    source = here.copy()
    source[moves] += offsets[0][moves] * width + offsets[1][moves]
    copied = source > here  # what is looked at was replaced before
    source, copied = source.ravel(), copied.ravel()
    pending = np.flatnonzero(copied)
    while pending.size:
        seen = source[pending]
        source[pending], copied[pending] = source[seen], copied[seen]
        pending = pending[copied[pending]]
    return pixels.reshape(height * width, -1)[source].reshape(pixels.shape)


def motion_blur(image, figures, rng):
    """A motion to one side, at an angle from -45 to 45 degrees."""
    return cut(streaked(image.astype(np.float32), *figures, angle=rng.uniform(-45, 45)))


def streaked(image: np.ndarray, radius: float, deviation: float, angle: float) -> np.ndarray:
    """The image blurred by a motion: half a Gaussian, 2 `radius` + 1 pixels long, from each pixel towards `angle`.

    Args:
        image: float32 (H, W) or (H, W, 3); its border repeats.
        radius, deviation: pixels; the standard deviation is the Gaussian's.
        angle: degrees, clockwise from the right.
    """
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * deviation**2))
    weights /= weights.sum()
    steps, weights = steps[weights > FAINTEST], weights[weights > FAINTEST]
    down = np.rint(steps * np.sin(np.deg2rad(angle))).astype(int)
    right = np.rint(steps * np.cos(np.deg2rad(angle))).astype(int)
    top, left = -min(0, down.min()), -min(0, right.min())
    height, width = image.shape[:2]
    wide = cv2.copyMakeBorder(image, top, max(0, down.max()), left, max(0, right.max()), cv2.BORDER_REPLICATE)
    out = np.zeros_like(image)
    for y, x, weight in zip(top + down, left + right, weights / weights.sum(), strict=True):
        cv2.scaleAdd(wide[y : y + height, x : x + width], weight, out, out)
    return out


def zoom_blur(image, figures, rng):
    """The mean of the image and of the image zoomed by 1, 1 + `step`, 1 + 2 `step`, ... about its centre."""
    step, count = figures
    image = image.astype(np.float32)
    total = image.copy()
    for index in range(count):
        cv2.accumulate(zoomed(image, 1 + index * step), total)
    return cut(total / (count + 1))


def zoomed(image: np.ndarray, factor: float) -> np.ndarray:
    """The middle of a float image (H, W, 3), enlarged to the whole of it as published.

    A crop of 1 / `factor` of each side, rounded up to whole pixels, is enlarged by `factor` to whole pixels, rounded to
    the nearest, linearly and corner to corner. Where that is one pixel more than the side, the first pixels are kept,
    so that the picture is off its centre by half a pixel, by turns from factor to factor.
    """
    (down, top, _), (right, left, _) = (zoom_steps(side, factor) for side in image.shape[:2])
    seen = np.float64([[right, 0, left], [0, down, top]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, seen, image.shape[1::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)


def zoom_steps(side: int, factor: float) -> tuple[float, float, int]:
    """What a side of `side` pixels shows of itself when it is zoomed: see `zoomed`.

    Returns:
        The distance between the places that two neighbouring pixels show, the place that the first one shows (both in
        pixels), and the crop's size.
    """
    crop = int(np.ceil(side / factor - 1e-9))  # 224 / 1.12 is 200 and no hair more
    enlarged = round(crop * factor)
    step = (crop - 1) / (enlarged - 1)
    return step, (side - crop) // 2 + (enlarged - side) // 2 * step, crop


def gaussian(values: np.ndarray, deviation: float) -> np.ndarray:
    """A Gaussian blur out to four standard deviations; the border repeats."""
    side = 2 * int(4 * deviation + 0.5) + 1
    return cv2.GaussianBlur(values, (side, side), deviation, borderType=cv2.BORDER_REPLICATE)
