"""The summary of a robustness evaluation for a table, and when it may be divided by AlexNet's errors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lightning_modules.robustness.alexnet import ALEXNET_ERRORS, ALEXNET_FLIP_PROBABILITIES
from lightning_modules.robustness.measures import (
    mean_corruption_error,
    mean_flip_rate,
    relative_mean_corruption_error,
)

if TYPE_CHECKING:
    from lightning_modules.robustness.evaluator import EvaluatedNetwork


def summary(rows: Sequence[dict], alexnet: bool = False) -> dict[str, float]:
    """The measures of one network for a table, averaged over conditions and severities.

    Args:
        rows: the rows of one network from `evaluate`.
        alexnet: whether results may be divided by AlexNet's errors, because the published files of ImageNet-C and -P
            were evaluated and `compares_with_alexnet` is true. Then mCE, relative mCE and mFR are computed if all
            values for them are available.

    Returns:
        Those of these that were measured: top-1, top-5, NLL, ECE, each appearance shift's top-1, `mean error,
        corrupted`, mCE, relative mCE, `flip probability`, mFR, `top-5 distance`, consistency. All except NLL and top-5
        distance are in per cent.
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
    if alexnet and flips.keys() == ALEXNET_FLIP_PROBABILITIES.keys():
        found["mFR"] = 100 * mean_flip_rate(flips)
    distances = [row["value"] for row in rows if row["measure"] == "top5_distance"]
    if distances:
        found["top-5 distance"] = float(np.mean(distances))
    stays = [row["value"] for row in rows if row["part"] == "consistency"]
    return found | ({"consistency": 100 * stays[0]} if stays else {})


def compares_with_alexnet(evaluated: EvaluatedNetwork, labels: np.ndarray) -> bool:
    """Whether errors on published files may be divided by AlexNet's: only for all 1000 ImageNet classes at 224.

    Errors on generated corruptions may never, because AlexNet's are those on the published files.

    Args:
        labels: labels of the evaluated files.
    """
    wnids = len(evaluated.classes) == 1000 and all(re.fullmatch(r"n\d{8}", name) for name in evaluated.classes)
    return wnids and evaluated.size == 224 and len(np.unique(labels)) == 1000
