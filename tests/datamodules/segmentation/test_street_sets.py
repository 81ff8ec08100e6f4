"""The real street sets, in miniature copies of their published layouts."""

import os
import pickle
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import Cityscapes as TorchvisionCityscapes

from datamodules.image_files import DataError, MissingDataError
from datamodules.segmentation import labels
from datamodules.segmentation.sets import (
    STREET_SETS,
    bdd100k,
    bdd100k_drivable,
    camvid,
    mapillary,
    synthia,
)
from datamodules.segmentation.sets import (
    cityscapes as cityscapes_set,
)
from datamodules.segmentation.sets import (
    gta5 as gta5_set,
)
from datamodules.segmentation.sets.camvid import CamVid
from datamodules.segmentation.street_sets import SPLITS, UNKNOWN
from tests.datamodules.segmentation import published_layouts as published

LAYOUTS = [
    *((name, {}) for name in STREET_SETS),
    ("gta5", {"lists": "txt"}),
    ("gta5", {"lists": None}),
    ("bdd100k", {"old": True}),
    ("bdd100k-drivable", {"old": True}),
    ("mapillary", {"version": "v2.0"}),
]


def first(root: Path, pattern: str) -> Path:
    return min(root.rglob(pattern))


def sentence(error: pytest.ExceptionInfo) -> str:
    """The error's message, which has to be one sentence."""
    message = str(error.value)
    assert message.endswith(".") and "\n" not in message and len(message) < 900
    return message


@pytest.fixture
def gta5(tmp_path):
    published.make_gta5(tmp_path)
    return tmp_path


@pytest.fixture
def cityscapes(tmp_path):
    published.make_cityscapes(tmp_path)
    return tmp_path


# What is read is what was written.


@pytest.mark.parametrize(("name", "options"), LAYOUTS)
def test_reads_back_what_was_written(name, options, tmp_path):
    written = published.MAKERS[name](tmp_path, **options)
    for split, samples in written.items():
        street_set = STREET_SETS[name](tmp_path, split)
        assert len(street_set) == len(street_set.pairs) == len(samples) > 0
        for index, (image, label) in enumerate(samples):
            read_image, read_label = street_set[index]
            assert read_image.dtype == read_label.dtype == np.uint8
            np.testing.assert_array_equal(read_label, label)
            if street_set.pairs[index][0].suffix == ".png":
                np.testing.assert_array_equal(read_image, image)
            else:  # JPEG: near, and not with red and blue exchanged
                assert np.abs(read_image.astype(int) - image).mean() < 3


def test_every_training_id_survives_the_trip(tmp_path):
    label = np.arange(19, dtype=np.uint8).repeat(4)[None].repeat(8, axis=0)
    samples = [(np.zeros((*label.shape, 3), np.uint8), label)] * 10
    for name in ("gta5", "cityscapes", "bdd100k", "synthia", "mapillary"):
        published.MAKERS[name](tmp_path / name, samples=samples, n=5)
        np.testing.assert_array_equal(STREET_SETS[name](tmp_path / name, "train")[0][1], label)


def test_gta5_labels_are_indices_not_colours(gta5):
    street_set = STREET_SETS["gta5"](gta5, "train")
    label = street_set[0][1]
    colours = np.array(labels.STREET.palette)
    through_colour = cv2.imread(str(street_set.pairs[0][1]))[:, :, ::-1]
    np.testing.assert_array_equal(colours[label[label < 255]], through_colour[label < 255])  # the true palette
    as_grey = cv2.imread(str(street_set.pairs[0][1]), cv2.IMREAD_GRAYSCALE)
    assert not np.isin(label, as_grey).all()  # so a reader that goes through colour cannot pass the test above


def test_gta5_label_saved_as_colours_is_refused(gta5):
    path = first(gta5 / "labels", "*.png")
    Image.open(path).convert("RGB").save(path)
    with pytest.raises(DataError) as error:
        STREET_SETS["gta5"](gta5, "train")[0]
    assert str(path) in sentence(error) and "RGB" in str(error.value) and "class id" in str(error.value)


def test_orientation_tags_do_not_turn_images(tmp_path):
    published.make_mapillary(tmp_path, n=1)
    path = first(tmp_path / "training/images", "*.jpg")
    image = Image.open(path)
    exif = image.getexif()
    exif[0x0112] = 6  # turn by a quarter
    image.save(path, exif=exif)
    image, label = STREET_SETS["mapillary"](tmp_path, "train")[0]
    assert image.shape[:2] == label.shape


