"""A lock with which only one process at a time writes to a folder; reading needs no lock."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
from pathlib import Path
from weakref import WeakValueDictionary

from experiments.study.endings import UsageError

NAME = ".lock"
HELD_ELSEWHERE = (errno.EACCES, errno.EAGAIN)


class RunLock:
    """Locks a folder for this process until the object is collected or the process ends.

    It is a POSIX record lock. Such a lock belongs to the process, so that a loader's workers, which outlive a killed
    training by some seconds, do not hold it; and it works over NFS. On a file system without locks nothing is locked.
    """

    def __init__(self, folder: Path):
        self._file = (folder / NAME).open("a+")
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in HELD_ELSEWHERE:
                raise UsageError(
                    f"{folder} is being written to by another process{self._owner()}: wait until that has ended, or "
                    "choose another --out."
                ) from error
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {platform.node()}\n")
        self._file.flush()

    def _owner(self) -> str:
        self._file.seek(0)
        written = " ".join(self._file.read(200).split())
        return f" ({written})" if written else ""

    def __del__(self):
        if hasattr(self, "_file"):
            self._file.close()


_HELD: WeakValueDictionary[Path, RunLock] = WeakValueDictionary()


def locked(folder: Path) -> RunLock:
    """The lock of a folder, which is created if it is missing; within a process every call gets the same lock.

    Raises:
        UsageError: another process holds it.
        OSError: the folder cannot be made or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.resolve()
    lock = _HELD.get(path)
    if lock is None:
        lock = _HELD[path] = RunLock(folder)
    return lock
