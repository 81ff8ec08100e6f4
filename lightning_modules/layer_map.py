"""A picture of measures of every layer at every epoch, one panel for each measure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

NAMES = 40
"""The most layers that are named; more names would overlap."""


def draw_layer_map(
    epochs: Sequence[int],
    layers: Sequence[str],
    measures: Sequence[str],
    values: np.ndarray,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Draw epochs from left to right, layers from input (top) to output, and the measure as colour.

    Args:
        values: (epochs, measures, layers); NaN, drawn blank, where a layer does not have a measure.
        limits: the values at the ends of the colour scale; None fits them to each measure.
    """
    columns = min(3, len(measures))
    rows = -(-len(measures) // columns)
    figure = Figure(figsize=(1.6 + 2.9 * columns, 0.5 + rows * min(5.0, 1.1 + 0.11 * len(layers))))
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    named = range(0, len(layers), -(-len(layers) // NAMES))
    for i, ax in enumerate(grid.flat):
        ax.set_visible(i < len(measures))
        if i < len(measures):
            low, high = limits or _range(values[:, i])
            image = ax.imshow(values[:, i].T, aspect="auto", interpolation="nearest", vmin=low, vmax=high)
            ax.set_title(measures[i], loc="left", fontsize=9, fontweight="bold")
            ax.set_xticks(*_ticks(epochs))
            ax.set_yticks(list(named), [layers[k] for k in named] if i % columns == 0 else [""] * len(named))
            ax.tick_params(length=0, labelsize=6.5)
            if i + columns >= len(measures):
                ax.set_xlabel("epoch", fontsize=8)
            if limits is None or i % columns == columns - 1 or i == len(measures) - 1:
                figure.colorbar(image, ax=ax, pad=0.02).ax.tick_params(length=0, labelsize=6.5)
    figure.tight_layout(pad=0.6)
    return figure


def _range(values: np.ndarray) -> tuple[float, float]:
    """The values at the ends of the colour scale, at least 0.01 apart, so that rounding errors are not visible."""
    low, high = np.nanmin(values), np.nanmax(values)
    spare = max(0.0, 0.01 - (high - low)) / 2
    return low - spare, high + spare


def _ticks(epochs: Sequence[int]) -> tuple[list[int], list[int]]:
    """Positions and labels of at most nine epochs."""
    places = sorted({round(place) for place in np.linspace(0, len(epochs) - 1, min(9, len(epochs)))})
    return places, [epochs[place] for place in places]
