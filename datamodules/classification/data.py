"""Data modules: images of one or more domains to train on, and domains to evaluate on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from datamodules.classification.domains import ImageDomain
from datamodules.classification.joined import Joined
from datamodules.classification.transforms import EvaluationImage, TrainImage
from datamodules.evaluation_data import EvaluationData
from datamodules.image_files import DataError
from datamodules.sample_order import FromEach, Passes, Shuffled
from datamodules.samples import LabelledImages


class ClassificationEvaluation(EvaluationData):
    """Domains to evaluate on: batches of images float (N, 3, size, size), normalised, and labels int64 (N,).

    Args:
        evaluated: domains of the validation loaders, of the same classes in the same order.
        evaluation_image: transform of an image.
        batch_size: images that are evaluated at once in a process; at least 64 are.
        workers: loader processes.
    """

    def __init__(
        self,
        evaluated: Sequence[ImageDomain],
        evaluation_image: EvaluationImage,
        *,
        batch_size: int = 64,
        workers: int = 0,
    ):
        super().__init__(evaluated, batch_size, workers)
        self.evaluation_image = evaluation_image

    def evaluation_loader(self, domain: ImageDomain) -> DataLoader:
        """A loader of one domain's images as they are evaluated; every process gets its own share, none twice."""
        images = self.share(Transformed(domain.samples, self.evaluation_image))
        return DataLoader(images, max(self.batch_size, 64), **self.loading())


class ClassificationData(ClassificationEvaluation):
    """Images to train on, and domains to evaluate on.

    Args:
        train: the images to train on.
        evaluated: domains of the validation loaders, of the same classes.
        transform: transform of a training image.
        size, resize: side of the crop of evaluated images, and the length to which their shorter side is resized first.
        batch_size: images a step and process; of each part of the training set where `from_each` is set.
        workers: loader processes.
        evaluation_image: transform of an evaluated image; by default `EvaluationImage(size, resize)`.
        keep_last: keep an epoch's last, smaller batch.
        steps: steps of an epoch, independent of passes over the images (`sample_order.Passes`); by default one pass.
        from_each: batches hold `batch_size` images of each set that `train` joins, drawn with replacement
            (`sample_order.FromEach`); takes `steps`.

    Raises:
        DataError: the domains differ in their classes, or there are not enough images for a step. The same classes in
            another order are matched by their names.
    """

    def __init__(
        self,
        train: ImageDomain,
        evaluated: Sequence[ImageDomain],
        transform: TrainImage,
        *,
        size: int,
        resize: int | None,
        batch_size: int,
        workers: int = 0,
        evaluation_image: EvaluationImage | None = None,
        keep_last: bool = False,
        steps: int | None = None,
        from_each: bool = False,
    ):
        alike = [domain.in_order_of(train.classes, train.name) for domain in evaluated]
        super().__init__(
            alike, evaluation_image or EvaluationImage(size, resize), batch_size=batch_size, workers=workers
        )
        self.train, self.transform = train, transform
        self.size, self.resize = size, resize
        self.keep_last, self.steps, self.from_each = keep_last, steps, from_each

    def train_dataloader(self) -> DataLoader:
        return self.train_loader(self.train)

    def train_loader(self, domain: ImageDomain, stream: int = 0) -> DataLoader:
        """A loader of a domain's augmented images; `stream` tells apart those of one training."""
        images = Transformed(domain.samples, self.transform)
        count, parts = len(domain.samples), [domain.samples]
        if self.from_each:
            parts = domain.samples.sets if isinstance(domain.samples, Joined) else parts
            order = FromEach([len(part) for part in parts], self.steps)
        elif self.steps:
            order = Passes(count, self.steps, self.accumulated())
        else:
            order = Shuffled(count, self.keep_last)
        try:
            return self.ordered_loader(images, order, stream, len(parts))
        except ValueError as error:
            raise DataError(f"{domain.name}: {error}") from error


class AdaptationData(ClassificationData):
    """The same with a target that has no labels to learn from: batches {"source": ..., "target": ...} of equal size.

    With `keep_last` the two may end in batches of different sizes; recipes that adapt do not set it.
    """

    def __init__(self, train: ImageDomain, evaluated: Sequence[ImageDomain], *args, target: ImageDomain, **settings):
        super().__init__(train, evaluated, *args, **settings)
        self.target = target.in_order_of(self.train.classes, self.train.name)

    def train_dataloader(self) -> dict[str, DataLoader]:
        return {"source": self.train_loader(self.train), "target": self.train_loader(self.target, stream=1)}


class Transformed(Dataset):
    """(transformed image, label) pairs."""

    def __init__(self, samples: LabelledImages, transform: Callable[[np.ndarray], torch.Tensor]):
        self.samples, self.transform = samples, transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image, label = self.samples[index]
        return self.transform(image), label
