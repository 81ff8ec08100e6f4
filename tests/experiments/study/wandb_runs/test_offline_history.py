"""What an offline run holds, read back: against what was logged, and against what W&B says of a damaged file."""

import json
import os
import re
import struct
import zlib
from pathlib import Path

import pytest
import wandb
from wandb.proto import wandb_internal_pb2 as pb

from experiments.study.endings import UsageError
from experiments.study.wandb_runs.offline_files import BLOCK, HEADER
from experiments.study.wandb_runs.offline_history import read_offline

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def offline(tmp_path_factory) -> Path:
    """A folder as of a training, with a run that W&B itself has written."""
    folder = tmp_path_factory.mktemp("sn-seed0")
    settings = wandb.Settings(silent=True)
    run = wandb.init(
        mode="offline", dir=folder, id="one", project="normshift", config={"norm": "sn"}, settings=settings
    )
    run.config.update({"lr": 0.1, "steps": [1, 2]})
    run.define_metric("layers/*", hidden=True)
    run.define_metric("layers/0", hidden=True)
    for row in range(5):
        run.log({"loss": 1 / (row + 1), "layers/0": row} | ({"top1": 0.5} if row == 3 else {}))
    run.log({"answers": wandb.Table(columns=["a", "b"], data=[[1, 2], [3, 4]]), "gates": wandb.Histogram([0, 0, 1])})
    run.summary["best"] = 0.75
    run.finish()
    return folder


def test_history_config_and_summary(offline):
    run = read_offline(offline, wait=60)
    assert (run.id, run.ended, run.damage) == ("one", True, "")
    assert run.history.index.name == "row" and run.history.index.tolist() == list(range(6))
    assert run.history["loss"].tolist()[:5] == [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5]
    assert run.history["top1"].dropna().to_dict() == {3: 0.5}
    assert run.config == {"norm": "sn", "lr": 0.1, "steps": [1, 2]}
    told = {key: value for key, value in run.summary.items() if not key.startswith("_")}
    assert {key: told[key] for key in ("loss", "top1", "layers/0", "best")} == {
        "loss": 1 / 5, "top1": 0.5, "layers/0": 4, "best": 0.75,
    }  # fmt: skip
    assert "layers/0" in run.hidden and "loss" not in run.hidden


def test_what_is_kept_as_files(offline):
    run = read_offline(offline, wait=60)
    last = run.rows[5]
    assert last["answers"]["_type"] == "table-file" and last["gates"]["_type"] == "histogram"
    assert sum(last["gates"]["values"]) == 3
    (table,) = run.media
    assert json.loads(table.read_text())["data"] == [[1, 2], [3, 4]]


def test_a_part_and_a_file_are_read_as_well(offline):
    (part,) = (offline / "wandb").glob("offline-run-*")
    (file,) = part.glob("*.wandb")
    assert read_offline(part, wait=60).rows == read_offline(str(file)).rows == read_offline(offline).rows


def test_wherever_a_file_ends_its_rows_before_are_read(offline, tmp_path):
    """Every length of a file that was cut: as many rows as its records hold, and a sentence on the rest."""
    whole = read_offline(offline, wait=60)
    (file,) = offline.rglob("*.wandb")
    data, copy = file.read_bytes(), tmp_path / "run-one.wandb"
    assert len(data) < BLOCK
    ends = list(ends_of_records(data))
    before = 0
    for length in range(7, len(data), 7):
        copy.write_bytes(data[:length])
        run = read_offline(copy)
        rows = len(run.rows)
        assert run.rows == dict(list(whole.rows.items())[:rows]) and rows >= before
        before = rows
        readable = max((end for end in ends if end <= length), default=0)
        assert bool(run.damage) == (length != readable)
        if run.damage and readable:
            assert f"damaged behind its first {readable:,} of {length:,} bytes: the rest is left out." in run.damage
    assert before == 6
    copy.write_bytes(b"")
    assert "nothing of it can be read" in read_offline(copy).damage


def ends_of_records(data: bytes):
    """Where the records of a file end that is shorter than a block, by the format's description."""
    place = len(HEADER)
    yield place
    while place < len(data):
        checksum, length, kind = struct.unpack("<IHB", data[place : place + 7])
        assert kind == 1 and checksum == zlib.crc32(data[place + 6 : place + 7 + length])
        place += 7 + length
        yield place


