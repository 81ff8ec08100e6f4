"""Robustness measures against hand-worked numbers and literal formulas; the evaluator against networks whose answers
are known."""

import dataclasses
import random
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics.functional.classification import multiclass_calibration_error

from datamodules.classification.transforms import EvaluationImage, normalised
from datamodules.corruptions.appearance_shifts import APPEARANCE_SHIFTS
from datamodules.corruptions.imagenet_c import CORRUPTIONS, corrupt
from datamodules.corruptions.imagenet_p import NOISES, PERTURBATIONS
from datamodules.segmentation.transforms import MEAN, STD
from lightning_modules.classification.module import ClassificationModule
from lightning_modules.classification.recipe_images import evaluation_image
from lightning_modules.classification.recipes import CLASSIFICATION_RECIPES
from lightning_modules.robustness import views
from lightning_modules.robustness.alexnet import ALEXNET_CLEAN_ERROR, ALEXNET_ERRORS, ALEXNET_FLIP_PROBABILITIES
from lightning_modules.robustness.evaluator import PARTS, EvaluatedNetwork, evaluate
from lightning_modules.robustness.measures import (
    calibration_error,
    corruption_errors,
    flip_probability,
    mean_corruption_error,
    mean_flip_rate,
    ranking,
    relative_mean_corruption_error,
    top5_distance,
)
from lightning_modules.robustness.summary import compares_with_alexnet, summary

PUBLISHED_AVERAGES = {
    "gaussian_noise": 0.886, "shot_noise": 0.894, "impulse_noise": 0.923, "defocus_blur": 0.820, "glass_blur": 0.826,
    "motion_blur": 0.786, "zoom_blur": 0.798, "snow": 0.867, "frost": 0.827, "fog": 0.819, "brightness": 0.565,
    "contrast": 0.853, "elastic_transform": 0.646, "pixelate": 0.718, "jpeg_compression": 0.607,
}  # fmt: skip
"""AlexNet's average errors in appendix C of Hendrycks and Dietterich, ICLR 2019."""


class Images:
    """A classification set of given images."""

    def __init__(self, images, labels, classes=3):
        self.images, self.labels = images, np.asarray(labels, np.int64)
        self.classes = tuple(f"class {i}" for i in range(classes))

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], int(self.labels[index])


class Brightest(nn.Module):
    """Predicts the channel with the highest mean, over the whole image or at one pixel."""

    def __init__(self, pixel=None, scale=1.0):
        super().__init__()
        self.pixel, self.scale = pixel, nn.Parameter(torch.tensor(scale))
        self.norm = nn.BatchNorm2d(3)  # has a mode that must be left as it was

    def forward(self, images):
        images = self.norm(images)
        return self.scale * (images.mean((2, 3)) if self.pixel is None else images[..., self.pixel, self.pixel])


def evaluated(net, name="net", size=16, resize=None, classes=3, mean=(0.5, 0.5, 0.5)):
    return EvaluatedNetwork(
        name, net, size, resize, mean, (0.25, 0.25, 0.25), tuple(f"class {i}" for i in range(classes))
    )


def noise(count, size=16, seed=0):
    rng = np.random.default_rng(seed)
    return Images(list(rng.integers(0, 256, (count, size, size, 3), np.uint8)), np.arange(count) % 3)


def values(rows, **chosen):
    return [row["value"] for row in rows if all(row[key] == value for key, value in chosen.items())]


# the formulas


def test_alexnet_errors_average_to_the_published_ones():
    assert {name: round(float(np.mean(errors)), 3) for name, errors in ALEXNET_ERRORS.items()} == pytest.approx(
        PUBLISHED_AVERAGES, abs=6e-4
    )
    assert tuple(ALEXNET_ERRORS) == CORRUPTIONS and set(ALEXNET_FLIP_PROBABILITIES) == set(PERTURBATIONS)


def test_corruption_error_by_hand():
    # fog: (0.1 + 0.2 + 0.3 + 0.4 + 0.5) / (0.67474 + 0.7605 + 0.84378 + 0.8726 + 0.945) = 1.5 / 4.09662
    # snow: 5 x 0.4 / (0.71726 + 0.88392 + 0.86468 + 0.9187 + 0.94952) = 2 / 4.33408
    found = corruption_errors({"fog": (0.1, 0.2, 0.3, 0.4, 0.5), "snow": (0.4,) * 5})
    assert found == pytest.approx({"fog": 1.5 / 4.09662, "snow": 2 / 4.33408}, rel=1e-12)


