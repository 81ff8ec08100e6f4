"""What a network makes of a few images, beside the truth: in pictures if it segments, in words if it classifies."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

from datamodules.classification import ClassificationData
from datamodules.labels import IGNORE, LabelSpace
from datamodules.segmentation import SegmentationData
from datamodules.transforms import EvalTransform
from datamodules.whole_file import write_whole


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
            scores = module(transform(image, label)[0][None].to(_weights(module)))
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


class Answer(NamedTuple):
    """One image uint8 (H, W, 3) of a domain, its class, what a classifier calls it, and how probable that is to it."""

    domain: str
    index: int
    image: np.ndarray
    truth: str
    answer: str
    probability: float


@torch.no_grad()
def answers(module, data: ClassificationData, count: int = 6) -> list[Answer]:
    """What a classifier calls a few images of every judged domain, spread evenly over the domain."""
    transform, training, found = data.judged_image, module.training, []
    module.eval()
    for domain in data.judged:
        samples, classes = domain.samples, domain.classes
        for i in range(shown := min(count, len(samples))):
            image, label = samples[i * len(samples) // shown]
            chances = module(transform(image)[None].to(_weights(module))).float().softmax(1)[0]
            best = int(chances.argmax())
            found.append(Answer(domain.name, i, image, classes[label], classes[best], chances[best].item()))
    module.train(training)
    return found


def save_answers(found: list[Answer], folder: Path, arm: str) -> None:
    """Write DOMAIN-i-image.png for every answer, and what the network calls them to ARM.csv.

    A row an image: domain, image (the i of the picture), truth, answer, probability (of the answer, in [0, 1]). A file
    that is there already stays, so that with several seeds the first one's answers are shown.
    """
    file = folder / f"{arm}.csv"
    if file.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for one in found:
        name = file_name(one.domain)
        _write(folder / f"{name}-{one.index}-image.png", one.image)
        rows.append((name, one.index, one.truth, one.answer, round(one.probability, 4)))
    text = StringIO(newline="")
    csv.writer(text).writerows([("domain", "image", "truth", "answer", "probability"), *rows])
    write_whole(file, text.getvalue())


def captioned(found: list[Answer]) -> Iterator[tuple[np.ndarray, str]]:
    """Each image and a caption: what the network calls it, and whether it is right."""
    for one in found:
        verdict = "rightly" if one.answer == one.truth else f"truth {one.truth}"
        yield one.image, f"{one.domain} {one.index}: {one.answer}, {verdict}"


def file_name(domain: str) -> str:
    """A domain's name as part of a file's."""
    return domain.replace(":", "-").replace("/", "-")


def colour(label: np.ndarray, space: LabelSpace) -> np.ndarray:
    """Training ids (H, W) as RGB (H, W, 3) in the label space's colours, ignored pixels black."""
    palette = np.zeros((IGNORE + 1, 3), np.uint8)
    palette[: len(space)] = space.palette
    return palette[label]


def _weights(module) -> torch.Tensor:
    """What images must be like: on the device, and of the type, of the network's weights."""
    return next(module.parameters(), torch.empty(0, device=module.device))


def _write(path: Path, image: np.ndarray) -> None:
    write_whole(path, cv2.imencode(path.suffix, image[..., ::-1])[1].tobytes(), durable=False)
