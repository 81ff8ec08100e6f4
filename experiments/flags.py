"""Command lines from dataclasses: each field is a flag, and the line of prose under it is the flag's help."""

import argparse
import dataclasses
import errno
import os
import re
import reprlib
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, TypeVar, get_type_hints

import yaml
from simple_parsing import ArgumentParser, DashVariant, SimpleHelpFormatter
from simple_parsing import flag as flag  # for the studies: what they import first is `experiments`, which minds Ctrl-C

from experiments.bounds import SEEDS, Bounds, check_bounds, fitting
from experiments.stops import exit_if_stopped
from lightning_modules.checkpoint_files import ABSENT, fault_of_path
from normshift.registry import NORMS

ABOUT = ("command", "question", "machine", "git", "versions", "minutes", "colours", "trainings")
"""What a run's config.yaml says beside its flags."""

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "64-true")

WANDB = ("auto", "online", "offline", "disabled")

Flags = TypeVar("Flags")


class UsageError(ValueError):
    """What was asked for cannot be done; one sentence that says what can."""


class TrainingsFailed(RuntimeError):
    """Some of a study's trainings failed; what came of the others is written. Ends a script with status `FAILED`."""


FAILED = 3
"""Exit status of a study of which a training has failed. (2: it could not be started as it was asked for.)"""


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
    """Refuse what is out of `experiments.bounds`. Args: other: bounds that are one script's own."""
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
        raise UsageError(f"--config {path} holds {said}, which this study does not know.")
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


@contextmanager
def one_sentence() -> Iterator[None]:
    """Turn what a user can mend into one sentence and exit status 2: wrong flags, data that is not in order, files that
    cannot be read or written, memory that does not suffice. After Ctrl-C and SIGTERM the status is theirs; where
    trainings failed it is 3."""
    try:
        yield
        exit_if_stopped()
    except TrainingsFailed as error:
        fail(str(error), FAILED)
    except KeyboardInterrupt:  # where the signal's handler is not ours
        sys.exit(128 + signal.SIGINT)
    except BaseException as error:
        exit_if_stopped()  # whatever was raised then was raised by the stop, such as a worker's end
        sentence = mendable(error)
        if sentence is None:
            raise
        fail(sentence)


def mendable(error: BaseException) -> str | None:
    """An error as a sentence that says what is to be mended; None where the fault is the program's."""
    kinds = {base.__name__ for base in type(error).__mro__}  # by name: they are from modules that load slowly
    said = told(error)
    if isinstance(error, UsageError):
        return str(error)
    if "DataError" in kinds:
        return said
    if isinstance(error, OSError):
        full = f"there is no room to write ({said}): make some; what is written so far stays."
        return full if error.errno in FULL else f"{said.rstrip('.')}."
    if isinstance(error, MemoryError) or "OutOfMemoryError" in kinds or "can't allocate memory" in str(error):
        return f"the memory does not suffice ({said[:200].rstrip('.')}): pass smaller sizes, or fewer --workers."
    return None


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a full disk says, or one's share of it."""


def told(error: BaseException) -> str:
    """What an error says. Out of a loader's worker that stands at the end of a traceback, behind the error's name."""
    text = str(error)
    if text.startswith("Caught ") and "Traceback" in text:
        names = list(re.finditer(r"^[\w.]*Error: ", text, re.MULTILINE))
        text = text[names[-1].end() :] if names else text.strip().splitlines()[-1]
    return text.strip() or type(error).__name__


def fail(sentence: str, status: int = 2) -> NoReturn:
    """Print one line, in which a name's line breaks and other unprintable characters are written out, and exit."""
    letters = (letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in sentence)
    print(f"error: {''.join(letters)}", file=sys.stderr)
    sys.exit(status)
