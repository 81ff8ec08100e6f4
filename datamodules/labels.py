"""Label spaces and, for every data set, the literal map from its own label ids to ours."""

from dataclasses import dataclass

IGNORE = 255
"""The training id of a pixel that is neither learned nor judged."""


@dataclass(frozen=True)
class LabelSpace:
    """What a network's output channels mean: one name and one RGB colour for each training id."""

    name: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]

    def __len__(self) -> int:
        return len(self.classes)

    def plain(self) -> dict:
        """Texts and numbers alone, as a checkpoint keeps it."""
        return {"name": self.name, "classes": list(self.classes), "palette": [list(colour) for colour in self.palette]}

    @classmethod
    def of(cls, plain: "LabelSpace | dict") -> "LabelSpace":
        """The label space that `plain` gave."""
        if isinstance(plain, LabelSpace):
            return plain
        return cls(str(plain["name"]), tuple(plain["classes"]), tuple(tuple(colour) for colour in plain["palette"]))


STREET = LabelSpace(
    "street",
    ("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
     "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
    ((128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153), (250, 170, 30),
     (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142),
     (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32)),
)  # fmt: skip
"""Cityscapes' 19 training ids and colours."""

DRIVABLE = LabelSpace(
    "drivable",
    ("background", "direct", "alternative"),
    ((0, 0, 0), (219, 94, 86), (86, 211, 219)),
)
"""BDD100K's drivable area, the WAD 2018 task: the lane one drives in, lanes one could change to, and the rest."""

# Raw id -> training id, one table for each published label encoding. A table lists every id its set defines, with
# 255 for those that are not trained, so that an id absent from it betrays a wrong or damaged label file.

CITYSCAPES_IDS = {
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

GTA5_IDS = {
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
    34: 255,  # license plate
}
"""GTA5's palette indices (Richter et al. 2016): Cityscapes' ids, and one of its own for license plates."""

BDD100K_IDS = {
    0: 0,  # road
    1: 1,  # sidewalk
    2: 2,  # building
    3: 3,  # wall
    4: 4,  # fence
    5: 5,  # pole
    6: 6,  # traffic light
    7: 7,  # traffic sign
    8: 8,  # vegetation
    9: 9,  # terrain
    10: 10,  # sky
    11: 11,  # person
    12: 12,  # rider
    13: 13,  # car
    14: 14,  # truck
    15: 15,  # bus
    16: 16,  # train
    17: 17,  # motorcycle
    18: 18,  # bicycle
    255: 255,  # unknown
}
"""BDD100K's semantic masks (Yu et al. 2020) are stored as Cityscapes' training ids already."""

BDD100K_DRIVABLE_IDS = {
    0: 1,  # direct
    1: 2,  # alternative
    2: 0,  # background
}
"""BDD100K's drivable masks since the 2020 release, `labels/drivable/masks`. The older release counts differently."""

BDD100K_DRIVABLE_MAPS_IDS = {
    0: 0,  # background
    1: 1,  # direct
    2: 2,  # alternative
}
"""BDD100K's drivable masks of the 2018 release, `drivable_maps/labels/*_drivable_id.png`."""

SYNTHIA_IDS = {
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

MAPILLARY_IDS = {
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

CAMVID_IDS = {
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


def trained(table: dict[int, int]) -> tuple[int, ...]:
    """The training ids a table can produce, in ascending order and without 255."""
    return tuple(sorted(set(table.values()) - {IGNORE}))


SYNTHIA_JUDGED = (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18)
"""The usual 16 classes: SYNTHIA-RAND-CITYSCAPES has ids for terrain, truck and train but no pixel of them, and a
class without a pixel scores zero as soon as one is predicted. RobustNet takes the mean over 19 all the same."""

CAMVID_FOLD = {
    3: 2,  # wall -> building
    6: 7,  # traffic light -> traffic sign
    9: 8,  # terrain -> vegetation
    12: 18,  # rider -> bicycle
    14: 13,  # truck -> car
    15: 13,  # bus -> car
    16: 13,  # train -> car
    17: 18,  # motorcycle -> bicycle
}
"""Predicted training id -> judged training id, applied to predictions (never to labels) when judging on CamVid: its
classes merge several of ours, so a network that calls a CamVid bus a bus is right and must not lose for it."""
