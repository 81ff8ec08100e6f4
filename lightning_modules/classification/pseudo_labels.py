"""Labels by a teacher network for unlabelled images (Noisy Student, Xie et al., CVPR 2020; ResNet-RS, section 6)."""

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
    """Add to a labelled set the unlabelled images for which a teacher is confident, with the teacher's labels.

    The teacher predicts on images without augmentation; only the student is trained with noise.

    Args:
        teacher: checkpoint of a `ClassificationModule`.
        confidence: the smallest accepted probability of the teacher's label.
        workers: number of loader processes.

    Returns:
        The joined set, and the number of added images.

    Raises:
        ValueError: the checkpoint cannot be read, or has other classes.
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
    """The predicted class of each image and its probability: int64 and float32, (len(samples),) each."""
    images = Transformed(samples, evaluation_image(module.recipe))
    labels, sure = [], []
    for batch, _ in DataLoader(images, 128, num_workers=workers):
        found = module(batch.to(module.device)).float().softmax(1).max(1)
        labels.append(found.indices.cpu())
        sure.append(found.values.cpu())
    return torch.cat(labels).numpy(), torch.cat(sure).numpy()
