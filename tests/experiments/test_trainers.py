"""What the trainers of all studies share."""

from types import SimpleNamespace

import pytest
import torch

from experiments.trainers import OwnDraws


@pytest.mark.parametrize("rank", [0, 1, 7])
def test_processes_draw_apart_and_shuffle_alike(rank):
    torch.manual_seed(3)
    first = torch.rand(4)
    torch.manual_seed(3)  # Lightning gives every process the same seed when it starts them
    OwnDraws().on_train_start(SimpleNamespace(global_rank=rank), None)
    assert torch.equal(torch.rand(4), first) == (rank == 0)
    assert torch.initial_seed() % 10_007 == 3  # by which the samplers share out one order
