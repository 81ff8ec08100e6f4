"""The base classes of tasks and arms. `README.md` in this folder says how to write a task, with an example."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from experiments.study.endings import UsageError
from experiments.study.tables.table import measures_table
from experiments.study.training.execution import check_optimization

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from pandas import DataFrame

    from experiments.study.flags import RunFlags
    from experiments.study.settings import RunSettings
    from experiments.study.tables.table import Table
    from lightning_modules.examples import Example
    from lightning_modules.study_module import StudyModule


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One of the things that a study compares. A task's own arms add what the task needs to train them."""

    name: str  # also a folder's name: only letters, digits and _+=,@.-
    columns: dict  # what distinguishes it from other arms: texts, numbers or None; the first columns of all tables


@dataclass(frozen=True)
class Pace:
    """How long an arm is trained and how often it is evaluated, by the study's clock (`StudyModule.steps`)."""

    max_steps: int
    epoch_steps: int  # steps of an epoch, after which gates are tracked and a checkpoint is kept
    evaluate_every: int = 1  # epochs
    accumulate: int = 1  # batches whose gradients make one step

    @classmethod
    def of(cls, flags: RunFlags, max_steps: int, samples: int, batch_size: int, epoch_steps: int | None = None) -> Pace:
        """What --max-steps, --epochs and --accumulate make of a recipe.

        Args:
            max_steps: of the recipe. samples: to learn from. batch_size: over all processes.
            epoch_steps: of the recipe; an epoch is a pass over the samples at most.

        Raises:
            UsageError: there are fewer samples than one step takes.
        """
        steps = min(epoch_steps or samples, samples // batch_size)
        if not steps:
            raise UsageError(f"there are {samples} samples to learn from, fewer than the {batch_size} of one step.")
        whole = flags.epochs * steps if flags.epochs else flags.max_steps or max_steps
        return cls(whole, steps, accumulate=flags.accumulate)


class Task(ABC):
    """How a kind of network is trained and evaluated. `experiments.study.loop.run_study` calls the methods in the order
    of this class; those that are not abstract have defaults.

    If something cannot be done as the user asked for it, a method raises UsageError with one sentence that says what
    the user can do instead.
    """

    headline: str
    """The main measure by which arms are compared."""
    measures: tuple[str, ...]
    """Names of all measures of the results (`lightning_modules.measures`), and `drop` and `divergence` if any."""
    about: ClassVar[dict] = {}
    """Further settings for the run's config.yaml."""

    def prepare(self, arms: Sequence[Arm], run: RunSettings) -> Sequence[Arm]:
        """Open the data, and fit the arms to them: how many steps an epoch has, for example."""
        return arms

    def check(self, arms: Sequence[Arm], run: RunSettings) -> None:
        """Build every network once before the first training, so that an impossible one does not stop the run later."""
        with torch.random.fork_rng(devices=[]):
            for arm in arms:
                try:
                    module = self.module(arm, run)
                except ValueError as error:
                    raise UsageError(str(error)) from error
                check_optimization(module, run.flags)

    def check_data(self, run: RunSettings) -> None:  # noqa: B027  nothing to do is right for many
        """Check the data. It may take minutes, and is therefore the last step before the first training."""

    def of_seed(self, arm: Arm, seed: int) -> Arm:
        """The arm for one seed, if the seed changes more than random draws: which images are held out, for example."""
        return arm

    @abstractmethod
    def data(self, arm: Arm, run: RunSettings) -> pl.LightningDataModule:
        """The data on which the arm is trained and evaluated."""

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
        """The arm's settings for W&B; its name, columns and seed are added to them."""
        return {}

    def callbacks(self, arm: Arm, run: RunSettings) -> list[pl.Callback]:
        """The task's own Lightning callbacks, such as weight averaging; the trackers of gates come after them."""
        return []

    def evaluate_further(
        self, module: StudyModule, data: pl.LightningDataModule, arm: Arm, run: RunSettings
    ) -> dict[str, list[dict]]:
        """Evaluate the network on more than its own evaluation does.

        Returns:
            New rows by table: "results" in long form (corruptions, latency), "divergence".
        """
        return {}

    def examples(self, module: StudyModule, data: pl.LightningDataModule) -> list[Example]:
        """The network's predictions for a few images of every domain."""
        return []

    def table(self, results: DataFrame) -> Table | None:
        """The closing table of the results in long form, whose columns begin with arm, the arms' columns and seed.

        By default it has a column for each of the task's measures, on clean data.

        It is also called while results are missing: KeyError, IndexError and ValueError then mean "not yet".
        """
        return measures_table(results, self.measures)
