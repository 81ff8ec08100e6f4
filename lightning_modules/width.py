"""Networks of timm at a fraction of their channels."""

from typing import Any

import timm
import torch
from timm.models import ResNet
from torch import nn


def scaled_resnet(name: str, width: float) -> dict[str, Any]:
    """The options that scale the width of a ResNet of timm: channels of its stages and of a deep stem."""
    with torch.device("meta"):
        plain = timm.create_model(name)
    if not isinstance(plain, ResNet):
        raise ValueError(f"{name} cannot be built at width {width}: timm's ResNets, MobileNets and CIFAR networks can.")
    channels = [stage["num_chs"] // plain.layer1[0].expansion for stage in plain.feature_info[1:]]
    scaled = {"channels": tuple(max(1, round(width * c)) for c in channels)}
    if isinstance(plain.conv1, nn.Sequential):
        scaled["stem_width"] = max(1, round(width * plain.conv1[-1].in_channels))
    return scaled
