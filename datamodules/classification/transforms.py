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

from datamodules.classification.randaugment import TensorFlowRandAugment
from datamodules.segmentation.transforms import MEAN, STD

NORMALISATIONS = {
    "imagenet": (MEAN, STD),
    "cifar": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
}
"""Mean and standard deviation of the channels, in units of 0 to 1. "cifar": CIFAR-10's, in use on CIFAR-100 as well."""
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
        operations: "tensorflow": ResNet-RS' own (`randaugment.TensorFlowRandAugment`), which shift by up to 100 pixels
            and cut out 80 x 80 at magnitude 10, whatever the size. "timm": timm's, at the magnitudes of TensorFlow's:
            10 is the full scale, 15 half as much again, and each layer always applies; shifts are shares of the side,
            and Cutout is not among them. What leaves the picture is filled with the mean colour.
        interpolation: "bilinear" or "bicubic": OpenCV's, which is fastest. Reduced by 2 or more, blocks of pixels are
            averaged first, so that none is skipped; reduced by less, it does not smooth, and comes out sharper than
            torchvision's (of parts of ImageNet's photographs, the Laplacian's standard deviation is 1.24 times that).
            "antialiased": torchvision's bilinear with smoothing, exactly; the pipeline then takes 1.3 times as long.
        area: least share of the image's area in "resized" crops.
        squash: side of the square that an image is resized to before anything else, whatever its shape; None for none.
        jitter: reach of brightness, contrast, saturation and hue, changed in a random order as by torchvision's
            ColorJitter; None for none.
        grey: probability that the colours are taken away.
        colour_noise: standard deviation of the colour shift along ImageNet's principal components (`colour_shift`).
        normalisation: a name in `NORMALISATIONS`.

    Call with a uint8 image (H, W, 3); returns float32 (3, size, size), normalised. Randomness is torch's, so that
    workers differ and `seed_everything` repeats a run.

    Raises:
        ValueError: on an unknown crop, interpolation, set of operations or normalisation.
    """

    def __init__(
        self,
        size: int,
        crop: str = "resized",
        flip: bool = True,
        randaugment: tuple[int, int] | None = None,
        interpolation: str = "bilinear",
        *,
        operations: str = "timm",
        area: float = AREA[0],
        squash: int | None = None,
        jitter: tuple[float, float, float, float] | None = None,
        grey: float = 0.0,
        colour_noise: float = 0.0,
        normalisation: str = "imagenet",
    ):
        if crop not in CROPS:
            raise ValueError(f"unknown crop {crop!r}: choose from {', '.join(CROPS)}")
        if interpolation not in INTERPOLATIONS:
            raise ValueError(f"unknown interpolation {interpolation!r}: choose from {', '.join(INTERPOLATIONS)}")
        if operations not in OPERATIONS:
            raise ValueError(f"unknown operations {operations!r}: choose from {', '.join(OPERATIONS)}")
        self.size, self.crop, self.flip, self.interpolation = size, crop, flip, interpolation
        self.area, self.squash, self.jitter, self.grey, self.colour_noise = area, squash, jitter, grey, colour_noise
        self.mean, self.std = statistics(normalisation)
        self.randaugment = OPERATIONS[operations](*randaugment) if randaugment else None

    def __call__(self, image: np.ndarray) -> Tensor:
        # One call of torch an image, and Python's numbers from there: six calls would cost as much as resizing does.
        dice = random.Random(torch.randint(2**62, (1,)).item())
        if self.squash:
            image = resized(image, (self.squash, self.squash), self.interpolation)
        image = getattr(self, f"_{self.crop}")(image, dice)
        if self.flip and dice.random() < 0.5:
            image = cv2.flip(image, 1)
        if self.randaugment:
            image = self.randaugment(image, dice)
        if self.jitter:
            image = jittered(image, self.jitter, dice)
        if self.grey and dice.random() < self.grey:
            image = cv2.merge([grey_levels(image)] * 3)
        out = normalised(image, self.mean, self.std)
        if self.colour_noise:
            shift = colour_shift([dice.gauss(0, self.colour_noise) for _ in range(3)]) / self.std
            out += torch.from_numpy(shift.astype(np.float32)).view(3, 1, 1)
        return out

    def _resized(self, image: np.ndarray, dice: random.Random) -> np.ndarray:
        top, left, height, width = random_part(*image.shape[:2], dice, (self.area, AREA[1]))
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


class EvaluationImage:
    """An image as a network is evaluated on it, by torchvision's own resizing, which published weights are evaluated
    with.

    Args:
        size: side of what comes out: the middle of the image.
        resize: what the shorter side is resized to before that; by default `size`.
        interpolation: "bilinear" or "bicubic", smoothing either way.
        squash: resize both sides to `resize`, whatever the image's shape.
        normalisation: a name in `NORMALISATIONS`.

    Call with a uint8 image (H, W, 3); returns float32 (3, size, size), normalised.

    Raises:
        ValueError: `resize` is less than `size`, or the interpolation or normalisation unknown.
    """

    def __init__(
        self,
        size: int,
        resize: int | None = None,
        interpolation: str = "bilinear",
        *,
        squash: bool = False,
        normalisation: str = "imagenet",
    ):
        if resize is not None and resize < size:
            raise ValueError(f"images resized to {resize} pixels cannot be cut to {size}: resize must not be less")
        self.size, self.resize, self.interpolation = size, resize or size, InterpolationMode(interpolation)
        self.squash, (self.mean, self.std) = squash, statistics(normalisation)

    def __call__(self, image: np.ndarray) -> Tensor:
        image = evaluation_size(image, self.resize, self.interpolation, self.squash)
        return normalised(centre(image, self.size), self.mean, self.std)


def evaluation_size(image: np.ndarray, side: int, interpolation: InterpolationMode, squash: bool = False) -> np.ndarray:
    """uint8 (H, W, 3), its shorter side or, squashed, both sides resized to `side` by torchvision."""
    sides = image.shape[:2] if squash else (min(image.shape[:2]),)
    if all(length == side for length in sides):
        return image
    planes = torch.from_numpy(image).permute(2, 0, 1)
    return F.resize(planes, [side] * len(sides), interpolation).permute(1, 2, 0).numpy()


class RandAugment:
    """timm's RandAugment on uint8 (H, W, 3), drawing from the dice it is given and from nothing else.

    Args:
        layers: operations that each image goes through.
        magnitude: their strength, 10 being the full scale.

    Raises:
        ValueError: the magnitude is below 3, where TensorFlow's scale leaves posterized images no bits.
    """

    def __init__(self, layers: int, magnitude: float):
        from timm.data.auto_augment import rand_augment_transform  # takes seconds, and few need it

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


OPERATIONS = {"timm": RandAugment, "tensorflow": TensorFlowRandAugment}
"""Whose operations RandAugment draws from."""


def jittered(image: np.ndarray, reach: tuple[float, float, float, float], dice: random.Random) -> np.ndarray:
    """uint8 (H, W, 3), brightness, contrast, saturation and hue changed in a random order, by torchvision."""
    planes = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    changes = [F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue]
    drawn = [(change, dice.uniform(-most, most)) for change, most in zip(changes, reach, strict=True)]
    dice.shuffle(drawn)
    for change, by in drawn:
        planes = change(planes, by if change is F.adjust_hue else max(0.0, 1 + by))
    return planes.permute(1, 2, 0).numpy()


def grey_levels(image: np.ndarray) -> np.ndarray:
    """uint8 (H, W) of uint8 (H, W, 3), by torchvision."""
    return F.rgb_to_grayscale(torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1))[0].numpy()


EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
EIGENVECTORS = np.array([[0.4009, 0.7192, -0.5675], [-0.8140, -0.0045, -0.5808], [0.4203, -0.6948, -0.5836]])
"""Of the colours of ImageNet's pixels in units of 0 to 1, as Switchable Normalization's ImageNet code has them."""


def colour_shift(alphas: list[float]) -> np.ndarray:
    """What is added to red, green and blue, in units of 0 to 1: (alphas * EIGENVALUES) @ EIGENVECTORS.

    The noise of Krizhevsky et al. (NeurIPS 2012, section 4.1) in that code's order, which weights the matrix's rows.
    """
    return (np.array(alphas) * EIGENVALUES) @ EIGENVECTORS


def random_part(
    height: int, width: int, dice: random.Random, share: tuple[float, float] = AREA
) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random part of an image, drawn as torchvision's RandomResizedCrop draws it.

    `share`: of the image's area, least and most.
    """
    for _ in range(10):
        area = height * width * dice.uniform(*share)
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


def statistics(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of a name in `NORMALISATIONS`."""
    if name not in NORMALISATIONS:
        raise ValueError(f"unknown normalisation {name!r}: choose from {', '.join(NORMALISATIONS)}")
    return NORMALISATIONS[name]


def normalised(image: np.ndarray, means: tuple[float, ...] = MEAN, stds: tuple[float, ...] = STD) -> Tensor:
    """uint8 (H, W, 3) to float32 (3, H, W): divided by 255, less the mean, by the standard deviation; ImageNet's."""
    planes = np.empty((3, *image.shape[:2]), np.float32)
    # Plane by plane, each small enough to stay in the processor's cache: half the time of albumentations' or torch's.
    for plane, channel, mean, std in zip(planes, cv2.split(image), means, stds, strict=True):
        np.copyto(plane, channel)
        plane -= np.float32(255 * mean)
        plane *= np.float32(1 / (255 * std))
    return torch.from_numpy(planes)
