"""What is left of a network's answers, held against a network whose answers are known."""

from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import torch
from torch import nn

from datamodules.image_transforms import JudgedImage
from datamodules.transforms import MEAN, STD
from lightning_modules.predictions import answers, captioned, save_answers


class Brightness(nn.Module):
    """Calls dark images class 0 and bright ones class 1, surer the further they are from grey."""

    device = torch.device("cpu")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert not self.training
        grey = (images * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)).mean((1, 2, 3)) - 0.5
        return torch.stack([-4 * grey, 4 * grey], 1)


def domain(name: str, levels: list[int]) -> SimpleNamespace:
    """Images of one grey level each, of which every second is called bright."""
    samples = [(np.full((20, 20, 3), level, np.uint8), i % 2) for i, level in enumerate(levels)]
    return SimpleNamespace(name=name, samples=samples, classes=("dark", "bright"))


def test_answers_are_what_the_network_says(tmp_path):
    data = SimpleNamespace(
        judged_image=JudgedImage(16), judged=[domain("set/photo", list(range(0, 240, 20))), domain("x", [255])]
    )
    network = Brightness().train()
    found = answers(network, data, count=4)
    save_answers(found, tmp_path, "arm")
    assert network.training
    rows = pd.read_csv(tmp_path / "arm.csv")
    assert list(rows["domain"]) == ["set-photo"] * 4 + ["x"] and list(rows["image"]) == [0, 1, 2, 3, 0]
    levels = np.array([0, 60, 120, 180, 255])  # every third of the twelve
    assert list(rows["truth"]) == ["dark", "bright", "dark", "bright", "dark"]
    assert list(rows["answer"]) == ["dark", "dark", "dark", "bright", "bright"]
    np.testing.assert_allclose(rows["probability"], 1 / (1 + np.exp(-8 * abs(levels / 255 - 0.5))), atol=2e-4)
    for i, level in enumerate(levels[:4]):
        assert (cv2.imread(str(tmp_path / f"set-photo-{i}-image.png")) == level).all()
    before = (tmp_path / "arm.csv").read_bytes()
    save_answers([], tmp_path, "arm")
    assert (tmp_path / "arm.csv").read_bytes() == before  # of the first seed


def test_captions_say_what_was_answered_and_whether_it_is_right():
    data = SimpleNamespace(judged_image=JudgedImage(16), judged=[domain("set/photo", [0, 20, 240])])
    pictures, captions = zip(*captioned(answers(Brightness(), data)), strict=True)
    assert captions == (
        "set/photo 0: dark, rightly",
        "set/photo 1: dark, truth bright",
        "set/photo 2: bright, truth dark",
    )
    assert [picture.mean() for picture in pictures] == [0, 20, 240]
