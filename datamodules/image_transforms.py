"""What happens to an image on its way into a classifier.

Written for speed: after decoding, a training image of ImageNet costs about a tenth of what decoding it does. That is
why images are cut before they are resized, resized as bytes, and normalised last, in one pass over few pixels.
"""

import math
import random

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from datamodules.transforms import MEAN, STD

CROPS = ("resized", "padded", "random", "centre")
INTERPOLATIONS = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC, "antialiased": None}
AREA, ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)
"""Of "resized" crops: share of the image's area, and width by height (Szegedy et al. 2015)."""
LOG_ASPECT = tuple(map(math.log, ASPECT))
MARGIN = 8 / 7
"""To what multiple of the crop the shorter side is resized before a centre crop: 256 for 224."""


class TrainImage:
    """An image as a network is trained on it.

    Args:
        size: side of what comes out, in pixels.
        crop: "resized": a part of random area and aspect, resized (torchvision's RandomResizedCrop, ImageNet's usual);
            "padded": size // 8 black pixels on all sides, then a random crop (CIFAR's usual), the image resized to
            size x size before, where it is of another size; "random": a random crop, the image enlarged before where
            a side is shorter than `size`; "centre": the shorter side resized to 8/7 of `size`, then the middle.
        flip: left for right, every other time.
        randaugment: (layers, magnitude) of RandAugment (Cubuk et al. 2020), ResNet-RS' being (2, 10) or (2, 15).
            timm's operations, at the magnitudes of TensorFlow's: 10 is the full scale, 15 half as much again, and
            each layer always applies. Cutout is not among them. What leaves the picture is filled with the mean colour.
        interpolation: "bilinear" or "bicubic": OpenCV's, which is fastest. Reduced by 2 or more, blocks of pixels are
            averaged first, so that none is skipped; reduced by less, it does not smooth, and comes out sharper than
            torchvision's (of parts of ImageNet's photographs, the Laplacian's standard deviation is 1.24 times that).
            "antialiased": torchvision's bilinear with smoothing, exactly; the pipeline then takes 1.3 times as long.

    Call with a uint8 image (H, W, 3); returns float32 (3, size, size), normalised by ImageNet's mean and standard
    deviation. Randomness is torch's, so that workers differ and `seed_everything` repeats a run.

    Raises:
        ValueError: on an unknown crop or interpolation.
    """

    def __init__(
        self,
        size: int,
        crop: str = "resized",
        flip: bool = True,
        randaugment: tuple[int, int] | None = None,
        interpolation: str = "bilinear",
    ):
        if crop not in CROPS:
            raise ValueError(f"unknown crop {crop!r}: choose from {', '.join(CROPS)}")
        if interpolation not in INTERPOLATIONS:
            raise ValueError(f"unknown interpolation {interpolation!r}: choose from {', '.join(INTERPOLATIONS)}")
        self.size, self.crop, self.flip, self.interpolation = size, crop, flip, interpolation
        self.randaugment = RandAugment(*randaugment) if randaugment else None

    def __call__(self, image: np.ndarray) -> Tensor:
        # One call of torch an image, and Python's numbers from there: six calls would cost as much as resizing does.
        dice = random.Random(torch.randint(2**62, (1,)).item())
        image = getattr(self, f"_{self.crop}")(image, dice)
        if self.flip and dice.random() < 0.5:
            image = cv2.flip(image, 1)
        if self.randaugment:
            image = self.randaugment(image, dice)
        return normalised(image)

    def _resized(self, image: np.ndarray, dice: random.Random) -> np.ndarray:
        top, left, height, width = random_part(*image.shape[:2], dice)
        part = image[top : top + height, left : left + width]
        return resized(part, (self.size, self.size), self.interpolation)

    def _padded(self, image: np.ndarray, dice: random.Random) -> np.ndarray:
        image = resized(image, (self.size, self.size), self.interpolation)
        edge = self.size // 8
        padded = cv2.copyMakeBorder(image, edge, edge, edge, edge, cv2.BORDER_CONSTANT, value=(0, 0, 0))
        return self._anywhere(padded, dice)

    def _random(self, image: np.ndarray, dice: random.Random) -> np.ndarray:
        if min(image.shape[:2]) < self.size:
            image = shorter_side(image, self.size, self.interpolation)
        return self._anywhere(image, dice)

    def _centre(self, image: np.ndarray, dice: random.Random) -> np.ndarray:
        return centre(shorter_side(image, round(self.size * MARGIN), self.interpolation), self.size)

    def _anywhere(self, image: np.ndarray, dice: random.Random) -> np.ndarray:
        top, left = (dice.randrange(side - self.size + 1) for side in image.shape[:2])
        return image[top : top + self.size, left : left + self.size]


