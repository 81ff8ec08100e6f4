"""Differences between arms: against scipy, hand-worked numbers, and tables of nothing but noise."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from experiments.study.tables.differences import (
    LEVEL,
    Difference,
    compared,
    corrected,
    differences,
    holm,
    in_words,
    p_text,
    references,
    seeds_needed,
    sign_flips,
    unpaired,
)


def results(scores: dict[str, list[float]], measure: str = "top1", roles: bool = False) -> pd.DataFrame:
    """One row a seed; with roles, the source is at 0.9 for all, and the scores are the target's."""
    rows = []
    for arm, values in scores.items():
        for seed, value in enumerate(values):
            row = {"arm": arm, "seed": seed, "part": "clean", "measure": measure}
            rows.append(row | {"domain": "b", "value": value} | ({"role": "target"} if roles else {}))
            rows += [row | {"domain": "a", "role": "source", "value": 0.9}] if roles else []
    return pd.DataFrame(rows)


@pytest.mark.parametrize("n", [2, 3, 8, 12, 13, 40])
def test_intervals_and_p_values_are_scipys(n):
    draws = np.random.default_rng(n)
    a, b = draws.normal(1, 1, n), draws.normal(0, 1, n)
    one, known = compared("a", "b", "x", a - b), stats.ttest_rel(a, b)
    assert one.t == pytest.approx(known.pvalue) and one.mean == pytest.approx((a - b).mean())
    assert (one.low, one.high) == pytest.approx(tuple(known.confidence_interval(0.95)))
    assert one.test == ("permutation" if n <= 12 else "paired t") and one.p == pytest.approx(
        one.t if n > 12 else sign_flips(a - b)
    )
    if n <= 12:
        exact = stats.permutation_test((a, b), lambda x, y, axis: (x - y).sum(axis), permutation_type="samples")
        assert one.p == pytest.approx(exact.pvalue)


def test_signs_by_hand():
    assert sign_flips(np.array([1.0, 2.0, 3.0])) == 2 / 8  # only +++ and --- have a sum of 6
    assert sign_flips(np.array([1.0, 2.0, -3.0])) == 1.0  # the sum is 0
    assert sign_flips(np.array([3.0, 2.0, -1.0])) == 4 / 8  # 4 or more from zero: +++, ++-, and their opposites
    assert sign_flips(np.array([0.1, 0.1, 0.1])) == 2 / 8  # sums that rounding moves apart are the same


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == [] and holm([0.2]) == [0.2]


def test_seeds_are_paired_and_only_shared_ones_count():
    frame = results({"bn": [0.1, 0.2, 0.3, 0.4], "sn": [0.2, 0.3, float("nan")]})
    (one,) = differences(frame)
    assert (one.arm, one.reference, one.score, one.n) == ("sn", "bn", "top-1", 2)
    assert one.mean == pytest.approx(10) and one.p == 0.5
    assert differences(results({"bn": [0.1]})) == [] and differences(results({"bn": [], "sn": []})) == []
    assert differences(pd.DataFrame(columns=["arm", "seed", "part", "measure", "domain", "value"])) == []


def test_drop_and_mean_of_targets_are_compared_where_there_are_domains():
    found = differences(results({"bn": [0.5, 0.4, 0.6], "sn": [0.6, 0.7, 0.7]}, "miou", roles=True))
    assert [one.score for one in found] == ["mean of targets", "drop"]
    assert [one.mean for one in found] == pytest.approx([50 / 3, -50 / 3])


def test_each_arm_is_compared_with_batch_norm_under_what_else_is_the_same():
    columns = {f"{norm}-{depth}": {"norm": norm, "depth": depth} for depth in (18, 50) for norm in ("sn", "bn", "bin")}
    assert references(list(columns), columns) == {
        "sn-18": "bn-18", "bin-18": "bn-18", "sn-50": "bn-50", "bin-50": "bn-50"
    }  # fmt: skip
    assert references(["sn", "bn", "gn"], {}) == {"sn": "bn", "gn": "bn"}
    blurs = {"blur 0": {"blur": 0}, "blur 4": {"blur": 4}}  # no norm tells them apart
    assert references(list(blurs), blurs) == {"blur 4": "blur 0"}