# Splits.


def test_split_mat_is_honoured(gta5):
    stems = {split: [image.stem for image, _ in STREET_SETS["gta5"](gta5, split).pairs] for split in SPLITS}
    assert stems == {
        "train": ["00001", "00003", "00005", "00007"],
        "val": ["00002", "00006"],
        "test": ["00004", "00008"],
    }
    (gta5 / "read_mapping").mkdir()
    (gta5 / "split.mat").rename(gta5 / "read_mapping" / "split.mat")
    assert len(STREET_SETS["gta5"](gta5, "train")) == 4


def test_without_lists_fixed_fractions_and_a_warning(tmp_path, caplog):
    published.make_gta5(tmp_path, n=8, lists=None)
    sets = {split: [image.stem for image, _ in STREET_SETS["gta5"](tmp_path, split).pairs] for split in SPLITS}
    assert [len(stems) for stems in sets.values()] == [4, 2, 2]
    assert [*sets["train"], *sets["val"], *sets["test"]] == [f"{number:05d}" for number in range(1, 9)]
    assert "no split lists" in caplog.text


def test_too_few_frames_for_a_split(tmp_path):
    published.make_gta5(tmp_path, n=1, lists=None)
    assert len(STREET_SETS["gta5"](tmp_path, "train")) == 1
    with pytest.raises(DataError) as error:
        STREET_SETS["gta5"](tmp_path, "val")
    assert "too few" in sentence(error)


def test_listed_frames_that_are_not_on_disk(gta5, caplog):
    for folder in ("images", "labels"):
        (gta5 / folder / "00003.png").unlink()
    assert len(STREET_SETS["gta5"](gta5, "train")) == 3
    assert "1 of 4 frames" in caplog.text and "00003" in caplog.text
    for path in [*gta5.glob("*/00002.png"), *gta5.glob("*/00006.png")]:
        path.unlink()
    with pytest.raises(MissingDataError) as error:
        STREET_SETS["gta5"](gta5, "val")
    assert "None of the 2 frames" in sentence(error)


def test_a_list_that_is_missing_or_damaged(tmp_path):
    published.make_gta5(tmp_path, lists="txt")
    (tmp_path / "val.txt").unlink()
    with pytest.raises(MissingDataError) as error:
        STREET_SETS["gta5"](tmp_path, "val")
    assert str(tmp_path / "val.txt") in sentence(error)
    (tmp_path / "split.mat").write_bytes(b"not a MATLAB file")
    with pytest.raises(DataError) as error:
        STREET_SETS["gta5"](tmp_path, "val")
    assert str(tmp_path / "split.mat") in str(error.value) and "valIds" in str(error.value)


def test_broken_frames_of_the_published_gta5_are_left_out(tmp_path):
    published.make_gta5(tmp_path, n=2, lists=None)
    for folder in ("images", "labels"):
        (tmp_path / folder / "00002.png").rename(tmp_path / folder / "15188.png")
    assert [image.stem for image, _ in STREET_SETS["gta5"](tmp_path, "train").pairs] == ["00001"]


# What is wrong with a copy is said, in one sentence that names the place.


@pytest.mark.parametrize("name", STREET_SETS)
def test_a_root_that_is_missing_or_wrong(name, tmp_path):
    street_set = STREET_SETS[name]
    for root in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(FileNotFoundError) as error:
            street_set(root, "train")
        assert isinstance(error.value, DataError)
        message = sentence(error)
        assert str(root) in message and street_set.url in message and street_set.layout in message
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="not a folder"):
        street_set(tmp_path / "file", "train")


@pytest.mark.parametrize("name", STREET_SETS)
def test_a_split_that_is_missing_or_unknown(name, tmp_path):
    street_set, written = STREET_SETS[name], published.MAKERS[name](tmp_path)
    with pytest.raises(DataError, match="is no split of"):
        street_set(tmp_path, "valid")
    for split in set(SPLITS) - set(written):
        with pytest.raises(DataError) as error:
            street_set(tmp_path, split)
        assert "test" in sentence(error) and name in str(error.value)
    word = street_set.split_words["val"]
    folders = [path for path in tmp_path.rglob(f"{word}*") if path.is_dir()]
    for folder in folders:
        shutil.rmtree(folder)
    if folders:
        with pytest.raises(MissingDataError) as error:
            street_set(tmp_path, "val")
        assert "'val'" in sentence(error) and word in str(error.value)
        assert len(street_set(tmp_path, "train")) > 0


