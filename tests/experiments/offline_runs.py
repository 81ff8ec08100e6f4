"""Reads what an offline W&B run has left on disk: the `.wandb` file that `wandb sync` sends.

The package has no reader of its own in Python any more. The file is a LevelDB log: a header of seven bytes, then
blocks of 32 KiB, in them records of a checksum, a length, a type (whole, first, middle, last) and bytes; put together
these are the protobuf records of `wandb.proto`.
"""

import json
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from wandb.proto import wandb_internal_pb2 as pb

BLOCK = 32768
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(folder: Path) -> list[pb.Record]:
    """The records of the one run below a folder, each with its checksum tested.

    `finish` asks W&B's own process to close the file, and returns before that has done so: on a busy machine the last
    block may be missing for a second, though nothing is lost. The record of the run's exit is what is written last.
    """
    (file,) = folder.rglob("*.wandb")
    until = time.monotonic() + 60
    while True:
        try:
            found = list(_parsed(file.read_bytes()))
            if any(record.HasField("exit") for record in found) or time.monotonic() > until:
                return found
        except (AssertionError, struct.error):  # a record that is written at this moment
            if time.monotonic() > until:
                raise
        time.sleep(0.05)


def _parsed(data: bytes) -> Iterator[pb.Record]:
    assert struct.unpack("<4sHB", data[:7]) == (b":W&B", 0xBEE1, 0)
    place, whole = 7, b""
    while place < len(data):
        if BLOCK - place % BLOCK < 7:  # too little for a header: padding
            place += BLOCK - place % BLOCK
            continue
        checksum, length, kind = struct.unpack("<IHB", data[place : place + 7])
        piece = data[place + 7 : place + 7 + length]
        assert len(piece) == length and zlib.crc32(bytes([kind]) + piece) == checksum
        whole = piece if kind in (WHOLE, FIRST) else whole + piece
        place += 7 + length
        if kind in (WHOLE, LAST):
            record = pb.Record()
            record.ParseFromString(whole)
            yield record


def history(folder: Path) -> list[dict]:
    """What was logged, one dict a call; what is no number, such as a picture, is a dict that says of what `_type`."""
    calls = []
    for record in records(folder):
        if record.WhichOneof("record_type") == "history":
            calls.append({})
            for item in record.history.item:
                key, *inner = item.nested_key or [item.key]
                value = json.loads(item.value_json)
                if inner:
                    calls[-1].setdefault(key, {})["/".join(inner)] = value
                else:
                    calls[-1][key] = value
    return calls


def hidden(folder: Path) -> set[str]:
    """The keys that are kept from becoming panels by themselves."""
    return {r.metric.name for r in records(folder) if r.HasField("metric") and r.metric.options.hidden}


def config(folder: Path) -> dict:
    """The run's settings."""
    (run,) = [record.run for record in records(folder) if record.HasField("run")]
    return {item.key: json.loads(item.value_json) for item in run.config.update}


def media(folder: Path) -> list[Path]:
    """The files of the pictures and tables in the history; whether they are there is another question."""
    (run,) = (file.parent for file in folder.rglob("*.wandb"))
    values = [value for call in history(folder) for value in call.values() if isinstance(value, dict)]
    paths = [path for value in values for path in [value.get("path"), *value.get("filenames", [])] if path]
    return [run / "files" / path for path in paths]
