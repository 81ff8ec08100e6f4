"""Examples: single pictures with the truth and a network's prediction, as texts or pictures, for every task.

A study writes them to OUT/examples/: `DOMAIN-i-picture.png`, `DOMAIN-i-truth.png`, `DOMAIN-i-prediction-ARM.png`, and
for each arm `ARM.json`, which contains the files' names and the texts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from datamodules.whole_file import write_whole

if TYPE_CHECKING:
    import wandb  # slow to import, and --wandb disabled needs none


class Example(NamedTuple):
    """A picture of a domain, the truth, and a network's prediction.

    Truth and prediction are each a picture or a text. Pictures are uint8 RGB (H, W, 3).
    """

    domain: str
    index: int
    """Number of the picture among its domain's examples, from 0."""
    picture: np.ndarray
    truth: np.ndarray | str
    prediction: np.ndarray | str
    note: str = ""
    """A few words about the prediction, such as its probability."""


@dataclass
class ExampleFiles:
    """The predictions of several arms for one picture, from a run's folder: each a text or an image file."""

    domain: str
    index: int
    picture: Path
    truth: Path | str
    predictions: dict[str, Path | str] = field(default_factory=dict)
    """The key is the arm."""
    notes: dict[str, str] = field(default_factory=dict)


def save_examples(found: Iterable[Example], folder: Path, arm: str) -> None:
    """Write an arm's examples, unless it has some already: with several seeds, those of the first are shown."""
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
    write_whole(table, json.dumps(rows, indent=1))  # last, so that the pictures it names exist


def read_examples(folder: Path, arms: Iterable[str]) -> list[ExampleFiles]:
    """The examples of a run, one entry for each picture; arms whose file is missing or damaged are left out."""
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
    """The examples for W&B: pictures side by side, and a caption with the texts."""
    import wandb  # slow to import, and --wandb disabled needs none

    images = []
    for one in found:
        pictures = [shown for shown in (one.picture, one.truth, one.prediction) if not isinstance(shown, str)]
        images.append(wandb.Image(np.concatenate(pictures, axis=1), caption=caption(one)))
    return images


def caption(one: Example) -> str:
    """The caption of an example: "DOMAIN i: PREDICTION, right" for texts, else the names of its parts."""
    if not (isinstance(one.truth, str) and isinstance(one.prediction, str)):
        parts = {"picture": one.picture, "truth": one.truth, "prediction": one.prediction}
        named = [f"{part} {shown}" if isinstance(shown, str) else part for part, shown in parts.items()]
        return f"{one.domain} {one.index}: {', '.join(named)}"
    verdict = "right" if one.prediction == one.truth else f"truth {one.truth}"
    return f"{one.domain} {one.index}: {one.prediction}, {verdict}"


def file_name(domain: str) -> str:
    """A domain's name, as part of a file name."""
    return domain.replace(":", "-").replace("/", "-")


def _shown_parts(folder: Path, row: dict) -> list[Path | str]:
    """Picture, truth and prediction: each a text, or an image file directly in the folder."""
    parts = [row[part] for part in ("picture", "truth", "prediction")]
    return [str(one["text"]) if "text" in one else folder / Path(one["file"]).name for one in parts]


def _write(path: Path, picture: np.ndarray) -> None:
    if not path.exists():  # pictures and truths are the same for all arms
        write_whole(path, cv2.imencode(path.suffix, picture[..., ::-1])[1].tobytes(), durable=False)
