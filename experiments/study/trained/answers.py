"""What a network answers to pictures, written picture by picture: as pictures, or as a table of texts."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image

from experiments.study.endings import UsageError
from experiments.study.trained.one_device import in_precision, make_evaluator, placed
from lightning_modules.robustness.progress import progress_bar

if TYPE_CHECKING:
    from experiments.study.trained.pictures import Reading
    from experiments.study.trained.task import TrainedTask
    from lightning_modules.study_module import StudyModule

PICTURES, TABLE = "pictures", "predictions.csv"
"""What is written: answers that are pictures, and a table of those that are texts."""


@torch.inference_mode()
def write_answers(task: TrainedTask, module: StudyModule, reading: Reading, out: Path, flags) -> str:
    """Write OUT/pictures/NAME.png, or OUT/predictions.csv with a row a picture; returns which, in words.

    Raises:
        UsageError: --overlay is asked for.
    """
    if flags.overlay:
        raise UsageError(f"--overlay is for segmentation networks, and this one is of {task.task}: leave it out.")
    trainer = make_evaluator(flags)
    module, table = placed(trainer, module), [("image", "prediction")]
    with progress_bar(len(reading), "predicting", "predicted") as advance, in_precision(trainer):
        for picture, pixels in reading.each(_as_it_is):
            answer = task.answer(module, pixels)
            if isinstance(answer, str):
                table.append((str(picture.file), answer))
            else:
                file = out / PICTURES / f"{picture.name}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(answer).save(file)
            advance(picture.file.name, 1)
    if len(table) == 1:
        return f"what the network made of them: {out / PICTURES}"
    with (out / TABLE).open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows(table)
    return f"what the network said of them: {out / TABLE}"


def _as_it_is(picture):
    return picture
