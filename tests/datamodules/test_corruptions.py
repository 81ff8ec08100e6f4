"""Corruptions against float64 formulas, scipy, PIL and torch."""

import colorsys
import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage, stats

from datamodules.corruption_blur import shuffled, streaked
from datamodules.corruption_frost import PANES
from datamodules.corruption_weather import MUD, cloud, spatter
from datamodules.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES, corrupt
from datamodules.image_files import DataError
from datamodules.streets import Streets

ALL = CORRUPTIONS + EXTRA_CORRUPTIONS
CERTAIN = {
    "defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression", "gaussian_blur", "saturate",
}  # fmt: skip
"""The rest draws."""


@pytest.fixture(scope="module")
def scene():
    """A street of 96 x 112 pixels."""
    return Streets("city", "val", 1, (96, 112))[0][0]


@pytest.fixture(scope="module")
def noise():
    """Colours of every kind, 72 x 80 pixels."""
    return np.random.default_rng(0).integers(0, 256, (72, 80, 3), np.uint8)


def flat(value, height=128, width=128):
    return np.full((height, width, 3), value, np.uint8)


def test_names_are_the_papers():
    assert CORRUPTIONS == (
        "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur",
        "snow", "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
    )  # fmt: skip
    assert EXTRA_CORRUPTIONS == ("speckle_noise", "gaussian_blur", "spatter", "saturate")


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shape", [(16, 16), (17, 96), (64, 31), (66, 91)], ids=str)
def test_any_image(name, shape, scene):
    image = scene[: shape[0], : shape[1]]  # a view: rows do not follow each other in memory
    kept = image.copy()
    for severity in SEVERITIES:
        out = corrupt(image, name, severity, seed=3)
        assert out.dtype == np.uint8 and out.shape == image.shape and out.flags.c_contiguous and out.flags.writeable
        assert not np.shares_memory(out, scene)
        assert np.array_equal(out, corrupt(kept, name, severity, seed=3))
    assert np.array_equal(image, kept)


