"""Counts what one image of a recipe takes, without computing anything."""

from functools import cache
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from datamodules.segmentation.domains import Domain
from datamodules.segmentation.labels import STREET
from lightning_modules.classification.module import ClassificationModule
from lightning_modules.classification.recipes import CLASSIFICATION_RECIPES
from lightning_modules.segmentation.module import SegmentationModule
from lightning_modules.segmentation.recipes import SEGMENTATION_RECIPES

CLASSES = {"bin-cifar": 100, "office-home": 65}
"""Classes of a recipe's set; a thousand elsewhere."""


class Counts(NamedTuple):
    """Of a network: its parameters. Of one image: operations of a forward pass, and bytes kept in float32."""

    parameters: int
    operations: float
    kept: float


@cache
def counts(recipe: str) -> Counts:
    """What the network of a recipe takes under batch norm, auxiliary head included."""
    with torch.device("meta"):
        if recipe in SEGMENTATION_RECIPES:
            found = SEGMENTATION_RECIPES[recipe]
            module = SegmentationModule(found, "bn", [Domain("source", [], STREET, tuple(range(len(STREET))), {})])
            images = torch.randn(2, 3, *found.crop)
            labels = torch.zeros(2, *found.crop, dtype=torch.long)
        else:
            found = CLASSIFICATION_RECIPES[recipe]
            module = ClassificationModule(found, "bn", list(map(str, range(CLASSES.get(recipe, 1000)))), [])
            images = torch.randn(2, 3, found.image_size, found.image_size)
            labels = torch.zeros(2, dtype=torch.long)
    known, kept = {id(p) for p in module.parameters()}, {}

    def pack(tensor):
        if id(tensor) not in known:
            kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    module.train()
    with FlopCounterMode(display=False) as flops, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = module.model_step(images, labels)
    del loss
    size = sum(storage.nbytes() for storage in kept.values())
    return Counts(sum(p.numel() for p in module.parameters()), flops.get_total_flops() / 2, size / 2)
