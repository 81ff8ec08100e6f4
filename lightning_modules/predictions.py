"""Predictions for a few images, as examples: pictures for segmentation, texts for classification."""

from __future__ import annotations

import numpy as np
import torch

from datamodules.classification.data import ClassificationData
from datamodules.segmentation.data import SegmentationData
from datamodules.segmentation.labels import IGNORE, LabelSpace
from datamodules.segmentation.transforms import EvalTransform
from lightning_modules.examples import Example


@torch.no_grad()
def segmentation_examples(module, data: SegmentationData, count: int = 2) -> list[Example]:
    """Examples of the first images of every evaluated domain, in the colours of their label spaces."""
    transform, training, found = EvalTransform(), module.training, []
    module.eval()
    for domain in data.evaluated:
        samples, space = data.as_evaluated(domain), domain.label_space
        for i in range(min(count, len(samples))):
            image, label = samples[i]
            scores = module(transform(image, label)[0][None].to(_weights(module)))
            predicted = scores[0].argmax(0).cpu().numpy().astype(np.uint8)
            found.append(Example(domain.name, i, image, colour(label, space), colour(predicted, space)))
    module.train(training)
    return found


@torch.no_grad()
def classification_examples(module, data: ClassificationData, count: int = 6) -> list[Example]:
    """Examples spread evenly over every evaluated domain; the note is the prediction's probability."""
    transform, training, found = data.evaluation_image, module.training, []
    module.eval()
    for domain in data.evaluated:
        samples, classes = domain.samples, domain.classes
        for i in range(shown := min(count, len(samples))):
            image, label = samples[i * len(samples) // shown]
            chances = module(transform(image)[None].to(_weights(module))).float().softmax(1)[0]
            best = int(chances.argmax())
            note = f"{100 * chances[best].item():.0f} %"
            found.append(Example(domain.name, i, image, classes[label], classes[best], note))
    module.train(training)
    return found


def colour(label: np.ndarray, space: LabelSpace) -> np.ndarray:
    """Training ids (H, W) as an RGB picture (H, W, 3) in the label space's colours; ignored pixels are black."""
    palette = np.zeros((IGNORE + 1, 3), np.uint8)
    palette[: len(space)] = space.palette
    return palette[label]


def colours_in_hex(space: LabelSpace) -> dict[str, str]:
    """The legend of pictures made by `colour`: class name -> "#rrggbb"."""
    return {name: "#{:02x}{:02x}{:02x}".format(*rgb) for name, rgb in zip(space.classes, space.palette, strict=True)}


def _weights(module) -> torch.Tensor:
    """A parameter of the network, whose device and type images must have."""
    return next(module.parameters(), torch.empty(0, device=module.device))
