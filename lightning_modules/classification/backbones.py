"""Classification networks by name, with any norm, anti-aliased or not: timm's, torchvision's and those for CIFAR."""

import re
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import timm
import torch
import torchvision
from timm.layers import DropPath
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

import normshift
from datamodules.registered import note
from lightning_modules.classification.cifar_networks import CIFAR_NETWORKS, cifar_network
from lightning_modules.classification.preactivation_resnets import PREACTIVATION_RESNETS, preactivation_resnet
from lightning_modules.width import scaled_resnet

RESNET_RS_BLOCKS = {
    26: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3),
    270: (4, 29, 53, 4), 300: (4, 36, 54, 4), 350: (4, 36, 72, 4), 400: (6, 48, 72, 6), 420: (4, 44, 87, 4),
}  # fmt: skip
"""Depth -> blocks of each stage (Bello et al., NeurIPS 2021, appendix, block allocations of the architectures).

timm has the depths of the paper's final family; 26, 300 and 400 occur only in the paper's scaling grid.
"""

TORCHVISION = tuple(torchvision.models.list_models(module=torchvision.models))
_LOGITS_ALONE = {"aux_logits": False, "init_weights": True}
TORCHVISION_OPTIONS = {"googlenet": _LOGITS_ALONE, "inception_v3": _LOGITS_ALONE}

_TINY_RESNET = {"layers": (1, 1, 1, 1), "channels": (8, 16, 24, 32)}
BACKBONE_FAMILIES: dict[str, dict[str, Any]] = {
    "alexnet": {"name": "alexnet"},
    "vgg": {"name": "vgg11", "mlp_ratio": 1 / 64},
    "vgg-bn": {"name": "vgg11_bn", "mlp_ratio": 1 / 64},
    "resnet": {"name": "resnet18", **_TINY_RESNET},
    "resnext": {"name": "resnext50_32x4d", "cardinality": 4, "base_width": 16, **_TINY_RESNET},
    "wide-resnet": {"name": "wide_resnet50_2", **_TINY_RESNET},
    "resnet-d": {"name": "resnet18d", "stem_width": 8, **_TINY_RESNET},
    "resnet-rs": {"name": "resnetrs50", "stem_width": 8, **_TINY_RESNET},
    "se-resnet": {"name": "seresnet18", **_TINY_RESNET},
    "preresnet": {"name": "preresnet50", "layers": (1, 1, 1, 1), "width": 0.125},
    "densenet": {"name": "densenet121", "growth_rate": 8, "block_config": (2, 2)},
    "mobilenet-v2": {
        "name": "torchvision/mobilenet_v2",
        "width": 0.25,
        "inverted_residual_setting": [[1, 16, 1, 1], [6, 24, 2, 2]],
    },
    "efficientnet": {"name": "test_efficientnet"},
    "cifar-resnet": {"name": "cifar_resnet8", "width": 0.5},
    "cifar-resnet-bottleneck": {"name": "cifar_resnet11", "width": 0.5},
    "cifar-preresnet": {"name": "cifar_preresnet8", "width": 0.5},
    "cifar-preresnet-bottleneck": {"name": "cifar_preresnet11", "width": 0.5},
    "cifar-wide-resnet": {"name": "cifar_wrn10_2", "width": 0.5},
    "cifar-resnext": {"name": "cifar_resnext11_2x16", "width": 0.25},
    "cifar-densenet": {"name": "cifar_densenet_bc10_8"},
    "cifar-vgg": {"name": "cifar_vgg11", "width": 0.125},
    "cifar-alexnet": {"name": "cifar_alexnet", "width": 0.125},
}
"""A small network of every family, as arguments of `build_backbone`."""


OWN_BACKBONES: dict[str, Callable[..., nn.Module]] = {}
"""Networks that users have registered, by name."""


def register_backbone(name: str, build: Callable[..., nn.Module]) -> None:
    """Add a network of your own, which `--backbone` of the classification studies then takes.

    Args:
        name: neither timm's nor torchvision's nor ours.
        build: makes, of a number of classes, a network from images (N, 3, H, W) to logits (N, classes), with batch
            norm, which `--norm` replaces. What flags and recipes ask for besides (`width`, `dropout`,
            `stochastic_depth`, entries of a recipe's `architecture`) are keyword arguments, which are only passed where
            they are asked for.

    Raises:
        ValueError: there is a network of that name.
    """
    note("backbone", name, {*OWN_BACKBONES, *timm.list_models(), *TORCHVISION, *CIFAR_NETWORKS, *PREACTIVATION_RESNETS})
    OWN_BACKBONES[name] = build


