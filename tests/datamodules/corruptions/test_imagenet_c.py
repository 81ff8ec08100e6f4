"""Corruptions against float64 formulas, scipy, PIL and torch."""

import colorsys
import io
import math
import pickle

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage, stats

from datamodules.corruptions.blur import shuffled, streaked
from datamodules.corruptions.digital import elastic_transform, smoothed
from datamodules.corruptions.frost import PANES, frost_photographs
from datamodules.corruptions.imagenet_c import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES, corrupt, generator
from datamodules.corruptions.weather import MUD, cloud, spatter
from datamodules.image_files import DataError, MissingDataError
from datamodules.worlds.streets.world import Streets

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
    "jpeg_compression speckle_noise gaussian_blur",
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


@pytest.fixture(scope="module")
def square():
    """Colours of every kind, and edges, at ImageNet-C's 224 x 224."""
    image = Streets("city", "val", 1, (224, 448))[0][0][:, 100:324].copy()
    image[100:140, 60:160] = np.random.default_rng(1).integers(0, 256, (40, 100, 3))
    return image


def published_zoom(image, factor):
    """As ImageNet-C zooms, in float64 by scipy: crop, enlarge corner to corner, keep the first pixels."""
    side = len(image)
    crop = math.ceil(round(side / factor, 6))
    start = (side - crop) // 2
    part = image[start : start + crop, start : start + crop].astype(float)
    enlarged = ndimage.zoom(part, (factor, factor, 1), order=1)
    trim = (len(enlarged) - side) // 2
    return enlarged[trim : trim + side, trim : trim + side], len(enlarged)


ZOOMS = {  # count and step of the factors, and which of them give one pixel more than there is room for
    1: (12, 0.01, (1.03, 1.04, 1.05, 1.06, 1.07, 1.08, 1.09)),
    2: (16, 0.01, (1.03, 1.04, 1.05, 1.06, 1.07, 1.08, 1.09, 1.13, 1.14)),
    3: (11, 0.02, (1.04, 1.06, 1.08, 1.14, 1.16)),
    4: (13, 0.02, (1.04, 1.06, 1.08, 1.14, 1.16)),
    5: (11, 0.03, (1.03, 1.06, 1.09, 1.21, 1.27, 1.30)),
}


@pytest.mark.parametrize("severity", SEVERITIES)
def test_zoom_blur(square, severity):
    count, step, larger = ZOOMS[severity]
    factors = [round(1 + step * index, 2) for index in range(count)]
    layers = [published_zoom(square, factor) for factor in factors]
    assert tuple(factor for factor, (_, side) in zip(factors, layers, strict=True) if side == 225) == larger
    expected = (square + sum(layer for layer, _ in layers)) / (count + 1)
    assert_cut(corrupt(square, "zoom_blur", severity, 0), expected)


def test_zoom_blur_of_a_small_image(noise):
    image = noise[:32, :32]
    layers = [published_zoom(image, 1 + 0.01 * index)[0] for index in range(16)]
    assert_cut(corrupt(image, "zoom_blur", 3, 0), (image + sum(layers)) / 17)


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


def write_photographs(folder):
    """Five of one colour each, of the published sizes, but for a corner that tells where a window lies."""
    sizes = ((600, 900), (315, 560), (315, 560), (350, 527), (495, 660))
    for number, size in enumerate(sizes, 1):
        photograph = np.full((*size, 3), (10 * number, 100, 200), np.uint8)
        Image.fromarray(photograph).save(folder / f"frost{number}.png")
    Image.fromarray(np.zeros((323, 485, 3), np.uint8)).save(folder / "frost6.png")


def test_frost_from_photographs(tmp_path):
    write_photographs(tmp_path)
    photographs = frost_photographs(tmp_path)
    black = [corrupt(flat(0, 224, 224), "frost", 3, seed, frost=photographs)[0, 0].tolist() for seed in range(100)]
    shares = [black.count([int(0.7 * 10 * number), 70, 140]) for number in range(1, 7)]
    assert sum(shares) == 100 and min(shares[:5]) > 8 and shares[5] == 0  # each a fifth, never the sixth
    for height, width in ((32, 32), (500, 700)):
        assert corrupt(flat(0, height, width), "frost", 1, 0, frost=photographs).any()
    again = pickle.loads(pickle.dumps(photographs))  # as a loader's worker gets them
    one, other = (corrupt(flat(9, 40, 48), "frost", 5, 1, frost=each) for each in (photographs, again))
    assert np.array_equal(one, other)