def test_alexnet_is_one():
    assert mean_corruption_error(ALEXNET_ERRORS) == 1
    assert relative_mean_corruption_error(ALEXNET_ERRORS, ALEXNET_CLEAN_ERROR) == pytest.approx(1, rel=1e-12)
    assert mean_flip_rate(ALEXNET_FLIP_PROBABILITIES) == 1
    assert mean_flip_rate({name: p / 2 for name, p in ALEXNET_FLIP_PROBABILITIES.items()}) == pytest.approx(0.5)


def test_relative_mce_leaves_the_clean_error_out():
    worse = {name: tuple(e + 0.1 for e in errors) for name, errors in ALEXNET_ERRORS.items()}
    assert mean_corruption_error(worse) > 1.1
    assert relative_mean_corruption_error(worse, ALEXNET_CLEAN_ERROR + 0.1) == pytest.approx(1)
    unmoved = {name: (0.2,) * 5 for name in ALEXNET_ERRORS}  # corruption costs nothing
    assert relative_mean_corruption_error(unmoved, 0.2) == pytest.approx(0, abs=1e-12)


def test_no_mean_over_less_than_all():
    without = {name: errors for name, errors in ALEXNET_ERRORS.items() if name != "fog"}
    for measure in (mean_corruption_error, lambda errors: relative_mean_corruption_error(errors, 0.4)):
        with pytest.raises(ValueError, match="fog missing"):
            measure(without)
        with pytest.raises(ValueError, match="5 severities, not 4"):
            measure(ALEXNET_ERRORS | {"fog": (0.1,) * 4})
    with pytest.raises(ValueError, match="'spatter' is none"):
        corruption_errors({"spatter": (0.1,) * 5})
    with pytest.raises(ValueError, match="mFR is a mean over"):
        mean_flip_rate({"tilt": 0.1})


def orders(*tops, classes=4):
    """A sequence of rankings with these classes on top, as (1, frames, classes)."""
    return np.array([[[top, *(c for c in range(classes) if c != top)] for top in tops]])


def test_flip_probability_by_hand():
    order = orders(0, 0, 1, 0)
    assert flip_probability(order, against_first=False) == pytest.approx([2 / 3])
    assert flip_probability(order, against_first=True) == pytest.approx([1 / 3])
    assert flip_probability(orders(2, 2, 2), against_first=False) == [0]


def literal_distance(before, after):
    """The paper's double sum."""
    distance = 0
    for i in range(1, min(5, len(before)) + 1):
        rank = list(after).index(before[i - 1]) + 1
        distance += sum(1 <= j - 1 <= 5 for j in range(min(i, rank) + 1, max(i, rank) + 1))
    return distance


@pytest.mark.parametrize("classes", [3, 5, 6, 9])
def test_top5_distance_is_the_papers_double_sum(classes):
    rng = np.random.default_rng(classes)
    order = np.stack([[rng.permutation(classes) for _ in range(4)] for _ in range(6)])
    for against_first in (False, True):
        pairs = [(0, 1), (0, 2), (0, 3)] if against_first else [(0, 1), (1, 2), (2, 3)]
        meant = [np.mean([literal_distance(frames[a], frames[b]) for a, b in pairs]) for frames in order]
        np.testing.assert_allclose(top5_distance(order, against_first), meant, rtol=1e-12)


def test_top5_distance_by_hand():
    first = list(range(8))
    swapped_top = [1, 0, 2, 3, 4, 5, 6, 7]  # two classes move by one place
    fifth_leaves = [0, 1, 2, 3, 5, 4, 6, 7]  # to sixth place, whatever enters
    top_falls = [1, 2, 3, 4, 5, 6, 7, 0]  # five places down and out, four classes up by one
    beyond = [0, 1, 2, 3, 4, 7, 6, 5]
    for other, meant in ((first, 0), (swapped_top, 2), (fifth_leaves, 1), (top_falls, 9), (beyond, 0)):
        assert top5_distance(np.array([[first, other]]), against_first=False) == [meant]


def test_ranking_gives_ties_to_the_first_class():
    assert ranking(np.array([0.2, 0.7, 0.7, 0.1])).tolist() == [1, 2, 0, 3]


