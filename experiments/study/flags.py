"""Command lines from dataclasses: each field is a flag, and the line of prose under it is the flag's help."""

import argparse
import dataclasses
import os
import reprlib
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, TypeVar, get_type_hints

import yaml
from simple_parsing import ArgumentParser, DashVariant, SimpleHelpFormatter
from simple_parsing import flag as flag  # for the studies: what they import first is `experiments`, which minds Ctrl-C

from experiments.study.bounds import SEEDS, Bounds, check_bounds, fitting
from experiments.study.endings import UsageError, fail, one_sentence
from lightning_modules.checkpoint_files import ABSENT, fault_of_path
from normshift.registry import NORMS

ABOUT = ("command", "question", "machine", "git", "versions", "minutes", "colours", "trainings")
"""What a run's config.yaml says beside its flags."""

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "64-true")

WANDB = ("auto", "online", "offline", "disabled")

Flags = TypeVar("Flags")


@dataclass
class RunFlags:
    """Flags that every study has."""

    data_root: str = "data"
    """Folder that holds the real sets, each in a subfolder of its name."""
    gpus: int | None = None
    """GPUs on each machine, 0 for the CPU; by default one where there is one."""
    nodes: int = 1
    """Machines, started by SLURM or torchrun."""
    precision: str = "32-true"
    """Lightning's word: 32-true, bf16-mixed, 16-mixed or 64-true."""
    batch_size: int | None = None
    """Images a step, over all processes; by default the recipe's."""
    epochs: int | None = None
    """Passes over the source, or over the recipe's steps an epoch; by default the recipe's steps count."""
    max_steps: int | None = None
    """Training steps; by default the recipe's."""
    seed: int = 0
    """First seed."""
    seeds: int = 1
    """Repeats, with seeds SEED, SEED + 1, ...; the closing table gives mean and standard deviation."""
    workers: int | None = None
    """Loader processes for each GPU; by default half the cores, at most 8."""
    out: str = "runs/NAME"
    """Folder of the run, NAME being the study's."""
    plugin: list[str] = field(default_factory=list)
    """Python files that register norms of your own (docs/own-norm.md), which --norm then takes."""
    wandb: str = "auto"
    """online, offline or disabled; auto is online where you are logged in and offline elsewhere."""
    resume: bool = False
    """Go on with the run in OUT: what is finished stays, what was interrupted continues from its last epoch's
    checkpoint, with samples drawn anew."""
    smoke: bool = False
    """A few steps on tiny embedded data, to see in seconds that everything fits together."""

    def __post_init__(self):
        register_plugins(self)
        check_numbers(self)
        if self.seed + self.seeds - 1 > SEEDS:
            raise UsageError(f"--seed {self.seed} --seeds {self.seeds}: the last seed must be {SEEDS} or less.")
        if self.precision not in PRECISIONS:
            raise UsageError(f"--precision {self.precision}: choose from {', '.join(PRECISIONS)}.")
        if self.epochs is not None and self.max_steps is not None:
            raise UsageError("--epochs and --max-steps say the same thing twice: pass one of them.")
        if not self.out.strip():
            raise UsageError("--out: name a folder; . is the one that you are in.")
        check_wandb(self.wandb)


def register_plugins(flags) -> None:
    """Run the files of --plugin, before anything is checked: what they register is known from then on."""
    if flags.plugin:
        from experiments.study.plugins import load_plugins

        flags.plugin = [os.path.abspath(file) for file in flags.plugin]
        load_plugins(flags.plugin)


def check_numbers(flags, **other: Bounds) -> None:
    """Refuse what is out of `experiments.study.bounds`. Args: other: bounds that are one script's own."""
    wrong = check_bounds(flags, **other)
    if wrong:
        raise UsageError(wrong)


def out_folder(flags: RunFlags, study: str) -> Path:
    """OUT, with the study's name for NAME: a smoke run has one of its own, and so has each trial of a W&B sweep."""
    trial = os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None
    return Path(flags.out.replace("NAME", "-".join([study, *["smoke"] * flags.smoke, *[trial] * (trial is not None)])))


def check_wandb(mode: str) -> None:
    if mode not in WANDB:
        raise UsageError(f"--wandb {mode}: choose from {', '.join(WANDB)}.")


def check_weights(weights: str) -> None:
    """Refuse weights to start from that are no word for some and no checkpoint file."""
    if weights not in ("none", "imagenet") and (fault := fault_of_path(weights)):
        fault = "no such file" if fault == ABSENT else f"it {fault}"
        raise UsageError(f"--weights {weights}: {fault}; pass none, imagenet or a checkpoint.")


def smoke_wandb(flags) -> str:
    """What a smoke run does with W&B: nothing, unless it was said."""
    return "disabled" if flags.wandb == "auto" else flags.wandb


class _Parser(ArgumentParser):
    def format_help(self) -> str:
        for action in self._actions:  # a norm is named in its own file alone
            action.help = (action.help or "").replace("NORMS", " ".join(NORMS))
        return super().format_help().replace("Flags ['flags']:", "flags:")

    def error(self, message: str) -> NoReturn:
        fail(f"{message} ({self.prog} --help lists the flags)")


def parse(flags: type[Flags], doc: str, arguments: list[str] | None = None) -> Flags:
    """Flags from the command line, over those of `--config FILE` where it is given, over the defaults.

    Exits with one sentence and status 2 on anything that does not fit.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config")
    first.error = fail
    known, rest = first.parse_known_args(arguments)
    parser = _Parser(
        description=doc,
        add_option_string_dash_variants=DashVariant.DASH,
        formatter_class=SimpleHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="a run's config.yaml to start from; other flags override it")
    with one_sentence():
        parser.add_arguments(flags, dest="flags", default=_from_file(flags, known.config) if known.config else None)
        return parser.parse_args(rest).flags


CONFIG_BYTES = 1_000_000
"""More than this is no run's config.yaml."""


def _from_file(flags: type[Flags], path: str) -> Flags:
    values = _read_config(path)
    values = {key: value for key, value in values.items() if key not in ABOUT}
    unknown = [str(key) for key in values.keys() - {field.name for field in dataclasses.fields(flags)}]
    if unknown:
        said = reprlib.repr(", ".join(sorted(unknown)))[1:-1]
        raise UsageError(
            f"--config {path} holds {said}, which this study does not know: it is of another study or of an "
            "earlier version; take these lines out of a copy of it, or repeat its flags by hand."
        )
    kinds = get_type_hints(flags)
    for name, value in values.items():
        try:
            values[name] = fitting(value, kinds[name])
        except TypeError as error:
            raise UsageError(f"--config {path}: {name} is {reprlib.repr(value)}, but {error} goes there.") from error
    return flags(**values)


def _read_config(path: str) -> dict:
    """What a YAML file holds; a device or a pipe is not read, which might never end."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UsageError(f"--config {path} is no regular file: pass a run's config.yaml.")
        with open(path, "rb") as opened:
            written = opened.read(CONFIG_BYTES + 1)
        if len(written) > CONFIG_BYTES:
            raise UsageError(f"--config {path} is larger than a run's config.yaml ever is.")
        values = yaml.safe_load(written.decode("utf-8"))
    except UsageError:
        raise
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        said = " ".join(str(error).split())[:300].rstrip(".")
        raise UsageError(f"--config {reprlib.repr(path)[1:-1]} cannot be read: {said}.") from error
    if not isinstance(values, dict):
        raise UsageError(f"--config {path} holds no flags: expected `name: value` lines, as in a run's config.yaml.")
    return values
