"""A claim of a paper, and the study that puts it to the test."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightning_modules.classification.recipes import CLASSIFICATION_RECIPES

if TYPE_CHECKING:
    from pandas import Series


@dataclass(frozen=True)
class Study:
    """A run of one of the scripts, small enough for a laptop.

    Attributes:
        command: the script and its flags, without --seeds and --out; where it gives no length, the recipe laptop does.
        minutes: how long three seeds take on one core of the machine that docs/results.md names.
    """

    command: str
    minutes: float

    def line(self, times: int = 1) -> list[str]:
        """The script and its flags, for trainings that are so many times as long."""
        words = shlex.split(self.command)
        for flag in ("--max-steps", "--epochs"):
            if flag in words:
                place = words.index(flag) + 1
                words[place] = str(times * int(words[place]))
                return words
        return words if times == 1 else [*words, "--epochs", f"{times * CLASSIFICATION_RECIPES['laptop'].epochs:g}"]


@dataclass(frozen=True)
class Claim:
    """What a paper says, and what would show it.

    Attributes:
        place: of the sentence, in the paper.
        sentence: the claim, in our words.
        figure: the paper's own figures.
        studies: names in `STUDIES` of what has to be run.
        measure: what is measured, in words; above 0 speaks for the claim.
        unit: of the measure.
        difference: the measure by seed, from the studies' runs (`experiments.study.reader.FolderRun`).
        at_scale: the command for GPUs and real data.
        margin: how far below 0 the measure may be, for claims that something is no worse.
        cause: why it comes out here as it does, where it does not hold.
    """

    place: str
    sentence: str
    figure: str
    studies: tuple[str, ...]
    measure: str
    unit: str
    difference: Callable[..., Series]
    at_scale: str
    margin: float = 0.0
    cause: str = ""


@dataclass(frozen=True)
class Paper:
    """A paper, with its claims by key."""

    title: str
    source: str
    claims: dict[str, Claim]
