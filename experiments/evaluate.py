"""How good are trained networks on any set, also on one that nobody thought of when they were trained?

A laptop, what studies have left behind, on what the networks were evaluated on at the end of their training:

    python experiments/evaluate.py runs/seg_gta2city

On other sets, and more networks beside them (the embedded ones need nothing on disk):

    python experiments/evaluate.py runs/seg_gta2city more/model.ckpt --target streets-night streets-fog
    python experiments/evaluate.py runs/cls_imagenet --target shapes/sketch --parts clean corruptions consistency

A GPU, with data/cityscapes and data/bdd100k on disk:

    python experiments/evaluate.py runs/seg_gta2city --target cityscapes bdd100k --gpus 1 --workers 8

Takes checkpoints of studies and folders of their runs, segmentation networks or classification networks; each is
rebuilt from its checkpoint alone, and sees the sets as its recipe says. A set has to be labelled as the network was
trained; classes are matched by their names. Classification networks may be evaluated further, by `--parts`: on
IBN-Net's appearance shifts, ImageNet-C's corruptions, ImageNet-P's perturbations, by shift consistency and calibration
(eval_robustness.py sets torchvision's and timm's networks beside them, and takes ImageNet-C's own files).

Ends in one table, a row an arm, mean and spread over its seeds. OUT gets table.md, table.json, results.csv with a row a
value, config.yaml and examples; W&B gets a run a network.
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

if TYPE_CHECKING:  # these load torch; a command line that asks for --help need not wait
    import pytorch_lightning as pl
    from pandas import DataFrame

    from experiments.study.run_folder import RunFolder
    from experiments.study.tables import Table
    from experiments.study.trained.networks import Trained
    from experiments.study.trained.task import TrainedTask

PARTS = ("clean", "calibration", "shifts", "corruptions", "perturbations", "consistency")
QUESTION = "Trained networks, evaluated from their checkpoints: how good are they on these sets?"
POSITIONAL = {"positional": True, "custom_args": {"metavar": "CHECKPOINT ..."}}


@dataclass
class Flags:
    """Flags of this evaluation."""

    networks: list[str] = field(default_factory=list, metadata=POSITIONAL)
    """Checkpoints, or folders of studies' runs: all their arms and seeds; seeds of one arm are averaged."""
    target: list[str] = field(default_factory=list)
    """Sets to evaluate on, NAME or NAME:SPLIT; by default those that each network was evaluated on when it had been
    trained."""
    data_root: str = "data"
    """Folder that holds the real sets, each in a subfolder of its name."""
    parts: list[str] = field(default_factory=lambda: ["clean"])
    """What to measure, of clean calibration shifts corruptions perturbations consistency."""
    images: int | None = None
    """Images of each set; by default all, and of an embedded set as many as at the end of the training."""
    severities: list[int] = field(default_factory=lambda: [1, 2, 3, 4, 5])
    """Severities of the corruptions."""
    frames: int | None = None
    """Frames of a perturbation; by default as many as ImageNet-P's."""
    seed: int = 0
    """Seed of corruptions and crops."""
    batch_size: int | None = None
    """Images that go through a network at once; by default as in the networks' own evaluation."""
    precision: str = "32-true"
    """Lightning's word: 32-true, bf16-mixed, 16-mixed or 64-true."""
    gpus: int | None = None
    """1 for a GPU, 0 for the CPU; by default a GPU where there is one."""
    workers: int | None = None
    """Loader processes; by default half the cores, at most 8."""
    out: str = "runs/evaluate"
    """Folder for the table, the results and the examples."""
    plugin: list[str] = field(default_factory=list)
    """Python files with norms (docs/own-norm.md) or tasks of your own, of which a network may be."""
    wandb: str = "auto"
    """online, offline or disabled; auto is online where you are logged in and offline elsewhere."""
    resume: bool = False
    """Go on with the evaluation in OUT: networks that have their results keep them."""
    smoke: bool = False
    """A few images and, where none is given, an untrained network, to see in seconds that everything fits together."""

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
    """Evaluate the networks; returns tidy results: arm, its columns, seed, domain, part, condition, measure, value."""
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
        raise UsageError(f"--parts {refused[0]}: {kind.task} networks are evaluated on {', '.join(task.parts)} alone.")
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
    """Evaluate networks, each on its sets, and leave what was found of each in the folder."""
    import pandas as pd

    from experiments.study.trained.network_outcome import log_network
    from experiments.study.trained.one_device import in_precision, placed
    from lightning_modules.examples import save_examples

    rows, examples = {}, {}
    for network, data in networks:
        if "clean" in flags.parts:
            trainer.validate(network.module, data, verbose=False)
            tell(network)
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


def tell(network: Trained) -> None:
    """A line that stays in a log: what a network comes to on each set."""
    from lightning_modules.measures import measure_of

    measure = measure_of(network.module.headline)
    found = [row for row in network.module.results() if row["measure"] == measure.name]
    said = ", ".join(f"{row['domain']} {measure.text(row['value'])}" for row in found)
    print(f"{network.arm}-seed{network.seed}: {measure.label} {said}", flush=True)


def gathered(flags: Flags) -> list[Trained]:
    """The networks, in the order they were asked for.

    Raises:
        UsageError: one of them cannot be had, or they are of several tasks.
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
    """The folder of the evaluation, in the form of a study's run."""
    from experiments.study.run_folder import RunFolder

    class EvaluationFolder(RunFolder):
        seeds = sorted({network.seed for network in networks})

    arms = {network.arm: network.columns for network in networks}
    kind = networks[0].module
    about = {"trainings": [[network.arm, network.seed] for network in networks]}
    settings = {"headline": kind.headline, "measures": [*kind.measures, *FURTHER]}
    return EvaluationFolder(Path(flags.out), flags, QUESTION, about, arms, ("networks",), flags.smoke, **settings)


FURTHER = ("ece", "error", "flip", "top5_distance", "consistency", "drop")
"""Measures that results may hold beside those of the modules."""


def smoked(flags: Flags) -> Flags:
    """The flags of a few seconds' run; networks, sets and parts stay."""
    out = f"{flags.out}-smoke" if flags.out == Flags(smoke=True).out else flags.out
    changed = {"images": 4, "workers": 0, "frames": 3, "severities": [1, 5]}
    return dataclasses.replace(flags, out=out, wandb=smoke_wandb(flags), **changed)


if __name__ == "__main__":
    main()
