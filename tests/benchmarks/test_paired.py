"""Ratios, means and the order of candidates, compared with results by hand."""

from contextlib import contextmanager

import pytest

import paired
from paired import Candidate, Spread, geometric_means, interleaved, ratios, spread


def test_spread_is_median_and_quartiles():
    assert spread([5.0, 1.0, 4.0, 2.0, 3.0]) == Spread(3.0, 2.0, 4.0)
    assert spread([2.0]) == Spread(2.0, 2.0, 2.0)
    assert str(Spread(1.234, 1.2, 1.3)) == "1.23 (1.20-1.30)"


def test_ratios_and_means_are_round_by_round():
    assert ratios([2.0, 9.0], [1.0, 3.0]) == [2.0, 3.0]
    assert geometric_means([[1.0, 2.0], [4.0, 8.0]]) == pytest.approx([2.0, 4.0])


def test_every_candidate_has_its_turn_in_every_round(monkeypatch):
    turns = []
    monkeypatch.setattr(paired, "repeats_to_fill", lambda *_: 3)
    groups = {g: {k: Candidate(lambda g=g, k=k: turns.append((g, k))) for k in "abc"} for g in (1, 2)}
    found = interleaved(groups, rounds=4, at_least=0.0, device="cpu")
    assert all(len(found[g][k]) == 4 for g in (1, 2) for k in "abc")
    rounds = [turns[start : start + 18 : 3] for start in range(0, len(turns), 18)]  # 6 candidates of 3 calls each
    assert len(rounds) == 4
    for one in rounds:
        assert [g for g, _ in one] == [1, 1, 1, 2, 2, 2]
        assert sorted(one) == sorted((g, k) for g in (1, 2) for k in "abc")
    assert len(set(map(tuple, rounds))) > 1


def test_a_sample_is_taken_in_the_candidates_surroundings():
    seen = []

    @contextmanager
    def around():
        seen.append("in")
        yield
        seen.append("out")

    paired.seconds_a_call(Candidate(lambda: seen.append("call"), around), 2, "cpu")
    assert seen == ["in", "call", "call", "out"]


def test_short_calls_are_repeated_until_they_fill_a_sample(monkeypatch):
    monkeypatch.setattr(paired, "seconds_a_call", lambda candidate, repeats, device: 0.002)
    assert paired.repeats_to_fill(Candidate(int), 0.01, "cpu") == 5
    assert paired.repeats_to_fill(Candidate(int), 0.001, "cpu") == 1
