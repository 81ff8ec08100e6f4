"""Which parameters the trials of a sweep have."""

import itertools

import numpy as np
import pytest

from experiments.study.endings import UsageError
from experiments.study.sweep.draws import count_of, drawn, grid
from experiments.study.sweep.parameters import read_parameter
from experiments.study.sweep.sweep_file import Sweep
from experiments.study.sweep.trial_files import FAILED, FINISHED, Trial


def sweep(method: str, run_cap: int | None = None, goal: str = "maximize", **parameters) -> Sweep:
    read = tuple(read_parameter(name, given) for name, given in parameters.items())
    return Sweep(method, read, "final/top1", goal, ("a",), run_cap=run_cap)


GRID = {
    "norm": {"values": ["bn", "sn", "gn"]},
    "seed": {"value": 5},
    "n": {"min": 2, "max": 4},
    "w": {"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.5},
}


def test_a_grid_is_the_product_in_the_order_of_the_file():
    asked = sweep("grid", **GRID)
    known = [
        dict(zip(GRID, values, strict=True))
        for values in itertools.product(["bn", "sn", "gn"], [5], [2, 3, 4], [0, 0.5, 1])
    ]
    assert list(grid(asked.parameters)) == known and count_of(asked, None) == 27
    assert [drawn(asked, number, 0, []).parameters for number in range(1, 28)] == known


def test_how_many_trials_there_are():
    values = {"a": {"values": [1, 2, 3]}}
    assert [count_of(sweep("grid", **values), n) for n in (None, 2, 9)] == [3, 2, 3]
    assert count_of(sweep("grid", 2, **values), None) == 2 and count_of(sweep("random", 2, **values), 5) == 2
    assert count_of(sweep("bayes", **values), 5) == 5
    with pytest.raises(UsageError, match="method random has no end of its own: pass --trials"):
        count_of(sweep("random", **values), None)
    with pytest.raises(UsageError, match="has 1,000,000 trials: pass --trials"):
        count_of(sweep("grid", a={"min": 1, "max": 1000}, b={"min": 1, "max": 1000}), None)


RANDOM = {
    "lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-1},
    "norm": {"values": ["bn", "sn"]},
    "seed": {"value": 1},
    "n": {"min": 1, "max": 9},
}


def test_a_random_trial_is_a_function_of_seed_and_number():
    asked = sweep("random", **RANDOM)
    first = [drawn(asked, number, 0, []).parameters for number in range(1, 200)]
    again = [drawn(asked, number, 0, [Trial(1, {})]).parameters for number in reversed(range(1, 200))]
    assert first == again[::-1]
    assert drawn(asked, 1, 1, []).parameters != first[0] and len({trial["lr"] for trial in first}) == 199
    assert {trial["norm"] for trial in first} == {"bn", "sn"} and {trial["n"] for trial in first} == {*range(1, 10)}
    low = np.mean([trial["lr"] < 10**-2.5 for trial in first])  # the middle on a logarithmic scale
    assert low == pytest.approx(0.5, abs=0.1) and {trial["seed"] for trial in first} == {1}


def ended(trial: Trial, value: float) -> Trial:
    trial.value, trial.state = value, FINISHED
    return trial


def bayes(asked: Sweep, count: int, value_of, seed: int = 0) -> list[Trial]:
    trials: list[Trial] = []
    for number in range(1, count + 1):
        trials.append(ended(drawn(asked, number, seed, trials), 0.0))
        trials[-1].value = value_of(trials[-1].parameters)
    return trials


def test_optuna_comes_closer_to_the_best_than_chance():
    """A valley over two magnitudes of lr, deeper for one of three norms."""
    pytest.importorskip("optuna")
    space = {"lr": RANDOM["lr"], "norm": {"values": ["bn", "sn", "gn"]}, "n": {"min": 1, "max": 3}}

    def depth(values) -> float:
        return (np.log10(values["lr"]) + 2) ** 2 + (values["norm"] != "sn")

    found = bayes(sweep("bayes", goal="minimize", **space), 40, depth)
    late, early = ([depth(trial.parameters) for trial in part] for part in (found[20:], found[:10]))
    assert np.median(late) < 0.5 * np.median(early)
    assert [trial.parameters["norm"] for trial in found[20:]].count("sn") > 12
    upwards = bayes(sweep("bayes", goal="maximize", **space), 40, lambda values: -depth(values))
    assert [trial.parameters for trial in upwards] == [trial.parameters for trial in found]


def test_optuna_chooses_by_seed_number_and_what_has_ended():
    pytest.importorskip("optuna")
    asked = sweep("bayes", **RANDOM)
    whole = bayes(asked, 15, lambda values: -values["lr"])
    resumed = [drawn(asked, 15, 0, [ended(Trial(**vars(t)), t.value) for t in whole[:14]])]
    assert resumed[0].parameters == whole[14].parameters and resumed[0].places == whole[14].places
    assert bayes(asked, 3, lambda _: 0.0, seed=1)[0].parameters != whole[0].parameters
    failed = [*whole[:13], Trial(14, whole[13].parameters, FAILED, places=whole[13].places)]
    assert set(drawn(asked, 15, 0, failed).parameters) == set(RANDOM)


def test_optuna_side_by_side_chooses_something_else_each_time():
    pytest.importorskip("optuna")
    asked, known = sweep("bayes", **RANDOM), []
    for number in range(1, 15):
        known.append(drawn(asked, number, 0, known))
        if number <= 11:
            ended(known[-1], -known[-1].parameters["lr"])
    assert len({trial.parameters["lr"] for trial in known}) == 14
