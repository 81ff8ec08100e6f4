"""Figures, report and terminal draw all gates that a layer announces."""

from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from torch import nn

from experiments.reporting.gate_bars import letters_of, print_gates
from experiments.reporting.gate_slides import caption, slides
from lightning_modules.gates.figures import draw_gate_movement, draw_gates
from lightning_modules.gates.panels import FURTHER, OTHER_COLOUR, label_colours, norm_colour, panels, tidy
from normshift import BatchInstanceNorm2d, SwitchNorm2d, gates

LAYERS = 4


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """An arm with an unknown norm: one gate per layer, shares, values that are not shares, gates of channels."""
    dice, rows = np.random.default_rng(0), []
    for epoch, depth in np.ndindex(3, LAYERS):
        place = {"arm": "mine-8", "norm": "mine", "seed": 0, "epoch": epoch, "step": 5 * epoch, "depth": depth}
        values = {
            "alpha": {"0": dice.uniform()},
            "mix": dict(zip(("a", "bn", "b"), dice.dirichlet([1] * 3), strict=True)),
        }
        values |= {"free": {"low": 0.7, "high": 0.9}, "beta": {str(c): v for c, v in enumerate(dice.uniform(size=8))}}
        rows += [
            place | {"layer": f"layer{depth}.norm", "statistic": statistic, "label": label, "value": value}
            for statistic, each in values.items()
            for label, value in each.items()
        ]
    return pd.DataFrame(rows)


def test_a_panel_a_statistic_and_one_a_value_where_values_are_no_shares(frame):
    found = {panel.title: panel for panel in panels(frame)}
    assert list(found) == ["alpha", "mix", "free low", "free high", "beta"]
    assert [panel.by_channel for panel in found.values()] == [False] * 4 + [True]
    assert {panel.colour for panel in found.values()} == {OTHER_COLOUR} and {p.arm for p in found.values()} == {
        "mine-8"
    }
    assert found["mix"].colours == (FURTHER[0], norm_colour("bn"), FURTHER[1])
    last = frame[frame["epoch"] == 2].set_index(["statistic", "label", "depth"])["value"]
    for title, statistic, label in (("alpha", "alpha", "0"), ("mix", "mix", "bn"), ("free low", "free", "low")):
        shares = found[title].at(2).shares()
        column = label if label in shares else "alpha"
        np.testing.assert_allclose(shares[column], last[statistic, label])
    beta = found["beta"].at(2)
    np.testing.assert_allclose(beta.shares()["1"], last["beta"].groupby("depth").mean())
    np.testing.assert_allclose(beta.sides()["0"], (last["beta"] < 0.1).groupby("depth").mean())
    assert beta.ends == ("0", "1")


def test_all_draw_them(frame, tmp_path):
    titles = ["alpha", "mix", "free low", "free high", "beta"]
    drawn = [ax.get_title("left") for ax in draw_gates(frame).axes]
    assert drawn == [f"mine-8: {title}" for title in titles] + ["channels that chose a side"]
    moved = [ax.get_ylabel() for ax in draw_gate_movement(frame).axes[::3]]
    assert moved == [f"mine-8: {title}" for title in titles]
    shown = slides("mine-8", frame, 10_000_000)
    assert [panel.title for panel in shown.panels] == titles and [p.ridged for p in shown.panels] == [False] * 4 + [
        True
    ]
    assert {len(p.frames) for p in shown.panels} == {3} and {
        len(layers) for p in shown.panels for layers in p.frames
    } == {4}
    frame.to_parquet(tmp_path / "gates.parquet")
    print_gates(tmp_path, Console(file=(out := StringIO()), width=120))
    assert all(title in out.getvalue() for title in titles) and "beta, mean of layers" in " ".join(
        out.getvalue().split()
    )
    text = caption(panels(frame))
    assert "statistics of a, the batch (BN) and b" in text and text.count("height of a ridge") == 1
    assert "The gate alpha" in text


def test_a_networks_own_gates_are_drawn():
    network = nn.Sequential(SwitchNorm2d(4), nn.Conv2d(4, 6, 1), BatchInstanceNorm2d(6))
    nn.init.uniform_(network[2].rho, 0, 1)
    frame = tidy(gates(network))
    assert tidy(frame) is frame and set(frame["norm"]) == {"sn", "bin"}
    assert frame.loc[frame["statistic"] == "rho", "value"].tolist() == network[2].rho.tolist()
    titles = [ax.get_title("left") for ax in draw_gates(gates(network)).axes]
    assert titles == ["sn: mean", "sn: variance", "bin: rho", "channels that chose a side"]
    with pytest.raises(ValueError, match="no gates"):
        draw_gates(gates(nn.BatchNorm2d(4)))
    network[0].mean_weight.data.fill_(torch.nan)
    assert draw_gates(gates(network)).axes[0].get_title("left") == "sn: variance"


def test_a_layer_that_lacks_a_share_leaves_those_above_it_in_place():
    both = pd.concat(
        [
            tidy(gates(SwitchNorm2d(4, statistics=statistics))).assign(depth=depth, layer=f"norm{depth}")
            for depth, statistics in enumerate((("in", "ln", "bn"), ("in", "bn")))
        ]
    )
    bars = draw_gates(both).axes[0].containers
    assert [bar.patches[1].get_y() for bar in (bars[0], bars[2])] == [0, 0.5]


def test_labels_have_letters_and_colours_of_their_own():
    assert letters_of(["in", "bn", "both", "b", "bob"]) == {"in": "I", "bn": "B", "both": "O", "b": "A", "bob": "C"}
    colours = label_colours(["x", "bn", "y", "z"])
    assert len(set(colours)) == 4 and colours[1] == norm_colour("bn")


def test_who_draws_knows_no_norm_by_name():
    files = [
        "lightning_modules/gates/panels.py",
        "lightning_modules/gates/figures.py",
        "lightning_modules/gates/tracker.py",
    ]
    files += ["experiments/reporting/gate_bars.py", "experiments/reporting/gate_slides.py"]
    for file in files:
        code = (Path(__file__).parents[3] / file).read_text()
        assert not any(f'== "{name}"' in code for name in ("rho", "mean", "var", "sn", "bin")), file
