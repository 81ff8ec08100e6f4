"""The norms by name, each with its `NormSpec`. This module does not import torch, which loads slowly.

Each norm of this library is one file of `normshift/norms/`, named after the norm and imported when the norm is first
used. A user's own norm is one file anywhere. Both call `register_norm(NormSpec(...))`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

NAME = re.compile(r"[a-z0-9]+([-_.][a-z0-9]+)*")

COLOUR = re.compile(r"#[0-9a-fA-F]{6}")

DASHES = ("solid", "dashed", "dotted", "dash-dot")

MARKERS = frozenset("ov^<>8spP*hH+xXDd|_.,1234")
"""Matplotlib's markers of one character."""

PLACEMENTS = ("everywhere", "ibn-a", "ibn-b")


@dataclass(frozen=True)
class GateSpec:
    """How figures and tables show one kind of gate.

    Attributes:
        statistic: the kind of gate, as in the layer's `GateParameter` and in tables: "mean", "var", "rho".
        title: its name in figures; by default the statistic.
        ends: for gates with one value for each channel (BIN's rho): names of the statistics that a channel uses at 0
            and at 1, such as ("in", "bn").
        note: a remark for the report, such as the initial value.

    Raises:
        ValueError: `ends` is no pair of names.
    """

    statistic: str
    title: str = ""
    ends: tuple[str, str] = ("0", "1")
    note: str = ""

    def __post_init__(self):
        if isinstance(self.ends, str) or len(self.ends) != 2 or not all(isinstance(end, str) for end in self.ends):
            raise ValueError(f"gate {self.statistic!r}: ends are two names, such as ('in', 'bn'); got {self.ends!r}.")

    @property
    def heading(self) -> str:
        return self.title or self.statistic


@dataclass(frozen=True, eq=False)
class NormSpec:
    """Everything that the library and the studies know about a norm. Calling it creates a layer.

    `NORMS["sn"](64)` is a layer for images with 64 channels, `NORMS["sn"](64, dims=1)` one for sequences.

    Attributes:
        name: the name that `convert` and every `--norm` flag accept; lower-case letters and digits.
        what: the norm in words.
        layer: a callable that creates a layer from its number of channels, such as a class of norm layers; or its
            location "module:name", imported when needed, where "{dims}" stands for 1, 2 or 3.
        settings: further arguments of `layer`.
        dims: the numbers of spatial dimensions that the norm supports.
        paper: authors, venue and year of the paper that proposed it.
        placement: "everywhere", or IBN-Net's scheme ("ibn-a", "ibn-b"), which `convert` applies.
        needs_batch: whether training fails on a single image with one position, because the norm uses the batch.
        synchronized: whether its layers pool batch statistics over all processes by themselves, on GPUs only.
        gates: how each kind of gate of its layers is shown; kinds that are missing here get a default style.
        colour: colour of its line in figures, such as "#117733"; by default one that no other norm has.
        dash: "solid", "dashed", "dotted" or "dash-dot".
        marker: marker of its line, one of matplotlib's single characters.

    Raises:
        ValueError: an attribute has a value that is not allowed.
    """

    name: str
    what: str
    layer: str | Callable[..., nn.Module]
    settings: Mapping[str, Any] = field(default_factory=dict)
    dims: tuple[int, ...] = (1, 2, 3)
    paper: str = ""
    placement: str = "everywhere"
    needs_batch: bool = False
    synchronized: bool = False
    gates: tuple[GateSpec, ...] = ()
    colour: str | None = None
    dash: str = "solid"
    marker: str = "o"

    def __post_init__(self):
        if not NAME.fullmatch(self.name):
            raise ValueError(f"a norm's name is lower-case letters and digits, such as my-norm; got {self.name!r}.")
        named = isinstance(self.layer, str) and self.layer.count(":") == 1
        if not named and (isinstance(self.layer, str) or not callable(self.layer)):
            raise ValueError(f"norm {self.name!r}: layer makes a layer, or is 'module:name'; got {self.layer!r}.")
        if not self.dims or not {*self.dims} <= {1, 2, 3}:
            raise ValueError(f"norm {self.name!r}: dims are some of 1, 2 and 3; got {self.dims!r}.")
        self._check_style()

    def _check_style(self) -> None:
        """A figure is drawn at the end of a training, which is late to find a colour that does not exist."""
        if self.colour is not None and not COLOUR.fullmatch(self.colour):
            raise ValueError(f"norm {self.name!r}: a colour is written as '#117733'; got {self.colour!r}.")
        known = {"placement": PLACEMENTS, "dash": DASHES, "marker": sorted(MARKERS)}
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise ValueError(
                    f"norm {self.name!r}: {name} is one of {' '.join(values)}; got {getattr(self, name)!r}."
                )

    def __call__(self, num_features: int, dims: int = 2) -> nn.Module:
        """A new layer with `num_features` channels for maps of `dims` spatial dimensions.

        Raises:
            ValueError: the norm does not support this number of dimensions.
        """
        if dims not in self.dims:
            known = " and ".join(f"{d}d" for d in self.dims)
            raise ValueError(f"{self.what} exists for {known} maps, not for {dims}d ones.")
        return self._made_by(dims)(num_features, **self.settings)

    def _made_by(self, dims: int) -> Callable[..., nn.Module]:
        if not isinstance(self.layer, str):
            return self.layer
        module, _, name = self.layer.format(dims=dims).partition(":")
        return getattr(import_module(module), name)


