"""Image and label must stay one: every test paints the class into the picture and looks for it afterwards."""

import numpy as np
import pytest
import torch

from datamodules.segmentation.labels import IGNORE
from datamodules.segmentation.transforms import MEAN, STD, EvalTransform, TrainTransform


def painted(label: np.ndarray) -> np.ndarray:
    return np.repeat((label * 10)[..., None], 3, axis=2)


def blocks(height=120, width=160, side=40) -> np.ndarray:
    rows, columns = np.indices((height, width)) // side
    return (1 + rows * (width // side) + columns).astype(np.uint8)


def classes_seen(image: torch.Tensor) -> torch.Tensor:
    raw = image * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    return (raw[0] * 255 / 10).round().long()


@pytest.mark.parametrize("aim", [None, 7])
def test_image_and_label_are_cut_and_scaled_alike(aim):
    label = blocks()
    transform = TrainTransform((96, 128), augment_colour=False)
    torch.manual_seed(0)
    for _ in range(20):
        image, out = transform(painted(label), label, aim=aim)
        assert image.shape == (3, 96, 128) and image.dtype == torch.float32
        assert out.shape == (96, 128) and out.dtype == torch.int64
        known = out != IGNORE
        agree = (classes_seen(image) == out)[known].float().mean()
        assert agree > 0.9  # all but the blended pixels along the blocks' borders


@pytest.mark.parametrize("aim", [None, 1])
def test_labels_are_scaled_as_their_images_are(aim):
    """Discs in black and white: what is shown and what is labelled part by rounding alone, on both sides alike."""
    (y, x), rng = np.mgrid[0:300, 0:300], np.random.default_rng(0)
    label = np.zeros((300, 300), np.uint8)
    for cx, cy, r in rng.uniform((0, 0, 4), (300, 300, 20), (25, 3)):
        label[(x - cx) ** 2 + (y - cy) ** 2 < r * r] ^= 1
    transform, wrong = TrainTransform((160, 160), augment_colour=False), []
    torch.manual_seed(0)
    for _ in range(12):
        image, out = transform(np.repeat(label[..., None] * 255, 3, 2), label, aim=aim)
        shown = image[0] * STD[0] + MEAN[0] > 0.5
        wrong.append(((shown != out) & (out != IGNORE)).float().mean().item())
    assert np.mean(wrong) < 0.002  # a label taken half a pixel off makes three times that


def test_scales_of_one_cut_the_image_as_it_is():
    label = np.random.default_rng(0).integers(0, 19, (80, 100), np.uint8)
    transform = TrainTransform((32, 64), augment_colour=False, scales=(1.0, 1.0))
    parts = {
        part[:, ::flip].tobytes()
        for top in range(49)
        for left in range(37)
        for part in [label[top : top + 32, left : left + 64]]
        for flip in (1, -1)
    }
    torch.manual_seed(0)
    drawn = [transform(painted(label), label)[1].numpy().astype(np.uint8).tobytes() for _ in range(20)]
    assert set(drawn) <= parts and len(set(drawn)) > 15


def test_scales_are_the_factors_of_the_image():
    label = np.zeros((64, 64), np.uint8)
    label[:, 32:] = 1
    torch.manual_seed(0)
    transform = TrainTransform((128, 128), augment_colour=False, scales=(0.5, 0.75))
    seen = [(transform(painted(label), label)[1] != IGNORE).sum().sqrt().item() for _ in range(40)]
    assert 31 <= min(seen) < 35 and 45 < max(seen) <= 49  # the image's side within the padded crop


def test_padding_of_small_images_is_ignored():
    label = np.full((20, 20), 3, np.uint8)
    _, out = TrainTransform((64, 64), augment_colour=False)(painted(label), label)
    assert set(out.unique().tolist()) == {3, IGNORE}
    assert (out == 3).sum() <= 41 * 41


def test_an_aimed_crop_holds_its_class():
    label = np.zeros((200, 200), np.uint8)
    label[150:170, 20:40] = 11
    transform = TrainTransform((48, 48), augment_colour=False)
    torch.manual_seed(0)
    aimed = sum((transform(painted(label), label, aim=11)[1] == 11).any().item() for _ in range(30))
    anywhere = sum((transform(painted(label), label)[1] == 11).any().item() for _ in range(30))
    assert aimed == 30 and anywhere < 20


def test_colour_augmentation_moves_colours_and_leaves_labels():
    label = blocks()
    plain, coloured = (TrainTransform((96, 128), augment_colour=a) for a in (False, True))
    torch.manual_seed(1)
    before = [plain(painted(label), label) for _ in range(8)]
    torch.manual_seed(1)
    after = [coloured(painted(label), label) for _ in range(8)]
    assert any(not torch.allclose(a[0], b[0], atol=0.2) for a, b in zip(before, after, strict=True))
    assert all(set(label.unique().tolist()) <= {*range(1, 13), IGNORE} for _, label in after)


def test_torchs_seed_repeats_a_sample():
    label = blocks()
    transform = TrainTransform((96, 128), augment_colour=True)
    torch.manual_seed(3)
    first = transform(painted(label), label)
    second = transform(painted(label), label)
    torch.manual_seed(3)
    again = transform(painted(label), label)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], second[0])


def test_evaluating_only_normalises():
    label = blocks()
    image, out = EvalTransform()(painted(label), label)
    expected = (painted(label) / 255.0 - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(image.numpy().transpose(1, 2, 0), expected, atol=1e-5)
    np.testing.assert_array_equal(out.numpy(), label)
