"""The picture of a sweep: the metric against each parameter, a panel a parameter."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from textwrap import shorten
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.study.sweep.parameters import Parameter
from experiments.study.sweep.trial_files import Trial
from lightning_modules.gates.figures import quiet

if TYPE_CHECKING:
    from experiments.study.sweep.sweep_file import Sweep

INK, DOT, BEST = "#3d4650", "#0072b2", "#d55e00"
ACROSS = 3
"""Panels in a row."""
SPREAD = 0.18
"""How far dots of one choice lie beside its middle."""
CROWDED = 8
"""More choices than this are written at an angle."""


def draw_sweep(parameters: Sequence[Parameter], trials: Sequence[Trial], sweep: Sweep) -> Figure:
    """A dot a trial, the best one in another colour; a dash is the mean of a choice.

    Args:
        parameters: those that vary. trials: those that have finished, best first.
    """
    across = min(ACROSS, len(parameters))
    down = ceil(len(parameters) / across)
    figure = Figure(figsize=(0.6 + 3.4 * across, 0.3 + 2.9 * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False, sharey=True)
    for i, (ax, parameter) in enumerate(zip(panels.flat, parameters, strict=False)):
        quiet(ax)
        _draw(ax, parameter, trials)
        ax.set_xlabel(parameter.name, color=INK)
        if i % across == 0:
            ax.set_ylabel(sweep.metric, color=INK)
    for ax in panels.flat[len(parameters) :]:
        ax.set_visible(False)
    return figure


def _draw(ax: Axes, parameter: Parameter, trials: Sequence[Trial]) -> None:
    values, metric = [one.parameters.get(parameter.name) for one in trials], np.array([one.value for one in trials])
    if parameter.is_choice:
        places = _choices(ax, parameter, values, metric)
    else:
        places = np.array(values, float)
        if parameter.is_logarithmic:
            ax.set_xscale("log")
    ax.plot(places[1:], metric[1:], "o", color=DOT, markersize=5, alpha=0.7, markeredgewidth=0)
    ax.plot(places[:1], metric[:1], "o", color=BEST, markersize=8, markeredgecolor="white")


def _choices(ax: Axes, parameter: Parameter, values: Sequence, metric: np.ndarray) -> np.ndarray:
    """Where the dots of choices lie, whose names go to the axis and whose means become dashes."""
    names = [str(value) for value in dict.fromkeys(map(str, parameter.values or ()))]
    middles = np.array([names.index(str(value)) for value in values], float)
    for place in set(middles):
        ax.hlines(metric[middles == place].mean(), place - 0.3, place + 0.3, color=INK, linewidth=1.6)
    ax.set_xlim(-0.6, len(names) - 0.4)
    crowded = len(names) > CROWDED or sum(map(len, names)) > 4 * CROWDED
    ax.set_xticks(range(len(names)), [shorten(name, 24, placeholder="...") for name in names])
    if crowded:
        ax.tick_params("x", rotation=40)
        for label in ax.get_xticklabels():
            label.set_horizontalalignment("right")
    return middles + np.random.default_rng(0).uniform(-SPREAD, SPREAD, len(middles))
