"""Interrupted trainings equal whole ones; and if they did not, `benchmarks/kills.py` would say so."""

import pytest

import kills

MIXUP, *_ = kills.CONFIGURATIONS
NO_MOMENTUM = """
from pytorch_lightning.strategies import Strategy
Strategy.load_optimizer_state_dict = lambda *_: None
"""
"""A fault of continued trainings alone: their optimisers begin anew."""


def test_configurations_have_names_of_their_own_and_cover_what_they_have_to():
    assert len({(one.name, one.processes) for one in kills.CONFIGURATIONS}) == len(kills.CONFIGURATIONS)
    assert {one.workers for one in kills.CONFIGURATIONS} == {0, 1, 4}
    assert {one.every for one in kills.CONFIGURATIONS} == {None, 1, 3, 7}
    assert {one.processes for one in kills.CONFIGURATIONS} == {1, 2}
    shares = kills.shares(120, kills.CONFIGURATIONS)
    assert 120 <= sum(shares) < 120 + len(shares) and min(shares) >= 5


@pytest.mark.slow
def test_six_kills_change_nothing(tmp_path):
    (trial,) = kills.all_tried([MIXUP], 6, tmp_path, at_once=1)
    assert trial.differences == []
    assert trial.kills >= 6 and trial.within > 0


@pytest.mark.slow
def test_a_fault_in_how_a_training_continues_is_found(tmp_path):
    (trial,) = kills.all_tried([MIXUP], 6, tmp_path, at_once=1, statements=NO_MOMENTUM)
    assert any("state_dict" in one for one in trial.differences)
