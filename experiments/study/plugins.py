"""A user's own Python files, `--plugin FILE.py`, which register norms, data sets, backbones, recipes or tasks that
scripts then accept."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from datamodules.registered import REGISTERED
from experiments.study.endings import UsageError
from normshift.registry import NORMS


def load_plugins(paths: Iterable[str]) -> None:
    """Run each file once in this process, as the module `plugin_NAME`; a file that was run before is not run again.

    Raises:
        UsageError: a file is missing, is no Python file, raises an error (the message says in which line), registers
            nothing, or has the same name as another one.
    """
    for path in map(Path, paths):
        name, before = f"plugin_{path.stem}", _registered()
        loaded = sys.modules.get(name)
        if loaded is not None and Path(str(loaded.__file__)).resolve() == path.resolve():
            continue
        if loaded is not None:
            raise UsageError(f"--plugin {path}: {loaded.__file__} has the same name; rename one of them.")
        if path.suffix != ".py" or not path.is_file():
            raise UsageError(f"--plugin {path}: {'it is no Python file' if path.exists() else 'no such file'}.")
        _run(path, name)
        if _registered() == before and not _has_task(name):
            del sys.modules[name]
            raise UsageError(
                f"--plugin {path}: it registers nothing; end it with normshift.register_norm(NormSpec(...)), as "
                "docs/own-norm.md shows, with another register_... of docs/plugins.md, or write a StudyModule and a "
                "TrainedTask in it."
            )


def _registered() -> set[object]:
    """All that files have registered; timm's networks too, which its own decorator registers, if timm is loaded."""
    timm = sys.modules.get("timm")
    return {*NORMS, *REGISTERED, *(timm.list_models() if hasattr(timm, "list_models") else ())}


def _has_task(name: str) -> bool:
    """Whether a file has a network's module or a task; by their names, since the classes load torch."""
    found = [kind for kind in vars(sys.modules[name]).values() if isinstance(kind, type) and kind.__module__ == name]
    return any({"StudyModule", "TrainedTask"} & {base.__name__ for base in kind.__mro__} for kind in found)


def _run(path: Path, name: str) -> None:
    spec = spec_from_file_location(name, path.resolve())
    assert spec is not None and spec.loader is not None  # of a file that ends in .py
    module = sys.modules[name] = module_from_spec(spec)  # there before it runs: its classes are pickled by that name
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UsageError(f"--plugin {path}, line {_line(error, path)}: {type(error).__name__}: {error}") from error


def _line(error: Exception, path: Path) -> int | None:
    """The line of the file from which an error comes."""
    if isinstance(error, SyntaxError):
        return error.lineno
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path.resolve()
    ]
    return lines[-1] if lines else None
