"""What a network makes of a few images, beside the truth: in pictures if it segments, in words if it classifies."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

from datamodules.classification import ClassificationData
from datamodules.image_transforms import JudgedImage
from datamodules.labels import IGNORE, LabelSpace
from datamodules.segmentation import SegmentationData
from datamodules.transforms import MEAN, STD, EvalTransform


class Prediction(NamedTuple):
    """One image of a domain, the truth and a segmentation network's prediction, all uint8 (H, W, 3)."""

    domain: str
    index: int
    image: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray


@torch.no_grad()
def predictions(module, data: SegmentationData, count: int = 2) -> list[Prediction]:
    """What a network makes of a few images of every judged domain, in the label spaces' colours."""
    transform, training, found = EvalTransform(), module.training, []
    module.eval()
    for domain in data.judged:
        samples, space = data.as_judged(domain), domain.label_space
        for i in range(min(count, len(samples))):
            image, label = samples[i]
            scores = module(transform(image, label)[0][None].to(module.device))
            predicted = scores[0].argmax(0).cpu().numpy().astype(np.uint8)
            found.append(Prediction(domain.name, i, image, colour(label, space), colour(predicted, space)))
    module.train(training)
    return found


def save_predictions(found: list[Prediction], folder: Path, norm: str) -> None:
    """Write DOMAIN-i-image.png, DOMAIN-i-truth.png and DOMAIN-i-NORM.png for every prediction.

    A picture that is there already stays, so that with several seeds the first one's predictions are shown.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for one in found:
        stem = f"{file_name(one.domain)}-{one.index}"
        if not (folder / f"{stem}-{norm}.png").exists():
            _write(folder / f"{stem}-image.png", one.image)
            _write(folder / f"{stem}-truth.png", one.truth)
            _write(folder / f"{stem}-{norm}.png", one.predicted)


def side_by_side(found: list[Prediction]) -> Iterator[tuple[np.ndarray, str]]:
    """Each prediction as one picture, and a caption."""
    for one in found:
        picture = np.concatenate([one.image, one.truth, one.predicted], axis=1)
        yield picture, f"{one.domain} {one.index}: image, truth, prediction"


@torch.no_grad()
def classified(module, data: ClassificationData, count: int = 8) -> Iterator[tuple[np.ndarray, str]]:
    """A few images of every judged domain as a classifier saw them, and what it took them for."""
    transform, training = JudgedImage(data.size, data.resize), module.training
    module.eval()
    for domain in data.judged:
        chosen = np.linspace(0, len(domain.samples) - 1, min(count, len(domain.samples))).round().astype(int)
        images, labels = zip(*(domain.samples[int(i)] for i in chosen), strict=True)
        batch = torch.stack([transform(image) for image in images])
        taken = module(batch.to(module.device)).argmax(1).tolist()
        seen = (batch * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)).clamp(0, 1) * 255
        for picture, label, guess in zip(seen.round().byte().permute(0, 2, 3, 1).numpy(), labels, taken, strict=True):
            verdict = "rightly" if guess == int(label) else f"truth {domain.classes[int(label)]}"
            yield picture, f"{domain.name}: {domain.classes[guess]}, {verdict}"
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
