"""Networks for 32x32 images by name: those of Batch-Instance Normalization's tables (Nam, Kim, NeurIPS 2018).

All map images (N, 3, H, W) with sides of at least 16 pixels to logits (N, classes). Their norms are `nn.BatchNorm2d`,
which `normshift.convert` can replace. Convolutions before a norm have no bias.
"""

import re
from collections import OrderedDict
from collections.abc import Callable
from difflib import get_close_matches
from functools import partial

from torch import nn
from torchvision.models import DenseNet
from torchvision.models.vgg import cfgs as VGG_CHANNELS

from lightning_modules.classification.cifar_residual import (
    CIFARResidualNetwork,
    PreActivationBlock,
    PreActivationBottleneck,
    basic_block,
    bottleneck,
    he_normal,
)

CIFAR_NETWORKS = (
    "cifar_resnet20", "cifar_resnet32", "cifar_resnet44", "cifar_resnet56", "cifar_resnet110", "cifar_resnet164",
    "cifar_bin_resnet8", "cifar_bin_resnet14", "cifar_bin_resnet20", "cifar_bin_resnet32", "cifar_bin_resnet44",
    "cifar_bin_resnet50", "cifar_bin_resnet56", "cifar_bin_resnet56_basic", "cifar_bin_resnet110",
    "cifar_bin_resnet110_basic",
    "cifar_preresnet110", "cifar_preresnet164", "cifar_preresnet1001", "cifar_wrn16_8", "cifar_wrn28_10",
    "cifar_wrn40_4", "cifar_resnext29_8x64", "cifar_resnext29_16x64", "cifar_densenet_bc100_12",
    "cifar_densenet_bc190_40", "cifar_vgg11", "cifar_vgg13", "cifar_vgg16", "cifar_vgg19", "cifar_alexnet",
)  # fmt: skip
"""The published networks; all other depths and widths that match `CIFAR_NAMES` can be built too."""


def cifar_network(
    name: str,
    classes: int,
    *,
    width: float = 1.0,
    dropout: float = 0.0,
    stochastic_depth: float = 0.0,
    squeeze_excitation: bool = False,
    averaged_shortcut: bool = False,
) -> nn.Module:
    """A network of `CIFAR_NAMES`, He-normal initialised.

    Args:
        name: "cifar_resnet20", "cifar_preresnet110", "cifar_wrn28_10" (depth, widening), "cifar_resnext29_8x64" (depth,
            groups, channels of a group), "cifar_densenet_bc100_12" (depth, growth), "cifar_vgg19", "cifar_alexnet".
            ResNets and PreResNets with 6n+2 layers have basic blocks, those with 9n+2 layers have bottlenecks. If a
            depth fits both, it has basic blocks up to 110 and bottlenecks beyond, as the published 164; the suffix
            "_basic" or "_bottleneck" overrides this. "cifar_bin_resnet110" is the network that Batch-Instance
            Normalization's code builds for a depth: see `_bin_resnet`.
        classes: number of logits.
        width: factor on all channels.
        dropout: probability before the classifier.
        stochastic_depth: drop rate of the last residual block; it grows linearly from 0 at the first.
        squeeze_excitation, averaged_shortcut: see `basic_block`; for ResNets with basic blocks.

    Raises:
        ValueError: an unknown name, an impossible depth, or an option that the network does not support.
    """
    if width <= 0:
        raise ValueError(f"width is a positive factor on all channels, not {width}.")
    for pattern, build in CIFAR_NAMES.items():
        if match := re.fullmatch(pattern, name):
            residual = build in RESIDUAL
            if stochastic_depth and not residual:
                raise ValueError(f"{name} has no residual blocks, so stochastic_depth={stochastic_depth} cannot be.")
            head = {"dropout": dropout} | ({"stochastic_depth": stochastic_depth} if residual else {})
            options = {"squeeze_excitation": squeeze_excitation, "averaged_shortcut": averaged_shortcut}
            added = {option: True for option, asked in options.items() if asked}
            if added and build is not _resnet:
                raise ValueError(f"{name} does not take {' or '.join(added)}: cifar_resnetDEPTH does.")
            parts = (int(part) if part and part.isdigit() else part for part in match.groups())
            return build(*parts, classes=classes, width=width, **head, **added)
    near = get_close_matches(name, CIFAR_NETWORKS, n=5) or CIFAR_NETWORKS[::3]
    raise ValueError(f"unknown CIFAR network {name!r}: names are like {', '.join(near)}.")


