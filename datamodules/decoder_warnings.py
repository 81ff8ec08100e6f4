"""Captures the warnings that image and video decoders write to the standard error stream.

For a damaged file, libjpeg makes up the missing pixels and only writes a warning; OpenCV returns the image without an
error. Two system calls before a decoding and three after it take some microseconds, a thousandth of the decoding.
"""

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

ERRORS = 2
"""The standard error stream's file descriptor."""


class Said:
    """The captured text, which is complete when the block has ended."""

    text = ""


class _Sink:
    """A file that replaces the standard error stream, and a lock, since the whole process shares the stream."""

    def __init__(self):
        self.file = os.memfd_create("decoder") if hasattr(os, "memfd_create") else _unnamed_file()
        self.lock = threading.Lock()


def _unnamed_file() -> int:
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


@lru_cache(maxsize=1)
def _sink(process: int) -> _Sink:
    """A sink for this process. One inherited by a fork would share its file position with the parent's."""
    return _Sink()


@contextmanager
def decoder_words(mine: tuple[str, ...]) -> Iterator[Said]:
    """Captures lines that C code writes to standard error within the block; other lines are passed on after it.

    Args:
        mine: a line that contains one of these is kept in `Said.text` and not passed on.
    """
    said, sink = Said(), _sink(os.getpid())
    with sink.lock:
        try:
            stream = os.dup(ERRORS)
        except OSError:  # a process without a standard error stream
            yield said
            return
        try:
            os.dup2(sink.file, ERRORS)
            yield said
        finally:
            os.dup2(stream, ERRORS)
            size = os.lseek(sink.file, 0, os.SEEK_CUR)
            if size:
                said.text = _divided(sink.file, size, stream, mine)
            os.close(stream)


def _divided(file: int, size: int, stream: int, mine: tuple[str, ...]) -> str:
    """Empties the file: returns the lines that are `mine`, and writes the others to the stream."""
    os.lseek(file, 0, os.SEEK_SET)
    lines = os.read(file, size).decode(errors="replace").splitlines()
    os.lseek(file, 0, os.SEEK_SET)
    os.ftruncate(file, 0)
    kept = [line for line in lines if any(word in line for word in mine)]
    others = [line for line in lines if line not in kept]
    if others:
        os.write(stream, ("\n".join(others) + "\n").encode())
    return "\n".join(kept)
