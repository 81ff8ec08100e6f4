"""What the names of norms stand for."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from normshift import NORMS, convert
from normshift.layers import group_count

COUNTS = {4: 2, 6: 2, 8: 2, 9: 3, 16: 4, 24: 6, 32: 8, 36: 9, 48: 12, 64: 32, 72: 24, 96: 32, 112: 28, 134: 2, 2048: 32}


def test_groups_are_32_or_of_four_channels():
    assert {channels: group_count(channels) for channels in COUNTS} == COUNTS


def test_a_group_norm_is_neither_instance_nor_layer_norm():
    for channels in range(4, 600):
        if all(channels % d for d in range(2, channels)):
            with pytest.raises(ValueError, match=f"2 groups or more of 2 channels or more, got {channels}"):
                group_count(channels)
            continue
        groups = NORMS["gn"](channels).num_groups
        assert channels % groups == 0 and 2 <= groups <= channels / 2
    for channels in (1, 2, 3):
        with pytest.raises(ValueError, match=f"got {channels}: take ln"):
            NORMS["gn"](channels)


@pytest.mark.parametrize(
    "make",
    [
        torchvision.models.resnet18,
        torchvision.models.densenet121,
        torchvision.models.mobilenet_v3_small,
        torchvision.models.efficientnet_b0,
        lambda: timm.create_model("resnet10t"),
    ],
    ids=["resnet", "densenet", "mobilenet-v3", "efficientnet", "resnet10t"],
)
def test_converted_networks_have_group_norms(make):
    with torch.device("meta"):
        norms = [m for m in convert(make(), "gn").modules() if isinstance(m, nn.GroupNorm)]
    assert norms and all(2 <= norm.num_groups <= norm.num_channels / 2 for norm in norms)
