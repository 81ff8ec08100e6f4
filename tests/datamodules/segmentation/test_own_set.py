"""Sets of one's own by a YAML file: ids, colours, palettes; folders, lists, shares; classes of Cityscapes; disorder."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.image_files import DataError
from datamodules.segmentation.data import SegmentationData
from datamodules.segmentation.domains import open_domain, split_of
from datamodules.segmentation.labels import STREET, LabelSpace

IDS = np.array([[0, 1, 2], [7, 255, 0]], np.uint8)
CLASSES = """
classes:
  - {name: Erde, id: 0, colour: [120, 80, 40]}
  - {name: кукуруза, id: 1, colour: [0, 160, 0]}
  - {name: weed, ids: [2, 7]}
"""
FOLDERS = "images: images/{split}/*.png\nlabels: labels/{split}/*_label.png\n"
FLAT = "images: pictures/*.png\nlabels: masks/*.png\n"


def write(file: Path, array: np.ndarray, palette: bool = False) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    if palette:
        image.putpalette(list(range(256)) * 3)
    image.save(file)


def make(root: Path, text: str, label: np.ndarray = IDS, count: int = 10, words=("train", "val"), **how) -> str:
    """A set and its description; image n is of the value n."""
    for number in range(count):
        for image, mask in (
            [(f"images/{word}/feld {number}.png", f"labels/{word}/feld {number}_label.png") for word in words]
            if "{split}" in text
            else [(f"pictures/{number}.png", f"masks/{number}.png")]
        ):
            write(root / image, np.full((*label.shape[:2], 3), number, np.uint8))
            write(root / mask, label, **how)
    (root / "farm.yaml").write_text(text, encoding="utf-8")
    return str(root / "farm.yaml")


def numbers(name: str, split: str) -> list[int]:
    samples = open_domain(name, split, "nowhere").samples
    return sorted(int(samples[index][0][0, 0, 0]) for index in range(len(samples)))


@pytest.mark.parametrize("palette", [False, True])
def test_ids_are_read_as_the_file_says(palette, tmp_path):
    domain = open_domain(make(tmp_path, FOLDERS + CLASSES, palette=palette), "val", "nowhere")
    assert domain.samples[0][1].tolist() == [[0, 1, 2], [2, 255, 0]]  # 255 is ignored unless it is named
    assert domain.label_space.classes == ("Erde", "кукуруза", "weed") and domain.evaluated == (0, 1, 2)
    assert domain.label_space.palette[:2] == ((120, 80, 40), (0, 160, 0)) and domain.on_disk


def test_colours_are_read_as_the_file_says(tmp_path):
    pixels = np.array([[[1, 2, 3], [9, 8, 7]], [[0, 0, 0], [1, 2, 3]]], np.uint8)
    classes = "classes:\n  - {name: a, colour: [9, 8, 7]}\n  - {name: b, colour: [1, 2, 3]}\nignore: [[0, 0, 0]]\n"
    name = make(tmp_path, FOLDERS + classes, label=pixels)
    assert open_domain(name, "val", "").samples[0][1].tolist() == [[1, 0], [255, 1]]
    write(tmp_path / "labels/val/feld 3_label.png", pixels + 1)
    with pytest.raises(DataError, match=r"feld 3_label.png cannot be read: it holds the colour \(2, 3, 4\), which .*"):
        open_domain(name, "val", "").samples[3]


def test_folders_of_other_words_and_elsewhere(tmp_path):
    text = f"root: {tmp_path}/data\nsplits: {{train: Übung, val: проба}}\n{FOLDERS}{CLASSES}"
    make(tmp_path / "data", text, words=("Übung", "проба"))
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "farm.yml").write_text(text)
    name = str(tmp_path / "sets" / "farm.yml")
    assert numbers(name, "train") == numbers(f"{name}:val", "train") == [*range(10)]
    with pytest.raises(DataError, match="'test' is no split of farm, which has train, val"):
        open_domain(f"{name}:test", "val", "")


def test_a_flat_folder_is_divided_by_lists_or_by_shares(tmp_path, caplog):
    name = make(tmp_path, FLAT + CLASSES)
    assert numbers(name, "train") == [*range(8)] and numbers(name, "val") == [8, 9]
    assert "farm has no split lists in" in caplog.text
    (tmp_path / "train.txt").write_text("3\n5\n")
    (tmp_path / "val.txt").write_text("pictures/7.png\n")
    assert numbers(name, "train") == [3, 5] and numbers(name, "val") == [7]


def test_classes_of_cityscapes_and_the_rest_is_ignored(tmp_path):
    classes = """