def build_backbone(
    name: str,
    classes: int,
    *,
    norm: str = "bn",
    antialias: int | None = None,
    stem_pool: int = 2,
    pretrained: bool = False,
    dropout: float = 0.0,
    stochastic_depth: float = 0.0,
    stochastic_depth_by: str = "block",
    width: float = 1.0,
    small_images: bool = False,
    **architecture: Any,
) -> nn.Module:
    """A network from images (N, 3, H, W) to logits (N, classes).

    Args:
        name: one of these, optionally with a tag for published weights ("resnet50.tv_in1k",
            "torchvision/resnet50.IMAGENET1K_V2"; torchvision's default here is its first version, as in the papers):
            timm's names ("resnet50d", "resnetrs152", "seresnet50", "efficientnet_b0"); torchvision's, as
            "torchvision/resnet50", or without the prefix if timm has no such name ("alexnet"); ours for CIFAR
            (`cifar_networks.CIFAR_NAMES`: "cifar_resnet20", "cifar_bin_resnet110"); "preresnetDEPTH"
            (`preactivation_resnets`: ResNet v2 of Switchable Normalization); "resnetrsDEPTH" of `RESNET_RS_BLOCKS`.
        classes: number of logits.
        norm: a name in `normshift.NORMS`. With "bn", a network without norms is allowed, and stays as it is.
        antialias: size of the blur filters of `normshift.antialias`; None: not anti-aliased.
        stem_pool: kernel of an anti-aliased ResNet's stem pool; the published networks have 2.
        pretrained: use the library's ImageNet weights, with a new classifier if `classes` differs from theirs.
        dropout: probability before the classifier; 0 keeps the architecture's own (torchvision's AlexNet has 0.5).
        stochastic_depth: drop rate of the last residual block; 0 keeps the architecture's own.
        stochastic_depth_by: "block": the rate grows linearly from 0 at the first block. "stage": all blocks of a stage
            have the same rate, with four stages (2, 3, 4, 5) / 5 of the last one's, as in ResNet-RS; for residual
            networks whose stages are called layer1, layer2, ...
        width: factor on all channels, for timm's ResNets (a stem of one convolution keeps 64), torchvision's MobileNets
            and our networks.
        small_images: replace a ResNet's stem by a new 3x3 convolution of stride 1, without a pool.
        architecture: further keyword arguments of the library's constructor, such as `layers=(2, 2, 2, 2)` for timm's
            ResNets or `squeeze_excitation=True` for our `cifar_network`.

    Raises:
        ValueError: an unknown name or norm, weights that are not available, or an option that the network does not
            support (norms, dropout, stochastic depth, width, a stem for small images).
    """
    _check(dropout, stochastic_depth, stochastic_depth_by, width)
    depth = _own_resnet_rs(name)
    if pretrained and (depth or width != 1 or architecture):
        raise ValueError(f"{name} has no published weights at a depth, width or architecture other than the published.")
    if depth:
        name, architecture = "resnetrs50", {"layers": RESNET_RS_BLOCKS[depth], **architecture}
    by_stage = stochastic_depth if stochastic_depth_by == "stage" else 0.0
    regularisers = {"dropout": dropout, "stochastic_depth": stochastic_depth - by_stage}
    network = _source(name)(name, classes, pretrained, regularisers, width, architecture)
    _adapt(network, name, by_stage, small_images)
    return _converted(network, norm, antialias, stem_pool)


def _converted(network: nn.Module, norm: str, antialias: int | None, stem_pool: int) -> nn.Module:
    """The network under a norm, anti-aliased where that is asked for."""
    if norm != "bn" or normshift.norm_layers(network):
        network = normshift.convert(network, norm)
    if antialias is not None:
        network = normshift.antialias(network, filter_size=antialias, stem_pool=stem_pool)
    return network


def _adapt(network: nn.Module, name: str, rate_by_stage: float, small_images: bool) -> None:
    """Give a network what no library's constructor has: stochastic depth by stage, and a stem for small images."""
    if rate_by_stage:
        _drop_by_stage(network, name, rate_by_stage)
    if small_images:
        _fit_small_images(network, name)