@pytest.mark.parametrize("name", ALL)
def test_seeds(name, scene):
    first, again, other = (corrupt(scene, name, 3, seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert np.array_equal(first, other) == (name in CERTAIN)


def test_global_randomness_is_left_alone(scene):
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    first = [corrupt(scene, name, 2, 0) for name in ALL]
    assert np.array_equal(before, np.random.get_state()[1])
    np.random.seed(1)
    assert all(np.array_equal(corrupt(scene, name, 2, 0), out) for name, out in zip(ALL, first, strict=True))


RISING = {
    96: "gaussian_noise shot_noise impulse_noise defocus_blur motion_blur zoom_blur brightness contrast "
    "elastic_transform jpeg_compression speckle_noise gaussian_blur",
    32: "gaussian_noise shot_noise impulse_noise defocus_blur zoom_blur brightness contrast "
    "jpeg_compression speckle_noise gaussian_blur",
}


@pytest.mark.parametrize(("side", "name"), [(side, name) for side, names in RISING.items() for name in names.split()])
def test_severities_rise(name, side, scene):
    """Where the published figures do."""
    image = scene[:side, :side].astype(np.float64)
    change = [
        np.mean([np.abs(corrupt(scene[:side, :side], name, severity, seed) - image).mean() for seed in range(12)])
        for severity in SEVERITIES
    ]
    assert sorted(change) == change and len(set(change)) == 5


@pytest.mark.parametrize(("side", "factor"), [(64, 0.75), (65, 0.4)])
def test_size_chooses_the_table(side, factor):
    image = flat(0, 90, side)
    image[:45] = 200
    assert set(np.unique(corrupt(image, "contrast", 1, 0))) == {round(100 - 100 * factor), round(100 + 100 * factor)}


# ---- noise: the whole distribution of what becomes of one value


def assert_distributed(out, chances):
    """The bytes' mean and standard deviation are those of `chances` (256,), to within 5 standard errors."""
    levels = np.arange(256)
    mean = (chances * levels).sum()
    moments = [(chances * (levels - mean) ** power).sum() for power in (2, 4)]
    out = out.astype(np.float64)
    assert abs(chances.sum() - 1) < 1e-6
    assert abs(out.mean() - mean) < 5 * math.sqrt(moments[0] / out.size)
    assert abs(out.var() - moments[0]) < 5 * math.sqrt((moments[1] - moments[0] ** 2) / out.size) + 1e-3 * moments[0]


def normal_chances(value, deviation):
    ends = np.concatenate([[-np.inf], np.arange(1, 256), [np.inf]])
    return np.diff(stats.norm.cdf(ends, value, deviation))


@pytest.mark.parametrize(("severity", "deviation"), zip(SEVERITIES, (0.08, 0.12, 0.18, 0.26, 0.38), strict=True))
def test_gaussian_noise(severity, deviation):
    assert_distributed(corrupt(flat(90, 224, 224), "gaussian_noise", severity, 0), normal_chances(90, 255 * deviation))


@pytest.mark.parametrize(("severity", "deviation"), zip(SEVERITIES, (0.15, 0.2, 0.35, 0.45, 0.6), strict=True))
def test_speckle_noise(severity, deviation):
    chances = normal_chances(180, 180 * deviation)
    assert_distributed(corrupt(flat(180, 224, 224), "speckle_noise", severity, 0), chances)
    assert not corrupt(flat(0), "speckle_noise", severity, 0).any()


@pytest.mark.parametrize(("severity", "photons"), zip(SEVERITIES, (60, 25, 12, 5, 3), strict=True))
@pytest.mark.parametrize("value", [7, 100, 255])
def test_shot_noise(severity, photons, value):
    counts = np.arange(400)
    bytes_ = np.minimum(np.floor(counts / photons * 255 + 1e-9), 255).astype(int)
    chances = np.bincount(bytes_, stats.poisson.pmf(counts, value / 255 * photons), 256)
    assert_distributed(corrupt(flat(value, 224, 224), "shot_noise", severity, 0), chances)


def test_impulse_noise():
    out = corrupt(flat(90, 224, 224), "impulse_noise", 5, 0)
    assert set(np.unique(out)) == {0, 90, 255}
    assert (out == 0).mean() == pytest.approx(0.135, rel=0.03) and (out == 255).mean() == pytest.approx(0.135, rel=0.03)
    hit = out != 90
    assert hit.all(2).mean() == pytest.approx(0.27**3, rel=0.15)  # a channel each


# ---- blur


def published_disc(radius, deviation):
    """By the definition, in float64: a disc in a square of 17 or 2 `radius` + 1, blurred with its edges mirrored."""
    reach = 8 if radius <= 8 else radius
    along = np.arange(-reach, reach + 1)
    inside = (along**2 + along[:, None] ** 2 <= radius**2).astype(np.float64)
    steps = np.arange(-1, 2) if radius <= 8 else np.arange(-2, 3)
    weights = np.exp(-(steps**2) / (2 * deviation**2))
    for axis in (0, 1):
        inside = ndimage.correlate1d(inside, weights / weights.sum(), axis, mode="mirror")
    return inside / (along**2 + along[:, None] ** 2 <= radius**2).sum()


@pytest.mark.parametrize(
    ("side", "severity", "radius", "deviation"),
    [(72, 1, 3, 0.1), (72, 2, 4, 0.5), (72, 4, 8, 0.5), (72, 5, 10, 0.5), (32, 2, 0.4, 0.5), (32, 5, 1.5, 0.1)],
)
def test_defocus_blur(noise, side, severity, radius, deviation):
    image = noise[:side]
    expected = ndimage.correlate(image.astype(float), published_disc(radius, deviation)[..., None], mode="mirror")
    assert_cut(corrupt(image, "defocus_blur", severity, 0), expected)


def assert_cut(out, expected, slack=0.02):
    """The bytes are the expected values without their fractions, give or take a rounding error."""
    expected = np.clip(expected, 0, 255)
    assert (out <= expected + slack).all() and (out > expected - 1 - slack).all()


@pytest.mark.parametrize(
    ("side", "severity", "sigma"), [(72, 1, 1), (72, 3, 3), (72, 5, 6), (32, 1, 0.4), (32, 4, 0.8)]
)
def test_gaussian_blur(noise, side, severity, sigma):
    image = noise[:side]
    expected = ndimage.gaussian_filter(image.astype(float), (sigma, sigma, 0), mode="nearest", truncate=4)
    assert_cut(corrupt(image, "gaussian_blur", severity, 0), expected)


@pytest.mark.parametrize("angle", [-135, -45, 0, 17.3, 90])
def test_streak_by_hand(angle):
    image = np.random.default_rng(0).random((19, 23)).astype(np.float32)
    weights = np.exp(-(np.arange(13) ** 2) / (2 * 2.5**2))
    expected = np.zeros_like(image, dtype=float)
    for step, weight in enumerate(weights / weights.sum()):
        rows = np.arange(19) + round(step * math.sin(math.radians(angle)))
        columns = np.arange(23) + round(step * math.cos(math.radians(angle)))
        expected += weight * image[np.clip(rows, 0, 18)][:, np.clip(columns, 0, 22)]
    np.testing.assert_allclose(streaked(image, 6, 2.5, angle), expected, atol=2e-4)


def test_motion_blur_reaches_one_way(noise):
    """From -45 to 45 degrees, what is blurred into a pixel lies to its right."""
    image = flat(0, 96, 96)
    image[:, 48:] = 255
    for seed in range(5):
        out = corrupt(image, "motion_blur", 3, seed)
        assert (out[20:-20, 48:] >= 254).all() and (out[20:-20, 40:48] > 0).all()


@pytest.mark.parametrize(("severity", "factors"), [(1, 1 + np.arange(12) / 100), (5, 1 + 0.03 * np.arange(11))])
def test_zoom_blur(scene, severity, factors):
    image = torch.from_numpy(scene).permute(2, 0, 1)[None].double()
    layers = [image]
    for factor in factors:
        height, width = (math.ceil(round(side / factor, 6)) for side in image.shape[2:])
        top, left = (image.shape[2] - height) // 2, (image.shape[3] - width) // 2
        part = image[:, :, top : top + height, left : left + width]
        layers.append(torch.nn.functional.interpolate(part, image.shape[2:], mode="bilinear"))
    expected = torch.stack(layers).mean(0)[0].permute(1, 2, 0).numpy()
    assert_cut(corrupt(scene, "zoom_blur", severity, 0), expected)


@pytest.mark.parametrize("reach", [1, 2, 4])
def test_glass_shuffle_is_the_loop(reach):
    rng = np.random.default_rng(reach)
    pixels = rng.integers(0, 256, (17, 20, 3), np.uint8)
    offsets = rng.integers(-reach, reach, (2, 17, 20), np.int32)
    expected = pixels.copy()
    for row in range(17 - reach, reach, -1):
        for column in range(20 - reach, reach, -1):
            expected[row, column] = expected[row + offsets[0, row, column], column + offsets[1, row, column]]
    assert np.array_equal(shuffled(pixels, offsets, reach), expected)
    assert not np.array_equal(expected, pixels)


@pytest.mark.parametrize(
    "name", ["defocus_blur", "gaussian_blur", "glass_blur", "motion_blur", "zoom_blur", "pixelate"]
)
def test_blur_leaves_one_colour(name):
    image = flat((10, 120, 250), 80, 70)
    change = corrupt(image, name, 2, 0).astype(int) - image
    assert np.abs(change).max() <= (0 if name == "pixelate" else 1)


# ---- weather


def test_snow_by_hand():
    """Between the flakes: 0.8 of the colour and 0.2 of 1.5 times its grey plus 127.5."""
    colour = np.array([40, 90, 160])
    pale = 1.5 * (0.299 * 40 + 0.587 * 90 + 0.114 * 160) + 127.5
    out = corrupt(flat(colour), "snow", 1, 0)
    assert np.abs(out.reshape(-1, 3).min(0) - (0.8 * colour + 0.2 * np.maximum(colour, pale))).max() <= 1
    assert out.max() > 230
    added = out - out.reshape(-1, 3).min(0).astype(float)
    assert np.array_equal(added, added[::-1, ::-1])  # flakes fall both ways


@pytest.mark.parametrize(("severity", "weight"), [(1, 1.5), (3, 2.5), (5, 3)])
def test_fog_by_hand(severity, weight):
    """A cloud is 0 somewhere and 1 somewhere else."""
    scale = (200 / 255) / (200 / 255 + weight)
    out = corrupt(flat(200), "fog", severity, 0)
    assert out.min() == math.floor(200 * scale)
    assert out.max() == pytest.approx((200 + 255 * weight) * scale, abs=1)
    assert (out == out[..., :1]).all()


def test_clouds():
    rng = np.random.default_rng(0)
    rough, smooth = (
        np.mean([np.abs(np.diff(cloud(64, decay, rng), axis=axis)).mean() for _ in range(5) for axis in (0, 1)])
        for decay in (1.4, 2)
    )
    assert rough > 2 * smooth
    air = cloud(64, 2, rng)
    assert air.shape == (64, 64) and air.min() == 0 and air.max() == 1
    seam, inside = np.abs(air[0] - air[-1]).mean(), np.abs(np.diff(air, axis=0)).mean()
    assert seam < 3 * inside  # it repeats


def test_clouds_corners_and_middles():
    """With ever fainter noise, the second octave halves what lies between: bilinear, and the same both ways."""
    air = cloud(4, 1e3, np.random.default_rng(0))
    corners = air[::2, ::2]
    middles = (corners + np.roll(corners, -1, 0) + np.roll(corners, -1, 1) + np.roll(corners, (-1, -1), (0, 1))) / 4
    np.testing.assert_allclose(air[1::2, 1::2], middles, atol=1e-4)


def test_frosts_light():
    black = np.mean([corrupt(flat(0, 224, 224), "frost", 3, seed) for seed in range(40)], axis=(0, 1, 2))
    expected = 0.7 * sum(pane.likely * np.array(pane.mean) for pane in PANES)
    np.testing.assert_allclose(black, expected, rtol=0.1)
    assert sum(pane.likely for pane in PANES) == pytest.approx(1)
    grey = corrupt(flat(100), "frost", 3, 5).astype(int) - corrupt(flat(0), "frost", 3, 5)
    assert np.abs(grey - 70).max() <= 1  # the same frost on 0.7 of the image


def test_frost_on_an_image_larger_than_the_sheet():
    assert corrupt(flat(0, 500, 900), "frost", 1, 0).std() > 5


def test_spatter():
    image = flat(60)
    water, mud = (corrupt(image, "spatter", severity, 0) for severity in (1, 5))
    assert (water >= image).all() and (water > image).any()
    red, green, blue = (water.astype(int) - 60).reshape(-1, 3).sum(0)
    assert red / green == pytest.approx(175 / 238, rel=0.05) and green == blue
    muddy = corrupt(flat(255), "spatter", 5, 0).reshape(-1, 3)
    darkest = muddy[muddy.sum(1).argmin()]
    assert np.abs(darkest - np.array(MUD)).max() <= 2
    assert (mud == image).all(2).any()


def test_spatter_without_a_drop():
    image = flat(60, 20, 24)
    for liquid in ("water", "mud"):
        rng = np.random.default_rng(0)
        with np.errstate(all="raise"):
            assert np.array_equal(spatter(image, (0.1, 0.01, 1, 0.9, 0.5, liquid), rng), image)


# ---- light, colour, geometry, storage


def by_hsv(image, change):
    """Every pixel through the standard library's HSV."""
    out = np.empty(image.shape)
    for place in np.ndindex(image.shape[:2]):
        out[place] = colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*(image[place] / 255))))
    return 255 * out


