"""ResNets for ImageNet with norm and ReLU before each convolution (He et al., ECCV 2016).

They are "ResNet v2" of Switchable Normalization's model zoo (Luo et al., ICLR 2019). Neither torchvision nor timm has
them: timm's `resnetv2_50` has no norm and ReLU between the stem's convolution and pool. Modules have the names of
torchvision's ResNets.
"""

from collections import OrderedDict
from itertools import pairwise

from timm.layers import DropPath
from torch import nn

from lightning_modules.classification.cifar_residual import PreActivationBlock, PreActivationBottleneck, he_normal

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Depth -> blocks of each stage (He et al., CVPR 2016, table 1); basic blocks up to 34, then bottlenecks."""

PREACTIVATION_RESNETS = tuple(f"preresnet{depth}" for depth in BLOCKS)


def preactivation_resnet(
    name: str,
    classes: int,
    *,
    width: float = 1.0,
    dropout: float = 0.0,
    stochastic_depth: float = 0.0,
    layers: tuple[int, ...] | None = None,
) -> nn.Module:
    """A network of `PREACTIVATION_RESNETS`: images (N, 3, H, W) to logits (N, classes), He-normal initialised.

    The layers are: 7x7 convolution of stride 2, norm, ReLU, 3x3 max pool of stride 2; four stages, of which all but the
    first start with a 3x3 convolution of stride 2; norm, ReLU, global average pool, dropout, classifier. If the shape
    changes, the shortcut is a 1x1 convolution, without norm, of the activated input.

    Args:
        width: factor on all channels.
        dropout: probability before the classifier; Switchable Normalization trains with 0.5.
        stochastic_depth: drop rate of the last block; it grows linearly from 0 at the first.
        layers: blocks of each stage; by default those of the depth.
    """
    depth = int(name.removeprefix("preresnet"))
    block, expansion = (PreActivationBottleneck, 4) if depth >= 50 else (PreActivationBlock, 1)
    layers = tuple(layers or BLOCKS[depth])
    channels = [max(1, round(width * c)) for c in (64, 64, 128, 256, 512)]
    widths = [channels[0], *(expansion * c for c in channels[1:])]
    rates = iter([stochastic_depth * at / max(sum(layers) - 1, 1) for at in range(sum(layers))])

    network = OrderedDict(
        conv1=nn.Conv2d(3, widths[0], 7, 2, padding=3, bias=False),
        bn1=nn.BatchNorm2d(widths[0]),
        act1=nn.ReLU(inplace=True),
        maxpool=nn.MaxPool2d(3, 2, padding=1),
    )
    for stage, ((before, out), blocks) in enumerate(zip(pairwise(widths), layers, strict=True), 1):
        shapes = [(before, out, 1 if stage == 1 else 2), *[(out, out, 1)] * (blocks - 1)]
        drops = (DropPath(rate) if rate else None for rate in rates)
        network[f"layer{stage}"] = nn.Sequential(*(block(*shape, next(drops)) for shape in shapes))
    network |= {"bn_out": nn.BatchNorm2d(widths[-1]), "act_out": nn.ReLU(inplace=True)}
    network |= {"global_pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "drop": nn.Dropout(dropout)}
    model = nn.Sequential(network | {"fc": nn.Linear(widths[-1], classes)})
    he_normal(model)
    return model
