"""Residual networks for 32x32 images: a 3x3 convolution and three stages at full, half and quarter resolution.

Children have the names of timm's and torchvision's ResNets (conv1, layer1, ..., fc; a block's bn1, downsample, ...), so
that IBN-Net's norms and anti-aliasing find their places. ResNets and ResNeXts consist of timm's blocks.
"""

from collections import OrderedDict
from collections.abc import Callable

from timm.layers import DropPath
from timm.models.resnet import BasicBlock, Bottleneck, downsample_avg
from torch import Tensor, nn
from torch.nn import functional as F

MakeBlock = Callable[..., nn.Module]  # (in_channels, out_channels, stride, drop_path) -> block


class CIFARResidualNetwork(nn.Sequential):
    """Stem, layer1 to layer3, global average pool, dropout and classifier: images (N, 3, H, W) to logits (N, classes).

    Args:
        block: creates one residual block, with a shortcut that fits its stride and channels.
        blocks: number of residual blocks in each stage.
        stem: output channels of the first convolution.
        stages: output channels of each stage.
        classes: number of logits.
        pre_activation: no norm after the stem, but one before the pool (He et al., ECCV 2016).
        dropout: probability before the classifier.
        stochastic_depth: drop rate of the last block; it grows linearly from 0 at the first (Huang et al., ECCV 2016).
    """

    def __init__(
        self,
        block: MakeBlock,
        blocks: int,
        stem: int,
        stages: tuple[int, int, int],
        classes: int,
        *,
        pre_activation: bool = False,
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
    ):
        layers: OrderedDict[str, nn.Module] = OrderedDict(conv1=_conv3x3(3, stem))
        if not pre_activation:
            layers |= {"bn1": nn.BatchNorm2d(stem), "act1": nn.ReLU(inplace=True)}
        channels = stem
        for index, out_channels in enumerate(stages):
            stage = []
            for at in range(blocks):
                rate = stochastic_depth * (index * blocks + at) / (3 * blocks - 1)
                stride = 2 if index and not at else 1
                stage.append(block(channels, out_channels, stride, DropPath(rate) if rate else None))
                channels = out_channels
            layers[f"layer{index + 1}"] = nn.Sequential(*stage)
        if pre_activation:
            layers |= {"bn": nn.BatchNorm2d(channels), "act": nn.ReLU(inplace=True)}
        layers |= {"global_pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "drop": nn.Dropout(dropout)}
        layers["fc"] = nn.Linear(channels, classes)
        super().__init__(layers)
        he_normal(self)


def he_normal(network: nn.Module) -> None:
    """Initialise convolutions as He et al. (ICCV 2015, section 2.2, backward case), linear layers' biases with 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


def basic_block(
    in_channels: int,
    out_channels: int,
    stride: int,
    drop_path: nn.Module | None,
    *,
    squeeze_excitation: bool = False,
    averaged_shortcut: bool = False,
    projected_shortcut: bool = False,
) -> nn.Module:
    """Two 3x3 convolutions; the shortcut is the identity, padded with zero channels (He et al., CVPR 2016, option A).

    Option A, whose shortcut has no parameters, is the one of the paper's CIFAR networks (section 4.2).

    Args:
        squeeze_excitation: weight every channel by a factor computed from the means of all (Hu et al., CVPR 2018).
        averaged_shortcut: use ResNet-D's shortcut instead (He et al., CVPR 2019, fig. 2c): an average pool if the
            stride is 2, then a 1x1 convolution with norm.
        projected_shortcut: use option B instead: a strided 1x1 convolution with norm.
    """
    reshapes = stride > 1 or in_channels != out_channels
    shortcut = None
    if reshapes and averaged_shortcut:
        shortcut = downsample_avg(in_channels, out_channels, 1, stride)
    elif reshapes and projected_shortcut:
        shortcut = _projection(in_channels, out_channels, stride)
    elif reshapes:
        # a 1x1 pool keeps every second pixel; anti-aliasing can replace a pool, but not an index
        parts = OrderedDict(pool=nn.AvgPool2d(1, stride), pad=ZeroChannels(out_channels - in_channels))
        shortcut = nn.Sequential(parts)
    attention = "se" if squeeze_excitation else None
    return BasicBlock(in_channels, out_channels, stride, shortcut, attn_layer=attention, drop_path=drop_path)


def bottleneck(
    in_channels: int,
    out_channels: int,
    stride: int,
    drop_path: nn.Module | None,
    *,
    groups: int = 1,
    group_channels: int = 64,
) -> nn.Module:
    """1x1, 3x3 and 1x1 convolutions, as in ResNet (9n+2 layers) and, with groups, ResNeXt (Xie et al., CVPR 2017).

    If the shape changes, the shortcut is a projection (option B). The inner convolution has
    out_channels / 4 * groups * group_channels / 64 channels.
    """
    shortcut = None
    if stride > 1 or in_channels != out_channels:
        shortcut = _projection(in_channels, out_channels, stride)
    width = {"cardinality": groups, "base_width": group_channels}
    return Bottleneck(in_channels, out_channels // Bottleneck.expansion, stride, shortcut, drop_path=drop_path, **width)


def _projection(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
    return nn.Sequential(projection, nn.BatchNorm2d(out_channels))


class ZeroChannels(nn.Module):
    """Appends channels of zeros: (N, C, H, W) -> (N, C + extra, H, W)."""

    def __init__(self, extra: int):
        super().__init__()
        self.extra = extra

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, 0, 0, 0, 0, self.extra))

    def extra_repr(self) -> str:
        return str(self.extra)


class _PreActivation(nn.Module):
    """A residual block whose branch and shortcut see the activated input; nothing follows their sum."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.act1(self.bn1(x))
        shortcut = x if self.downsample is None else self.downsample(y)
        y = self.branch(y)
        if self.drop_path is not None:
            y = self.drop_path(y)
        return y + shortcut


class PreActivationBlock(_PreActivation):
    """Norm, ReLU and 3x3 convolution, twice (He et al., ECCV 2016, fig. 1b; Zagoruyko, Komodakis, BMVC 2016).

    Nothing follows the addition. If the shape changes, the shortcut is a 1x1 convolution of the activated input.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, drop_path: nn.Module | None):
        super().__init__()
        self.bn1, self.act1 = nn.BatchNorm2d(in_channels), nn.ReLU(inplace=True)
        self.conv1 = _conv3x3(in_channels, out_channels, stride)
        self.bn2, self.act2 = nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)
        self.conv2 = _conv3x3(out_channels, out_channels)
        self.drop_path = drop_path
        self.downsample = _pre_activation_shortcut(in_channels, out_channels, stride)

    def branch(self, y: Tensor) -> Tensor:
        return self.conv2(self.act2(self.bn2(self.conv1(y))))


class PreActivationBottleneck(_PreActivation):
    """1x1, 3x3 and 1x1 convolutions, each after norm and ReLU (He et al., ECCV 2016, section 4: ResNet-164, -1001)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, drop_path: nn.Module | None):
        super().__init__()
        width = out_channels // 4
        self.bn1, self.act1 = nn.BatchNorm2d(in_channels), nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn2, self.act2 = nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        self.conv2 = _conv3x3(width, width, stride)
        self.bn3, self.act3 = nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.drop_path = drop_path
        self.downsample = _pre_activation_shortcut(in_channels, out_channels, stride)

    def branch(self, y: Tensor) -> Tensor:
        y = self.conv2(self.act2(self.bn2(self.conv1(y))))
        return self.conv3(self.act3(self.bn3(y)))


def _pre_activation_shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)


def _conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
