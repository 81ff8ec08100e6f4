"""From computed values to bytes, as the published corrupted images have them."""

import cv2
import numpy as np

NUDGE = 1e-3
"""Added before cutting: float32 leaves what should be 151 at 150.99999."""
DELTA = NUDGE - 0.5
"""For OpenCV functions that add a `delta` and then round to the nearest: makes them cut instead."""


def cut(values: np.ndarray) -> np.ndarray:
    """Values on the scale 0 to 255 as uint8: clipped, and cut to whole numbers, not rounded. (H, W) or (H, W, 3)."""
    return cv2.add(values, (DELTA,) * 4, dtype=cv2.CV_8U)
