"""Loading the network of any checkpoint that a study has written."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from lightning_modules.classification.domain_adversarial import DomainAdversarialModule, DomainInvariantModule
from lightning_modules.classification.module import ClassificationModule
from lightning_modules.segmentation.module import SegmentationModule
from lightning_modules.study_module import StudyModule
from lightning_modules.weights import network_weights, read_checkpoint
from normshift import NORMS

MODULES = (SegmentationModule, ClassificationModule, DomainAdversarialModule, DomainInvariantModule)
"""The classes that a checkpoint may belong to if it does not say where its class is defined, as those of earlier
versions."""


def load_network(file: str | Path, kind: type[StudyModule] = StudyModule) -> Any:
    """The trained module of a checkpoint, of the class that the checkpoint names, on the CPU in evaluation mode.

    Args:
        kind: the class that the module must have or inherit from.

    Raises:
        ValueError: the file is not a study's checkpoint, is damaged, of an earlier version, or of another kind of
            network. The message is one sentence that begins with the file.
    """
    checkpoint = read_checkpoint(str(file))
    found = checkpoint.get("hyper_parameters") if isinstance(checkpoint, Mapping) else None
    found = found if isinstance(found, Mapping) else {}
    study = checkpoint.get("study") if found else None
    own = class_of(file, found, study.get("written_in") if isinstance(study, Mapping) else None)
    if not issubclass(own, kind):
        raise ValueError(f"{file} is of a {own.task} network: expected the checkpoint of a {kind.task} network.")
    lacking = [name for name in _required(own) if name not in found]
    if lacking or "module" not in found:
        raise ValueError(
            f"{file} is of an earlier version and cannot be rebuilt from itself: its hyper-parameters lack "
            f"{', '.join([*['module'] * ('module' not in found), *lacking])}; as weights to start from it still serves."
        )
    if found.get("norm", "bn") not in NORMS:
        raise ValueError(
            f"{file} is of a network under the norm {found['norm']!r}, which is none of {', '.join(NORMS)}: a norm of "
            "your own has to be registered first (--plugin FILE does so)."
        )
    try:
        network_weights(checkpoint)
        return own.load_from_checkpoint(file, map_location="cpu", weights_only=True).eval()
    except Exception as error:  # a wrong recipe, name or tensor may raise anything
        reason = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
        raise ValueError(f"{file} does not hold the network that it says it does: {reason}.") from error


def class_of(file: str | Path, hyper_parameters: Mapping, written_in: str | None = None) -> type:
    """The module class that a checkpoint's hyper-parameters belong to, also for checkpoints of earlier versions.

    Args:
        written_in: the Python module that the class is in. One in `lightning_modules` is imported; any other has to be
            already, as a plug-in is.

    Raises:
        ValueError: there is no such class here.
    """
    ours = isinstance(written_in, str) and re.fullmatch(r"lightning_modules(\.[A-Za-z_]\w*)+", written_in)
    if ours:
        with suppress(ModuleNotFoundError):  # it has been moved since
            import_module(written_in)
    known = {kind.__name__: kind for kind in (*_with_subclasses((StudyModule,)), *MODULES)}
    name = hyper_parameters.get("module")
    if name is None and isinstance(hyper_parameters.get("recipe"), Mapping):
        name = "SegmentationModule" if "norm_in" in hyper_parameters else "ClassificationModule"
    if name is None:
        raise ValueError(f"{file} is no checkpoint of a study: expected a network that a study here has trained.")
    if name not in known:
        kinds = ", ".join(kind.__name__ for kind in MODULES)
        from_where = f", written in {written_in}: pass its file by --plugin" if written_in and not ours else ""
        raise ValueError(f"{file} is of a {name}, which is none of {kinds}{from_where}.")
    return known[name]


def _with_subclasses(kinds: tuple[type, ...]) -> Iterator[type]:
    for kind in kinds:
        if kind is not StudyModule and not kind.__name__.startswith("_"):
            yield kind
        yield from _with_subclasses(tuple(kind.__subclasses__()))


def _required(kind: type) -> list[str]:
    """The required arguments of a module's constructor."""
    parameters = list(inspect.signature(kind).parameters.values())
    return [one.name for one in parameters if one.default is one.empty and one.kind is not one.VAR_KEYWORD]
