"""The figure of rho's distribution; those that reports show are tested with them."""

import pandas as pd
import pytest

from lightning_modules.gate_figures import MOST_HISTOGRAMS, draw_rho_histograms


def rho(depth: int, step: int, values: list[float]) -> pd.DataFrame:
    place = {"step": step, "layer": f"net.layer{depth}.bn", "depth": depth, "statistic": "rho"}
    return pd.DataFrame(place | {"label": list(map(str, range(len(values)))), "value": values})


def test_a_layers_channels_are_counted_at_the_last_step():
    figure = draw_rho_histograms(pd.concat([rho(0, 0, [1, 1]), rho(0, 9, [0, 1]), rho(3, 9, [0.52, 0.5, 0.5, 1])]))
    first, second = (ax for ax in figure.axes if ax.get_visible())
    assert first.get_title("left") == "0  layer0.bn" and second.get_title("left") == "3  layer3.bn"
    heights = [[bar.get_height() for bar in ax.patches] for ax in (first, second)]
    assert heights[0][0] == heights[0][-1] == 0.5 and sum(heights[0]) == 1
    assert heights[1][10] == 0.75 and heights[1][-1] == 0.25


def test_of_a_deep_network_some_layers_are_shown():
    figure = draw_rho_histograms(pd.concat([rho(depth, 1, [0.5]) for depth in range(40)]))
    titles = [ax.get_title("left") for ax in figure.axes]
    assert len(titles) == MOST_HISTOGRAMS and titles[0].startswith("0 ") and titles[-1].startswith("39 ")


def test_without_rho_there_is_nothing_to_draw():
    with pytest.raises(ValueError, match="no rho"):
        draw_rho_histograms(rho(0, 0, [1]).assign(statistic="mean"))
