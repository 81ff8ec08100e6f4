"""RobustNet's way with images, against the same steps written out in Pillow and NumPy."""

from fractions import Fraction
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torchvision.transforms import ColorJitter

from datamodules.segmentation import class_uniform
from datamodules.segmentation.class_uniform import ClassUniformOrder, class_centres, tile_centres
from datamodules.segmentation.data import AimedSamples, SegmentationData
from datamodules.segmentation.domains import Domain
from datamodules.segmentation.labels import IGNORE, STREET
from datamodules.segmentation.robustnet import CentralSquares, RobustNetTransform, blurred, scaled_window
from datamodules.segmentation.transforms import MEAN, STD
from tests.datamodules.segmentation.published_layouts import make_cityscapes, make_gta5, make_mapillary


def photograph(height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.asarray(Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8)).resize((width, height)))


def classes(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 19, (height, width)).astype(np.uint8)


def pixels(image: torch.Tensor) -> np.ndarray:
    raw = image.numpy().transpose(1, 2, 0) * STD + MEAN
    return np.rint(255 * raw).astype(int)


def nearest(label: np.ndarray, height: int, width: int) -> np.ndarray:
    """A label at its new pixels' centres; Pillow's own, but for ties, where its sums of floats may fall short."""
    sides = zip((height, width), label.shape, strict=True)
    rows, columns = ([int(Fraction(2 * i + 1, 2 * new) * old) for i in range(new)] for new, old in sides)
    found = label[np.ix_(rows, columns)]
    theirs = np.asarray(Image.fromarray(label).resize((width, height), Image.Resampling.NEAREST))
    assert (found == theirs).mean() > 0.9
    return found


def written_out(image, label, crop, aim=None):
    """Scale, pad, cut, flip; the draws are the transform's, in its order."""
    scale = 0.5 + 1.5 * float(torch.rand(()))
    height, width = (int(side * scale) for side in label.shape)
    image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
    label = nearest(label, height, width)
    pads = [((c - side) // 2 + 1 if side < c else 0,) * 2 for side, c in zip(label.shape, crop, strict=True)]
    image, label = np.pad(image, (*pads, (0, 0))), np.pad(label, pads, constant_values=255)
    corner = []
    for axis, c in enumerate(crop):
        room = label.shape[axis] - c
        if aim is None:
            corner.append(int(torch.randint(room + 1, ())))
        else:
            drawn = int(aim[axis] * scale) - int(torch.randint(c + 1, ()))
            corner.append(min(max(drawn, 0), room))
    image, label = (part[corner[0] :, corner[1] :][: crop[0], : crop[1]] for part in (image, label))
    return (image[:, ::-1], label[:, ::-1]) if torch.rand(()) < 0.5 else (image, label)


@pytest.mark.parametrize("aim", [None, (20, 100), (79, 2)])
@pytest.mark.parametrize("size", [(80, 120), (60, 300), (200, 70)])
def test_geometry_is_scale_pad_cut_and_flip(size, aim):
    image, label = photograph(*size), classes(*size)
    aim = None if aim is None else (min(aim[0], size[0] - 1), min(aim[1], size[1] - 1))
    transform = RobustNetTransform((96, 96), augment_colour=False)
    for seed in range(12):
        torch.manual_seed(seed)
        found, found_label = transform(image, label, aim)
        torch.manual_seed(seed)
        expected, expected_label = written_out(image, label, (96, 96), aim)
        np.testing.assert_array_equal(found_label.numpy(), expected_label)
        apart = np.abs(pixels(found) - expected.astype(int))  # Pillow's fixed-point filter, begun elsewhere
        assert apart.max() <= 2 and apart.mean() < 0.1


def test_an_aimed_crop_holds_its_centre():
    label = np.zeros((200, 300), np.uint8)
    label[110:114, 40:44] = 11
    transform = RobustNetTransform((64, 64), augment_colour=False)
    torch.manual_seed(0)
    near = [(transform(photograph(200, 300), label, (112, 42))[1] == 11).any() for _ in range(40)]
    assert np.mean(near) > 0.9  # the centre may lie on the crop's very edge


def test_labels_stay_with_their_images():
    label = (classes(20, 30) % 2).repeat(8, 0).repeat(8, 1)
    transform = RobustNetTransform((96, 96), augment_colour=False)
    torch.manual_seed(1)
    for _ in range(6):
        image, out = transform(np.repeat(label[..., None] * 255, 3, 2), label, (5, 5))
        known = (out != IGNORE).numpy()
        assert ((pixels(image)[..., 0] > 127) == out.numpy())[known].mean() > 0.96


@pytest.mark.parametrize("sigma", [0.15, 0.4, 0.85, 1.3])
def test_blur_by_hand(sigma):
    image = photograph(31, 44)
    reach = int(4 * sigma + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    padded = np.pad(image.astype(np.float64), ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    rows = sum(weight * padded[i : i + 31] for i, weight in enumerate(kernel))
    expected = sum(weight * rows[:, i : i + 44] for i, weight in enumerate(kernel))
    found = blurred(image, sigma)
    clear = np.abs(expected - np.rint(expected)) > 0.01  # where rounding of the sum cannot decide
    assert clear.mean() > 0.9 or sigma < 0.2
    np.testing.assert_array_equal(found[clear], expected.astype(np.uint8)[clear])
    np.testing.assert_allclose(found, expected, atol=1)
    assert (blurred(np.full((9, 9, 3), 77, np.uint8), sigma) == 77).all()


def jittered(image: np.ndarray, order, brightness, contrast, saturation) -> np.ndarray:
    """torchvision's steps on 8-bit images: blends with black, with the mean grey, with each pixel's grey."""
    x = image.astype(np.float64)
    for step in order:
        grey = np.floor(x @ [0.299, 0.587, 0.114] + 0.5)
        factor = (brightness, contrast, saturation, None)[step]
        if step == 3:
            continue
        other = (0.0, np.floor(grey.mean() + 0.5), grey[..., None])[step]
        x = np.floor(np.clip(other + factor * (x - other), 0, 255))
    return x


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 3, 1, 0)])
def test_jitter_by_hand(order):
    image, transform = photograph(40, 60), RobustNetTransform((40, 60), augment_colour=True)
    drawn = (torch.tensor(order), 1.3, 0.7, 0.65, 0.0)
    with mock.patch.object(ColorJitter, "get_params", return_value=drawn):
        found = np.asarray(transform._jitter(Image.fromarray(image))).astype(float)
    expected = jittered(image, [step for step in order if step != 3], 1.3, 0.7, 0.65)
    assert np.abs(found - expected).mean() < 1.2 and np.abs(found - expected).max() < 8  # hue 0 through 8-bit HSV
    assert np.abs(found - image).mean() > 10
    jitter = transform._jitter
    assert jitter.brightness == jitter.contrast == jitter.saturation == (0.6, 1.4) and jitter.hue == (-0.1, 0.1)


def test_half_of_the_images_are_jittered_and_all_are_blurred(monkeypatch):
    transform, sigmas, jitters = RobustNetTransform((32, 32), augment_colour=True), [], []
    monkeypatch.setattr(
        "datamodules.segmentation.robustnet.blurred", lambda image, sigma: sigmas.append(sigma) or image
    )
    transform._jitter = lambda image: jitters.append(1) or image
    torch.manual_seed(0)
    for _ in range(400):
        transform(np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32), np.uint8))
    assert len(sigmas) == 400 and 160 < len(jitters) < 240
    assert 0.15 <= min(sigmas) < 0.17 and 1.28 < max(sigmas) <= 1.3 and abs(np.mean(sigmas) - 0.725) < 0.05