def test_calibration_error_by_bins():
    rng = np.random.default_rng(0)
    confidences, correct = rng.uniform(0.1, 0.999, 500), rng.random(500) < 0.6
    meant = 0.0
    for m in range(15):
        inside = (confidences > m / 15) & (confidences <= (m + 1) / 15)
        if inside.any():
            meant += inside.mean() * abs(correct[inside].mean() - confidences[inside].mean())
    assert calibration_error(confidences, correct) == pytest.approx(meant, rel=1e-12)
    scores = np.stack([confidences, 1 - confidences], 1)
    sure = np.maximum(confidences, 1 - confidences)
    labels = np.where(rng.random(500) < 0.8, scores.argmax(1), 1 - scores.argmax(1))
    theirs = multiclass_calibration_error(torch.tensor(scores), torch.tensor(labels), 2, n_bins=15)
    assert calibration_error(sure, labels == scores.argmax(1)) == pytest.approx(theirs.item(), abs=1e-6)


def test_calibration_error_keeps_certainty_in_the_last_bin():
    # |3/4 - (1 + 1 + 0.96 + 0.96) / 4|; with 1 in a bin of its own it would be (2 |1/2 - 1| + 2 |1 - 0.96|) / 4
    assert calibration_error([1, 1, 0.96, 0.96], [True, False, True, True]) == pytest.approx(0.23)
    assert calibration_error([1.0, 1.0], [True, True]) == 0


# what networks are shown


@pytest.mark.parametrize(("size", "resize", "shape"), [(16, None, (16, 16)), (16, 20, (31, 27)), (16, None, (24, 40))])
def test_crop_is_what_training_evaluates_by(size, resize, shape):
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
    crop = views.EvaluationCrop(size, resize)(image)
    assert crop.shape == (size, size, 3) and crop.dtype == np.uint8
    torch.testing.assert_close(normalised(crop), EvaluationImage(size, resize)(image), rtol=0, atol=0)


def positions(size):
    """An image whose values are the positions of its pixels."""
    rows, columns = np.mgrid[:size, :size]
    return np.stack([rows, columns, rows * 0], -1).astype(np.uint8)


def test_two_crops_have_offsets_of_their_own_in_range():
    view = views.two_crops(views.EvaluationCrop(28, 32), seed=3)
    corners = np.array([view(positions(32), index)[:, 0, 0, :2] for index in range(0, 2400, 8)])
    assert corners.min() == 0 and corners.max() == 3  # the margin is 4 of 32: offsets are 0 to 3
    assert {tuple(c) for c in corners.reshape(-1, 2)} == {(i, j) for i in range(4) for j in range(4)}
    assert np.ptp(corners[:, 0] - corners[:, 1], axis=0).min() > 0  # the two crops of a pair differ in both directions
    np.testing.assert_array_equal(view(positions(32), 7), view(positions(32), 7))
    other = views.two_crops(views.EvaluationCrop(28, 32), seed=4)
    assert any((view(positions(32), i) != other(positions(32), i)).any() for i in range(5))


def test_two_crops_of_eight_images_in_a_row_are_cut_alike():
    view = views.two_crops(views.EvaluationCrop(224, 256), seed=0)
    offsets = [tuple(view(positions(256), index)[:, 0, 0, :2].ravel()) for index in range(48)]
    assert [len(set(offsets[start : start + 8])) for start in range(0, 48, 8)] == [1] * 6
    assert len(set(offsets)) == 6


def test_sequences_are_cut_from_a_larger_picture():
    """As in ImageNet-P: shorter side 256, centre crop 224; frame 20 of `translate` is not shifted."""
    image = np.random.default_rng(0).integers(0, 256, (256, 300, 3), np.uint8)
    clip = views.sequence(views.EvaluationCrop(224, 232), "translate", None, seed=0)(image, 3)
    assert clip.shape == (41, 224, 224, 3)
    for frame in (0, 20, 40):  # the other way than the picture moves; it has 38 pixels to spare each way
        assert np.array_equal(clip[frame], image[16:240, 38 + 20 - frame : 262 + 20 - frame])
    small = views.sequence(views.EvaluationCrop(32), "scale", 2, seed=0)(image[:32, :32], 3)
    assert small.shape == (2, 32, 32, 3)


def test_two_crops_at_imagenets_size():
    view = views.two_crops(views.EvaluationCrop(224, 232), seed=0)  # resized to 256 whatever it is evaluated at
    offsets = np.array([view(positions(256), index)[:, 0, 0, :2] for index in range(0, 1600, 8)])
    assert offsets.min() == 0 and offsets.max() == 31


