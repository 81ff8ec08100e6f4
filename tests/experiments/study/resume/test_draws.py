"""The random numbers of a training as a function of its position."""

import random
from types import SimpleNamespace

import numpy as np
import torch

from experiments.study.resume.draws import DerivedDraws


def drawn(seed: int = 0, epoch: int = 0, batch: int = 0, rank: int = 0, hook: str = "start") -> tuple:
    """What the three generators give at a position."""
    trainer = SimpleNamespace(current_epoch=epoch, global_rank=rank)
    module = SimpleNamespace(device=torch.device("cpu"))
    draws = DerivedDraws(seed)
    if hook == "start":
        draws.on_train_batch_start(trainer, module, None, batch)
    else:
        draws.on_train_batch_end(trainer, module, None, None, batch)
    return torch.rand(()).item(), np.random.rand(), random.random()


def test_a_position_decides_whatever_was_drawn_before():
    one = drawn(3, 2, 5, 1)
    torch.rand(7), np.random.rand(3), random.random()
    assert drawn(3, 2, 5, 1) == one


def test_every_position_seed_and_process_draws_apart():
    positions = [{}, {"seed": 1}, {"epoch": 1}, {"batch": 1}, {"rank": 1}, {"hook": "end"}, {"epoch": 1, "batch": 1}]
    for generator in zip(*(drawn(**position) for position in positions), strict=True):
        assert len(set(generator)) == len(positions)