def test_torchs_seed_repeats_a_sample():
    image, label = photograph(70, 90), classes(70, 90)
    transform = RobustNetTransform((64, 64), augment_colour=True)
    found = []
    for seed in (3, 4, 3):
        torch.manual_seed(seed)
        found.append(transform(image, label)[0])
    assert torch.equal(found[0], found[2]) and not torch.equal(found[0], found[1])


def test_a_window_is_part_of_the_whole():
    image, label = photograph(90, 130), classes(90, 130)
    whole, whole_label = scaled_window(image, label, (143, 207), (0, 0), (143, 207))
    part, part_label = scaled_window(image, label, (143, 207), (31, 50), (64, 80))
    assert np.abs(part.astype(int) - whole[31:95, 50:130]).max() <= 1
    np.testing.assert_array_equal(part_label, whole_label[31:95, 50:130])


# ------------------------------------------------------------------------------------------------------------- centres


def test_centres_of_mass_by_tile(monkeypatch):
    monkeypatch.setattr(class_uniform, "TILE", 40)
    rng = np.random.default_rng(0)
    label = rng.choice([0, 3, 18, 255], (70, 125), p=[0.5, 0.4, 0.05, 0.05]).astype(np.uint8)
    label[:40, 40:80] = 7  # one row of three whole tiles; what is left over at the bottom and right is in none
    label[60:, :] = 9
    expected = []
    for left in (0, 40, 80):
        tile = label[:40, left : left + 40]
        for c in np.unique(tile[tile < 19]):
            row, column = ndimage.center_of_mass(tile == c)
            expected.append((c, int(row), int(column) + left))
    assert tile_centres(label, 19).tolist() == [list(map(int, centre)) for centre in expected]


def test_the_published_sizes_have_one_tile_and_two():
    assert tile_centres(np.full((1052, 1914), 4, np.uint8), 19).tolist() == [[4, 511, 511]]
    assert tile_centres(np.full((1024, 2048), 4, np.uint8), 19).tolist() == [[4, 511, 511], [4, 511, 1535]]
    assert tile_centres(np.full((720, 1280), 4, np.uint8), 19).tolist() == [[4, 359, 511]]


class Labels:
    def __init__(self, labels):
        self.labels = labels

    def __len__(self):
        return len(self.labels)

    def label(self, index):
        return self.labels[index]


