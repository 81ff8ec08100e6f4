"""What a task gives for networks that are trained, so that evaluating and predicting need their checkpoints alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from experiments.study.trained.networks import Trained
    from experiments.study.trained.pictures import Reading
    from lightning_modules.examples import Example
    from lightning_modules.study_module import StudyModule


class TrainedTask(ABC):
    """How trained networks of a task are evaluated on sets by name, and used on pictures.

    Wherever something cannot be done as the user asked for it, a method raises UsageError or DataError: one sentence.
    """

    parts: ClassVar[tuple[str, ...]] = ("clean",)
    """What networks can be evaluated on: the sets as they are, and what `further` adds."""

    @abstractmethod
    def data(self, module: StudyModule, targets: Sequence[str], flags) -> pl.LightningDataModule:
        """Sets to be evaluated on, opened as the network's recipe wants them; they are its `evaluated`.

        From then on the module is evaluated on them.

        Args:
            targets: names of the sets; empty for those that the network was evaluated on at the end of its training.
            flags: those of `evaluate.py`.
        """

    def further(
        self, networks: Sequence[tuple[Trained, pl.LightningDataModule]], parts: Sequence[str], flags
    ) -> dict[str, list[dict]]:
        """Rows of results beside the modules' own, by the network's `source`, for parts other than "clean"."""
        return {}

    @abstractmethod
    def examples(self, module: StudyModule, data: pl.LightningDataModule) -> list[Example]:
        """What the network makes of a few images of every set."""

    @abstractmethod
    def predict(self, module: StudyModule, reading: Reading, out: Path, flags) -> str:
        """Write below `out` what the network makes of each picture, as soon as it has it.

        Args:
            reading: the pictures. flags: those of `predict.py`.

        Returns:
            What was written where, in words.
        """

    @abstractmethod
    def smoke_network(self) -> StudyModule:
        """A small untrained network, to see in seconds that everything fits together."""


TASKS = {
    "segmentation": ("experiments.tasks.trained_segmentation", "TrainedSegmentation"),
    "classification": ("experiments.tasks.trained_classification", "TrainedClassification"),
}
"""Module and class by the `task` that a network's module names."""


def task_of(name: str) -> TrainedTask:
    """The task of a network's module."""
    module, kind = TASKS[name]
    return getattr(import_module(module), kind)()
