"""The passes over the images in a robustness evaluation: for each part, the views of an image and the measures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from datamodules.corruptions.appearance_shifts import APPEARANCE_SHIFTS
from datamodules.corruptions.imagenet_c import CORRUPTIONS
from datamodules.corruptions.imagenet_p import NOISES, PERTURBATIONS
from datamodules.samples import LabelledImages
from lightning_modules.robustness import views
from lightning_modules.robustness.measures import flip_probability, ranking, top5_distance
from lightning_modules.robustness.views import EvaluationCrop

FRAMES = 30
"""Approximate number of frames in a sequence, for the size of loaded batches and the progress bar."""


@dataclass(frozen=True)
class Pass:
    """One pass over the images: which views the networks get, and the measures of their scores."""

    part: str
    samples: LabelledImages
    indices: np.ndarray
    view: views.View
    views: int  # about how many views an image has
    measure: Callable[[np.ndarray, np.ndarray], dict]  # (scores (N, K, classes), labels (N,)) -> {key: values (N,)}


def _clean(*, samples, crop, chosen, **_) -> Iterator[Pass]:
    yield Pass("clean", samples, chosen(samples.labels), views.plain(crop), 1, _clean_measures)


def _shifts(*, samples, crop, chosen, **_) -> Iterator[Pass]:
    measure = partial(_top1, keys=[(name, None, "top1") for name in APPEARANCE_SHIFTS])
    view = views.shifted(crop)
    yield Pass("shifts", samples, chosen(samples.labels), view, len(APPEARANCE_SHIFTS), measure)


def _corruptions(*, samples, crop, chosen, severities, seed, published, frost, **_) -> Iterator[Pass]:
    for name in CORRUPTIONS:
        if published:  # the files are cut to 224 already
            for severity in severities:
                files = published(f"imagenet-c/{name}/{severity}")
                measure = partial(_errors, keys=[(name, severity, "error")])
                yield Pass(
                    "corruptions", files, chosen(files.labels), views.plain(EvaluationCrop(crop.size)), 1, measure
                )
        else:
            measure = partial(_errors, keys=[(name, severity, "error") for severity in severities])
            view = views.corrupted(crop, name, severities, seed, frost)
            yield Pass("corruptions", samples, chosen(samples.labels), view, len(severities), measure)


def _perturbations(*, samples, crop, chosen, seed, frames, published, **_) -> Iterator[Pass]:
    for name in PERTURBATIONS:
        measure = partial(_sequence_measures, name=name)
        if published:
            files, view = published(f"imagenet-p/{name}"), views.published_sequence(crop.size)
        else:
            files, view = samples, views.sequence(crop, name, frames, seed)
        yield Pass("perturbations", files, chosen(files.labels), view, frames or FRAMES, measure)


def _consistency(*, samples, crop, chosen, seed, **_) -> Iterator[Pass]:
    view = views.two_crops(crop, seed)
    yield Pass("consistency", samples, chosen(samples.labels), view, 2, _agreement)


PASSES = {
    "clean": _clean,
    "shifts": _shifts,
    "corruptions": _corruptions,
    "perturbations": _perturbations,
    "consistency": _consistency,
}


def _clean_measures(scores: np.ndarray, labels: np.ndarray) -> dict:
    scores = scores[:, 0]
    order = ranking(scores)
    top = scores.max(axis=1, keepdims=True)
    log_total = np.log(np.exp(scores - top).sum(axis=1)) + top[:, 0]
    own = np.take_along_axis(scores, labels[:, None], axis=1)[:, 0]
    found = {
        ("clean", None, "top1"): order[:, 0] == labels,
        ("clean", None, "nll"): log_total - own,
        ("clean", None, "confidence"): np.exp(top[:, 0] - log_total),
    }
    if scores.shape[1] > 5:
        found["clean", None, "top5"] = (order[:, :5] == labels[:, None]).any(axis=1)
    return found


def _top1(scores: np.ndarray, labels: np.ndarray, keys: list[tuple]) -> dict:
    right = scores.argmax(axis=-1) == labels[:, None]
    return {key: right[:, i] for i, key in enumerate(keys)}


def _errors(scores: np.ndarray, labels: np.ndarray, keys: list[tuple]) -> dict:
    return {key: ~right for key, right in _top1(scores, labels, keys).items()}


def _sequence_measures(scores: np.ndarray, labels: np.ndarray, name: str) -> dict:
    order, against_first = ranking(scores), name in NOISES
    return {
        (name, None, "flip"): flip_probability(order, against_first),
        (name, None, "top5_distance"): top5_distance(order, against_first),
    }


def _agreement(scores: np.ndarray, labels: np.ndarray) -> dict:
    first = scores.argmax(axis=-1)
    return {("two crops", None, "consistency"): first[:, 0] == first[:, 1]}
