"""Segmentation networks by name, with an auxiliary head; RobustNet's and those of segmentation-models-pytorch."""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

import segmentation_models_pytorch as smp
import timm
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.segmentation import robustnet
from lightning_modules.segmentation.recipes import SegmentationRecipe
from lightning_modules.width import scaled_resnet

SMP = "unet, unetplusplus, manet, linknet, fpn, pspnet, deeplabv3, deeplabv3plus, pan, upernet, segformer"
"""The architectures of segmentation-models-pytorch."""

ONE_WIDTH = ("fpn", "upernet", "deeplabv3", "deeplabv3plus", "pan")
"""Those of them whose decoders have one number of channels."""

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Architecture:
    """How a kind of segmentation network is built and used.

    Attributes:
        check: raises ValueError for a backbone or output stride that is not supported.
        network: builds the network from a recipe, the number of classes and whether the encoder is pretrained; the
            network has the children `encoder`, `decoder` and `segmentation_head`.
        auxiliary: builds the auxiliary head from the channels of the encoder's second-last features and the number of
            classes.
        compared: resizes the auxiliary head's scores or the labels, so that they have the same size.
        multiple_of: sides of whole images are padded to multiples of this.
        ibn_b_positions: the argument `where` of `convert(encoder, "ibn-b")`; None: IBN-Net's positions.
    """

    check: Callable[[str, int], None]
    network: Callable[[SegmentationRecipe, int, bool], nn.Module]
    auxiliary: Callable[[int, int], nn.Module]
    compared: Callable[[Tensor, Tensor], Pair]
    multiple_of: int
    ibn_b_positions: Callable[[nn.Module], list[str] | None]


def architecture(name: str) -> Architecture:
    """RobustNet's DeepLabV3+ for "robustnet"; all other names belong to segmentation-models-pytorch."""
    return ROBUSTNET if name == "robustnet" else LIBRARY


def built(recipe: SegmentationRecipe, classes: int, pretrained: bool) -> tuple[nn.Module, nn.Module | None]:
    """The network and its auxiliary head, None if its loss weighs nothing.

    Raises:
        ValueError: an unknown architecture or backbone, an impossible combination, or weights that are not available.
    """
    backbone = recipe.backbone.removeprefix("tu-")
    if not timm.is_model(backbone):
        near = get_close_matches(backbone, timm.list_models(), n=5)
        raise ValueError(f"unknown backbone {backbone!r}: timm has {', '.join(near) or 'no name like it'}.")
    kind = architecture(recipe.arch)
    kind.check(backbone, recipe.output_stride)
    try:
        net = kind.network(recipe, classes, pretrained)
    except KeyError as error:
        raise ValueError(f"unknown architecture {recipe.arch!r}: choose from {SMP}, robustnet.") from error
    except Exception as error:
        if not pretrained:
            raise
        raise ValueError(f"timm could not get ImageNet weights of {backbone}: {str(error).splitlines()[0]}") from error
    return net, kind.auxiliary(net.encoder.out_channels[-2], classes) if recipe.auxiliary_weight else None


def _library_network(recipe: SegmentationRecipe, classes: int, pretrained: bool) -> nn.Module:
    backbone = recipe.backbone.removeprefix("tu-")
    strided = {"encoder_output_stride": recipe.output_stride} if recipe.arch.startswith("deeplab") else {}
    weights = "imagenet" if pretrained else None
    options = strided | _channels(recipe, backbone)
    return smp.create_model(recipe.arch, f"tu-{backbone}", encoder_weights=weights, classes=classes, **options)


def _channels(recipe: SegmentationRecipe, backbone: str) -> dict:
    """What a width and a decoder's channels are called in timm and in segmentation-models-pytorch."""
    options = {}
    if recipe.decoder_channels:
        name = "decoder_pyramid_channels" if recipe.arch == "fpn" else "decoder_channels"
        if recipe.arch not in ONE_WIDTH:
            raise ValueError(
                f"{recipe.arch} has no decoder of one width: decoder_channels goes with {', '.join(ONE_WIDTH)}."
            )
        options[name] = recipe.decoder_channels
    if recipe.width != 1:
        options |= scaled_resnet(backbone, recipe.width)
    return options


def _small_auxiliary_head(channels: int, classes: int) -> nn.Module:
    """PSPNet's auxiliary head, for the second-last stage: one 3x3 convolution and a classifier."""
    hidden = max(channels // 4, 32)
    return nn.Sequential(
        nn.Conv2d(channels, hidden, 3, padding=1, bias=False),
        nn.BatchNorm2d(hidden),
        nn.ReLU(inplace=True),
        nn.Dropout2d(0.1),
        nn.Conv2d(hidden, classes, 1),
    )


def _at_the_image(scores: Tensor, labels: Tensor) -> Pair:
    return F.interpolate(scores, labels.shape[-2:], mode="bilinear"), labels


def _robustnet(recipe: SegmentationRecipe, classes: int, pretrained: bool) -> nn.Module:
    if recipe.width != 1 or recipe.decoder_channels:
        raise ValueError(
            "robustnet has its published channels: width and decoder_channels go with other architectures."
        )
    return robustnet.RobustNet(recipe.backbone.removeprefix("tu-"), recipe.output_stride, classes, pretrained)


LIBRARY = Architecture(
    check=lambda backbone, output_stride: None,
    network=_library_network,
    auxiliary=_small_auxiliary_head,
    compared=_at_the_image,
    multiple_of=32,
    ibn_b_positions=lambda encoder: None,
)
ROBUSTNET = Architecture(
    check=robustnet.check,
    network=_robustnet,
    auxiliary=robustnet.auxiliary_head,
    compared=robustnet.at_the_head,
    multiple_of=1,
    ibn_b_positions=robustnet.ibn_b_positions,
)
