"""What a classifier is fed, held against NumPy and torchvision."""

import pickle
import random

import numpy as np
import pytest
import torch
from scipy import stats
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from datamodules.classification.transforms import (
    EvaluationImage,
    RandAugment,
    TrainImage,
    centre,
    normalised,
    random_part,
    resized,
    shorter_side,
)
from datamodules.segmentation.transforms import MEAN, STD


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    """A picture whose waves are 100 pixels long."""
    rows, columns = np.mgrid[:height, :width] * (2 * np.pi / 100)
    waves = [np.sin(rows) + np.cos(columns), np.sin(rows + columns), np.cos(rows - columns)]
    return (127 + 60 * np.dstack(waves)).clip(0, 255).astype(np.uint8)


def places(height: int, width: int) -> np.ndarray:
    """A picture whose red is the row and whose green the column."""
    image = np.full((height, width, 3), 255, np.uint8)
    image[..., 0], image[..., 1] = np.mgrid[:height, :width]
    return image


def grey_levels(image: torch.Tensor) -> np.ndarray:
    """Back to uint8 (H, W, 3)."""
    raw = (image.double() * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)) * 255
    assert (raw - raw.round()).abs().max() < 0.01
    return raw.round().byte().permute(1, 2, 0).numpy()


def through_torchvision(transform, image: np.ndarray) -> np.ndarray:
    return transform(torch.from_numpy(image).permute(2, 0, 1)).permute(1, 2, 0).numpy()


# Normalisation.


@pytest.mark.parametrize("size", [(16, 48), (1, 1), (224, 224)])
def test_normalisation_is_exact(size):
    image = noise(*size)
    image.flat[:256] = np.arange(256)[: image.size]
    out = normalised(image)
    expected = (image.astype(np.float64) / 255 - MEAN) / STD
    assert out.dtype == torch.float32 and out.shape == (3, *size) and out.is_contiguous()
    np.testing.assert_allclose(out.permute(1, 2, 0).numpy(), expected, atol=5e-7)


def test_normalisation_of_a_part_of_an_image():
    image = noise(20, 30)
    before = image.copy()
    assert torch.equal(normalised(image[3:11, 5:22]), normalised(image[3:11, 5:22].copy()))
    np.testing.assert_array_equal(image, before)


# Evaluating.


@pytest.mark.parametrize("size", [(37, 50), (50, 37), (33, 33), (40, 41), (32, 32)])
@pytest.mark.parametrize("crop", [32, 31, 17, 1])
def test_the_middle_is_torchvisions(size, crop):
    image = noise(*size)
    np.testing.assert_array_equal(centre(image, crop), through_torchvision(v2.CenterCrop(crop), image))


