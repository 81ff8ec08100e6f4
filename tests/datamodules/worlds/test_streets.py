"""Streets: the same scenes everywhere and in every appearance, with all classes, in perspective."""

import pickle
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from datamodules.segmentation.labels import STREET
from datamodules.worlds.dice import Dice
from datamodules.worlds.streets.drawing import draw
from datamodules.worlds.streets.scenes import STYLES, Scene, Thing, plan
from datamodules.worlds.streets.world import APPEARANCES, SPLITS, Streets, contact_sheet

ID = {name: index for index, name in enumerate(STREET.classes)}

DIGESTS = {
    ("game", 0): (3533091914, 2157103185),
    ("game", 513): (483849112, 68408861),
    ("city", 1): (885784431, 1109058475),
    ("night", 2): (1754610487, 3904295244),
    ("fog", 3): (118801487, 1377910080),
}
"""CRC-32 of label and image of some samples: a machine that draws differently shows here."""


def crc(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).tobytes())


@pytest.fixture(scope="module")
def samples() -> list[tuple[np.ndarray, np.ndarray]]:
    world = Streets("city", length=200)
    return [world[index] for index in range(200)]


@pytest.mark.parametrize("appearance, index", DIGESTS)
def test_samples_are_the_same_on_every_machine(appearance, index):
    image, label = Streets(appearance)[index]
    assert (crc(label), crc(image)) == DIGESTS[appearance, index]


def test_a_sample_depends_on_nothing_but_its_index():
    world = Streets("night", length=50)
    image, label = world[7]
    world[31], Streets("game", size=(64, 96))[0]
    copy = pickle.loads(pickle.dumps(world))
    for again in (world[7], copy[7], Streets("night", length=8)[7], world[-43], world[np.int64(7)]):
        assert np.array_equal(image, again[0]) and np.array_equal(label, again[1])


def test_a_fresh_process_draws_the_same():
    drawn = "from datamodules.worlds.streets.world import Streets; sample = Streets('fog')[5]"
    code = f"import zlib; {drawn}; print([zlib.crc32(part) for part in sample])"
    root = Path(__file__).parents[3]
    told = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout
    assert told.strip() == str([crc(array) for array in Streets("fog")[5]])


def test_appearances_share_labels_and_differ_in_the_picture():
    worlds = [Streets(name, split="val") for name in APPEARANCES]
    for index in range(5):
        images, labels = zip(*(world[index] for world in worlds), strict=True)
        assert all(np.array_equal(labels[0], label) for label in labels)
        for a in range(len(images)):
            for b in range(a):
                assert np.abs(images[a].astype(int) - images[b]).mean() > 8


def test_seeds_splits_and_indices_give_different_scenes():
    drawn = [
        crc(Streets("game", split, seed=seed)[index][1]) for split in SPLITS for seed in (0, 1) for index in range(8)
    ]
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize("size", [(32, 48), (96, 192), (128, 256), (120, 161), (256, 512)])
@pytest.mark.parametrize("appearance", APPEARANCES)
def test_any_size(appearance, size):
    world = Streets(appearance, size=size)
    for index in range(2):
        image, label = world[index]
        assert image.shape == (*size, 3) and image.dtype == np.uint8 and image.std() > 8
        assert label.shape == size and label.dtype == np.uint8 and label.max() < len(STREET)


def test_a_size_shows_the_same_scene_as_another():
    small, large = Streets(size=(96, 192))[3][1], Streets(size=(288, 576))[3][1]
    assert (cv2.resize(large, (192, 96), interpolation=cv2.INTER_NEAREST_EXACT) == small).mean() > 0.85


def test_all_classes_occur_about_as_often_as_in_a_street(samples):
    labels = np.stack([label for _, label in samples])
    pixels = np.bincount(labels.ravel(), minlength=19) / labels.size
    images = np.array([(labels == index).any((1, 2)).mean() for index in range(19)])
    assert images.min() >= 0.05, dict(zip(STREET.classes, images, strict=True))
    for name, low, high in [
        ("road", 0.22, 0.40), ("building", 0.15, 0.30), ("vegetation", 0.08, 0.22), ("sky", 0.05, 0.16),
        ("car", 0.04, 0.12), ("person", 0.004, 0.03), ("traffic sign", 0.002, 0.02), ("train", 0.002, 0.03),
    ]:  # fmt: skip
        assert low < pixels[ID[name]] < high, name


def test_the_sky_is_above_and_the_road_below(samples):
    rows = np.arange(128)[:, None] + np.zeros((1, 256))
    for _, label in samples:
        road, sky = rows[label == ID["road"]], rows[label == ID["sky"]]
        assert road.min() > 128 * 0.38 and (label[-1] == ID["road"]).any()
        assert sky.size == 0 or sky.max() < road.min() + 4


