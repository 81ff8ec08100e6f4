"""In what order training images are drawn."""

import collections

import numpy as np
import pytest
import torch

from datamodules.sample_order import FromEach, Passes


def test_epochs_go_on_where_the_last_one_stopped():
    """Ten images in batches of three: three batches a pass, one image left out of each."""
    torch.manual_seed(0)
    order = Passes(10, 3, steps=4)
    drawn = [index for _ in range(3) for index in order]
    assert len(order) == 12 and len(drawn) == 36
    passes = np.array(drawn).reshape(4, 9)
    assert all(len(set(row)) == 9 for row in passes.tolist())
    assert len({tuple(row) for row in passes.tolist()}) == 4  # each in an order of its own
    torch.manual_seed(0)
    assert [index for _ in range(3) for index in Passes(10, 3, steps=4)][:12] == drawn[:12]


def test_processes_share_a_pass():
    torch.manual_seed(0)
    shares = [list(Passes(11, 2, steps=2, world=2, rank=rank)) for rank in (0, 1)]
    assert len({*shares[0], *shares[1]}) == 8
    with pytest.raises(ValueError, match="11 images are fewer than the 12 of one step"):
        Passes(11, 6, steps=1, world=2)


def test_as_many_from_each_part_with_replacement():
    torch.manual_seed(0)
    batches = list(FromEach((5, 50, 500), from_each=8, steps=200))
    assert len(batches) == 200
    counts = collections.Counter(index for batch in batches for index in batch)
    for batch in batches:
        parts = np.searchsorted([5, 55], batch, side="right")
        assert np.bincount(parts).tolist() == [8, 8, 8]
    assert any(len(set(batch[:8])) < 8 for batch in batches)  # five images, eight draws
    assert all(counts[index] > 200 for index in range(5)) and min(counts) == 0 and max(counts) < 555
