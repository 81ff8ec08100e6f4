"""Mapillary Vistas."""

from typing import ClassVar

from datamodules.segmentation.street_sets import Layout, StreetSet

IDS = {
    0: 255,  # bird
    1: 255,  # ground animal
    2: 1,  # curb
    3: 4,  # fence
    4: 255,  # guard rail
    5: 255,  # barrier
    6: 3,  # wall
    7: 255,  # bike lane
    8: 255,  # crosswalk - plain
    9: 255,  # curb cut
    10: 255,  # parking
    11: 255,  # pedestrian area
    12: 255,  # rail track
    13: 0,  # road
    14: 255,  # service lane
    15: 1,  # sidewalk
    16: 255,  # bridge
    17: 2,  # building
    18: 255,  # tunnel
    19: 11,  # person
    20: 12,  # bicyclist
    21: 12,  # motorcyclist
    22: 12,  # other rider
    23: 255,  # lane marking - crosswalk
    24: 0,  # lane marking - general
    25: 255,  # mountain
    26: 255,  # sand
    27: 10,  # sky
    28: 255,  # snow
    29: 9,  # terrain
    30: 8,  # vegetation
    31: 255,  # water
    32: 255,  # banner
    33: 255,  # bench
    34: 255,  # bike rack
    35: 255,  # billboard
    36: 255,  # catch basin
    37: 255,  # CCTV camera
    38: 255,  # fire hydrant
    39: 255,  # junction box
    40: 255,  # mailbox
    41: 0,  # manhole
    42: 255,  # phone booth
    43: 255,  # pothole
    44: 255,  # street light
    45: 5,  # pole
    46: 255,  # traffic sign frame
    47: 5,  # utility pole
    48: 6,  # traffic light
    49: 255,  # traffic sign (back)
    50: 7,  # traffic sign (front)
    51: 255,  # trash can
    52: 18,  # bicycle
    53: 255,  # boat
    54: 15,  # bus
    55: 13,  # car
    56: 255,  # caravan
    57: 17,  # motorcycle
    58: 16,  # on rails
    59: 255,  # other vehicle
    60: 255,  # trailer
    61: 14,  # truck
    62: 255,  # wheeled slow
    63: 255,  # car mount
    64: 255,  # ego vehicle
    65: 255,  # unlabeled
}
"""Mapillary Vistas v1.2 (Neuhold et al. 2017). Which of its classes count is the protocol of RobustNet (Choi et al.
2021) and its successors, kept to the letter so that numbers compare; it ignores what Cityscapes has no word for."""


class Mapillary(StreetSet):
    """Mapillary Vistas v1.2 (Neuhold et al. 2017), also as shipped with v2.0: 18,000 and 2,000 frames of the world."""

    name = "mapillary"
    url = "https://www.mapillary.com/dataset/vistas"
    layout = "training/images/*.jpg and training/labels/*.png (with v2.0 training/v1.2/labels/*.png), and validation"
    layouts = (
        Layout("{split}/images", ".jpg", "{split}/labels", ".png", IDS),
        Layout("{split}/images", ".jpg", "{split}/v1.2/labels", ".png", IDS),
    )
    split_words: ClassVar = {"train": "training", "val": "validation"}
    withheld: ClassVar = {"test": "its labels are not published, and evaluation is done on 'val'"}
