"""What an offline W&B run holds, read from its folder without W&B's server: history, settings and summary.

    run = read_offline("runs/seg_gta2city/sn-seed0")
    run.history["train/loss"].dropna()

A training that was interrupted has one run in several folders; its rows are joined, each once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from pandas import DataFrame

from experiments.study.endings import UsageError
from experiments.study.wandb_runs.offline_files import TornFileError, whole_records

if TYPE_CHECKING:
    from wandb.proto import wandb_internal_pb2 as pb

OWN = "_wandb"
"""The key under which W&B keeps its own entries in settings and summary."""
POLL = 0.05
"""Seconds between two looks at a file that is being closed."""


@dataclass
class OfflineRun:
    """One run, of all its parts. Values are as they were logged; pictures, tables and histograms are dicts that say of
    what `_type` they are."""

    id: str
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    """What was logged by each call of `log`, by the row's number, which is W&B's step."""
    config: dict[str, Any] = field(default_factory=dict)
    """The settings."""
    summary: dict[str, Any] = field(default_factory=dict)
    """The last value of each key, and what was set in `run.summary`."""
    hidden: set[str] = field(default_factory=set)
    """Keys that W&B's automatic panels do not show."""
    media: list[Path] = field(default_factory=list)
    """The files of logged pictures and tables, in the order of the rows; they may be missing."""
    ended: bool = False
    """Whether the last part was closed. If not, the run was killed, or is under way."""
    damage: str = ""
    """A sentence on each file that could not be read to its end; "" if all could."""

    @cached_property
    def history(self) -> DataFrame:
        """`rows` as a table: a row a call, a column a key, NaN where a call did not log the key.

        Its index, `row`, is the row's number. `trainer/global_step` is the training's step, `_runtime` seconds.
        """
        frame = pd.DataFrame.from_dict(self.rows, orient="index").sort_index()
        return frame.rename_axis("row")


def read_offline(folder: Path | str, wait: float = 0.0) -> OfflineRun:
    """The one run in a folder: of a training (`ARM-seedN`), of one part (`offline-run-...`), or a `.wandb` file.

    What W&B keeps of runs that were online has the same form, and is read as well. A file that is damaged, or is being
    written, is read as far as it goes, and `damage` says so.

    Args:
        wait: seconds for which to wait until the run has ended; W&B's own process writes the end a little after
            `finish` has returned.

    Raises:
        UsageError: there is no run, or more than one.
    """
    folder, until = Path(folder), time.monotonic() + wait
    while True:
        run = _joined(_parts(folder), folder)
        if run.ended or time.monotonic() >= until:
            return run
        time.sleep(POLL)


def _parts(folder: Path) -> list[Path]:
    """The files of a folder, in the order in which they were begun."""
    found = [folder] if folder.is_file() else [*folder.rglob("*.wandb")]
    if not found:
        raise UsageError(f"{folder} holds no W&B run: pass the folder of a training that had --wandb offline.")
    begun = {file: file.parent.name.removeprefix("offline-") for file in found}  # run-DATE_TIME-ID
    return sorted(found, key=lambda file: (begun[file], file.stat().st_ctime_ns))


def _joined(parts: list[Path], folder: Path) -> OfflineRun:
    names = list(dict.fromkeys(file.stem.removeprefix("run-") for file in parts))
    if len(names) > 1:
        raise UsageError(
            f"{folder} holds {len(names)} W&B runs ({', '.join(names[:4])}{', ...' * (len(names) > 4)}): pass the "
            "folder of one training."
        )
    run, torn = OfflineRun(names[0]), []
    for file in parts:
        run.ended = False
        try:
            for record in whole_records(file):
                _add(run, record, file.parent / "files")
        except TornFileError as error:
            torn.append(str(error))
    run.damage = " ".join(torn)
    return run


def _add(run: OfflineRun, record: pb.Record, files: Path) -> None:
    """Add a record to what is known of its run."""
    kind = record.WhichOneof("record_type")
    if kind == "history":
        row = _updated({}, record.history.item)
        if record.history.step.num not in run.rows:  # a part that followed a torn one may hold it again
            run.rows[record.history.step.num] = row
            run.media += [files / path for path in _paths(row)]
    elif kind == "run":
        run.config = _updated(run.config, record.run.config.update)
    elif kind == "config":
        run.config = _without(_updated(run.config, record.config.update), record.config.remove)
    elif kind == "summary":
        run.summary = _without(_updated(run.summary, record.summary.update), record.summary.remove)
    elif kind == "metric" and record.metric.options.hidden:
        run.hidden.add(record.metric.name)
    elif kind == "exit":
        run.ended = True


def _updated(known: dict[str, Any], items: Iterable) -> dict[str, Any]:
    """The dict with the items' values; an item may be an entry of a dict in it."""
    known = dict(known)
    for item in items:
        *outer, last = item.nested_key or [item.key]
        if OWN not in (last, *outer):
            place = known
            for key in outer:
                place[key] = dict(place[key]) if isinstance(place.get(key), dict) else {}
                place = place[key]
            place[last] = json.loads(item.value_json)
    return known


def _without(known: dict[str, Any], items: Iterable) -> dict[str, Any]:
    """The dict without the items' keys."""
    for item in items:
        *outer, last = item.nested_key or [item.key]
        place: Any = known
        for key in outer:
            place = place.get(key) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place.pop(last, None)
    return known


def _paths(row: dict[str, Any]) -> list[str]:
    """The files of what a row holds as files, below those of its part."""
    values = [value for value in row.values() if isinstance(value, dict)]
    return [path for value in values for path in [value.get("path"), *value.get("filenames", [])] if path]
