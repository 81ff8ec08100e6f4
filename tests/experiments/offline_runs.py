"""What an offline W&B run has left on disk, for tests."""

import json
import time
from pathlib import Path

from wandb.proto import wandb_internal_pb2 as pb

from experiments.study.wandb_runs import offline_files


def records(folder: Path) -> list[pb.Record]:
    """The records of the one run below a folder, each with its checksum tested.

    `finish` asks W&B's own process to close the file, and returns before that has done so: on a busy machine the last
    block may be missing for a second, though nothing is lost. The record of the run's exit is what is written last.
    """
    (file,) = folder.rglob("*.wandb")
    until = time.monotonic() + 60
    while True:
        found = list(offline_files.records(file))
        if any(record.HasField("exit") for record in found) or time.monotonic() > until:
            return found
        time.sleep(0.05)


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