@pytest.mark.parametrize("size", [(75, 100), (101, 67), (20, 31), (64, 64), (1, 1), (3, 200)])
@pytest.mark.parametrize(("crop", "resize"), [(32, 36), (32, None), (28, 32)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_evaluation_images_are_torchvisions(size, crop, resize, interpolation):
    image = noise(*size)
    reference = v2.Compose(
        [
            v2.Resize(resize or crop, v2.InterpolationMode(interpolation)),
            v2.CenterCrop(crop),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    out = EvaluationImage(crop, resize, interpolation)(image)
    expected = reference(torch.from_numpy(image).permute(2, 0, 1))
    assert out.shape == (3, crop, crop) and out.is_contiguous()
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=0)


def test_an_evaluation_image_of_the_right_size_is_only_normalised():
    image = noise(32, 32)
    np.testing.assert_array_equal(grey_levels(EvaluationImage(32)(image)), image)


def test_evaluating_cannot_cut_more_than_there_is():
    with pytest.raises(ValueError, match="resized to 224 pixels cannot be cut to 256"):
        EvaluationImage(256, 224)
    with pytest.raises(ValueError):
        EvaluationImage(32, interpolation="cubist")


# Resizing.


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "antialiased"])
@pytest.mark.parametrize("size", [(90, 120), (241, 400), (300, 220), (81, 80), (40, 50)])
def test_resized_images_stay_where_they_are(size, interpolation):
    """Smooth pictures come out as torchvision's do: neither shifted nor stretched."""
    image = smooth(*size)
    out = resized(image, (80, 80), interpolation).astype(int)
    expected = through_torchvision(v2.Resize((80, 80)), image)
    assert out.shape == (80, 80, 3)
    slope = np.abs(np.diff(expected.astype(int), axis=0)).mean()  # what a shift by a whole pixel would cost
    assert (
        np.abs(out - expected).mean() < 0.25 * slope + 0.1
    )  # a quarter of a pixel: whole blocks leave out a line or two


def test_antialiased_is_exactly_torchvisions():
    image = noise(150, 133)
    np.testing.assert_array_equal(
        resized(image, (64, 48), "antialiased"), through_torchvision(v2.Resize((64, 48)), image)
    )


@pytest.mark.parametrize("factor", [2, 3, 2.5, 5])
def test_no_pixel_is_skipped_in_strong_reductions(factor):
    """Noise averages out as its blocks do; plain bilinear interpolation would keep a good part of it."""
    image = noise(round(64 * factor), round(64 * factor))
    whole = int(factor)
    assert resized(image, (64, 64)).std() <= 1.05 * image.std() / whole


def test_the_shorter_side_is_rounded_as_torchvision_rounds():
    for height, width in ((100, 333), (333, 100), (97, 131), (50, 50), (1, 9)):
        image = noise(height, width)
        assert shorter_side(image, 64).shape == through_torchvision(v2.Resize(64), image).shape


# Crops.


def test_parts_are_distributed_as_torchvisions():
    """Area, aspect and place of 2,000 parts, against torchvision's, by Kolmogorov and Smirnov's test."""
    height, width = 375, 500
    torch.manual_seed(0)
    dice = random.Random(0)
    ours = np.array([random_part(height, width, dice) for _ in range(2000)], float)
    theirs = v2.RandomResizedCrop(224)
    drawn = [theirs.make_params([torch.empty(3, height, width)]) for _ in range(2000)]
    theirs = np.array([[d["top"], d["left"], d["height"], d["width"]] for d in drawn], float)
    for measure in (
        lambda p: p[:, 2] * p[:, 3],
        lambda p: p[:, 3] / p[:, 2],
        lambda p: p[:, 0] / np.maximum(height - p[:, 2], 1),
        lambda p: p[:, 1] / np.maximum(width - p[:, 3], 1),
    ):
        assert stats.ks_2samp(measure(ours), measure(theirs)).pvalue > 0.001
    area, aspect = ours[:, 2] * ours[:, 3] / (height * width), ours[:, 3] / ours[:, 2]
    assert 0.079 < area.min() < 0.1 and 0.9 < area.max() <= 1.0
    assert 0.74 < aspect.min() < 0.77 and 1.30 < aspect.max() < 1.35
    assert (ours[:, 0] + ours[:, 2]).max() == height and (ours[:, 1] + ours[:, 3]).max() == width
    assert ours[:, :2].min() == 0


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (2, 900), (40, 3000), (7, 5)])
def test_parts_of_images_of_any_shape(size):
    for seed in range(30):
        top, left, height, width = random_part(*size, random.Random(seed))
        assert height >= 1 and width >= 1 and 0 <= top <= size[0] - height and 0 <= left <= size[1] - width


def test_the_part_of_a_very_long_image_is_torchvisions():
    for size in ((40, 3000), (3000, 40)):
        params = v2.RandomResizedCrop(32, scale=(1.0, 1.0)).make_params([torch.empty(3, *size)])
        expected = tuple(params[name] for name in ("top", "left", "height", "width"))
        assert random_part(*size, random.Random(0)) == expected


@pytest.mark.parametrize("size", [(1, 1), (20, 31), (64, 64), (300, 200)])
@pytest.mark.parametrize("crop", ["resized", "padded", "random", "centre"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "antialiased"])
def test_what_comes_out_whatever_goes_in(size, crop, interpolation):
    out = TrainImage(32, crop, interpolation=interpolation)(noise(*size))
    assert out.dtype == torch.float32 and out.shape == (3, 32, 32) and out.is_contiguous()


def test_a_resized_part_is_a_part():
    torch.manual_seed(0)
    for _ in range(30):
        out = grey_levels(TrainImage(32, "resized", flip=False)(places(240, 200)))
        rows, columns = out[..., 0].astype(int), out[..., 1].astype(int)
        assert (np.diff(rows, axis=0) >= 0).all() and (np.diff(columns, axis=1) >= 0).all()
        assert (rows.std(axis=1) < 1).all() and (columns.std(axis=0) < 1).all()


def test_padded_crops_are_uniform_over_their_places():
    torch.manual_seed(0)
    image, transform = places(32, 32), TrainImage(32, "padded", flip=False)
    counts = np.zeros((9, 9), int)
    for _ in range(1000):
        out = grey_levels(transform(image))
        inside = out[..., 2] == 255
        row, column = np.argwhere(inside)[0]
        down, right = int(out[row, column, 0]) - row, int(out[row, column, 1]) - column
        assert (out[~inside] == 0).all()  # black before normalisation
        expected = np.zeros((40, 40, 3), np.uint8)
        expected[4:36, 4:36] = image
        np.testing.assert_array_equal(out, expected[down + 4 : down + 36, right + 4 : right + 36])
        counts[down + 4, right + 4] += 1
    assert stats.chisquare(counts.ravel()).pvalue > 0.001


