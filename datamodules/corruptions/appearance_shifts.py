"""The appearance shifts of IBN-Net's ImageNet table: an image in other light, and as a painting.

Pan, Luo, Shi and Tang, "Two at once: enhancing learning and generalization capacities via IBN-Net", ECCV 2018. A shift
maps uint8 RGB (H, W, 3) to the same, and leaves its argument as it is:

    darker_contrast = APPEARANCE_SHIFTS["std/1.5"](image)
"""

from functools import lru_cache, partial

import cv2
import numpy as np

from datamodules.corruptions.imagenet_c import check_image

PALETTE = np.float32([(38, 42, 78), (72, 84, 124), (104, 138, 150), (142, 166, 132), (206, 178, 140), (240, 226, 196)])
"""Dark to light: what shadows, middle tones and lights lean towards; no black, no white, violet-blue shadows."""
LEANING = 0.35
"""Share of the palette in the colour; the rest is the picture's own."""
DIRECTIONS = 12
STROKE = 1 / 18
"""Length of a stroke, in shorter sides of the picture."""


def brighter(image: np.ndarray, red: int, green: int, blue: int) -> np.ndarray:
    """Adds a number to each channel; what would exceed 255 stays at 255."""
    check_image(image, "an appearance shift")
    return cv2.add(image, (red, green, blue, 0))


def duller(image: np.ndarray, divisor: float) -> np.ndarray:
    """Divides the standard deviation of each channel by `divisor`, about the channel's mean in this image."""
    check_image(image, "an appearance shift")
    means = np.array(cv2.mean(image)[:3])
    levels = means + (np.arange(256)[:, None] - means) / divisor
    return cv2.LUT(image, np.rint(levels).astype(np.uint8)[None])


def painted(image: np.ndarray) -> np.ndarray:
    """The picture as if painted in short strokes, in colours of Monet's.

    IBN-Net's paper translates ImageNet with a CycleGAN trained on Monet's paintings. This is a fixed filter instead,
    and results with it cannot be compared with the paper's. It keeps edges and smooths the rest, moves colours towards
    a palette according to their lightness, and averages image and canvas lighting along the edges, like brush strokes.

    Args:
        image: uint8 RGB (H, W, 3), at least 16 pixels each way.

    Returns:
        uint8 (H, W, 3); the same for the same image.
    """
    check_image(image, "an appearance shift")
    smooth = cv2.edgePreservingFilter(image, flags=cv2.RECURS_FILTER, sigma_s=20, sigma_r=0.3)
    coloured = _in_palette(smooth)
    length = max(3, round(STROKE * min(image.shape[:2])))
    along = _along_edges(smooth, length)
    strokes = _brushed(np.dstack([coloured, _canvas(*image.shape[:2])]), along, length)
    light = strokes[..., 3:] - strokes[..., 3:].mean()
    light *= 9 / max(float(light.std()), 1e-6)
    return np.clip(np.rint(strokes[..., :3] + light), 0, 255).astype(np.uint8)


def _in_palette(image: np.ndarray) -> np.ndarray:
    """float32: more saturated, and drawn towards the palette's colour of the same lightness."""
    pixels = image.astype(np.float32)
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    vivid = cv2.addWeighted(pixels, 1.35, cv2.merge([grey] * 3), -0.35, 0)
    stops = np.linspace(0, 255, len(PALETTE))
    ramp = np.stack([np.interp(np.arange(256), stops, PALETTE[:, channel]) for channel in range(3)], axis=-1)
    return cv2.addWeighted(vivid, 1 - LEANING, ramp.astype(np.float32)[np.rint(grey).astype(np.uint8)], LEANING, 0)


def _along_edges(image: np.ndarray, length: int) -> np.ndarray:
    """Which of the directions a brush follows at each pixel: across the steepest gradient about it."""
    grey = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1)
    right, down = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    # the gradient's structure tensor, as twice its angle, can be averaged over a stroke
    twice_cos, twice_sin = (
        cv2.GaussianBlur(part, (0, 0), 0.4 * length) for part in (right**2 - down**2, 2 * right * down)
    )
    tangent = np.arctan2(twice_sin, twice_cos) / 2 + np.pi / 2
    return np.rint(tangent * (DIRECTIONS / np.pi)).astype(int) % DIRECTIONS


def _brushed(layers: np.ndarray, along: np.ndarray, length: int) -> np.ndarray:
    """The layers (H, W, C), each pixel averaged over a line of `length` in its own direction."""
    out = np.empty_like(layers)
    side = length | 1
    for direction in range(DIRECTIONS):
        line = np.zeros((side, side), np.float32)
        reach = (
            (side - 1)
            / 2
            * np.float64([np.cos(direction * np.pi / DIRECTIONS), np.sin(direction * np.pi / DIRECTIONS)])
        )
        ends = [tuple(round(16 * place) for place in side // 2 + sign * reach) for sign in (-1, 1)]
        cv2.line(line, *ends, 1, 1, cv2.LINE_AA, shift=4)
        here = along == direction
        out[here] = cv2.filter2D(layers, -1, line / line.sum(), borderType=cv2.BORDER_REFLECT_101)[here]
    return out


@lru_cache(maxsize=4)
def _canvas(height: int, width: int) -> np.ndarray:
    """Bristles and weave before the brush goes over them: the same noise for every picture of one size."""
    noise = np.random.default_rng(0).standard_normal((height, width), np.float32)
    return cv2.GaussianBlur(noise, (0, 0), 0.8)


APPEARANCE_SHIFTS = {
    "rgb+50": partial(brighter, red=50, green=50, blue=50),
    "r+50": partial(brighter, red=50, green=0, blue=0),
    "std/1.5": partial(duller, divisor=1.5),
    "painted": painted,
}
"""Name in the paper's table -> function of the image. "painted" stands in for the paper's Monet style."""