classes:
  - {name: Erde, id: 0, street: terrain}
  - {name: Mais, id: 1, street: vegetation}
  - {name: Heu, id: 2, street: vegetation}
  - {name: Kuh, id: 7}
"""
    domain = open_domain(make(tmp_path, FOLDERS + classes), "val", "")
    assert domain.label_space == STREET and domain.evaluated == (8, 9)
    assert domain.samples[0][1].tolist() == [[9, 8, 8], [255, 255, 9]]


def test_two_sets_of_the_same_classes_train_together(tmp_path):
    label = np.tile(np.array([[0, 1], [2, 7]], np.uint8).repeat(20, 0).repeat(30, 1), (1, 1))
    one = make(tmp_path / "a", FOLDERS + CLASSES, label=label)
    other = make(tmp_path / "b", (FOLDERS + CLASSES).replace("[0, 160, 0]", "[1, 1, 1]"), label=label)
    data = SegmentationData(one, [other], crop=(16, 24), batch_size=2)
    images, labels = next(iter(data.train_dataloader()))
    assert images.shape == (2, 3, 16, 24) and set(torch.unique(labels).tolist()) <= {0, 1, 2, 255}
    assert [domain.name for domain in data.evaluated] == [one, other]
    assert split_of(f"{one}:train", "val") == (one, "train")
    third = make(tmp_path / "c", (FOLDERS + CLASSES).replace("weed", "Unkraut"))
    with pytest.raises(DataError, match=r"3 own ones \(class 2 is 'Unkraut' in one and 'weed' in the other\): choose"):
        SegmentationData(one, [third], crop=(16, 24))


def test_label_spaces_are_their_classes():
    assert LabelSpace("a", ("x", "y"), ((0, 0, 0),)) == LabelSpace("b", ("x", "y"), ())
    assert LabelSpace("a", ("x", "y"), ()) != LabelSpace("a", ("y", "x"), ())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("images: [", "farm.yaml is no YAML file: "),
        ("- 1", "farm.yaml describes no set: it needs images, labels and classes"),
        (FOLDERS, "farm.yaml: classes is missing"),
        (FOLDERS + CLASSES + "colour: 1", "unknown key 'colour': choose from classes, ignore, images"),
        (FOLDERS + "classes: [{name: a}]", "classes: list two classes or more, each with a name"),
        (FOLDERS + "classes: [{name: a}, {name: a}]", "there are two classes 'a'"),
        (FOLDERS + "classes: [{name: a, id: 1}, {name: b, id: 1}]", "class 'b': the id 1 is that of another class"),
        (FOLDERS + "classes: [{name: a, id: 1}, {name: b, id: 256}]", "class 'b': 256 is not an id from 0 to 255"),
        (FOLDERS + "classes: [{name: a, id: yes}, {name: b}]", "class 'a': True is not an id from 0 to 255"),
        (FOLDERS + "classes: [{name: a, colour: [1, 2]}, {name: b, colour: [0, 0, 0]}]", "[1, 2] is not a colour [red"),
        (FOLDERS + "classes: [{name: a, color: 1}, {name: b}]", "class 'a': unknown key 'color': choose from colour"),
        (FOLDERS + "classes: [{name: a, street: lawn}, {name: b}]", "street: 'lawn' is none of road, sidewalk"),
        (FOLDERS.replace("/*_l", "/_l") + CLASSES, "labels: 'labels/{split}/_label.png' is no pattern FOLDER/*SUFFIX"),
        (FOLDERS.replace("labels/{split}", "labels") + CLASSES, "images and labels: both hold {split}, or neither"),
        (FOLDERS + CLASSES + "splits: {dev: x}", "splits: pass the set's own words for train, val and test"),
        (FOLDERS.replace("images/", "fotos/") + CLASSES, "fotos/val not found for the 'val' split of farm"),
        (FOLDERS + CLASSES.replace("[2, 7]", "2"), "holds the id 7, but farm defines 0 to 2 and 255"),
    ],
)
def test_what_is_out_of_order_is_said(text, said, tmp_path):
    name = make(tmp_path, FOLDERS + CLASSES, count=1)
    Path(name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as error:
        open_domain(name, "val", "").samples[0]
    assert said in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"none.yaml is not there"):
        open_domain(f"{tmp_path}/none.yaml", "val", "")
