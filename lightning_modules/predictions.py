"""Pictures of what a network sees: the image, the truth and the prediction."""

from pathlib import Path

import cv2
import numpy as np
import torch

from datamodules.labels import IGNORE, LabelSpace
from datamodules.segmentation import SegmentationData
from datamodules.transforms import EvalTransform


@torch.no_grad()
def save_predictions(module, data: SegmentationData, folder: Path, norm: str, count: int = 2) -> None:
    """Write DOMAIN-i-image.png, DOMAIN-i-truth.png and DOMAIN-i-NORM.png for a few images of every judged domain.

    A picture that is there already stays, so that with several seeds the first one's predictions are shown.
    """
    folder.mkdir(parents=True, exist_ok=True)
    transform, training = EvalTransform(), module.training
    module.eval()
    for domain in data.judged:
        samples = data.as_judged(domain)
        for i in range(min(count, len(samples))):
            stem = folder / f"{domain.name.replace(':', '-')}-{i}"
            file = stem.with_name(f"{stem.name}-{norm}.png")
            if file.exists():
                continue
            image, label = samples[i]
            scores = module(transform(image, label)[0][None].to(module.device))
            _write(stem.with_name(f"{stem.name}-image.png"), image)
            _write(stem.with_name(f"{stem.name}-truth.png"), colour(label, domain.label_space))
            _write(file, colour(scores[0].argmax(0).cpu().numpy().astype(np.uint8), domain.label_space))
    module.train(training)


def colour(label: np.ndarray, space: LabelSpace) -> np.ndarray:
    """Training ids (H, W) as RGB (H, W, 3) in the label space's colours, ignored pixels black."""
    palette = np.zeros((IGNORE + 1, 3), np.uint8)
    palette[: len(space)] = space.palette
    return palette[label]


def _write(path: Path, image: np.ndarray) -> None:
    cv2.imwrite(str(path), image[..., ::-1])
