"""What a task gives, and what its arms are. `README.md` in this folder is the contract in words, with an example."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from experiments.study.endings import UsageError
from experiments.study.tables import measures_table

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from pandas import DataFrame

    from experiments.study.flags import RunFlags
    from experiments.study.settings import RunSettings
    from experiments.study.tables import Table
    from lightning_modules.examples import Example
    from lightning_modules.study_module import StudyModule


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One of the things that a study compares. A task's own arms add what the task needs to train them."""

    name: str  # also of a folder: letters, digits and _+=,@.- alone
    columns: dict  # what tells it from the other arms: texts, numbers or None, in front of every row of its tables


@dataclass(frozen=True)
class Pace:
    """How long an arm is trained and how often it is evaluated, by the study's clock (`StudyModule.steps`)."""

    max_steps: int
    epoch_steps: int  # steps of an epoch, after which gates are tracked and a checkpoint is kept
    evaluate_every: int = 1  # epochs
    accumulate: int = 1  # batches whose gradients make one step

    @classmethod
    def of(cls, flags: RunFlags, max_steps: int, samples: int, batch_size: int, epoch_steps: int | None = None) -> Pace:
        """What --max-steps and --epochs make of a recipe.

        Args:
            max_steps: of the recipe. samples: to learn from. batch_size: over all processes.
            epoch_steps: of the recipe; an epoch is a pass over the samples at most.

        Raises:
            UsageError: there are fewer samples than one step takes.
        """
        steps = min(epoch_steps or samples, samples // batch_size)
        if not steps:
            raise UsageError(f"there are {samples} samples to learn from, fewer than the {batch_size} of one step.")
        return cls(flags.epochs * steps if flags.epochs else flags.max_steps or max_steps, steps)


class Task(ABC):
    """How a kind of network is trained and evaluated. `experiments.study.loop.run_study` calls the methods in the order
    in which they stand here; those that are not abstract may be left as they are.

    Wherever something cannot be done as the user asked for it, a method raises UsageError: one sentence that says what
    can be done instead.
    """

    headline: str
    """The measure that the arms are first compared by."""
    measures: tuple[str, ...]
    """Names of all measures in the results (`lightning_modules.measures`); `drop` and `divergence` where there are."""
    about: ClassVar[dict] = {}
    """Further settings for the run's config.yaml."""

    def prepare(self, arms: Sequence[Arm], run: RunSettings) -> Sequence[Arm]:
        """Open the data, and fit the arms to them: how many steps an epoch has, for example."""
        return arms

    def check(self, arms: Sequence[Arm], run: RunSettings) -> None:
        """Build every network once before the first is trained: what cannot be built must not stop a run half-way."""
        with torch.random.fork_rng(devices=[]):
            for arm in arms:
                try:
                    self.module(arm, run)
                except ValueError as error:
                    raise UsageError(str(error)) from error

    def check_data(self, run: RunSettings) -> None:  # noqa: B027  nothing to do is right for many
        """Look at the data themselves. It may take minutes, and so comes last before the first training."""

    def of_seed(self, arm: Arm, seed: int) -> Arm:
        """The arm under one seed, where that changes more than random draws: which images are held out, for example."""
        return arm

    @abstractmethod
    def data(self, arm: Arm, run: RunSettings) -> pl.LightningDataModule:
        """What the arm learns, and what it is evaluated on."""

    @abstractmethod
    def module(self, arm: Arm, run: RunSettings) -> StudyModule:
        """The arm's network, ready to train; `load_from_checkpoint(file)` alone rebuilds it.

        Raises:
            ValueError: it cannot be built; the sentence says why.
        """

    @abstractmethod
    def pace(self, arm: Arm, run: RunSettings) -> Pace:
        """How long the arm is trained."""

    def settings(self, arm: Arm, run: RunSettings) -> dict:
        """The arm's settings, for W&B; its name, columns and seed join them."""
        return {}

    def callbacks(self, arm: Arm, run: RunSettings) -> list[pl.Callback]:
        """Lightning callbacks of the task's own, such as averaged weights; the trackers of gates come after them."""
        return []

    def evaluate_further(
        self, module: StudyModule, data: pl.LightningDataModule, arm: Arm, run: RunSettings
    ) -> dict[str, list[dict]]:
        """Evaluate what the module's own evaluation does not.

        Returns:
            Rows by the table that they join: "results" in long form (corruptions, latency), "divergence".
        """
        return {}

    def examples(self, module: StudyModule, data: pl.LightningDataModule) -> list[Example]:
        """What the network makes of a few images of every domain."""
        return []

    def table(self, results: DataFrame) -> Table | None:
        """The closing table of the results in long form, whose columns begin with arm, the arms' columns and seed.

        By default it has a column for each of the task's measures, on clean data.

        It is also asked for while arms are missing: KeyError, IndexError and ValueError then mean "not yet".
        """
        return measures_table(results, self.measures)