def test_differences_that_are_all_the_same():
    zero, one = compared("a", "b", "x", np.zeros(6)), compared("a", "b", "x", np.ones(6))
    assert (zero.p, zero.t, zero.low, zero.high) == (1.0, 1.0, 0.0, 0.0)
    assert (one.p, one.t, one.low) == (2 / 64, 0.0, 1.0)


@pytest.mark.parametrize("seeds", [2, 3, 5, 8, 10, 20])
def test_a_table_of_noise_shows_a_difference_in_at_most_one_of_twenty(seeds):
    """1,000 tables of four arms: targets and drop, with skewed noise of each arm and noise that the arms share.

    Were the two scores independent, 4.5, 4.3 and 4.6 % of 20,000 tables would show one with 8, 10 and 12 seeds.
    """
    draws, found = np.random.default_rng(0), 0
    for _ in range(1000):
        source, target = draws.exponential(size=(2, 4, seeds)) + draws.normal(size=(2, 1, seeds))
        scores = target, source - target
        table = [compared("a", "b", "x", scores[k][arm] - scores[k][0]) for k in range(2) for arm in (1, 2, 3)]
        found += any(one.found for one in corrected(table))
    assert found <= 1000 * LEVEL
    assert bool(found) == (seeds >= seeds_needed(6))  # and a test that never finds anything would prove nothing


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_arms_without_common_seeds_show_a_difference_in_at_most_one_table_of_noise_in_twenty(seeds):
    """1,000 tables of four arms, whose noise has other spreads and numbers of seeds (Welch's t-test)."""
    draws, found = np.random.default_rng(0), 0
    for _ in range(1000):
        reference = draws.normal(0, 1, seeds)
        table = [unpaired("a", "b", "x", draws.normal(0, spread, seeds + 1), reference) for spread in (0.5, 1, 3)]
        found += any(one.found for one in corrected(table))
    assert 0 < found <= 1000 * LEVEL


def test_a_real_difference_is_found_and_said():
    draws = np.random.default_rng(0)
    noise = draws.normal(0, 0.01, (3, 10))
    frame = results({"bn": 0.5 + noise[0], "sn": 0.6 + noise[1], "gn": 0.5 + noise[2]})
    sn, gn = differences(frame)
    assert sn.found and not gn.found and sn.holm == 2 * sn.p == 4 / 1024
    said = in_words([sn, gn])
    assert said == (
        "Differences that chance does not explain, over 10 seeds: sn +9.5 in top-1 against bn [+8.4, +10.5], p 0.004."
    )


def test_too_few_seeds_are_said():
    assert [seeds_needed(count) for count in (1, 2, 4, 200)] == [6, 7, 8, 13]
    few = corrected([compared(arm, "bn", "drop", np.array([1.0, 1.1, 0.9])) for arm in ("sn", "gn")])
    assert in_words(few) == "3 seeds are too few to tell a difference from chance: 2 comparisons need 7."
    assert in_words([compared("sn", "bn", "drop", np.array([1.0]))]) == ""
    alike = corrected([compared("sn", "bn", "drop", np.array([1.0, -1.0] * 4))])
    assert in_words(alike).startswith("Over 8 seeds, no difference is larger than chance can make it")


def test_p_values_as_text():
    assert [p_text(p) for p in (0.0002, 0.0042, 0.031, 1.0)] == ["<0.001", "0.004", "0.03", "1.00"]
    assert not Difference("a", "b", "x", 1, 0.0, 0.0, 0.0, 1.0, 1.0, "permutation").found


def test_what_has_learned_nothing_is_not_compared():
    """It loses nothing, as nobody does who has nothing."""
    frame = results({"bn": [0.5, 0.6, 0.55], "sn": [0.1, 0.1, 0.62]})
    chance = frame.assign(measure="chance", value=0.1)
    (one,) = differences(pd.concat([frame, chance]))
    assert (one.arm, one.n) == ("sn", 1) and one.mean == pytest.approx(7) and not one.found


def test_smaller_may_be_better_and_arms_without_results_are_left_out():
    frame = results({"bn": [0.2] * 8, "sn": [0.1] * 8, "gn": [float("nan")] * 8}, "loss")
    (one,) = differences(frame)
    assert one.found and one.mean == pytest.approx(-0.1) and one.holm == one.p == 2 / 256
