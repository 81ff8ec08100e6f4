"""Files that are there whole or not at all: written beside their place, and renamed into it once they are complete."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO


def write_whole(path: Path, content: str | bytes | Callable[[BinaryIO], object], *, durable: bool = True) -> None:
    """Give `path` a content; whoever reads it, also after a kill, finds what was there before or all of the new.

    Args:
        content: text (written as UTF-8), bytes, or what writes them into an open binary file.
        durable: wait until the disk has it, so that it also outlives the machine's loss of power.

    Raises:
        OSError: it cannot be written, as where the disk is full; what was there before is there still.
    """
    partial = path.with_name(f"{path.name[:200]}.partial-{os.getpid()}")
    try:
        with partial.open("wb") as opened:
            if callable(content):
                content(opened)
            else:
                opened.write(content.encode() if isinstance(content, str) else content)
            opened.flush()
            if durable:
                os.fsync(opened.fileno())
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
    if durable:
        _settle(path.parent)


def _settle(folder: Path) -> None:
    """Wait until the disk has a folder's names; some file systems know no such thing of folders."""
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