class JudgedImage:
    """An image as a network is judged on it, by torchvision's own resizing, which published weights are judged with.

    Args:
        size: side of what comes out: the middle of the image.
        resize: what the shorter side is resized to before that; by default `size`.
        interpolation: "bilinear" or "bicubic", smoothing either way.

    Call with a uint8 image (H, W, 3); returns float32 (3, size, size), normalised.

    Raises:
        ValueError: `resize` is less than `size`, or the interpolation unknown.
    """

    def __init__(self, size: int, resize: int | None = None, interpolation: str = "bilinear"):
        if resize is not None and resize < size:
            raise ValueError(f"images resized to {resize} pixels cannot be cut to {size}: resize must not be less")
        self.size, self.resize, self.interpolation = size, resize or size, InterpolationMode(interpolation)

    def __call__(self, image: np.ndarray) -> Tensor:
        if min(image.shape[:2]) != self.resize:
            pixels = F.resize(torch.from_numpy(image).permute(2, 0, 1), [self.resize], self.interpolation)
            image = pixels.permute(1, 2, 0).numpy()
        return normalised(centre(image, self.size))


class RandAugment:
    """timm's RandAugment on uint8 (H, W, 3), drawing from the dice it is given and from nothing else.

    Args:
        layers: operations that each image goes through.
        magnitude: their strength, 10 being the full scale.

    Raises:
        ValueError: the magnitude is below 3, where TensorFlow's scale leaves posterized images no bits.
    """

    def __init__(self, layers: int, magnitude: float):
        from timm.data.auto_augment import rand_augment_transform  # slow to import

        magnitude = round(magnitude)
        if magnitude < 3:
            raise ValueError(f"RandAugment's magnitude is 3 or more, not {magnitude}")
        mean = tuple(round(255 * value) for value in MEAN)
        self._augment = rand_augment_transform(
            f"rand-n{layers}-m{magnitude}-mmax{max(10, magnitude)}-p1.0",
            {"img_mean": mean, "interpolation": Image.Resampling.BILINEAR},
        )

    def __call__(self, image: np.ndarray, dice: random.Random) -> np.ndarray:
        # timm draws from Python's and NumPy's global numbers, which others draw from as well.
        pythons, numpys = random.getstate(), np.random.get_state()
        try:
            random.seed(dice.getrandbits(64))
            np.random.seed(dice.getrandbits(32))
            return np.asarray(self._augment(Image.fromarray(image)))
        finally:
            random.setstate(pythons)
            np.random.set_state(numpys)


def random_part(height: int, width: int, dice: random.Random) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random part of an image, drawn as torchvision's RandomResizedCrop draws it."""
    for _ in range(10):
        area = height * width * dice.uniform(*AREA)
        aspect = math.exp(dice.uniform(*LOG_ASPECT))
        rows, columns = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < rows <= height and 0 < columns <= width:
            return dice.randrange(height - rows + 1), dice.randrange(width - columns + 1), rows, columns
    # None fits a very long image: its middle, at the nearest aspect allowed.
    rows = min(height, max(1, round(width / ASPECT[0])))
    columns = min(width, max(1, round(height * ASPECT[1])))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def resized(image: np.ndarray, size: tuple[int, int], interpolation: str = "bilinear") -> np.ndarray:
    """uint8 (H, W, 3) at `size`, (height, width); see `TrainImage` for the interpolations."""
    if image.shape[:2] == size:
        return image
    if interpolation == "antialiased":
        return F.resize(torch.from_numpy(image).permute(2, 0, 1), list(size)).permute(1, 2, 0).numpy()
    height, width = image.shape[:2]
    factor = min(height // size[0], width // size[1])
    if factor > 1:  # whole blocks, which OpenCV averages in a fast way of its own; what is left over goes on all sides
        top, left = height % factor // 2, width % factor // 2
        height, width = height // factor, width // factor
        image = image[top : top + height * factor, left : left + width * factor]
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return cv2.resize(image, size[::-1], interpolation=INTERPOLATIONS[interpolation])


def shorter_side(image: np.ndarray, side: int, interpolation: str = "bilinear") -> np.ndarray:
    """uint8 (H, W, 3), its shorter side resized to `side`, the longer one rounded down as torchvision does."""
    height, width = image.shape[:2]
    shorter = min(height, width)
    return resized(image, (side * height // shorter, side * width // shorter), interpolation)


def centre(image: np.ndarray, size: int) -> np.ndarray:
    """The middle size x size pixels of (H, W, 3), where torchvision's center_crop puts them."""
    top, left = (round((side - size) / 2) for side in image.shape[:2])
    return image[top : top + size, left : left + size]


def normalised(image: np.ndarray) -> Tensor:
    """uint8 (H, W, 3) to float32 (3, H, W): divided by 255, less ImageNet's mean, by its standard deviation."""
    planes = np.empty((3, *image.shape[:2]), np.float32)
    # Plane by plane, each small enough to stay in the processor's cache: half the time of albumentations' or torch's.
    for plane, channel, mean, std in zip(planes, cv2.split(image), MEAN, STD, strict=True):
        np.copyto(plane, channel)
        plane -= np.float32(255 * mean)
        plane *= np.float32(1 / (255 * std))
    return torch.from_numpy(planes)
