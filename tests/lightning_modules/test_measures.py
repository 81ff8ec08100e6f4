"""Measures: how values are shown, which direction is better, and the error for unknown ones."""

import json
import subprocess
import sys

import pytest

from lightning_modules import measures
from lightning_modules.measures import (
    Measure,
    families,
    find_measure,
    headline_of,
    measure_of,
    measures_from_plain,
    measures_to_plain,
    register_measure,
    registered,
)


@pytest.fixture
def own(monkeypatch) -> Measure:
    """A measure of a user's own task: a distance, where lower is better."""
    monkeypatch.setattr(measures, "_REGISTRY", registered())
    return register_measure(Measure("fid", "FID", "", better="lower", scale=1, digits=2))


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [("miou", 0.30125, "30.1"), ("top1", 1.0, "100.0"), ("loss", 2.30259, "2.303"), ("error", 0.2386, "23.9"),
     ("flip", -0.0001, "0.0"), ("top5_distance", 3.14159, "3.14"), ("miou", float("nan"), "–")],
)  # fmt: skip
def test_values_are_shown_in_their_unit(name, value, text):
    assert measure_of(name).text(value) == text


def test_direction_and_unit():
    lower = {"loss", "nll", "ece", "error", "flip", "top5_distance", "latency", "drop", "divergence"}
    higher = {"miou", "iou/*", "top1", "top5", "chance", "consistency"}
    found = {name: measure.smaller_is_better for name, measure in registered().items()}  # and those of other tests
    assert {name: found.get(name) for name in lower | higher} == dict.fromkeys(lower, True) | dict.fromkeys(
        higher, False
    )
    assert measure_of("miou").axis == "mIoU, per cent" and measure_of("loss").axis == "loss, nats"
    assert not measure_of("loss").is_share and measure_of("top1").is_share
    with pytest.raises(ValueError, match="measure x: better is higher or lower, not 'up'"):
        Measure("x", "X", better="up")


def test_a_member_of_a_family_has_its_own_name():
    road = measure_of("iou/traffic light")
    assert (road.name, road.label, road.better) == ("iou/traffic light", "IoU of traffic light", "higher")
    assert find_measure("ap/road") is None and find_measure("iou") is None
    assert families(["miou", "iou/road", "ap/road", "iou/sky"]) == {"iou": ["iou/road", "iou/sky"]}
    assert families(["ap/road"], ["ap/*", "map"]) == {"ap": ["ap/road"]}


def test_an_unknown_measure_is_one_sentence():
    with pytest.raises(ValueError, match="no measure is called 'fid': register it by register_measure, or") as error:
        measure_of("fid")
    assert "\n" not in str(error.value) and "miou" in str(error.value)


def test_a_task_registers_its_own(own):
    assert measure_of("fid") is own and measure_of("fid").text(12.345) == "12.35" and own.axis == "FID"
    assert headline_of(["loss", "top1", "fid"]) == "top1" and headline_of(["fid"]) == "fid" and headline_of([]) is None


def test_who_reads_a_run_need_not_know_its_measures(own):
    written = json.loads(json.dumps(measures_to_plain(["fid", "iou/*"])))
    del measures._REGISTRY["fid"]
    read = measures_from_plain(written)
    assert measure_of("fid", read) == own and measure_of("iou/road", read).label == "IoU of road"
    assert measures_from_plain([{**written[0], "of a later version": 1}])["fid"] == own


def test_they_load_without_what_is_heavy():
    code = "import sys, lightning_modules.measures\nprint({'torch', 'numpy', 'pandas'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