def test_centres_are_listed_by_class():
    labels = [np.zeros((10, 10), np.uint8) for _ in range(3)]
    labels[2][2:5, 6:9] = 12
    found = class_centres(Domain("listed", Labels(labels), STREET, tuple(range(19)), {}))
    assert sorted(found) == [0, 12] and found[0][:2].tolist() == [[0, 4, 4], [1, 4, 4]]
    assert found[12].tolist() == [[2, 3, 7]]


def test_an_epoch_is_put_together_as_published():
    """12,388 images: 326 for each class of 19, and 6,194 others."""
    rng = np.random.default_rng(0)
    counts = [12109, 11833, 12301, 10854, 8811, 11928, 7891, 5921, 12132, 11549, 12131, 10691, 986, 10501, 6711, 1861,
              493, 1211, 168]  # fmt: skip
    centres = {c: np.stack([rng.permutation(12_388)[:n], np.full(n, c), np.arange(n)], 1) for c, n in enumerate(counts)}
    order = ClassUniformOrder(12_388, centres, 19, 0.5)
    epochs = [order.epoch((3,), first, 1) for first in (0, 12_388, 0)]
    assert epochs[0] == epochs[2] != epochs[1] and order.batches(1) == len(epochs[0]) == 12_388
    aimed = [aim for _, aim in epochs[0] if aim is not None]
    assert np.bincount([row for row, _ in aimed]).tolist() == [326] * 19
    plain = [image for image, aim in epochs[0] if aim is None]
    assert len(plain) == len(set(plain)) == 6_194
    turns = np.bincount([number for row, number in aimed if row == 18])  # 168 centres: each once, and some again
    assert len(turns) == 168 and set(turns.tolist()) == {1, 2} and turns.sum() == 326
    assert any(aim for _, aim in epochs[0][:20]) and any(aim is None for _, aim in epochs[0][:20])  # mixed


def test_without_a_share_or_centres_every_image_comes_once():
    for centres, share in (({}, 0.5), ({0: np.array([[1, 2, 3]])}, 0.0)):
        assert sorted(ClassUniformOrder(30, centres, 19, share).epoch((0,), 0, 1)) == [(i, None) for i in range(30)]


# ---------------------------------------------------------------------------------------------------- the data module


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "normshift"


def test_published_sets_go_through(tmp_path, cache):
    make_gta5(tmp_path / "gta5", n=80, size=(36, 64))
    make_mapillary(tmp_path / "mapillary", n=2, size=(60, 100))
    data = SegmentationData(
        "gta5", ["mapillary"], str(tmp_path), crop=(32, 32), batch_size=4, augmentation="robustnet",
        squares={"mapillary": 48},
    )  # fmt: skip
    data.read_labels()
    assert any("-centres.npy" in file.name for file in cache.iterdir())
    images, labels = next(iter(data.train_dataloader()))
    assert images.shape == (4, 3, 32, 32) and labels.shape == (4, 32, 32) and labels.dtype == torch.int64
    images, labels = next(iter(data.evaluation_loader(data.evaluated[1])))
    assert images.shape == (1, 3, 48, 48) and labels.shape == (1, 48, 48)
    assert next(iter(data.evaluation_loader(data.evaluated[0])))[0].shape == (
        1,
        3,
        36,
        64,
    )  # the others are not resized
    for file in cache.iterdir():
        file.write_bytes(b"\x93NUMPY damaged")
    assert class_centres(data.source).keys() == data._by_class.keys()  # found anew


def test_a_height_of_ones_own_takes_the_place_of_squares(tmp_path):
    make_mapillary(tmp_path / "mapillary", n=2, size=(60, 100))
    data = SegmentationData(
        "streets-game", ["mapillary"], str(tmp_path), crop=(32, 32), height=32, squares={"mapillary": 48}
    )
    assert next(iter(data.evaluation_loader(data.evaluated[1])))[0].shape == (1, 3, 32, 53)


@pytest.mark.parametrize(("size", "columns"), [((60, 100), slice(16, 64)), ((100, 60), slice(0, 28))])
def test_central_squares(size, columns):
    image, label = photograph(*size), classes(*size)
    found, found_label = CentralSquares([(image, label)], 48)[0]
    wide = int(size[1] / size[0] * 48)
    small = Image.fromarray(image).resize((wide, 48), Image.Resampling.BICUBIC)
    assert np.abs(found.astype(int) - np.asarray(small)[:, columns]).max() <= 1
    np.testing.assert_array_equal(found_label, nearest(label, 48, wide)[:, columns])


def test_centres_are_scaled_with_resized_images():
    label = np.zeros((200, 400), np.uint8)
    label[120:140, 300:320] = 5
    samples = AimedSamples([(np.zeros((200, 400, 3), np.uint8), label)], 100, lambda image, label, aim: label[aim])
    assert samples[0, (130, 310)] == 5


def test_cityscapes_as_a_source(tmp_path, cache):
    make_cityscapes(tmp_path / "cityscapes", n=3, size=(64, 128))
    data = SegmentationData("cityscapes", [], str(tmp_path), crop=(32, 64), augmentation="robustnet", batch_size=1)
    assert len(list(data.train_dataloader())) == 3
