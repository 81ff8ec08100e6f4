"""Shapes: the same pictures everywhere; classes told by outline alone; styles crossed with classes as asked."""

import pickle
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.path import Path as Outlined
from numpy.random import PCG64, SeedSequence

from datamodules.image_files import DataError
from datamodules.worlds.dice import Dice
from datamodules.worlds.shapes import world as shapes
from datamodules.worlds.shapes.outlines import FRAGMENT_POINTS, FRAGMENTS, contours, fragments, traced
from datamodules.worlds.shapes.scenes import Raster, plan
from datamodules.worlds.shapes.styles import PAINTERS
from datamodules.worlds.shapes.textures import textures
from datamodules.worlds.shapes.world import CLASSES, LENGTHS, STYLES, Shapes, contact_sheet

DIGESTS = {
    ("photo", 32, 0): (3515444070, 870639386),
    ("photo", 64, 513): (654668440, 1022854143),
    ("painting", 32, 1): (1927258256, 3388279901),
    ("cartoon", 32, 2): (3084467125, 2830837612),
    ("cartoon", 128, 3): (144606269, 1192921968),
    ("sketch", 32, 4): (1275923442, 4263814340),
    ("sketch", 36, 5): (3083682284, 2614422217),
}
"""CRC-32 of image and mask of some samples: a machine that draws differently shows here."""


def crc(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).tobytes())


@pytest.fixture(scope="module")
def samples() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """240 images and labels of each style."""
    worlds = {style: Shapes(length=240, styles=style) for style in STYLES}
    return {style: (np.stack([image for image, _ in world]), world.labels) for style, world in worlds.items()}


# ------------------------------------------------------------------------------------------------------- determinism


@pytest.mark.parametrize("style, size, index", DIGESTS)
def test_samples_are_the_same_on_every_machine(style, size, index):
    world = Shapes(styles=style, size=size, classes=20)
    assert (crc(world[index][0]), crc(world.mask(index))) == DIGESTS[style, size, index]


def test_a_sample_depends_on_nothing_but_split_index_and_settings():
    world = Shapes(length=50)
    image, label = world[7]
    mask = world.mask(7)
    world[31], Shapes("val")[0]
    copy = pickle.loads(pickle.dumps(world))
    for other, index in ((world, 7), (copy, 7), (Shapes(length=8), 7), (world, -43), (world, np.int64(7))):
        assert np.array_equal(image, other[index][0]) and label == other[index][1] == other.labels[index]
        assert np.array_equal(mask, other.mask(index)) and other.style(index) == world.style(7)


def test_a_fresh_process_draws_the_same():
    drawn = "from datamodules.worlds.shapes.world import Shapes; pictures = [Shapes()[i][0] for i in range(4)]"
    code = f"import zlib; {drawn}; print([zlib.crc32(picture) for picture in pictures])"
    root = Path(__file__).parents[3]
    told = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout
    assert told.strip() == str([crc(Shapes()[index][0]) for index in range(4)])


def test_dice_roll_raw_words_block_by_block_from_the_end():
    dice, bits = Dice(5, 2**40), PCG64(SeedSequence((5, 2**40)))
    for _ in range(3):
        assert [dice.word() for _ in range(768)] == (bits.random_raw(768) >> 32).tolist()[::-1]


def test_splits_seeds_and_indices_share_no_picture():
    drawn = [
        crc(Shapes(split, styles="cartoon", seed=seed)[index][0])
        for split in LENGTHS
        for seed in (0, 1)
        for index in range(40)
    ]
    assert len(set(drawn)) == len(drawn)


def test_a_style_changes_the_picture_and_not_what_it_shows():
    worlds = [Shapes("val", 12, 64, style) for style in STYLES]
    assert all(np.array_equal(worlds[0].labels, world.labels) for world in worlds)
    for index in range(12):
        masks = [world.mask(index) for world in worlds]
        for mask, least in zip(masks, (1, 0.6, 0.9, 0.9), strict=True):
            assert overlap(mask, masks[0]) >= least
        images = [world[index][0].astype(int) for world in worlds]
        assert min(np.abs(a - b).mean() for k, a in enumerate(images) for b in images[:k]) > 10


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()


