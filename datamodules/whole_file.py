"""Atomic writing of files: the content is written to a temporary file, which is renamed when it is complete."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO


def write_whole(path: Path, content: str | bytes | Callable[[BinaryIO], object], *, durable: bool = True) -> None:
    """Write a file atomically: readers, also after a kill, see the old content or all of the new.

    Args:
        content: text (written as UTF-8), bytes, or what writes them into an open binary file.
        durable: wait until it is on the disk, so that it also survives a loss of power.

    Raises:
        OSError: it cannot be written, for example because the disk is full; the old content is kept.
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
        settle(path.parent)


def settle(folder: Path) -> None:
    """Wait until a folder's entries are on the disk; some file systems cannot do this for folders."""
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