def test_withheld_labels_are_said_to_be_withheld(cityscapes):
    with pytest.raises(MissingDataError, match=r"withheld.*'val'"):
        STREET_SETS["cityscapes"](cityscapes, "test")


@pytest.mark.parametrize("name", STREET_SETS)
def test_an_image_without_label_and_the_reverse(name, tmp_path):
    published.MAKERS[name](tmp_path)
    image, label = STREET_SETS[name](tmp_path, "train").pairs[0]
    kept = label.read_bytes()
    label.unlink()
    with pytest.raises(MissingDataError, match="image without its label") as error:
        STREET_SETS[name](tmp_path, "train")
    assert str(image) in sentence(error) and str(label) in str(error.value)
    label.write_bytes(kept)
    image.unlink()
    with pytest.raises(MissingDataError, match="label without its image") as error:
        STREET_SETS[name](tmp_path, "train")
    assert str(image) in sentence(error) and str(label) in str(error.value)


def test_a_folder_without_files(cityscapes):
    for path in (cityscapes / "gtFine/val").rglob("*.png"):
        path.unlink()
    with pytest.raises(MissingDataError) as error:
        STREET_SETS["cityscapes"](cityscapes, "val")
    assert str(cityscapes / "gtFine/val") in sentence(error) and "labelIds" in str(error.value)


