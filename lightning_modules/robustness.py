"""How robust trained classification networks are: one evaluator, for studies at their end and for `eval_robustness.py`.

Five parts, each of them asked for by name:

- clean: top-1, top-5 (with more than five classes), negative log-likelihood, expected calibration error;
- shifts: top-1 under IBN-Net's appearance shifts (Pan et al., ECCV 2018, table 3);
- corruptions: error under ImageNet-C's 15 corruptions (Hendrycks, Dietterich, ICLR 2019);
- perturbations: flip probability and top-5 distance along ImageNet-P's ten sequences (same paper);
- consistency: share of images whose top-1 stays when the crop moves (Zhang, ICML 2019).

Networks that see images of one size are judged on the same batches, so that each image is corrupted once for all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from datamodules.appearance_shifts import APPEARANCE_SHIFTS
from datamodules.corruptions import CORRUPTIONS
from datamodules.perturbations import NOISES, PERTURBATIONS
from lightning_modules import robustness_views as views
from lightning_modules.imagenet_c import ALEXNET_ERRORS, SEVERITIES
from lightning_modules.robustness_measures import (
    calibration_error,
    flip_probability,
    mean_corruption_error,
    mean_flip_rate,
    ranking,
    relative_mean_corruption_error,
    top5_distance,
)
from lightning_modules.robustness_views import JudgedCrop

PARTS = ("clean", "shifts", "corruptions", "perturbations", "consistency")
FRAMES = 30
"""About as many has a sequence; only the size of loaded batches depends on it."""


@dataclass(frozen=True)
class Judged:
    """A network, and how images reach it."""

    name: str
    """What its rows are called."""
    net: nn.Module
    """Normalised images float (N, 3, size, size) -> scores (N, classes), on whatever device it lies."""
    size: int
    """Pixels of a side."""
    resize: int | None
    """Shorter side before the centre crop; None: images are taken as they are."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    """Of the channels, in units of 0 to 1."""
    classes: tuple[str, ...]
    """Their names, in the order of the scores."""
    interpolation: str = "bilinear"
    """What images are resized by: bilinear or bicubic, smoothing either way."""

    @property
    def crop(self) -> JudgedCrop:
        """What of an image it sees."""
        return JudgedCrop(self.size, self.resize, self.interpolation)


@dataclass(frozen=True)
class _Pass:
    """One way through the images: what is shown, and what the scores are turned into."""

    part: str
    samples: object
    indices: np.ndarray
    view: views.View
    views: int  # of an image, about
    measure: Callable[[np.ndarray, np.ndarray], dict]  # (scores (N, K, classes), labels (N,)) -> {key: values (N,)}


def evaluate(
    judged: Sequence[Judged],
    samples,
    parts: Sequence[str] = PARTS,
    *,
    batch_size: int = 128,
    severities: Sequence[int] = SEVERITIES,
    seed: int = 0,
    frames: int | None = None,
    images: int | None = None,
    workers: int = 0,
    published: Callable[[str], object] | None = None,
    progress: bool = False,
) -> list[dict]:
    """Judge networks on the same images, in evaluation mode; their training modes are left as they were.

    Args:
        judged: with names of their own. Those that see the same crop share every corrupted image.
        samples: a classification set: `samples[i]` is (uint8 RGB (H, W, 3), label), `samples.labels` all labels.
        parts: of PARTS.
        batch_size: images that go through a network at once; nothing else depends on it.
        severities: of the corruptions.
        seed: for corruptions and crops, which are drawn for each image from (seed, its index).
        frames: of a perturbation sequence; None for ImageNet-P's.
        images: judge so many, spread over the classes; None for all.
        workers: loader processes.
        published: gives the samples of "imagenet-c/fog/3" or "imagenet-p/tilt", to judge published files instead of
            what is generated here.
        progress: show a progress bar.

    Returns:
        Rows {network, part, condition, severity, measure, value}. Severity is None but for corruptions. Accuracies,
        errors, flip probabilities and consistencies are in [0, 1].

    Raises:
        ValueError: an unknown part or severity, names that are not distinct, no images, or scores that do not fit the
            classes.
    """
    _check(judged, samples, parts, severities)
    chosen = partial(views.spread, count=images) if images else _all
    work: list[tuple[list[Judged], _Pass]] = []
    for crop in dict.fromkeys(one.crop for one in judged):
        like = [one for one in judged if one.crop == crop]
        settings = {"severities": severities, "seed": seed, "frames": frames, "published": published}
        for part in dict.fromkeys(parts):
            work += [(like, each) for each in _PASSES[part](samples=samples, crop=crop, chosen=chosen, **settings)]
    rows: list[dict] = []
    total = sum(len(each.indices) * each.views for _, each in work)
    with _evaluating([one.net for one in judged]), _bar(total if progress else 0) as advance:
        for like, each in work:
            rows += _judge(like, each, batch_size, workers, advance)
    order = {one.name: i for i, one in enumerate(judged)}
    return sorted(rows, key=lambda row: order[row["network"]])


def summary(rows: Sequence[dict], alexnet: bool = False) -> dict[str, float]:
    """One network's rows as the measures that a table shows, means over conditions and severities.

    Args:
        rows: of one network, as `evaluate` gives them.
        alexnet: whether AlexNet's errors may be divided by: see `compares_with_alexnet`. Then mCE, relative mCE and mFR
            are reckoned, where all that they take was measured.

    Returns:
        What was measured, of: top-1, top-5, NLL, ECE, each appearance shift's top-1, `mean error, corrupted`, mCE,
        relative mCE, `flip probability`, mFR, `top-5 distance`, consistency. All but NLL and top-5 distance are in per
        cent.
    """
    found: dict[str, float] = {}
    clean = {row["measure"]: row["value"] for row in rows if row["part"] == "clean"}
    for measure, name, unit in (("top1", "top-1", 100), ("top5", "top-5", 100), ("nll", "NLL", 1), ("ece", "ECE", 100)):
        if measure in clean:
            found[name] = unit * clean[measure]
    found |= {row["condition"]: 100 * row["value"] for row in rows if row["part"] == "shifts"}
    errors: dict[str, list[float]] = {}
    for row in sorted((row for row in rows if row["part"] == "corruptions"), key=lambda row: row["severity"]):
        errors.setdefault(row["condition"], []).append(row["value"])
    if errors:
        found["mean error, corrupted"] = 100 * float(np.mean([np.mean(own) for own in errors.values()]))
    if alexnet and errors.keys() == ALEXNET_ERRORS.keys() and all(len(own) == 5 for own in errors.values()):
        found["mCE"] = 100 * mean_corruption_error(errors)
        if "top1" in clean:
            found["relative mCE"] = 100 * relative_mean_corruption_error(errors, 1 - clean["top1"])
    flips = {row["condition"]: row["value"] for row in rows if row["measure"] == "flip"}
    if flips:
        found["flip probability"] = 100 * float(np.mean(list(flips.values())))
    if alexnet and len(flips) == len(PERTURBATIONS):
        found["mFR"] = 100 * mean_flip_rate(flips)
    distances = [row["value"] for row in rows if row["measure"] == "top5_distance"]
    if distances:
        found["top-5 distance"] = float(np.mean(distances))
    stays = [row["value"] for row in rows if row["part"] == "consistency"]
    return found | ({"consistency": 100 * stays[0]} if stays else {})


def compares_with_alexnet(judged: Judged, labels: np.ndarray) -> bool:
    """Whether errors on these images may be divided by AlexNet's: ImageNet's 1000 classes, all of them there, at 224.

    Args:
        labels: of the images that are judged.
    """
    wnids = len(judged.classes) == 1000 and all(re.fullmatch(r"n\d{8}", name) for name in judged.classes)
    return wnids and judged.size == 224 and len(np.unique(labels)) == 1000


def _check(judged: Sequence[Judged], samples, parts: Sequence[str], severities: Sequence[int]) -> None:
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise ValueError(f"unknown part {unknown[0]!r}: choose from {', '.join(PARTS)}.")
    if not set(severities) <= set(SEVERITIES) or not severities:
        raise ValueError(f"severities are of 1 to 5, not {', '.join(map(str, severities)) or 'none at all'}.")
    if len({one.name for one in judged}) < len(judged):
        raise ValueError("two networks of one name could not be told apart in the results.")
    if not len(samples):
        raise ValueError("there are no images to judge on.")


def _all(labels: np.ndarray) -> np.ndarray:
    return np.arange(len(labels))


@contextmanager
def _evaluating(nets: list[nn.Module]) -> Iterator[None]:
    """Evaluation mode, after which every module is in the mode it was in."""
    modes = [(module, module.training) for net in nets for module in net.modules()]
    try:
        for net in nets:
            net.eval()
        with torch.inference_mode():
            yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _bar(total: int) -> Iterator[Callable[[_Pass, int], None]]:
    """A progress bar over so many views, or none for 0; gives what to call with a pass and the images done of it."""
    if not total:
        yield lambda each, images: None
        return
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("left:"), TimeRemainingColumn())
    with Progress(TextColumn("{task.description}"), *columns) as progress:
        task = progress.add_task("judging", total=total)
        yield lambda each, images: progress.update(task, advance=images * each.views, description=each.part)


def _judge(group: list[Judged], each: _Pass, batch_size: int, workers: int, advance: Callable) -> list[dict]:
    """One pass over the images with several networks; a row for each network and key."""
    found: list[dict] = [{} for _ in group]
    images = max(1, batch_size // each.views)
    for shown, labels in views.loader(each.samples, each.indices, each.view, images, workers):
        scores = [_scores(one, shown, batch_size) for one in group]  # all are under way before the first is waited for
        for one, values, tensor in zip(group, found, scores, strict=True):
            if tensor.shape[-1] != len(one.classes):
                raise ValueError(f"{one.name} gives {tensor.shape[-1]} scores for its {len(one.classes)} classes.")
            measured = each.measure(tensor.float().cpu().numpy().astype(np.float64), labels.numpy())
            for key, value in measured.items():
                values.setdefault(key, []).append(value)
        advance(each, len(labels))
    rows = []
    for one, values in zip(group, found, strict=True):
        whole = {key: np.concatenate(parts) for key, parts in values.items()}
        for (condition, severity, measure), value in _reduced(whole).items():
            about = {"network": one.name, "part": each.part, "condition": condition, "severity": severity}
            rows.append(about | {"measure": measure, "value": value})
    return rows


def _scores(one: Judged, shown: Tensor, batch_size: int) -> Tensor:
    """Scores (N, K, classes) of views uint8 (N, K, size, size, 3)."""
    like = next(one.net.parameters(), torch.empty(0))
    mean, std = (torch.tensor(values, device=like.device).view(3, 1, 1) for values in (one.mean, one.std))
    scores = []
    for part in shown.flatten(0, 1).split(batch_size):
        images = part.to(like.device, non_blocking=True).permute(0, 3, 1, 2).float().div_(255)
        scores.append(one.net(((images - mean) / std).contiguous()))
    return torch.cat(scores).unflatten(0, shown.shape[:2])


def _reduced(whole: dict) -> dict:
    """Means over images; what the calibration error is made of becomes the calibration error."""
    confidences = whole.pop(("clean", None, "confidence"), None)
    means = {key: float(np.mean(values)) for key, values in whole.items()}
    if confidences is not None:
        means["clean", None, "ece"] = calibration_error(confidences, whole["clean", None, "top1"])
    return means


def _clean(*, samples, crop, chosen, **_) -> Iterator[_Pass]:
    yield _Pass("clean", samples, chosen(samples.labels), views.plain(crop), 1, _clean_measures)


def _shifts(*, samples, crop, chosen, **_) -> Iterator[_Pass]:
    measure = partial(_top1, keys=[(name, None, "top1") for name in APPEARANCE_SHIFTS])
    view = views.shifted(crop)
    yield _Pass("shifts", samples, chosen(samples.labels), view, len(APPEARANCE_SHIFTS), measure)


def _corruptions(*, samples, crop, chosen, severities, seed, published, **_) -> Iterator[_Pass]:
    for name in CORRUPTIONS:
        if published:  # the files are cut to 224 already
            for severity in severities:
                files = published(f"imagenet-c/{name}/{severity}")
                measure = partial(_errors, keys=[(name, severity, "error")])
                yield _Pass("corruptions", files, chosen(files.labels), views.plain(JudgedCrop(crop.size)), 1, measure)
        else:
            measure = partial(_errors, keys=[(name, severity, "error") for severity in severities])
            view = views.corrupted(crop, name, severities, seed)
            yield _Pass("corruptions", samples, chosen(samples.labels), view, len(severities), measure)


def _perturbations(*, samples, crop, chosen, seed, frames, published, **_) -> Iterator[_Pass]:
    for name in PERTURBATIONS:
        measure = partial(_sequence_measures, name=name)
        if published:
            files, view = published(f"imagenet-p/{name}"), views.published_sequence(crop.size)
        else:
            files, view = samples, views.sequence(crop, name, frames, seed)
        yield _Pass("perturbations", files, chosen(files.labels), view, frames or FRAMES, measure)


def _consistency(*, samples, crop, chosen, seed, **_) -> Iterator[_Pass]:
    view = views.two_crops(crop, seed)
    yield _Pass("consistency", samples, chosen(samples.labels), view, 2, _agreement)


_PASSES = {
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
