"""gates.parquet stays small, and its values are exact."""

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision

from lightning_modules.gates.panels import sampled
from lightning_modules.gates.record import KEPT, GateRecord
from normshift import convert
from normshift.gate_reader import GateReader, GateSlot

WIDTH = 200
PLACES = [
    GateSlot("a", 0, "sn", "mean", ("in", "ln", "bn"), 0),
    GateSlot("b", 1, "bin", "rho", tuple(map(str, range(WIDTH))), 3),
    GateSlot("c", 2, "bin", "rho", tuple(map(str, range(KEPT))), 3 + WIDTH),
]


def drawn(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 1, 3 + WIDTH + KEPT).astype(np.float32)


def test_rows_say_what_was_given(tmp_path):
    record = GateRecord(PLACES, {"norm": "both", "seed": 3, "antialias": None})
    for epoch in range(3):
        record.add(epoch, 10 * epoch, drawn(epoch))
    record.write(tmp_path / "gates.parquet")
    frame = pd.read_parquet(tmp_path / "gates.parquet")
    columns = ["norm", "seed", "antialias", "epoch", "step", "layer", "depth", "statistic", "label", "value"]
    assert list(frame) == columns and len(frame) == 3 * (3 + KEPT + KEPT)
    assert set(frame["norm"]) == {"both"} and set(frame["seed"]) == {3} and frame["antialias"].isna().all()
    offsets = {place.layer: place.start for place in PLACES}
    for row in frame.sample(200, random_state=0).itertuples():
        place = ("in", "ln", "bn").index(row.label) if row.layer == "a" else int(row.label)
        assert row.value == drawn(row.epoch)[offsets[row.layer] + place] and row.step == 10 * row.epoch
    labels = frame[frame["epoch"] == 0].groupby("layer")["label"].agg(list)
    assert labels["a"] == ["in", "ln", "bn"] and labels["c"] == list(map(str, range(KEPT)))
    wide = [int(label) for label in labels["b"]]
    assert len(wide) == KEPT and wide[0] == 0 and wide[-1] == WIDTH - 1 and set(np.diff(wide)) == {3, 4}
    assert frame[frame["epoch"] == 1].groupby("layer")["label"].agg(list).equals(labels)
    last = record.last().astype({"antialias": object})
    pd.testing.assert_frame_equal(last, frame[frame["epoch"] == 2].reset_index(drop=True), check_dtype=False)


def test_a_frame_tells_whether_some_channels_stand_for_all():
    for places, some in ((PLACES, KEPT), (PLACES[::2], 0), (PLACES[:1], 0)):
        record = GateRecord(places, {})
        record.add(0, 0, drawn(0))
        assert sampled(record.last()) == some
        assert sampled(pd.concat([record.last()] * 2)) == some


def test_state_survives_a_round_trip(tmp_path):
    record, again = GateRecord(PLACES, {}), GateRecord(PLACES, {})
    for epoch in range(2):
        record.add(epoch, epoch, drawn(epoch))
    torch.save(record.state_dict(), tmp_path / "state")
    again.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    for name, one in (("one", record), ("two", again)):
        one.write(tmp_path / name)
    pd.testing.assert_frame_equal(*(pd.read_parquet(tmp_path / name) for name in ("one", "two")))
    with pytest.raises(ValueError, match="does not fit"):
        GateRecord(PLACES[:2], {}).load_state_dict(record.state_dict())


@pytest.mark.parametrize("norm", ["sn", "bin"])
def test_a_hundred_epochs_of_a_resnet101_are_below_five_megabytes(norm, tmp_path):
    """Gates that change randomly all the time compress badly."""
    with torch.device("meta"):
        network = convert(torchvision.models.resnet101(), norm)
    reader = GateReader(network)
    size = sum(len(place.labels) for place in reader.slots)
    assert size == {"sn": 104 * 6, "bin": 52672}[norm]
    record = GateRecord(reader.slots, {"arm": norm, "norm": norm, "backbone": "resnet101", "seed": 0})
    numbers = np.random.default_rng(0)
    values = np.full(size, 0.7, np.float32)
    for epoch in range(101):
        record.add(epoch, 1000 * epoch, values)
        values = np.clip(values + numbers.normal(0, 0.02, size), 0, 1).astype(np.float32)
    record.write(tmp_path / "gates.parquet")
    assert (tmp_path / "gates.parquet").stat().st_size < 5e6
