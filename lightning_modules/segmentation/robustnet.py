"""RobustNet's DeepLabV3+ (Choi et al., CVPR 2021): dilated ResNet, ASPP of plain convolutions, wide auxiliary head.

segmentation-models-pytorch's DeepLabV3+ is a different network: its ASPP has depthwise convolutions with other rates,
and a fifth of the parameters after the encoder. See `docs/robustnet.md`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from segmentation_models_pytorch.encoders import get_encoder
from timm.models import is_model_in_modules
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import Conv2dNormActivation

from normshift import load_official, norm_layers
from normshift.layers import InstanceNorm

DILATIONS = {32: {}, 16: {"layer4": 2}, 8: {"layer3": 2, "layer4": 4}}
"""Output stride -> dilation of all 3x3 convolutions of a stage. (In timm and torchvision, the first block of the stage
has the dilation of the stage before.)"""

RATES = {32: (3, 6, 9), 16: (6, 12, 18), 8: (12, 24, 36)}
"""Output stride -> dilations of the ASPP's three 3x3 convolutions."""

WIDTH, LOW_WIDTH, AUXILIARY_WIDTH = 256, 48, 512


def check(backbone: str, output_stride: int) -> None:
    """Raise a ValueError for a backbone or output stride that `RobustNet` does not support."""
    if not is_model_in_modules(backbone, {"resnet"}):
        raise ValueError(f"robustnet stands on ResNets, such as resnet50.tv_in1k; {backbone} is none.")
    if output_stride not in RATES:
        raise ValueError(f"robustnet has an output stride of 8, 16 or 32, not {output_stride}.")


class RobustNet(nn.Module):
    """Maps images (N, 3, H, W) of any size, without padding, to class scores (N, classes, H, W).

    Its children have the names of segmentation-models-pytorch's networks: `encoder`, which returns the image and
    features at strides 2, 4, 8, ...; `decoder`, which computes scores of the image's size; and `segmentation_head`,
    which is the identity.

    Args:
        backbone: timm's name of a ResNet, with stages layer1 to layer4 and a stem of one or three convolutions.
        output_stride: 32, 16 or 8.
        classes: number of classes.
        pretrained: use timm's weights, which the tag of `backbone` names (resnet50.tv_in1k).
    """

    def __init__(self, backbone: str, output_stride: int, classes: int, pretrained: bool = False):
        super().__init__()
        self.encoder = _encoder(backbone, output_stride, pretrained)
        self.decoder = Decoder(self.encoder.out_channels, RATES[output_stride], classes)
        self.segmentation_head = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        return self.decoder(self.encoder(images))


class Decoder(nn.Module):
    """Computes scores of the image's size from an encoder's features; children are named as in RobustNet's files."""

    def __init__(self, channels: list[int], rates: tuple[int, ...], classes: int):
        super().__init__()
        low, deep = channels[2], channels[-1]
        self.aspp = AtrousPyramid(deep, rates)
        self.bot_aspp = _conv(WIDTH * (2 + len(rates)), WIDTH, 1)
        self.bot_fine = _conv(low, LOW_WIDTH, 1)
        self.final1 = nn.Sequential(*_conv(LOW_WIDTH + WIDTH, WIDTH, 3), *_conv(WIDTH, WIDTH, 3))
        self.final2 = nn.Sequential(nn.Conv2d(WIDTH, classes, 1))
        initialise(self)

    def forward(self, features: list[Tensor]) -> Tensor:
        image, low = features[0], features[2]
        deep = _sized_as(self.bot_aspp(self.aspp(features[-1])), low)
        return _sized_as(self.final2(self.final1(torch.cat([self.bot_fine(low), deep], 1))), image)


class AtrousPyramid(nn.Module):
    """ASPP: a 1x1 convolution, three dilated 3x3 ones and image pooling, concatenated to (N, 5 x 256, h, w)."""

    def __init__(self, channels: int, rates: tuple[int, ...]):
        super().__init__()
        self.img_pooling = nn.AdaptiveAvgPool2d(1)
        self.img_conv = _conv(channels, WIDTH, 1)
        dilated = [_conv(channels, WIDTH, 3, rate) for rate in rates]
        self.features = nn.ModuleList([_conv(channels, WIDTH, 1), *dilated])

    def forward(self, x: Tensor) -> Tensor:
        image = _sized_as(self.img_conv(self.img_pooling(x)), x)
        return torch.cat([image, *(branch(x) for branch in self.features)], 1)


def auxiliary_head(channels: int, classes: int) -> nn.Module:
    """The head on layer3: one 3x3 convolution with a bias, and a classifier."""
    return initialise(
        nn.Sequential(
            *_conv(channels, AUXILIARY_WIDTH, 3, bias=True),
            nn.Dropout2d(0.1),
            nn.Conv2d(AUXILIARY_WIDTH, classes, 1),
        )
    )