def _check(dropout: float, stochastic_depth: float, stochastic_depth_by: str, width: float) -> None:
    for key, rate in {"dropout": dropout, "stochastic_depth": stochastic_depth}.items():
        if not 0 <= rate < 1:
            raise ValueError(f"{key} is a probability in [0, 1), not {rate}.")
    if width <= 0:
        raise ValueError(f"width is a positive factor on all channels, not {width}.")
    if stochastic_depth_by not in ("block", "stage"):
        raise ValueError(f"stochastic_depth_by is 'block' or 'stage', not {stochastic_depth_by!r}.")


def complexity(network: nn.Module, image_size: int) -> tuple[int, int]:
    """The number of parameters, and of multiply-adds for one image (3, image_size, image_size) in evaluation mode.

    Papers call multiply-adds FLOPs (a ResNet-50 has 4.1e9 at 224). torch counts multiplications and additions, so its
    result is halved. Convolutions (also blurs) and matrix products are counted; norms, activations and pools are not.
    Nothing is computed: the pass uses tensors without storage, and the network is unchanged.
    """
    device = next(network.parameters()).device
    tensors = (*network.named_parameters(), *network.named_buffers())
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad(), FakeTensorMode() as fake, FlopCounterMode(display=False) as counter:
            image = torch.empty(1, 3, image_size, image_size, device=device)
            functional_call(network, {key: fake.from_tensor(tensor) for key, tensor in tensors}, (image,))
    finally:
        for module, training in modes.items():
            module.training = training
    return sum(p.numel() for p in network.parameters()), counter.get_total_flops() // 2


def _source(name: str):
    """The function that builds the network with this name."""
    if name in OWN_BACKBONES:
        return _from_plugin
    if name.startswith("cifar_") or name in PREACTIVATION_RESNETS:
        return _from_ours
    plain = name.removeprefix("torchvision/").partition(".")[0]
    if plain in TORCHVISION and (name.startswith("torchvision/") or not timm.is_model(name)):
        return _from_torchvision
    if timm.is_model(name):
        return _from_timm
    ours = (*OWN_BACKBONES, *CIFAR_NETWORKS, *PREACTIVATION_RESNETS)
    names = {*timm.list_models(), *ours, *(f"torchvision/{n}" for n in TORCHVISION), *TORCHVISION}
    near = get_close_matches(name, sorted(names), n=5)
    raise ValueError(f"unknown backbone {name!r}: there is {', '.join(near) or 'no name like it'}.")


def _own_resnet_rs(name: str) -> int | None:
    """The depth in the name of a ResNet-RS that timm does not have; None for other names."""
    match = re.fullmatch(r"resnetrs(\d+)", name)
    if not match or timm.is_model(name):
        return None
    if int(match[1]) not in RESNET_RS_BLOCKS:
        raise ValueError(f"unknown backbone {name!r}: ResNet-RS has depths {', '.join(map(str, RESNET_RS_BLOCKS))}.")
    return int(match[1])


def _from_plugin(
    name: str, classes: int, pretrained: bool, regularisers: dict, width: float, options: dict
) -> nn.Module:
    if pretrained:
        raise ValueError(f"{name} has no ImageNet weights to download: pass --weights none or a checkpoint.")
    asked = (
        {key: rate for key, rate in regularisers.items() if rate} | ({"width": width} if width != 1 else {}) | options
    )
    try:
        return OWN_BACKBONES[name](classes, **asked)
    except TypeError as error:
        raise _refusal(name, asked, error) from error


def _from_ours(name: str, classes: int, pretrained: bool, regularisers: dict, width: float, options: dict) -> nn.Module:
    if pretrained:
        published = ", or pass a file of Switchable Normalization's" if name in PREACTIVATION_RESNETS else ""
        raise ValueError(f"{name} has no published weights to download: train it from scratch{published}.")
    build = preactivation_resnet if name in PREACTIVATION_RESNETS else cifar_network
    try:
        return build(name, classes, width=width, **regularisers, **options)
    except TypeError as error:
        raise _refusal(name, options, error) from error


