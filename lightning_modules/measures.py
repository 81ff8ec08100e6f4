"""The measures that networks are evaluated by: what each is called, its unit, and which way is better.

A row of results names its measure; whoever shows the row asks here how. A task registers measures of its own:

    register_measure(Measure("fid", "FID", "", better="lower", scale=1))
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from fnmatch import fnmatchcase

POINTS = "percentage points"
"""The unit of shares, which are stored from 0 to 1 and shown from 0 to 100."""

CHANCE = "chance"
"""The measure that says what a guesser reaches in the headline; a domain's networks are compared with it."""


@dataclass(frozen=True)
class Measure:
    """One measure, or, where the name holds a `*`, a family of them such as `iou/*`.

    Raises:
        ValueError: `better` is neither "higher" nor "lower".
    """

    name: str
    """What rows of results and logged metrics call it; `DOMAIN/NAME` in metrics."""
    label: str
    """What a reader is shown; a `*` in it stands for the part of the name that the family leaves open."""
    unit: str = POINTS
    """Of the shown value, in words; empty for a number without a unit."""
    better: str = "higher"
    """"higher" or "lower"."""
    scale: float = 100.0
    """Times the stored value is the shown one: 100 for shares."""
    digits: int = 1
    """Decimals that are shown."""
    luck: float = 1.0
    """Times chance that a guesser may come to; see `chance`."""

    def __post_init__(self):
        if self.better not in ("higher", "lower"):
            raise ValueError(f"measure {self.name}: better is higher or lower, not {self.better!r}.")

    @property
    def smaller_is_better(self) -> bool:
        return self.better == "lower"

    @property
    def is_share(self) -> bool:
        """Whether 0 and 100 are the ends of what is shown."""
        return self.unit == POINTS

    @property
    def axis(self) -> str:
        """What stands at an axis: label and unit."""
        unit = "per cent" if self.is_share else self.unit
        return f"{self.label}, {unit}" if unit else self.label

    @property
    def family(self) -> str:
        """What the names of a family begin with, as `iou`; empty for a single measure."""
        return self.name.partition("/")[0] if "*" in self.name else ""

    def text(self, value: float) -> str:
        """A stored value as a reader is shown it, without the unit."""
        shown = round(self.scale * float(value), self.digits) + 0.0  # never -0.0
        return "–" if math.isnan(shown) else f"{shown:.{self.digits}f}"


_REGISTRY: dict[str, Measure] = {}


def register_measure(measure: Measure) -> Measure:
    """Make a measure known by its name, in place of one of that name; returns it."""
    _REGISTRY[measure.name] = measure
    return measure


def registered() -> dict[str, Measure]:
    """All measures by name, in the order in which they were registered."""
    return dict(_REGISTRY)


def find_measure(name: str, among: Mapping[str, Measure] | None = None) -> Measure | None:
    """The measure of a name, that of `iou/road` from the family `iou/*`; None where there is none.

    Args:
        among: measures by name, before those that are registered.
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
    """The measure of a name, as `find_measure` finds it.

    Raises:
        ValueError: there is none; one sentence that says which there are.
    """
    found = find_measure(name, among)
    if found is None:
        known = ", ".join(dict.fromkeys([*(among or ()), *_REGISTRY]))
        raise ValueError(f"no measure is called {name!r}: register it by register_measure, or use one of {known}.")
    return found


def families(names: Iterable[str], among: Iterable[str] = ()) -> dict[str, list[str]]:
    """Names of the form FAMILY/MEMBER by family, of the families that are registered or are `among` other measures."""
    found: dict[str, list[str]] = {}
    known = {*_REGISTRY, *among}
    for name in names:
        family = name.partition("/")[0]
        if f"{family}/*" in known and "/" in name:
            found.setdefault(family, []).append(name)
    return found


def headline_of(names: Iterable[str]) -> str | None:
    """The measure that results are told by where nobody has said it: of those that there are the first registered."""
    names = set(names)
    return next((name for name in _REGISTRY if name in names), None)


def measures_to_plain(names: Iterable[str]) -> list[dict]:
    """Measures as plain dictionaries, for a run's folder: whoever reads it may not know a user's own."""
    return [asdict(measure_of(name)) for name in names]


def measures_from_plain(written: Iterable[Mapping]) -> dict[str, Measure]:
    """What `measures_to_plain` wrote, by name. Raises ValueError or TypeError where it is no such thing."""
    known = {field.name for field in fields(Measure)}
    found = [Measure(**{key: value for key, value in each.items() if key in known}) for each in written]
    return {measure.name: measure for measure in found}


for _measure in (
    Measure("miou", "mIoU"),
    Measure("top1", "top-1", luck=1.2),  # a guesser has luck on a few hundred images
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
