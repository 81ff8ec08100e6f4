"""Distributions of a sweep's parameters, against scipy's and against bounds worked out by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from experiments.study.endings import UsageError
from experiments.study.sweep.parameters import KEYS, read_parameter

PLACES = np.random.default_rng(0).random(4000)


def drawn(**given) -> np.ndarray:
    parameter = read_parameter("lr", given)
    return np.array([parameter.at(float(place)) for place in PLACES])


@pytest.mark.parametrize(
    ("given", "known"),
    [
        ({"min": 2.0, "max": 5.0}, stats.uniform(2, 3)),
        ({"distribution": "uniform", "min": -1, "max": 1}, stats.uniform(-1, 2)),
        ({"distribution": "log_uniform_values", "min": 1e-4, "max": 0.1}, stats.loguniform(1e-4, 0.1)),
        ({"distribution": "log_uniform", "min": -3, "max": 2}, stats.loguniform(math.exp(-3), math.exp(2))),
        ({"distribution": "normal", "mu": 3, "sigma": 0.5}, stats.norm(3, 0.5)),
        ({"distribution": "normal"}, stats.norm(0, 1)),
        ({"distribution": "log_normal", "mu": -2, "sigma": 0.3}, stats.lognorm(0.3, scale=math.exp(-2))),
    ],
)
def test_continuous_ones_are_those_of_scipy(given, known):
    values = drawn(**given)
    assert stats.kstest(values, known.cdf).pvalue > 0.01
    assert stats.kstest(values * 4, known.cdf).pvalue < 1e-6  # the test can tell
    low, high = known.support()
    assert values.min() >= low * (1 - 1e-12) and values.max() <= high * (1 + 1e-12)


def test_ends_of_bounded_ones_are_their_bounds():
    for given in ({"distribution": "log_uniform_values", "min": 1e-4, "max": 0.1}, {"min": 0.1, "max": 0.3}):
        parameter = read_parameter("lr", given)
        assert (parameter.at(0.0), parameter.at(1.0)) == pytest.approx((given["min"], given["max"]), rel=1e-6)
        assert given["min"] <= parameter.at(0.0) and parameter.at(1.0) <= given["max"]
    assert all(math.isfinite(read_parameter("x", {"distribution": "normal"}).at(end)) for end in (0.0, 1.0))


def test_integers_are_equally_often_drawn():
    values = drawn(min=-2, max=2)
    assert values.dtype.kind == "i" and stats.chisquare(np.unique(values, return_counts=True)[1]).pvalue > 0.01
    assert sorted(set(values)) == [-2, -1, 0, 1, 2] == list(read_parameter("n", {"min": -2, "max": 2}).values)
    assert read_parameter("n", {"min": 3, "max": 3}).at(1.0) == 3


def test_choices_and_their_probabilities():
    assert stats.chisquare(np.unique(drawn(values=["bn", "sn", "gn"]), return_counts=True)[1]).pvalue > 0.01
    parameter = read_parameter("x", {"values": [1, 2, 3], "probabilities": [1, 3, 0]})
    values = [parameter.at(float(place)) for place in PLACES]
    assert parameter.distribution == "categorical_w_probabilities" and parameter.at(1.0) == 2
    assert stats.binomtest(values.count(1), len(values), 0.25).pvalue > 0.01 and 3 not in values
    assert read_parameter("x", {"values": [None, True, "a"]}).values == (None, True, "a")


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ({"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.25}, [0, 0.25, 0.5, 0.75, 1]),
        ({"distribution": "q_uniform", "min": 0.1, "max": 0.45, "q": 0.1}, [0.1, 0.2, 0.3, 0.4]),  # 0.5 is too large
        ({"distribution": "q_uniform", "min": 3, "max": 9}, [3, 4, 5, 6, 7, 8, 9]),
        ({"distribution": "q_log_uniform_values", "min": 1, "max": 40, "q": 10}, [10, 20, 30, 40]),
        ({"distribution": "q_log_uniform", "min": 0, "max": 1, "q": 1}, [1, 2]),  # of 1 to 2.72
    ],
)
def test_rounded_ones_are_multiples_within_the_bounds(given, values):
    found = sorted(set(drawn(**given).tolist()))
    assert found == values
    if given["distribution"] == "q_uniform":
        assert list(read_parameter("x", given).values) == values


def test_rounded_normal_ones():
    assert {*np.mod(drawn(distribution="q_normal", mu=10, sigma=4, q=2), 2)} == {0}
    assert drawn(distribution="q_log_normal", mu=3, sigma=0.5, q=5).mean() == pytest.approx(
        math.exp(3 + 0.125), rel=0.05
    )


def test_numbers_that_yaml_reads_as_texts():
    assert drawn(distribution="log_uniform_values", min="1e-4", max="1e-1").max() <= 0.1


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([1, 2], "give it value, or values, or min and max"),
        ({}, "it has no keys, and names no distribution"),
        ({"min": 1}, "it has min, and names no distribution"),
        ({"distribution": "beta"}, "the distribution 'beta' is not known: give it value"),
        ({"distribution": ["uniform"]}, "is not known"),
        ({"distribution": "inv_log_uniform_values", "min": 1, "max": 2}, "one of constant, categorical"),
        ({"distribution": "uniform", "min": 1}, "uniform needs max; its keys are min, max"),
        ({"min": 1, "max": 2, "q": 1}, "int_uniform takes no q"),
        ({"value": 1, "values": [2]}, "constant takes no values"),
        ({"parameters": {"a": {"value": 1}}}, "it has parameters, and names no distribution"),
        ({"values": []}, "values must be a list with one value or more"),
        ({"values": "abc"}, "values must be a list"),
        ({"values": [[1, 2]]}, "is no text, number or truth value"),
        ({"values": [1, 2], "probabilities": [1]}, "probabilities must be a list of 2 numbers"),
        ({"values": [1, 2], "probabilities": [1, -1]}, "probabilities must be 0 or more, and not all 0"),
        ({"min": 2.0, "max": 1}, "min must be smaller than max"),
        ({"min": 2, "max": 1}, "needs integers, min no larger than max"),
        ({"min": 0.5, "max": 2, "distribution": "int_uniform"}, "needs integers"),
        ({"min": "low", "max": 1}, "min must be a finite number"),
        ({"min": float("nan"), "max": 1.0}, "min must be a finite number"),
        ({"min": 0, "max": 1, "distribution": "log_uniform_values"}, "must be larger than 0"),
        ({"distribution": "normal", "sigma": 0}, "sigma must be larger than 0"),
        ({"distribution": "q_uniform", "min": 0, "max": 1, "q": 0}, "q must be larger than 0"),
        ({"distribution": "q_uniform", "min": 0.2, "max": 0.8, "q": 1}, "no multiple of q = 1 lies between"),
    ],
)
def test_others_are_refused(given, says):
    with pytest.raises(UsageError) as refused:
        read_parameter("lr", given)
    assert str(refused.value).startswith("parameters.lr: ") and says in str(refused.value)


def test_every_distribution_can_be_drawn():
    given = {"value": 1, "values": [1, 2], "probabilities": [1, 1], "min": 1, "max": 4, "mu": 1, "sigma": 1, "q": 1}
    for kind, keys in KEYS.items():
        drawn(distribution=kind, **{key: given[key] for key in keys})
    with pytest.raises(UsageError, match="'a b' cannot be a parameter's name"):
        read_parameter("a b", {"value": 1})
