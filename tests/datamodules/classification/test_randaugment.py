"""TensorFlow's operations against PIL's, and against the same written pixel by pixel in float64."""

import collections
import math
import random

import numpy as np
import pytest
from PIL import Image, ImageOps

from datamodules.classification import randaugment
from datamodules.classification.randaugment import OPERATIONS, TensorFlowRandAugment, apply, argument
from datamodules.classification.transforms import TrainImage

# Arguments at magnitudes 10 and 15, of the published code.
ARGUMENTS = {
    "Rotate": (30, 45), "Posterize": (4, 6), "Solarize": (256, 384), "SolarizeAdd": (110, 165), "Color": (1.9, 2.8),
    "Contrast": (1.9, 2.8), "Brightness": (1.9, 2.8), "Sharpness": (1.9, 2.8), "ShearX": (0.3, 0.45),
    "ShearY": (0.3, 0.45), "TranslateX": (100, 150), "TranslateY": (100, 150),
}  # fmt: skip


def noise(height: int, width: int, low: int = 0, high: int = 256) -> np.ndarray:
    return np.random.default_rng(0).integers(low, high, (height, width, 3), np.uint8)


def per_pixel(image: np.ndarray, pixel) -> np.ndarray:
    """`pixel(row, column, channel)` in float64, cut to bytes and truncated; it is to read floats, which do not wrap."""
    out = np.empty(image.shape)
    for place in np.ndindex(*image.shape):
        out[place] = pixel(*place)
    return out.clip(0, 255).astype(np.uint8)


def taken(image: np.ndarray, source) -> np.ndarray:
    """Each pixel from `source(x, y)`, the nearest one; grey outside."""

    def pixel(row: int, column: int, channel: int) -> float:
        x, y = (math.floor(value + 0.5) for value in source(column, row))
        inside = 0 <= x < image.shape[1] and 0 <= y < image.shape[0]
        return image[y, x, channel] if inside else 128

    return per_pixel(image, pixel)


