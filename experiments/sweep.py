"""Runs a sweep file of Weights & Biases on this machine, without an account: all trials, side by side, resumable.

A laptop (the shapes need no files; 30 trials; paths are looked for here and in experiments/):

    python experiments/sweep.py sweeps/shapes.yaml

Four trials at once, the cores or GPUs shared among them, and flags for every trial:

    python experiments/sweep.py sweeps/streets.yaml --processes 4 --extra="--max-steps 80 --wandb disabled"

Methods are grid, random, and bayes, which is optuna's TPE; of the latter two, --trials or the file's run_cap says how
many. Each trial is one run of the file's program in OUT/trial-001, OUT/trial-002, ..., with what it prints in
OUT/trial-001.log. The metric is the number of that key in W&B's summary of the run (final/top1, final/target, ...); it
is read from the trial's folder.

The sweep ends in a table, best trial first, and leaves it in OUT as sweep.csv and table.md, with sweep.png, the metric
against each parameter. A trial that fails is marked, the others go on, and the status is then 3. Ctrl-C ends the trials
in order; the same command with --resume goes on where they were.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from experiments.study.bounds import SEEDS, Bounds
from experiments.study.endings import UsageError, one_sentence
from experiments.study.flags import argument, check_numbers, chosen_resume, parse

if TYPE_CHECKING:
    from pandas import DataFrame

OURS = ("--out", "--resume", "--smoke")


@dataclass
class Flags:
    """Flags of the sweep."""

    file: str = field(default="", metadata={"positional": True, "custom_args": {"metavar": "SWEEP.yaml", "nargs": "?"}})
    """The sweep file, as `wandb sweep` takes it; experiments/sweeps/ has some."""
    out: str = "runs/NAME"
    """Folder of the sweep; NAME stands for sweep- and the file's name."""
    processes: int = 1
    """Trials at once, which share the cores and the GPUs of this machine."""
    trials: int | None = None
    """Most trials; by default the file's run_cap, and of a grid all."""
    seed: int = 0
    """Seed of the draws of parameters by methods random and bayes; a trial's own seed is a parameter or in --extra."""
    extra: str = ""
    """Further flags for every trial, such as --extra="--max-steps 80 --gpus 0"."""
    resume: str | None = argument(default=None, nargs="?", const="yes")
    """Continue the sweep in OUT: yes (or nothing behind the flag), no, or auto, which also begins a new one. By default
    auto in a job of a scheduler, else no."""
    smoke: bool = False
    """Run two trials with --smoke, on tiny embedded data: a test that everything runs."""

    def __post_init__(self):
        check_numbers(self, processes=Bounds(1, 1024), trials=Bounds(1, 10**6), seed=Bounds(0, SEEDS))
        if not self.file:
            raise UsageError("name a sweep file, such as sweeps/shapes.yaml.")
        if not self.out.strip():
            raise UsageError("--out: name a folder; . is the current one.")
        self.resume = chosen_resume(self.resume)
        try:
            flags = shlex.split(self.extra)
        except ValueError as error:
            raise UsageError(f"--extra {self.extra}: {str(error).lower()}.") from error
        wrong = [flag for flag in flags if flag.partition("=")[0] in OURS]
        if wrong:
            raise UsageError(f"--extra: take out {wrong[0]}; the sweep passes it to the trials itself.")


def main() -> None:
    with one_sentence():
        run(parse(Flags, __doc__))


def run(flags: Flags) -> DataFrame:
    """Run the sweep; returns what sweep.csv holds, a row a trial, best first."""
    from experiments.study.sweep.run import run_sweep  # imports torch: --help must not wait for it

    return run_sweep(flags)


if __name__ == "__main__":
    main()
