"""Trained networks on images: what `predict.py` does once its flags are parsed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from PIL import Image

from datamodules.worlds.streets.world import Streets
from experiments.study.endings import UsageError
from experiments.study.settings import loader_workers
from experiments.study.trained.networks import checkpoint_files, trained_network
from experiments.study.trained.pictures import Reading, pictures_in
from experiments.study.trained.task import task_of
from lightning_modules.study_module import StudyModule


def predicted(flags) -> Path:
    """Predict every image that `predict.py` is given and that can be read; returns the folder of the predictions.

    Raises:
        UsageError: a flag or a file is wrong. If it is images that cannot be read, the others' predictions are written.
    """
    out = Path(flags.out)
    inputs = flags.inputs or [str(drawn(out))]  # of a smoke run
    flags = dataclasses.replace(flags, workers=loader_workers(flags), inputs=inputs)
    module = network(flags)
    reading = Reading(pictures_in(flags.inputs[0 if flags.smoke else 1 :]), flags.workers)
    begin(out, flags.smoke)
    written = task_of(module.task).predict(module, reading, out, flags)
    print(f"{len(reading) - len(reading.unreadable)} images predicted; {written}")
    if reading.unreadable:
        others = len(reading.unreadable) - 1
        more = f" (and {others} more could not be read)" if others else ""
        raise UsageError(f"{reading.unreadable[0].rstrip('.')}{more}; the predictions of the others are in {out}.")
    return out


def network(flags) -> StudyModule:
    """The network that the flags name.

    Raises:
        UsageError: it is missing or cannot be rebuilt, or a folder holds several.
    """
    if flags.smoke:
        return task_of("segmentation").smoke_network()
    found = checkpoint_files(flags.inputs[0])
    if len(found) > 1:
        raise UsageError(f"{flags.inputs[0]} holds {len(found)} networks: name one of them, such as {found[0]}.")
    return trained_network(found[0]).module


def begin(out: Path, again: bool) -> None:
    """Make the folder for the predictions.

    Raises:
        UsageError: it already holds predictions, which are not overwritten, or it cannot be written.
    """
    there = [name for name in ("labels", "overlays", "pictures", "predictions.csv") if (out / name).exists()]
    if there and not again:
        raise UsageError(f"{out / there[0]} exists already: pass another --out, or move it away.")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {out} cannot be written ({error.strerror or error}): choose another.") from error


def drawn(out: Path) -> Path:
    """A folder with two small street scenes."""
    folder = out / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(2):
        Image.fromarray(Streets("night", "val", 2, (64, 128))[index][0]).save(folder / f"{index}.png")
    return folder
