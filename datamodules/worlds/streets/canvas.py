"""The canvas of a street scene: from metres to pixels, and into a buffer of labels, paints, sunlight and depth.

Nothing here knows a colour. A pixel gets a label, the number of a paint (a material and 32 bits from which an
appearance picks the tint), how squarely the sun meets its surface, and how far away it is. All drawing is OpenCV's
integer rasteriser without anti-aliasing, so labels have no mixed pixels and are the same on every machine.
"""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from datamodules.segmentation.labels import STREET
from datamodules.worlds.streets.scenes import Scene

(ROAD, SIDEWALK, BUILDING, WALL, FENCE, POLE, LIGHT, SIGN, VEGETATION, TERRAIN, SKY, PERSON, RIDER, CAR, TRUCK, BUS,
 TRAIN, MOTORCYCLE, BICYCLE) = range(len(STREET))  # fmt: skip

FRONT, SIDE, GROUND = range(3)
"""Which two of x, y, z a paint's texture runs along: (x, y), (z, y) or (x, z)."""

PARTS = ("", "glass dark", "glass bright", "trim", "window warm", "window cold", "shop", "door", "cloud")
"""Paints 1 to 8 of every scene: what a texture may put in place of the surface's own paint."""

NEAR = 1.3
"""Metres before the camera at which the world is cut."""

Point = tuple[int, int]
Colour = tuple[int, int, int, int]


class Paint(NamedTuple):
    """A material and a tint; `plane` (a, b, c) says 1 / z = a + b * column + c * row, and is zero for small things,
    whose depth is drawn with them."""

    material: str
    pick: int
    axes: int
    plane: tuple[float, float, float]


class Drawing(NamedTuple):
    """A drawn scene; planes are uint8 (H, W)."""

    label: np.ndarray
    paint: np.ndarray
    tone: np.ndarray
    """Sunlight that the surface would get without a shadow, 0 to 255."""
    depth: np.ndarray
    """`depth_code` of small things; 0 where the paint's plane tells."""
    light: np.ndarray
    """Light on the ground: 0 under a thing, 70 in a cast shadow, 128 in the open, 255 under a street lamp."""
    paints: list[Paint]
    camera: "View"


def depth_code(z: float) -> int:
    """Depth in a byte, finer near the camera: 255 at 0 m, 113 at 10 m, 35 at 50 m."""
    return int(2040.0 / (z + 8.0))


class View:
    """The camera at one image size: world metres to pixels."""

    def __init__(self, scene: Scene, size: tuple[int, int]):
        height, width = size
        camera = scene.camera
        self.x, self.height, self.curve = camera.x, camera.height, camera.curve
        self.focal = 0.82 * width
        self.row = camera.horizon * height
        self.column = camera.vanishing * width
        self.size = size
        self.at = self._projection()

    def _projection(self) -> Callable[[float, float, float], Point]:
        """The function from a world point before the camera (x, y, z > 0) to its pixel.

        It is called a thousand times for a scene, so that it holds what it needs; the detour by 4096 rounds to nearest
        where int() alone would round towards zero.
        """
        focal, curve, x0, height = self.focal, self.curve, self.x, self.height
        column, row = self.column + 4096.5, self.row + 4096.5

        def at(x: float, y: float, z: float) -> Point:
            scale = focal / z
            return int(column + (x + curve * z * z - x0) * scale) - 4096, int(row + (height - y) * scale) - 4096

        return at


