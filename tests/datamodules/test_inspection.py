"""Damage of many kinds, each planted in a set that is whole, is found and named; and what is whole is said to be."""

import os
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.classification.sets import IMAGE_SETS
from datamodules.getting import GETTING
from datamodules.segmentation.sets import STREET_SETS
from experiments import check_data
from experiments.study.flags import parse

YAML = """
images: images/{split}/*.jpg
labels: labels/{split}/*.png
classes: [{name: sky, id: 0}, {name: soil, id: 1}]
"""


def picture(file: Path, seed: int, size=(24, 32), **how) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(file, **how)


def label(file: Path, array: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(file)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("sets")
    for number in range(24):
        split, class_ = ("train", "val")[number % 2], ("a b", "ü")[number // 2 % 2]
        picture(root / "pets" / split / class_ / f"{number}.jpg", number)
        picture(root / "farm" / "images" / split / f"{number}.jpg", 100 + number)
        label(root / "farm" / "labels" / split / f"{number}.png", np.eye(24, 32, dtype=np.uint8))
    (root / "farm" / "farm.yaml").write_text(YAML)
    return root


@pytest.fixture
def sets(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "sets"))


def checked(capsys, *line: object) -> tuple[int, str]:
    try:
        check_data.run(parse(check_data.Flags, "", [*map(str, line), "--workers", "2"]))
        status = 0
    except SystemExit as left:
        status = left.code
    captured = capsys.readouterr()
    return status, captured.out + captured.err


def cut(file: Path, to: int) -> None:
    file.write_bytes(file.read_bytes()[:to])


def flip_bytes(file: Path, at: float, count: int) -> None:
    data = bytearray(file.read_bytes())
    start = int(at * len(data))
    data[start : start + count] = bytes(255 - byte for byte in data[start : start + count])
    file.write_bytes(bytes(data))


def turned(file: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.open(file).copy().save(file, exif=exif)


def huge(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[16:24] = struct.pack(">II", 100_000, 100_000)
    file.write_bytes(bytes(data))


def linked(file: Path) -> None:
    file.unlink()
    file.symlink_to("nowhere.jpg")


def replaced(file: Path, by: Path) -> None:
    file.write_bytes(by.read_bytes())


def made_up(file: Path) -> None:
    """A JPEG whose second half is missing, with the mark of its end."""
    picture(file, 3, (200, 300))
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2] + data[-2:])


def spoilt(folder: Path, shape: tuple, value: int = 0, kind=np.uint8) -> None:
    label(folder / "labels/train/2.png", np.full(shape, value, kind))


PETS = {
    "cut short": (lambda d: cut(d / "train/ü/2.jpg", 500), "train/ü/2.jpg is cut short"),
    "empty": (lambda d: cut(d / "train/ü/2.jpg", 0), "2.jpg is no PNG or JPEG image: its 0 bytes"),
    "text": (lambda d: (d / "train/ü/2.jpg").write_text("hello"), "2.jpg is no PNG or JPEG image"),
    "made up": (lambda d: made_up(d / "train/ü/2.jpg"), "2.jpg is damaged: its decoder says"),
    "another format": (lambda d: picture(d / "train/ü/2.jpg", 1, format="GIF"), "2.jpg is no PNG or JPEG image"),
    "one pixel": (lambda d: picture(d / "train/ü/2.jpg", 1, (1, 1)), "2.jpg is 1 x 1 pixels, too small for an image"),
    "turned": (lambda d: turned(d / "train/ü/2.jpg"), "2.jpg is to be turned when it is shown (EXIF orientation 6)"),
    "twice": (lambda d: shutil.copy(d / "train/ü/2.jpg", d / "train/ü/x.jpg"), "train/ü/x.jpg is the same image as"),
    "two classes": (lambda d: shutil.copy(d / "train/ü/2.jpg", d / "train/a b/x.jpg"), "image, of another class,"),
    "in val, too": (lambda d: shutil.copy(d / "train/ü/2.jpg", d / "val/ü/x.jpg"), ", of the split 'train'"),
    "two formats": (lambda d: picture(d / "train/ü/2.png", 7), "2.png has the name of 2.jpg: are they one"),
    "not read": (lambda d: picture(d / "train/ü/y.webp", 7), "train/ü/y.webp is not read: images end in .jpg"),
    "a folder": (lambda d: (d / "train/ü/z.png").mkdir(), "train/ü/z.png is a folder, and no file"),
    "a lost link": (lambda d: linked(d / "train/ü/2.jpg"), "train/ü/2.jpg is a link that leads nowhere"),
    "a pipe": (lambda d: os.mkfifo(d / "train/ü/p.jpg"), "train/ü/p.jpg is a pipe, and no file"),
    "no class": (lambda d: (d / "train" / "empty").mkdir(), "train/empty holds no file named *.jpg"),
    "only in val": (lambda d: picture(d / "val" / "new" / "1.jpg", 5), "val has the class 'new'"),
    "unsorted": (lambda d: [shutil.rmtree(d / "val"), picture(d / "val" / "1.jpg", 5)], "val has no class folder"),
}  # fmt: skip
FARM = {
    "no label": (lambda d: (d / "labels/train/2.png").unlink(), "2.jpg is an image without its label"),
    "no image": (lambda d: (d / "images/train/2.jpg").unlink(), "2.png is a label without its image"),
    "another size": (lambda d: spoilt(d, (9, 9)), "2.png is 9 x 9 pixels, but"),
    "unknown id": (lambda d: spoilt(d, (24, 32), 7), "2.png holds the id 7, but"),
    "colours": (lambda d: spoilt(d, (24, 32, 3)), "it stores RGB pixels where a"),
    "16 bits": (lambda d: spoilt(d, (24, 32), kind=np.uint16), "it stores I;16 pixels where a"),
    "all ignored": (lambda d: spoilt(d, (24, 32), 255), "no pixel of any class"),
    "a jpeg label": (lambda d: replaced(d / "labels/train/2.png", d / "images/train/2.jpg"), "2.png is a JPEG, whose"),
    "a bad checksum": (lambda d: flip_bytes(d / "labels/train/2.png", 0.5, 4), "2.png cannot be read"),
    "a cut label": (lambda d: cut(d / "labels/train/2.png", 60), "2.png is cut short"),
    "a huge label": (lambda d: huge(d / "labels/train/2.png"), "2.png says that it has 100000 x 100000 pixels"),
    "a cut image": (lambda d: cut(d / "images/train/2.jpg", 400), "2.jpg is cut short"),
}  # fmt: skip


def test_what_is_whole_is_said_to_be(sets, tmp_path, capsys):
    (sets / "pets" / "train" / "ü" / ".DS_Store").write_bytes(b"x")
    status, said = checked(capsys, sets / "pets", sets / "farm" / "farm.yaml", "shapes", "--out", tmp_path / "out")
    assert status == 0 and said.endswith("nothing is damaged\n")
    assert f"{sets}/pets train: 12 images of 32 x 24 pixels; 2 classes, from a b (6 images) to ü (6 images)" in said
    assert "from soil (3.1 % of the pixels) to sky (96.9 % of the pixels)" in said
    assert len(list((tmp_path / "out").glob("*.png"))) == 6


@pytest.mark.parametrize("kind", PETS)
def test_damage_in_class_folders_is_named(kind, sets, capsys):
    plant, wanted = PETS[kind]
    plant(sets / "pets")
    status, said = checked(capsys, sets / "pets")
    assert status == 2 and wanted in said and said.endswith("1 fault\n"), said


@pytest.mark.parametrize("kind", FARM)
def test_damage_in_a_set_with_labels_is_named(kind, sets, capsys):
    plant, wanted = FARM[kind]
    plant(sets / "farm")
    status, said = checked(capsys, sets / "farm" / "farm.yaml")
    assert status == 2 and wanted in said and said.endswith("1 fault\n"), said


def test_several_faults_are_all_named(sets, capsys):
    for number in (2, 6, 10):
        cut(sets / "pets" / "train" / "ü" / f"{number}.jpg", 300)
    status, said = checked(capsys, sets / "pets")
    assert status == 2 and said.count("is cut short") == 3 and "11 images" not in said and "9 images of 32 x 24" in said


def test_a_set_that_is_not_there_is_named_with_its_page(tmp_path, capsys):
    status, said = checked(capsys, "pacs", "--data-root", tmp_path)
    assert status == 2 and "get PACS from https://" in said
    assert "about 0.2 GB; terms: none stated (the page has the last word); in the folder with the archives: " in said
    assert f"mkdir -p {tmp_path}/pacs && unzip -q PACS.zip && mv pacs_data/* {tmp_path}/pacs" in said
    status, said = checked(capsys, "imagenot")
    assert status == 2 and "unknown set 'imagenot'" in said


def test_every_published_set_says_how_it_is_got():
    assert {*GETTING} == {*IMAGE_SETS, *STREET_SETS} - {"shapes"}
    for name, getting in GETTING.items():
        for line in (getting.sentence("data/x y"), getting.unpack):
            done = subprocess.run(["bash", "-n", "-c", line.partition("archives: ")[2] or line], capture_output=True)
            assert done.returncode == 0, (name, done.stderr)
        assert "ROOT" in getting.unpack
