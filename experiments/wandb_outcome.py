"""How a training ended, on W&B: its results as a table, what they come to as single numbers, and some predictions.

The numbers have the same keys in every study, whatever its domains are called, so that one dashboard shows them all.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pytorch_lightning as pl

ROBUSTNESS = {
    ("shifts", "top1"): "robustness/shifts_top1",
    ("consistency", "consistency"): "robustness/shift_consistency",
    ("corruptions", "error"): "robustness/corruption_error",
    ("perturbations", "flip"): "robustness/flip_probability",
}
"""Keys by part and measure of a judgement; means over its conditions, severities and domains, in [0, 1]."""


def log_outcome(
    trainer: pl.Trainer,
    rows: list[dict],
    pictures: Iterable[tuple[np.ndarray, str]],
    divergence: list[dict] | None = None,
) -> None:
    """Log to the trainer's W&B runs, where it has any: `results`, `predictions`, and the numbers of `outcome`.

    Args:
        rows: the results, as they go to results.csv.
        pictures: images uint8 (H, W, 3) and their captions; drawn only where they are needed.
        divergence: rows of feature divergence between the source and the targets.
    """
    from lightning_modules.layer_log import STEP, wandb_runs
    from lightning_modules.study_module import steps_of

    runs = wandb_runs(trainer)
    if not runs:
        return
    import pandas as pd
    import wandb

    logged = {STEP: steps_of(trainer, trainer.lightning_module)} | outcome(rows, divergence or [])
    images = [wandb.Image(picture, caption=caption) for picture, caption in pictures]
    table = wandb.Table(dataframe=pd.DataFrame(rows))
    for run in runs:
        run.log(logged | {"results": table} | ({"predictions": images} if images else {}))


def outcome(rows: list[dict], divergence: list[dict]) -> dict[str, float]:
    """What results come to. All but the divergence, in nats a channel, are in [0, 1].

    Segmentation: `final/source` and `final/target`, the mIoU on the source and the mean of the targets', `final/drop`
    between them, and `final/divergence`, mean over targets and layers. Classification: `final/top1`, mean over the
    judged domains, and what it was judged on further, see `ROBUSTNESS`.
    """
    found: dict[str, list[float]] = {}
    for row in rows:
        if "miou" in row:
            key, value = f"final/{row['role']}", row["miou"]
        else:
            clean = {("clean", "top1"): "final/top1"}
            key, value = (clean | ROBUSTNESS).get((row["part"], row["measure"])), row["value"]
        if key:
            found.setdefault(key, []).append(value)
    numbers = {key: float(np.mean(values)) for key, values in found.items()}
    if {"final/source", "final/target"} <= {*numbers}:
        numbers["final/drop"] = numbers["final/source"] - numbers["final/target"]
    if divergence:
        numbers["final/divergence"] = float(np.mean([row["mean"] for row in divergence]))
    return numbers
