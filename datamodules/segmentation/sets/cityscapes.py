"""Cityscapes."""

from typing import ClassVar

from datamodules.segmentation.street_sets import BY_SERVER, TRAIN_AND_VAL, Layout, StreetSet

IDS = {
    -1: 255,  # license plate; never drawn, and 255 where a tool has stored it in a byte
    0: 255,  # unlabeled
    1: 255,  # ego vehicle
    2: 255,  # rectification border
    3: 255,  # out of roi
    4: 255,  # static
    5: 255,  # dynamic
    6: 255,  # ground
    7: 0,  # road
    8: 1,  # sidewalk
    9: 255,  # parking
    10: 255,  # rail track
    11: 2,  # building
    12: 3,  # wall
    13: 4,  # fence
    14: 255,  # guard rail
    15: 255,  # bridge
    16: 255,  # tunnel
    17: 5,  # pole
    18: 255,  # polegroup
    19: 6,  # traffic light
    20: 7,  # traffic sign
    21: 8,  # vegetation
    22: 9,  # terrain
    23: 10,  # sky
    24: 11,  # person
    25: 12,  # rider
    26: 13,  # car
    27: 14,  # truck
    28: 15,  # bus
    29: 255,  # caravan
    30: 255,  # trailer
    31: 16,  # train
    32: 17,  # motorcycle
    33: 18,  # bicycle
    255: 255,  # license plate, see -1
}
"""Cityscapes' `labelIds` (Cordts et al. 2016), as in the set's own scripts."""


class Cityscapes(StreetSet):
    """Cityscapes (Cordts et al. 2016), fine annotations: 2,975 and 500 frames of European cities."""

    name = "cityscapes"
    url = "https://www.cityscapes-dataset.com/downloads/"
    layout = "leftImg8bit/train/CITY/*_leftImg8bit.png and gtFine/train/CITY/*_gtFine_labelIds.png"
    layouts = (Layout("leftImg8bit/{split}", "_leftImg8bit.png", "gtFine/{split}", "_gtFine_labelIds.png", IDS),)
    split_words: ClassVar = TRAIN_AND_VAL
    # The archive has label files for test as well, but they are blank.
    withheld: ClassVar = {"test": BY_SERVER}
