"""How a script ends on an error that the user can correct: with one sentence and an exit status."""

from __future__ import annotations

import errno
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from experiments.study.signals.stops import exit_if_stopped


class UsageError(ValueError):
    """The flags ask for something that cannot be done; the message is one sentence that says what can."""


class TrainingsFailed(RuntimeError):
    """Some of a study's trainings failed; the results of the others are written. The script ends with status
    `FAILED`."""


FAILED = 3
"""Exit status of a study with a failed training. (2: its flags or data are wrong.)"""


@contextmanager
def one_sentence() -> Iterator[None]:
    """Turn errors that a user can correct into one sentence and exit status 2: wrong flags, damaged data, files that
    cannot be read or written, too little memory. After Ctrl-C and SIGTERM the status is that of the signal; after
    failed trainings it is 3."""
    try:
        yield
        exit_if_stopped()
    except TrainingsFailed as error:
        fail(str(error), FAILED)
    except KeyboardInterrupt:  # where the signal's handler is not ours
        sys.exit(128 + signal.SIGINT)
    except BaseException as error:
        exit_if_stopped()  # the stop caused the error, for example by ending a worker
        sentence = mendable(error)
        if sentence is None:
            raise
        fail(sentence)


def mendable(error: BaseException) -> str | None:
    """An error as a sentence that says what to correct; None if it is an error of the program."""
    kinds = {base.__name__ for base in type(error).__mro__}  # by name: their modules import slowly
    said = message_of(error)
    if isinstance(error, UsageError):
        return str(error)
    if "DataError" in kinds:
        return said
    if isinstance(error, OSError):
        full = f"the disk{_of_temporary_files()} is full ({said}): make room; the files written so far are kept."
        return full if error.errno in FULL else f"{said.rstrip('.')}."
    if isinstance(error, MemoryError) or "OutOfMemoryError" in kinds or "can't allocate memory" in str(error):
        return f"the memory does not suffice ({said[:200].rstrip('.')}): pass smaller sizes, or fewer --workers."
    return None


def _of_temporary_files() -> str:
    """Words for the disk of temporary files, if that is the full one."""
    folder = tempfile.gettempdir()
    return f" of {folder}, for temporary files (TMPDIR)," if shutil.disk_usage(folder).free < LITTLE else ""


LITTLE = 1 << 20
"""Bytes of a disk below which it is called full."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers of a full disk, an exceeded quota and an exceeded file size."""


def message_of(error: BaseException) -> str:
    """An error's message. From a loader's worker it is the end of a traceback, after the error's name."""
    text = str(error)
    if text.startswith("Caught ") and "Traceback" in text:
        names = list(re.finditer(r"^[\w.]*Error: ", text, re.MULTILINE))
        text = text[names[-1].end() :] if names else text.strip().splitlines()[-1]
    return text.strip() or type(error).__name__


def fail(sentence: str, status: int = 2) -> NoReturn:
    """Print one line, in which unprintable characters (such as line breaks in a file's name) are escaped, and exit."""
    letters = (letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in sentence)
    print(f"error: {''.join(letters)}", file=sys.stderr)
    sys.exit(status)
