"""Trained networks, evaluated on sets by name: what `evaluate.py` does once its flags are parsed."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytorch_lightning as pl
from pandas import DataFrame
from pytorch_lightning.callbacks import RichProgressBar

from experiments.study.endings import UsageError
from experiments.study.run_folder import RunFolder
from experiments.study.settings import loader_workers
from experiments.study.tables.printed import print_table
from experiments.study.tables.table import Table
from experiments.study.trained.evaluation_table import evaluation_table
from experiments.study.trained.network_outcome import log_network
from experiments.study.trained.networks import Trained, as_folder, trained_networks
from experiments.study.trained.one_device import in_precision, make_evaluator, placed
from experiments.study.trained.task import TrainedTask, task_of
from lightning_modules.examples import save_examples
from lightning_modules.measures import measure_of

QUESTION = "How accurate are these trained networks, evaluated from their checkpoints?"


def evaluated(flags) -> DataFrame:
    """Evaluate the networks that the flags of `evaluate.py` name.

    Returns:
        The results in long form: arm, its columns, seed, domain, part, condition, measure, value.
    """
    started = time.time()
    trainer = make_evaluator(flags, [RichProgressBar()])
    flags = dataclasses.replace(flags, workers=loader_workers(flags))
    networks = gathered(flags)
    kind = networks[0].module
    task = task_of(kind.task)
    refused = [part for part in flags.parts if part not in task.parts]
    if refused:
        raise UsageError(f"--parts {refused[0]}: for {kind.task} networks choose from {', '.join(task.parts)}.")
    opened = [(network, task.data(network.module, flags.target, flags)) for network in networks]
    folder = make_folder(flags, networks)
    left = [(network, data) for network, data in opened if not folder.is_finished(network.arm, network.seed)]
    evaluate_all(flags, trainer, task, folder, left)

    def table(rows: DataFrame) -> Table:
        return evaluation_table(rows, measure_of(kind.headline))

    results = folder.gather((time.time() - started) / 60, table)
    print_table(table(results))
    print(f"table and results: {folder.path}")
    return results


def evaluate_all(
    flags,
    trainer: pl.Trainer,
    task: TrainedTask,
    folder: RunFolder,
    networks: Sequence[tuple[Trained, pl.LightningDataModule]],
) -> None:
    """Evaluate each network on its sets, and write its results into the folder."""
    rows, examples = {}, {}
    for network, data in networks:
        if "clean" in flags.parts:
            trainer.validate(network.module, data, verbose=False)
            print_scores(network)
        placed(trainer, network.module)  # Lightning has moved it to the CPU
        rows[network.source] = network.module.results() if "clean" in flags.parts else []
        with in_precision(trainer):
            examples[network.source] = task.examples(network.module, data)
        if flags.parts == ["clean"]:
            network.module.cpu()  # for the next one
    with in_precision(trainer):
        further = task.further(networks, flags.parts, flags)
    for network, _ in networks:
        found = [*rows[network.source], *further.get(network.source, [])]
        save_examples(examples[network.source], folder.path / "examples", network.arm)
        folder.finish(network.arm, network.seed, {"results": found})
        if flags.wandb != "disabled":
            about = {"arm": network.arm, **network.columns, "seed": network.seed, "network": network.source}
            shown = examples[network.source]
            log_network(flags.wandb, folder.path, about, pd.DataFrame(found), network.module.headline, shown)


def print_scores(network: Trained) -> None:
    """Print one line with the network's score on each set."""
    measure = measure_of(network.module.headline)
    found = [row for row in network.module.results() if row["measure"] == measure.name]
    said = ", ".join(f"{row['domain']} {measure.text(row['value'])}" for row in found)
    print(f"{network.arm}-seed{network.seed}: {measure.label} {said}", flush=True)


def gathered(flags) -> list[Trained]:
    """The networks, in the order of the command line.

    Raises:
        UsageError: one of them is missing or cannot be rebuilt, or they are of several tasks.
    """
    if not flags.networks:
        return [Trained("untrained", 0, {"norm": "bn"}, task_of("segmentation").smoke_network(), "untrained")]
    networks = trained_networks(flags.networks)
    tasks = {network.module.task: network.source for network in networks}
    if len(tasks) > 1:
        said = " and ".join(f"{source} is of {task}" for task, source in tasks.items())
        raise UsageError(f"{said}: evaluate the networks of each task by themselves.")
    return [dataclasses.replace(network, arm=as_folder(network.arm)) for network in networks]


def make_folder(flags, networks: Sequence[Trained]) -> RunFolder:
    """The folder of the evaluation, with the same files as a study's run."""

    class EvaluationFolder(RunFolder):
        seeds = sorted({network.seed for network in networks})

    arms = {network.arm: network.columns for network in networks}
    kind = networks[0].module
    about = {"trainings": [[network.arm, network.seed] for network in networks]}
    settings = {"headline": kind.headline, "measures": [*kind.measures, *FURTHER]}
    return EvaluationFolder(Path(flags.out), flags, QUESTION, about, arms, ("networks",), flags.smoke, **settings)


FURTHER = ("ece", "error", "flip", "top5_distance", "consistency", "drop")
"""Measures that results may hold besides those of the modules."""
