"""Trained networks from checkpoint files and from folders of studies' runs, each with its arm and seed."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from experiments.study.endings import UsageError
from experiments.study.run_parts import readable
from lightning_modules.checkpoint_files import ABSENT, fault_of_path
from lightning_modules.checkpoints import load_network

if TYPE_CHECKING:
    import pytorch_lightning as pl

Named = TypeVar("Named")


@dataclass(frozen=True)
class Trained:
    """A network that a study has trained."""

    arm: str
    seed: int
    columns: dict[str, Any]
    """The columns of its arm; only the norm, if the study's are not known."""
    module: pl.LightningModule
    source: str
    """Its file."""


def trained_networks(given: Iterable[str]) -> list[Trained]:
    """The networks of checkpoints and of run folders, without repeats, arms in the order of their studies.

    Raises:
        UsageError: there is no such file, no checkpoint in a folder, or a checkpoint that cannot be rebuilt.
    """
    files = {str(file.resolve()): file for one in given for file in checkpoint_files(one)}
    return distinct([trained_network(file) for file in files.values()])


def trained_network(file: Path, **kind: type) -> Trained:
    """The network of one checkpoint. Args: kind: as for `load_network`."""
    try:
        module = load_network(file, **kind)
    except ValueError as error:
        raise UsageError(str(error)) from error
    arm, seed = arm_and_seed(file)
    return Trained(arm, seed, _columns(file, arm) or {"norm": module.hparams.get("norm")}, module, str(file))


def checkpoint_files(given: str) -> list[Path]:
    """The checkpoints of a file, of the folder of one training, or of a run's folder.

    Raises:
        UsageError: there is none.
    """
    path = Path(given)
    if path.is_dir():
        found = [*path.glob("checkpoints/model.ckpt"), *path.glob("model.ckpt")] or ordered_parts(path)
        if not found:
            raise UsageError(f"{given} holds no finished network: expected {path}/ARM-seedN/checkpoints/model.ckpt.")
        return found
    if fault_of_path(path) == ABSENT:
        raise UsageError(f"{given}: no such checkpoint or folder.")
    return [path]


def ordered_parts(folder: Path) -> list[Path]:
    """The checkpoints of a run, arms in the order of its study, seeds ascending."""
    arms = list(_arms(folder))

    def place(file: Path) -> tuple:
        arm, seed = arm_and_seed(file)
        return (arms.index(arm) if arm in arms else len(arms), arm, seed)

    return sorted(folder.glob("*/checkpoints/model.ckpt"), key=place)


def arm_and_seed(file: Path) -> tuple[str, int]:
    """The name of a checkpoint: its training in the run, or the file itself if it is in no run."""
    part = file.resolve().parent.parent.name if file.parent.name == "checkpoints" or not file.parent.name else file.stem
    match = re.fullmatch(r"(.+)-seed(\d+)", part)
    return (match[1], int(match[2])) if match else (part, 0)


def distinct(networks: list[Named]) -> list[Named]:
    """The networks (with `source`, `arm` and `seed`) under different names that can be folders' names.

    Those of several runs are called ARM@RUN.
    """
    for longer in (lambda n: f"{n.arm}@{Path(n.source).resolve().parents[2].name}", lambda n: n.source):
        seen: dict[tuple, int] = {}
        for network in networks:
            seen[network.arm, network.seed] = seen.get((network.arm, network.seed), 0) + 1
        clashing = {arm for (arm, _), count in seen.items() if count > 1}
        networks = [dataclasses.replace(n, arm=longer(n)) if n.arm in clashing else n for n in networks]
    return networks


def learned_whole(trained_on: str, asked: str) -> list[str]:
    """The domains of which a network was trained on all images, if the set to evaluate on contains some of them.

    Args:
        trained_on: the network's training set, as domains joined by "+"; "NAME:all" are all images of one.
        asked: the set to evaluate it on.
    """
    learned = [part.removesuffix(":all") for part in trained_on.split("+") if part.endswith(":all")]
    for one in (part.partition(":")[0] for part in asked.split("+")):
        if any(f"{one}/".startswith(f"{known}/") or f"{known}/".startswith(f"{one}/") for known in learned):
            return learned
    return []


def as_folder(name: str) -> str:
    """A name reduced to the characters that are allowed in an arm's folder."""
    return re.sub(r"[^\w+=,@.-]+", "-", name).strip("-.") or "network"


def _columns(file: Path, arm: str) -> dict | None:
    """The arm's columns from the run in which a checkpoint lies."""
    found = _arms(file.resolve().parents[2]).get(arm) if len(file.resolve().parents) > 2 else None
    return found if isinstance(found, dict) else None


def _arms(run: Path) -> dict:
    found = readable(lambda: json.loads((run / "arms.json").read_text(encoding="utf-8")))
    return found if isinstance(found, dict) else {}
