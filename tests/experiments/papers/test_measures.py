"""Measures of runs, against numbers worked out by hand."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from datamodules.corruptions.appearance_shifts import APPEARANCE_SHIFTS
from experiments.papers import measures
from experiments.papers.library import CLAIMS


def run_of(results=(), gates=(), divergence=(), arms=None):
    """What a measure reads of a run."""
    frames = {name: pd.DataFrame(list(rows)) for name, rows in
              (("results", results), ("gates", gates), ("divergence", divergence))}  # fmt: skip
    return SimpleNamespace(**frames, arms=arms or {})


def accuracy(arm, seed, value, part="clean", condition="clean", measure="top1", **more):
    return {"arm": arm, "seed": seed, "domain": "d", "part": part, "condition": condition, "measure": measure,
            "value": value} | more  # fmt: skip


def test_differences_are_paired_by_seed():
    run = run_of([accuracy("bn", 0, 0.5), accuracy("bn", 1, 0.7), accuracy("sn", 1, 0.8), accuracy("sn", 2, 0.9)])
    assert measures.more(measures.top1, "sn", than="bn")(run).to_dict() == {1: pytest.approx(10.0)}
    assert measures.less(measures.top1, "sn", than="bn")(run).to_dict() == {1: pytest.approx(-10.0)}


def test_what_light_takes_is_of_the_three_shifts_of_light():
    shifts = dict(zip(APPEARANCE_SHIFTS, (0.7, 0.6, 0.5, 0.0), strict=True))
    shifted = [accuracy("bn", 0, value, "shifts", name) for name, value in shifts.items()]
    run = run_of([accuracy("bn", 0, 0.9), *shifted, accuracy("bn", 0, 0.1, measure="top5")])
    assert measures.light_loss(run).loc["bn", 0] == pytest.approx(30.0)


def test_the_share_that_is_kept():
    rows = [("source", "game", 0.5), ("target", "city", 0.2), ("target", "fog", 0.1)]
    run = run_of(
        [accuracy("bn", 0, value, measure="miou", role=role) | {"domain": domain} for role, domain, value in rows]
        + [accuracy("bn", 0, 1 / 19, measure="chance", role=role) | {"domain": domain} for role, domain, _ in rows]
    )
    assert measures.drop(run).loc["bn", 0] == pytest.approx(35.0)
    assert measures.share_kept(run).loc["bn", 0] == pytest.approx(30.0)


def test_divergence_is_of_the_encoders_layers_that_all_arms_have():
    layers = {
        "bn": {"net.encoder.a": 8.0, "net.encoder.b": 2.0, "net.decoder.c": 1000.0},
        "ibn-b": {"net.encoder.a": 2.0, "net.encoder.b": 0.5, "net.encoder.IN": 1e-9},
    }
    run = run_of(
        divergence=[
            {"arm": arm, "seed": 0, "domain": domain, "layer": layer, "mean": value}
            for arm, found in layers.items()
            for layer, value in found.items()
            for domain in ("city", "fog")
        ]
    )
    assert measures.log_divergence(run).to_dict() == {("bn", 0): pytest.approx(2.0), ("ibn-b", 0): pytest.approx(0.0)}


def gate(arm, depth, statistic, label, value, epoch=2):
    return {"arm": arm, "seed": 0, "epoch": epoch, "layer": f"l{depth}", "depth": depth, "statistic": statistic,
            "label": label, "value": value}  # fmt: skip


def test_shares_by_depth_are_of_the_last_epoch_and_of_thirds():
    shares = {0: (0.8, 0.1), 1: (0.4, 0.5), 2: (0.2, 0.7)}  # of the instance and of the batch, by depth
    rows = [
        gate("sn", depth, statistic, label, value)
        for depth, values in shares.items()
        for statistic in ("mean", "var")
        for label, value in zip(("in", "bn"), values, strict=True)
    ]
    rows += [gate("sn", 0, "mean", "in", 0.0, epoch=0)]
    run = run_of(gates=rows)
    assert measures.instance_share_early(run).loc["sn", 0] == pytest.approx(60.0)
    assert measures.batch_share_late(run).loc["sn", 0] == pytest.approx(60.0)
    assert measures.batch_share(run).loc["sn", 0] == pytest.approx(100 * 1.3 / 3)


def test_rho_at_the_ends_takes_the_sparser_end():
    rho = [0.0, 0.1, 0.5, 0.5, 0.9, 1.0, 1.0, 1.0, 0.3, 0.7]  # 20 % low, 40 % high, 20 % in the middle
    run = run_of(gates=[gate("bin", 0, "rho", str(i), value) for i, value in enumerate(rho)])
    assert measures.rho_at_the_ends(run).loc["bin", 0] == pytest.approx(0.0)
    all_at_one = run_of(gates=[gate("bin", 0, "rho", str(i), 1.0) for i in range(10)])  # as it starts
    assert measures.rho_at_the_ends(all_at_one).loc["bin", 0] == pytest.approx(0.0)


def test_rho_rises_with_depth():
    run = run_of(gates=[gate("bin", depth, "rho", c, v) for depth, v in enumerate((0.2, 0.5, 0.9)) for c in "01"])
    assert measures.rho_rising(run).loc["bin", 0] == pytest.approx(70.0)


@pytest.mark.parametrize(
    ("key", "arms", "expected"),
    [
        ("sn-1", {"bn-1x32": 0.9, "bn-1x2": 0.6, "sn-1x32": 0.9, "sn-1x2": 0.85}, 25.0),
        ("sn-2", {"bn-1x2": 0.6, "sn-1x2": 0.85}, 25.0),
        ("bin-1", {"bn": 0.8, "bin": 0.9}, 10.0),
        ("rs-1", {"baseline": 0.2, "+EMA-of-weights": 0.5, "+less-weight-decay": 0.7, "+ResNet-D": 0.8}, 40.0),
        ("rs-2", {"+EMA-of-weights": 0.5, "+less-weight-decay": 0.7}, 20.0),
        (
            "rs-3",
            {"none-wd0.0002": 0.6, "none-wd0.0005": 0.7, "+stochastic-depth-wd0.0002": 0.8,
             "+stochastic-depth-wd0.0005": 0.75},
            15.0,
        ),
    ],
)  # fmt: skip
def test_what_claims_measure(key, arms, expected):
    run = run_of([accuracy(arm, 0, value) for arm, value in arms.items()])
    assert CLAIMS[key].difference(run).to_dict() == {0: pytest.approx(expected)}


def test_depth_against_width_is_of_two_runs():
    short = run_of([accuracy("cifar_wrn28_1-bn", 0, 0.3), accuracy("cifar_wrn10_2-bn", 0, 0.5)])
    long = run_of([accuracy("cifar_wrn28_1-bn", 0, 0.9), accuracy("cifar_wrn10_2-bn", 0, 0.8)])
    assert CLAIMS["rs-4"].difference(short, long).to_dict() == {0: pytest.approx(30.0)}


def test_several_networks_count_alike():
    arms = {f"{net}-{norm}": {"norm": norm, "backbone": net} for net in "ab" for norm in ("bn", "bin")}
    values = {"a-bn": 0.5, "a-bin": 0.6, "b-bn": 0.9, "b-bin": 0.9}
    run = run_of([accuracy(arm, 0, value) for arm, value in values.items()], arms=arms)
    found = CLAIMS["bin-6"].difference(run)
    np.testing.assert_allclose(found, [5.0])
