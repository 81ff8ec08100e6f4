"""How accurate are trained networks on any data set, also on one that their study did not use?

A laptop: the networks of a study, on the sets on which the study evaluated them:

    python experiments/evaluate.py runs/seg_gta2city

On other sets, and with other networks (the embedded sets need no files):

    python experiments/evaluate.py runs/seg_gta2city more/model.ckpt --target streets-night streets-fog
    python experiments/evaluate.py runs/cls_imagenet --target shapes/sketch --parts clean corruptions consistency

A GPU, with data/cityscapes and data/bdd100k on disk:

    python experiments/evaluate.py runs/seg_gta2city --target cityscapes bdd100k --gpus 1 --workers 8

The script takes checkpoints of studies and folders of their runs, of segmentation or of classification networks. It
rebuilds each network from its checkpoint alone, and preprocesses images as the network's recipe does. A set must have
the classes of the network, which are matched by name. `--parts` evaluates classification networks further: on IBN-Net's
appearance shifts, ImageNet-C's corruptions and ImageNet-P's perturbations, and by shift consistency and calibration.
(eval_robustness.py also takes torchvision's and timm's networks, and the published files of ImageNet-C and -P.)

The closing table has a row for each arm, with mean and standard deviation over its seeds. OUT then holds table.md,
table.json, results.csv with one value per row, config.yaml and examples. W&B gets one run for each network.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.study.bounds import Bounds
from experiments.study.flags import (
    PRECISIONS,
    UsageError,
    check_numbers,
    check_wandb,
    one_sentence,
    parse,
    register_plugins,
    smoke_wandb,
)

if TYPE_CHECKING:  # these import torch: --help must not wait for them
    import pytorch_lightning as pl
    from pandas import DataFrame

    from experiments.study.run_folder import RunFolder
    from experiments.study.tables import Table
    from experiments.study.trained.networks import Trained
    from experiments.study.trained.task import TrainedTask

PARTS = ("clean", "calibration", "shifts", "corruptions", "perturbations", "consistency")
QUESTION = "How accurate are these trained networks, evaluated from their checkpoints?"
POSITIONAL = {"positional": True, "custom_args": {"metavar": "CHECKPOINT ..."}}


@dataclass
class Flags:
    """Flags of this evaluation."""

    networks: list[str] = field(default_factory=list, metadata=POSITIONAL)
    """Checkpoints, or folders of runs, of which all arms and seeds are evaluated. Seeds of one arm are averaged."""
    target: list[str] = field(default_factory=list)
    """Sets to evaluate on, NAME or NAME:SPLIT; by default those on which each network's study evaluated it."""
    data_root: str = "data"
    """Folder with the real data sets, each in a subfolder of its name."""
    parts: list[str] = field(default_factory=lambda: ["clean"])
    """What to measure: clean calibration shifts corruptions perturbations consistency."""
    images: int | None = None
    """Number of images of each set; by default all, and of an embedded set as many as in the network's study."""
    severities: list[int] = field(default_factory=lambda: [1, 2, 3, 4, 5])
    """Severities of the corruptions, 1 to 5."""
    frames: int | None = None
    """Number of frames of each perturbation; by default as many as in ImageNet-P."""
    seed: int = 0
    """Seed of corruptions and crops."""
    batch_size: int | None = None
    """Images per batch; by default as in the network's study."""
    precision: str = "32-true"
    """Lightning's precision: 32-true, bf16-mixed, 16-mixed or 64-true."""
    gpus: int | None = None
    """1 evaluates on a GPU, 0 on the CPU; by default on a GPU if there is one."""
    workers: int | None = None
    """Data loader processes; by default half the cores, at most 8."""
    out: str = "runs/evaluate"
    """Folder for the table, the results and the examples."""
    plugin: list[str] = field(default_factory=list)
    """Python files that register your own norms, if a network has them (docs/own-norm.md)."""
    wandb: str = "auto"
    """Weights & Biases: online, offline or disabled; auto is online if you are logged in, else offline."""
    resume: bool = False
    """Continue the evaluation in OUT: networks that have results there are not evaluated again."""
    smoke: bool = False
    """Evaluate a few images, of an untrained network if none is named: a test, in seconds, that everything runs."""

    def __post_init__(self):
        register_plugins(self)
        check_numbers(self, images=Bounds(1, 10**9))
        for flag, chosen, known in (("parts", self.parts, PARTS), ("severities", self.severities, (1, 2, 3, 4, 5))):
            unknown = [value for value in chosen if value not in known]
            if unknown or not chosen:
                hint = " (networks come before flags that take several values)" if flag == "parts" and unknown else ""
                said = f"--{flag} {unknown[0] if unknown else ''}".strip()
                raise UsageError(f"{said}: choose from {', '.join(map(str, known))}{hint}.")
        if self.precision not in PRECISIONS:
            raise UsageError(f"--precision {self.precision}: choose from {', '.join(PRECISIONS)}.")
        check_wandb(self.wandb)
        if not self.networks and not self.smoke:
            raise UsageError("name a network to evaluate: a checkpoint, or the folder of a study's run.")
        self.target, self.parts = list(dict.fromkeys(self.target)), list(dict.fromkeys(self.parts))