@pytest.mark.parametrize(("severity", "added"), [(1, 0.1), (3, 0.3), (5, 0.5)])
def test_brightness(noise, severity, added):
    noise = noise.copy()
    noise[0, 0], noise[0, 1], noise[0, 2] = 0, 255, (255, 0, 0)
    expected = by_hsv(noise, lambda h, s, v: (h, s, min(v + added, 1)))
    assert_cut(corrupt(noise, "brightness", severity, 0), expected)


def test_brightness_on_one_colour():
    assert (corrupt(flat((100, 50, 0)), "brightness", 2, 0)[0, 0] == [151, 75, 0]).all()  # 100 + 51, and as much more
    assert (corrupt(flat(0), "brightness", 2, 0) == 51).all()


@pytest.mark.parametrize(("severity", "factor", "added"), [(1, 0.3, 0), (3, 2, 0), (5, 20, 0.2)])
def test_saturate(noise, severity, factor, added):
    noise = noise.copy()
    noise[0, :3] = 0, 90, 255
    expected = by_hsv(noise, lambda h, s, v: (h, min(s * factor + added, 1), v))
    assert_cut(corrupt(noise, "saturate", severity, 0), expected, slack=0.05)


def test_saturate_turns_grey_reddish():
    assert (corrupt(flat(200), "saturate", 5, 0)[0, 0] == [200, 160, 160]).all()


