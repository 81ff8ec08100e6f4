"""Logs the end of a training to W&B: its results as a table, their means as single numbers, and some examples.

The numbers have the same keys in every study, which do not contain names of domains, so that one dashboard shows all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lightning_modules.examples import Example, wandb_images
from lightning_modules.layer_log import STEP, wandb_runs
from lightning_modules.measures import headline_of, measure_of

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from lightning_modules.study_module import StudyModule


def log_outcome(
    trainer: pl.Trainer,
    module: StudyModule,
    rows: list[dict],
    examples: Sequence[Example] = (),
    divergence: list[dict] | None = None,
    headline: str | None = None,
) -> None:
    """Log to the trainer's W&B runs, where it has any: `results`, `examples`, and the numbers of `outcome`.

    Args:
        rows: the results, as they go to results.csv.
        divergence: rows of feature divergence between the source and the targets.
        headline: as for `outcome`.
    """
    runs = wandb_runs(trainer)
    if not runs:
        return
    import wandb  # slow to import, and --wandb disabled needs none

    logged = {STEP: module.steps} | outcome(rows, divergence or [], headline)
    images = wandb_images(examples)
    table = wandb.Table(dataframe=pd.DataFrame(rows))
    for run in runs:
        run.log(logged | {"results": table} | ({"examples": images} if images else {}))


def outcome(rows: list[dict], divergence: list[dict], headline: str | None = None) -> dict[str, float]:
    """Means of results by W&B key, as stored: shares are in [0, 1], the divergence is in nats per channel.

    `final/HEADLINE` is the headline measure, mean over the domains. Where domains have a role, `final/source` and
    `final/target` are its means over those of each, and `final/drop` what is lost between them. All that was measured
    besides on other parts is `final/PART/MEASURE`, means over domains, conditions and severities. `final/divergence`
    is the mean over targets and layers.

    Args:
        headline: a measure's name; by default the one that `headline_of` finds.
    """
    headline = headline or headline_of(row["measure"] for row in rows)
    found: dict[str, list[float]] = {}
    for row in rows:
        part, measure, role = row.get("part", "clean"), row["measure"], row.get("role")
        if part != "clean":
            found.setdefault(f"final/{part}/{measure}", []).append(row["value"])
        elif measure == headline:
            found.setdefault(f"final/{role if isinstance(role, str) else measure}", []).append(row["value"])
    numbers = {key: float(np.mean(values)) for key, values in found.items()}
    if {"final/source", "final/target"} <= {*numbers}:
        lost = numbers["final/source"] - numbers["final/target"]
        numbers["final/drop"] = -lost if measure_of(headline).smaller_is_better else lost
    if divergence:
        numbers["final/divergence"] = float(np.mean([row["mean"] for row in divergence]))
    return numbers
