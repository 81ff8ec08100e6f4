"""What it costs a training that it can be interrupted anywhere: the time of a step, and the stall of a checkpoint.

    python benchmarks/interruptions.py

**Steps.** A ResNet-20 learns from batches of 128 small images, in rounds that alternate: with a plain shuffled loader
and no callbacks, and with what a study adds (`TrainingOrder`, `Seeded`, `DerivedDraws`, `Saving` where nothing is due).
The loader reads in the same process, where it costs most. Medians, and the median of the ratios with its quartiles.

**Checkpoints.** A network of the size of ResNet-50 with momentum is saved; the training waits while its state is
copied, and a thread writes the copy. Beside it, the time of a write without that thread.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision.models import resnet50

from datamodules.classification.data import Transformed
from datamodules.classification.domains import open_images
from datamodules.classification.transforms import TrainImage
from datamodules.sample_order import Seeded, Shuffled, TrainingOrder
from experiments.study.resume.checkpoint_files import LAST, SafeCheckpoints, write_checkpoint
from experiments.study.resume.draws import DerivedDraws
from experiments.study.resume.saving import SavePlan, Saving
from lightning_modules.classification.backbones import build_backbone

BATCH = 128
SAVED_EVERY = 300
"""Seconds between checkpoints by default."""


def endless(loader: DataLoader) -> Iterator:
    while True:
        yield from loader


def stepping() -> tuple[Callable[[], None], Callable[[], None]]:
    """A step without and one with what makes a training exact."""
    network = build_backbone("cifar_resnet20", 10, norm="sn")
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    images = Transformed(
        open_images("shapes/photo", "train", "", size=32, length=512).samples, TrainImage(32, "padded")
    )
    plain = endless(DataLoader(images, BATCH, shuffle=True, drop_last=True))
    exact = endless(DataLoader(Seeded(images), batch_sampler=TrainingOrder(Shuffled(512), BATCH)))
    module = SimpleNamespace(steps=0, device=torch.device("cpu"))
    trainer = SimpleNamespace(world_size=1, current_epoch=0, global_rank=0, accumulate_grad_batches=1)
    module.batches_per_step = 1
    draws = DerivedDraws(0)
    saving = Saving(SavePlan(Path(LAST), 10**9, None, 1e9), SafeCheckpoints())
    saving.on_train_start(trainer, module)

    def train(batch) -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(batch[0]), batch[1]).backward()
        optimizer.step()

    def with_all() -> None:
        batch = next(exact)
        saving.on_train_batch_start(trainer, module, batch, 1)
        draws.on_train_batch_start(trainer, module, batch, 1)
        train(batch)
        module.steps += 1
        draws.on_train_batch_end(trainer, module, None, batch, 1)

    return lambda: train(next(plain)), with_all


def seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    without, with_all = stepping()
    pairs = [(seconds(without), seconds(with_all)) for _ in range(rounds + 5)][5:]
    ratios = sorted(exact / plain for plain, exact in pairs)
    low, middle, high = statistics.quantiles(ratios, n=4)
    medians = [1000 * statistics.median(column) for column in zip(*pairs, strict=True)]
    print(
        f"a step: {medians[0]:.1f} ms without, {medians[1]:.1f} ms with; ratio {middle:.4f} ({low:.4f} to {high:.4f})"
    )
    network = resnet50()
    state = dict(network.state_dict())
    checkpoint = {"state_dict": state, "optimizer": {name: value.clone() for name, value in state.items()}}
    with tempfile.TemporaryDirectory() as folder:
        stalls, writes, files = [], [], SafeCheckpoints()
        for _ in range(7):
            stalls.append(seconds(lambda: files.save_checkpoint(checkpoint, Path(folder) / LAST)))
            files.wait()
            writes.append(seconds(lambda: write_checkpoint(checkpoint, Path(folder) / LAST)))
        files.teardown()
        size = (Path(folder) / LAST).stat().st_size / 1e6
    stall, write = statistics.median(stalls), statistics.median(writes)
    print(
        f"a checkpoint of {size:.0f} MB: the training waits {1000 * stall:.0f} ms (at most {1000 * max(stalls):.0f}), "
        f"{100 * stall / SAVED_EVERY:.3f} % of {SAVED_EVERY} s; without the thread {1000 * write:.0f} ms"
    )


if __name__ == "__main__":
    main()
