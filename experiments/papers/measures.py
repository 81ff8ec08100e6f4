"""Measures of a run by arm and seed, from which claims are made.

Each function takes a run (`experiments.study.reader.FolderRun`) and returns a Series whose index is (arm, seed);
accuracies and errors are in percentage points.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import pandas as pd
from pandas import DataFrame, Series

from experiments.study.endings import UsageError
from experiments.study.reader import FolderRun
from experiments.study.tables.differences import of_arm
from experiments.study.tables.domain_drop import DROP, KEPT, seed_scores

Measured = Callable[[FolderRun], Series]

LIGHT = ("rgb+50", "r+50", "std/1.5")
"""IBN-Net's shifts of light, as conditions of the part "shifts"."""
THIRD = 1 / 3


def more(measured: Measured, arm: str, than: str) -> Callable[[FolderRun], Series]:
    """By how much an arm has more of a measure than another, by seed."""
    return lambda run: (of_arm(measured(run), arm) - of_arm(measured(run), than)).dropna()


def less(measured: Measured, arm: str, than: str) -> Callable[[FolderRun], Series]:
    """By how much an arm has less of a measure than another, by seed."""
    return more(measured, than, arm)


def of(measured: Measured, arm: str) -> Callable[[FolderRun], Series]:
    """An arm's measure, by seed."""
    return lambda run: of_arm(measured(run), arm)


def score(measure: str, part: str = "clean", conditions: Collection[str] | None = None) -> Measured:
    """A measure of the results, on average over domains and conditions."""

    def measured(run: FolderRun) -> Series:
        rows = run.results[(run.results["measure"] == measure) & (run.results["part"] == part)]
        if conditions is not None:
            if missing := {*conditions} - {*rows["condition"]}:
                raise UsageError(f"{run.name} was not evaluated under {', '.join(sorted(missing))}.")
            rows = rows[rows["condition"].isin(conditions)]
        return 100 * rows.groupby(["arm", "seed"])["value"].mean()

    return measured


top1 = score("top1")


def source_miou(run: FolderRun) -> Series:
    """mIoU on the domain that was learned."""
    rows = run.results[(run.results["measure"] == "miou") & (run.results["role"] == "source")]
    return 100 * rows.groupby(["arm", "seed"])["value"].mean()


def drop(run: FolderRun) -> Series:
    """Source minus the mean of the targets."""
    return seed_scores(run.results)[DROP]


def share_kept(run: FolderRun) -> Series:
    """The mean of the targets in percent of the source."""
    return seed_scores(run.results)[KEPT]


def light_loss(run: FolderRun) -> Series:
    """What the shifts of light take from top-1."""
    return top1(run) - score("top1", "shifts", LIGHT)(run)


def log_divergence(run: FolderRun) -> Series:
    """log2 of the divergence between source and targets, on average over targets and the encoder's layers that all arms
    have."""
    rows = run.divergence[run.divergence["layer"].str.contains("encoder")]
    common = rows.groupby("layer")["arm"].nunique() == rows["arm"].nunique()
    rows = rows[rows["layer"].map(common).astype(bool)]
    return np.log2(rows.set_index(["arm", "seed"])["mean"]).groupby(level=[0, 1]).mean()


def batch_share(run: FolderRun) -> Series:
    """What the gates of SN take from the batch, in percent, on average over layers, means and variances."""
    rows = last_gates(run.gates)
    return 100 * rows[rows["label"] == "bn"].groupby(["arm", "seed"])["value"].mean()


def instance_share_early(run: FolderRun) -> Series:
    """By how much more the first third of SN's layers takes from the instance than the last, in points."""
    return -rising(last_gates(run.gates), "in")


def batch_share_late(run: FolderRun) -> Series:
    """By how much more the last third of SN's layers takes from the batch than the first, in points."""
    return rising(last_gates(run.gates), "bn")


def rho_rising(run: FolderRun) -> Series:
    """By how much higher the mean of BIN's rho is in the last third of the layers than in the first, in points."""
    rows = last_gates(run.gates)
    return rising(rows[rows["statistic"] == "rho"].assign(label="rho"), "rho")


def rho_at_the_ends(run: FolderRun) -> Series:
    """How many percent more of BIN's rho lie in the sparser of the ranges 0 to 0.2 and 0.8 to 1 than in 0.4 to 0.6."""
    rows = last_gates(run.gates)
    rho = rows[rows["statistic"] == "rho"].set_index(["arm", "seed"])["value"]

    def share(low: float, high: float) -> Series:
        return 100 * ((rho >= low) & (rho <= high)).groupby(level=[0, 1]).mean()

    ends = pd.concat([share(0, 0.2), share(0.8, 1)], axis=1).min(axis=1)
    return ends - share(0.4, 0.6)


def last_gates(gates: DataFrame) -> DataFrame:
    """The gates after the last epoch of each training."""
    return gates[gates["epoch"] == gates.groupby(["arm", "seed"])["epoch"].transform("max")]


def rising(gates: DataFrame, label: str) -> Series:
    """Mean of the gates of a label in the last third of the layers minus that in the first, in points."""
    rows = gates[gates["label"] == label]
    by_layer = 100 * rows.groupby(["arm", "seed", "depth"])["value"].mean()

    def ends(values: Series) -> float:
        third = max(1, round(THIRD * len(values)))
        return values.iloc[-third:].mean() - values.iloc[:third].mean()

    return by_layer.groupby(level=[0, 1]).apply(ends)
