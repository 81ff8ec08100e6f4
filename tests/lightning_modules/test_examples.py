"""Examples of a network with known predictions: written, read, and for W&B."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from datamodules.classification.transforms import EvaluationImage
from datamodules.segmentation.transforms import MEAN, STD
from lightning_modules.examples import Example, caption, read_examples, save_examples, wandb_images
from lightning_modules.predictions import classification_examples


class Brightness(nn.Module):
    """Predicts class 0 for dark images and 1 for bright ones, with more confidence far from grey."""

    device = torch.device("cpu")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert not self.training
        grey = (images * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)).mean((1, 2, 3)) - 0.5
        return torch.stack([-4 * grey, 4 * grey], 1)


def domain(name: str, levels: list[int]) -> SimpleNamespace:
    """Images of one grey level each; every second has the label bright."""
    samples = [(np.full((20, 20, 3), level, np.uint8), i % 2) for i, level in enumerate(levels)]
    return SimpleNamespace(name=name, samples=samples, classes=("dark", "bright"))


def test_answers_are_what_the_network_says(tmp_path):
    data = SimpleNamespace(
        evaluation_image=EvaluationImage(16),
        evaluated=[domain("set/photo", list(range(0, 240, 20))), domain("x", [255])],
    )
    network = Brightness().train()
    found = classification_examples(network, data, count=4)
    save_examples(found, tmp_path, "arm")
    assert network.training
    read = read_examples(tmp_path, ["arm"])
    assert [(one.domain, one.index) for one in read] == [*(("set/photo", i) for i in range(4)), ("x", 0)]
    levels = np.array([0, 60, 120, 180, 255])  # every third of the twelve
    assert [one.truth for one in read] == ["dark", "bright", "dark", "bright", "dark"]
    assert [one.predictions for one in read] == [{"arm": told} for told in ["dark"] * 3 + ["bright"] * 2]
    sure = 100 / (1 + np.exp(-8 * abs(levels / 255 - 0.5)))
    assert [one.notes for one in read] == [{"arm": f"{percent:.0f} %"} for percent in sure]
    for one, level in zip(read, levels, strict=True):
        assert (cv2.imread(str(one.picture)) == level).all()
    before = (tmp_path / "arm.json").read_bytes()
    save_examples([], tmp_path, "arm")
    assert (tmp_path / "arm.json").read_bytes() == before  # of the first seed


def test_captions_say_what_was_answered_and_whether_it_is_right():
    data = SimpleNamespace(evaluation_image=EvaluationImage(16), evaluated=[domain("set/photo", [0, 20, 240])])
    found = classification_examples(Brightness(), data)
    assert [caption(one) for one in found] == [
        "set/photo 0: dark, right",
        "set/photo 1: dark, truth bright",
        "set/photo 2: bright, truth dark",
    ]
    assert [one.picture.mean() for one in found] == [0, 20, 240]


def flat(level: int) -> np.ndarray:
    return np.full((4, 6, 3), level, np.uint8)


def test_pictures_and_words_come_back_as_they_were_written(tmp_path):
    """Captioning, image generation from text, and image to image: examples of every task work."""
    found = [
        Example("street:val", 0, flat(10), flat(20), flat(30)),
        Example("clip", 0, flat(40), "a dog runs", flat(50), "note"),
        Example("clip", 1, flat(60), flat(70), "a dog"),
    ]
    save_examples(found, tmp_path, "bn")
    save_examples([one._replace(prediction=flat(99), truth=flat(0)) for one in found], tmp_path, "sn")
    read = read_examples(tmp_path, ["sn", "bn", "nowhere"])
    assert [(one.domain, one.index) for one in read] == [("street:val", 0), ("clip", 0), ("clip", 1)]
    street, dog, last = read_examples(tmp_path, ["bn", "sn"])
    for file, level in ((street.picture, 10), (street.truth, 20), (street.predictions["bn"], 30), (last.truth, 70)):
        assert (cv2.imread(str(file)) == level).all()  # a truth that is there already stays
    assert all((cv2.imread(str(one.predictions["sn"])) == 99).all() for one in (street, dog, last))
    assert dog.truth == "a dog runs" and dog.notes == {"bn": "note", "sn": "note"}
    assert last.predictions["bn"] == "a dog"


def test_colours_are_not_turned_around(tmp_path):
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 255
    save_examples([Example("a", 0, red, red, red)], tmp_path, "bn")
    (one,) = read_examples(tmp_path, ["bn"])
    assert cv2.imread(str(one.truth))[0, 0].tolist() == [0, 0, 255]  # OpenCV reads BGR


@pytest.mark.parametrize(
    "text", ["", "[1]", "{}", "null", '[{"domain": "a"}]', "[" * 3000, '[{"domain": "a", "index": "x"}]']
)
def test_an_arm_whose_file_is_damaged_has_no_examples(text, tmp_path):
    save_examples([Example("a", 0, flat(1), "x", "y")], tmp_path, "bn")
    (tmp_path / "sn.json").write_text(text)
    (one,) = read_examples(tmp_path, ["sn", "bn"])
    assert one.predictions == {"bn": "y"}


def test_a_file_outside_the_folder_is_not_read(tmp_path):
    save_examples([Example("a", 0, flat(1), "x", flat(2))], tmp_path / "run", "bn")
    table = tmp_path / "run" / "bn.json"
    table.write_text(table.read_text().replace("a-0-prediction-bn.png", "../../secret.png"))
    (one,) = read_examples(tmp_path / "run", ["bn"])
    assert one.predictions["bn"] == tmp_path / "run" / "secret.png"


def test_wandb_is_shown_pictures_side_by_side_and_words_below():
    found = [Example("a", 0, flat(1), flat(2), flat(3)), Example("b", 1, flat(1), "mug", "cup", "40 %")]
    pictures, words = wandb_images(found)
    assert pictures.image.size == (18, 4) and words.image.size == (6, 4)
    assert caption(found[0]) == "a 0: picture, truth, prediction" and caption(found[1]) == "b 1: cup, truth mug"
    mixed = Example("c", 2, flat(1), "a dog runs", flat(3))
    assert caption(mixed) == "c 2: picture, truth a dog runs, prediction"
