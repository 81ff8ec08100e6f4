"""The outlines of the shapes' classes, as SVG paths in a box from -50 to 50, x to the right and y down.

A class is a body, an accent that is painted over it (stems, handles, beaks), and lines (veins, ribs). In `body` and
`accent` a point within two contours is outside, so that a ring is two circles. Colour is nobody's: that is for styles.
"""

import re
from functools import lru_cache
from typing import NamedTuple

import numpy as np


class Outline(NamedTuple):
    body: str
    accent: str = ""
    lines: str = ""


OUTLINES = {
    "apple": Outline(
        "M 0 -22 C 12 -38 48 -34 45 4 C 43 32 24 50 9 46 C 4 44 -4 44 -9 46 C -24 50 -43 32 -45 4 "
        "C -48 -34 -12 -38 0 -22 Z",
        "M -3 -20 L -9 -45 L -2 -48 L 4 -20 Z M 4 -34 C 6 -50 24 -54 36 -48 C 32 -34 16 -28 4 -34 Z",
    ),
    "bell": Outline(
        "M 0 -42 C 22 -42 27 -24 29 -2 C 31 16 36 22 46 32 L -46 32 C -36 22 -31 16 -29 -2 C -27 -24 -22 -42 0 -42 Z",
        "M -11 33 C -11 52 11 52 11 33 Z M -6 -41 C -9 -54 9 -54 6 -41 Z",
        "M -33 18 C -12 22 12 22 33 18",
    ),
    "bird": Outline(
        "M -36 -24 C -34 -44 -8 -44 -5 -25 C 4 -14 22 -12 50 -30 C 48 -4 32 30 -2 30 C -28 30 -42 12 -36 -8 "
        "C -37 -13 -37 -18 -36 -24 Z",
        "M -34 -30 L -52 -19 L -34 -15 Z M -9 29 L -11 46 L -4 46 L -1 29 Z M 9 28 L 10 46 L 17 46 L 17 25 Z "
        "M -26 -25 C -26 -31.5 -16 -31.5 -16 -25 C -16 -18.5 -26 -18.5 -26 -25 Z",
        "M -12 -4 C -4 18 18 16 34 -8",
    ),
    "fish": Outline(
        "M -48 2 C -36 -22 -8 -30 16 -9 C 24 -6 30 -10 47 -28 C 42 -8 42 12 47 30 C 30 14 24 10 16 13 "
        "C -8 32 -36 24 -48 2 Z",
        "M -22 -17 C -14 -38 6 -38 16 -34 L 10 -13 Z M -37 -4 C -37 -10.5 -27 -10.5 -27 -4 C -27 2.5 -37 2.5 -37 -4 Z",
        "M -18 -12 C -12 -4 -12 8 -18 16",
    ),
    "leaf": Outline(
        "M 0 -50 C 24 -34 36 -12 30 10 C 26 26 14 34 0 38 C -14 34 -26 26 -30 10 C -36 -12 -24 -34 0 -50 Z",
        "M -3 36 L 3 36 L 7 53 L 0 54 Z",
        "M 0 38 L 0 -38 M 0 22 L 20 6 M 0 22 L -20 6 M 0 0 L 21 -16 M 0 0 L -21 -16 M 0 -20 L 13 -30 M 0 -20 L -13 -30",
    ),
    "light bulb": Outline(
        "M -14 20 C -14 4 -35 -2 -35 -20 C -35 -40 -18 -51 0 -51 C 18 -51 35 -40 35 -20 C 35 -2 14 4 14 20 Z",
        "M -15 20 L 15 20 L 15 28 L 12 41 L 5 50 L -5 50 L -12 41 L -15 28 Z",
        "M -6 20 L -13 -12 L -4 -4 L 0 -14 L 4 -4 L 13 -12 L 6 20",
    ),
    "mug": Outline(
        "M -38 -36 L 20 -36 L 20 -24 C 54 -34 56 26 19 22 C 18 36 12 44 2 44 L -20 44 C -32 44 -38 36 -38 20 Z "
        "M 20 -12 C 40 -18 40 14 20 10 Z",
        "M -38 -36 C -38 -46 20 -46 20 -36 C 20 -27 -38 -27 -38 -36 Z",
    ),
    "mushroom": Outline(
        "M -47 4 C -48 -28 -24 -47 0 -47 C 24 -47 48 -28 47 4 C 46 12 36 13 16 11 L -16 11 C -36 13 -46 12 -47 4 Z",
        "M -14 11 L 14 11 C 12 24 16 38 21 48 L -21 48 C -16 38 -12 24 -14 11 Z "
        "M -8 -36 C 2 -40 8 -26 -2 -22 C -12 -20 -16 -32 -8 -36 Z M 18 -22 C 28 -24 32 -10 22 -7 "
        "C 13 -6 11 -19 18 -22 Z "
        "M -26 -18 C -16 -19 -14 -6 -23 -4 C -33 -4 -34 -16 -26 -18 Z",
    ),
    "pear": Outline(
        "M 0 -34 C 14 -35 16 -22 19 -11 C 23 2 37 10 36 25 C 35 41 18 47 0 47 C -18 47 -35 41 -36 25 "
        "C -37 10 -23 2 -19 -11 "
        "C -16 -22 -14 -35 0 -34 Z",
        "M -4 -31 L 0 -52 L 8 -51 L 4 -31 Z",
        "M -24 20 C -23 31 -17 36 -8 38",
    ),
    "umbrella": Outline(
        "M -49 6 C -46 -28 -20 -45 0 -45 C 20 -45 46 -28 49 6 C 40 -5 27 -5 17 6 C 8 -4 -8 -4 -17 6 "
        "C -27 -5 -40 -5 -49 6 Z",
        "M -3 0 L 4 0 L 4 37 C 4 56 -23 56 -23 37 L -16 37 C -16 46 -3 46 -3 37 Z M -3 -44 L 0 -54 L 3 -44 Z",
        "M 0 -44 C -10 -30 -16 -14 -17 5 M 0 -44 C 10 -30 16 -14 17 5",
    ),
    "bottle": Outline(
        "M -9 -50 L 9 -50 L 9 -26 C 9 -14 23 -12 23 4 L 23 44 C 23 48 20 50 16 50 L -16 50 "
        "C -20 50 -23 48 -23 44 L -23 4 "
        "C -23 -12 -9 -14 -9 -26 Z",
        "M -23 8 L 23 8 L 23 34 L -23 34 Z M -11 -52 L 11 -52 L 11 -40 L -11 -40 Z",
    ),
    "house": Outline(
        "M -36 -4 L 36 -4 L 36 46 L -36 46 Z",
        "M -48 -2 L -28 -24 L -28 -42 L -14 -42 L -14 -38 L 0 -50 L 48 -2 Z M -8 46 L -8 18 L 10 18 L 10 46 Z",
        "M -28 8 L -18 8 L -18 20 L -28 20 L -28 8 M 20 8 L 30 8 L 30 20 L 20 20 L 20 8",
    ),
    "sailing boat": Outline(
        "M -46 18 L 46 18 C 42 34 34 44 22 46 L -24 46 C -36 44 -43 34 -46 18 Z",
        "M -3 18 L -3 -52 L 2 -52 L 2 18 Z M -6 -46 L -6 12 L -38 12 C -24 -4 -14 -22 -6 -46 Z "
        "M 6 -40 C 10 -20 20 0 34 12 L 6 12 Z",
    ),
    "heart": Outline(
        "M 0 -22 C -10 -48 -50 -44 -48 -10 C -46 14 -18 28 0 48 C 18 28 46 14 48 -10 C 50 -44 10 -48 0 -22 Z",
    ),
    "star": Outline(
        "M 0 -50 L 13 -16 L 49 -15 L 21 7 L 31 43 L 0 22 L -31 43 L -21 7 L -49 -15 L -13 -16 Z",
    ),
    "crescent": Outline(
        "M 16 -49 C -24 -50 -44 -24 -42 4 C -40 36 -10 54 24 43 C -2 36 -16 16 -14 -8 C -12 -28 0 -42 16 -49 Z",
    ),
    "key": Outline(
        "M -48 0 C -48 -29 -8 -29 -6 -6 L 48 -6 L 48 20 L 37 20 L 37 7 L 30 7 L 30 16 L 19 16 L 19 7 L -7 7 "
        "C -11 29 -48 29 -48 0 Z M -38 0 C -38 14 -17 14 -17 0 C -17 -14 -38 -14 -38 0 Z",
    ),
    "car": Outline(
        "M -49 22 L -49 4 C -47 -5 -36 -7 -28 -9 L -15 -28 C -13 -31 14 -31 18 -28 L 32 -8 C 44 -6 49 0 49 8 L 49 22 Z",
        "M -39 22 C -39 5 -13 5 -13 22 C -13 39 -39 39 -39 22 Z M 13 22 C 13 5 39 5 39 22 C 39 39 13 39 13 22 Z "
        "M -18 -10 L -10 -23 L -1 -23 L -1 -10 Z M 4 -23 L 13 -23 L 22 -10 L 4 -10 Z",
    ),
    "butterfly": Outline(
        "M 0 -14 C 10 -40 40 -50 48 -38 C 52 -20 44 -2 22 2 C 40 8 38 34 24 42 C 12 46 4 26 0 14 C -4 26 -12 46 -24 42 "
        "C -38 34 -40 8 -22 2 C -44 -2 -52 -20 -48 -38 C -40 -50 -10 -40 0 -14 Z",
        "M 0 -28 C 8 -26 6 24 0 34 C -6 24 -8 -26 0 -28 Z",
        "M -1 -26 C -4 -38 -8 -44 -14 -47 M 1 -26 C 4 -38 8 -44 14 -47",
    ),
    "aeroplane": Outline(
        "M 0 -52 C 6 -48 8 -36 8 -22 L 48 6 L 48 18 L 8 6 L 6 30 L 20 40 L 20 49 L 0 44 L -20 49 "
        "L -20 40 L -6 30 L -8 6 "
        "L -48 18 L -48 6 L -8 -22 C -8 -36 -6 -48 0 -52 Z",
        "M -4 -40 C -2 -46 2 -46 4 -40 L 4 -34 L -4 -34 Z",
    ),
}  # fmt: skip
"""The classes. Each is close to another seen from a little way off: pear and bulb, bell and mushroom, fish and leaf."""

