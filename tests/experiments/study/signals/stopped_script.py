"""Runs a script of experiments/ and sends it a signal at a given moment: `stopped_script.py SIGNAL MOMENT ARGS...`.

A moment is `import NAME` of a module, or `call MODULE:NAME COUNT`, the COUNTth call of a function or method; several
are parted by semicolons. ARGS are the script, by its name, and its flags. Of several processes, STOPPED_RANK is the one
that gets the signal, in torchrun's first round.
"""

import functools
import importlib
import importlib.abc
import os
import runpy
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).parents[4]


class Watch(importlib.abc.MetaPathFinder):
    """Sends the signal when a module is about to be imported."""

    def __init__(self, name: str, send):
        self.name, self.send = name, send

    def find_spec(self, name, path=None, target=None):
        if name == self.name:
            sys.meta_path.remove(self)
            self.send()
        return None


def main(number: str, moments: str, script: str, *flags: str) -> None:
    rank = os.environ.get("LOCAL_RANK", "0")
    spared = os.environ.get("STOPPED_RANK", rank) != rank or os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"

    def send() -> None:
        if not spared:
            os.kill(os.getpid(), getattr(signal, number))

    sys.modules["__main__"].__file__ = str(ROOT / "experiments" / script)  # by which the package knows that it is run
    for moment in moments.split("; "):
        kind, where, *count = moment.split()
        if kind == "import":
            sys.meta_path.insert(0, Watch(where, send))
        else:
            at_call(where, int(count[0]), send)
    sys.argv = [script, *flags]
    runpy.run_path(str(ROOT / "experiments" / script), run_name="__main__")


def at_call(where: str, number: int, send) -> None:
    """Send the signal at one of the calls of a function, named MODULE:NAME."""
    module, _, names = where.partition(":")
    *owners, name = names.split(".")
    owner = functools.reduce(getattr, owners, importlib.import_module(module))
    whole, calls = getattr(owner, name), []

    @functools.wraps(whole)
    def counted(*args, **kwargs):
        calls.append(1)
        if len(calls) == number:
            send()
        return whole(*args, **kwargs)

    setattr(owner, name, counted)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started this may have ignored it
    main(*sys.argv[1:])
