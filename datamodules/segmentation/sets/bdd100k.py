"""BDD100K, its classes of every pixel."""

from typing import ClassVar

from datamodules.segmentation.street_sets import BY_SERVER, TRAIN_AND_VAL, Layout, StreetSet

IDS = {training: training for training in (*range(19), 255)}
"""BDD100K's semantic masks (Yu et al. 2020) are stored as Cityscapes' training ids already."""


class BDD100K(StreetSet):
    """BDD100K semantic segmentation (Yu et al. 2020): 7,000 and 1,000 frames of American roads."""

    name = "bdd100k"
    url = "https://bdd-data.berkeley.edu/"
    layout = (
        "images/10k/train/*.jpg and labels/sem_seg/masks/train/*.png "
        "(or, as first released, seg/images/train/*.jpg and seg/labels/train/*_train_id.png)"
    )
    layouts = (
        Layout("images/10k/{split}", ".jpg", "labels/sem_seg/masks/{split}", ".png", IDS),
        Layout("seg/images/{split}", ".jpg", "seg/labels/{split}", "_train_id.png", IDS),
    )
    split_words: ClassVar = TRAIN_AND_VAL
    withheld: ClassVar = {"test": BY_SERVER}
