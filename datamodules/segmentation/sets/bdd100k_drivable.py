"""BDD100K, the area that one can drive on."""

from typing import ClassVar

from datamodules.segmentation.labels import DRIVABLE
from datamodules.segmentation.street_sets import BY_SERVER, TRAIN_AND_VAL, Layout, StreetSet

IDS = {
    0: 1,  # direct
    1: 2,  # alternative
    2: 0,  # background
}
"""BDD100K's drivable masks since the 2020 release, `labels/drivable/masks`. The older release counts differently."""

MAPS_IDS = {
    0: 0,  # background
    1: 1,  # direct
    2: 2,  # alternative
}
"""BDD100K's drivable masks of the 2018 release, `drivable_maps/labels/*_drivable_id.png`."""


class BDD100KDrivable(StreetSet):
    """BDD100K drivable area (Yu et al. 2020): 70,000 and 10,000 frames of American roads."""

    name = "bdd100k-drivable"
    url = "https://bdd-data.berkeley.edu/"
    layout = (
        "images/100k/train/*.jpg and labels/drivable/masks/train/*.png "
        "(or, as first released, drivable_maps/labels/train/*_drivable_id.png)"
    )
    layouts = (
        Layout("images/100k/{split}", ".jpg", "labels/drivable/masks/{split}", ".png", IDS),
        Layout(
            "images/100k/{split}", ".jpg", "drivable_maps/labels/{split}", "_drivable_id.png",
            MAPS_IDS,
        ),
    )  # fmt: skip
    label_space = DRIVABLE
    split_words: ClassVar = TRAIN_AND_VAL
    withheld: ClassVar = {"test": BY_SERVER}
    share_unlabelled = 0.01  # 137 of the 70,000 training frames were never annotated