@pytest.mark.parametrize(("severity", "factor"), zip(SEVERITIES, (0.4, 0.3, 0.2, 0.1, 0.05), strict=True))
def test_contrast(scene, severity, factor):
    means = scene.astype(float).mean((0, 1))
    assert_cut(corrupt(scene, "contrast", severity, 0), (scene - means) * factor + means)


@pytest.mark.parametrize(("severity", "size"), zip(SEVERITIES, (0.6, 0.5, 0.4, 0.3, 0.25), strict=True))
def test_pixelate(scene, severity, size):
    image = Image.fromarray(scene)
    reduced = image.resize((int(image.width * size), int(image.height * size)), Image.Resampling.BOX)
    expected = reduced.resize(image.size, Image.Resampling.NEAREST)
    assert np.array_equal(corrupt(scene, "pixelate", severity, 0), np.asarray(expected))


@pytest.mark.parametrize(("severity", "quality"), zip(SEVERITIES, (25, 18, 15, 10, 7), strict=True))
def test_jpeg_compression(scene, severity, quality):
    file = io.BytesIO()
    Image.fromarray(scene).save(file, "JPEG", quality=quality)
    expected = np.asarray(Image.open(file)).astype(int)
    assert np.abs(corrupt(scene, "jpeg_compression", severity, 0) - expected).max() <= 2  # decoders differ by a little


