"""In what order training samples are read, and with which seeds."""

import collections
import random

import numpy as np
import pytest
import torch
from pytorch_lightning.utilities import CombinedLoader
from torch.utils.data import DataLoader, Dataset

from datamodules.classification.data import AdaptationData, ClassificationData
from datamodules.classification.domains import ImageDomain, open_images
from datamodules.classification.transforms import TrainImage
from datamodules.sample_order import (
    GOLDEN,
    Draw,
    FromEach,
    Passes,
    Seeded,
    Shuffled,
    TrainingOrder,
    derived_seed,
    from_start,
    is_exact,
    sample_seeds,
)
from datamodules.segmentation.class_uniform import ClassUniformOrder
from datamodules.segmentation.data import SegmentationData

CENTRES = {c: np.array([[c, c, 1], [c + 20, c, 2]]) for c in range(19)}
ORDERS = {  # of 48 samples in steps of 8
    "shuffled": Shuffled(48),
    "last kept": Shuffled(45, keep_last=True),
    "passes": Passes(45, steps=3),
    "from each": FromEach((5, 50, 500, 9), steps=4),
    "class-uniform": ClassUniformOrder(48, CENTRES, 19, 0.8),
}


def batches(name: str, world: int, rank: int, position=(0, 0), **settings) -> list[list[Draw]]:
    """Of one process."""
    parts, size = (4, 16) if name == "from each" else (1, 8)
    order = TrainingOrder(
        ORDERS[name], size // world, seed=3, world=world, rank=rank, parts=parts, position=lambda: position, **settings
    )
    found = list(order)
    assert len(found) + position[1] % len(order) == len(order)
    return found


@pytest.mark.parametrize("name", ORDERS)
def test_however_many_processes_share_a_step_it_reads_the_same(name):
    for epoch in (0, 1, 5):
        alone = batches(name, 1, 0, (epoch, 0))
        for world in (2, 4):
            shares = [batches(name, world, rank, (epoch, 0)) for rank in range(world)]
            for number, whole in enumerate(alone):
                together = [draw for share in shares for draw in share[number]]
                assert len({len(share[number]) for share in shares}) == 1
                if name == "last kept" and number == len(alone) - 1:  # 45 = 5 x 8 + 5: the first are read once more
                    more = [draw.what for draw in together[len(whole) :]]
                    assert more == [draw.what for draw in alone[0]][: -5 % world]
                    assert len({draw.seed for draw in together}) == len(together)
                if name == "from each":  # each share has it part by part
                    assert sorted(map(str, together)) == sorted(map(str, whole))
                else:
                    assert together[: len(whole)] == whole


