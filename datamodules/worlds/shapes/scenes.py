"""What a picture of a shape shows, before any style: an object in some pose among fragments, and the light on it.

A scene is planned in units of the image's side, so that every size shows the same one, and then rasterised: how much of
each pixel belongs to the ground, the clutter, the object's body and its accent, and where its lines run. Dice roll the
same everywhere, poses use + - * / only and OpenCV's integer rasteriser draws, so that machines agree to the bit.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

from datamodules.worlds.dice import Dice
from datamodules.worlds.shapes.outlines import FRAGMENT_POINTS, Traced, fragments, traced

CLUTTER, OTHER, BODY, ACCENT, LINES = range(5)
"""What is drawn: clutter of two tints, and the object's body, accent and inner lines. All but the lines have a plane of
their own in a canvas; what they leave is the ground."""

TILT = 0.33
"""Tangent of half the largest rotation: 37 degrees to either side."""
EXTENT = (0.52, 0.9)
"""The object's longer side in image sides."""
MARGIN = 0.02
"""What the object keeps from the image's edge, in image sides."""
ASPECT, SHEAR, BEND, TAPER = (0.82, 1.2), 0.2, 0.14, 0.16
BEHIND, BEFORE = (2, 3, 4), (0, 1)
"""How many fragments may be behind the object, and on its edge."""
FRAGMENT_EXTENT, OCCLUDER_EXTENT = (0.16, 0.36), (0.14, 0.26)
LIGHTS = ((-0.6, -0.8), (0.6, -0.8), (-0.8, -0.6), (0.8, -0.6), (0.0, -1.0), (-0.96, -0.28), (0.96, -0.28))

FINE = 2
"""Pixels of a canvas along one of the image."""
SUBPIXEL = 4
"""Fractional bits of the coordinates that OpenCV gets."""
HALF = 1 << SUBPIXEL - 1
"""Half a pixel in such coordinates, which OpenCV counts from a pixel's centre."""

Contours = Sequence[np.ndarray]


class Scene(NamedTuple):
    """A planned picture.

    Attributes:
        points: (N, 2) x and y of all contours in image sides, (0, 0) at the upper left corner: the object's, as `trace`
            slices them, then FRAGMENT_POINTS for each fragment.
        tints: CLUTTER or OTHER for each fragment. behind: how many of them the object hides; the others hide it.
        light: unit vector (x, y) towards the lamp.
    """

    points: np.ndarray
    trace: Traced
    tints: list[int]
    behind: int
    light: tuple[float, float]


def turn(dice: Dice, tilt: float) -> tuple[float, float]:
    """Cosine and sine of an angle whose half has a tangent of at most `tilt`: exact arithmetic, no library's cosine."""
    t = dice.between(-tilt, tilt)
    return (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)


def plan(name: str, dice: Dice) -> Scene:
    """A scene with an object of that class. The dice are rolled alike for every class."""
    light = dice.pick(LIGHTS)
    trace = traced(name)
    thing = _posed(trace.points, dice)
    behind, before = dice.pick(BEHIND), dice.pick(BEFORE)
    pieces, tints = _scattered(behind, before, thing[:, trace.body[0]], dice)
    return Scene(np.concatenate((thing, pieces), 1).T.copy(), trace, tints, behind, light)


def _posed(points: np.ndarray, dice: Dice) -> np.ndarray:
    """Points (2, N) bent, tapered, squeezed, sheared, mirrored, turned, scaled and moved to lie within the image."""
    bend, taper = dice.between(-BEND, BEND), dice.between(-TAPER, TAPER)
    aspect, shear = dice.between(*ASPECT), dice.between(-SHEAR, SHEAR)
    mirror = -aspect if dice.chance(0.5) else aspect
    (cos, sin), extent = turn(dice, TILT), dice.between(*EXTENT)
    x, y = points[0], points[1]
    x = x + y * (taper * x + bend * y)
    axes = np.array([[cos * mirror, cos * shear - sin / aspect], [sin * mirror, sin * shear + cos / aspect]])
    posed = axes[:, :1] * x + axes[:, 1:] * y
    low, high = posed.min(1).tolist(), posed.max(1).tolist()
    span = high[0] - low[0], high[1] - low[1]
    scale = extent / max(span)
    posed *= scale
    room = [1 - 2 * MARGIN - scale * side for side in span]
    shift = [MARGIN + free * dice.between(0, 1) - start * scale for free, start in zip(room, low, strict=True)]
    posed += np.array(shift)[:, None]
    return posed