def test_a_size_shows_the_same_scene_as_another():
    for style in STYLES:
        small, large = Shapes(size=32, styles=style), Shapes(size=64, styles=style)
        for index in range(6):
            image = cv2.resize(large[index][0], (32, 32), interpolation=cv2.INTER_AREA).astype(int)
            near, far = np.abs(small[index][0] - image).mean(), np.abs(small[index + 1][0] - image).mean()
            assert near < 0.75 * far
            shrunk = cv2.resize(large.mask(index).astype(np.uint8), (32, 32), interpolation=cv2.INTER_NEAREST_EXACT) > 0
            assert overlap(shrunk, small.mask(index)) > 0.7


# --------------------------------------------------------------------------------------------- labels, styles, joint


def counts(world: Shapes) -> np.ndarray:
    table = np.zeros((len(world.classes), len(world.styles)), int)
    for index, label in enumerate(world.labels):
        table[label, world.styles.index(world.style(index))] += 1
    return table


@pytest.mark.parametrize("length", [40, 997, 4000])
def test_without_weights_all_cells_are_alike(length):
    table = counts(Shapes(length=length))
    assert table.sum() == length and np.abs(table - length / 40).max() <= 2


@pytest.mark.parametrize("split", LENGTHS)
def test_counts_follow_the_weights(split):
    joint = np.array([[8, 1, 0, 0], [0, 0.5, 7.5, 1], [2, 2, 2, 2]])
    world = Shapes(split, 1300, classes=3, joint=joint)
    table = counts(world)
    assert np.abs(table - 1300 * joint / joint.sum()).max() <= 3
    assert not table[joint == 0].any()
    assert np.array_equal(counts(Shapes(split, 1300, classes=3, joint=(1000 * joint).tolist())), table)


def test_a_class_in_one_style_only():
    world = Shapes(length=60, classes=4, joint=np.eye(4))
    assert all(STYLES.index(world.style(index)) == label for index, label in enumerate(world.labels))
    assert set(world.labels.tolist()) == {0, 1, 2, 3}
    last = Shapes(length=60, classes=2, styles=("sketch", "photo"), joint=[[0, 1], [0, 0]])
    assert not last.labels.any() and last.style(59) == "photo"


def test_labels_and_styles_are_known_without_drawing(monkeypatch):
    monkeypatch.setattr(shapes, "plan", None)
    world = Shapes("val")
    assert len(world) == 1000 == len(world.labels) and world.labels.dtype == np.int64
    assert world.style(0) in STYLES and world.classes == CLASSES[:10]
    with pytest.raises(TypeError):
        world[0]


@pytest.mark.parametrize("classes", [2, 20])
def test_number_of_classes(classes):
    world = Shapes(length=100, classes=classes)
    assert world.classes == CLASSES[:classes] and set(world.labels.tolist()) == set(range(classes))


def test_names():
    assert Shapes().name == "shapes" and Shapes(styles=("sketch",)).name == "shapes/sketch"
    assert {split: len(Shapes(split)) for split in LENGTHS} == LENGTHS


# ------------------------------------------------------------------------------------------------------ what is drawn


def inside(scene, size: int) -> np.ndarray:
    """Whether each pixel's centre is in the object and in no fragment before it, by another library's geometry."""
    at = (np.arange(size) + 0.5) / size
    centres = np.stack(np.meshgrid(at, at), -1).reshape(-1, 2)

    def within(parts: list[np.ndarray]) -> np.ndarray:
        return sum(Outlined(part).contains_points(centres).astype(int) for part in parts) % 2 == 1

    thing = within([scene.points[part] for part in scene.trace.body])
    thing |= within([scene.points[part] for part in scene.trace.accent])
    start = scene.trace.points.shape[1]
    for number in range(scene.behind, len(scene.tints)):
        thing &= ~within([scene.points[start + number * FRAGMENT_POINTS :][:FRAGMENT_POINTS]])
    return thing.reshape(size, size)