@pytest.mark.parametrize("name", STREET_SETS)
@pytest.mark.parametrize("which", ["image", "label"])
def test_a_truncated_file(name, which, tmp_path):
    published.MAKERS[name](tmp_path)
    sound = STREET_SETS[name](tmp_path, "train")
    path = sound.pairs[-1][which == "label"]
    data = path.read_bytes()
    for cut in (len(data) - 2, len(data) // 2, 30):
        path.write_bytes(data[:cut])
        with pytest.raises(DataError, match="cut short") as error:
            STREET_SETS[name](tmp_path, "train")
        assert str(path) in sentence(error) and f"{cut} bytes" in str(error.value)
        with pytest.raises(DataError, match="cut short"):  # a file that changed since
            sound[len(sound) - 1]


def test_a_file_that_is_no_image(gta5):
    sound = STREET_SETS["gta5"](gta5, "train")
    path = sound.pairs[0][0]
    for content in (b"", b"<html>404</html>"):
        path.write_bytes(content)
        for read in (lambda: STREET_SETS["gta5"](gta5, "train"), lambda: sound[0]):
            with pytest.raises(DataError, match="no PNG or JPEG") as error:
                read()
            assert str(path) in sentence(error)


@pytest.mark.parametrize("name", STREET_SETS)
@pytest.mark.parametrize("which", ["image", "label"])
def test_a_file_damaged_in_the_middle(name, which, tmp_path):
    published.MAKERS[name](tmp_path)
    path = STREET_SETS[name](tmp_path, "train").pairs[0][which == "label"]
    if path.suffix == ".jpg":
        pytest.skip("a JPEG has no checksum")
    data = bytearray(path.read_bytes())
    start = data.index(b"IDAT") + 6
    data[start : start + 8] = bytes(byte ^ 0xFF for byte in data[start : start + 8])
    path.write_bytes(data)
    damaged = STREET_SETS[name](tmp_path, "train")
    with pytest.raises(DataError, match="cannot be read") as error:
        damaged[0]
    assert str(path) in sentence(error)


def test_padding_after_the_end_is_no_damage(tmp_path):
    published.make_bdd100k(tmp_path, n=1)
    sound = STREET_SETS["bdd100k"](tmp_path, "train")
    image, label = sound[0]
    for path in sound.pairs[0]:
        path.write_bytes(path.read_bytes() + bytes(16))
    sound.pairs[0][0].write_bytes(sound.pairs[0][0].read_bytes() + b"camera's own" * 1000)
    padded_image, padded_label = STREET_SETS["bdd100k"](tmp_path, "train")[0]
    np.testing.assert_array_equal(padded_image, image)
    np.testing.assert_array_equal(padded_label, label)


@pytest.mark.parametrize("name", STREET_SETS)
def test_a_label_of_another_size(name, tmp_path):
    published.MAKERS[name](tmp_path / "large", size=(32, 64))
    published.MAKERS[name](tmp_path / "small", size=(32, 60))
    image, label = STREET_SETS[name](tmp_path / "large", "train").pairs[0]
    shutil.copy(tmp_path / "small" / label.relative_to(tmp_path / "large"), label)
    with pytest.raises(DataError) as error:
        STREET_SETS[name](tmp_path / "large", "train")
    message = sentence(error)
    assert all(part in message for part in (str(label), "60 x 32", str(image), "64 x 32"))


def test_few_mismatched_frames_of_gta5_are_left_out_with_a_warning(tmp_path, caplog):
    published.make_gta5(tmp_path, n=240, size=(8, 8))
    published.write_indices(tmp_path / "labels" / "00001.png", np.zeros((8, 9), np.uint8))
    assert len(STREET_SETS["gta5"](tmp_path, "train")) == 119
    assert "00001.png" in caplog.text and "9 x 8" in caplog.text


def test_few_unannotated_frames_of_bdd100k_drivable_are_left_out_with_a_warning(tmp_path, caplog):
    published.make_bdd100k_drivable(tmp_path, n=120, size=(8, 8))
    first(tmp_path / "labels/drivable/masks/train", "*.png").unlink()
    assert len(STREET_SETS["bdd100k-drivable"](tmp_path, "train")) == 119
    assert "image without its label" in caplog.text


@pytest.mark.parametrize("name", STREET_SETS)
def test_a_label_with_an_unknown_id(name, tmp_path):
    published.MAKERS[name](tmp_path)
    street_set = STREET_SETS[name](tmp_path, "train")
    path = street_set.pairs[0][1]
    if name == "synthia":
        pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        pixels[0, :3, 2] = 77
        cv2.imwrite(str(path), pixels)
    else:
        ids = np.array(Image.open(path))
        ids[0, :3] = 77
        published.write_indices(path, ids)
    with pytest.raises(DataError) as error:
        street_set[0]
    assert str(path) in sentence(error) and "the id 77" in str(error.value)


@pytest.mark.parametrize("name", STREET_SETS)
def test_a_label_that_was_a_jpeg(name, tmp_path):
    """Many of the ids that compression makes up are ids of the set, so that nobody would see it from them."""
    published.MAKERS[name](tmp_path)
    street_set = STREET_SETS[name](tmp_path, "train")
    path = street_set.pairs[0][1]
    size = Image.open(path).size
    Image.new("L", size, 3).save(path, "JPEG")
    for read in (lambda: STREET_SETS[name](tmp_path, "train"), lambda: street_set[0]):
        with pytest.raises(DataError, match=r"JPEG|SYNTHIA") as error:
            read()
        assert str(path) in sentence(error)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/nowhere")])
@pytest.mark.parametrize("which", [0, 1])
def test_what_is_no_file(make, which, gta5):
    path = STREET_SETS["gta5"](gta5, "train").pairs[0][which]
    path.unlink()
    make(path)
    with pytest.raises(DataError) as error:
        STREET_SETS["gta5"](gta5, "train")
    assert str(path) in sentence(error)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\xff\xfe names\n"])
def test_a_split_list_that_is_no_text(content, tmp_path):
    published.make_gta5(tmp_path, lists="txt")
    (tmp_path / "train.txt").write_bytes(content)
    with pytest.raises(DataError) as error:
        STREET_SETS["gta5"](tmp_path, "train")
    assert str(tmp_path / "train.txt") in sentence(error)


def test_a_synthia_label_that_is_not_the_published_file(tmp_path):
    published.make_synthia(tmp_path)
    street_set = STREET_SETS["synthia"](tmp_path, "train")
    path = street_set.pairs[0][1]
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    for written in (pixels.astype(np.uint8), pixels[:, :, 2], np.full_like(pixels, 300)):
        cv2.imwrite(str(path), written)
        with pytest.raises(DataError, match="cannot be read") as error:
            street_set[0]
        assert str(path) in sentence(error)


def test_errors_cross_processes():
    for kind in (DataError, MissingDataError):
        assert str(pickle.loads(pickle.dumps(kind("one sentence.")))) == "one sentence."


def test_a_sound_set_warns_of_nothing(cityscapes, caplog):
    STREET_SETS["cityscapes"](cityscapes, "train")[0]
    assert not caplog.records


# The tables.


def test_cityscapes_table_is_torchvisions():
    for c in TorchvisionCityscapes.classes:
        expected = c.train_id if 0 <= c.train_id < 19 else 255
        assert cityscapes_set.IDS[c.id] == expected, c.name
        if c.id >= 0:
            assert gta5_set.IDS[c.id] == expected, c.name
    assert set(cityscapes_set.IDS) == {*range(-1, 34), 255}
    assert set(gta5_set.IDS) == set(range(35)) and gta5_set.IDS[34] == 255


@pytest.mark.parametrize(
    ("table", "names", "ours"),
    [
        (synthia.IDS, published.SYNTHIA, {"pedestrian": "person"}),
        (
            mapillary.IDS,
            published.MAPILLARY,
            {
                "lane marking - general": "road", "manhole": "road", "curb": "sidewalk", "utility pole": "pole",
                "traffic sign (front)": "traffic sign", "bicyclist": "rider", "motorcyclist": "rider",
                "other rider": "rider", "on rails": "train",
            },
        ),
        (
            camvid.IDS,
            published.CAMVID,
            {
                "pavement": "sidewalk", "tree": "vegetation", "sign": "traffic sign", "pedestrian": "person",
                "cyclist": "bicycle",
            },
        ),
        (bdd100k.IDS, [*labels.STREET.classes, *[None] * 236, "unknown"], {}),
    ],
)  # fmt: skip
def test_tables_by_class_name(table, names, ours):
    for id_, name in enumerate(names):
        if name is None:
            assert id_ not in table
            continue
        name = ours.get(name.lower(), name.lower())
        expected = labels.STREET.classes.index(name) if name in labels.STREET.classes else 255
        assert table[id_] == expected, (id_, name)
    assert len(table) == sum(name is not None for name in names)


def test_drivable_tables_by_class_name():
    for table, names in (
        (bdd100k_drivable.IDS, ("direct", "alternative", "background")),
        (bdd100k_drivable.MAPS_IDS, ("background", "direct", "alternative")),
    ):
        assert [labels.DRIVABLE.classes[table[id_]] for id_ in range(3)] == list(names)


@pytest.mark.parametrize("street_set", STREET_SETS.values(), ids=STREET_SETS)
def test_evaluated_and_fold_agree_with_the_tables(street_set):
    space = range(len(street_set.label_space))
    assert street_set.name in STREET_SETS and street_set.url.startswith("http")
    for layout in street_set.layouts:
        produced = labels.trained(layout.table)
        assert set(street_set.evaluated) <= set(produced) <= set(space)
        assert UNKNOWN not in layout.table and UNKNOWN not in layout.table.values()
    assert tuple(sorted(set(street_set.evaluated))) == street_set.evaluated
    for predicted, evaluated in street_set.fold.items():
        assert evaluated in street_set.evaluated  # what is folded is evaluated,
        assert predicted in space and predicted not in produced  # and only classes the set has no label for are folded


def test_on_camvid_every_prediction_is_evaluated():
    folded = {CamVid.fold.get(training, training) for training in range(19)}
    assert folded == set(CamVid.evaluated)


@pytest.mark.skipif("NORMSHIFT_CAMVID" not in os.environ, reason="NORMSHIFT_CAMVID names no copy of CamVid")
@pytest.mark.parametrize("split", SPLITS)
def test_real_camvid(split):
    street_set = CamVid(os.environ["NORMSHIFT_CAMVID"], split)
    pixels = np.zeros(256, int)
    rows = np.zeros((256, 2))
    for image, label in street_set:
        assert image.shape == (*label.shape, 3) and label.shape == (360, 480)
        pixels += np.bincount(label.ravel(), minlength=256)
        for training in (0, 10):  # road, sky
            rows[training] += np.nonzero(label == training)[0].sum(), (label == training).sum()
    assert set(np.flatnonzero(pixels)) <= {*CamVid.evaluated, 255}
    assert pixels[0] / pixels.sum() > 0.2  # a car's view is mostly road,
    sky, road = (rows[training, 0] / rows[training, 1] for training in (10, 0))
    assert sky < 180 < road  # and the sky is above it
