"""Evaluates the robustness of trained classification networks, at the end of a study or from `eval_robustness.py`.

There are five parts, selected by name:

- clean: top-1, top-5 (with more than five classes), negative log-likelihood, expected calibration error;
- shifts: top-1 under IBN-Net's appearance shifts (Pan et al., ECCV 2018);
- corruptions: error under ImageNet-C's 15 corruptions (Hendrycks, Dietterich, ICLR 2019);
- perturbations: flip probability and top-5 distance along ImageNet-P's ten sequences (same paper);
- consistency: share of images with the same prediction for two shifted crops (Zhang, ICML 2019).

Networks with the same input size are evaluated on the same batches, so that each image is corrupted only once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from datamodules.classification.transforms import statistics
from datamodules.corruptions.frost import Photographs
from lightning_modules.robustness import views
from lightning_modules.robustness.alexnet import SEVERITIES
from lightning_modules.robustness.measures import calibration_error
from lightning_modules.robustness.passes import PASSES, Pass
from lightning_modules.robustness.progress import progress_bar
from lightning_modules.robustness.views import EvaluationCrop

PARTS = tuple(PASSES)


@dataclass(frozen=True)
class EvaluatedNetwork:
    """A network, and how its input images are prepared."""

    name: str
    """Its name in rows of results."""
    net: nn.Module
    """Maps normalised images, float (N, 3, size, size), to scores (N, classes); on any device."""
    size: int
    """Side of the input in pixels."""
    resize: int | None
    """Shorter side before the centre crop; None: images are not resized."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    """Mean and standard deviation of the channels, for values from 0 to 1."""
    classes: tuple[str, ...]
    """Names of the classes, in the order of the scores."""
    interpolation: str = "bilinear"
    """How images are resized: bilinear or bicubic, both with antialiasing."""
    squash: bool = False
    """Whether both sides, instead of the shorter one, are resized to `resize`."""

    @property
    def crop(self) -> EvaluationCrop:
        """The part of an image that the network gets."""
        return EvaluationCrop(self.size, self.resize, self.interpolation, self.squash)

    @classmethod
    def trained(cls, name: str, module) -> EvaluatedNetwork:
        """A `ClassificationModule`, with the evaluation images of its recipe."""
        recipe = module.recipe
        mean, std = statistics(recipe.normalisation)
        resizing = {"interpolation": recipe.interpolation, "squash": recipe.squash}
        return cls(name, module, recipe.image_size, recipe.resize, mean, std, module.classes, **resizing)


def evaluate(
    evaluated: Sequence[EvaluatedNetwork],
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
    frost: Photographs | None = None,
    progress: bool = False,
) -> list[dict]:
    """Evaluate networks on the same images, in evaluation mode; modes are restored afterwards.

    Args:
        evaluated: networks with distinct names. Those with the same crop share every corrupted image.
        samples: a classification set: `samples[i]` is (uint8 RGB (H, W, 3), label), `samples.labels` all labels.
        parts: names in PARTS.
        batch_size: images in one batch; results do not depend on it.
        severities: severities of the corruptions, from 1 to 5.
        seed: for corruptions, drawn for each image from (seed, its index), and for crops, from (seed, index // 8).
        frames: number of frames of a perturbation sequence; None: as in ImageNet-P.
        images: evaluate so many images, spread over the classes; None: all.
        workers: number of loader processes.
        published: returns the samples of "imagenet-c/fog/3" or "imagenet-p/tilt", to evaluate published files instead
            of generated ones.
        frost: ImageNet-C's photographs of frost; None for painted ones.
        progress: show the progress.

    Returns:
        Rows {network, part, condition, severity, measure, value}. Severity is None except for corruptions. Accuracies,
        errors, flip probabilities and consistencies are in [0, 1].

    Raises:
        ValueError: an unknown part or severity, equal names, no images, or scores that do not fit the classes.
    """
    _check(evaluated, samples, parts, severities)
    chosen = partial(views.spread, count=images) if images else _all
    work: list[tuple[list[EvaluatedNetwork], Pass]] = []
    for crop in dict.fromkeys(one.crop for one in evaluated):
        like = [one for one in evaluated if one.crop == crop]
        settings = {"severities": severities, "seed": seed, "frames": frames, "published": published, "frost": frost}
        for part in dict.fromkeys(parts):
            work += [(like, each) for each in PASSES[part](samples=samples, crop=crop, chosen=chosen, **settings)]
    rows: list[dict] = []
    total = sum(len(each.indices) * each.views for _, each in work)
    with _evaluating([one.net for one in evaluated]), progress_bar(total if progress else 0) as advance:
        for like, each in work:
            rows += _evaluate(like, each, batch_size, workers, advance)
    order = {one.name: i for i, one in enumerate(evaluated)}
    return sorted(rows, key=lambda row: order[row["network"]])


def _check(evaluated: Sequence[EvaluatedNetwork], samples, parts: Sequence[str], severities: Sequence[int]) -> None:
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise ValueError(f"unknown part {unknown[0]!r}: choose from {', '.join(PARTS)}.")
    if not set(severities) <= set(SEVERITIES) or not severities:
        raise ValueError(f"severities are of 1 to 5, not {', '.join(map(str, severities)) or 'none at all'}.")
    if len({one.name for one in evaluated}) < len(evaluated):
        raise ValueError("two networks of one name could not be told apart in the results.")
    if not len(samples):
        raise ValueError("there are no images to evaluate on.")


def _all(labels: np.ndarray) -> np.ndarray:
    return np.arange(len(labels))


@contextmanager
def _evaluating(nets: list[nn.Module]) -> Iterator[None]:
    """Evaluation mode within the `with` block; afterwards every module has its previous mode."""
    modes = [(module, module.training) for net in nets for module in net.modules()]
    try:
        for net in nets:
            net.eval()
        with torch.inference_mode():
            yield
    finally:
        for module, training in modes:
            module.training = training


def _evaluate(
    group: list[EvaluatedNetwork], each: Pass, batch_size: int, workers: int, advance: Callable
) -> list[dict]:
    """One pass over the images with several networks; returns a row for each network, condition and measure."""
    found: list[dict] = [{} for _ in group]
    images = max(1, batch_size // each.views)
    for shown, labels in views.loader(each.samples, each.indices, each.view, images, workers):
        scores = [_scores(one, shown, batch_size) for one in group]  # all are queued on the GPU before waiting
        for one, values, tensor in zip(group, found, scores, strict=True):
            if tensor.shape[-1] != len(one.classes):
                raise ValueError(f"{one.name} gives {tensor.shape[-1]} scores for its {len(one.classes)} classes.")
            measured = each.measure(tensor.float().cpu().numpy().astype(np.float64), labels.numpy())
            for key, value in measured.items():
                values.setdefault(key, []).append(value)
        advance(each.part, len(labels) * each.views)
    rows = []
    for one, values in zip(group, found, strict=True):
        whole = {key: np.concatenate(parts) for key, parts in values.items()}
        for (condition, severity, measure), value in _reduced(whole).items():
            about = {"network": one.name, "part": each.part, "condition": condition, "severity": severity}
            rows.append(about | {"measure": measure, "value": value})
    return rows


def _scores(one: EvaluatedNetwork, shown: Tensor, batch_size: int) -> Tensor:
    """Scores (N, K, classes) for views, uint8 (N, K, size, size, 3)."""
    like = next(one.net.parameters(), torch.empty(0))
    mean, std = (
        torch.tensor(values, device=like.device, dtype=like.dtype).view(3, 1, 1) for values in (one.mean, one.std)
    )
    scores = []
    for part in shown.flatten(0, 1).split(batch_size):
        images = part.to(like.device, non_blocking=True).permute(0, 3, 1, 2).to(like.dtype).div_(255)
        scores.append(one.net(((images - mean) / std).contiguous()))
    return torch.cat(scores).unflatten(0, shown.shape[:2])


def _reduced(whole: dict) -> dict:
    """Means over images; confidences and accuracies become the calibration error."""
    confidences = whole.pop(("clean", None, "confidence"), None)
    means = {key: float(np.mean(values)) for key, values in whole.items()}
    if confidences is not None:
        means["clean", None, "ece"] = calibration_error(confidences, whole["clean", None, "top1"])
    return means
