"""Differences between arms, paired over the seeds that they share, with intervals and tests for the whole table.

Every arm is compared with a reference: the arm under batch norm whose other columns are the same, else the first of
these. A difference comes with its 95 % interval by Student's t. Its p-value is that of an exact permutation test, which
gives each seed's difference either sign (Fisher 1935), up to `EXACT` seeds, and of the paired t-test beyond. Over all
comparisons of the table p-values are corrected by Holm (1979), so that the chance of one false finding or more among
them is at most 5 %.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from experiments.study.tables.chance import guessing, headline_in
from experiments.study.tables.domain_drop import DROP, TARGETS, drop_measure, has_domains, seed_scores

if TYPE_CHECKING:
    from pandas import DataFrame, Series

    from experiments.study.tables.table import Table
    from lightning_modules.measures import Measure

LEVEL = 0.05
"""Largest chance of a false finding in a table, and one less the intervals' coverage."""
EXACT = 12
"""Most seeds for which all signs are tried; with more, 4096 and more of them, the t-test says the same."""
PERMUTATION, PAIRED, WELCH = "permutation", "paired t", "Welch's t"
SAID = 4
"""Most differences that a sentence lists."""


@dataclass(frozen=True)
class Difference:
    """How much one arm differs from its reference in one score, in the unit shown.

    Attributes:
        n: seeds that both have. mean: of the paired differences, arm minus reference.
        low, high: the 95 % interval; NaN for one seed.
        p: of no difference; 1 for one seed. holm: the same, corrected for all comparisons of the table.
        test: which p is: of `PERMUTATION`, `PAIRED` or `WELCH`. t: the p-value of the t-test, NaN for one seed.
        enough: whether so many seeds could show a difference at all, however large.
    """

    arm: str
    reference: str
    score: str
    n: int
    mean: float
    low: float
    high: float
    p: float
    t: float
    test: str
    holm: float = 1.0
    enough: bool = False

    @property
    def found(self) -> bool:
        """Whether there is a difference, at the table's level."""
        return self.holm <= LEVEL


def differences(
    results: DataFrame, columns: Mapping[str, Mapping] | None = None, headline: Measure | None = None
) -> list[Difference]:
    """The differences of a study's results, corrected for all of them.

    Where arms are evaluated on a source and on targets, the mean of the targets and the drop are compared, else the
    mean of the headline measure over the domains.

    Args:
        results: in long form. columns: what tells each arm from the others, by the arm's name.
        headline: by default the measure that `headline_of` finds.
    """
    headline = headline or (headline_in(results) if len(results) else None)
    if headline is None:
        return []
    scores, found = scores_by_seed(results, headline), []
    for arm, reference in references(list(dict.fromkeys(scores.index.get_level_values(0))), columns or {}).items():
        for score in scores:
            values = paired(scores[score], arm, reference)
            if len(values):
                found.append(compared(arm, reference, str(score), values))
    return corrected(found)


def scores_by_seed(results: DataFrame, headline: Measure) -> DataFrame:
    """What is compared: a row for each (arm, seed), a column for each score, in the unit shown.

    Trainings at chance are left out: who has learned nothing has nothing to lose.
    """
    nothing = guessing(results, headline)
    results = results[
        ~results.set_index(["arm", "seed"]).index.isin([*zip(nothing["arm"], nothing["seed"], strict=True)])
    ]
    if has_domains(results):
        return seed_scores(results, headline)[[TARGETS, DROP]]
    rows = results[results["measure"] == headline.name]
    rows = rows[rows["part"] == "clean"] if "part" in rows else rows
    means = headline.scale * rows.groupby(["arm", "seed"], sort=False)["value"].mean()
    return means.to_frame(headline.label)


def references(arms: Sequence[str], columns: Mapping[str, Mapping]) -> dict[str, str]:
    """The reference of each arm that has one: of those that are alike but for the norm, batch norm's or the first."""
    groups: dict[str, list[str]] = {}
    if not arms:
        return {}
    for arm in arms:
        others = {key: value for key, value in columns.get(arm, {}).items() if key != "norm"}
        groups.setdefault(str(sorted(others.items(), key=str)), []).append(arm)
    if all(len(group) == 1 for group in groups.values()):  # they differ in something else than the norm
        groups = {"": list(arms)}
    found = {}
    for group in groups.values():
        reference = next((arm for arm in group if columns.get(arm, {}).get("norm", arm) == "bn"), group[0])
        found |= {arm: reference for arm in group if arm != reference}
    return found


def of_arm(scores: Series, arm: str) -> Series:
    """An arm's scores by seed, where they are known."""
    known = scores.dropna()
    return known.xs(arm, level=0) if arm in known.index.get_level_values(0) else known.iloc[:0].droplevel(0)


def paired(scores: Series, arm: str, reference: str) -> np.ndarray:
    """The differences of the seeds that both arms have, (seeds,)."""
    return (of_arm(scores, arm) - of_arm(scores, reference)).dropna().to_numpy(float)