def test_images_of_the_networks_size_are_padded_by_reflection():
    view = views.two_crops(views.EvaluationCrop(16), seed=0)
    image = positions(16)
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="reflect")
    possible = [padded[i : i + 16, j : j + 16].tobytes() for i in range(2) for j in range(2)]
    shown = {crop.tobytes() for index in range(0, 480, 8) for crop in view(image, index)}
    assert shown == set(possible)


def test_spread_takes_turns_among_the_classes():
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 0, 2, 5])
    assert views.spread(labels, 4).tolist() == [0, 4, 6, 9]
    assert views.spread(labels, 7).tolist() == [0, 1, 4, 5, 6, 8, 9]
    assert views.spread(labels, 99).tolist() == list(range(10))
    assert Counter(labels[views.spread(np.repeat(labels, 3), 8) // 3].tolist()) == {0: 2, 1: 2, 2: 2, 5: 2}


# the evaluator


def test_clean_measures_of_a_known_network():
    samples = noise(12)
    net = Brightest(scale=3.0)
    rows = evaluate([evaluated(net)], samples, ["clean"], batch_size=5)
    images = np.stack(samples.images) / 255
    scores = 3 * ((images - 0.5) / 0.25).mean((1, 2)) / np.sqrt(1 + 1e-5)  # untrained batch norm divides by that
    likely = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    right = scores.argmax(1) == samples.labels
    (top1,), (nll,), (ece,) = (values(rows, measure=name) for name in ("top1", "nll", "ece"))
    assert 0 < right.mean() < 1 and top1 == right.mean()
    assert nll == pytest.approx(-np.log(likely[range(12), samples.labels]).mean(), rel=1e-5)
    assert ece == pytest.approx(calibration_error(likely.max(1), right), rel=1e-4)
    assert not values(rows, measure="top5")  # three classes: always all right
    assert {(row["network"], row["part"], row["condition"], row["severity"]) for row in rows} == {
        ("net", "clean", "clean", None)
    }


def test_each_network_gets_its_own_normalisation():
    blue = Images([np.full((16, 16, 3), (10, 20, 200), np.uint8)], [2])
    dark_mean = evaluated(Brightest(), "plain"), evaluated(Brightest(), "against blue", mean=(0.0, 0.0, 1.0))
    rows = evaluate(dark_mean, blue, ["clean"])
    assert values(rows, network="plain", measure="top1") == [1]
    assert values(rows, network="against blue", measure="top1") == [0]


def test_errors_under_corruption_are_those_of_the_corrupted_images():
    samples = noise(6, size=24)
    rows = evaluate([evaluated(Brightest(), size=20, resize=24)], samples, ["corruptions"], severities=(2, 5), seed=9)
    assert len(rows) == 15 * 2 and {row["measure"] for row in rows} == {"error"}
    for name in ("contrast", "fog"):
        for severity in (2, 5):
            shown = [
                corrupt(image[2:22, 2:22], name, severity, views.image_seed(9, i))
                for i, image in enumerate(samples.images)
            ]
            wrong = np.stack(shown).mean((1, 2)).argmax(1) != samples.labels
            assert values(rows, condition=name, severity=severity) == [wrong.mean()]


def test_shifts_are_evaluated_one_by_one():
    samples = noise(9)
    rows = evaluate([evaluated(Brightest())], samples, ["shifts"])
    assert [row["condition"] for row in rows] == list(APPEARANCE_SHIFTS)
    for name, shift in APPEARANCE_SHIFTS.items():
        tops = np.stack([shift(image) for image in samples.images]).mean((1, 2)).argmax(1)
        assert values(rows, condition=name) == [(tops == samples.labels).mean()]


def test_noise_is_compared_with_the_first_frame(monkeypatch):
    def frames(image, name, seed, count, size):
        return np.stack([np.full((16, 16, 3), colour, np.uint8) for colour in ((9, 0, 0), (0, 9, 0), (0, 0, 9))])

    monkeypatch.setattr(views, "perturbed", frames)
    changed_once = lambda *sequence: frames(*sequence)[[0, 1, 1]]  # noqa: E731
    rows = evaluate([evaluated(Brightest())], noise(2), ["perturbations"])
    assert {row["value"] for row in rows if row["measure"] == "flip"} == {1}
    monkeypatch.setattr(views, "perturbed", changed_once)
    rows = evaluate([evaluated(Brightest())], noise(2), ["perturbations"])
    flips = {row["condition"]: row["value"] for row in rows if row["measure"] == "flip"}
    assert flips == {name: 1 if name in NOISES else 0.5 for name in PERTURBATIONS}


def test_consistency_of_a_network_that_knows_colours_alone():
    colours = Images([np.full((16, 16, 3), c, np.uint8) for c in ((200, 1, 1), (1, 200, 1), (1, 1, 200))], [0, 1, 2])
    rows = evaluate([evaluated(Brightest())], colours, ["consistency"])
    assert values(rows, measure="consistency") == [1]


def test_consistency_does_not_depend_on_the_batch():
    samples = noise(40, size=18)
    one_pixel = evaluated(Brightest(pixel=5), resize=18)
    found = [
        values(evaluate([one_pixel], samples, ["consistency"], batch_size=size, workers=workers), part="consistency")
        for size, workers in ((1, 0), (7, 0), (64, 0), (16, 2))
    ]
    assert all(each == found[0] for each in found) and 0.2 < found[0][0] < 0.95
    assert values(evaluate([one_pixel], samples, ["consistency"], seed=1), part="consistency") != found[0]


def test_networks_side_by_side_score_as_alone_and_share_the_corruptions(monkeypatch):
    samples, calls = noise(4), Counter()

    def counted(image, name, severity, seed):
        calls[name, severity] += 1
        return corrupt(image, name, severity, seed)

    monkeypatch.setattr(views, "corrupt", counted)
    networks = [evaluated(Brightest(), "a"), evaluated(Brightest(pixel=3), "b")]
    parts = ["clean", "corruptions", "perturbations", "consistency"]
    together = evaluate(networks, samples, parts, severities=(1,), frames=2)
    assert calls == {(name, 1): 4 for name in CORRUPTIONS}
    alone = [row for one in networks for row in evaluate([one], samples, parts, severities=(1,), frames=2)]
    assert together == alone


def test_networks_of_several_sizes_are_evaluated_each_at_its_own():
    samples = noise(5, size=32)
    networks = [evaluated(Brightest(pixel=0), "large", 32), evaluated(Brightest(pixel=0), "small", 16, 32)]
    rows = evaluate(networks, samples, ["clean"])
    tops = [np.stack(samples.images)[:, at, at].argmax(1) for at in (0, 8)]
    for name, top in zip(("large", "small"), tops, strict=True):
        assert values(rows, network=name, measure="top1") == [(top == samples.labels).mean()]


def test_nothing_is_left_behind(capsys):
    net = Brightest().train()
    net.norm.eval()  # one part was in another mode
    before = {key: value.clone() for key, value in net.state_dict().items()}
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    evaluate([evaluated(net)], noise(3), PARTS, severities=(1,), frames=2, progress=True)
    evaluate([evaluated(net)], noise(3), ["consistency"], workers=1)
    assert "evaluated 100 % (consistency)" in capsys.readouterr().out  # a log, not a terminal
    drawn = torch.rand(2), random.random(), np.random.rand()
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    assert torch.equal(drawn[0], torch.rand(2)) and drawn[1:] == (random.random(), np.random.rand())
    assert net.training and not net.norm.training and net.scale.requires_grad
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    with pytest.raises(ValueError, match="for its 4 classes"):
        evaluate([evaluated(net, classes=4)], noise(3), ["clean"])
    assert net.training and not net.norm.training  # after an error too


def test_published_files_take_the_place_of_generated_ones(monkeypatch):
    monkeypatch.setattr(views, "corrupt", None)  # would raise when called
    monkeypatch.setattr(views, "perturbed", None)
    asked, videos = [], Images([np.zeros((3, 20, 20, 3), np.uint8)] * 2, [0, 1])

    def published(name):
        asked.append(name)
        return videos if name.startswith("imagenet-p/") else noise(4)

    rows = evaluate(
        [evaluated(Brightest())], noise(3), ["corruptions", "perturbations"], severities=(3,), published=published
    )
    assert asked == [f"imagenet-c/{name}/3" for name in CORRUPTIONS] + [f"imagenet-p/{name}" for name in PERTURBATIONS]
    assert len(rows) == 15 + 2 * 10 and set(values(rows, measure="flip")) == {0}


def test_so_many_images_spread_over_the_classes():
    samples = Images(
        [np.full((16, 16, 3), c, np.uint8) for c in ((9, 0, 0),) * 8 + ((0, 9, 0), (0, 0, 9))], [0] * 8 + [0, 2]
    )
    (top1,) = values(evaluate([evaluated(Brightest())], samples, ["clean"]), measure="top1")
    assert top1 == 0.9
    (top1,) = values(evaluate([evaluated(Brightest())], samples, ["clean"], images=2), measure="top1")
    assert top1 == 1  # one of class 0, one of class 2


def test_what_cannot_be_evaluated_is_refused():
    net = Brightest()
    for parts, settings, said in (
        (["clear"], {}, "unknown part 'clear'"),
        (["clean"], {"severities": (0, 1)}, "severities are of 1 to 5"),
        (["clean"], {"severities": ()}, "none at all"),
    ):
        with pytest.raises(ValueError, match=said):
            evaluate([evaluated(net)], noise(2), parts, **settings)
    with pytest.raises(ValueError, match="one name"):
        evaluate([evaluated(net), evaluated(net)], noise(2), ["clean"])
    with pytest.raises(ValueError, match="no images"):
        evaluate([evaluated(net)], Images([], []), ["clean"])


# what a table shows


def rows_of(errors, clean=None, flips=None):
    rows = [
        {"part": "corruptions", "condition": name, "severity": s + 1, "measure": "error", "value": value}
        for name, own in errors.items()
        for s, value in enumerate(own)
    ]
    if clean is not None:
        rows.append({"part": "clean", "condition": "clean", "severity": None, "measure": "top1", "value": 1 - clean})
    for name, value in (flips or {}).items():
        rows.append({"part": "perturbations", "condition": name, "severity": None, "measure": "flip", "value": value})
    return rows


def test_summary_divides_by_alexnet_only_where_it_may():
    rows = rows_of(ALEXNET_ERRORS, ALEXNET_CLEAN_ERROR, ALEXNET_FLIP_PROBABILITIES)
    plain = {
        "top-1": 56.522,
        "mean error, corrupted": 100 * np.mean(list(ALEXNET_ERRORS.values())),
        "flip probability": 100 * np.mean(list(ALEXNET_FLIP_PROBABILITIES.values())),
    }
    assert summary(rows) == pytest.approx(plain)
    assert summary(rows, alexnet=True) == pytest.approx(plain | {"mCE": 100, "relative mCE": 100, "mFR": 100})


def test_summary_has_no_mce_of_less_than_everything():
    one_less = {name: errors[:4] if name == "fog" else errors for name, errors in ALEXNET_ERRORS.items()}
    assert "mCE" not in summary(rows_of(one_less), alexnet=True)
    assert "mCE" not in summary(rows_of({"fog": ALEXNET_ERRORS["fog"]}), alexnet=True)
    found = summary(rows_of(ALEXNET_ERRORS), alexnet=True)
    assert "mCE" in found and "relative mCE" not in found  # no clean error to take off
    assert "mFR" not in summary(rows_of({}, flips={"tilt": 0.1}), alexnet=True)
    assert summary([]) == {}


def test_only_imagenets_classes_at_224_compare_with_alexnet():
    wnids = tuple(f"n{i:08d}" for i in range(1000))
    everything = np.arange(1000)

    def network(size=224, classes=wnids):
        return EvaluatedNetwork("net", nn.Identity(), size, None, MEAN, STD, classes)

    assert compares_with_alexnet(network(), everything)
    assert not compares_with_alexnet(network(), everything[:999])  # an image of each class at least
    assert not compares_with_alexnet(network(size=160), everything)
    assert not compares_with_alexnet(network(classes=tuple(map(str, range(1000)))), everything)
    assert not compares_with_alexnet(network(classes=wnids[:10]), everything)


def test_a_trained_network_is_evaluated_on_images_as_its_recipe_has_them():
    recipe = dataclasses.replace(CLASSIFICATION_RECIPES["bin-cifar"], backbone="cifar_resnet8", width=0.25)
    evaluated = EvaluatedNetwork.trained("x", ClassificationModule(recipe, "bn", ("a", "b"), ["y"]))
    assert (evaluated.mean, evaluated.std) == ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
    assert (evaluated.size, evaluated.resize, evaluated.classes, evaluated.squash) == (32, None, ("a", "b"), False)
    parts = {"image_size": 28, "resize": 32, "squash": True, "interpolation": "bicubic"}
    module = ClassificationModule(dataclasses.replace(recipe, **parts), "bn", ("a", "b"), ["y"])
    image = np.random.default_rng(0).integers(0, 256, (75, 100, 3), np.uint8)
    crop = EvaluatedNetwork.trained("x", module).crop(image)
    mean, std = (np.array(values, np.float32) for values in (evaluated.mean, evaluated.std))
    expected = evaluation_image(module.recipe)(image).permute(1, 2, 0).numpy() * std + mean
    np.testing.assert_allclose(crop / 255, expected, atol=1e-6)
