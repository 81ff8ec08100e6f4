"""Reads a sweep file of W&B: https://docs.wandb.ai/models/sweeps/sweep-config-keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from experiments.study.endings import UsageError
from experiments.study.sweep.parameters import Parameter, read_parameter

MACRO = re.compile(r"\$\{(?!envvar:)[^}]*\}")
METHODS = ("grid", "random", "bayes")
GOALS = ("minimize", "maximize")
ABOUT = ("name", "description", "project", "entity", "apiVersion", "kind")
"""Keys that say nothing on what is run."""
KEYS = ("method", "metric", "parameters", "program", "command", "run_cap", "early_terminate", *ABOUT)
COMMAND = ("${env}", "${interpreter}", "${program}", "${args}")
"""W&B's command where a file has none."""
MACROS = (
    *COMMAND, "${args_no_hyphens}", "${args_no_equals}", "${args_no_boolean_flags}", "${args_json}",
    "${args_append_hydra}", "${args_override_hydra}",
)  # fmt: skip
"""What a command may hold in the place of its parts; beside these, ${envvar:NAME} in any part."""
OURS = ("--out", "--resume")
"""Flags that the sweep passes to each trial, and which a file must not."""
FILE_BYTES = 1_000_000
"""A larger file is refused."""
ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Sweep:
    """What a sweep file asks for."""

    method: str
    parameters: tuple[Parameter, ...]
    metric: str
    """The key of the number that is compared, as W&B's summary of a run has it."""
    goal: str
    """minimize or maximize."""
    command: tuple[str, ...]
    program: str | None = None
    target: float | None = None
    """If a trial reaches this value of the metric, no further one is begun."""
    run_cap: int | None = None
    """Most trials."""
    written: dict = field(default_factory=dict)
    """The file, without the keys that say nothing on what is run."""
    ignored: tuple[str, ...] = ()
    """A sentence on each thing that W&B's server does and that is left out here."""

    def is_better(self, one: float, other: float) -> bool:
        return one > other if self.goal == "maximize" else one < other

    def reaches(self, value: float) -> bool:
        """Whether a value is good enough for the sweep to end."""
        return self.target is not None and not self.is_better(self.target, value)


def find_sweep(path: str) -> Path:
    """A sweep file by its path, from here or from `experiments/`.

    Raises:
        UsageError: there is none.
    """
    known = sorted((ROOT / "experiments" / "sweeps").glob("*.yaml"))
    for file in (Path(path), ROOT / "experiments" / path):
        if file.is_file():
            return file
    raise UsageError(f"{path}: no such file; those here are {', '.join(f'sweeps/{file.name}' for file in known)}.")


def read_sweep(file: Path) -> Sweep:
    """The sweep that a file asks for.

    Raises:
        UsageError: it is none, or asks for something that is not done here; the message names file and key.
    """
    try:
        return _sweep(_mapping(file))
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from error


def _mapping(file: Path) -> dict:
    try:
        with file.open("rb") as opened:
            written = opened.read(FILE_BYTES + 1)
        if len(written) > FILE_BYTES:
            raise UsageError("it is larger than a sweep file ever is.")
        found = yaml.safe_load(written.decode("utf-8"))
    except UsageError:
        raise
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"it cannot be read: {' '.join(str(error).split())[:300].rstrip('.')}.") from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise UsageError("it holds no sweep: expected `name: value` lines, as in experiments/sweeps/shapes.yaml.")
    return found


def _sweep(found: dict) -> Sweep:
    unknown = [key for key in found if key not in KEYS]
    if unknown:
        raise UsageError(f"{unknown[0]} is not known here; the keys are {', '.join(KEYS)}.")
    method = found.get("method")
    if method not in METHODS:
        raise UsageError(f"method {'is missing' if method is None else method}: choose from {', '.join(METHODS)}.")
    parameters = found.get("parameters")
    if not isinstance(parameters, dict) or not parameters:
        raise UsageError("parameters: name one or more, as in experiments/sweeps/shapes.yaml.")
    _refuse_ours([*(f"--{name}" for name in parameters), *_texts(found, "command")])
    read = tuple(read_parameter(str(name), given) for name, given in parameters.items())
    _check_method(method, read)
    metric, goal, target = _metric(found.get("metric"))
    return Sweep(
        method=method,
        parameters=read,
        metric=metric,
        goal=goal,
        target=target,
        command=_command(found),
        program=found.get("program"),
        run_cap=_run_cap(found.get("run_cap")),
        written={key: value for key, value in found.items() if key not in ABOUT},
        ignored=tuple(_ignored(found)),
    )


def _texts(found: dict, key: str) -> list[str]:
    """A command as a list of texts; W&B takes numbers in it, too."""
    command = found.get(key, [])
    if isinstance(command, str):
        command = command.split()
    if not isinstance(command, list) or any(isinstance(part, (dict, list)) or part is None for part in command):
        raise UsageError(f'{key} must be a list of texts, such as ["${{interpreter}}", "${{program}}", "${{args}}"].')
    return [str(part) for part in command]


def _command(found: dict) -> tuple[str, ...]:
    command = _texts(found, "command") or list(COMMAND)
    program = found.get("program")
    if program is not None and not isinstance(program, str):
        raise UsageError("program must be the path of a script.")
    unknown = [part for part in command if MACRO.fullmatch(part) and part not in MACROS]
    if unknown:
        raise UsageError(f"command: {unknown[0]} is not known here; known are {', '.join(MACROS)}.")
    if "${program}" in command and not program:
        raise UsageError("program is missing: name the script that a trial runs, such as experiments/cls_imagenet.py.")
    return tuple(command)


def _refuse_ours(flags: list[str]) -> None:
    for flag in flags:
        if flag.partition("=")[0] in OURS:
            raise UsageError(f"{flag}: take it out; each trial gets a folder of its own, and is resumed by the sweep.")


def _check_method(method: str, parameters: tuple[Parameter, ...]) -> None:
    for one in parameters:
        if method == "grid" and (one.values is None or one.distribution == "categorical_w_probabilities"):
            raise UsageError(
                f"parameters.{one.name}: method grid cannot list the values of {one.distribution}: give values, or "
                "choose method random or bayes."
            )
        if method == "bayes" and one.distribution == "categorical_w_probabilities":
            raise UsageError(f"parameters.{one.name}: method bayes takes no probabilities: take them out.")


def _metric(given: Any) -> tuple[str, str, float | None]:
    if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
        raise UsageError("metric: name the number to compare, such as name: final/top1, goal: maximize.")
    unknown = [key for key in given if key not in ("name", "goal", "target", "impute", "impute_while_running")]
    goal, target = given.get("goal", "minimize"), given.get("target")
    if unknown or goal not in GOALS:
        said = f"{unknown[0]} is not known" if unknown else f"goal {goal}: choose from {', '.join(GOALS)}"
        raise UsageError(f"metric: {said}.")
    if target is not None and (isinstance(target, bool) or not isinstance(target, (int, float))):
        raise UsageError("metric: target must be a number.")
    return given["name"], goal, target


def _run_cap(given: Any) -> int | None:
    if given is not None and (type(given) is not int or given < 1):
        raise UsageError("run_cap must be an integer, 1 or more.")
    return given


def _ignored(found: dict) -> list[str]:
    sentences = []
    if found.get("early_terminate") is not None:
        sentences.append("early_terminate is left out: every trial is trained to its end.")
    if {"impute", "impute_while_running"} & {*found["metric"]}:
        sentences.append("metric.impute is left out: trials that fail count for nothing.")
    return sentences
