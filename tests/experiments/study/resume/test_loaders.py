"""Which batches a training reads through Lightning's loops, from its start and from any checkpoint."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from datamodules.classification.data import AdaptationData
from datamodules.classification.domains import ImageDomain, open_images
from datamodules.classification.transforms import TrainImage
from experiments.study.resume import loops


def photos(style: str, count: int) -> ImageDomain:
    return open_images(f"shapes/{style}", "train", "", size=32, length=count)


def data(workers: int) -> AdaptationData:
    """Six batches of the source; the target's three are read twice, each time in another order."""
    transform = TrainImage(32, crop="resized", jitter=(0.4, 0.4, 0.4, 0.1))
    sets = photos("photo", 25), [], transform
    return AdaptationData(*sets, size=32, resize=None, batch_size=4, workers=workers, target=photos("sketch", 13))


class Reader(pl.LightningModule):
    """Learns nothing, and notes each batch by its epoch, its number and the sums of its images."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.read: list[tuple] = []

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def training_step(self, batch, batch_idx: int):
        sums = [image.double().sum().item() for name in ("source", "target") for image in batch[name][0]]
        self.read.append((self.trainer.current_epoch, batch_idx, *sums))
        return self.weight


class Saves(pl.Callback):
    """A checkpoint at the start of every batch, as `saving.Saving` writes one."""

    def __init__(self, folder: Path):
        self.folder = folder

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        trainer.save_checkpoint(self.folder / f"{trainer.current_epoch}-{batch_idx}.ckpt")

    def on_save_checkpoint(self, trainer, module, checkpoint):
        loops.clean(checkpoint["loops"]["fit_loop"])


def read(workers: int, limit: int, folder: Path, begin: Path | None = None) -> list[tuple]:
    module = Reader()
    trainer = pl.Trainer(
        max_epochs=3,
        limit_train_batches=limit,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[Saves(folder)],
    )
    trainer.fit(module, datamodule=data(workers), ckpt_path=begin, weights_only=False)
    return module.read


@pytest.mark.parametrize("limit", [5, 6])
def test_from_any_batch_two_loaders_of_unequal_length_go_on(limit, tmp_path):
    whole = read(0, limit, tmp_path)
    assert [row[:2] for row in whole] == [(epoch, batch) for epoch in range(3) for batch in range(limit)]
    images = [image for row in whole for image in row[2:]]
    assert len(set(images)) == 3 * limit * 8  # also an image that is read twice is augmented in another way
    for done, row in enumerate(whole):
        assert read(0, limit, tmp_path, tmp_path / f"{row[0]}-{row[1]}.ckpt") == whole[done:]


def test_loader_processes_that_have_read_ahead_change_nothing(tmp_path):
    whole = read(0, 5, tmp_path)
    assert read(2, 5, tmp_path) == whole  # of the six batches of an epoch, which the workers have all begun
    assert read(2, 5, tmp_path, tmp_path / "1-4.ckpt") == whole[9:]
