"""Command lines from dataclasses: each field is a flag, and the line of prose under it is the flag's help."""

import argparse
import dataclasses
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

import yaml
from simple_parsing import ArgumentParser, DashVariant, SimpleHelpFormatter

ABOUT = ("command", "question", "machine", "git", "versions", "minutes", "label_space")
"""What a run's config.yaml says beside its flags."""

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "64-true")

WANDB = ("auto", "online", "offline", "disabled")

Flags = TypeVar("Flags")


class UsageError(ValueError):
    """What was asked for cannot be done; one sentence that says what can."""


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
    wandb: str = "auto"
    """online, offline or disabled; auto is online where you are logged in and offline elsewhere."""
    resume: bool = False
    """Go on with the run in OUT: what is finished stays, what was interrupted continues from its last epoch's
    checkpoint, with samples drawn anew."""
    smoke: bool = False
    """A few steps on tiny embedded data, to see in seconds that everything fits together."""

    def __post_init__(self):
        least = {
            "nodes": 1,
            "batch_size": 1,
            "epochs": 1,
            "max_steps": 1,
            "seeds": 1,
            "gpus": 0,
            "workers": 0,
            "seed": 0,
        }
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise UsageError(f"--{name.replace('_', '-')} {value}: it must be {low} or more.")
        if self.precision not in PRECISIONS:
            raise UsageError(f"--precision {self.precision}: choose from {', '.join(PRECISIONS)}.")
        if self.epochs is not None and self.max_steps is not None:
            raise UsageError("--epochs and --max-steps say the same thing twice: pass one of them.")
        check_wandb(self.wandb)


def out_folder(flags: RunFlags, study: str) -> Path:
    """OUT, with the study's name for NAME: a smoke run has one of its own, and so has each trial of a W&B sweep."""
    trial = os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None
    return Path(flags.out.replace("NAME", "-".join([study, *["smoke"] * flags.smoke, *[trial] * (trial is not None)])))


def check_wandb(mode: str) -> None:
    if mode not in WANDB:
        raise UsageError(f"--wandb {mode}: choose from {', '.join(WANDB)}.")


def smoke_wandb(flags) -> str:
    """What a smoke run does with W&B: nothing, unless it was said."""
    return "disabled" if flags.wandb == "auto" else flags.wandb


class _Parser(ArgumentParser):
    def format_help(self) -> str:
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


def _from_file(flags: type[Flags], path: str) -> Flags:
    try:
        values = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise UsageError(f"--config {path} cannot be read: {' '.join(str(error).split())}.") from error
    if not isinstance(values, dict):
        raise UsageError(f"--config {path} holds no flags: expected `name: value` lines, as in a run's config.yaml.")
    values = {key: value for key, value in values.items() if key not in ABOUT}
    unknown = values.keys() - {field.name for field in dataclasses.fields(flags)}
    if unknown:
        raise UsageError(f"--config {path} holds {', '.join(sorted(unknown))}, which this study does not know.")
    try:
        return flags(
            **{
                key: tuple(value) if key == "crop" and isinstance(value, list) else value
                for key, value in values.items()
            }
        )
    except TypeError as error:
        raise UsageError(f"--config {path} holds a value of the wrong kind: {error}.") from error


@contextmanager
def one_sentence() -> Iterator[None]:
    """Turn what a user can mend (wrong flags, data that is not in order) into one sentence and exit status 2."""
    try:
        yield
    except UsageError as error:
        fail(str(error))
    except ValueError as error:
        if "DataError" not in (base.__name__ for base in type(error).__mro__):  # by name: that module imports OpenCV
            raise
        fail(told(error))


def told(error: Exception) -> str:
    """What an error says. Out of a loader's worker that stands at the end of a traceback, behind the error's name."""
    text = str(error)
    if text.startswith("Caught ") and "Traceback" in text:
        names = list(re.finditer(r"^[\w.]*Error: ", text, re.MULTILINE))
        text = text[names[-1].end() :] if names else text.strip().splitlines()[-1]
    return text.strip() or type(error).__name__


def fail(sentence: str) -> NoReturn:
    """Print one line, in which a name's line breaks and other unprintable characters are written out, and exit."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in sentence)
    print(f"error: {shown}", file=sys.stderr)
    sys.exit(2)
