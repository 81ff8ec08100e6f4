"""Joint transforms of images and label maps for training and evaluation."""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # no look-up of newer releases

import albumentations as A
import cv2
import numpy as np
import torch
from albumentations.pytorch import ToTensorV2

from datamodules.segmentation.labels import IGNORE

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, which every pretrained backbone was trained with

NEAREST = cv2.INTER_NEAREST_EXACT
"""Interpolation of labels: the value at each new pixel's centre. OpenCV's plain INTER_NEAREST, albumentations' default
for masks, takes the upper left corner's value, up to half a pixel off."""


SCALES = (0.5, 2.0)
"""The usual factors of a random scale (Chen et al., TPAMI 2018, DeepLab)."""


class TrainTransform:
    """Random scale, crop, flip and optionally colour jitter (p 0.8) and blur (p 0.5).

    It is similar to RobustNet's augmentation, which is in `datamodules.segmentation.robustnet`.

    Args:
        crop: (height, width) of the output; smaller images are padded with ignored pixels.
        augment_colour: jitter brightness, contrast, saturation and hue, and sometimes blur.
        scales: the least and the greatest factor by which an image is resized before the crop.

    Call with image uint8 (H, W, 3), label uint8 (H, W) and, to aim the crop at one class, its training id; returns a
    normalised float image (3, h, w) and an int64 label (h, w). Randomness is torch's, so that workers differ and
    `seed_everything` repeats a run.
    """

    def __init__(self, crop: tuple[int, int], augment_colour: bool, scales: tuple[float, float] = SCALES):
        aimed_at = A.CropNonEmptyMaskIfExists(*crop, ignore_values=[IGNORE])
        self._anywhere = _train_pipeline(A.RandomCrop(*crop), crop, augment_colour, scales)
        # `mask` marks the class to aim at, which the padding is not
        self._aimed = _train_pipeline(aimed_at, crop, augment_colour, scales)

    def __call__(self, image: np.ndarray, label: np.ndarray, aim: int | None = None):
        if aim is None:
            self._anywhere.set_random_seed(int(torch.randint(2**31, ())))
            out = self._anywhere(image=image, label=label)
        else:
            self._aimed.set_random_seed(int(torch.randint(2**31, ())))
            out = self._aimed(image=image, label=label, mask=(label == aim).astype(np.uint8))
        return out["image"], out["label"].long()


def _train_pipeline(crop_transform, crop: tuple[int, int], augment_colour: bool, scales) -> A.Compose:
    colour = [
        A.ColorJitter(brightness=(0.6, 1.4), contrast=(0.6, 1.4), saturation=(0.6, 1.4), hue=(-0.1, 0.1), p=0.8),
        A.GaussianBlur(blur_limit=(3, 7), p=0.5),
    ]
    return A.Compose(
        [
            *([A.RandomScale(scale_limit=(scales[0] - 1, scales[1] - 1), p=1.0)] if scales != (1, 1) else []),
            A.PadIfNeeded(*crop, border_mode=0, fill=0, fill_mask=IGNORE),
            crop_transform,
            A.HorizontalFlip(p=0.5),
            *(colour if augment_colour else []),
            A.Normalize(MEAN, STD),
            ToTensorV2(),
        ],
        additional_targets={"label": "mask"},
        mask_interpolation=NEAREST,  # of every transform here, also of one to come
    )


class EvalTransform:
    """Normalisation only: image (3, H, W) float, label (H, W) int64."""

    def __init__(self):
        self._pipeline = A.Compose([A.Normalize(MEAN, STD), ToTensorV2()], additional_targets={"label": "mask"})

    def __call__(self, image: np.ndarray, label: np.ndarray):
        out = self._pipeline(image=image, label=label)
        return out["image"], out["label"].long()
