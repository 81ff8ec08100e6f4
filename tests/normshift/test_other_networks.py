"""Detectors, video networks and U-Nets: the lines of docs/library.md run, and networks compute what they did."""

import copy
import re
from pathlib import Path

import pytest
import torch
import torchvision
from matplotlib.figure import Figure
from torch import nn

import normshift
from lightning_modules.gates.figures import draw_gates
from normshift import antialias, convert, fold, gates, norm_layers
from tests.normshift.agreement import close

PAGE = (Path(__file__).parents[2] / "docs" / "library.md").read_text()
SECTION = re.search(r"^## Detection, video, U-Nets\n(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL)[1]
IMPORTS, *BLOCKS = re.findall(r"^```python\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL)
LINES = {re.search(r"^net = [\w.]*?(\w+)\(", block)[1]: block for block in BLOCKS}
"""By the name of the network that they begin with."""


def learned(model):
    """The network in evaluation mode, with running statistics and gates that differ from their initial values."""
    torch.manual_seed(1)
    with torch.no_grad():
        for layer in norm_layers(model).values():
            for name, value in [*layer.named_buffers(), *layer.named_parameters()]:
                if "rho" in name or "var" in name:
                    value.uniform_(0.6, 0.9)
                elif value.is_floating_point():
                    value.add_(torch.randn_like(value) / 9)
    return model.eval()


def scores(model, x):
    """What a network computes; of a detector, the scores of its anchors, before any are chosen."""
    if not hasattr(model, "rpn") and not hasattr(model, "anchor_generator"):
        return model(x)
    maps = list(model.backbone(x).values())
    found = model.rpn.head(maps) if hasattr(model, "rpn") else model.head(maps).values()
    return torch.cat([value.flatten() for one in found for value in (one if isinstance(one, list) else [one])])


@pytest.mark.parametrize("name", LINES)
def test_the_lines_of_the_page(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    known = {}
    exec(IMPORTS + LINES[name], known)
    assert all(part in SECTION for part in ("convert(", "antialias(", "fold(", "draw_gates(normshift.gates("))
    assert list(tmp_path.glob("*-gates.png")) or "draw_gates" not in LINES[name]
    model = learned(known["net"])
    x = torch.randn(2, 3, 4, 32, 32) if name == "r3d_18" else torch.randn(2, 3, 64, 64)
    folded, report = fold(model)
    with torch.no_grad():
        close(scores(folded, x), scores(model, x), 1e-3)
    assert len(report.norms) == len(norm_layers(model))


@pytest.mark.parametrize("name", ["r3d_18", "r2plus1d_18", "mc3_18"])
def test_video_networks_fold_and_say_that_they_cannot_be_blurred(name):
    model = learned(getattr(torchvision.models.video, name)(num_classes=3))
    folded, report = fold(model)
    x = torch.randn(1, 3, 4, 32, 32)
    with torch.no_grad():
        close(folded(x), model(x), 1e-3)
    assert len(report.folded) == len(norm_layers(model))
    with pytest.raises(ValueError, match="a Conv3d of stride"):
        antialias(model)
    layers = norm_layers(convert(model, "sn"))
    assert {type(layer) for layer in layers.values()} == {normshift.SwitchNorm3d}


@pytest.mark.parametrize("name", ["fasterrcnn_mobilenet_v3_large_fpn", "fcos_resnet50_fpn", "maskrcnn_resnet50_fpn"])
def test_other_detectors_detect_as_before(name):
    model = getattr(torchvision.models.detection, name)(weights=None, weights_backbone=None, min_size=64, max_size=64)
    model = learned(convert(model, "bin"))
    folded, _ = fold(convert(copy.deepcopy(model), "bn").eval())
    assert gates(model) and not gates(folded)
    for one in (model, folded):
        with torch.no_grad():
            (found,) = one([torch.rand(3, 60, 64)])
        assert found["boxes"].shape[1] == 4


class UNet(nn.Module):
    """A U-Net as one writes it by hand: two depths, a skip connection."""

    def __init__(self):
        super().__init__()
        self.down, self.pool, self.deep = self.block(3, 8), nn.MaxPool2d(2), self.block(8, 16)
        self.up, self.last, self.head = nn.ConvTranspose2d(16, 8, 2, 2), self.block(16, 8), nn.Conv2d(8, 4, 1)

    @staticmethod
    def block(before, after):
        layers = [(nn.Conv2d(c, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()) for c in (before, after)]
        return nn.Sequential(*(layer for group in layers for layer in group))

    def forward(self, x):
        skipped = self.down(x)
        return self.head(self.last(torch.cat([skipped, self.up(self.deep(self.pool(skipped)))], 1)))


def test_a_u_net_written_by_hand():
    x = torch.randn(2, 3, 32, 32)
    model = learned(antialias(UNet()))
    folded, report = fold(model)
    assert len(report.folded) == 6 and not report.staying
    close(folded(x).detach(), model(x).detach(), 1e-5)
    assert isinstance(draw_gates(gates(convert(model, "sn"))), Figure)


def test_a_network_without_gates_is_said_to_have_none():
    with pytest.raises(ValueError, match="no gates to draw: the network has none"):
        draw_gates(gates(UNet()))