@pytest.mark.parametrize("name", ["shuffled", "passes", "from each", "class-uniform"])
def test_gradients_of_several_batches_are_of_the_samples_of_one_larger_batch(name):
    """A process that accumulates two batches of four reads what two processes read at once."""
    parts, size = (4, 8) if name == "from each" else (1, 4)
    smaller = {"passes": Passes(45, steps=6, accumulate=2), "from each": FromEach((5, 50, 500, 9), steps=8)}
    order = TrainingOrder(smaller.get(name, ORDERS[name]), size, seed=3, parts=parts)
    for epoch in (0, 1, 7):
        order.position = lambda epoch=epoch: (epoch, 0)
        turns = list(order)
        for number in range(len(order) // 2):
            for rank in (0, 1):
                assert turns[2 * number + rank] == batches(name, 2, rank, (epoch, 0))[number]


def test_each_index_once_in_an_epoch_and_each_epoch_in_another_order():
    for name, count in (("shuffled", 48), ("last kept", 45)):
        orders = [[draw.what for batch in batches(name, 1, 0, (epoch, 0)) for draw in batch] for epoch in range(4)]
        assert all(sorted(order) == list(range(count)) for order in orders)
        assert len(set(map(tuple, orders))) == 4
    assert batches("shuffled", 1, 0) == batches("shuffled", 1, 0) != batches("shuffled", 1, 0, stream=1)


@pytest.mark.parametrize("name", ORDERS)
def test_from_the_middle_of_an_epoch_the_rest_is_read(name):
    for world, rank in ((1, 0), (2, 1)):
        whole = batches(name, world, rank, (2, 0))
        for done in range(len(whole)):
            assert batches(name, world, rank, (2, done)) == whole[done:]


def test_an_order_that_is_repeated_within_an_epoch_is_another_one():
    """Of two loaders the shorter one begins anew while the longer one's epoch goes on."""
    first, second = batches("shuffled", 1, 0, (1, 0)), batches("shuffled", 1, 0, (1, 6))
    assert len(first) == len(second) == 6 and first != second
    assert sorted(draw.what for batch in second for draw in batch) == list(range(48))
    assert batches("shuffled", 1, 0, (1, 8)) == second[2:]
    assert {draw.seed for batch in first for draw in batch}.isdisjoint(draw.seed for batch in second for draw in batch)


def test_epochs_go_on_where_the_last_one_stopped():
    """Ten images in batches of three: three batches a pass, one image left out of each."""
    order = TrainingOrder(Passes(10, steps=4), 3)
    drawn = []
    for epoch in range(3):
        order.position = lambda epoch=epoch: (epoch, 0)
        drawn += [draw.what for batch in order for draw in batch]
    assert len(order) == 4 and len(drawn) == 36
    passes = np.array(drawn).reshape(4, 9)
    assert all(len(set(row)) == 9 for row in passes.tolist())
    assert len({tuple(row) for row in passes.tolist()}) == 4  # each in an order of its own
    with pytest.raises(ValueError, match="11 images are fewer than the 12 of one step"):
        TrainingOrder(Passes(11, 1), 6, world=2)
    with pytest.raises(ValueError, match="11 images are fewer than the 12 of one step"):
        TrainingOrder(Passes(11, 2, accumulate=2), 6)


def test_as_many_from_each_part_with_replacement():
    order = TrainingOrder(FromEach((5, 50, 500), steps=200), 24, parts=3)
    drawn = [[draw.what for draw in batch] for batch in order]
    assert len(drawn) == 200
    counts = collections.Counter(index for batch in drawn for index in batch)
    for batch in drawn:
        assert np.bincount(np.searchsorted([5, 55], batch, side="right")).tolist() == [8, 8, 8]
    assert any(len(set(batch[:8])) < 8 for batch in drawn)  # five images, eight draws
    assert all(counts[index] > 200 for index in range(5)) and min(counts) == 0 and max(counts) < 555
    shares = [list(TrainingOrder(FromEach((5, 50, 500), 200), 12, parts=3, world=2, rank=rank)) for rank in (0, 1)]
    for share in shares:
        parts = np.searchsorted([5, 55], [draw.what for draw in share[0]], side="right")
        assert np.bincount(parts).tolist() == [4, 4, 4]


# ---------------------------------------------------------------------------------------------------------------- seeds


def test_seeds_are_splitmix64():
    """Its first outputs for the state 1234567, as published with many implementations."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    state = 1234567
    assert [derived_seed((state + GOLDEN * i) % 2**64) for i in range(3)] == [value >> 1 for value in published]
    start = derived_seed(3, 1, 4)
    expected = [derived_seed(start + GOLDEN * i) for i in range(50)]
    assert sample_seeds((3, 1, 4), 50).tolist() == expected


def test_no_two_samples_have_a_seed_in_common():
    keys = [
        (seed, stream, cycle, epoch) for seed in (0, 1) for stream in (0, 1) for cycle in (0, 1) for epoch in (0, 1)
    ]
    seeds = np.concatenate([sample_seeds(key, 1000) for key in keys])
    assert len(set(seeds.tolist())) == 16_000 and seeds.min() >= 0


def test_draws_of_neighbouring_samples_are_unrelated():
    """The first number of each of 4,000 samples: uniform, and uncorrelated with that of the next one."""
    generator = torch.Generator()
    first = np.array(
        [torch.rand((), generator=generator.manual_seed(s)).item() for s in sample_seeds((0,), 4000).tolist()]
    )
    assert abs(first.mean() - 0.5) < 4 / np.sqrt(12 * 4000) and abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 4 / 63
    assert np.histogram(first, 10, (0, 1))[0].min() > 300


class Drawing(Dataset):
    """Samples made of random numbers of all three generators."""

    def __getitem__(self, index: int):
        return index, torch.rand(()).item(), np.random.rand(), random.random()


def test_a_seed_decides_all_that_is_drawn_and_torchs_generator_is_left_alone():
    samples = Seeded(Drawing())
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    before = torch.rand(())
    one, again, other = samples[Draw(4, 11)], samples[Draw(4, 11)], samples[Draw(4, 12)]
    assert torch.equal(torch.stack([before, torch.rand(())]), expected)
    assert one == again and all(a != b for a, b in zip(one[1:], other[1:], strict=True))


# -------------------------------------------------------------------------------------------------------------- loaders


def photos(style: str, count: int) -> ImageDomain:
    return open_images(f"shapes/{style}", "train", "", size=32, length=count)


AUGMENTED = TrainImage(32, crop="resized", randaugment=(2, 10), jitter=(0.4, 0.4, 0.4, 0.1), grey=0.1, colour_noise=0.1)
STREETS = {"crop": (48, 64), "height": 64, "batch_size": 2, "train_scenes": 6, "evaluation_scenes": 3}
DATA = {
    "classification": lambda workers: ClassificationData(
        photos("photo", 25), [], AUGMENTED, size=32, resize=None, batch_size=4, workers=workers
    ),
    "passes": lambda workers: ClassificationData(
        photos("photo", 25), [], AUGMENTED, size=32, resize=None, batch_size=4, workers=workers, steps=5
    ),
    "adaptation": lambda workers: AdaptationData(
        photos("photo", 25), [], AUGMENTED, size=32, resize=None, batch_size=4, workers=workers,
        target=photos("sketch", 20),
    ),
    "segmentation": lambda workers: SegmentationData("streets-game", [], workers=workers, **STREETS),
    "robustnet": lambda workers: SegmentationData(
        "streets-game", [], workers=workers, augmentation="robustnet", **STREETS
    ),
}  # fmt: skip


def tensors(batch) -> list[torch.Tensor]:
    parts = batch.values() if isinstance(batch, dict) else [batch]
    return [tensor for part in parts for tensor in part]


def epoch(data, number: int, done: int = 0, loaders=None) -> list[list[torch.Tensor]]:
    """The batches of an epoch, from where so many are done."""
    loaders = loaders or data.train_dataloader()
    for loader in CombinedLoader(loaders).flattened:
        loader.batch_sampler.position = lambda: (number, done)
    return [tensors(batch) for batch, _, _ in CombinedLoader(loaders, "max_size_cycle")]


@pytest.mark.parametrize("name", DATA)
def test_batches_do_not_depend_on_the_number_of_loader_processes(name):
    expected = epoch(DATA[name](0), 1)
    assert len(expected) > 1
    for workers in (1, 4):
        torch.manual_seed(workers)  # decides nothing
        found = epoch(DATA[name](workers), 1)
        assert all(
            torch.equal(one, other)
            for batch, same in zip(expected, found, strict=True)
            for one, other in zip(batch, same, strict=True)
        )
    assert not torch.equal(expected[0][0], epoch(DATA[name](0), 2)[0][0])


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_that_stay_begin_where_the_training_stands(workers):
    """They have read ahead of what was trained on: the next epoch must not see any of that."""
    data = DATA["classification"](workers)
    loader = data.train_dataloader()
    whole = {number: epoch(DATA["classification"](0), number) for number in (0, 1)}
    taken = iter(loader)
    assert torch.equal(next(taken)[0], whole[0][0][0])
    for number, done in ((1, 0), (1, 3), (0, 5)):
        found = epoch(data, number, done, loader)
        assert len(found) == 6 - done
        for batch, expected in zip(found, whole[number][done:], strict=True):
            assert torch.equal(batch[0], expected[0])


def test_a_whole_epoch_can_be_read_in_the_middle_of_one():
    data = DATA["classification"](0)
    data.position = lambda: (2, 4)
    loader = from_start(data.train_dataloader(), 2)
    expected = epoch(DATA["classification"](0), 2)
    assert all(torch.equal(one[0], other[0]) for one, other in zip(loader, expected, strict=True))
    plain = DataLoader(Drawing())
    assert is_exact(loader) and not is_exact(plain) and from_start(plain, 2) is plain