def test_random_crops_are_uniform_over_their_places():
    torch.manual_seed(0)
    transform, counts = TrainImage(32, "random", flip=False), np.zeros((5, 9), int)
    for _ in range(600):
        out = grey_levels(transform(places(36, 40)))
        counts[out[0, 0, 0], out[0, 0, 1]] += 1
        np.testing.assert_array_equal(out[..., 0] - out[0, 0, 0], places(32, 32)[..., 0])
    assert stats.chisquare(counts.ravel()).pvalue > 0.001


def test_centre_crops_show_the_middle():
    image = smooth(384, 512)
    out = grey_levels(TrainImage(224, "centre", flip=False, interpolation="antialiased")(image))
    reference = v2.Compose([v2.Resize(256), v2.CenterCrop(224)])
    np.testing.assert_array_equal(out, through_torchvision(reference, image))


def test_every_other_image_is_flipped():
    torch.manual_seed(0)
    image, transform = noise(32, 32), TrainImage(32, "random")
    flipped = 0
    for _ in range(400):
        out = grey_levels(transform(image))
        mirrored = not np.array_equal(out, image)
        np.testing.assert_array_equal(out[:, ::-1] if mirrored else out, image)
        flipped += mirrored
    assert 150 < flipped < 250


def test_the_image_that_goes_in_is_left_alone():
    image = noise(32, 32)
    before = image.copy()
    for crop in ("resized", "padded", "random", "centre"):
        TrainImage(32, crop, randaugment=(2, 15))(image)
    EvaluationImage(32)(image)
    np.testing.assert_array_equal(image, before)


def test_unknown_words():
    with pytest.raises(ValueError, match="unknown crop 'circle': choose from resized, padded, random, centre"):
        TrainImage(32, "circle")
    with pytest.raises(ValueError, match="unknown interpolation 'lanczos'"):
        TrainImage(32, interpolation="lanczos")


# RandAugment and random numbers.


def test_randaugment_runs_each_layer_at_its_magnitude():
    for layers, magnitude in ((2, 10), (2, 15), (1, 5), (3, 9)):
        augment = RandAugment(layers, magnitude)._augment
        assert augment.num_layers == layers and len(augment.ops) == 15
        assert all(op.magnitude == magnitude for op in augment.ops)
        assert all(op.prob == 1 and op.magnitude_max >= magnitude and op.magnitude_std == 0 for op in augment.ops)


def test_randaugment_fills_with_the_mean_colour():
    """Whatever a rotation, a shear or a shift brings into a mean-coloured picture cannot be seen."""
    mean = np.full((32, 32, 3), [round(255 * value) for value in MEAN], np.uint8)
    augment = RandAugment(1, 15)
    augment._augment.ops = [op for op in augment._augment.ops if op.name[:5] in ("Rotat", "Shear", "Trans")]
    assert len(augment._augment.ops) == 5
    dice = random.Random(0)
    for _ in range(20):
        np.testing.assert_array_equal(augment(mean, dice), mean)
        assert not np.array_equal(augment(noise(32, 32), dice), noise(32, 32))


@pytest.mark.parametrize("randaugment", [None, (2, 10)])
def test_torchs_seed_repeats_and_others_are_left_alone(randaugment):
    transform, image = TrainImage(32, "resized", randaugment=randaugment), noise(60, 50)
    random.seed(5), np.random.seed(5)
    expected = random.random(), np.random.rand()
    random.seed(5), np.random.seed(5)
    torch.manual_seed(1)
    first = [transform(image) for _ in range(8)]
    assert (random.random(), np.random.rand()) == expected
    torch.manual_seed(1)
    again = [transform(image) for _ in range(8)]  # with Python's and NumPy's numbers elsewhere by now
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert len({one.sum().item() for one in first}) == 8


class SameImage:
    def __init__(self, transform):
        self.transform, self.image = transform, noise(48, 48)

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return self.transform(self.image)


@pytest.mark.parametrize("randaugment", [None, (2, 10)])
def test_workers_differ_and_a_seed_repeats_them(randaugment):
    def epoch():
        torch.manual_seed(2)
        loader = DataLoader(SameImage(TrainImage(32, randaugment=randaugment)), 1, num_workers=2)
        return torch.cat(list(loader))

    first = epoch()
    assert torch.equal(first, epoch())
    assert len({image.sum().item() for image in first}) == 8


def test_a_transform_can_be_sent_to_another_process():
    transform = TrainImage(32, randaugment=(2, 15))
    copy = pickle.loads(pickle.dumps(transform))
    image = noise(48, 48)
    torch.manual_seed(0)
    expected = transform(image)
    torch.manual_seed(0)
    assert torch.equal(copy(image), expected)


