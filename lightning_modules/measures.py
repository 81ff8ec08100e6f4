"""The measures by which networks are evaluated: name, unit, and whether higher or lower is better.

A row of results has the name of its measure; tables and figures look up here how to show it. A task registers measures
of its own:

    register_measure(Measure("fid", "FID", "", better="lower", scale=1))
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from fnmatch import fnmatchcase

POINTS = "percentage points"
"""The unit of shares, which are stored as 0 to 1 and shown as 0 to 100."""

CHANCE = "chance"
"""The measure with the headline's value for random guessing, which networks are compared with."""


@dataclass(frozen=True)
class Measure:
    """One measure, or, if the name contains a `*`, a family of measures such as `iou/*`.

    Raises:
        ValueError: `better` is neither "higher" nor "lower".
    """

    name: str
    """Its name in rows of results, and in logged metrics as `DOMAIN/NAME`."""
    label: str
    """Its name in tables and figures; a `*` is replaced by the member's name, such as "road" of `iou/road`."""
    unit: str = POINTS
    """The unit of the shown value, in words; empty for a number without a unit."""
    better: str = "higher"
    """"higher" or "lower"."""
    scale: float = 100.0
    """The shown value is the stored one times this: 100 for shares."""
    digits: int = 1
    """Decimals of the shown value."""
    luck: float = 1.0
    """Up to this factor times `chance`, a result counts as random guessing."""

    def __post_init__(self):
        if self.better not in ("higher", "lower"):
            raise ValueError(f"measure {self.name}: better is higher or lower, not {self.better!r}.")

    @property
    def smaller_is_better(self) -> bool:
        return self.better == "lower"

    @property
    def is_share(self) -> bool:
        """Whether shown values are between 0 and 100."""
        return self.unit == POINTS

    @property
    def axis(self) -> str:
        """The label of an axis, with the unit."""
        unit = "per cent" if self.is_share else self.unit
        return f"{self.label}, {unit}" if unit else self.label

    @property
    def family(self) -> str:
        """The first part of the names in a family, such as `iou`; empty for a single measure."""
        return self.name.partition("/")[0] if "*" in self.name else ""

    def text(self, value: float) -> str:
        """A stored value as it is shown, without the unit."""
        shown = round(self.scale * float(value), self.digits) + 0.0  # never -0.0
        return "–" if math.isnan(shown) else f"{shown:.{self.digits}f}"


_REGISTRY: dict[str, Measure] = {}


def register_measure(measure: Measure) -> Measure:
    """Add a measure, or replace the one of the same name; returns it."""
    _REGISTRY[measure.name] = measure
    return measure


def registered() -> dict[str, Measure]:
    """All measures by name, in the order in which they were registered."""
    return dict(_REGISTRY)


def find_measure(name: str, among: Mapping[str, Measure] | None = None) -> Measure | None:
    """The measure with a name, or from the name's family (`iou/road` from `iou/*`); None if there is none.

    Args:
        among: measures by name, which are searched before the registered ones.
    """
    for known in filter(None, (among, _REGISTRY)):
        if name in known:
            return known[name]
        for pattern, found in known.items():
            if "*" in pattern and fnmatchcase(name, pattern):
                start, _, end = pattern.partition("*")
                rest = name[len(start) : len(name) - len(end)]
                return replace(found, name=name, label=found.label.replace("*", rest))
    return None


def measure_of(name: str, among: Mapping[str, Measure] | None = None) -> Measure:
    """The measure with a name, as `find_measure`.

    Raises:
        ValueError: there is none; the message lists all measures.
    """
    found = find_measure(name, among)
    if found is None:
        known = ", ".join(dict.fromkeys([*(among or ()), *_REGISTRY]))
        raise ValueError(f"no measure is called {name!r}: register it by register_measure, or use one of {known}.")
    return found


def families(names: Iterable[str], among: Iterable[str] = ()) -> dict[str, list[str]]:
    """The names that belong to a family, by family; families are those that are registered or in `among`."""
    found: dict[str, list[str]] = {}
    known = {*_REGISTRY, *among}
    for name in names:
        family = name.partition("/")[0]
        if f"{family}/*" in known and "/" in name:
            found.setdefault(family, []).append(name)
    return found


def headline_of(names: Iterable[str]) -> str | None:
    """The default headline of results with these measures: the one that was registered first."""
    names = set(names)
    return next((name for name in _REGISTRY if name in names), None)


def measures_to_plain(names: Iterable[str]) -> list[dict]:
    """Measures as dictionaries, which a run's folder contains so that it can be read without a user's own code."""
    return [asdict(measure_of(name)) for name in names]


def measures_from_plain(written: Iterable[Mapping]) -> dict[str, Measure]:
    """The measures that `measures_to_plain` has written, by name. Raises ValueError or TypeError for other data."""
    known = {field.name for field in fields(Measure)}
    found = [Measure(**{key: value for key, value in each.items() if key in known}) for each in written]
    return {measure.name: measure for measure in found}


for _measure in (
    Measure("miou", "mIoU"),
    Measure("top1", "top-1", luck=1.2),  # on a few hundred images, guessing may exceed chance
    Measure("top5", "top-5"),
    Measure("loss", "loss", "nats", better="lower", scale=1, digits=3),
    Measure("iou/*", "IoU of *"),
    Measure(CHANCE, "chance"),
    Measure("nll", "NLL", "nats", better="lower", scale=1),
    Measure("ece", "calibration error", better="lower"),
    Measure("consistency", "shift consistency"),
    Measure("error", "error", better="lower"),
    Measure("flip", "flip probability", better="lower"),
    Measure("top5_distance", "top-5 distance", "ranks", better="lower", scale=1, digits=2),
    Measure("latency", "latency", "milliseconds an image", better="lower", scale=1, digits=2),
    Measure("drop", "drop", better="lower"),
    Measure("divergence", "feature divergence", "nats a channel", better="lower", scale=1, digits=3),
):
    register_measure(_measure)
