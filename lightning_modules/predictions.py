"""What a network makes of a few images, beside the truth: in pictures if it segments, in words if it classifies."""

import csv
from pathlib import Path

import cv2
import numpy as np
import torch

from datamodules.classification import ClassificationData
from datamodules.image_transforms import JudgedImage
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
            stem = folder / f"{file_name(domain.name)}-{i}"
            file = stem.with_name(f"{stem.name}-{norm}.png")
            if file.exists():
                continue
            image, label = samples[i]
            scores = module(transform(image, label)[0][None].to(module.device))
            _write(stem.with_name(f"{stem.name}-image.png"), image)
            _write(stem.with_name(f"{stem.name}-truth.png"), colour(label, domain.label_space))
            _write(file, colour(scores[0].argmax(0).cpu().numpy().astype(np.uint8), domain.label_space))
    module.train(training)


@torch.no_grad()
def save_answers(module, data: ClassificationData, folder: Path, arm: str, count: int = 6) -> None:
    """Write DOMAIN-i-image.png for a few images of every judged domain, and what the network calls them to ARM.csv.

    A row an image: domain, image (the i of the picture), truth, answer, probability (of the answer, in [0, 1]). A file
    that is there already stays, so that with several seeds the first one's answers are shown.
    """
    file = folder / f"{arm}.csv"
    if file.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    transform, training, rows = JudgedImage(data.size, data.resize), module.training, []
    module.eval()
    for domain in data.judged:
        name, samples = file_name(domain.name), domain.samples
        for i in range(min(count, len(samples))):
            image, label = samples[i * len(samples) // count if len(samples) > count else i]
            chances = module(transform(image)[None].to(module.device)).float().softmax(1)[0]
            best = int(chances.argmax())
            _write(folder / f"{name}-{i}-image.png", image)
            rows.append((name, i, domain.classes[label], domain.classes[best], round(chances[best].item(), 4)))
    with file.open("w", newline="") as opened:
        csv.writer(opened).writerows([("domain", "image", "truth", "answer", "probability"), *rows])
    module.train(training)


def file_name(domain: str) -> str:
    """A domain's name as part of a file's."""
    return domain.replace(":", "-").replace("/", "-")


def colour(label: np.ndarray, space: LabelSpace) -> np.ndarray:
    """Training ids (H, W) as RGB (H, W, 3) in the label space's colours, ignored pixels black."""
    palette = np.zeros((IGNORE + 1, 3), np.uint8)
    palette[: len(space)] = space.palette
    return palette[label]


def _write(path: Path, image: np.ndarray) -> None:
    cv2.imwrite(str(path), image[..., ::-1])