# What other libraries' recipes need.


def test_evaluation_images_are_squashed_as_torchvisions():
    image = noise(75, 100)
    out = grey_levels(EvaluationImage(28, 32, squash=True)(image))
    reference = v2.Compose([v2.Resize((32, 32)), v2.CenterCrop(28)])
    np.testing.assert_array_equal(out, through_torchvision(reference, image))
    np.testing.assert_array_equal(grey_levels(EvaluationImage(32, squash=True)(noise(32, 32))), noise(32, 32))


def test_training_images_are_squashed_before_they_are_cut():
    transform = TrainImage(32, "random", flip=False, squash=40, interpolation="antialiased")
    squashed = through_torchvision(v2.Resize((40, 40)), noise(75, 100))
    torch.manual_seed(0)
    out = grey_levels(transform(noise(75, 100)))
    found = [(r, c) for r in range(9) for c in range(9) if np.array_equal(squashed[r : r + 32, c : c + 32], out)]
    assert len(found) == 1


def test_the_least_area_of_a_part():
    dice, areas = random.Random(0), []
    for _ in range(500):
        *_, height, width = random_part(200, 200, dice, (0.7, 1.0))
        areas.append(height * width / 40_000)
    assert 0.69 < min(areas) < 0.75 and max(areas) <= 1
    torch.manual_seed(0)  # places tell how many pixels of the image are left
    for _ in range(20):
        out = grey_levels(TrainImage(32, area=0.9, flip=False)(places(200, 200))).astype(int)
        assert (np.ptp(out[..., 0]) + 8) * (np.ptp(out[..., 1]) + 8) > 0.85 * 40_000


def test_cifars_own_mean_and_standard_deviation():
    image = noise(32, 32)
    expected = (image.astype(np.float64) / 255 - (0.4914, 0.4822, 0.4465)) / (0.2023, 0.1994, 0.2010)
    torch.manual_seed(0)
    for out in (
        EvaluationImage(32, normalisation="cifar")(image),
        TrainImage(32, "random", flip=False, normalisation="cifar")(image),
    ):
        np.testing.assert_allclose(out.permute(1, 2, 0).numpy(), expected, atol=1e-6)
    for transform in (EvaluationImage, TrainImage):
        with pytest.raises(ValueError, match="unknown normalisation 'mnist': choose from imagenet, cifar"):
            transform(32, normalisation="mnist")


def test_colour_noise_is_one_shift_of_the_published_spread():
    """Covariance M' diag(.1 lambda)^2 M of the shift in units of 0 to 1, M's rows being weighted."""
    image, transform = noise(32, 32), TrainImage(32, "random", flip=False, colour_noise=0.1)
    plain = normalised(image)
    torch.manual_seed(0)
    shifts = []
    for _ in range(2000):
        shift = (transform(image) - plain).double() * torch.tensor(STD, dtype=torch.float64).view(3, 1, 1)
        assert (shift - shift[:, :1, :1]).abs().max() < 1e-6  # the same in every pixel
        shifts.append(shift[:, 0, 0].numpy())
    rows = np.array([[0.4009, 0.7192, -0.5675], [-0.8140, -0.0045, -0.5808], [0.4203, -0.6948, -0.5836]])
    spread = (0.1 * np.array([0.2175, 0.0188, 0.0045]))[:, None] * rows
    np.testing.assert_allclose(np.cov(np.array(shifts).T, bias=True), spread.T @ spread, rtol=0.1, atol=3e-7)
    assert np.abs(np.mean(shifts, axis=0)).max() < 0.001


def test_jitter_and_grey_are_distributed_as_torchvisions():
    image = smooth(32, 32)
    theirs = v2.Compose([v2.ColorJitter(0.3, 0.3, 0.3, 0.3), v2.RandomGrayscale(0.1)])
    ours = TrainImage(32, "random", flip=False, jitter=(0.3, 0.3, 0.3, 0.3), grey=0.1)
    torch.manual_seed(0)
    drawn = [[through_torchvision(theirs, image), grey_levels(ours(image))] for _ in range(400)]
    for measure in (
        lambda picture: picture.mean(),
        lambda picture: picture.std(),
        lambda picture: np.ptp(picture.astype(int), axis=2).mean(),
        lambda picture: picture[..., 0].mean() - picture[..., 1].mean(),
    ):
        found = [[measure(picture) for picture in pictures] for pictures in zip(*drawn, strict=True)]
        assert stats.ks_2samp(*found).pvalue > 0.001
    grey = [(np.ptp(mine.astype(int), axis=2) == 0).all() for _, mine in drawn]
    assert 15 < sum(grey) < 70
