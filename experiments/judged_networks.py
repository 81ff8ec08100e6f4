"""Networks to be judged: studies' checkpoints, whole folders of them, or torchvision's and timm's by name."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.flags import UsageError
from experiments.run_parts import readable
from lightning_modules.checkpoint_files import ABSENT, fault_of_path

if TYPE_CHECKING:  # these load torch; a command line that asks for --help need not wait
    from torch import nn

    from datamodules.image_domains import ImageDomain
    from lightning_modules.robustness import Judged


@dataclass(frozen=True)
class Network:
    """A network to be judged: which arm and seed of which study it is, and what is known of it."""

    arm: str
    seed: int
    judged: Judged
    facts: dict[str, Any]
    trained_on: str | None
    source: str
    """The file or name it comes from."""


def is_path(given: str) -> bool:
    """Whether what was given is a file or folder, there or not, and no network's name."""
    looks_so = given.endswith((".ckpt", ".pt", ".pth")) or (
        "/" in given and not given.startswith(("torchvision/", "hf-hub:", "hf_hub:"))
    )
    return looks_so or Path(given).exists()


def trained_networks(given: str) -> list[Network]:
    """The networks of a checkpoint, or of a run's folder.

    Raises:
        UsageError: there is no such file, no checkpoint in the folder, or the checkpoint of another kind.
    """
    path = Path(given)
    if path.is_dir():
        return [trained_network(file) for file in _finished(given, path)]
    if fault_of_path(path) == ABSENT:
        raise UsageError(f"{given}: no such checkpoint or folder.")
    return [trained_network(path)]


def _finished(given: str, path: Path) -> list[Path]:
    found = [*path.glob("checkpoints/model.ckpt"), *path.glob("model.ckpt")] or ordered_parts(path)
    if not found:
        raise UsageError(f"{given} holds no finished network: expected {path}/ARM-seedN/checkpoints/model.ckpt.")
    return found


def ordered_parts(folder: Path) -> list[Path]:
    """The checkpoints of a run, arms in the order of its study, seeds ascending."""
    arms = readable(lambda: list(json.loads((folder / "arms.json").read_text(encoding="utf-8")))) or []

    def place(file: Path) -> tuple:
        arm, seed = arm_and_seed(file)
        return (arms.index(arm) if arm in arms else len(arms), arm, seed)

    return sorted(folder.glob("*/checkpoints/model.ckpt"), key=place)


def arm_and_seed(file: Path) -> tuple[str, int]:
    """What a checkpoint is called: its part of the run, or the file itself where it is in none."""
    part = file.resolve().parent.parent.name if file.parent.name == "checkpoints" or not file.parent.name else file.stem
    match = re.fullmatch(r"(.+)-seed(\d+)", part)
    return (match[1], int(match[2])) if match else (part, 0)


def trained_network(file: Path) -> Network:
    """A study's checkpoint as a network to be judged."""
    from lightning_modules.classification import TRAINED, ClassificationModule
    from lightning_modules.robustness import Judged
    from lightning_modules.weights import trained_module

    try:
        module = trained_module(ClassificationModule, file, TRAINED)
    except ValueError as error:
        raise UsageError(str(error)) from error
    arm, seed = arm_and_seed(file)
    judged = Judged.trained(f"{arm}-seed{seed}", module)
    facts = {"norm": module.norm, "backbone": module.recipe.backbone, "antialias": module.antialias or 0}
    return Network(arm, seed, judged, facts, module.data or None, str(file))


def distinct(networks: list[Network]) -> list[Network]:
    """The networks without repeats, with names that tell them apart: those of several runs get their run's name."""
    unlike = list({network.source: network for network in networks}.values())
    for longer in (lambda n: f"{Path(n.source).resolve().parents[2].name}/{n.arm}", lambda n: n.source):
        seen: dict[tuple, int] = {}
        for network in unlike:
            seen[network.arm, network.seed] = seen.get((network.arm, network.seed), 0) + 1
        clashing = {arm for (arm, _), count in seen.items() if count > 1}
        unlike = [dataclasses.replace(n, arm=longer(n)) if n.arm in clashing else n for n in unlike]
    named = {n.source: dataclasses.replace(n.judged, name=f"{n.arm}-seed{n.seed}") for n in unlike}
    return [dataclasses.replace(network, judged=named[network.source]) for network in unlike]


def named_network(name: str, pretrained: bool, domain: ImageDomain) -> Network:
    """A network of torchvision or timm, with its published weights or without, for the classes of the images.

    Raises:
        UsageError: there is no such name, its weights cannot be had, or they know other classes than the images.
    """
    import torch

    from datamodules.image_sets import wnids
    from lightning_modules.backbones import build_backbone
    from lightning_modules.robustness import Judged

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
    judged = Judged(name, net, classes=domain.classes, **preprocessing(name, net))
    facts = {"norm": "as published", "backbone": name, "antialias": 0}
    return Network(name, 0, judged, facts, "imagenet" if pretrained else None, name)


def preprocessing(name: str, net: nn.Module) -> dict[str, Any]:
    """How a published network's images are cut and normalised, as arguments of `Judged`; CIFAR networks' as CIFAR's."""
    from datamodules.transforms import MEAN, STD

    if name.startswith("cifar_"):
        return {"size": 32, "resize": None, "mean": MEAN, "std": STD}
    published = getattr(net, "pretrained_cfg", None)
    if published:  # timm's
        from timm.data import resolve_data_config

        found = resolve_data_config(pretrained_cfg=published)
        size = found["input_size"][-1]
        look = {key: found[key] for key in ("mean", "std", "interpolation")}
        return {"size": size, "resize": int(size / found["crop_pct"]), **look}
    from torchvision.models import get_model_weights, list_models

    plain, _, tag = name.removeprefix("torchvision/").partition(".")
    if plain not in list_models():  # a network of ours: as the papers do
        return {"size": 224, "resize": 256, "mean": MEAN, "std": STD}
    weights = get_model_weights(plain)
    steps = (weights[tag] if tag else next(iter(weights))).transforms()
    look = {"mean": tuple(steps.mean), "std": tuple(steps.std), "interpolation": steps.interpolation.value}
    return {"size": steps.crop_size[0], "resize": steps.resize_size[0], **look}