class Canvas:
    """The buffer under the brush. A colour is (label, paint, sunlight, depth code)."""

    def __init__(self, scene: Scene, size: tuple[int, int]):
        self.scene, self.view = scene, View(scene, size)
        self.at = self.view.at
        self.buffer = np.zeros((*size, 4), np.uint8)
        self.light = np.full(size, 128, np.uint8)
        self.paints = [Paint("sky", scene.pick, FRONT, (1 / 240, 0.0, 0.0))]
        self.paints += [Paint(part, scene.pick, FRONT, (0.0, 0.0, 0.0)) for part in PARTS[1:]]
        self.known: dict[tuple[str, int], int] = {}

    def paint(self, material: str, pick: int = 0) -> int:
        """The number of a paint for small things, whose depth travels with the colour."""
        key = (material, pick & 1023)
        if key not in self.known:
            self.known[key] = self.surface(material, pick, FRONT, (0.0, 0.0, 0.0))
        return self.known[key]

    def surface(self, material: str, pick: int, axes: int, plane: tuple[float, float, float]) -> int:
        """The number of a paint that lies in a plane. A scene has at most 256; the last is then shared."""
        if len(self.paints) < 256:
            self.paints.append(Paint(material, pick, axes, plane))
        return len(self.paints) - 1

    def upright(self, material: str, pick: int, x0: float, z0: float, x1: float, z1: float, axes: int) -> int:
        """A paint for the vertical plane through (x0, z0) and (x1, z1)."""
        view = self.view
        c0 = view.column + (x0 + view.curve * z0 * z0 - view.x) * view.focal / z0
        c1 = view.column + (x1 + view.curve * z1 * z1 - view.x) * view.focal / z1
        slope = (1 / z1 - 1 / z0) / (c1 - c0) if abs(c1 - c0) > 0.5 else 0.0
        return self.surface(material, pick, axes, (1 / z0 - slope * c0, slope, 0.0))

    def ground(self, material: str, pick: int) -> int:
        rise = 1 / (self.view.height * self.view.focal)
        return self.surface(material, pick, GROUND, (-self.view.row * rise, 0.0, rise))

    def poly(self, points: list[Point], colour: Colour) -> None:
        cv2.fillPoly(self.buffer, [np.asarray(points, np.int32)], colour)

    def rect(self, a: Point, b: Point, colour: Colour) -> None:
        cv2.rectangle(self.buffer, a, b, colour, -1)

    def disc(self, centre: Point, radius: float, colour: Colour) -> None:
        cv2.circle(self.buffer, centre, int(radius + 0.5), colour, -1)

    def line(self, a: Point, b: Point, width: float, colour: Colour) -> None:
        cv2.line(self.buffer, a, b, colour, max(1, int(width + 0.5)))

    def wall(self, x0: float, z0: float, x1: float, z1: float, low: float, high: float, colour: Colour) -> None:
        """An upright rectangle from (x0, z0) to (x1, z1), between two heights."""
        at = self.at
        self.poly([at(x0, low, z0), at(x0, high, z0), at(x1, high, z1), at(x1, low, z1)], colour)

    def in_view(self, x: float, z: float) -> bool:
        """Whether anything within 3.5 m of (x, z), to the left or right, is in the picture."""
        view = self.view
        scale = view.focal / z
        column = view.column + (x + view.curve * z * z - view.x) * scale
        return -3.5 * scale < column < view.size[1] + 3.5 * scale

    def shade(self, corners: list[tuple[float, float]], light: int) -> None:
        """Light or shadow on the ground; corners are (x, z) in metres."""
        at = self.at
        cv2.fillPoly(self.light, [np.asarray([at(x, 0, max(z, NEAR)) for x, z in corners], np.int32)], light)

    def shadow(self, x0: float, x1: float, z0: float, z1: float, height: float) -> None:
        """Darkness under a thing on [x0, x1] x [z0, z1] and the shadow it casts away from the sun."""
        if z0 > 45:
            return
        (left0, row0), (left1, row1) = self.at(x0, 0, z0), self.at(x0, 0, z1)
        right0, right1 = self.at(x1, 0, z0)[0], self.at(x1, 0, z1)[0]
        reach = -self.scene.sun * height * 0.7 * self.view.focal
        far0, far1 = int(reach / z0), int(reach / z1)
        if far0 < -1 or far0 > 1:
            a, b, c, d = (
                (left0, right0 + far0, right1 + far1, left1)
                if far0 > 0
                else (left0 + far0, right0, right1, left1 + far1)
            )
            cv2.fillPoly(self.light, [np.asarray(((a, row0), (b, row0), (c, row1), (d, row1)), np.int32)], 70)
        if row0 > row1:
            cv2.fillPoly(
                self.light, [np.asarray(((left0, row0), (right0, row0), (right1, row1), (left1, row1)), np.int32)], 0
            )

    def flank(self, side: int) -> int:
        """Sunlight on a wall that faces the street from the left (-1) or the right (+1)."""
        return 235 if self.scene.sun == -side else 45

    def finish(self) -> Drawing:
        label, paint, tone, depth = cv2.split(self.buffer)
        return Drawing(label, paint, tone, depth, self.light, self.paints, self.view)