@lru_cache(maxsize=1)
def poses() -> np.ndarray:
    """Fragments turned and squeezed in advance, (2, poses, FRAGMENT_POINTS) in half sides of their box."""
    dice, found = Dice(17), []
    for x, y in np.repeat(fragments(), 32, 0):
        squeeze, (cos, sin) = dice.between(0.7, 1.4), turn(dice, 1.0)
        x, y = x * squeeze, y / squeeze
        found.append((cos * x - sin * y, sin * x + cos * y))
    return np.stack(found, 1)


def _scattered(behind: int, before: int, edge: np.ndarray, dice: Dice) -> tuple[np.ndarray, list[int]]:
    """Points (2, N) and tints of fragments: `behind` of them anywhere, `before` with their centres on `edge` (2, M)."""
    kinds, tints, sizes, across, down = [], [], [], [], []
    known = poses()
    for number in range(behind + before):
        kinds.append(dice.word() * known.shape[1] >> 32)
        tints.append((CLUTTER, OTHER)[dice.word() & 1])
        if number < behind:
            sizes.append(dice.between(*FRAGMENT_EXTENT) / 2)
            x, y = dice.between(0, 1), dice.between(0, 1)
        else:
            sizes.append(dice.between(*OCCLUDER_EXTENT) / 2)
            x, y = edge[:, dice.word() * edge.shape[1] >> 32].tolist()
        across.append(x)
        down.append(y)
    placed = np.array([sizes, across, down])[..., None]
    pieces = known.take(kinds, 1)
    pieces *= placed[0]
    pieces += placed[1:]
    return pieces.reshape(2, -1), tints


PRESSURE = {CLUTTER: 170, OTHER: 210, BODY: 235, LINES: 170, ACCENT: 220}
"""How dark a pencil draws each."""

_ONE = ((255, 0, 0, 0), (0, 255, 0, 0), (0, 0, 255, 0), (0, 0, 0, 255))