FRAGMENTS = (
    "M -50 -8 L 50 -8 L 50 8 L -50 8 Z",
    "M -46 26 L 46 14 L -10 -40 Z",
    "M -46 16 C -46 -36 46 -36 46 16 Z",
    "M -44 34 C -48 -50 48 -50 44 34 L 24 34 C 26 -24 -26 -24 -24 34 Z",
    "M -50 12 L -20 -26 L 4 4 L 30 -30 L 50 -10 L 30 8 L 4 36 L -18 8 L -40 30 Z",
    "M -40 -42 L -14 -42 L -14 16 L 42 16 L 42 42 L -40 42 Z",
    "M -44 -6 C -44 -34 -12 -42 8 -32 C 28 -22 46 -24 44 2 C 42 34 4 24 -10 32 C -28 42 -44 22 -44 -6 Z",
    "M -46 10 C -36 -30 0 -44 40 -26 C 52 -18 40 -6 28 -6 C 4 -6 -10 8 -18 28 C -26 42 -50 30 -46 10 Z",
    "M -38 -38 L 40 -28 L 30 40 L -44 30 Z",
    "M 30 -40 C -20 -62 -62 -10 -36 28 C -18 52 20 50 38 30 L 24 14 C 8 30 -10 28 -18 12 C -28 -12 -6 -34 18 -22 Z",
    "M -12 -48 L 12 -48 L 12 -12 L 48 -12 L 48 12 L 12 12 L 12 48 L -12 48 L -12 12 L -48 12 L -48 -12 L -12 -12 Z",
    "M -50 -14 C -30 -34 -14 6 6 -14 C 22 -30 34 -22 50 -10 L 46 10 C 30 -4 22 -8 8 6 C -14 26 -32 -12 -46 6 Z",
)  # fmt: skip
"""Pieces of clutter, which are no class's shape."""

