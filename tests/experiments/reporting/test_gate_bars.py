"""The gates on the terminal, read back from the characters that were printed."""

from io import StringIO

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from experiments.reporting.gate_bars import ARMS, LINES, WIDTH, bar, print_gates
from lightning_modules.gates.panels import norm_colour
from tests.experiments.three_norms import gates


def printed(frame: pd.DataFrame, folder, **settings) -> str:
    frame.to_parquet(folder / "gates.parquet")
    out = StringIO()
    print_gates(folder, Console(file=out, **({"width": 80} | settings)))
    return out.getvalue()


def bars(text: str) -> list[tuple[str, list[str]]]:
    """The depths and the bars of each line that has bars."""
    lines = [line.split() for line in text.splitlines()]
    return [(words[0], words[2:]) for words in lines if len(words) > 2 and set(words[-1]) <= set("ILB")]


def test_a_line_a_layer_split_as_the_last_epoch_says(tmp_path):
    frame = gates("sn", layers=6)
    found = bars(printed(frame, tmp_path))
    assert [depth for depth, _ in found] == list("012345")
    last = frame[frame["epoch"] == 2].groupby(["statistic", "depth", "label"])["value"].mean()
    for depth, both in found:
        for statistic, drawn in zip(("mean", "var"), both, strict=True):
            assert len(drawn) == WIDTH and drawn == "".join(sorted(drawn, key="ILB".index))
            shares = [last[statistic, int(depth), label] for label in ("in", "ln", "bn")]
            assert [drawn.count(letter) / WIDTH for letter in "ILB"] == pytest.approx(shares, abs=1 / WIDTH)


@pytest.mark.parametrize("layers", [19, 21, 53, 155])
def test_layers_of_deep_networks_share_lines(layers, tmp_path):
    frame = gates("sn", layers=layers, epochs=1, seeds=1)
    found = bars(printed(frame, tmp_path))
    assert LINES / 2 <= len(found) <= LINES
    covered = [int(end) for depth, _ in found for end in (depth.split("–")[0], depth.split("–")[-1])]
    assert covered[0] == 0 and covered[-1] == layers - 1
    assert all(after == before + 1 for before, after in zip(covered[1::2], covered[2::2], strict=False))
    rows = frame[(frame["statistic"] == "mean") & (frame["depth"] <= covered[1]) & (frame["label"] == "in")]
    assert found[0][1][0].count("I") / WIDTH == pytest.approx(rows["value"].mean(), abs=0.5 / WIDTH + 1e-9)


def test_rho_is_told_as_the_batchs_part(tmp_path):
    frame = gates("bin", layers=3)
    text = printed(frame, tmp_path)
    last = frame[frame["epoch"] == 2]
    for depth, (drawn,) in bars(text):
        rho = last[last["depth"] == int(depth)]["value"].mean()
        assert drawn.count("B") / WIDTH == pytest.approx(rho, abs=0.5 / WIDTH + 1e-9)
    flat = " ".join(text.split())
    assert f"{100 * (last['value'] < 0.1).mean():.0f} % of channels within 0.1 of the instance" in flat
    assert f"{100 * (last['value'] > 0.9).mean():.0f} % of the batch" in flat


def test_each_layer_counts_alike_in_what_is_told_of_all(tmp_path):
    wide, narrow = gates("bin", layers=1, channels=64).assign(value=1.0), gates("bin", layers=1, channels=16)
    text = printed(pd.concat([wide, narrow.assign(depth=1, layer="net.layer1.1", value=0.0)]), tmp_path)
    assert "rho, mean of layers: 50 % of channels within 0.1 of the instance, 50 % of the batch" in " ".join(
        text.split()
    )


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_lines_fit_the_terminal(width, tmp_path):
    frame = gates("sn", layers=4).assign(layer=lambda rows: "a.rather.long.module.name." + rows["depth"].astype(str))
    text = printed(frame, tmp_path, width=width)
    assert max(map(len, text.splitlines())) <= width and len(bars(text)) == 4


def test_colours_are_those_of_the_figures_and_only_where_there_are_colours(tmp_path):
    frame = gates("sn", layers=2)
    assert "\x1b[" not in printed(frame, tmp_path)
    coloured = printed(frame, tmp_path, force_terminal=True, color_system="truecolor")
    for name in ("in", "ln", "bn"):
        red, green, blue = (int(norm_colour(name)[i : i + 2], 16) for i in (1, 3, 5))
        assert f"48;2;{red};{green};{blue}m" in coloured
    shares, letters = {"in": 0.25, "bn": 0.75}, {"in": "I", "bn": "B"}
    assert bar(shares, 8, letters, {name: norm_colour(name) for name in shares}).plain == "I B     "
    assert bar(shares, 8, letters, None).plain == "IIBBBBBB"


def test_bars_are_whole_whatever_the_shares():
    dice = np.random.default_rng(0)
    for _ in range(200):
        shares = dict(zip(("in", "ln", "bn"), dice.dirichlet([0.3] * 3), strict=True))
        drawn = bar(shares, 11, {"in": "I", "ln": "L", "bn": "B"}, None).plain
        assert len(drawn) == 11
        assert [drawn.count(letter) / 11 for letter in "ILB"] == pytest.approx(list(shares.values()), abs=1 / 11)


def test_of_many_arms_some_are_shown_and_the_others_named(tmp_path):
    frame = pd.concat([gates("sn", layers=2, epochs=1).assign(arm=f"arm{i}") for i in range(ARMS + 2)])
    text = printed(frame, tmp_path)
    assert text.count("gates of arm") == ARMS + 1 and f"gates of arm{ARMS}, arm{ARMS + 1}: in the report" in text


def test_no_gates_no_lines(tmp_path):
    print_gates(tmp_path, Console(file=(out := StringIO())))
    (tmp_path / "gates.parquet").write_bytes(b"PAR1")
    print_gates(tmp_path, Console(file=out))
    assert out.getvalue() == ""