def lone(*things: Thing) -> Scene:
    """An empty straight street with only these on it."""
    scene = plan(Dice(1, 2, 3))
    camera = scene.camera._replace(x=0.0, vanishing=0.5, curve=0.0)
    return scene._replace(camera=camera, lots=(), things=things, end=0.0, junction=(0.0, 0.0), island=0.0, road=8.0)


def box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what is set."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return columns[0], rows[0], columns[-1], rows[-1]


@pytest.mark.parametrize("kind, name", [("car", "car"), ("bus", "bus"), ("person", "person"), ("truck", "truck")])
def test_what_is_twice_as_far_is_half_as_large_and_stands_higher(kind, name):
    boxes = []
    for z in (10.0, 20.0):
        boxes.append(box(draw(lone(Thing(kind, 0.0, z, "away", 1.0, 99)), (256, 512)).label == ID[name]))
    near, far = boxes
    assert 1.7 < (near[3] - near[1] + 1) / (far[3] - far[1] + 1) < 2.3
    assert 1.7 < (near[2] - near[0] + 1) / (far[2] - far[0] + 1) < 2.3
    assert near[3] > far[3]


def test_the_nearer_thing_hides_the_farther():
    bus, car = Thing("bus", 0.0, 20.0, "away", 1.0, 5), Thing("car", 0.0, 8.0, "away", 1.0, 5)
    alone = draw(lone(car), (128, 256)).label == ID["car"]
    for order in ((bus, car), (car, bus)):
        both = draw(lone(*order), (128, 256)).label
        assert np.array_equal(both == ID["car"], alone)
        assert 0 < (both == ID["bus"]).sum() < (draw(lone(bus), (128, 256)).label == ID["bus"]).sum()


@pytest.mark.parametrize("kind, vehicle", [("cyclist", "bicycle"), ("biker", "motorcycle")])
@pytest.mark.parametrize("facing", ["away", "toward", "left", "right"])
def test_a_rider_sits_on_top(kind, vehicle, facing):
    label = draw(lone(Thing(kind, 0.0, 9.0, facing, 1.0, 7)), (256, 512)).label
    rider, below = box(label == ID["rider"]), box(label == ID[vehicle])
    assert rider[1] < below[1] and rider[3] < below[3] + 2
    assert below[0] <= (rider[0] + rider[2]) / 2 <= below[2]


@pytest.mark.parametrize("appearance", APPEARANCES)
def test_the_picture_changes_where_the_label_says_the_thing_is(appearance):
    """Draw with and without a bus: away from its outline, its shadow and its halo, nothing else may change."""
    from datamodules.worlds.streets.painting import develop

    with_bus, without = (draw(lone(*things), (128, 256)) for things in ((Thing("bus", 0.0, 12.0, "away", 1.0, 4),), ()))
    images = [develop(drawing, APPEARANCES[appearance], 1).astype(int) for drawing in (with_bus, without)]
    changed = np.abs(images[0] - images[1]).sum(-1) > 24
    bus = with_bus.label == ID["bus"]
    assert changed[bus].mean() > 0.7
    left, top = box(bus)[:2]
    assert not changed[:, : left - 60].any() and not changed[: top - 20].any()


def test_edges_of_the_picture_follow_edges_of_the_label(samples):
    """Independent of how either is drawn: gradients are steeper on the label's boundaries than off them."""
    ratios = []
    for image, label in samples[:20]:
        grey = image.astype(int).sum(-1)
        steps = np.abs(np.diff(grey, axis=1))
        boundary = np.diff(label.astype(int), axis=1) != 0
        ratios.append(steps[boundary].mean() / steps[~boundary].mean())
    assert np.median(ratios) > 2


def test_colour_alone_does_not_tell_the_class(samples):
    """The best guess from a pixel's quantised colour, fitted on the very same pixels, stays far from right."""
    images, labels = (np.stack(part) for part in zip(*samples, strict=True))
    colours = (images // 32).astype(int) @ (64, 8, 1)
    table = np.zeros((512, 19), int)
    np.add.at(table, (colours.ravel(), labels.ravel()), 1)
    hits = np.zeros(19)
    for row in table:
        hits[row.argmax()] += row.max()
    assert (hits / table.sum(0)).mean() < 0.25


def test_every_style_of_street_is_planned():
    assert {plan(Dice(0, 0, index)).style for index in range(60)} == set(STYLES)


def test_errors():
    with pytest.raises(ValueError, match="game, city, night, fog"):
        Streets("noon")
    with pytest.raises(ValueError, match="train, val, test"):
        Streets(split="dev")
    with pytest.raises(ValueError, match="32"):
        Streets(size=(16, 256))
    world = Streets(length=3)
    assert len(list(world)) == len(world) == 3
    for index in (3, -4):
        with pytest.raises(IndexError):
            world[index]


def test_names_and_labels():
    world = Streets("fog")
    assert world.name == "streets-fog" and world.label_space is STREET and world.evaluated == tuple(range(19))


def test_contact_sheet():
    assert contact_sheet(range(2), (32, 64)).shape == (64, 64 * (len(APPEARANCES) + 1), 3)
