"""Image transforms of RobustNet (Choi et al., CVPR 2021) in training and evaluation; `docs/robustnet.md` lists them.

Images are resized by Pillow's bicubic filter, which averages when it shrinks; labels by nearest neighbour.
"""

import cv2
import numpy as np
import torch
from PIL import Image
from torchvision.transforms import ColorJitter

from datamodules.samples import Samples
from datamodules.segmentation.labels import IGNORE
from datamodules.segmentation.transforms import EvalTransform


class RobustNetTransform:
    """Random scale 0.5-2, crop and flip and, where asked for, RobustNet's colours.

    Args:
        crop: (height, width) of what comes out. A side that is smaller gets (crop - side) // 2 + 1 pixels on both ends,
            black in the image and ignored in the label, before the crop is cut.
        augment_colour: jitter brightness, contrast, saturation (0.6-1.4) and hue (0.1) in random order for half of the
            images, and blur every one: Gaussian, standard deviation 0.15 to 1.3 pixels.

    Call with image uint8 (H, W, 3), label uint8 (H, W) and, to aim the crop, a pixel (row, column) that it is to hold;
    returns a normalised float image (3, h, w) and an int64 label (h, w). Randomness is torch's.
    """

    def __init__(self, crop: tuple[int, int], augment_colour: bool):
        self.crop, self.augment_colour = crop, augment_colour
        self._jitter = ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
        self._normalised = EvalTransform()

    def __call__(self, image: np.ndarray, label: np.ndarray, aim: tuple[int, int] | None = None):
        scale = _uniform(0.5, 2)
        size = tuple(int(side * scale) for side in label.shape)
        start = [self._start(*axis, scale, aim and aim[i]) for i, axis in enumerate(zip(size, self.crop, strict=True))]
        image, label = scaled_window(image, label, size, tuple(start), self.crop)
        if torch.rand(()) < 0.5:
            image, label = np.ascontiguousarray(image[:, ::-1]), np.ascontiguousarray(label[:, ::-1])
        if self.augment_colour:
            image = self._coloured(image)
        return self._normalised(image, label)

    def _start(self, side: int, crop: int, scale: float, aim: int | None) -> int:
        """The start of the crop on one axis of the scaled image; negative in the padding."""
        pad = (crop - side) // 2 + 1 if side < crop else 0
        room = side + 2 * pad - crop
        if aim is None:
            return int(torch.randint(room + 1, ())) - pad
        centre = int(aim * scale)
        return min(max(centre - int(torch.randint(crop + 1, ())), 0), room) - pad

    def _coloured(self, image: np.ndarray) -> np.ndarray:
        if torch.rand(()) < 0.5:
            image = np.asarray(self._jitter(Image.fromarray(image)))
        return blurred(image, _uniform(0.15, 1.3))


def scaled_window(
    image: np.ndarray, label: np.ndarray, size: tuple[int, int], start: tuple[int, int], window: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """A window of the resized image and label, without computing the rest.

    Args:
        size: (height, width) to which the whole image would be resized.
        start: (row, column) of the window's corner in it; outside the image the window is 0, and IGNORE in the label.
        window: (height, width) of the window.
    """
    small_image, small_label = np.zeros((*window, 3), np.uint8), np.full(window, IGNORE, np.uint8)
    first = [max(0, at) for at in start]
    last = [min(side, at + length) for side, at, length in zip(size, start, window, strict=True)]
    there = tuple(slice(a - at, b - at) for a, b, at in zip(first, last, start, strict=True))
    (top, left), (bottom, right) = first, last
    tall, wide = (side / resized for side, resized in zip(label.shape, size, strict=True))
    box = (left * wide, top * tall, min(right * wide, label.shape[1]), min(bottom * tall, label.shape[0]))
    part = Image.fromarray(image).resize((right - left, bottom - top), Image.Resampling.BICUBIC, box)
    small_image[there] = np.asarray(part)
    rows, columns = (_centres(a, b, side, n) for a, b, side, n in zip(first, last, label.shape, size, strict=True))
    small_label[there] = label[rows[:, None], columns]
    return small_image, small_label


def _centres(first: int, last: int, side: int, resized: int) -> np.ndarray:
    """Coordinates in the original axis of the centres of pixels `first` to `last` of the resized axis."""
    return (2 * np.arange(first, last) + 1) * side // (2 * resized)


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    """An image uint8 (H, W, 3) under a Gaussian cut off at 4 sigma, borders repeated, truncated to whole numbers."""
    side = 2 * int(4 * sigma + 0.5) + 1
    smooth = cv2.GaussianBlur(image.astype(np.float32), (side, side), sigma, borderType=cv2.BORDER_REPLICATE)
    return (smooth + 1e-3).astype(np.uint8)  # the kernel's sum may not be exactly 1


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


class CentralSquares:
    """(image, label) pairs at a height of `side`, cut to their central square; how Mapillary's are evaluated.

    An image that is narrower than high is not cut (RobustNet pads both sides, with the label road, and cuts that).
    """

    def __init__(self, samples: Samples[np.ndarray], side: int):
        self.samples, self.side = samples, side

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        image, label = self.samples[index]
        height, width = label.shape
        size = (self.side, int(width / height * self.side))
        shown = min(self.side, size[1])
        return scaled_window(image, label, size, (0, (size[1] - shown) // 2), (self.side, shown))
