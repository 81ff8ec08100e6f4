"""Verdicts on claims, against t-tests worked out by hand and against simulated studies."""

import math

import numpy as np
import pytest

from experiments.papers.verdicts import HELD, NOT_HELD, UNDECIDED, one_sided, verdicts_of


def test_one_sided_p_of_three_seeds_by_hand():
    """Of 1, 2, 3: t = 2 / (1 / sqrt 3); at 2 degrees of freedom P(T > t) = (1 - t / sqrt(t^2 + 2)) / 2."""
    t = 2 * math.sqrt(3)
    expected = (1 - t / math.sqrt(t**2 + 2)) / 2
    above, below = one_sided(np.array([1.0, 2.0, 3.0]), 0.0)
    assert above == pytest.approx(expected, rel=1e-12) and below == pytest.approx(1 - expected, rel=1e-12)


def test_a_margin_moves_the_line():
    assert one_sided(np.array([0.0, 1.0, 2.0]), 1.0) == one_sided(np.array([1.0, 2.0, 3.0]), 0.0)


@pytest.mark.parametrize(
    ("values", "margin", "expected"),
    [
        ([10.0, 10.1, 9.9], 0.0, HELD),
        ([-10.0, -10.1, -9.9], 0.0, NOT_HELD),
        ([-10.0, 0.0, 11.0], 0.0, UNDECIDED),
        ([-0.1, 0.0, 0.1], 1.0, HELD),  # no worse, though not better
        ([-1.9, -2.0, -2.1], 1.0, NOT_HELD),
        ([7.0], 0.0, UNDECIDED),  # one seed
        ([3.0, 3.0, 3.0], 0.0, HELD),
        ([0.0, 0.0, 0.0], 0.0, UNDECIDED),
    ],
)
def test_verdicts(values, margin, expected):
    assert verdicts_of({"one": (np.array(values), margin)})["one"].verdict == expected


def test_the_interval_is_students():
    """Of 1, 2, 3: 2 +- 4.3027 / sqrt 3, the table's value for 2 degrees of freedom."""
    found = verdicts_of({"one": (np.array([1.0, 2.0, 3.0]), 0.0)})["one"]
    assert (found.mean, found.high - found.mean) == pytest.approx((2.0, 4.302653 / math.sqrt(3)), rel=1e-6)
    assert found.mean - found.low == pytest.approx(found.high - found.mean)
    alone = verdicts_of({"one": (np.array([1.0]), 0.0)})["one"]
    assert alone.mean == 1.0 and math.isnan(alone.low) and math.isnan(alone.high)


def test_many_claims_raise_what_one_alone_would_pass():
    values = np.array([1.0, 2.0, 3.0])  # p 0.037
    assert verdicts_of({"one": (values, 0.0)})["one"].verdict == HELD
    together = verdicts_of({str(i): (values, 0.0) for i in range(2)})
    assert {one.verdict for one in together.values()} == {UNDECIDED}
    assert together["0"].p == pytest.approx(2 * one_sided(values, 0.0)[0])


def test_pages_of_noise_rarely_hold_a_verdict():
    """Of 400 pages of 20 claims that are all level, at most one in ten has a false one: 5 % on either side."""
    dice, wrong = np.random.default_rng(0), 0
    for _ in range(400):
        verdicts = verdicts_of({str(i): (dice.normal(size=3), 0.0) for i in range(20)})
        wrong += any(one.verdict != UNDECIDED for one in verdicts.values())
    assert 0 < wrong / 400 <= 0.13


def test_no_claims_no_verdicts():
    assert verdicts_of({}) == {}
