"""Logs the evaluation of a trained network to W&B: one run for each network, with the keys of studies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.study.wandb_runs.outcome import outcome
from experiments.study.wandb_runs.start import start_wandb
from lightning_modules.examples import Example, wandb_images

if TYPE_CHECKING:
    from pandas import DataFrame


def log_network(
    mode: str, out: Path, about: dict, results: DataFrame, headline: str | None = None, examples: Sequence[Example] = ()
) -> None:
    """Log a network's `results`, what they come to (`wandb_outcome.outcome`) and its examples.

    Args:
        mode: W&B's. out: the evaluation's folder, which the run is grouped by.
        about: the run's settings, with the network's `arm` and `seed`.
        results: its rows. headline: the measure that it is first compared by.
    """
    import wandb  # slow to import, and --wandb disabled needs none

    run = start_wandb(mode, out, out.name, f"{out.name}-{about['arm']}-seed{about['seed']}", about)
    images = {"examples": wandb_images(examples)} if examples else {}
    run.log(outcome(results.to_dict("records"), [], headline) | {"results": wandb.Table(dataframe=results)} | images)
    run.finish()
