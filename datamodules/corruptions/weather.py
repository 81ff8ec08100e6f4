"""Weather: snow, fog, and drops on the lens; frost is apart. `imagenet_c.TABLE` says what the figures are."""

import cv2
import numpy as np

from datamodules.corruptions.blur import gaussian, streaked, zoom_steps
from datamodules.corruptions.rounding import cut

WATER, MUD = (175, 238, 238), (63, 42, 20)


def snow(image, figures, rng):
    """Whitened, and with flakes that fall in one direction, twice: as they are and turned by half a circle."""
    *flakes, radius, deviation, kept = figures
    layer = streaked(snowflakes(image.shape[:2], *flakes, rng), radius, deviation, angle=rng.uniform(-135, -45))
    return snowed(whitened(image, kept), layer)


def snowflakes(shape, mean, deviation, zoom, threshold, rng) -> np.ndarray:
    """Flakes at rest, float32 (H, W) from 0 to 1: normal noise, zoomed by `zoom`, nothing below `threshold`."""
    (down, _, rows), (right, _, columns) = (zoom_steps(side, zoom) for side in shape)
    grid = rng.standard_normal((rows, columns), np.float32) * np.float32(deviation) + np.float32(mean)
    # corner to corner, as published: were pixels' middles kept, zooming by 2 would miss every peak
    ends = np.float64([[right, 0, 0], [0, down, 0]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    layer = cv2.warpAffine(grid, ends, shape[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.clip(np.where(layer < threshold, 0, layer), 0, 1)


def whitened(image: np.ndarray, kept: float) -> np.ndarray:
    """float32 0 to 255: `kept` of the image, the rest drawn up to 1.5 times its grey value and 127.5."""
    image = image.astype(np.float32)
    pale = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) * np.float32(1.5) + np.float32(127.5)
    return cv2.addWeighted(image, kept, cv2.max(image, cv2.merge([pale] * 3)), 1 - kept, 0)


def snowed(image: np.ndarray, layer: np.ndarray) -> np.ndarray:
    """uint8: flakes (H, W) 0 to 1 added to the image (H, W, 3) 0 to 255, as they are and turned by half a circle."""
    both = (layer + layer[::-1, ::-1]) * np.float32(255)
    return cut(image + cv2.merge([both] * 3))


def fog(image, figures, rng):
    """Adds `weight` times a cloud, and darkens so that what was the brightest value stays within its range."""
    weight, decay = figures
    height, width = image.shape[:2]
    brightest = float(image.max()) / 255
    scale = brightest / (brightest + weight)
    air = cloud(1 << (max(height, width) - 1).bit_length(), decay, rng)[:height, :width]
    air = air * np.float32(255 * weight * scale)
    return cut(image * np.float32(scale) + cv2.merge([air] * 3))


def cloud(side: int, decay: float, rng) -> np.ndarray:
    """A plasma fractal by the diamond-square algorithm (Fournier, Fussell and Carpenter 1982), which repeats.

    Every octave adds uniform noise; its amplitude falls by `decay` squared from one to the next, as published.

    Returns:
        float32 (`side`, `side`) from 0 to 1; `side` is a power of two.
    """
    heights = np.zeros((1, 1), np.float32)
    amplitude = np.float32(1)
    while len(heights) < side:
        heights = _octave(heights, amplitude, rng)
        amplitude /= np.float32(decay**2)
    heights -= heights.min()
    return heights / heights.max()


def _octave(corners: np.ndarray, amplitude: np.float32, rng) -> np.ndarray:
    """Twice the side: in the middle of four corners and then of four sides, their mean and some noise."""
    side = len(corners)
    noise = (2 * amplitude) * rng.random((3, side, side), np.float32) - amplitude
    pairs = corners + np.roll(corners, -1, axis=1)
    middles = (pairs + np.roll(pairs, -1, axis=0)) / 4 + noise[0]
    across = (pairs + middles + np.roll(middles, 1, axis=0)) / 4 + noise[1]
    stacked = corners + np.roll(corners, -1, axis=0)
    down = (stacked + middles + np.roll(middles, 1, axis=1)) / 4 + noise[2]
    out = np.empty((2 * side, 2 * side), np.float32)
    out[::2, ::2], out[1::2, 1::2], out[::2, 1::2], out[1::2, ::2] = corners, middles, across, down
    return out


def spatter(image, figures, rng):
    """Drops on the lens: of water, which add light, or of mud, which hide what is behind them."""
    mean, deviation, smoothness, threshold, strength, liquid = figures
    layer = rng.standard_normal(image.shape[:2], np.float32) * np.float32(deviation) + np.float32(mean)
    layer = gaussian(layer, smoothness)
    if liquid == "water":
        light = _refracted(np.where(layer < threshold, 0, layer)) * np.float32(strength)
        return cut(image + cv2.merge([light * np.float32(channel) for channel in WATER]))
    opacity = gaussian((layer > threshold).astype(np.float32), strength)
    opacity[opacity < 0.8] = 0
    return cut(image * cv2.merge([1 - opacity] * 3) + cv2.merge([opacity * np.float32(channel) for channel in MUD]))


def _refracted(drops: np.ndarray) -> np.ndarray:
    """Light in the drops, float32 from 0 to 1: by depth, embossed from the upper left by the distance to a rim."""
    depth = (np.clip(drops, 0, 1) * 255).astype(np.uint8)
    rims = cv2.Canny(depth, 50, 150)
    distance = np.minimum(cv2.distanceTransform(255 - rims, cv2.DIST_L2, 5), 20)
    distance = cv2.equalizeHist(cv2.blur(distance, (3, 3)).astype(np.uint8))
    emboss = np.float32([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    relief = cv2.blur(cv2.filter2D(distance, cv2.CV_8U, emboss), (3, 3))
    light = depth * relief.astype(np.float32)
    return light / max(light.max(), 1)