def at_the_head(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The auxiliary head's scores (N, classes, h, w), and labels (N, H, W) resized to int64 (N, h, w).

    At stride s, cell i is centred on pixel s * i, because every strided convolution is padded by half of its kernel.
    torch's "nearest" reads this pixel; "nearest-exact" would read one that is half a stride away.
    """
    return scores, F.interpolate(labels[:, None].float(), scores.shape[-2:], mode="nearest")[:, 0].long()


def initialise(head: nn.Module) -> nn.Module:
    """Initialise convolutions with He's normal distribution (fan in, ReLU) and zero biases; norms are unchanged."""
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return head


def ibn_b_positions(encoder: nn.Module) -> list[str]:
    """The positions of RobustNet's IBN, for `convert(encoder, "ibn-b", where=...)`.

    Instance norms replace the stem's norm (the first two of three), and follow the residual addition of the last block
    of layer1 and of layer2 (`wt_layer` 0 0 4 4 4 0 0 and 4 4 0 4 4 0 0 in its code).
    """
    names = [name for name, module in encoder.named_modules() if name.split(".")[-1] in ("layer1", "layer2")]
    stem = [name for name in norm_layers(encoder) if "layer" not in name]
    return [*(stem[:-1] or stem), *(f"{name}.{len(encoder.get_submodule(name)) - 1}" for name in names)]


def _encoder(backbone: str, output_stride: int, pretrained: bool) -> nn.Module:
    encoder = get_encoder(
        f"tu-{backbone}",
        weights=True if pretrained else None,
        output_stride=output_stride,
        zero_init_last=False,  # every block's last norm starts at 1, as in torchvision and RobustNet
    )
    for stage, dilation in DILATIONS[output_stride].items():
        for module in encoder.model[stage].modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                module.dilation = module.padding = (dilation, dilation)
    return encoder


def _conv(inputs: int, outputs: int, kernel: int, dilation: int = 1, bias: bool = False) -> nn.Sequential:
    return Conv2dNormActivation(inputs, outputs, kernel, dilation=dilation, bias=bias)  # batch norm, ReLU


def _sized_as(x: Tensor, other: Tensor) -> Tensor:
    return F.interpolate(x, other.shape[-2:], mode="bilinear", align_corners=True)


# ------------------------------------------------------------------------------------------------- released checkpoints

STEMS = (
    {"conv1": "conv1.0", "bn1": "conv1.1", "conv2": "conv1.3", "bn2": "conv1.4", "conv3": "conv1.6", "bn3": "bn1"},
    {"layer0.0": "conv1", "layer0.1": "bn1"},
    {"layer0.0": "conv1.0", "layer0.1": "conv1.1", "layer0.3": "conv1.3", "layer0.4": "conv1.4", "layer0.6": "conv1.6",
     "layer0.7": "bn1"},
)  # fmt: skip
"""Names of the stem's modules -> names in timm, for three kinds of files: MIT CSAIL's resnet101-imagenet.pth, from
which RobustNet's ResNet-101 starts, and RobustNet's own ResNet-50 and ResNet-101."""


def is_released(state: Mapping[str, Tensor]) -> bool:
    """Whether a checkpoint has the key names of a whole network released by RobustNet."""
    return {"layer0.0.weight", "final2.0.weight"} <= {*state}


def load_released(net: RobustNet, auxiliary: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a network that RobustNet released: encoder, decoder and auxiliary head.

    RobustNet's IBN loads into networks with the norm "ibn-b". So do the networks that use whitening at the same
    positions: they have instance norms without weight and bias there.

    Raises:
        ValueError: the file does not fit the network.
    """
    parts = {"encoder": {}, "decoder": {}, "head": {}}
    for key, value in _renamed(state, STEMS[2] if "layer0.7.weight" in state else STEMS[1]):
        part = key.partition(".")[0]
        kind = "head" if part == "dsn" else "decoder" if hasattr(net.decoder, part) else "encoder"
        parts[kind][key.removeprefix("dsn.").replace(".instance_norm_layer.", ".IN.")] = value
    for name, layer in norm_layers(net.encoder.model).items():
        if isinstance(layer, InstanceNorm) and (name.endswith(".IN") or "layer" not in name):
            parts["encoder"].setdefault(f"{name}.weight", torch.ones(layer.num_features))
            parts["encoder"].setdefault(f"{name}.bias", torch.zeros(layer.num_features))
    load_official(net.encoder.model, parts["encoder"])
    load_official(net.decoder, parts["decoder"])
    load_official(auxiliary, parts["head"])


def with_timms_stem(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A classifier's tensors; if its stem has three convolutions, with timm's names for them."""
    return dict(_renamed(state, STEMS[0])) if "conv3.weight" in state else dict(state)


def _renamed(state: Mapping[str, Tensor], names: Mapping[str, str]) -> list[tuple[str, Tensor]]:
    renamed = []
    for key, value in state.items():
        owner, _, leaf = key.rpartition(".")
        renamed.append((f"{names.get(owner, owner)}.{leaf}", value))
    return renamed
