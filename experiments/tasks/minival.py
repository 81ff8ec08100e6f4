"""Choice of hyper-parameters on a held-out part of the training set: ResNet-RS's "minival".

Bello et al. (NeurIPS 2021, section 4.2) hold out 2 % of ImageNet's training images, and use the validation set only for
the reported results. With the chosen hyper-parameters the network is then trained on all training images.
"""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import torch.distributed as processes
from pandas import DataFrame

from datamodules.classification.domains import ImageDomain
from datamodules.classification.joined import Relabelled
from experiments.study.endings import TrainingsFailed, UsageError
from experiments.study.failures import read_failure
from experiments.study.flags import out_folder
from experiments.study.tables.table import Table, table_of
from experiments.tasks.classification import Arm, run_arms
from experiments.tasks.classification_domains import Opened
from experiments.tasks.classification_flags import ClassificationFlags
from experiments.tasks.classification_tables import accuracies

SUFFIX = "-minival"
"""Suffix of the folder in which the candidates are trained."""


def divided(count: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Indices of `count` images: a held-out share of them (one at least) and the rest; the same in every call."""
    order = np.random.default_rng(0).permutation(count)
    held = max(1, round(share * count))
    return np.sort(order[:held]), np.sort(order[held:])


class Minival(Opened):
    """The domains, where a part of the training images is held out and takes the place of those evaluated on."""

    def __init__(self, flags: ClassificationFlags, share: float):
        super().__init__(flags)
        self.share = share

    def _open(self, name: str, split: str, size: int) -> ImageDomain:
        whole = super()._open(name, "train", size)
        held, rest = divided(len(whole.samples), self.share)
        chosen = held if split == "val" else rest
        return dataclasses.replace(whole, samples=Relabelled(whole.samples, chosen, whole.samples.labels[chosen]))


def picked(
    flags: ClassificationFlags,
    study: str,
    question: str,
    candidates: dict[str, dict[str, Arm]],
    share: float,
    arm_flags: tuple[str, ...],
) -> dict[str, Arm]:
    """The best candidate of each network, by top-1 on the minival and, where that is level, by its loss.

    Every candidate is trained without the minival, under the first seed, in a folder of its own beside the study's
    (its name ends in `SUFFIX`). A network with one candidate needs no picking and is not trained.

    Args:
        candidates: arms of each network by name; their columns name the "network" and the "candidate" that it is of it.
        arm_flags: flags that choose the networks, to which a resumed picking may add.

    Returns:
        An arm for each network.

    Raises:
        UsageError: the study's own folder already holds a run; this is checked before the hours of training.
    """
    arms = {name: arm for group in candidates.values() if len(group) > 1 for name, arm in group.items()}
    own = dataclasses.replace(flags, seeds=1, out=f"{flags.out}{SUFFIX}")
    if arms:
        if begun(flags, study) and flags.resume == "no" and not flags.smoke:
            raise UsageError(f"{out_folder(flags, study)} already holds a run: pass --resume, or another --out.")
        try:
            run_arms(own, study, question, arms, candidates_table, opened=Minival(own, share), arm_flags=arm_flags)
        except TrainingsFailed as error:  # such as under too high a rate, which then is not picked
            print(f"not picked: {error}", file=sys.stderr, flush=True)
        if processes.is_initialized():
            processes.barrier()  # the first process alone writes the results
    scores = {name: score(out_folder(own, study), name, flags.seed) for name in arms}
    scores = {name: found for name, found in scores.items() if found is not None}
    return {group: chosen[max(chosen, key=lambda name: scores.get(name, ()))] for group, chosen in candidates.items()}


def begun(flags: ClassificationFlags, study: str) -> bool:
    """Whether the training of any of the study's arms has begun."""
    return any(out_folder(flags, study).glob("*-seed*"))


def score(folder: Path, arm: str, seed: int) -> tuple[float, float] | None:
    """The score by which a finished candidate is chosen, higher is better; None if it failed."""
    if read_failure(folder, arm, seed) is not None:
        return None
    rows = json.loads((folder / f"{arm}-seed{seed}" / "result.json").read_text())["results"]
    found = {row["measure"]: row["value"] for row in rows if row["part"] == "clean"}
    return found["top1"], -found["loss"]


def candidates_table(results: DataFrame) -> Table:
    """Top-1 on the minival, with a row for each network and a column for each candidate."""
    scores = accuracies(results, rows="network", columns="candidate")
    return table_of(scores, "top-1 accuracy in percent on the images held out for picking.", corner="network")
