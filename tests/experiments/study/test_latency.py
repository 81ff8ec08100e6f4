"""Latency is the median of timed passes."""

import itertools

import pytest
from torch import nn

from experiments.study import latency


def test_latency_is_the_median_of_the_timed_passes_for_an_image(monkeypatch):
    passes = iter([50, 50, 50, 4, 100, 2, 8, 6])  # seconds: three to warm up, then five
    clock = iter(itertools.chain.from_iterable((0.0, float(seconds)) for seconds in passes))
    monkeypatch.setattr(latency.time, "perf_counter", lambda: next(clock))
    seen = []
    network = nn.Sequential(nn.Conv2d(3, 1, 1), nn.Dropout()).train()
    network.register_forward_hook(lambda module, inputs, _: seen.append((inputs[0].shape, module.training)))
    assert latency.latency(network, 8, batch_size=2, repeats=5) == pytest.approx(1000 * 6 / 2)
    assert seen == [((2, 3, 8, 8), False)] * 8 and network.training
