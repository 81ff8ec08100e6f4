"""A teacher's labels for images that have none (Noisy Student, Xie et al., CVPR 2020; ResNet-RS, section 6)."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import DataLoader

from datamodules.classification.data import Transformed
from datamodules.classification.domains import ImageDomain
from datamodules.classification.joined import Joined, Relabelled
from datamodules.samples import LabelledImages
from lightning_modules.checkpoints import load_network
from lightning_modules.classification.module import ClassificationModule
from lightning_modules.classification.recipe_images import evaluation_image


def with_pseudo_labels(
    labelled: ImageDomain, unlabelled: ImageDomain, teacher: str, confidence: float, workers: int = 0
) -> tuple[ImageDomain, int]:
    """A set joined by those unlabelled images that a teacher is sure of, under the teacher's labels.

    The teacher sees clean images (no noise); the student that learns from the joined set is the noisy one.

    Args:
        teacher: checkpoint of a `ClassificationModule`.
        confidence: least probability of the teacher's label.
        workers: loader processes.

    Returns:
        The joined set and how many images it has gained.

    Raises:
        ValueError: the checkpoint cannot be read, or its classes are others.
    """
    module = load_network(teacher, ClassificationModule)
    labelled = labelled.in_order_of(module.classes, f"the teacher {teacher}")
    module.to("cuda" if torch.cuda.is_available() else "cpu")
    labels, sure = predictions(module, unlabelled.samples, workers)
    kept = np.flatnonzero(sure >= confidence)
    samples = Joined(labelled.samples, Relabelled(unlabelled.samples, kept, labels[kept], labelled.classes))
    return ImageDomain(f"{labelled.name}+{unlabelled.name}", samples, labelled.classes), len(kept)


@torch.inference_mode()
def predictions(
    module: ClassificationModule, samples: LabelledImages, workers: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The class of each image and its probability: int64 and float32 (len(samples),)."""
    images = Transformed(samples, evaluation_image(module.recipe))
    labels, sure = [], []
    for batch, _ in DataLoader(images, 128, num_workers=workers):
        found = module(batch.to(module.device)).float().softmax(1).max(1)
        labels.append(found.indices.cpu())
        sure.append(found.values.cpu())
    return torch.cat(labels).numpy(), torch.cat(sure).numpy()