STEPS = 6
"""Straight pieces that a curve is drawn with."""
FRAGMENT_POINTS = 24

_T = np.arange(1, STEPS + 1) / STEPS
_BEZIER = np.stack([(1 - _T) * (1 - _T) * (1 - _T), 3 * _T * (1 - _T) * (1 - _T), 3 * _T * _T * (1 - _T), _T * _T * _T])

Point = tuple[float, float]


def contours(path: str) -> list[list[Point]]:
    """The contours of an SVG path of absolute M, L, C and Z: points (x, y) in the path's units."""
    found: list[list[Point]] = []
    for command, text in re.findall(r"([MLCZ])([^MLCZ]*)", path):
        numbers = [float(number) for number in text.split()]
        pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
        if command == "M":
            found.append(pairs)
        elif command == "L":
            found[-1] += pairs
        elif command == "C":
            for at in range(0, len(pairs), 3):
                found[-1] += _curve(found[-1][-1], *pairs[at : at + 3])
    return found


def _curve(*controls: Point) -> list[Point]:
    """A cubic Bezier curve without its first point."""
    x, y = (sum(weight * p[axis] for weight, p in zip(_BEZIER, controls, strict=True)) for axis in (0, 1))
    return list(zip(x.tolist(), y.tolist(), strict=True))


class Traced(NamedTuple):
    """An outline as points: (2, N) x and y in half sides of the box, -1 to 1; `body`, `accent` and `lines` are the
    slices of their contours."""

    points: np.ndarray
    body: tuple[slice, ...]
    accent: tuple[slice, ...]
    lines: tuple[slice, ...]


@lru_cache(maxsize=64)
def traced(name: str) -> Traced:
    """The outline of a class."""
    points: list[Point] = []
    roles = []
    for path in OUTLINES[name]:
        slices = []
        for contour in contours(path):
            slices.append(slice(len(points), len(points) + len(contour)))
            points += contour
        roles.append(tuple(slices))
    return Traced(np.array(points).T.copy() / 50, *roles)


@lru_cache(maxsize=1)
def fragments() -> np.ndarray:
    """All fragments, (len(FRAGMENTS), 2, FRAGMENT_POINTS) in half sides of the box: equally long, for one array."""
    found = []
    for path in FRAGMENTS:
        (points,) = contours(path)
        while len(points) > FRAGMENT_POINTS:
            points.pop(min(range(len(points)), key=lambda at: _span(points[at - 1], points[(at + 1) % len(points)])))
        while len(points) < FRAGMENT_POINTS:
            at = max(range(len(points)), key=lambda at: _span(points[at - 1], points[at]))
            (ax, ay), (bx, by) = points[at - 1], points[at]
            points.insert(at, ((ax + bx) / 2, (ay + by) / 2))
        found.append(np.array(points).T / 50)
    return np.stack(found)


def _span(a: Point, b: Point) -> float:
    return (a[0] - b[0]) * (a[0] - b[0]) + (a[1] - b[1]) * (a[1] - b[1])
