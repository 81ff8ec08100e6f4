"""Code that the data modules of all tasks share: evaluation domains, loaders, and the shares of several processes."""

from collections.abc import Sequence

import cv2
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, Subset


class EvaluationData(pl.LightningDataModule):
    """Domains to evaluate on; a task's `evaluation_loader` says how.

    Args:
        evaluated: domains of the validation loaders.
        batch_size: samples that a process takes at once.
        workers: loader processes.
    """

    def __init__(self, evaluated: Sequence, batch_size: int, workers: int = 0):
        super().__init__()
        self.evaluated, self.batch_size, self.workers = list(evaluated), batch_size, workers

    def val_dataloader(self) -> list[DataLoader]:
        return [self.evaluation_loader(domain) for domain in self.evaluated]

    def evaluation_loader(self, domain) -> DataLoader:
        """A loader of one domain's samples as they are evaluated."""
        raise NotImplementedError

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


def shared_seed() -> int:
    """One seed for all processes, computed from their own seeds, which are 10,007 apart."""
    return torch.initial_seed() % 10_007


def one_thread(worker: int) -> None:
    """Let a loader's worker use one thread, since several workers already run in parallel."""
    cv2.setNumThreads(0)
