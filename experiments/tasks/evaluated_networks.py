"""The networks to evaluate: checkpoints of studies, folders of them, or torchvision and timm networks by name."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torchvision.models import get_model_weights, list_models

from datamodules.classification.imagenet import wnids
from datamodules.segmentation.transforms import MEAN, STD
from experiments.study.endings import UsageError
from experiments.study.trained.networks import checkpoint_files, distinct, trained_network
from lightning_modules.classification.backbones import build_backbone
from lightning_modules.classification.module import ClassificationModule
from lightning_modules.robustness.evaluator import EvaluatedNetwork

if TYPE_CHECKING:
    from datamodules.classification.domains import ImageDomain


@dataclass(frozen=True)
class Network:
    """A network to evaluate, with its arm, seed and study."""

    arm: str
    seed: int
    evaluated: EvaluatedNetwork
    columns: dict[str, Any]
    trained_on: str | None
    source: str
    """The file or name it comes from."""


def is_path(given: str) -> bool:
    """Whether an argument is a path (which may be missing) and not a network's name."""
    looks_so = given.endswith((".ckpt", ".pt", ".pth")) or (
        "/" in given and not given.startswith(("torchvision/", "hf-hub:", "hf_hub:"))
    )
    return looks_so or Path(given).exists()


def classifiers(given: str) -> list[Network]:
    """The classification networks of a checkpoint, or of a run's folder.

    Raises:
        UsageError: there is no such file, no checkpoint in the folder, or a checkpoint of another kind.
    """
    return [classifier(file) for file in checkpoint_files(given)]


def classifier(file: Path) -> Network:
    """A study's checkpoint as a network to be evaluated."""
    trained = trained_network(file, kind=ClassificationModule)
    module, arm, seed = trained.module, trained.arm, trained.seed
    evaluated = EvaluatedNetwork.trained(f"{arm}-seed{seed}", module)
    columns = {"norm": module.norm, "backbone": module.recipe.backbone, "antialias": module.antialias or 0}
    return Network(arm, seed, evaluated, columns, module.data or None, str(file))


def told_apart(networks: list[Network]) -> list[Network]:
    """The networks without repeats, with different names."""
    unlike = distinct([*{network.source: network for network in networks}.values()])
    return [
        dataclasses.replace(n, evaluated=dataclasses.replace(n.evaluated, name=f"{n.arm}-seed{n.seed}")) for n in unlike
    ]


def named_network(name: str, pretrained: bool, domain: ImageDomain) -> Network:
    """A network of torchvision or timm, with its published weights or without, for the classes of the images.

    Raises:
        UsageError: the name is unknown, its weights cannot be loaded, or its classes differ from the images'.
    """
    if pretrained and domain.classes != wnids():
        raise UsageError(
            f"{name} with published weights knows ImageNet's 1000 classes, and {domain.name} has {len(domain.classes)} "
            "of its own: pass --data imagenet, or --weights none for an untrained network."
        )
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)  # GPUs keep theirs: networks are built on the CPU
            net = build_backbone(name, len(domain.classes), pretrained=pretrained)
    except ValueError as error:
        hint = " (--weights none builds it untrained)" if pretrained and "weights" in str(error) else ""
        raise UsageError(f"{str(error).rstrip('.')}{hint}.") from error
    evaluated = EvaluatedNetwork(name, net, classes=domain.classes, **preprocessing(name, net))
    columns = {"norm": "as published", "backbone": name, "antialias": 0}
    return Network(name, 0, evaluated, columns, "imagenet" if pretrained else None, name)


def preprocessing(name: str, net: nn.Module) -> dict[str, Any]:
    """How a published network's images are cut and normalised, as arguments of `EvaluatedNetwork`; CIFAR networks' as
    CIFAR's."""
    if name.startswith("cifar_"):
        return {"size": 32, "resize": None, "mean": MEAN, "std": STD}
    published = getattr(net, "pretrained_cfg", None)
    if published:  # timm's
        from timm.data import resolve_data_config  # takes seconds, and few need it

        found = resolve_data_config(pretrained_cfg=published)
        size = found["input_size"][-1]
        preparation = {key: found[key] for key in ("mean", "std", "interpolation")}
        return {"size": size, "resize": int(size / found["crop_pct"]), **preparation}

    plain, _, tag = name.removeprefix("torchvision/").partition(".")
    if plain not in list_models():  # a network of ours: as the papers do
        return {"size": 224, "resize": 256, "mean": MEAN, "std": STD}
    weights = get_model_weights(plain)
    steps = (weights[tag] if tag else next(iter(weights))).transforms()
    preparation = {"mean": tuple(steps.mean), "std": tuple(steps.std), "interpolation": steps.interpolation.value}
    return {"size": steps.crop_size[0], "resize": steps.resize_size[0], **preparation}
