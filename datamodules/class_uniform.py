"""Class-uniform sampling: which images hold which class."""

import hashlib
import os
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch.utils.data import DataLoader, Dataset

from datamodules.domains import Domain


class _Presence(Dataset):
    def __init__(self, samples, classes: int):
        self.samples, self.classes = samples, classes

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> np.ndarray:
        return np.bincount(self.samples.label(index).ravel(), minlength=256)[: self.classes] > 0


def images_by_class(domain: Domain, workers: int = 0) -> dict[int, np.ndarray]:
    """Indices of the images that hold each training id; ids that none holds are left out.

    Every label is read once, which also finds ids that a set does not define. For a set on disk the answer is kept
    under `$XDG_CACHE_HOME/normshift` (by default ~/.cache/normshift), by the names, sizes and times of its label files.
    """
    path = _cache_file(domain)
    if path is not None and path.is_file():
        presence = np.load(path)
    else:
        labels = _Presence(domain.samples, len(domain.label_space))
        # a generator of its own: what is kept on disk must not decide on the training's random numbers
        loader = DataLoader(labels, batch_size=None, num_workers=workers, generator=torch.Generator())
        rows = track(loader, f"classes in {domain.name}", total=len(loader), transient=True, disable=len(loader) < 5000)
        presence = np.stack([np.asarray(row) for row in rows])
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(f".{os.getpid()}.npy")
            np.save(partial, presence)
            partial.replace(path)  # whole or not at all, whoever else is writing it
    return {c: np.flatnonzero(presence[:, c]) for c in range(presence.shape[1]) if presence[:, c].any()}


def _cache_file(domain: Domain) -> Path | None:
    if not domain.on_disk:
        return None
    digest = hashlib.sha256()
    for _, label in domain.samples.pairs:
        found = label.stat()
        digest.update(f"{label.resolve()} {found.st_size} {found.st_mtime_ns}\n".encode())
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "normshift" / f"{domain.name.replace(':', '-')}-{digest.hexdigest()[:16]}.npy"
