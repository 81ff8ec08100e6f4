"""What a task gives for networks that are trained, so that evaluating and predicting need their checkpoints alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from experiments.study.endings import UsageError
from experiments.study.trained.answers import write_answers

if TYPE_CHECKING:
    import numpy as np
    import pytorch_lightning as pl
    from torch import nn

    from experiments.study.trained.networks import Trained
    from experiments.study.trained.pictures import Reading
    from lightning_modules.examples import Example
    from lightning_modules.study_module import StudyModule


@dataclass(frozen=True)
class Exportable:
    """What `export.py` writes of a trained network.

    Attributes:
        network: plain torch, from normalised images (N, 3, H, W) to one tensor of scores.
        size: height and width of the images, unless the user passes others.
        input, output: what a program has to know that uses it, as plain data: `mean` and `std` of the channels, in
            units of 0 to 1; `classes`, and what the axes of the scores are.
    """

    network: nn.Module
    size: tuple[int, int]
    input: dict[str, Any] = field(default_factory=dict)
    output: dict[str, Any] = field(default_factory=dict)


class TrainedTask(ABC):
    """How trained networks of a task are evaluated on sets by name, and used on pictures.

    `data` has to be written; `answer`, or `predict` in its place, where pictures are to be predicted; `exportable`,
    where networks are to be exported. Wherever something cannot be done as the user asked for it, a method raises
    UsageError or DataError: one sentence.
    """

    task: ClassVar[str] = ""
    """What the task's modules call it (`StudyModule.task`), by which it is found."""

    parts: ClassVar[tuple[str, ...]] = ("clean",)
    """What networks can be evaluated on: the sets as they are, and what `further` adds."""

    @abstractmethod
    def data(self, module: StudyModule, targets: Sequence[str], flags) -> pl.LightningDataModule:
        """Sets to be evaluated on, opened as the network's recipe wants them.

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

    def examples(self, module: StudyModule, data: pl.LightningDataModule) -> list[Example]:
        """What the network makes of a few images of every set."""
        return []

    def answer(self, module: StudyModule, picture: np.ndarray) -> np.ndarray | str:
        """What the network makes of a picture, uint8 (H, W, 3): another one, or a text.

        The module is in evaluation mode, on its device, without gradients.
        """
        raise UsageError(f"{self.task} networks cannot be used on pictures: their task has no `answer`.")

    def predict(self, module: StudyModule, reading: Reading, out: Path, flags) -> str:
        """Write below `out` what the network makes of each picture, as soon as it has it; by default its `answer`.

        Args:
            reading: the pictures. flags: those of `predict.py`.

        Returns:
            What was written where, in words.
        """
        return write_answers(self, module, reading, out, flags)

    def exportable(self, module: StudyModule) -> Exportable:
        """The network alone, as `export.py` writes it."""
        raise UsageError(f"{self.task} networks cannot be exported: their task has no `exportable`.")

    def smoke_network(self) -> StudyModule:
        """A small untrained network, to see in seconds that everything fits together."""
        raise UsageError(f"--smoke: there is no untrained {self.task} network; name a trained one.")


def task_of(name: str) -> TrainedTask:
    """The task of a network's module, from `experiments.tasks.trained_NAME`, `experiments.tasks.NAME` or a plug-in.

    Raises:
        UsageError: no `TrainedTask` has that name.
    """
    for place in (f"experiments.tasks.trained_{name}", f"experiments.tasks.{name}"):
        if name.isidentifier() and find_spec(place):
            import_module(place)
    kinds = {kind.task: kind for kind in subclasses(TrainedTask)}
    if name not in kinds:
        raise UsageError(
            f"{name or 'nameless'} networks can be neither evaluated nor used on pictures: expected a TrainedTask "
            f"whose `task` is {name!r} in experiments/tasks/{name or 'NAME'}.py or in a --plugin file."
        )
    return kinds[name]()


def subclasses(kind: type) -> Iterator[type]:
    """All classes that are derived from one and have been imported, the latest last."""
    for own in kind.__subclasses__():
        yield own
        yield from subclasses(own)
