"""The gates as a page gets them: what its slider stops at, and what it draws without a script."""

import json

import numpy as np
import pandas as pd
import pytest

from experiments.reporting.gate_slides import MOST_FRAMES, slides
from lightning_modules.gates.panels import RIDGE_BINS, norm_colour, ridges, stages
from tests.experiments.three_norms import gates

AMPLE = 10_000_000


def test_the_last_epoch_is_drawn_and_all_are_kept():
    frame = gates("sn", layers=5, epochs=4)
    shown = slides("sn", frame, AMPLE)
    assert shown.epochs == [0, 1, 2, 3] and shown.layers == list(frame["layer"].unique())
    data = json.loads(shown.data)
    for panel, statistic, kept in zip(shown.panels, ("mean", "var"), data["panels"], strict=True):
        for epoch in range(4):
            now = frame[(frame["epoch"] == epoch) & (frame["statistic"] == statistic)]
            expected = [
                [now[(now.depth == d) & (now.label == s)].value.mean() for s in ("in", "ln", "bn")] for d in range(5)
            ]
            np.testing.assert_allclose(np.array(kept["frames"][epoch]) / data["whole"], expected, atol=6e-4)
            assert kept["shares"][epoch] == pytest.approx(100 * np.mean(expected, axis=0), abs=0.51)
        for parts, shares in zip(panel.bars, expected, strict=True):
            tops, heights, colours = zip(*parts, strict=True)
            assert heights == pytest.approx(shares, abs=6e-4) and tops == pytest.approx(1 - np.cumsum(shares), abs=2e-3)
            assert colours == tuple(norm_colour(name) for name in ("in", "ln", "bn"))


def test_layers_are_called_by_what_tells_them_apart():
    layers = ["net.bn1", "net.a.layer1.0.bn1", "net.a.layer2.0.bn1", "net.a.layer1.0.down.1", "net.a.layer2.0.down.1"]
    frame = pd.concat([gates("bin", layers=1).assign(depth=i, layer=layer) for i, layer in enumerate(layers)])
    shown = slides("bin", frame, AMPLE)
    assert shown.names == ["net.bn1", "layer1.0.bn1", "layer2.0.bn1", "layer1.0.down.1", "layer2.0.down.1"]


def test_layers_that_mix_fewer_statistics_lack_them():
    both = pd.concat([gates("sn", layers=2), gates("sn-in-ln", layers=4).query("depth >= 2")])
    mean = slides("mixed", both, AMPLE).panels[0]
    assert [name for name, _ in mean.labels] == ["IN", "LN", "BN"]
    assert [shares[2] == 0 for shares in mean.frames[-1]] == [False, False, True, True]
    assert all(sum(shares) == pytest.approx(1000, abs=2) for shares in mean.frames[-1])


def test_ridges_keep_every_channel_and_where_it_is():
    dice = np.random.default_rng(1)
    values = {
        0: np.ones(16),
        1: np.zeros(16),
        2: dice.uniform(size=5000),
        3: dice.normal(0.4, 0.05, 999),
        4: [-1e-6, 1.1],
    }
    rows = pd.DataFrame(
        [(depth, value) for depth, each in values.items() for value in each], columns=["depth", "value"]
    )
    spread, middles = ridges(rows), (np.arange(RIDGE_BINS) + 0.5) / RIDGE_BINS
    np.testing.assert_allclose(spread.sum(axis=1), 1)
    means = spread.to_numpy() @ middles
    expected = [np.clip(each, 0, 1).mean() for each in values.values()]
    np.testing.assert_allclose(means, expected, atol=1.2 / RIDGE_BINS)  # the last bins end where [0, 1] does
    assert (spread.loc[0, : RIDGE_BINS - 4] == 0).all() and (spread.loc[1, 3:] == 0).all()
    assert spread.loc[2].between(0.6 / RIDGE_BINS, 1.4 / RIDGE_BINS).all()


@pytest.mark.parametrize(("norm", "budget"), [("sn", 20_000), ("bin", 60_000), ("bin", AMPLE), ("sn", 1)])
def test_a_slider_of_a_long_training_stays_within_its_budget(norm, budget):
    frame = gates(norm, layers=10, epochs=61, seeds=1)
    shown = slides(norm, frame, budget)
    assert shown.epochs[0] == 0 and shown.epochs[-1] == 60 and 2 <= len(shown.epochs) <= MOST_FRAMES
    gaps = np.diff(shown.epochs)
    assert max(gaps) - min(gaps) <= 1
    assert len(shown.data) < 1.2 * budget or len(shown.epochs) == 2
    assert budget < AMPLE or len(shown.epochs) == MOST_FRAMES
    with pytest.raises(ValueError, match="no gates"):
        slides(norm, frame.iloc[:0], budget)


def test_stages_are_named_once_and_cover_the_network():
    resnet = ["net.bn1", *(f"net.layer{s}.{b}.bn{i}" for s in (1, 2, 3) for b in range(3) for i in (1, 2))]
    assert stages(resnet) == [("net", 0, 1), ("layer1", 1, 7), ("layer2", 7, 13), ("layer3", 13, 19)]
    blocks = [f"net.blocks.{b}.{i}.bn" for b in range(5) for i in range(3)]
    assert [begin for _, begin, _ in stages(blocks)] == [0, 3, 6, 9, 12]  # not all one, for being called alike
    assert stages(["bn"]) == [("bn", 0, 1)]
    shortcuts = [
        f"layer{s}.{name}" for s in (1, 2, 3) for name in ("0.bn1", "0.bn2", "0.downsample.1", "1.bn1", "1.bn2")
    ]
    assert [name for name, _, _ in stages(["bn1", *shortcuts])] == ["bn1", "layer1", "layer2", "layer3"]