class Raster:
    """A scene at one image size; planes are drawn when a style asks for them, for no style needs all.

    Attributes:
        thing: (N, 2) the object's points, in image sides.
    """

    def __init__(self, scene: Scene, size: int):
        self.scene, self.size = scene, size
        self.thing = scene.points[: scene.trace.points.shape[1]]

    def _order(self, fine: int) -> list[tuple[int, Contours]]:
        """What there is to draw, from the farthest to the nearest: CLUTTER, OTHER, BODY, ACCENT or LINES, and where in
        fixed-point pixels, `fine` along one of the image's."""
        trace, behind = self.scene.trace, self.scene.behind
        pixels = (self.scene.points * (self.size * fine << SUBPIXEL) - HALF).astype(np.int32)
        shapes = pixels[len(self.thing) :].reshape(-1, 1, FRAGMENT_POINTS, 2)
        pieces = [(tint, shapes[number]) for number, tint in enumerate(self.scene.tints)]
        roles = ((BODY, trace.body), (LINES, trace.lines), (ACCENT, trace.accent))
        thing = [(role, [pixels[part] for part in parts]) for role, parts in roles if parts]
        return pieces[:behind] + thing + pieces[behind:]

    def canvas(self, line: float = 0.022) -> np.ndarray:
        """What each point shows, FINE times as fine as the image: uint8 (side, side, 4), 255 for the planes to share.

        Inner lines, `line` image sides wide, lie in the accent's plane.
        """
        canvas = np.zeros((self.size * FINE, self.size * FINE, 4), np.uint8)
        for role, contours in self._order(FINE):
            if role == LINES:
                thick = max(1, round(self.size * FINE * line))
                cv2.polylines(canvas, contours, False, _ONE[ACCENT], thick, cv2.LINE_AA, SUBPIXEL)
            else:
                cv2.fillPoly(canvas, contours, _ONE[role], 8, SUBPIXEL)
        return canvas

    def pencil(self, dice: Dice) -> np.ndarray:
        """Outlines and inner lines, the object's gone over twice by an unsteady hand: uint8 (size, size)."""
        thick, unit = max(1, round(self.size * 0.011)), self.size << SUBPIXEL
        canvas = np.zeros((self.size, self.size), np.uint8)
        grow = dice.between(0.97, 1.03)
        shift = [(dice.between(-0.018, 0.018) + (1 - grow) / 2) * unit - HALF for _ in range(2)]
        again = (self.thing * (unit * grow) + shift).astype(np.int32)
        parts = {BODY: self.scene.trace.body, ACCENT: self.scene.trace.accent}
        for number, (role, contours) in enumerate(self._order(1)):
            if number and role != LINES:  # the farthest has nothing to hide
                cv2.fillPoly(canvas, contours, 0, 8, SUBPIXEL)
            if role in parts:
                second = [again[part] for part in parts[role]]
                cv2.polylines(canvas, second, True, PRESSURE[role] * 5 // 8, thick, cv2.LINE_AA, SUBPIXEL)
            cv2.polylines(canvas, contours, role != LINES, PRESSURE[role], thick, cv2.LINE_AA, SUBPIXEL)
        return canvas

    def cushion(self) -> "Cushion":
        """The whole object, also where it is hidden, as a soft plane."""
        margin = self.size // 8 + 1
        plane = np.zeros((self.size + 2 * margin, self.size + 2 * margin), np.uint8)
        pixels = (self.thing * (self.size << SUBPIXEL)).astype(np.int32)
        pixels += (margin << SUBPIXEL) - HALF
        for parts in (self.scene.trace.body, self.scene.trace.accent):
            if parts:
                cv2.fillPoly(plane, [pixels[part] for part in parts], 255, 8, SUBPIXEL)
        # An odd square's mean is never half way between two integers, so that all builds of OpenCV round it alike.
        width = max(3, round(self.size * 0.12) | 1)
        plane = cv2.blur(cv2.blur(plane, (width, width)), (width, width))
        return Cushion(plane, margin, self.size, self.scene.light)


def halved(canvas: np.ndarray) -> np.ndarray:
    """A canvas averaged to the image's size, rounded up."""
    return cv2.resize(canvas, (canvas.shape[1] // 2, canvas.shape[0] // 2), interpolation=cv2.INTER_AREA)


def ink(canvas: np.ndarray) -> np.ndarray:
    """Lines where a canvas changes from one plane to another: uint8 (size, size)."""
    reach = max(1, round(canvas.shape[0] * 0.012))
    edges = cv2.morphologyEx(canvas, cv2.MORPH_GRADIENT, None, iterations=reach)
    first, second, third, fourth = cv2.split(edges)
    return halved(cv2.max(cv2.max(first, second), cv2.max(third, fourth)))


class Cushion(NamedTuple):
    """The object's blurred silhouette, `margin` pixels larger than the image on all sides."""

    plane: np.ndarray
    margin: int
    size: int
    light: tuple[float, float]

    def moved(self, reach: float) -> np.ndarray:
        """The silhouette `reach` image sides, at most 0.12, away from the lamp: uint8 (size, size)."""
        x, y = self.light
        across, down = self.margin + round(reach * self.size * x), self.margin + round(reach * self.size * y)
        return self.plane[down : down + self.size, across : across + self.size]

    def relief(self) -> np.ndarray:
        """How squarely a cushion of that outline would face the lamp: float32 (size, size), about -1 to 1."""
        reach = max(0.05, 1.0 / self.size)
        plane = self.moved(-reach).astype(np.float32)
        plane -= self.moved(reach).astype(np.float32)
        plane *= 1 / 200
        return plane


@lru_cache(maxsize=8)
def slope(size: int) -> np.ndarray:
    """-1 at the left or top edge of the image, 1 at the other: float32 (size,)."""
    return (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / size) - np.float32(1)
