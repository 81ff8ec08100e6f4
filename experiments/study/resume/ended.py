"""A training that has ended, and whose results are not written yet: it is neither trained nor evaluated again."""

from __future__ import annotations

import json
from pathlib import Path

import pytorch_lightning as pl

from datamodules.whole_file import write_whole
from experiments.study.resume.checkpoint_files import LAST, PREVIOUS
from experiments.study.resume.logs import logged, restore_logs
from experiments.study.run_parts import readable
from lightning_modules.study_module import StudyModule
from lightning_modules.weights import read_checkpoint

MODEL = "model.ckpt"
"""The network that counts, complete."""
ENDED = "ended.json"
"""Written after it: the steps of the training, how much it has logged, and whether it can be made longer."""


def write_ended(checkpoints: Path, trainer: pl.Trainer, module: StudyModule, early: bool = False) -> None:
    """Note that a training has ended, whose model.ckpt is on disk. Args: early: whether --patience has ended it."""
    ended = {"steps": module.steps, "early": early, "logs": logged(trainer), "can_be_longer": module.can_be_longer}
    write_whole(checkpoints / ENDED, json.dumps(ended))


def forget_progress(checkpoints: Path) -> None:
    """Remove what a training needs to continue, when there are results; where that is done, do nothing.

    The last checkpoint stays where the training can be made longer.
    """
    if not (checkpoints / ENDED).exists():
        return
    longer = readable(lambda: json.loads((checkpoints / ENDED).read_text(encoding="utf-8"))["can_be_longer"])
    for name in (PREVIOUS, *([] if longer else [LAST]), ENDED):
        (checkpoints / name).unlink(missing_ok=True)


def restore_ended(checkpoints: Path, trainer: pl.Trainer, module: StudyModule, steps: int) -> bool:
    """Put the network of an ended training into the module, with its evaluation; False where there is none.

    Args:
        steps: that the training has to have, unless it ended early.
    """
    ended = readable(lambda: json.loads((checkpoints / ENDED).read_text(encoding="utf-8")))
    if not isinstance(ended, dict) or not (ended.get("steps") == steps or ended.get("early")):
        return False
    kept = readable(lambda: read_checkpoint(str(checkpoints / MODEL)))
    if kept is None:
        return False
    module.on_load_checkpoint(kept)
    module.load_state_dict(kept["state_dict"])
    restore_logs(trainer, ended["logs"])
    return True
