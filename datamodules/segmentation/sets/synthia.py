"""SYNTHIA."""

from typing import ClassVar

import cv2
import numpy as np

from datamodules.segmentation.street_sets import TRAIN_AND_VAL, Layout, OneFolderSet

IDS = {
    0: 255,  # void
    1: 10,  # sky
    2: 2,  # building
    3: 0,  # road
    4: 1,  # sidewalk
    5: 4,  # fence
    6: 8,  # vegetation
    7: 5,  # pole
    8: 13,  # car
    9: 7,  # traffic sign
    10: 11,  # pedestrian
    11: 18,  # bicycle
    12: 17,  # motorcycle
    13: 255,  # parking slot
    14: 255,  # road work
    15: 6,  # traffic light
    16: 9,  # terrain
    17: 12,  # rider
    18: 14,  # truck
    19: 15,  # bus
    20: 16,  # train
    21: 3,  # wall
    22: 255,  # lane marking: road by Cityscapes' definition, but ignored by RobustNet and other published protocols
}
"""SYNTHIA-RAND-CITYSCAPES (Ros et al. 2016), as RobustNet (Choi et al. 2021) counts its classes."""

USUAL = (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18)
"""The usual 16 classes: SYNTHIA-RAND-CITYSCAPES has ids for terrain, truck and train but no pixel of them, and a
class without a pixel scores zero as soon as one is predicted. RobustNet takes the mean over 19 all the same."""


class SYNTHIA(OneFolderSet):
    """SYNTHIA-RAND-CITYSCAPES (Ros et al. 2016): 9,400 rendered frames from random viewpoints."""

    name = "synthia"
    url = "https://synthia-dataset.net/downloads/"
    layout = "RGB/0000000.png and GT/LABELS/0000000.png (of the archive SYNTHIA-RAND-CITYSCAPES)"
    layouts = (Layout("RGB", ".png", "GT/LABELS", ".png", IDS),)
    evaluated = USUAL
    fractions: ClassVar = {"train": 0.7, "val": 0.3}  # the set has no official split; RobustNet's is 6,580 and 2,820
    split_words: ClassVar = TRAIN_AND_VAL

    @staticmethod
    def _ids(data: bytes) -> np.ndarray:
        """16-bit PNG, class in the first channel and instance in the second: PIL would keep 8 of the 16 bits."""
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None:
            raise ValueError("the decoder gave up")
        if pixels.dtype != np.uint16 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise ValueError(
                f"it stores {pixels.dtype} pixels of shape {pixels.shape} where SYNTHIA's labels are "
                "16-bit PNGs of three channels"
            )
        red = pixels[:, :, 2]  # OpenCV's order is blue, green, red
        if red.max() > 255:
            raise ValueError(f"its first channel, the class, goes up to {red.max()}")
        return red.astype(np.uint8)