def close(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal, but for products that are whole numbers, which in float32 may fall just below and are then truncated."""
    apart = np.abs(found.astype(int) - expected)
    assert apart.max() <= 1 and (apart > 0).mean() < 0.03


def test_sixteen_operations_at_the_published_arguments():
    assert len(OPERATIONS) == 16 and {"Cutout", "SolarizeAdd", "AutoContrast", "Equalize", "Invert"} < set(OPERATIONS)
    for name, (ten, fifteen) in ARGUMENTS.items():
        assert argument(name, 10) == pytest.approx(ten) and argument(name, 15) == pytest.approx(fifteen)


@pytest.mark.parametrize("image", [noise(20, 31), noise(20, 31, 40, 44), noise(64, 64, 90, 200), noise(3, 2)])
def test_levels_are_pils(image):
    picture = Image.fromarray(image)
    np.testing.assert_array_equal(randaugment.equalize(image), np.asarray(ImageOps.equalize(picture)))
    np.testing.assert_array_equal(randaugment.invert(image), np.asarray(ImageOps.invert(picture)))
    for bits in (4, 6, 8):
        np.testing.assert_array_equal(randaugment.posterize(image, bits), np.asarray(ImageOps.posterize(picture, bits)))
    for threshold in (0, 100, 256, 384):
        expected = np.asarray(ImageOps.solarize(picture, threshold))
        np.testing.assert_array_equal(randaugment.solarize(image, threshold), expected)


def test_solarize_add():
    image = noise(9, 11)
    expected = per_pixel(image, lambda *at: image[at] + 165.0 if image[at] < 128 else image[at])
    np.testing.assert_array_equal(randaugment.solarize_add(image, 165), expected)


def test_auto_contrast():
    image = noise(9, 11, 40, 180)
    image[..., 2] = 77  # a channel of one level stays
    low, high = image.min((0, 1)).astype(float), image.max((0, 1)).astype(float)

    def stretched(row: int, column: int, c: int) -> float:
        value = float(image[row, column, c])
        return (value - low[c]) * 255 / (high[c] - low[c]) if high[c] > low[c] else value

    found = randaugment.auto_contrast(image)
    assert found[..., :2].min() == 0 and found[..., :2].max() >= 254 and (found[..., 2] == 77).all()
    assert np.abs(found.astype(int) - per_pixel(image, stretched)).max() <= 1


@pytest.mark.parametrize("factor", [1.9, 2.8])
def test_blends(factor):
    image = noise(16, 24)
    pixels = image.astype(float)
    away = {
        "color": lambda r, c: int((pixels[r, c] @ (0.2989, 0.5870, 0.1140)) / 255 * 255.5),
        "contrast": lambda r, c: 16 * 24 // 256,  # the slip: pixels by 256, and not the mean, which is near 128
        "brightness": lambda r, c: 0,
    }
    for name, start in away.items():
        expected = per_pixel(image, lambda r, c, k, start=start: start(r, c) + factor * (pixels[r, c, k] - start(r, c)))
        close(getattr(randaugment, name)(image, factor), expected)


@pytest.mark.parametrize(("side", "grey"), [(160, 100), (192, 144), (224, 196), (256, 255), (320, 255)])
def test_contrast_turns_about_a_grey_of_the_size(side, grey):
    flat = np.full((side, side, 3), grey, np.uint8)
    np.testing.assert_array_equal(randaugment.contrast(flat, 2.8), flat)
    other = np.full((side, side, 3), grey - 10, np.uint8)
    close(randaugment.contrast(other, 1.9), np.full_like(other, grey - 19))


def test_sharpness():
    image = noise(12, 10)
    pixels = image.astype(float)
    kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]])

    def smooth(r: int, c: int, k: int) -> float:
        if r in (0, 11) or c in (0, 9):
            return pixels[r, c, k]
        return int((pixels[r - 1 : r + 2, c - 1 : c + 2, k] * kernel).sum() / 13)

    expected = per_pixel(image, lambda r, c, k: smooth(r, c, k) + 1.9 * (pixels[r, c, k] - smooth(r, c, k)))
    close(randaugment.sharpness(image, 1.9), expected)
    tiny = noise(2, 2)
    np.testing.assert_array_equal(randaugment.sharpness(tiny, 1.9), tiny)


def test_shears_and_shifts():
    image = noise(15, 22)
    moves = [
        ("shear_x", 0.45, lambda x, y: (x + 0.45 * y, y)),
        ("shear_x", -0.3, lambda x, y: (x - 0.3 * y, y)),
        ("shear_y", 0.3, lambda x, y: (x, y + 0.3 * x)),
        ("translate_x", 7, lambda x, y: (x + 7, y)),
        ("translate_y", -5, lambda x, y: (x, y - 5)),
    ]
    for name, value, source in moves:
        np.testing.assert_array_equal(getattr(randaugment, name)(image, value), taken(image, source))


@pytest.mark.parametrize("degrees", [30.5, -44.7])
def test_rotation(degrees):
    image, turn = noise(15, 22), math.radians(degrees)

    def source(x: float, y: float) -> tuple[float, float]:
        x, y = x - 10.5, y - 7
        return x * math.cos(turn) - y * math.sin(turn) + 10.5, x * math.sin(turn) + y * math.cos(turn) + 7

    np.testing.assert_array_equal(randaugment.rotate(image, degrees), taken(image, source))


def test_a_quarter_turn_is_exact():
    image = noise(8, 8)
    np.testing.assert_array_equal(randaugment.rotate(image, 90), np.rot90(image, 1))


def test_shifts_are_pixels_at_any_size():
    for side in (160, 320):
        image = noise(side, side)
        out = apply("TranslateX", image, 10, random.Random(1))
        moved_left = (out[:, -100:] == 128).all()
        kept = (image[:, 100:], out[:, :-100]) if moved_left else (image[:, :-100], out[:, 100:])
        np.testing.assert_array_equal(*kept)
    gone = apply("TranslateX", noise(32, 32), 10, random.Random(0))
    assert (gone == 128).all()  # an image of 32 pixels is gone, as published


def test_cutout_paints_a_square_that_the_border_cuts():
    image = noise(100, 120, 0, 100)
    for row, column in ((50, 60), (0, 0), (99, 119)):
        out = randaugment.cutout(image, 40, row, column)
        inside = np.zeros((100, 120), bool)
        for r, c in np.ndindex(100, 120):
            inside[r, c] = row - 40 <= r < row + 40 and column - 40 <= c < column + 40
        assert (out[inside] == 128).all()
        np.testing.assert_array_equal(out[~inside], image[~inside])
    sizes = {(apply("Cutout", image, 10, random.Random(seed)) == 128).all(2).sum() for seed in range(30)}
    assert max(sizes) <= 80 * 80 and len(sizes) > 5


def test_two_layers_drawn_evenly_and_signs_by_halves(monkeypatch):
    seen, values = collections.Counter(), []
    for name in OPERATIONS:

        def watched(image, value=None, *_, name=name):
            seen[name] += 1
            values.append((name, value))
            return image

        monkeypatch.setitem(randaugment.OPERATIONS, name, watched)
    monkeypatch.setattr(randaugment, "cutout", lambda image, half, *_: watched(image, half, name="Cutout"))
    augment, dice = TensorFlowRandAugment(2, 15), random.Random(0)
    for _ in range(1600):
        augment(noise(8, 8), dice)
    assert seen.total() == 3200 and set(seen) == set(OPERATIONS)
    assert all(130 < count < 270 for count in seen.values())
    turns = [value for name, value in values if name == "Rotate"]
    assert set(turns) == {45.0, -45.0} and 0.3 < np.mean(np.array(turns) > 0) < 0.7
    assert {value for name, value in values if name == "Cutout"} == {60}


def test_what_comes_in_is_left_alone_and_what_comes_out_is_bytes():
    image = noise(40, 33)
    before = image.copy()
    for name in OPERATIONS:
        for seed in range(3):
            out = apply(name, image, 15, random.Random(seed))
            assert out.dtype == np.uint8 and out.shape == image.shape, name
            np.testing.assert_array_equal(image, before)
    out = TrainImage(32, randaugment=(2, 10), operations="tensorflow", interpolation="bicubic")(image)
    assert out.shape == (3, 32, 32)


def test_refusals():
    with pytest.raises(ValueError, match="magnitude is 3 or more, not 2"):
        TensorFlowRandAugment(2, 2)
    with pytest.raises(ValueError, match="unknown operations 'pil': choose from timm, tensorflow"):
        TrainImage(32, operations="pil")
