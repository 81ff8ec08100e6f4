"""Stub until the real one is merged."""

from pathlib import Path

import torch
from lightning_fabric.plugins import TorchCheckpointIO


class SafeCheckpoints(TorchCheckpointIO):
    def save_checkpoint(self, checkpoint, path, storage_options=None):
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(checkpoint, str(path) + ".partial")
        Path(str(path) + ".partial").replace(path)

    def wait(self):
        pass


def newest(folder: Path):
    return folder / "last.ckpt" if (folder / "last.ckpt").exists() else None


def set_aside(folder: Path):
    return []
