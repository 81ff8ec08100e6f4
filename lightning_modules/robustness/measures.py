"""The measures of robustness, in float64. Errors and probabilities are in [0, 1]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lightning_modules.robustness.alexnet import ALEXNET_CLEAN_ERROR, ALEXNET_ERRORS, ALEXNET_FLIP_PROBABILITIES

BINS = 15
"""Number of bins of the calibration error, as in Guo et al. (2017)."""


def corruption_errors(errors: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """CE_c = sum_s E_{s,c} / sum_s E^AlexNet_{s,c} (Hendrycks, Dietterich, ICLR 2019, section 3.3); 1 is AlexNet's.

    Args:
        errors: for each corruption, the top-1 errors at severities 1 to 5, on ImageNet's 1000 classes at 224 x 224.

    Raises:
        ValueError: a corruption is not ImageNet-C's, or lacks a severity.
    """
    _check(errors)
    return {name: float(np.sum(own) / np.sum(ALEXNET_ERRORS[name])) for name, own in errors.items()}


def mean_corruption_error(errors: Mapping[str, Sequence[float]]) -> float:
    """mCE, the mean of CE_c over all 15 corruptions (same section).

    Raises:
        ValueError: one of the 15 is missing, or one of its severities.
    """
    _check_complete(errors)
    return float(np.mean(list(corruption_errors(errors).values())))


def relative_mean_corruption_error(errors: Mapping[str, Sequence[float]], clean_error: float) -> float:
    """Relative mCE: the mean of sum_s (E_{s,c} - E_clean) / sum_s (E^AlexNet_{s,c} - E^AlexNet_clean) (same section).

    Raises:
        ValueError: one of the 15 corruptions is missing, or one of its severities.
    """
    _check_complete(errors)
    ratios = [
        np.sum(np.subtract(own, clean_error)) / np.sum(np.subtract(ALEXNET_ERRORS[name], ALEXNET_CLEAN_ERROR))
        for name, own in errors.items()
    ]
    return float(np.mean(ratios))


def mean_flip_rate(flips: Mapping[str, float]) -> float:
    """mFR, the mean over the ten perturbations of FP_p / FP^AlexNet_p (same paper, section 3.3).

    AlexNet's are unverified: see `alexnet.ALEXNET_FLIP_PROBABILITIES`.

    Raises:
        ValueError: the perturbations are not ImageNet-P's ten.
    """
    if flips.keys() != ALEXNET_FLIP_PROBABILITIES.keys():
        raise ValueError(f"mFR is a mean over {', '.join(ALEXNET_FLIP_PROBABILITIES)}, not {', '.join(flips)}.")
    return float(np.mean([flip / ALEXNET_FLIP_PROBABILITIES[name] for name, flip in flips.items()]))


def ranking(scores: np.ndarray) -> np.ndarray:
    """Classes sorted by decreasing score, int (..., classes); of equal scores the first class comes first."""
    return np.argsort(-scores, axis=-1, kind="stable")


def flip_probability(order: np.ndarray, against_first: bool) -> np.ndarray:
    """FP of each sequence: the share of frames whose top-1 differs from the previous frame's (same section).

    Args:
        order: int (sequences, frames, classes), from `ranking`.
        against_first: compare with the first frame instead, as ImageNet-P does for noise, which has no order in time.

    Returns:
        float64 (sequences,).
    """
    before, after = _pairs(order, against_first)
    return np.mean(before[..., 0] != after[..., 0], axis=1, dtype=np.float64)


def top5_distance(order: np.ndarray, against_first: bool) -> np.ndarray:
    """Unnormalised top-5 distance of each sequence, the mean over its pairs of frames (same section).

    d = sum_{i=1..5} sum_{j=min(i,s(i))+1..max(i,s(i))} 1[1 <= j-1 <= 5], where s(i) is the rank in the later frame of
    the class with rank i in the earlier one. The inner sum is |i - min(s(i), 6)|. d is not symmetric; the direction is
    that of the benchmark's code.

    Args:
        order: int (sequences, frames, classes), from `ranking`.
        against_first: compare with the first frame instead of the previous one.

    Returns:
        float64 (sequences,).
    """
    before, after = _pairs(order, against_first)
    rank_after = np.argsort(after, axis=-1)  # of each class, from 0
    ranks = np.take_along_axis(rank_after, before[..., :5], axis=-1) + 1
    ranks_before = np.arange(1, ranks.shape[-1] + 1)
    return np.abs(ranks_before - np.minimum(ranks, 6)).sum(axis=-1).mean(axis=1, dtype=np.float64)


def calibration_error(confidences: np.ndarray, correct: np.ndarray) -> float:
    """Expected calibration error (Guo et al., ICML 2017, equation 3): sum_m |B_m|/n |accuracy(B_m) - confidence(B_m)|.

    There are 15 bins of equal width, ((m-1)/15, m/15]. (torchmetrics has a 16th bin for confidences that round to 1.)

    Args:
        confidences: float (n,), the probability of each predicted class.
        correct: bool (n,), whether the prediction is right.
    """
    confidences, correct = np.asarray(confidences, np.float64), np.asarray(correct, np.float64)
    bins = np.clip(np.ceil(confidences * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = np.bincount(bins, weights=correct - confidences, minlength=BINS)
    return float(np.abs(gaps).sum() / len(confidences))


def _pairs(order: np.ndarray, against_first: bool) -> tuple[np.ndarray, np.ndarray]:
    after = order[:, 1:]
    return (np.broadcast_to(order[:, :1], after.shape) if against_first else order[:, :-1]), after


def _check(errors: Mapping[str, Sequence[float]]) -> None:
    for name, own in errors.items():
        if name not in ALEXNET_ERRORS:
            raise ValueError(f"{name!r} is none of ImageNet-C's corruptions: {', '.join(ALEXNET_ERRORS)}.")
        if len(own) != 5:
            raise ValueError(f"{name}: a corruption error sums over 5 severities, not {len(own)}.")


def _check_complete(errors: Mapping[str, Sequence[float]]) -> None:
    missing = [name for name in ALEXNET_ERRORS if name not in errors]
    if missing:
        raise ValueError(f"mCE is a mean over 15 corruptions: {', '.join(missing)} missing.")
    _check(errors)
