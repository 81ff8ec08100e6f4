"""Examples of what networks make of single pictures: beside the truth, in words or as pictures, for every task.

A study writes them to OUT/examples/: `DOMAIN-i-picture.png`, `DOMAIN-i-truth.png` and `DOMAIN-i-prediction-ARM.png`,
and for each arm `ARM.json`, which names them and holds what is told in words.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from datamodules.whole_file import write_whole

if TYPE_CHECKING:  # wandb and numpy load slowly, and who reads examples needs neither
    import numpy as np
    import wandb


class Example(NamedTuple):
    """A picture of a domain, the truth, and what a network makes of it.

    Truth and prediction are each a picture or a text; pictures are uint8 (H, W, 3).
    """

    domain: str
    index: int
    """Of the picture in its domain's examples, from 0."""
    picture: np.ndarray
    truth: np.ndarray | str
    prediction: np.ndarray | str
    note: str = ""
    """What is to be said of the prediction in a few words, such as how sure the network is."""


@dataclass
class ExampleFiles:
    """The predictions of several arms for one picture, as they lie in a run's folder: texts, or files of pictures."""

    domain: str
    index: int
    picture: Path
    truth: Path | str
    predictions: dict[str, Path | str] = field(default_factory=dict)
    """By arm."""
    notes: dict[str, str] = field(default_factory=dict)


def save_examples(found: Iterable[Example], folder: Path, arm: str) -> None:
    """Write an arm's examples. What is there already stays: with several seeds the first one's are shown."""
    table = folder / f"{arm}.json"
    if table.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for one in found:
        stem = f"{file_name(one.domain)}-{one.index}"
        parts = {"picture": "picture", "truth": "truth", "prediction": f"prediction-{arm}"}
        row = {"domain": one.domain, "index": one.index, "note": one.note}
        for part, ending in parts.items():
            shown = getattr(one, part)
            if isinstance(shown, str):
                row[part] = {"text": shown}
            else:
                row[part] = {"file": f"{stem}-{ending}.png"}
                _write(folder / row[part]["file"], shown)
        rows.append(row)
    write_whole(table, json.dumps(rows, indent=1))  # last: it says that the pictures are there


def read_examples(folder: Path, arms: Iterable[str]) -> list[ExampleFiles]:
    """The examples of a run, picture by picture; an arm whose file is missing or damaged has none."""
    found: dict[tuple[str, int], ExampleFiles] = {}
    for arm in arms:
        try:
            rows = json.loads((folder / f"{arm}.json").read_text(encoding="utf-8"))
            read = [
                (str(row["domain"]), int(row["index"]), str(row.get("note", "")), *_shown_parts(folder, row))
                for row in rows
            ]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
        for domain, index, note, picture, truth, prediction in read:
            if isinstance(picture, Path):
                one = found.setdefault((domain, index), ExampleFiles(domain, index, picture, truth))
                one.predictions[arm], one.notes[arm] = prediction, note
    return list(found.values())


def wandb_images(found: Iterable[Example]) -> list[wandb.Image]:
    """Each example for W&B: its pictures side by side, and a caption that says which they are, or what is told."""
    import numpy as np
    import wandb

    images = []
    for one in found:
        pictures = [shown for shown in (one.picture, one.truth, one.prediction) if not isinstance(shown, str)]
        images.append(wandb.Image(np.concatenate(pictures, axis=1), caption=caption(one)))
    return images


def caption(one: Example) -> str:
    """What stands below an example."""
    if not (isinstance(one.truth, str) and isinstance(one.prediction, str)):
        parts = {"picture": one.picture, "truth": one.truth, "prediction": one.prediction}
        told = [f"{part} {shown}" if isinstance(shown, str) else part for part, shown in parts.items()]
        return f"{one.domain} {one.index}: {', '.join(told)}"
    verdict = "right" if one.prediction == one.truth else f"truth {one.truth}"
    return f"{one.domain} {one.index}: {one.prediction}, {verdict}"


def file_name(domain: str) -> str:
    """A domain's name as part of a file's."""
    return domain.replace(":", "-").replace("/", "-")


def _shown_parts(folder: Path, row: dict) -> list[Path | str]:
    """Picture, truth and prediction: each a text, or the file of a picture, which lies in the folder itself."""
    said = [row[part] for part in ("picture", "truth", "prediction")]
    return [str(one["text"]) if "text" in one else folder / Path(one["file"]).name for one in said]


def _write(path: Path, picture: np.ndarray) -> None:
    import cv2

    if not path.exists():  # pictures and truths are the same for all arms
        write_whole(path, cv2.imencode(path.suffix, picture[..., ::-1])[1].tobytes(), durable=False)
