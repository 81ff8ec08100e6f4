"""Tiny street sets in the folder layouts of the published ones, with what a reader must find in them.

Each `make_*(root, n, size, samples)` writes n frames a split and returns {split: [(image, label), ...]} in the order of
the file names: image uint8 (H, W, 3) RGB, label uint8 (H, W) of training ids as they must come back. Classes are
looked up by name in the lists below, which are the sets' own and know nothing of `datamodules.segmentation.labels`'
tables.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from scipy.io import savemat
from torchvision.datasets import Cityscapes

from datamodules.segmentation.labels import DRIVABLE, STREET

Sample = tuple[np.ndarray, np.ndarray]
Written = dict[str, list[Sample]]

# Class names in the order of the raw ids.
CITYSCAPES = [c.name for c in Cityscapes.classes if c.id >= 0]
GTA5 = [*CITYSCAPES, "license plate"]
SYNTHIA = [
    "void", "sky", "building", "road", "sidewalk", "fence", "vegetation", "pole", "car", "traffic sign",
    "pedestrian", "bicycle", "motorcycle", "parking slot", "road work", "traffic light", "terrain", "rider",
    "truck", "bus", "train", "wall", "lane marking",
]  # fmt: skip
MAPILLARY = [
    "Bird", "Ground Animal", "Curb", "Fence", "Guard Rail", "Barrier", "Wall", "Bike Lane", "Crosswalk - Plain",
    "Curb Cut", "Parking", "Pedestrian Area", "Rail Track", "Road", "Service Lane", "Sidewalk", "Bridge",
    "Building", "Tunnel", "Person", "Bicyclist", "Motorcyclist", "Other Rider", "Lane Marking - Crosswalk",
    "Lane Marking - General", "Mountain", "Sand", "Sky", "Snow", "Terrain", "Vegetation", "Water", "Banner",
    "Bench", "Bike Rack", "Billboard", "Catch Basin", "CCTV Camera", "Fire Hydrant", "Junction Box", "Mailbox",
    "Manhole", "Phone Booth", "Pothole", "Street Light", "Pole", "Traffic Sign Frame", "Utility Pole",
    "Traffic Light", "Traffic Sign (Back)", "Traffic Sign (Front)", "Trash Can", "Bicycle", "Boat", "Bus",
    "Car", "Caravan", "Motorcycle", "On Rails", "Other Vehicle", "Trailer", "Truck", "Wheeled Slow",
    "Car Mount", "Ego Vehicle", "Unlabeled",
]  # fmt: skip
CAMVID = [
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "cyclist",
    "void",
]  # fmt: skip

# Where a set has another word for one of our classes.
SYNTHIA_WORDS = {"person": "pedestrian"}
MAPILLARY_WORDS = {"traffic sign": "Traffic Sign (Front)", "rider": "Bicyclist", "train": "On Rails"}
CAMVID_WORDS = {
    "sidewalk": "pavement", "vegetation": "tree", "traffic sign": "sign", "person": "pedestrian", "bicycle": "cyclist",
}  # fmt: skip

GTA5_PALETTE = [c.color for c in Cityscapes.classes if c.id >= 0] + [(0, 0, 142)]
GTA5_PALETTE[4] = (20, 20, 20)  # static, the one colour in which the two sets differ


def street_scenes(size: tuple[int, int], classes: int = 19, seed: int = 0) -> Iterator[Sample]:
    """Scenes of (H, W) size, without end: bands of sky, building and road, blocks of any class, an unlabelled strip."""
    rng = np.random.default_rng(seed)
    height, width = size
    colours = np.array([*(STREET if classes == 19 else DRIVABLE).palette, (0, 0, 0)], np.int16)
    while True:
        label = np.zeros(size, np.uint8)
        if classes == 19:
            label[: height // 3] = 10
            label[height // 3 : height // 2] = 2
        for _ in range(12):
            top, left = rng.integers(height), rng.integers(width)
            label[top : top + height // 4, left : left + width // 4] = rng.integers(classes)
        label[-(height // 8) :] = 255 if classes == 19 else 0
        image = colours[np.minimum(label, classes)] + rng.integers(-8, 9, (*size, 3))
        yield np.clip(image, 0, 255).astype(np.uint8), label


def raw_ids(names: list[str], words: dict[str, str], void: int) -> np.ndarray:
    """Training id -> raw id as uint8 (256,), by name; `void` for the classes that the set does not have."""
    lower = [name.lower() for name in names]
    lut = np.full(256, void, np.uint8)
    for training, name in enumerate(STREET.classes):
        word = words.get(name, name).lower()
        if word in lower:
            lut[training] = lower.index(word)
    return lut


def make_gta5(root, n=8, size=(32, 64), samples: Iterable[Sample] | None = None, lists: str | None = "mat") -> Written:
    """n frames in all, half of them for training and a quarter each for val and test, listed in `split.mat`.

    `lists="txt"` lists them in train.txt, val.txt and test.txt instead, None not at all. The lists deal the frames
    out in turn, so that a reader who ignores them is found out.
    """
    root, raw = Path(root), raw_ids(GTA5, {}, 0)
    palette = np.array(GTA5_PALETTE, np.uint8).ravel().tolist()
    written: Written = {"train": [], "val": [], "test": []}
    ids: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for index, (image, label) in enumerate(islice(samples or street_scenes(size), n)):
        split = ("train", "val", "train", "test")[index % 4]
        if lists is None:
            split = "train" if index < n / 2 else "val" if index < n * 3 / 4 else "test"
        written[split].append((image, label))
        ids[split].append(index + 1)
        write_image(root / "images" / f"{index + 1:05d}.png", image)
        write_indices(root / "labels" / f"{index + 1:05d}.png", raw[label], palette)
    if lists == "mat":
        savemat(root / "split.mat", {f"{split}Ids": np.array(numbers)[:, None] for split, numbers in ids.items()})
    elif lists == "txt":
        for split, numbers in ids.items():
            (root / f"{split}.txt").write_text("".join(f"{number:05d}.png\n" for number in numbers))
    return written


def make_cityscapes(root, n=4, size=(32, 64), samples: Iterable[Sample] | None = None) -> Written:
    """n frames each of train, in two cities, and val."""
    root, raw, stream = Path(root), raw_ids(CITYSCAPES, {}, 0), iter(samples or street_scenes(size))
    written: Written = {}
    for split, cities in {"train": ("aachen", "zurich"), "val": ("frankfurt",)}.items():
        written[split] = list(islice(stream, n))
        for index, (image, label) in enumerate(written[split]):
            city = cities[index * len(cities) // n]
            stem = f"{split}/{city}/{city}_{index:06d}_000019"
            write_image(root / "leftImg8bit" / f"{stem}_leftImg8bit.png", image)
            write_indices(root / "gtFine" / f"{stem}_gtFine_labelIds.png", raw[label])
            write_indices(root / "gtFine" / f"{stem}_gtFine_instanceIds.png", raw[label])  # beside it, as published
    return written


def make_bdd100k(root, n=4, size=(32, 64), samples: Iterable[Sample] | None = None, old=False) -> Written:
    """n frames each of train and val; `old` for the layout of the first release."""
    images, labels, suffix = ("images/10k", "labels/sem_seg/masks", ".png")
    if old:
        images, labels, suffix = ("seg/images", "seg/labels", "_train_id.png")
    stream = iter(samples or street_scenes(size))
    return _two_splits(Path(root), n, stream, images, labels, suffix, np.arange(256, dtype=np.uint8))


def make_bdd100k_drivable(root, n=4, size=(32, 64), samples: Iterable[Sample] | None = None, old=False) -> Written:
    """n frames each of train and val; `old` for the layout of the first release, whose ids differ."""
    labels, suffix, names = ("labels/drivable/masks", ".png", ("direct", "alternative", "background"))
    if old:
        labels, suffix, names = ("drivable_maps/labels", "_drivable_id.png", ("background", "direct", "alternative"))
    raw = np.zeros(256, np.uint8)
    raw[:3] = [names.index(name) for name in DRIVABLE.classes]
    stream = iter(samples or street_scenes(size, classes=3))
    return _two_splits(Path(root), n, stream, "images/100k", labels, suffix, raw)


def make_synthia(root, n=10, size=(32, 64), samples: Iterable[Sample] | None = None) -> Written:
    """n frames in all, of which a reader takes the first 7 in 10 for training and the rest for val."""
    root, raw = Path(root), raw_ids(SYNTHIA, SYNTHIA_WORDS, 0)
    frames = list(islice(samples or street_scenes(size), n))
    for index, (image, label) in enumerate(frames):
        write_image(root / "RGB" / f"{index:07d}.png", image)
        instances = np.arange(label.size, dtype=np.uint16).reshape(label.shape)
        channels = [np.zeros_like(instances), instances, raw[label].astype(np.uint16)]  # blue, green, red
        path = root / "GT" / "LABELS" / f"{index:07d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.dstack(channels))
    cut = -(-7 * n // 10)
    return {"train": frames[:cut], "val": frames[cut:]}


def make_mapillary(root, n=4, size=(32, 64), samples: Iterable[Sample] | None = None, version="v1.2") -> Written:
    """n frames each of training and validation; version "v2.0" keeps the v1.2 labels in a folder of that name."""
    root, stream = Path(root), iter(samples or street_scenes(size))
    raw = raw_ids(MAPILLARY, MAPILLARY_WORDS, 65)
    palette = np.random.default_rng(0).integers(0, 256, 66 * 3).tolist()
    written: Written = {}
    for split, word in {"train": "training", "val": "validation"}.items():
        written[split] = list(islice(stream, n))
        folder = root / word / ("v1.2/labels" if version == "v2.0" else "labels")
        for index, (image, label) in enumerate(written[split]):
            write_image(root / word / "images" / f"frame-{index}.jpg", image)
            write_indices(folder / f"frame-{index}.png", raw[label], palette)
    return written


def make_camvid(root, n=4, size=(32, 64), samples: Iterable[Sample] | None = None) -> Written:
    """n frames each of train, val and test; of our classes that CamVid does not have, the labels say void."""
    root, stream = Path(root), iter(samples or street_scenes(size))
    raw = raw_ids(CAMVID, CAMVID_WORDS, 11)
    lacking = np.flatnonzero(raw == 11)
    written: Written = {}
    for split in ("train", "val", "test"):
        written[split] = []
        for index, (image, label) in enumerate(islice(stream, n)):
            write_image(root / split / f"0001TP_{index:06d}.png", image)
            write_indices(root / f"{split}annot" / f"0001TP_{index:06d}.png", raw[label])
            written[split].append((image, np.where(np.isin(label, lacking), 255, label).astype(np.uint8)))
    return written


MAKERS = {
    "gta5": make_gta5,
    "cityscapes": make_cityscapes,
    "bdd100k": make_bdd100k,
    "bdd100k-drivable": make_bdd100k_drivable,
    "synthia": make_synthia,
    "mapillary": make_mapillary,
    "camvid": make_camvid,
}


def write_image(path: Path, image: np.ndarray) -> None:
    """uint8 (H, W, 3) RGB as PNG or JPEG, as the path's suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **({"quality": 98, "subsampling": 0} if path.suffix == ".jpg" else {}))


def write_indices(path: Path, ids: np.ndarray, palette: list[int] | None = None) -> None:
    """uint8 (H, W) as a grey PNG, or as a palette PNG with [r, g, b, r, g, b, ...] colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = Image.fromarray(ids)
    if palette is not None:
        file = Image.frombytes("P", file.size, file.tobytes())
        file.putpalette(palette)
    file.save(path)


def _two_splits(root: Path, n: int, stream: Iterator[Sample], images: str, labels: str, suffix: str, raw) -> Written:
    """BDD100K's layouts: JPEGs and masks in a folder a split."""
    written: Written = {}
    for split in ("train", "val"):
        written[split] = list(islice(stream, n))
        for index, (image, label) in enumerate(written[split]):
            write_image(root / images / split / f"{index:08x}-{split}.jpg", image)
            write_indices(root / labels / split / f"{index:08x}-{split}{suffix}", raw[label])
    return written