def compared(arm: str, reference: str, score: str, values: np.ndarray) -> Difference:
    """The difference of paired values, (seeds,), not yet corrected."""
    n, mean = len(values), float(values.mean())
    if n < 2:
        return Difference(arm, reference, score, n, mean, np.nan, np.nan, 1.0, np.nan, PERMUTATION)
    test = PERMUTATION if n <= EXACT else PAIRED
    if not values.std():  # all the same: t is 0 / 0 or infinite
        low, high, t = mean, mean, 1.0 if mean == 0 else 0.0
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of precision, where differences are nearly the same
            found = stats.ttest_1samp(values, 0.0)
            low, high = map(float, found.confidence_interval(1 - LEVEL))
            t = float(found.pvalue)
    return Difference(arm, reference, score, n, mean, low, high, sign_flips(values) if n <= EXACT else t, t, test)


def unpaired(arm: str, reference: str, score: str, ours: np.ndarray, theirs: np.ndarray) -> Difference:
    """The difference of two arms that share no seeds, by Welch's t-test; `n` is the smaller number of seeds."""
    n, mean = min(len(ours), len(theirs)), float(ours.mean() - theirs.mean())
    if n < 2 or not (ours.std() or theirs.std()):
        return Difference(arm, reference, score, n, mean, np.nan, np.nan, 1.0, np.nan, WELCH)
    found = stats.ttest_ind(ours, theirs, equal_var=False)
    low, high = map(float, found.confidence_interval(1 - LEVEL))
    return Difference(arm, reference, score, n, mean, low, high, float(found.pvalue), float(found.pvalue), WELCH)


def sign_flips(values: np.ndarray) -> float:
    """The two-sided p-value of the exact permutation test of paired differences (seeds,): the share of all choices of
    their signs whose sum is as far from zero."""
    signs = np.array(list(product((1.0, -1.0), repeat=len(values))))
    sums = np.abs(signs @ values)
    return float((sums >= abs(values.sum()) * (1 - 1e-9)).mean())


def holm(pvalues: Sequence[float]) -> list[float]:
    """p-values corrected by Holm's step-down rule: the k-th smallest of m is multiplied by m - k + 1, and none becomes
    smaller than one before it (Holm, Scandinavian Journal of Statistics 1979)."""
    order = np.argsort(pvalues, kind="stable")
    steps = np.asarray(pvalues, float)[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if len(order) else steps
    return corrected.tolist()


def corrected(found: list[Difference]) -> list[Difference]:
    """The differences with Holm's correction over all of two seeds or more."""
    tested = [one for one in found if one.n > 1]
    raised = iter(holm([one.p for one in tested]))
    return [
        replace(one, holm=next(raised), enough=len(tested) * least_p(one.n, one.test) <= LEVEL) if one.n > 1 else one
        for one in found
    ]


def least_p(n: int, test: str) -> float:
    """The smallest p-value that so many seeds can have."""
    return 2.0 / 2**n if test == PERMUTATION else 0.0


def seeds_needed(comparisons: int) -> int:
    """The seeds with which a table of so many comparisons can show a difference."""
    return next(
        n for n in range(2, EXACT + 2) if comparisons * least_p(n, PERMUTATION if n <= EXACT else PAIRED) <= LEVEL
    )


def with_differences(
    table: Table | None, results: DataFrame, columns: Mapping[str, Mapping], headline: Measure | None
) -> Table | None:
    """The table with the differences between its arms in words under it; arguments as for `differences`."""
    if table is None:
        return None
    said = in_words(differences(results, columns, headline), digits_of(headline))
    return replace(table, legend=f"{table.legend} {said}") if said else table


def in_words(found: Iterable[Difference], digits: Mapping[str, int] | None = None) -> str:
    """The differences in a sentence or two for below a table; empty where no arm has two seeds.

    Args:
        digits: decimals of each score; 1 where not given.
    """
    found = [one for one in found if one.n > 1]
    if not found:
        return ""
    seeds = sorted({one.n for one in found})
    counted = f"{seeds[0]} seeds" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
    if not any(one.enough for one in found):
        comparisons = f"{len(found)} comparison{'s' * (len(found) > 1)}"
        return (
            f"{counted} are too few to tell a difference from chance: "
            f"{comparisons} need{'s' * (len(found) == 1)} {seeds_needed(len(found))}."
        )
    sure = sorted((one for one in found if one.found), key=lambda one: one.holm)
    if not sure:
        return f"Over {counted}, no difference is larger than chance can make it (p after Holm's correction)."
    said = [sentence(one, (digits or {}).get(one.score, 1)) for one in sure[:SAID]]
    more = f"; and {len(sure) - SAID} more" if len(sure) > SAID else ""
    return f"Differences that chance does not explain, over {counted}: {'; '.join(said)}{more}."


def sentence(one: Difference, digits: int = 1) -> str:
    """One difference in words, with its interval and corrected p-value."""
    low, high = (f"{edge:+.{digits}f}" for edge in (one.low, one.high))
    return (
        f"{one.arm} {one.mean:+.{digits}f} in {one.score} against {one.reference} [{low}, {high}], p {p_text(one.holm)}"
    )


def p_text(p: float) -> str:
    """A p-value as it is printed: "0.03", "0.004", "<0.001"."""
    return "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.01 else f"{p:.2f}"


def digits_of(headline: Measure | None) -> dict[str, int]:
    """Decimals of the scores that are compared."""
    if headline is None:
        return {}
    return {headline.label: headline.digits, TARGETS: headline.digits, DROP: drop_measure(headline).digits}
