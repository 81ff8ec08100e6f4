"""A study's flags, resolved once at its start: machine, folders, seeds. Later code reads them here."""

from __future__ import annotations

import dataclasses
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import yaml

from experiments.study.endings import UsageError
from experiments.study.flags import RunFlags, out_folder, resumes, smoke_wandb
from experiments.study.resume.time_limit import TimeLimit
from experiments.study.training.fastest import chosen

if TYPE_CHECKING:
    from lightning_modules.training_recipe import TrainingRecipe

CONFIG = "config.yaml"
"""The file of a run's flags, in its folder."""


@dataclass(frozen=True)
class RunSettings:
    """How and where one call of a study runs."""

    flags: RunFlags  # as they go to config.yaml
    study: str  # its name, of the script and of its folder in runs/
    out: Path
    fresh: bool  # empty `out` first, as for a smoke run
    resume: bool
    smoke: bool
    seeds: range
    accelerator: str  # "gpu" or "cpu"
    devices: int  # GPUs, or processes on the CPU, on each machine
    nodes: int  # machines
    workers: int  # loader processes for each training process
    precision: str  # as Lightning names it
    computing: str  # why so, and in which memory layout, for the log; empty if the flags said it
    data_root: str
    wandb: str  # auto, online, offline or disabled
    started: float  # when the study began, in seconds since the epoch
    time_limit: TimeLimit | None  # before which it stops

    @property
    def world(self) -> int:
        """Training processes on all machines."""
        return self.devices * self.nodes

    @property
    def shares(self) -> int:
        """Batches that make one step: those of all processes, and the accumulated ones of each."""
        return self.world * self.flags.accumulate

    @property
    def shares_in_words(self) -> str:
        """What shares a step's samples, for a sentence that refuses their number."""
        count = self.flags.accumulate
        return f"{self.world} process{'es' * (self.world > 1)}" + f" of {count} batches" * (count > 1)


def resolved(flags: RunFlags, study: str, recipe: TrainingRecipe | None = None) -> RunSettings:
    """Resolve a study's flags on this machine.

    Args:
        recipe: of the arms, or of the first of them; it says how to compute where the flags do not.

    Raises:
        UsageError: the flags ask for more GPUs than the machine has, or for a precision that the CPU does not support.
    """
    accelerator, count = devices(flags)
    started, out = time.time(), out_folder(flags, study)
    fresh = flags.smoke and "NAME" in flags.out
    resume = resumes(flags.resume, out) and not fresh
    precision, channels_last, reason = chosen(flags, recipe, begun(out) if resume else {}, accelerator == "gpu")
    flags = dataclasses.replace(flags, precision=precision, channels_last=channels_last)
    return RunSettings(
        flags=flags,
        study=study,
        out=out,
        fresh=fresh,
        resume=resume,
        smoke=flags.smoke,
        seeds=range(flags.seed, flags.seed + flags.seeds),
        accelerator=accelerator,
        devices=count,
        nodes=flags.nodes,
        workers=training_workers(flags, accelerator),
        precision=precision,
        computing=reason,
        data_root=flags.data_root,
        wandb=smoke_wandb(flags) if flags.smoke else flags.wandb,
        started=started,
        time_limit=TimeLimit(flags.time_limit, started) if flags.time_limit else None,
    )


def begun(out: Path) -> dict:
    """The config.yaml of the run in a folder; empty where it cannot be read, which the run's own check reports."""
    try:
        found = yaml.safe_load((out / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def devices(flags) -> tuple[str, int]:
    """Accelerator and devices for each machine. On the CPU, torchrun may start several processes.

    Args:
        flags: with `gpus` and, if the script has it, `precision`.

    Raises:
        UsageError: the flags ask for more GPUs than the machine has, or for a precision that the CPU does not support.
    """
    there = torch.cuda.device_count()
    started = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # processes that torchrun has started on this machine
    gpus = min(there, started) if flags.gpus is None else flags.gpus
    if gpus > there:
        have = f"{there} CUDA GPU{'s' if there > 1 else ''}" if there else "no CUDA GPU"
        raise UsageError(
            f"--gpus {gpus}: this machine has {have}; pass --gpus {there}{'' if there else ' to run on the CPU'}."
        )
    if not gpus and getattr(flags, "precision", None) == "16-mixed":  # Lightning would take bfloat16, by a warning
        raise UsageError("--precision 16-mixed needs a GPU; on the CPU, pass --precision bf16-mixed.")
    return ("gpu", gpus) if gpus else ("cpu", started)


def loader_workers(flags) -> int:
    """Loader processes for each process; by default half the cores, at most 8."""
    if flags.workers is not None:
        return flags.workers
    return min(8, max(1, (os.cpu_count() or 2) // (2 * devices(flags)[1])))


def training_workers(flags, accelerator: str) -> int:
    """Loader processes for each training process. Without a GPU the network itself needs the cores: two cores train
    the embedded streets 1.15 times as fast without a loader process as with one."""
    if accelerator == "cpu" and flags.workers is None:
        return min(8, (os.cpu_count() or 2) // 8)
    return loader_workers(flags)
