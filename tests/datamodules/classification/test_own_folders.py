"""Folders of one's own, by their paths: three layouts, names with spaces and of any script, and disorder."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from datamodules.classification.domains import domains_of, is_folder, open_images
from datamodules.image_files import DataError, MissingDataError

CLASSES = ("Äpfel rot", "кошка", "dog", "猫", "x y z")


def image(file: Path, value: int) -> None:
    """A picture that says which it is."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(cv2.imencode(".png", np.full((6, 8, 3), value, np.uint8))[1].tobytes())


def fill(folder: Path, count: int, classes=CLASSES, start: int = 0) -> None:
    for label, class_ in enumerate(classes):
        for number in range(count):
            image(folder / class_ / f"bild {number}.png", start + 10 * label + number)


def seen(name: str | Path, split: str) -> set[tuple[int, str]]:
    domain = open_images(str(name), split, "nowhere")
    pairs = [domain.samples[index] for index in range(len(domain.samples))]
    return {(int(pixels[0, 0, 0]), domain.classes[label]) for pixels, label in pairs}


def all_of(count: int, start: int = 0) -> set[tuple[int, str]]:
    return {(start + 10 * label + n, class_) for label, class_ in enumerate(CLASSES) for n in range(count)}


def test_class_folders_hold_out_a_fifth_of_each_class(tmp_path):
    fill(tmp_path / "my set", 10)
    train, val = seen(tmp_path / "my set", "train"), seen(tmp_path / "my set", "val")
    assert train | val == seen(tmp_path / "my set", "all") == all_of(10) and not train & val
    assert sorted(class_ for _, class_ in val) == sorted(2 * CLASSES)
    assert open_images(str(tmp_path / "my set"), "val", "").classes == tuple(sorted(CLASSES))


def test_splits_are_folders(tmp_path):
    fill(tmp_path / "train", 4)
    fill(tmp_path / "test", 2, start=100)
    assert seen(tmp_path, "train") == all_of(4)
    assert seen(tmp_path, "val") == seen(f"{tmp_path}:test", "val") == all_of(2, 100)  # there is no folder val
    fill(tmp_path / "valid", 3, start=150)
    assert seen(tmp_path, "val") == all_of(3, 150) and seen(tmp_path, "test") == all_of(2, 100)
    assert seen(tmp_path / "valid", "all") == all_of(3, 150)


def test_without_a_folder_val_a_fifth_of_train_is_held_out(tmp_path):
    fill(tmp_path / "train", 5)
    assert seen(tmp_path, "train") | seen(tmp_path, "val") == all_of(5) and len(seen(tmp_path, "val")) == 5


def test_labels_of_a_split_count_as_in_train_where_classes_are_missing(tmp_path, caplog):
    fill(tmp_path / "train", 2)
    fill(tmp_path / "val", 1, CLASSES[3:], start=100)
    assert seen(tmp_path, "val") == {(100, CLASSES[3]), (110, CLASSES[4])}
    assert "val has no images of the class 'dog' (and 2 more like it)" in caplog.text


def test_domains_are_opened_together_or_each_by_its_path(tmp_path):
    for start, domain in enumerate(("Foto", "Skizze 1")):
        fill(tmp_path / domain, 5, start=100 * start)
    assert domains_of(str(tmp_path), "nowhere") == (f"{tmp_path}/Foto", f"{tmp_path}/Skizze 1")
    assert seen(tmp_path, "all") == all_of(5) | all_of(5, 100) and seen(tmp_path / "Foto", "all") == all_of(5)
    for split in ("train", "val"):  # whichever way it is opened, the same images are held out
        apart = seen(tmp_path / "Foto", split) | seen(tmp_path / "Skizze 1", split)
        assert seen(tmp_path, split) == apart == seen(f"{tmp_path}/Foto+{tmp_path}/Skizze 1", split)
    assert seen(f"{tmp_path}/Foto:all", "val") == all_of(5)


def test_a_path_is_one_wherever_it_is_named_from(tmp_path, monkeypatch):
    fill(tmp_path / "a+b", 1)
    fill(tmp_path / "pacs" / "photo", 1)
    fill(tmp_path / "c:d", 1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("a+b", "./a+b", "~/a+b", "a+b/", "c:d"):
        assert is_folder(name) and seen(name, "all") == all_of(1), name
    assert not is_folder("pacs") and not is_folder("pacs/photo") and not is_folder("shapes:val")
    assert seen("./pacs", "all") == all_of(1)
    assert not is_folder("nowhere") and is_folder("./nowhere")


def spoil(folder: Path, how: str) -> str:
    """Make a folder that is out of order; returns the name to open."""
    if how == "absent":
        return f"{folder}/none"
    if how == "file":
        image(folder / "one.png", 1)
        return f"{folder}/one.png"
    if how == "flat":
        image(folder / "one.png", 1)
    elif how == "empty":
        folder.mkdir()
    elif how == "few":
        fill(folder, 4)
    elif how == "empty class":
        fill(folder, 5)
        (folder / "zebra").mkdir()
    elif how == "domain":
        fill(folder / "a", 5)
        fill(folder / "b", 5, CLASSES[:4])
    elif how == "strange class":
        fill(folder / "train", 2, CLASSES[:4])
        fill(folder / "val", 2)
    elif how == "colon":
        fill(folder / "a:b", 5)
        fill(folder / "c", 5)
    return str(folder)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("absent", "set/none does not exist: a set of your own is a folder with CLASS/*, train/CLASS/*"),
        ("file", "one.png is a file, not a folder"),
        ("flat", "holds no folder with images (there are images in it, which belong into folders of their classes)"),
        ("empty", "holds no folder with images: a set of your own has CLASS/*"),
        ("few", "set has too few images a class for a 'val' split: five of each make one of val"),
        ("empty class", "set/zebra holds no file named *.jpg or *.jpeg or *.png"),
        ("domain", "set/a has the class 'x y z', but "),
        ("strange class", "set/val has the class 'x y z', and "),
    ],
)
def test_what_is_out_of_order_is_said(how, said, tmp_path):
    with pytest.raises(DataError) as error:
        open_images(spoil(tmp_path / "set", how), "val", "nowhere")
    assert said in str(error.value)


def test_names_that_mean_something_else_are_refused(tmp_path):
    name = spoil(tmp_path / "set", "colon")
    with pytest.raises(DataError, match="set/a:b: a domain's name may hold neither : nor \\+; rename it"):
        domains_of(name, "")
    fill(tmp_path / "single", 2)
    with pytest.raises(DataError, match="single has no domains"):
        domains_of(str(tmp_path / "single"), "")
    with pytest.raises(DataError, match="'dev' is no split of"):
        open_images(f"{tmp_path / 'single'}:dev", "val", "")
    fill(tmp_path / "split" / "train", 2)
    with pytest.raises(MissingDataError, match="holds no folder test"):
        open_images(f"{tmp_path / 'split'}:test", "val", "")