def _from_timm(name: str, classes: int, pretrained: bool, regularisers: dict, width: float, options: dict) -> nn.Module:
    words = {"drop_rate": regularisers["dropout"], "drop_path_rate": regularisers["stochastic_depth"]}
    asked = {key: rate for key, rate in words.items() if rate}
    scaled = scaled_resnet(name, width) if width != 1 else {}
    options = scaled | asked | options
    try:
        network = timm.create_model(name, pretrained=pretrained, num_classes=classes, **options)
    except TypeError as error:
        raise _refusal(name, options, error) from error
    except Exception as error:
        if not pretrained:
            raise
        raise ValueError(f"timm could not get ImageNet weights of {name}: {_first_line(error)}") from error
    if "drop_path_rate" in asked and not any(type(m).__name__.startswith("DropPath") for m in network.modules()):
        raise ValueError(f"{name} has no stochastic depth (stochastic_depth={asked['drop_path_rate']}).")
    return network


def _from_torchvision(
    name: str, classes: int, pretrained: bool, regularisers: dict, width: float, options: dict
) -> nn.Module:
    plain, _, tag = name.removeprefix("torchvision/").partition(".")
    words = {"dropout": regularisers["dropout"], "stochastic_depth_prob": regularisers["stochastic_depth"]}
    asked = {key: rate for key, rate in words.items() if rate} | ({"width_mult": width} if width != 1 else {})
    options = TORCHVISION_OPTIONS.get(plain, {}) | asked | options
    try:
        network = torchvision.models.get_model(plain, num_classes=classes, **options)
    except TypeError as error:
        raise _refusal(name, options, error) from error
    if pretrained:
        state = _torchvision_weights(plain, tag)
        own = network.state_dict()
        fitting = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
        network.load_state_dict(fitting, strict=False)
    return network


def _torchvision_weights(name: str, tag: str) -> dict[str, torch.Tensor]:
    published = torchvision.models.get_model_weights(name)
    if tag and tag not in published.__members__:
        raise ValueError(
            f"torchvision has no weights {tag!r} of {name}: choose from {', '.join(published.__members__)}."
        )
    weights = published[tag] if tag else next(iter(published))
    try:  # through a model, which renames old keys of its checkpoint
        return torchvision.models.get_model(name, weights=weights, progress=False).state_dict()
    except Exception as error:
        raise ValueError(f"torchvision could not get ImageNet weights of {name}: {_first_line(error)}") from error


MEANINGS = {
    "drop_rate": "dropout", "dropout": "dropout", "drop_path_rate": "stochastic depth",
    "stochastic_depth_prob": "stochastic depth", "width_mult": "another width", "stochastic_depth": "stochastic depth",
    "width": "another width",
}  # fmt: skip
"""The libraries' keyword arguments in words."""


def _refusal(name: str, options: dict, error: TypeError) -> Exception:
    """A readable error if a constructor does not accept an option; otherwise the error itself."""
    refused = next((key for key in options if f"'{key}'" in str(error)), None)
    if refused is None:
        return error
    plain = name.removeprefix("torchvision/")
    instead = f" Try timm's {plain}." if plain != name and timm.is_model(plain) else ""
    return ValueError(f"{name} does not take {MEANINGS.get(refused, refused)} ({refused}={options[refused]}).{instead}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _drop_by_stage(network: nn.Module, name: str, rate: float) -> None:
    """Set one drop rate for each stage: (k + 1) / (stages + 1) of `rate` in stage k, from 1 (ResNet-RS's code)."""
    stages = [stage for key, stage in network.named_children() if re.fullmatch(r"layer\d+", key)]
    if not stages or not all(hasattr(block, "drop_path") for stage in stages for block in stage):
        raise ValueError(f"{name} has no residual stages layer1, layer2, ...: stochastic depth by stage needs them.")
    for index, stage in enumerate(stages):
        for block in stage:
            block.drop_path = DropPath(rate * (index + 2) / (len(stages) + 1))


def _fit_small_images(network: nn.Module, name: str) -> None:
    if not all(isinstance(getattr(network, part, None), nn.Module) for part in ("conv1", "bn1", "maxpool", "layer1")):
        raise ValueError(f"{name} has no residual network's stem (conv1, bn1, maxpool): small_images changes no other.")
    network.conv1 = nn.Conv2d(3, network.bn1.num_features, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