def spread(mask: np.ndarray, reach: int) -> np.ndarray:
    """The mask and all within `reach` pixels of it."""
    return cv2.dilate(mask.astype(np.uint8), np.ones((2 * reach + 1, 2 * reach + 1))) > 0


@pytest.mark.parametrize("style, reach", [("photo", 1), ("painting", 3), ("cartoon", 1), ("sketch", 1)])
def test_the_mask_is_the_visible_part_of_the_outline(style, reach):
    """To within a pixel but for the tips of points; a painting's edges follow its strokes."""
    world = Shapes(size=64, styles=style, classes=18)
    hidden = 0
    for index in range(24):
        scene = plan(world.classes[world.labels[index]], Dice(0, 0, index, 1))
        hidden += len(scene.tints) > scene.behind
        truth, mask = inside(scene, 64), world.mask(index)
        assert max((mask & ~spread(truth, reach)).sum(), (truth & ~spread(mask, reach)).sum()) <= 3
        assert overlap(mask, truth) > 0.7
    assert 0 < hidden < 24


@pytest.mark.parametrize("style", STYLES)
def test_the_picture_changes_where_the_mask_says_the_object_is(style):
    """Draw with the object and with it moved out of the picture: away from its outline and shadow, nothing changes."""
    found = []
    for index in range(12):
        drawn = []
        for away in (0.0, 5.0):
            dice = Dice(0, 0, index, 1)
            scene = plan(CLASSES[index], dice)
            points = scene.points.copy()
            points[: scene.trace.points.shape[1]] += away
            drawn.append(PAINTERS[style](Raster(scene._replace(points=points), 64), textures(64), dice))
        (image, seen), (without, nothing) = drawn
        assert not nothing.any()
        mask = seen >= 128
        changed = np.abs(image.astype(int) - without).sum(-1) > 40
        assert changed[~spread(mask, 2)].mean() < {"photo": 0.4, "sketch": 0.15}.get(style, 0.02)
        found.append(changed[mask].mean())
    assert np.median(found) > (0.3 if style == "sketch" else 0.85)


def test_the_box_is_tight_around_the_mask():
    world = Shapes(length=40, size=36)
    for index in range(40):
        mask, (x0, y0, x1, y1) = world.mask(index), world.box(index)
        assert mask.shape == (36, 36) and mask.dtype == bool and mask[y0:y1, x0:x1].sum() == mask.sum() > 0
        for side in (mask[y0, :], mask[y1 - 1, :], mask[:, x0], mask[:, x1 - 1]):
            assert side.any()


def test_objects_are_whole_and_mostly_visible():
    for index in range(300):
        scene = plan(CLASSES[index % 20], Dice(3, 0, index, 1))
        thing = scene.points[: scene.trace.points.shape[1]]
        assert thing.min() > 0.019 and thing.max() < 0.981
        assert 0.51 < np.ptp(thing, axis=0).max() < 0.91
        if index < 60:
            whole = inside(scene._replace(tints=scene.tints[: scene.behind]), 48).sum()
            assert inside(scene, 48).sum() > 0.6 * whole


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("size", [16, 17, 32, 36, 128])
def test_any_size(style, size):
    world = Shapes(size=size, styles=style)
    for index in range(3):
        image, label = world[index]
        assert image.shape == (size, size, 3) and image.dtype == np.uint8 and image.flags.c_contiguous
        assert image.std() > 5 and isinstance(label, int)
        assert world.mask(index).mean() > 0.04


# --------------------------------------------------------------------------------------------------------- statistics


def test_styles_differ_in_light_colour_and_texture(samples):
    light, colour, contrast, lines = {}, {}, {}, {}
    for style, (images, _) in samples.items():
        images = images.astype(float)
        light[style] = images.mean()
        colour[style] = (images.max(-1) - images.min(-1)).mean()
        contrast[style] = images.mean(-1).std((1, 2)).mean()
        lines[style] = np.abs(np.diff(images.mean(-1), axis=2)).mean()
    assert sorted(light, key=light.get) == ["photo", "painting", "cartoon", "sketch"]
    assert sorted(colour, key=colour.get) == ["sketch", "photo", "painting", "cartoon"]
    assert light["sketch"] > light["photo"] + 80 and colour["cartoon"] > 2.5 * colour["photo"] > 5 * colour["sketch"]
    assert contrast["cartoon"] > 1.3 * contrast["photo"] and lines["cartoon"] > 2 * lines["photo"]


