"""Images of one or more domains to train on, domains to be judged on."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Subset

from datamodules.image_domains import ImageDomain
from datamodules.image_transforms import JudgedImage, TrainImage


class ClassificationData(pl.LightningDataModule):
    """Batches of images float (N, 3, size, size), ImageNet-normalised, and labels int64 (N,).

    Args:
        train: the images to train on.
        judged: domains of the validation loaders, of the same classes.
        transform: what happens to a training image.
        size, resize: what judged images are cut to, and what their shorter side is resized to before that.
        batch_size: images a step and process.
        workers: loader processes.

    Raises:
        DataError: the domains differ in their classes. The same ones in another order are matched by their names.
    """

    def __init__(
        self,
        train: ImageDomain,
        judged: Sequence[ImageDomain],
        transform: TrainImage,
        *,
        size: int,
        resize: int | None,
        batch_size: int,
        workers: int = 0,
    ):
        super().__init__()
        self.train, self.transform = train, transform
        self.judged = [domain.in_order_of(train.classes, train.name) for domain in judged]
        self.size, self.resize, self.batch_size, self.workers = size, resize, batch_size, workers

    def train_dataloader(self) -> DataLoader:
        return self.train_loader(self.train)

    def train_loader(self, domain: ImageDomain) -> DataLoader:
        """A loader of a domain's augmented images, in an order drawn anew for each epoch."""
        images = Transformed(domain.samples, self.transform)
        world, rank = self._world()
        order = DistributedSampler(images, world, rank, seed=torch.initial_seed() % 10_007, drop_last=True)
        sampler = order if world > 1 else None
        return DataLoader(
            images,
            self.batch_size,
            shuffle=sampler is None,
            sampler=sampler,
            drop_last=True,
            persistent_workers=self.workers > 0,
            **self._loading(),
        )

    def val_dataloader(self) -> list[DataLoader]:
        return [self.judged_loader(domain) for domain in self.judged]

    def judged_loader(self, domain: ImageDomain) -> DataLoader:
        """A loader of one domain's images as they are judged; every process gets its own share, none twice."""
        world, rank = self._world()
        images = Transformed(domain.samples, JudgedImage(self.size, self.resize))
        share = Subset(images, range(rank, len(images), world)) if world > 1 else images
        return DataLoader(share, max(self.batch_size, 64), **self._loading())

    def _loading(self) -> dict:
        pinned = torch.cuda.is_available()
        return {"num_workers": self.workers, "pin_memory": pinned, "worker_init_fn": _one_thread}

    def _world(self) -> tuple[int, int]:
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer is not None else (1, 0)


class AdaptationData(ClassificationData):
    """The same with a target that has no labels to learn from: batches {"source": ..., "target": ...} of equal size."""

    def __init__(self, train: ImageDomain, judged: Sequence[ImageDomain], *args, target: ImageDomain, **settings):
        super().__init__(train, judged, *args, **settings)
        self.target = target.in_order_of(self.train.classes, self.train.name)

    def train_dataloader(self) -> dict[str, DataLoader]:
        return {"source": self.train_loader(self.train), "target": self.train_loader(self.target)}


class Transformed(Dataset):
    """(transformed image, label) pairs."""

    def __init__(self, samples, transform):
        self.samples, self.transform = samples, transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int):
        image, label = self.samples[index]
        return self.transform(image), label


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(0)  # the workers are the parallelism