def test_elastic_transforms_displacements():
    """On a ramp the change is the displacement: white noise of +-amplitude under a Gaussian of known width."""
    side, slope = 112, 2
    ramp = np.repeat(np.arange(side, dtype=np.uint8)[None, :, None] * slope, side, 0).repeat(3, 2)
    for severity, amplitude in zip(SEVERITIES, (0.0625, 0.08125, 0.10625, 0.125, 0.15), strict=True):
        inside = np.s_[10:-10, 10:-10]
        change = (corrupt(ramp, "elastic_transform", severity, 0).astype(float) - ramp)[inside]
        expected = slope * amplitude * side / math.sqrt(3) / (2 * math.sqrt(math.pi) * 0.01 * side)
        assert change.std() == pytest.approx(expected, rel=0.1)
        assert abs(change.mean() + 0.5) < 0.3 * expected


# ---- what users get wrong


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "rain"}, "'rain' is no corruption; choose one of gaussian_noise, shot_noise"),
        ({"severity": 0}, "0 is no severity of fog; choose 1, 2, 3, 4 or 5"),
        ({"severity": 6}, "6 is no severity of fog"),
        ({"severity": 2.5}, "2.5 is no severity of fog"),
        ({"seed": -1}, "a seed is a whole number from 0 up, not -1"),
        ({"seed": 0.5}, "a seed is a whole number from 0 up, not 0.5"),
        ({"image": np.zeros((32, 32, 3), np.float32)}, r"fog expects a uint8 RGB array \(H, W, 3\), got float32"),
        ({"image": np.zeros((32, 32), np.uint8)}, r"got uint8 \(32, 32\)"),
        ({"image": np.zeros((32, 32, 4), np.uint8)}, r"got uint8 \(32, 32, 4\)"),
        ({"image": Image.new("RGB", (32, 32))}, "got Image"),
        ({"image": np.zeros((15, 32, 3), np.uint8)}, "at least 16 x 16 pixels, got 15 x 32"),
    ],
)
def test_complaints(change, words):
    arguments = {"image": np.zeros((32, 32, 3), np.uint8), "name": "fog", "severity": 3, "seed": 0} | change
    with pytest.raises(DataError, match=words) as error:
        corrupt(**arguments)
    assert str(error.value).endswith(".") and str(error.value).count(". ") == 0
