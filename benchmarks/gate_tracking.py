"""The cost of tracking gates: in a training step, at the end of an epoch, and on disk.

    python benchmarks/gate_tracking.py

Blocks of training steps with and without the tracker alternate, so that other load on the machine affects both equally;
the median, lowest and highest ratio of neighbours are printed. In a block with the tracker, it logs one point of all
curves to an offline W&B run, as it does every ten steps and at most 400 times in a training. The time of the tracker
alone is measured too, because its share of a step is smaller than the noise of the ratios. Then the end of an epoch is
timed, with and without pictures, and the file size after a hundred epochs measured.

Times are CPU time of the process on a CPU; on a GPU they are wall-clock time and include waiting for the device.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torchvision
import wandb
from pytorch_lightning.loggers import WandbLogger
from torch import nn

from lightning_modules.gates.record import GateRecord
from lightning_modules.gates.tracker import GateTracker
from normshift import convert, parameter_groups
from normshift.gate_reader import GateReader


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--norms", nargs="+", default=["sn", "bin"])
    parser.add_argument("--backbone", default="resnet101", help="torchvision's name")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--size", type=int, default=96, help="of the images, in pixels")
    parser.add_argument("--block", type=int, default=1, help="training steps a block; 10 is the pace of the studies")
    parser.add_argument("--rounds", type=int, default=8, help="blocks of either kind")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    flags = parser.parse_args()
    print(
        "| norm | step | one point of all curves | of a step, a point in ten | block with / without | epoch's end "
        "| with pictures | gates.parquet, 100 epochs |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
    for norm in flags.norms:
        network = convert(getattr(torchvision.models, flags.backbone)(), norm).to(flags.device).train()
        with tempfile.TemporaryDirectory() as folder:
            print(row(norm, network, Path(folder), flags), flush=True)


def row(norm: str, network: nn.Module, folder: Path, flags: argparse.Namespace) -> str:
    """One network's line of the table."""
    run = wandb.init(project="benchmark", dir=folder, mode="offline", settings=wandb.Settings(silent=True))
    trainer = SimpleNamespace(
        is_global_zero=True, loggers=[WandbLogger(experiment=run)], log_every_n_steps=1, estimated_stepping_batches=400,
        max_epochs=100, current_epoch=0, global_step=0, callbacks=[],
    )  # fmt: skip
    tracker = GateTracker(folder)
    tracker.on_train_start(trainer, network)
    images = torch.randn(flags.batch_size, 3, flags.size, flags.size, device=flags.device)
    optimizer = torch.optim.SGD(parameter_groups(network, lr=1e-3, weight_decay=1e-4))
    block(network, optimizer, images, flags.block)  # warms up
    plain, tracked, points = [], [], []
    clock = clock_of(images)
    for _ in range(flags.rounds):
        plain.append(block(network, optimizer, images, flags.block))
        started = clock()
        block(network, optimizer, images, flags.block)
        trainer.global_step += 1
        points.append(seconds(lambda: tracker.on_train_batch_end(trainer, network), clock))
        tracked.append(clock() - started)
    trainer.current_epoch = 6  # no pictures are drawn at its end
    end = seconds(lambda: tracker.on_train_epoch_end(trainer, network), clock)
    trainer.current_epoch = 9
    drawn = seconds(lambda: tracker.on_train_epoch_end(trainer, network), clock)
    run.finish()
    step, point = statistics.median(plain) / flags.block, statistics.median(points)
    ratios = [t / p for t, p in zip(tracked, plain, strict=True)]
    spread = f"{statistics.median(ratios):.3f} ({min(ratios):.2f}-{max(ratios):.2f})"
    return (
        f"| {norm} | {1e3 * step:.0f} ms | {1e3 * point:.1f} ms | {100 * point / 10 / step:.3f} % | {spread} "
        f"| {end:.2f} s | {drawn:.2f} s | {megabytes(network, folder):.2f} MB |"
    )


def block(network: nn.Module, optimizer: torch.optim.Optimizer, images: torch.Tensor, steps: int) -> float:
    """Seconds for a number of training steps."""

    def train() -> None:
        for _ in range(steps):
            network(images).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if images.is_cuda:
            torch.cuda.synchronize()

    return seconds(train, clock_of(images))


def clock_of(images: torch.Tensor) -> Callable[[], float]:
    return time.perf_counter if images.is_cuda else time.process_time


def seconds(work: Callable[[], None], clock: Callable[[], float]) -> float:
    started = clock()
    work()
    return clock() - started


def megabytes(network: nn.Module, folder: Path) -> float:
    """Size of gates.parquet after a hundred epochs with random walks as gates, which compress badly."""
    reader, numbers = GateReader(network), np.random.default_rng(0)
    record, values = GateRecord(reader.slots, {"norm": "sn", "seed": 0}), reader.read().numpy()
    for epoch in range(101):
        record.add(epoch, 1000 * epoch, values)
        values = np.clip(values + numbers.normal(0, 0.02, len(values)), 0, 1).astype(np.float32)
    record.write(folder / "wandering.parquet")
    return (folder / "wandering.parquet").stat().st_size / 1e6


if __name__ == "__main__":
    main()
