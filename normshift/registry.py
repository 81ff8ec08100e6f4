"""The norms by name, and all that is to be known about each: without torch, which loads slowly.

A norm of this library is one file of `normshift/norms/`, whose name is the norm's and which is read when the norm
is first asked for. A norm of a user's is one file, too, anywhere; both end in `register_norm(NormSpec(...))`.
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
    """How the values of one kind of gate are read and drawn.

    Attributes:
        statistic: which gate, as its layer's `GateParameter` has it and as tables have it: "mean", "var", "rho".
        title: what figures call it; by default the statistic.
        ends: of gates that each channel has one of (BIN's rho; those that their layer gives no labels): names of the
            statistics that a channel uses at 0 and at 1, such as ("in", "bn").
        note: for the report, such as where it starts.

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
    """All that there is to know about a norm; called, it makes a layer.

    `NORMS["sn"](64)` is the layer for images of 64 channels, `NORMS["sn"](64, dims=1)` the one for sequences.

    Attributes:
        name: in lower-case letters, what `convert` and every `--norm` flag take it by.
        what: the same in words.
        layer: what makes a layer of so many channels, such as a class of norm layers; or that as "module:name", which
            is imported when it is needed, "{dims}" in it being 1, 2 or 3.
        settings: further arguments of `layer`.
        dims: spatial dimensions of the maps that it exists for.
        paper: authors, venue and year of the paper that proposed it.
        placement: "everywhere", or the name of IBN-Net's scheme ("ibn-a" or "ibn-b"), which `convert` carries out.
        needs_batch: training fails on one image of one position, for want of a batch.
        synchronized: takes batch statistics over all processes by itself, and on GPUs only.
        gates: how each kind of gate that its layers announce is drawn; gates that are missing here are drawn plainly.
        colour: of its line in figures, such as "#117733"; without one it takes what is free.
        dash: "solid", "dashed", "dotted" or "dash-dot".
        marker: of its line, one of matplotlib's of one character.

    Raises:
        ValueError: one of these is not what it has to be.
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
        """A fresh layer of `num_features` channels for `dims` spatial dimensions."""
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
    """Norms by name. The names cost nothing; a file of `normshift/norms/` is read when its norm is first asked for."""

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
        """Raises ValueError where another norm has the name: of another module than `caller`, or with a layer of
        another."""
        before = self._known.get(spec.name)
        owner = self._owners[spec.name] if before else self._files.get(spec.name, caller)
        if owner != caller or (before and _module(before) != _module(spec)):
            raise ValueError(f"there is a norm {spec.name!r} already, {self[spec.name].what}: give yours another name.")
        self._known[spec.name], self._owners[spec.name] = spec, caller


def _module(spec: NormSpec) -> str:
    """The module that a norm's layer is from."""
    return spec.layer if isinstance(spec.layer, str) else getattr(spec.layer, "__module__", "")


NORMS = Norms(Path(__file__).with_name("norms"), "normshift.norms")
"""What `convert` and every `--norm` flag accept."""


def register_norm(spec: NormSpec) -> NormSpec:
    """Let a norm be one of `NORMS`: `convert`, `--norm`, gates, figures and `fold` then know it.

    A class of layers that says no `norm_name` of its own gets the norm's name, under which its gates are recorded.
    The module that has registered a norm may do so again, as a notebook's cell does that runs again.

    Returns:
        The same.

    Raises:
        ValueError: another module has registered a norm of that name.
    """
    NORMS.add(spec, sys._getframe(1).f_globals.get("__name__", ""))
    if isinstance(spec.layer, type) and hasattr(spec.layer, "norm_name") and "norm_name" not in vars(spec.layer):
        spec.layer.norm_name = spec.name
    return spec


def norm_spec(name: str) -> NormSpec:
    """The entry of `NORMS`, or a ValueError that lists the names there are."""
    if name not in NORMS:
        raise ValueError(f"unknown norm {name!r}: choose from {', '.join(NORMS)}.")
    return NORMS[name]


def gate_spec(norm: str, statistic: str) -> GateSpec | None:
    """How a norm's gates of that statistic are drawn; None where the norm is not known or does not say."""
    known = NORMS[norm].gates if norm in NORMS else ()
    return next((gate for gate in known if gate.statistic == statistic), None)
