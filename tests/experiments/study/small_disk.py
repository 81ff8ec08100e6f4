"""File systems of a few megabytes, where the user may mount them."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A new folder with a file system of its own; the test is skipped where none may be mounted."""
    folder.mkdir()
    if (
        os.geteuid()
        or not shutil.which("mount")
        or os.system(f"mount -t tmpfs -o size={size} tmpfs {folder} 2>/dev/null")
    ):
        pytest.skip("no file system may be mounted here")
    yield folder
    os.system(f"umount {folder}")
