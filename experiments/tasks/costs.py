"""Studies that compare networks by cost (multiply-adds, parameters, latency) and accuracy."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pandas as pd

from experiments.study.endings import UsageError
from experiments.study.latency import latency
from experiments.study.tables.table import Table, table_of
from experiments.tasks.classification import Arm, ClassificationTask, build, run_arms
from experiments.tasks.classification_domains import Opened
from experiments.tasks.classification_tables import accuracies
from experiments.tasks.resnet_rs import CostFlags
from lightning_modules.classification.backbones import complexity

if TYPE_CHECKING:
    from datamodules.classification.data import ClassificationData
    from experiments.study.settings import RunSettings
    from lightning_modules.classification.module import ClassificationModule


def run_costs(
    flags: CostFlags, study: str, question: str, arms: dict[str, Arm], arm_flags: tuple[str, ...]
) -> pd.DataFrame | None:
    """Train and evaluate networks of different cost; their table gives cost and top-1.

    Args:
        arms: their columns name the "network"; the rest is as in `run_arms`.
    """
    opened = Opened(flags)
    counted = {arm.columns["network"]: with_costs(flags, arm, opened) for arm in arms.values()}
    return run_arms(flags, study, question, counted, cost_table, opened=opened, task=TimedTask, arm_flags=arm_flags)


def with_costs(flags: CostFlags, arm: Arm, opened: Opened) -> Arm:
    """The arm with its parameters and multiply-adds among its columns."""
    try:
        parameters, flops = complexity(build(flags, arm, opened).net, arm.recipe.image_size)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return dataclasses.replace(arm, columns=arm.columns | {"parameters": parameters, "flops": flops})


class TimedTask(ClassificationTask):
    """Classification whose results also hold the network's latency on the device that trained it."""

    def evaluate_further(
        self, module: ClassificationModule, data: ClassificationData, arm: Arm, run: RunSettings
    ) -> dict[str, list[dict]]:
        further = super().evaluate_further(module, data, arm, run)
        network = build(self.flags, arm, self.opened).net.to(module.device)  # a copy without hooks
        batch_size, repeats = self.flags.latency_batch, self.flags.latency_repeats
        found = latency(network, arm.recipe.image_size, batch_size=batch_size, repeats=repeats)
        row = {"part": "speed", "condition": f"batch {batch_size}", "measure": "latency", "value": found}
        return further | {"results": [*further.get("results", []), row]}


def cost_table(results: pd.DataFrame) -> Table:
    """A row for each network: multiply-adds, parameters, latency, chosen hyper-parameters, and top-1."""
    top1 = accuracies(results, rows="network", columns="measure")["top1"]
    columns = results.drop_duplicates("network").set_index("network").loc[top1.index.get_level_values("network")]
    latencies = results[results["measure"] == "latency"].groupby(["network", "seed"])["value"].mean()
    scores = top1.to_frame("top-1")
    scores["MFLOPs"] = columns["flops"].to_numpy() / 1e6
    scores["M parameters"] = columns["parameters"].to_numpy() / 1e6
    scores["ms an image"] = latencies.reindex(scores.index)
    for picked in ("lr", "strength"):
        if picked in columns and columns[picked].nunique() > 1:
            scores[picked] = columns[picked].to_numpy()
    costs = [column for column in scores if column != "top-1"]
    batch = results.loc[results["measure"] == "latency", "condition"].iloc[0]
    legend = (
        f"top-1 accuracy in percent. FLOPs: multiply-adds of an image. ms an image: measured in inference, {batch}."
    )
    digits = {column: 2 for column in costs if column != "MFLOPs"}
    return table_of(scores[[*costs, "top-1"]], legend, corner="network", unranked=frozenset(costs), digits=digits)