class Norms(Mapping[str, NormSpec]):
    """Norms by name. The names need no import; a file of `normshift/norms/` is imported when its norm is first used."""

    def __init__(self, folder: Path, package: str):
        files = sorted(file.stem for file in folder.glob("*.py") if file.stem != "__init__")
        self._files = {stem.replace("_", "-"): f"{package}.{stem}" for stem in files}
        self._known: dict[str, NormSpec] = {}
        self._owners: dict[str, str] = {}  # the module that has registered each

    def __getitem__(self, name: str) -> NormSpec:
        if name not in self._known and name in self._files:
            import_module(self._files[name])  # it registers the norm
        return self._known[name]

    def __contains__(self, name: object) -> bool:
        return name in self._files or name in self._known

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self._files, *self._known)))

    def __len__(self) -> int:
        return len({*self._files, *self._known})

    def add(self, spec: NormSpec, caller: str) -> None:
        """Add a norm that module `caller` registers. Raises ValueError if another norm has the name, which another
        module has registered or whose layer another module defines."""
        before = self._known.get(spec.name)
        owner = self._owners[spec.name] if before else self._files.get(spec.name, caller)
        if owner != caller or (before and _module(before) != _module(spec)):
            raise ValueError(f"there is a norm {spec.name!r} already, {self[spec.name].what}: give yours another name.")
        self._known[spec.name], self._owners[spec.name] = spec, caller


def _module(spec: NormSpec) -> str:
    """The module that defines a norm's layer."""
    return spec.layer if isinstance(spec.layer, str) else getattr(spec.layer, "__module__", "")


NORMS = Norms(Path(__file__).with_name("norms"), "normshift.norms")
"""What `convert` and every `--norm` flag accept."""


def register_norm(spec: NormSpec) -> NormSpec:
    """Add a norm to `NORMS`, so that `convert`, `--norm`, gates, figures and `fold` accept it.

    A layer class without a `norm_name` of its own gets the norm's name, under which its gates are recorded.
    A module may register its norm again, as a notebook cell does that runs again.

    Returns:
        `spec`.

    Raises:
        ValueError: another module has registered a norm with this name.
    """
    NORMS.add(spec, sys._getframe(1).f_globals.get("__name__", ""))
    if isinstance(spec.layer, type) and hasattr(spec.layer, "norm_name") and "norm_name" not in vars(spec.layer):
        spec.layer.norm_name = spec.name
    return spec


def norm_spec(name: str) -> NormSpec:
    """The entry of `NORMS`; raises a ValueError that lists all names if there is none."""
    if name not in NORMS:
        raise ValueError(f"unknown norm {name!r}: choose from {', '.join(NORMS)}.")
    return NORMS[name]


def gate_spec(norm: str, statistic: str) -> GateSpec | None:
    """How gates of this statistic are shown; None if the norm is unknown or does not specify it."""
    known = NORMS[norm].gates if norm in NORMS else ()
    return next((gate for gate in known if gate.statistic == statistic), None)