def _resnet(
    depth: int, kind: str | None, classes: int, width: float, dropout: float, stochastic_depth: float, **added: bool
) -> nn.Module:
    blocks, kind = _blocks_of("cifar_resnet", depth, kind)
    stem, *stages = _scaled(width, 16, 16, 32, 64)
    head = {"dropout": dropout, "stochastic_depth": stochastic_depth}
    if kind == "basic":
        block = partial(basic_block, **added)
        return CIFARResidualNetwork(block, blocks, stem, tuple(stages), classes, **head)
    if added:
        raise ValueError(f"cifar_resnet{depth} has bottlenecks, which do not take {' or '.join(added)}.")
    return CIFARResidualNetwork(bottleneck, blocks, stem, tuple(4 * c for c in stages), classes, **head)


def _bin_resnet(depth: int, kind: str | None, classes: int, width: float, **head: float) -> nn.Module:
    """The network that Batch-Instance Normalization's published code builds for `--depth` 6n+2: n blocks in each stage.

    From depth 44 the blocks are bottlenecks, so the network has 9n+2 layers (164 for 110); the suffix "_basic" is the
    code's `--basicblock`. All shortcuts that change the shape are projections (option B; He et al., CVPR 2016).
    """
    blocks = _stage_blocks("cifar_bin_resnet", depth, 6, 2)
    stem, *stages = _scaled(width, 16, 16, 32, 64)
    if (kind or ("basic" if depth < 44 else "bottleneck")) == "basic":
        block = partial(basic_block, projected_shortcut=True)
        return CIFARResidualNetwork(block, blocks, stem, tuple(stages), classes, **head)
    return CIFARResidualNetwork(bottleneck, blocks, stem, tuple(4 * c for c in stages), classes, **head)


def _preresnet(depth: int, kind: str | None, classes: int, width: float, **head: float) -> nn.Module:
    blocks, kind = _blocks_of("cifar_preresnet", depth, kind)
    stem, *stages = _scaled(width, 16, 16, 32, 64)
    block, expansion = (PreActivationBlock, 1) if kind == "basic" else (PreActivationBottleneck, 4)
    out = tuple(expansion * c for c in stages)
    return CIFARResidualNetwork(block, blocks, stem, out, classes, pre_activation=True, **head)


def _wide_resnet(depth: int, widening: int, classes: int, width: float, **head: float) -> nn.Module:
    """Zagoruyko, Komodakis, BMVC 2016, table 1."""
    blocks = _stage_blocks("cifar_wrn", depth, 6, 4)
    stem, *stages = _scaled(width, 16, 16 * widening, 32 * widening, 64 * widening)
    return CIFARResidualNetwork(PreActivationBlock, blocks, stem, tuple(stages), classes, pre_activation=True, **head)


def _resnext(depth: int, groups: int, channels: int, classes: int, width: float, **head: float) -> nn.Module:
    """Xie et al., CVPR 2017, section 5.2."""
    blocks = _stage_blocks("cifar_resnext", depth, 9, 2)
    stem, *planes = _scaled(width, 64, 64, 128, 256)
    block = partial(bottleneck, groups=groups, group_channels=channels)
    return CIFARResidualNetwork(block, blocks, stem, tuple(4 * c for c in planes), classes, **head)


def _densenet_bc(depth: int, growth: int, classes: int, width: float, dropout: float) -> nn.Module:
    """torchvision's DenseNet with three blocks and a 3x3 convolution as stem (Huang et al., CVPR 2017, section 3)."""
    layers = _stage_blocks("cifar_densenet_bc", depth, 6, 4)
    (growth,) = _scaled(width, growth)
    network = DenseNet(growth, (layers,) * 3, num_init_features=2 * growth, num_classes=classes)
    stem = ("conv0", "norm0", "relu0", "pool0")
    kept = {name: child for name, child in network.features.named_children() if name not in stem}
    conv = nn.Conv2d(3, 2 * growth, 3, padding=1, bias=False)
    network.features = nn.Sequential(OrderedDict(conv0=conv, **kept))
    network.classifier = nn.Sequential(OrderedDict(drop=nn.Dropout(dropout), fc=network.classifier))
    he_normal(network)
    return network


