"""Code that the data modules of all tasks share: evaluation domains, loaders, and the shares of several processes."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, Subset

from datamodules.sample_order import Order, Seeded, TrainingOrder


class EvaluationData(pl.LightningDataModule):
    """Domains to evaluate on; a task's `evaluation_loader` says how.

    Args:
        evaluated: domains of the validation loaders.
        batch_size: samples that a process takes at once.
        workers: loader processes.

    Attributes:
        seed: of the training; the loop sets it. It decides the order of the samples and their augmentation.
    """

    def __init__(self, evaluated: Sequence, batch_size: int, workers: int = 0):
        super().__init__()
        self.evaluated, self.batch_size, self.workers = list(evaluated), batch_size, workers
        self.seed = 0

    def val_dataloader(self) -> list[DataLoader]:
        return [self.evaluation_loader(domain) for domain in self.evaluated]

    def evaluation_loader(self, domain) -> DataLoader:
        """A loader of one domain's samples as they are evaluated."""
        raise NotImplementedError

    def ordered_loader(self, samples: Dataset, order: Order, stream: int = 0, parts: int = 1) -> DataLoader:
        """A loader of training samples that begins wherever the training stands.

        Args:
            samples: augmented; their random numbers are seeded sample by sample.
            order: of the samples of all processes.
            stream: tells apart the loaders of one training. parts: as of `TrainingOrder`.

        Raises:
            ValueError: fewer samples than one step takes.
        """
        world, rank = self.world()
        batches = TrainingOrder(
            order,
            self.batch_size * parts,
            seed=self.seed,
            stream=stream,
            world=world,
            rank=rank,
            parts=parts,
            position=self.position,
        )
        keep = self.workers > 0
        return DataLoader(Seeded(samples), batch_sampler=batches, persistent_workers=keep, **self.loading())

    def position(self) -> tuple[int, int]:
        """Where the training stands: its epoch, and how many batches of that are done."""
        if self.trainer is None:
            return 0, 0
        return self.trainer.current_epoch, self.trainer.fit_loop.epoch_loop.batch_progress.current.completed

    def accumulated(self) -> int:
        """Batches whose gradients make one step."""
        return 1 if self.trainer is None else self.trainer.accumulate_grad_batches

    def share(self, samples: Dataset) -> Dataset:
        """This process's share of the evaluation samples; no sample is in two shares."""
        world, rank = self.world()
        return Subset(samples, range(rank, len(samples), world)) if world > 1 else samples

    def loading(self) -> dict:
        """The arguments of a loader that say how it loads."""
        pinned = torch.cuda.is_available()
        return {"num_workers": self.workers, "pin_memory": pinned, "worker_init_fn": one_thread}

    def world(self) -> tuple[int, int]:
        """The number of processes and the rank of this one."""
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer is not None else (1, 0)


def one_thread(worker: int) -> None:
    """Let a loader's worker use one thread, since several workers already run in parallel."""
    cv2.setNumThreads(0)
