"""Verdicts: whether what was measured by seed speaks for a claim, against it, or leaves it open.

For each claim the measure's mean over seeds is compared with minus its margin by Student's one-sided t-test, once for
"above" and once for "below"; each of these families of p-values is corrected by Holm for all claims that were measured.
A claim is held if "above" is found at 5 %, not held if "below" is, and otherwise undecided. It is the t-test and not
the permutation test, which with three seeds finds nothing whatever they show; it assumes that the differences of seeds
are normally distributed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from experiments.study.tables.differences import LEVEL, holm

HELD, NOT_HELD, UNDECIDED = "held", "not held", "undecided"


@dataclass(frozen=True)
class Verdict:
    """What came out of a claim.

    Attributes:
        values_by_seed: the measure by seed.
        mean, low, high: over the seeds, with the two-sided 95 % interval; NaN for one seed.
        p: of the verdict's own side (of the smaller one, if undecided), corrected.
    """

    values_by_seed: tuple[float, ...]
    mean: float
    low: float
    high: float
    p: float
    verdict: str


def verdicts_of(measured: Mapping[str, tuple[np.ndarray, float]]) -> dict[str, Verdict]:
    """The verdicts on claims by key.

    Args:
        measured: of each claim the measure by seed (seeds,), one at least, and the claim's margin.
    """
    tested = {key: one_sided(*one) for key, one in measured.items() if len(one[0]) > 1}  # one seed tests nothing
    sides = [dict(zip(tested, holm(side), strict=True)) for side in zip(*tested.values(), strict=True)] or [{}, {}]
    return {key: _verdict(values, *(side.get(key, 1.0) for side in sides)) for key, (values, _) in measured.items()}


def one_sided(values: np.ndarray, margin: float) -> tuple[float, float]:
    """The p-values of a mean above and of a mean below minus the margin, of two seeds or more."""
    shifted = np.asarray(values, float) + margin
    if not shifted.std():
        return (0.0, 1.0) if shifted[0] > 0 else (1.0, 0.0) if shifted[0] < 0 else (1.0, 1.0)
    p = float(stats.ttest_1samp(shifted, 0.0, alternative="greater").pvalue)
    return p, 1 - p


def _verdict(values: np.ndarray, above: float, below: float) -> Verdict:
    values = np.asarray(values, float)
    mean, low, high = float(values.mean()), np.nan, np.nan
    if len(values) > 1:
        half = stats.t.ppf(1 - LEVEL / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
        low, high = mean - half, mean + half
    verdict = HELD if above <= LEVEL else NOT_HELD if below <= LEVEL else UNDECIDED
    return Verdict(tuple(map(float, values)), mean, float(low), float(high), min(above, below), verdict)
