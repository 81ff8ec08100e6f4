"""Command lines from dataclasses: each field is a flag, and the docstring under it is the flag's help text."""

import argparse
import dataclasses
import os
import reprlib
import stat
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, get_type_hints

import yaml
from simple_parsing import field as argument
from simple_parsing import flag as flag  # studies import it from here: `experiments` must come first, to handle Ctrl-C

from experiments.study.bounds import SEEDS, Bounds, check_bounds, fitting
from experiments.study.endings import UsageError, fail, one_sentence
from experiments.study.help_text import Parser, described
from experiments.study.plugins import load_plugins
from experiments.study.resume.time_limit import seconds_of
from lightning_modules.checkpoint_files import ABSENT, fault_of_path

ABOUT = ("command", "question", "machine", "git", "versions", "minutes", "colours", "trainings")
"""Keys of a run's config.yaml that are not flags."""

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "64-true")

LAYOUTS = ("auto", "yes", "no")
"""Values of --channels-last."""

WANDB = ("auto", "online", "offline", "disabled")

Flags = TypeVar("Flags")


@dataclass
class RunFlags:
    """Flags that every study has."""

    data_root: str = "data"
    """Folder with the real data sets, each in a subfolder of its name."""
    gpus: int | None = None
    """GPUs on each machine; 0 trains on the CPU. By default one GPU if there is one."""
    nodes: int = 1
    """Number of machines; SLURM or torchrun starts the processes."""
    precision: str | None = None
    """Lightning's precision: 32-true, bf16-mixed, 16-mixed or 64-true; auto is bf16-mixed where processor or GPU
    compute in bfloat16, else 32-true. By default the recipe's."""
    batch_size: int | None = None
    """Images per step, over all processes; by default the recipe's."""
    accumulate: int = 1
    """Batches that make one step, each of BATCH_SIZE / N images: their gradients are averaged, which takes less
    memory."""
    clip: float | None = None
    """Largest norm of all gradients together; larger ones are scaled down to it. By default they stay as they are."""
    epochs: int | None = None
    """Epochs to train, instead of steps; by default the recipe's."""
    max_steps: int | None = None
    """Optimiser steps to train; by default the recipe's."""
    patience: int | None = None
    """End a training once so many evaluations in a row have not improved its headline (on the source, if there is
    one)."""
    channels_last: str | None = argument(default=None, nargs="?", const="yes")
    """Lay weights and activations out channels-last (NHWC): yes (or nothing behind the flag), no, or auto, where it is
    faster: on CPUs, and on GPUs in 16 bits. By default the recipe's."""
    compile: bool = False
    """Compile the network by torch.compile; the first steps then take longer."""
    deterministic: bool = False
    """Use deterministic operations only: a run repeats to the last bit on a GPU, too, and is somewhat slower."""
    seed: int = 0
    """First seed."""
    seeds: int = 1
    """Number of seeds: SEED, SEED + 1, ... The closing table gives mean and standard deviation."""
    workers: int | None = None
    """Data loader processes for each GPU; by default half the cores, at most 8. Without a GPU, an eighth of the cores:
    0 on most laptops."""
    out: str = "runs/NAME"
    """Folder of the run; NAME stands for the study's name."""
    plugin: list[str] = field(default_factory=list)
    """Python files of yours that register norms, data sets, backbones, recipes or tasks (docs/plugins.md)."""
    wandb: str = "auto"
    """Weights & Biases: online, offline or disabled; auto is online if you are logged in, else offline."""
    resume: str | None = argument(default=None, nargs="?", const="yes")
    """Continue the run in OUT where it was interrupted: yes (or nothing behind the flag), no, or auto, which also
    begins a new run. By default auto in a job of a scheduler or under torchrun with restarts, else no."""
    save_every: int | None = None
    """Steps between checkpoints from which an interrupted training continues; by default only time decides."""
    save_minutes: float = 5.0
    """Minutes between such checkpoints."""
    keep_best: bool = False
    """Also keep checkpoints/best.ckpt, the network of the best evaluation so far by the headline measure."""
    keep_every: int | None = None
    """Also keep checkpoints/step-N.ckpt, the network after every so many steps."""
    time_limit: str | None = None
    """Stop in order, with a checkpoint, before this much time is over: minutes, or HH:MM:SS."""
    smoke: bool = False
    """Train a few steps on tiny embedded data: a test, in seconds, that everything runs."""

    @classmethod
    def recipes_to_choose(cls) -> Mapping[str, object]:
        """The recipes that --recipe takes, by name; none where a study has no such flag."""
        return {}

    @classmethod
    def default_recipe(cls) -> tuple[str, object] | None:
        """Name and values of the recipe of the script without flags, for --help."""
        return None

    def __post_init__(self):
        register_plugins(self)
        check_numbers(self)
        if self.seed + self.seeds - 1 > SEEDS:
            raise UsageError(f"--seed {self.seed} --seeds {self.seeds}: the last seed must be {SEEDS} or less.")
        if self.precision not in (None, "auto", *PRECISIONS):
            raise UsageError(f"--precision {self.precision}: choose from auto, {', '.join(PRECISIONS)}.")
        if self.channels_last not in (None, *LAYOUTS):
            raise UsageError(f"--channels-last {self.channels_last}: choose from {', '.join(LAYOUTS)}.")
        if self.epochs is not None and self.max_steps is not None:
            raise UsageError("--epochs and --max-steps both set the length of the training: pass one of them.")
        if not self.out.strip():
            raise UsageError("--out: name a folder; . is the current one.")
        check_wandb(self.wandb)
        self.resume = chosen_resume(self.resume)
        if self.time_limit is not None:
            seconds_of(self.time_limit)