def test_photographs_of_frost_that_are_not_there(tmp_path):
    with pytest.raises(MissingDataError, match=r"holds no frost1\.png or \.jpg: get"):
        frost_photographs(tmp_path / "no")
    write_photographs(tmp_path)
    Image.new("RGB", (300, 200)).save(tmp_path / "frost4.png")
    with pytest.raises(DataError, match=r"frost4\.png has less than 224"):
        frost_photographs(tmp_path)


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


ELASTIC = {1: (488, 170.8, 24.4), 2: (488, 19.52, 48.8), 3: (12.2, 2.44, 4.88), 4: (17.08, 2.44, 4.88),
           5: (29.28, 2.44, 4.88)}  # fmt: skip
"""ImageNet-C's amplitude, deviation and reach at 224 pixels, in pixels."""


def published_elastic(image, amplitude, deviation, reach, rng):
    """In float64 by scipy: three corners moved, then smooth displacements; both sampled linearly, borders reflected."""
    side = len(image)
    corners = side // 2 + side // 3 * np.array([[1, 1], [1, -1], [-1, -1]])  # x, y
    moved = corners + rng.uniform(-reach, reach, (3, 2)).astype(np.float32)
    back = np.linalg.solve(np.c_[moved, np.ones(3)], corners).T  # where a place of the result is in the image
    down, right = np.mgrid[:side, :side].astype(float)
    places = np.stack([row[0] * right + row[1] * down + row[2] for row in back[::-1]])
    warped = [
        ndimage.map_coordinates(plane, places, order=1, mode="mirror") for plane in image.astype(float).T.swapaxes(1, 2)
    ]
    moves = (2 * rng.random((2, side, side), np.float32) - 1) * amplitude
    down, right = (ndimage.gaussian_filter(move, deviation, mode="reflect", truncate=3) for move in moves.astype(float))
    places = np.mgrid[:side, :side] + [down, right]
    planes = [ndimage.map_coordinates(plane, places, order=1, mode="reflect") for plane in warped]
    return np.stack(planes, -1), np.mean([down.std(), right.std()])


@pytest.mark.parametrize(("severity", "spread"), zip(SEVERITIES, (0.08, 4.3, 0.83, 1.17, 2.0), strict=True))
def test_elastic_transform(square, severity, spread):
    """`spread` is the published displacements' standard deviation in pixels."""
    rng = generator(7, CORRUPTIONS.index("elastic_transform"), severity)
    expected, moves = published_elastic(square, *ELASTIC[severity], rng)
    off = corrupt(square, "elastic_transform", severity, 7) - (expected - 0.5)
    assert np.abs(off).mean() < 0.4 and np.percentile(np.abs(off), 99.9) < 3  # OpenCV's warp rounds places to 1/32
    assert moves == pytest.approx(spread, rel=0.5 if severity == 1 else 0.06)  # one draw; a wide blur leaves few


def test_elastic_transforms_first_severities_are_the_severe_ones(square):
    change = [
        np.mean(
            [
                np.abs(corrupt(square, "elastic_transform", severity, seed) - square.astype(float)).mean()
                for seed in range(8)
            ]
        )
        for severity in SEVERITIES
    ]
    assert min(change[:2]) > 1.5 * max(change[2:])


@pytest.mark.parametrize("side", [112, 448])
def test_elastic_transform_keeps_its_proportion_to_the_image(side):
    """On a ramp the change is the displacement: white noise of +-amplitude under a Gaussian of known width."""
    ramp = np.repeat(np.linspace(0, 255, side).astype(np.uint8)[None, :, None], side, 0).repeat(3, 2)
    amplitude, deviation, _ = np.array(ELASTIC[5]) * side / 224
    inside = np.s_[side // 8 : -side // 8, side // 8 : -side // 8]
    change = elastic_transform(ramp, (0.12, 0.01, 0, 244 / 224), np.random.default_rng(0))[inside].astype(float)
    expected = 255 / side * amplitude / math.sqrt(3) / (2 * math.sqrt(math.pi) * deviation)
    assert (change - ramp[inside]).std() == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(("shape", "deviation"), [((60, 91), 40), ((31, 20), 19.6), ((50, 40), 2.44)])
def test_smoothing_reaches_beyond_the_image(shape, deviation):
    values = np.random.default_rng(0).random(shape, np.float32)
    expected = ndimage.gaussian_filter(values.astype(float), deviation, mode="reflect", truncate=3)
    np.testing.assert_allclose(smoothed(values, deviation), expected, atol=1e-6)


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