def test_a_flipped_byte_and_another_file(offline, tmp_path):
    (file,) = offline.rglob("*.wandb")
    data, copy = bytearray(file.read_bytes()), tmp_path / "run-one.wandb"
    data[len(data) // 2] ^= 1
    copy.write_bytes(data)
    run = read_offline(tmp_path)
    assert 0 < len(run.rows) < 7 and not run.ended and re.search(r"damaged behind its first [\d,]+ of", run.damage)
    copy.write_bytes(b"something else")
    run = read_offline(tmp_path)
    assert run.rows == {} and run.history.empty and "does not begin as W&B's files do" in run.damage


def written(folder: Path, records: list[pb.Record]) -> Path:
    """A part of the run `one`, in one block."""
    folder.mkdir(parents=True)
    content = HEADER
    for record in records:
        piece = record.SerializeToString()
        content += struct.pack("<IHB", zlib.crc32(b"\x01" + piece), len(piece), 1) + piece
    (folder / "run-one.wandb").write_bytes(content)
    return folder / "run-one.wandb"


def row(number: int, **values) -> pb.Record:
    record = pb.Record()
    record.history.step.num = number
    for key, value in values.items():
        record.history.item.add(nested_key=[key], value_json=json.dumps(value))
    return record


def test_parts_are_joined_in_their_order_and_each_row_is_there_once(tmp_path):
    """The second part begins within the first's rows, as after a torn end; names decide the order, not the disk."""
    setting, over = pb.Record(), pb.Record()
    setting.run.config.update.add(key="norm", value_json='"sn"')
    setting.run.config.update.add(nested_key=["_wandb", "version"], value_json="1")
    over.exit.exit_code = 0
    written(tmp_path / "wandb" / "offline-run-20260102_000000-one", [setting, row(2, a=2), row(3, a=3), over])
    first = written(tmp_path / "wandb" / "offline-run-20260101_000000-one", [setting, *(row(i, a=i) for i in range(3))])
    os.link(first, first.with_name("run-one.wandb.synced"))  # as `wandb sync` marks it
    run = read_offline(tmp_path)
    assert run.history["a"].to_dict() == {0: 0, 1: 1, 2: 2, 3: 3} and run.ended and run.config == {"norm": "sn"}
    assert not read_offline(first).ended


def test_entries_of_dicts_are_changed_and_removed(tmp_path):
    whole, part, gone = pb.Record(), pb.Record(), pb.Record()
    whole.summary.update.add(key="top1", value_json='{"max": 0.5, "min": 0.1}')
    part.summary.update.add(nested_key=["top1", "max"], value_json="0.6")
    part.summary.update.add(nested_key=["loss", "last"], value_json="2")
    gone.summary.remove.add(nested_key=["top1", "min"])
    gone.summary.remove.add(key="never")
    written(tmp_path / "run", [whole, part, gone])
    assert read_offline(tmp_path).summary == {"top1": {"max": 0.6}, "loss": {"last": 2}}


def test_folders_without_one_run_are_refused(tmp_path):
    with pytest.raises(UsageError, match="holds no W&B run: pass the folder of a training"):
        read_offline(tmp_path)
    for name in ("a", "b"):
        (tmp_path / f"run-{name}.wandb").write_bytes(HEADER)
    with pytest.raises(UsageError, match=r"holds 2 W&B runs \(a, b\)|\(b, a\): pass the folder of one training"):
        read_offline(tmp_path)


def test_the_example_of_the_page(offline, monkeypatch, tmp_path):
    """docs/wandb.md, as it stands there."""
    (tmp_path / "runs" / "seg_gta2city").mkdir(parents=True)
    (tmp_path / "runs" / "seg_gta2city" / "sn-seed0").symlink_to(offline, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?offline_history.*?)```", (ROOT / "docs" / "wandb.md").read_text(), re.DOTALL)[1]
    names: dict = {}
    exec(code.replace("train/loss", "loss").replace("final/target", "best"), names)
    assert names["run"].id == "one"