RESUMES = ("auto", "yes", "no")
JOBS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID")
"""Environment variables by which a scheduler's job is known."""


def chosen_resume(resume: str | bool | None) -> str:
    """--resume as one of `RESUMES`."""
    if resume is None:
        restarts = os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") not in ("", "0")
        return "auto" if restarts or any(job in os.environ for job in JOBS) else "no"
    if isinstance(resume, bool):
        return "yes" if resume else "no"
    if resume not in RESUMES:
        raise UsageError(f"--resume {resume}: choose from {', '.join(RESUMES)}.")
    return resume


def holds_run(out: Path) -> bool:
    """Whether a training has begun in a folder."""
    return any(out.glob("*-seed*"))


def resumes(resume: str | bool, out: Path) -> bool:
    """Whether a run in this folder is to be continued; `auto` continues what there is."""
    return resume in (True, "yes") or (resume == "auto" and holds_run(out))


def register_plugins(flags) -> None:
    """Run the files of --plugin. It comes before all checks, so that these know the norms that the files register."""
    if flags.plugin:
        flags.plugin = [os.path.abspath(file) for file in flags.plugin]
        load_plugins(flags.plugin)


def check_numbers(flags, **other: Bounds) -> None:
    """Refuse numbers outside their bounds (`experiments.study.bounds`); `other` holds bounds of one script's own."""
    wrong = check_bounds(flags, **other)
    if wrong:
        raise UsageError(wrong)


def out_folder(flags: RunFlags, study: str) -> Path:
    """OUT with NAME replaced by the study's name, to which a smoke run and each trial of a W&B sweep add their own."""
    trial = os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None
    return Path(flags.out.replace("NAME", "-".join([study, *["smoke"] * flags.smoke, *[trial] * (trial is not None)])))


def check_choices(flags, **known: Collection) -> None:
    """Refuse values that are not `known`, flag by flag; each flag takes several values, and one at least."""
    for name, choices in known.items():
        chosen = getattr(flags, name)
        unknown = [value for value in chosen if value not in choices]
        if unknown or not chosen:
            hint = " (networks come before flags that take several values)" if name == "parts" and unknown else ""
            said = f"--{name} {unknown[0] if unknown else ''}".strip()
            raise UsageError(f"{said}: choose from {', '.join(map(str, choices))}{hint}.")


def check_wandb(mode: str) -> None:
    if mode not in WANDB:
        raise UsageError(f"--wandb {mode}: choose from {', '.join(WANDB)}.")


def check_weights(weights: str) -> None:
    """Refuse a --weights that is neither none nor imagenet nor a checkpoint file."""
    if weights not in ("none", "imagenet") and (fault := fault_of_path(weights)):
        fault = "no such file" if fault == ABSENT else f"it {fault}"
        raise UsageError(f"--weights {weights}: {fault}; pass none, imagenet or a checkpoint.")


def smoke_wandb(flags) -> str:
    """The W&B mode of a smoke run: disabled, unless --wandb was passed."""
    return "disabled" if flags.wandb == "auto" else flags.wandb


def parse(flags: type[Flags], doc: str, arguments: list[str] | None = None) -> Flags:
    """Read the flags: the command line overrides `--config FILE`, which overrides the defaults.

    On a wrong flag it prints one sentence and exits with status 2. With --recipes it prints them and exits.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config")
    first.error = fail
    known, rest = first.parse_known_args(arguments)
    with one_sentence():
        recipes, named = _recipes(flags, rest)
        parser = Parser(flags, doc, named)
        parser.add_argument(
            "--config", metavar="FILE", help="a run's config.yaml to start from; other flags override it"
        )
        if recipes:
            parser.add_argument("--recipes", action="store_true", help="list the recipes with every value, and exit")
        parser.add_arguments(flags, dest="flags", default=_from_file(flags, known.config) if known.config else None)
        return parser.parse_args(rest).flags


def _recipes(flags: type, arguments: list[str]) -> tuple[Mapping[str, object], tuple[str, object] | None]:
    """The recipes of a script, and name and values of that of which --help tells; --recipes prints them and exits."""
    if not issubclass(flags, RunFlags):
        return {}, None
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--recipes", action="store_true")
    first.add_argument("--recipe")
    first.add_argument("--plugin", nargs="*", default=[])
    first.error = fail
    asked, _ = first.parse_known_args(arguments)
    if asked.recipes:
        load_plugins(asked.plugin)
    recipes, default = flags.recipes_to_choose(), flags.default_recipe()
    if asked.recipes and recipes:
        print(described({asked.recipe: recipes[asked.recipe]} if asked.recipe in recipes else recipes, default[0]))
        sys.exit()
    return recipes, (asked.recipe, recipes[asked.recipe]) if asked.recipe in recipes else default


CONFIG_BYTES = 1_000_000
"""A larger file is refused as a config.yaml."""


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
    """Read a YAML file. Devices and pipes are refused, because reading them might never end."""
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
