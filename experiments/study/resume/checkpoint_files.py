"""Checkpoint files that a kill, a full disk or a loss of power at any moment leaves whole, or with the one before."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning_fabric.plugins import CheckpointIO

from datamodules.whole_file import settle, write_whole
from experiments.study.endings import UsageError
from lightning_modules.checkpoint_files import fault_of

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
"""The checkpoint from which a training continues, and the one before it."""
PROGRESS = {"state_dict", "optimizer_states", "lr_schedulers", "loops", "study", "resume", "pytorch-lightning_version"}
"""Keys of a checkpoint from which a training can continue."""


class SafeCheckpoints(CheckpointIO):
    """Writes checkpoints beside the training: what is saved is copied at once, and a thread writes the copy.

    A file is written under another name in its own folder, waited for until it is on the disk, read back against its
    checksums, and renamed; the last.ckpt of before becomes previous.ckpt. One copy is kept in memory at most: a second
    save waits for the first. An error of the thread is raised by the next call. (Lightning's AsyncCheckpointIO queues
    any number of copies, and copies tensors alone: a list that grows while it is written would be torn.)
    """

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._writing: Future | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None) -> None:
        self.wait()
        kept = copied(checkpoint)
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "checkpoints")
        self._writing = self._thread.submit(write_checkpoint, kept, Path(path))

    def wait(self) -> None:
        """Wait until all is on the disk.

        Raises:
            OSError: it cannot be written; the files of before are still there.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def load_checkpoint(self, path: str | Path, map_location: object = None, weights_only: bool | None = None) -> dict:
        self.wait()
        return torch.load(path, map_location="cpu" if map_location is None else map_location, weights_only=False)

    def remove_checkpoint(self, path: str | Path) -> None:
        self.wait()
        Path(path).unlink(missing_ok=True)

    def teardown(self) -> None:
        try:
            self.wait()
        finally:
            if self._thread is not None:
                self._thread.shutdown()
                self._thread = None


def copied(value: Any) -> Any:
    """A copy of a checkpoint that no later step changes; tensors on the CPU."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        same = {key: copied(one) for key, one in value.items()}
        return same if type(value) is dict else _like(value, same)
    if isinstance(value, (list, tuple)):
        parts = [copied(one) for one in value]
        if isinstance(value, list):
            return parts
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def _like(value: Mapping, items: dict) -> Any:
    """The items in the same class of mapping, where that can be made of them."""
    try:
        return type(value)(items)
    except TypeError:  # a defaultdict, whose first argument is another
        return items


def write_checkpoint(checkpoint: dict, path: Path) -> None:
    """Write a checkpoint whole, prove it, and put it in its place.

    Raises:
        OSError: it cannot be written, or does not read as it was written; the files of before are still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    try:
        write_whole(new, lambda opened: _save(checkpoint, opened))
        if fault := damage(new):
            raise OSError(f"{path} was written and {fault} when it is read back: the disk may be failing")
        if path.name == LAST and path.exists():
            path.replace(path.with_name(PREVIOUS))
        new.replace(path)
        settle(path.parent)
    except BaseException:
        with suppress(OSError):
            new.unlink()
        raise


def _save(checkpoint: dict, opened: BinaryIO) -> None:
    try:
        torch.save(checkpoint, opened)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):  # torch hides a full disk behind an error of its own
            raise error.__context__ from error
        raise


def damage(file: Path) -> str | None:
    """What is wrong with a checkpoint file, as the end of a sentence that begins with it; None for a whole one."""
    fault = fault_of(file)
    if fault:
        return re.split("[:,]", fault)[0]  # the rest is advice on initial weights
    try:
        with zipfile.ZipFile(file) as archive:  # torch's files are archives with a checksum of each part
            return "is damaged" if archive.testzip() else None
    except Exception:  # a damaged archive raises errors of many kinds
        return "is damaged"


def newest(folder: Path, module: torch.nn.Module | None = None) -> Path | None:
    """The newest whole checkpoint from which a training can continue; None where there is none.

    Nothing is changed, so that all processes of a training find the same.

    Args:
        module: the network, whose weights the checkpoint has to hold.

    Raises:
        UsageError: it is of another network.
    """
    for name in (LAST, PREVIOUS):
        file = folder / name
        if file.exists() and (fault := fault_of_progress(file, module)) is None:
            return file
        if file.exists() and fault == OTHER:
            raise UsageError(
                f"--resume: {file} {fault}: remove it, and --resume trains {folder.parent.name} from the start."
            )
    return None


OTHER = "is of another network"


def fault_of_progress(file: Path, module: torch.nn.Module | None = None) -> str | None:
    """Why a training cannot continue from a checkpoint, as the end of a sentence that begins with its path."""
    if fault := damage(file):
        return fault
    try:
        kept = torch.load(file, map_location="cpu", mmap=True, weights_only=False)  # as it will be read
    except Exception:  # unpickling a damaged file raises errors of many kinds
        return "is damaged"
    if not isinstance(kept, dict) or not PROGRESS.issubset(kept) or not isinstance(kept["state_dict"], dict):
        return "is not the checkpoint of a training under way"
    if module is None:
        return None
    there = {key: value.shape for key, value in module.state_dict().items()}
    found = {key: getattr(value, "shape", None) for key, value in kept["state_dict"].items()}
    return None if found == there else OTHER


def set_aside(folder: Path) -> list[str]:
    """Rename the checkpoints that are damaged, and remove what a kill left half written; returns a sentence for each.

    Call it in one process alone, before the training continues.
    """
    for partial in [*folder.glob("*.new"), *folder.glob("*.partial-*")]:
        partial.unlink()
    said = []
    for name in (LAST, PREVIOUS):
        file = folder / name
        fault = fault_of_progress(file) if file.exists() else None
        if fault is not None:
            aside = _free(file.with_name(f"{file.stem}-damaged.ckpt"))
            file.rename(aside)
            said.append(f"{file} {fault}; it is kept as {aside.name}, and the training continues from")
    if said:
        good = newest(folder)
        said = [f"{one} {'the one before, ' + good.name if good else 'its start'}." for one in said]
    return said


def _free(path: Path) -> Path:
    """The path, numbered if there is such a file."""
    names = [path, *(path.with_name(f"{path.stem}-{number}{path.suffix}") for number in range(2, 1000))]
    return next(name for name in names if not name.exists())