def test_light_and_colour_do_not_tell_the_class(samples):
    """Nearest mean in twelve statistics of colour, fitted on half of the pictures: chance is 10 %."""
    right = total = 0
    for images, labels in samples.values():
        pixels = images.reshape(len(images), -1, 3).astype(float)
        features = np.concatenate([pixels.mean(1), pixels.std(1), *np.percentile(pixels, (10, 90), axis=1)], 1)
        features = (features - features.mean(0)) / features.std(0)
        half = len(labels) // 2
        means = np.stack([features[:half][labels[:half] == label].mean(0) for label in range(10)])
        guesses = ((features[half:, None] - means) ** 2).sum(-1).argmin(1)
        right, total = right + (guesses == labels[half:]).sum(), total + half
    assert right / total < 0.2


def test_outlines_are_apart():
    """Upright and filling the same box, no class covers what another does, and no fragment is a class."""

    def filled(parts: list[np.ndarray]) -> np.ndarray:
        points = np.concatenate(parts)
        low, span = points.min(0), np.ptp(points, axis=0).max()
        plane = np.zeros((64, 64), np.uint8)
        for part in parts:
            cv2.fillPoly(plane, [np.rint((part - low) / span * 63).astype(np.int32)], 1)
        return plane > 0

    known = [
        filled([traced(name).points.T[part] for part in traced(name).body + traced(name).accent]) for name in CLASSES
    ]
    pieces = [filled([points.T]) for points in fragments()]
    for number, plane in enumerate(known):
        assert max(overlap(plane, other) for other in known[:number] + pieces) < 0.9
    assert fragments().shape == (len(FRAGMENTS), 2, FRAGMENT_POINTS)


def test_paths_are_read_as_svg_reads_them():
    (square, curve) = contours("M 0 0 L 4 0 4 4 L 0 4 Z M 0 0 C 0 8 8 8 8 0 Z")
    assert square == [(0, 0), (4, 0), (4, 4), (0, 4)]
    assert curve[0] == (0, 0) and curve[-1] == (8, 0) and (4, 6) in curve  # B(1/2) = (p0 + 3 p1 + 3 p2 + p3) / 8


# ------------------------------------------------------------------------------------------------------------- edges


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"split": "dev"}, "train, val, test"),
        ({"length": -1}, "length of -1"),
        ({"size": 15}, "at least 16"),
        ({"styles": ("photo", "collage")}, "photo, painting, cartoon, sketch"),
        ({"styles": ()}, "one style or several"),
        ({"styles": ("photo", "photo")}, "one style or several"),
        ({"classes": 1}, "2 to 20"),
        ({"classes": 21}, "2 to 20"),
        ({"seed": -1}, "seed of -1"),
        ({"joint": np.ones((4, 10))}, r"\(10, 4\).*not \(4, 10\)"),
        ({"joint": np.zeros((10, 4))}, "zeros alone"),
        ({"joint": -np.ones((10, 4))}, "at least 0"),
        ({"joint": np.full((10, 4), np.nan)}, "finite"),
        ({"joint": [[1, 2], [3]], "classes": 2}, "classes by styles"),
    ],
)
def test_settings_out_of_order_are_told_in_a_sentence(settings, words):
    with pytest.raises(DataError, match=words) as caught:
        Shapes(**settings)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_indices_out_of_range():
    world = Shapes(length=3)
    assert len(list(world)) == len(world) == 3
    for index in (3, -4):
        for ask in (world.__getitem__, world.style, world.mask, world.box):
            with pytest.raises(IndexError, match="of 3"):
                ask(index)
    with pytest.raises(IndexError):
        Shapes(length=0)[0]


def test_contact_sheet():
    assert contact_sheet(3, 16, 2).shape == (len(STYLES) * 2 * 18, 3 * 18, 3)