def _vgg(depth: int, classes: int, width: float, dropout: float) -> nn.Module:
    """VGG (Simonyan, Zisserman, ICLR 2015, table 1) with a norm after every convolution, and one linear layer."""
    table = VGG_CHANNELS[{11: "A", 13: "B", 16: "D", 19: "E"}[depth]]
    layers = [v if v == "M" else (v, 3, 1, 1) for v in table]
    return PlainNetwork(layers, classes, width, dropout)


def _alexnet(classes: int, width: float, dropout: float) -> nn.Module:
    """AlexNet's five convolutions (Krizhevsky et al., NeurIPS 2012) for CIFAR's image size, and one linear layer.

    Filters and strides are those commonly used on CIFAR (11x11, stride 4, padding 5). AlexNet has no norms; here one
    follows each convolution, so that norms can be compared.
    """
    layers = [(64, 11, 4, 5), "M", (192, 5, 1, 2), "M", (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1), "M"]
    return PlainNetwork(layers, classes, width, dropout)


class PlainNetwork(nn.Sequential):
    """A sequence of convolutions with norm and ReLU and of 2x2 max pools; then global max pool, dropout, classifier.

    Args:
        layers: (channels, kernel size, stride, padding) of each convolution, "M" for a max pool. The last "M" becomes
            the global pool, which is the same for a 32x32 image and works for any size.
        classes: number of logits.
        width: factor on the channels.
        dropout: probability before the classifier.
    """

    def __init__(self, layers: list, classes: int, width: float, dropout: float):
        features, channels = [], 3
        for layer in layers[:-1]:
            if layer == "M":
                features.append(nn.MaxPool2d(2))
                continue
            before, (channels,) = channels, _scaled(width, layer[0])
            conv = nn.Conv2d(before, channels, layer[1], layer[2], layer[3], bias=False)
            features += [conv, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
        super().__init__(
            OrderedDict(
                features=nn.Sequential(*features),
                global_pool=nn.AdaptiveMaxPool2d(1),
                flatten=nn.Flatten(),
                drop=nn.Dropout(dropout),
                fc=nn.Linear(channels, classes),
            )
        )
        he_normal(self)


CIFAR_NAMES: dict[str, Callable[..., nn.Module]] = {
    r"cifar_resnet(\d+)(?:_(basic|bottleneck))?": _resnet,
    r"cifar_bin_resnet(\d+)(?:_(basic|bottleneck))?": _bin_resnet,
    r"cifar_preresnet(\d+)(?:_(basic|bottleneck))?": _preresnet,
    r"cifar_wrn(\d+)_(\d+)": _wide_resnet,
    r"cifar_resnext(\d+)_(\d+)x(\d+)": _resnext,
    r"cifar_densenet_bc(\d+)_(\d+)": _densenet_bc,
    r"cifar_vgg(11|13|16|19)": _vgg,
    r"cifar_alexnet": _alexnet,
}
"""Pattern of names -> the function that builds a network from the groups of the pattern."""

RESIDUAL = (_resnet, _bin_resnet, _preresnet, _wide_resnet, _resnext)


def _scaled(width: float, *channels: int) -> list[int]:
    return [max(1, round(width * c)) for c in channels]


def _blocks_of(name: str, depth: int, kind: str | None) -> tuple[int, str]:
    """The number of blocks in a stage, and their kind: "basic" (6n+2 layers) or "bottleneck" (9n+2)."""
    basic, bottle = depth > 2 and depth % 6 == 2, depth > 2 and depth % 9 == 2
    if kind is None and (basic or bottle):
        kind = "basic" if basic and (depth <= 110 or not bottle) else "bottleneck"
    if not {"basic": basic, "bottleneck": bottle}.get(kind):
        wanted = {"basic": "6n+2", "bottleneck": "9n+2"}.get(kind, "6n+2 (basic blocks) or 9n+2 (bottlenecks)")
        raise ValueError(
            f"{name}{depth}{f'_{kind}' if kind else ''} cannot be: it takes {wanted} layers, n at least 1."
        )
    return depth // (6 if kind == "basic" else 9), kind


def _stage_blocks(name: str, depth: int, per_block: int, rest: int) -> int:
    blocks, remainder = divmod(depth - rest, per_block)
    if remainder or blocks < 1:
        raise ValueError(f"{name}{depth} cannot be: it takes {per_block}n+{rest} layers, n at least 1.")
    return blocks
