"""Reads what offline W&B runs have left on disk: the `.wandb` files that `wandb sync` sends, record by record.

`experiments.study.wandb_runs.offline_history` makes tables of them.
The package has no reader of its own in Python. A file is a LevelDB log: a header of seven bytes, then blocks of 32 KiB,
in them records of a checksum, a length, a type (whole, first, middle, last) and bytes; put together these are the
protobuf records of `wandb.proto`.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.study.run_parts import readable

if TYPE_CHECKING:
    from wandb.proto import wandb_internal_pb2 as pb

BLOCK = 32768
HEADER = b":W&B\xe1\xbe\x00"
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


class TornFileError(ValueError):
    """A file can be read up to a place, and not behind it; the message says of which bytes."""


def records(file: Path) -> Iterator[pb.Record]:
    """The records of a run, up to the first that is torn, as the last one of a run that was killed may be."""
    with suppress(TornFileError):
        yield from whole_records(file)


def whole_records(file: Path) -> Iterator[pb.Record]:
    """The records of a run.

    Raises:
        TornFileError: behind the last record that can be read, if the file has more bytes.
    """
    from wandb.proto import wandb_internal_pb2 as pb  # slow to import, and --wandb disabled needs none

    data = file.read_bytes()
    if not data.startswith(HEADER):
        raise TornFileError(f"{file} does not begin as W&B's files do: nothing of it can be read.")
    end = len(HEADER)
    for content, behind in _contents(data):
        record = readable(lambda content=content: pb.Record.FromString(content))
        if record is None:
            break
        yield record
        end = behind
    padded = len(data) - end < 7 and len(data) % BLOCK == 0
    if end < len(data) and not padded:
        raise TornFileError(f"{file} is damaged behind its first {end:,} of {len(data):,} bytes: the rest is left out.")


def _contents(data: bytes) -> Iterator[tuple[bytes, int]]:
    """The bytes of each whole record, and where they end, up to the first that is torn."""
    place, whole = len(HEADER), b""
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
            yield whole, place


def rows_logged(folder: Path, run_id: str, online: bool = False) -> int:
    """The rows that the offline parts of a run hold together.

    Args:
        folder: the one that was given to `wandb.init`.
        online: count its online parts, too.
    """
    files = folder.glob(f"wandb/{'*' * online}{'offline-' * (not online)}run-*-{run_id}/*.wandb")
    steps = (record.history.step.num for file in files for record in records(file) if record.HasField("history"))
    return max(steps, default=-1) + 1
