"""How a script ends where it cannot do what it was asked for: in one sentence, and with a status of its own."""

from __future__ import annotations

import errno
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from experiments.study.stops import exit_if_stopped


class UsageError(ValueError):
    """What was asked for cannot be done; one sentence that says what can."""


class TrainingsFailed(RuntimeError):
    """Some of a study's trainings failed; what came of the others is written. Ends a script with status `FAILED`."""


FAILED = 3
"""Exit status of a study of which a training has failed. (2: it could not be started as it was asked for.)"""


@contextmanager
def one_sentence() -> Iterator[None]:
    """Turn what a user can mend into one sentence and exit status 2: wrong flags, data that is not in order, files that
    cannot be read or written, memory that does not suffice. After Ctrl-C and SIGTERM the status is theirs; where
    trainings failed it is 3."""
    try:
        yield
        exit_if_stopped()
    except TrainingsFailed as error:
        fail(str(error), FAILED)
    except KeyboardInterrupt:  # where the signal's handler is not ours
        sys.exit(128 + signal.SIGINT)
    except BaseException as error:
        exit_if_stopped()  # whatever was raised then was raised by the stop, such as a worker's end
        sentence = mendable(error)
        if sentence is None:
            raise
        fail(sentence)


def mendable(error: BaseException) -> str | None:
    """An error as a sentence that says what is to be mended; None where the fault is the program's."""
    kinds = {base.__name__ for base in type(error).__mro__}  # by name: they are from modules that load slowly
    said = told(error)
    if isinstance(error, UsageError):
        return str(error)
    if "DataError" in kinds:
        return said
    if isinstance(error, OSError):
        full = f"there is no room to write ({said}): make some; what is written so far stays."
        return full if error.errno in FULL else f"{said.rstrip('.')}."
    if isinstance(error, MemoryError) or "OutOfMemoryError" in kinds or "can't allocate memory" in str(error):
        return f"the memory does not suffice ({said[:200].rstrip('.')}): pass smaller sizes, or fewer --workers."
    return None


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a full disk says, or one's share of it."""


def told(error: BaseException) -> str:
    """What an error says. Out of a loader's worker that stands at the end of a traceback, behind the error's name."""
    text = str(error)
    if text.startswith("Caught ") and "Traceback" in text:
        names = list(re.finditer(r"^[\w.]*Error: ", text, re.MULTILINE))
        text = text[names[-1].end() :] if names else text.strip().splitlines()[-1]
    return text.strip() or type(error).__name__


def fail(sentence: str, status: int = 2) -> NoReturn:
    """Print one line, in which a name's line breaks and other unprintable characters are written out, and exit."""
    letters = (letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in sentence)
    print(f"error: {''.join(letters)}", file=sys.stderr)
    sys.exit(status)
