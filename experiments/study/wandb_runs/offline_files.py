"""Reads what offline W&B runs have left on disk: the `.wandb` files that `wandb sync` sends.

The package has no reader of its own in Python. A file is a LevelDB log: a header of seven bytes, then blocks of 32 KiB,
in them records of a checksum, a length, a type (whole, first, middle, last) and bytes; put together these are the
protobuf records of `wandb.proto`.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wandb.proto import wandb_internal_pb2 as pb

BLOCK = 32768
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(file: Path) -> Iterator[pb.Record]:
    """The records of a run, up to the first that is torn, as the last one of a run that was killed may be."""
    from wandb.proto import wandb_internal_pb2 as pb  # slow to import, and --wandb disabled needs none

    data = file.read_bytes()
    place, whole = 7, b""
    while place + 7 <= len(data):
        if BLOCK - place % BLOCK < 7:  # too little for a header: padding
            place += BLOCK - place % BLOCK
            continue
        checksum, length, kind = struct.unpack("<IHB", data[place : place + 7])
        piece = data[place + 7 : place + 7 + length]
        if len(piece) < length or zlib.crc32(bytes([kind]) + piece) != checksum:
            return
        whole = piece if kind in (WHOLE, FIRST) else whole + piece
        place += 7 + length
        if kind in (WHOLE, LAST):
            record = pb.Record()
            record.ParseFromString(whole)
            yield record


def rows_logged(folder: Path, run_id: str, online: bool = False) -> int:
    """The rows that the offline parts of a run hold together.

    Args:
        folder: the one that was given to `wandb.init`.
        online: count its online parts, too.
    """
    files = folder.glob(f"wandb/{'*' * online}{'offline-' * (not online)}run-*-{run_id}/*.wandb")
    steps = (record.history.step.num for file in files for record in records(file) if record.HasField("history"))
    return max(steps, default=-1) + 1