def main() -> None:
    with one_sentence():
        run(parse(Flags, __doc__))


def run(flags: Flags) -> DataFrame:
    """Evaluate the networks; returns results in long form: arm, its columns, seed, domain, part, condition, measure,
    value."""
    from pytorch_lightning.callbacks import RichProgressBar

    from experiments.study.settings import loader_workers
    from experiments.study.trained.evaluation_table import evaluation_table
    from experiments.study.trained.one_device import make_evaluator
    from experiments.study.trained.task import task_of
    from lightning_modules.measures import measure_of

    started = time.time()
    flags = smoked(flags) if flags.smoke else flags
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
    table(results).print()
    print(f"table and results: {folder.path}")
    return results


def evaluate_all(
    flags: Flags,
    trainer: pl.Trainer,
    task: TrainedTask,
    folder: RunFolder,
    networks: Sequence[tuple[Trained, pl.LightningDataModule]],
) -> None:
    """Evaluate each network on its sets, and write its results into the folder."""
    import pandas as pd

    from experiments.study.trained.network_outcome import log_network
    from experiments.study.trained.one_device import in_precision, placed
    from lightning_modules.examples import save_examples

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
    from lightning_modules.measures import measure_of

    measure = measure_of(network.module.headline)
    found = [row for row in network.module.results() if row["measure"] == measure.name]
    said = ", ".join(f"{row['domain']} {measure.text(row['value'])}" for row in found)
    print(f"{network.arm}-seed{network.seed}: {measure.label} {said}", flush=True)


def gathered(flags: Flags) -> list[Trained]:
    """The networks, in the order of the command line.

    Raises:
        UsageError: one of them is missing or cannot be rebuilt, or they are of several tasks.
    """
    from experiments.study.trained.networks import Trained, as_folder, trained_networks
    from experiments.study.trained.task import task_of

    if not flags.networks:
        return [Trained("untrained", 0, {"norm": "bn"}, task_of("segmentation").smoke_network(), "untrained")]
    networks = trained_networks(flags.networks)
    tasks = {network.module.task: network.source for network in networks}
    if len(tasks) > 1:
        said = " and ".join(f"{source} is of {task}" for task, source in tasks.items())
        raise UsageError(f"{said}: evaluate the networks of each task by themselves.")
    return [dataclasses.replace(network, arm=as_folder(network.arm)) for network in networks]


def make_folder(flags: Flags, networks: Sequence[Trained]) -> RunFolder:
    """The folder of the evaluation, with the same files as a study's run."""
    from experiments.study.run_folder import RunFolder

    class EvaluationFolder(RunFolder):
        seeds = sorted({network.seed for network in networks})

    arms = {network.arm: network.columns for network in networks}
    kind = networks[0].module
    about = {"trainings": [[network.arm, network.seed] for network in networks]}
    settings = {"headline": kind.headline, "measures": [*kind.measures, *FURTHER]}
    return EvaluationFolder(Path(flags.out), flags, QUESTION, about, arms, ("networks",), flags.smoke, **settings)


FURTHER = ("ece", "error", "flip", "top5_distance", "consistency", "drop")
"""Measures that results may hold besides those of the modules."""


def smoked(flags: Flags) -> Flags:
    """The flags of a smoke run; networks, sets and parts stay."""
    out = f"{flags.out}-smoke" if flags.out == Flags(smoke=True).out else flags.out
    changed = {"images": 4, "workers": 0, "frames": 3, "severities": [1, 5]}
    return dataclasses.replace(flags, out=out, wandb=smoke_wandb(flags), **changed)


if __name__ == "__main__":
    main()
