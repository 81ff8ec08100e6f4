"""The shape of things: draws a scene, far to near, into a buffer of labels, paints, sunlight and depth.

Nothing here knows a colour. A pixel gets a label, the number of a paint (a material and 32 bits from which an
appearance picks the tint), how squarely the sun meets its surface, and how far away it is. All drawing is OpenCV's
integer rasteriser without anti-aliasing, so labels have no mixed pixels and are the same on every machine.
"""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from datamodules.labels import STREET
from datamodules.street_scenes import Lot, Scene, Thing

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


def draw(scene: Scene, size: tuple[int, int]) -> Drawing:
    """Draw `scene` at `size` (height, width) in pixels."""
    canvas = Canvas(scene, size)
    _backdrop(canvas)
    _ground(canvas)
    if scene.end:
        _closing_row(canvas)
    # A plot is entered at its far end: whatever stands before that is nearer to the camera, and drawn later.
    jobs = [(lot.z1 + 0.5 * lot.setback, _lot, lot) for lot in scene.lots if _in_view(canvas, lot.side * lot.edge, lot.z1)]
    for thing in scene.things:
        if thing.z > NEAR + 0.7 and (thing.kind in LONG or _in_view(canvas, thing.x, thing.z)):
            jobs.append((thing.z, DRAW[thing.kind], thing))
    if scene.island:
        jobs.append((sum(scene.junction) / 2, _island, scene))
    for _, paint, subject in sorted(jobs, key=lambda job: -job[0]):
        paint(canvas, subject)
    return canvas.finish()


LONG = ("car", "van", "truck", "bus", "tram")
"""Things whose far end may be in view where the near one is not."""


def _in_view(canvas: "Canvas", x: float, z: float) -> bool:
    """Whether anything within 3.5 m of (x, z), to the left or right, is in the picture."""
    view = canvas.view
    scale = view.focal / z
    column = view.column + (x + view.curve * z * z - view.x) * scale
    return -3.5 * scale < column < view.size[1] + 3.5 * scale


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
        cv2.fillPoly(self.buffer, [np.array(points, np.int32)], colour)

    def rect(self, a: Point, b: Point, colour: Colour) -> None:
        cv2.rectangle(self.buffer, a, b, colour, -1)

    def disc(self, centre: Point, radius: float, colour: Colour) -> None:
        cv2.circle(self.buffer, centre, int(radius + 0.5), colour, -1)

    def line(self, a: Point, b: Point, width: float, colour: Colour) -> None:
        cv2.line(self.buffer, a, b, colour, max(1, int(width + 0.5)))

    def shade(self, corners: list[tuple[float, float]], light: int) -> None:
        """Light or shadow on the ground; corners are (x, z) in metres."""
        at = self.at
        cv2.fillPoly(self.light, [np.array([at(x, 0, max(z, NEAR)) for x, z in corners], np.int32)], light)

    def shadow(self, x0: float, x1: float, z0: float, z1: float, height: float) -> None:
        """Darkness under a thing on [x0, x1] x [z0, z1] and the shadow it casts away from the sun."""
        if z0 > 45:
            return
        (left0, row0), (left1, row1) = self.at(x0, 0, z0), self.at(x0, 0, z1)
        right0, right1 = self.at(x1, 0, z0)[0], self.at(x1, 0, z1)[0]
        reach = -self.scene.sun * height * 0.7 * self.view.focal
        far0, far1 = int(reach / z0), int(reach / z1)
        if far0 < -1 or far0 > 1:
            a, b, c, d = (left0, right0 + far0, right1 + far1, left1) if far0 > 0 else (left0 + far0, right0, right1, left1 + far1)
            cv2.fillPoly(self.light, [np.array(((a, row0), (b, row0), (c, row1), (d, row1)), np.int32)], 70)
        if row0 > row1:
            cv2.fillPoly(self.light, [np.array(((left0, row0), (right0, row0), (right1, row1), (left1, row1)), np.int32)], 0)

    def flank(self, side: int) -> int:
        """Sunlight on a wall that faces the street from the left (-1) or the right (+1)."""
        return 235 if self.scene.sun == -side else 45

    def finish(self) -> Drawing:
        label, paint, tone, depth = cv2.split(self.buffer)
        return Drawing(label, paint, tone, depth, self.light, self.paints, self.view)


# ---------------------------------------------------------------------------------------------------------------- ground

STATIONS = np.array([1.3, 1.8, 2.6, 4, 6, 9, 13, 19, 28, 42, 62, 90, 140.0])


def _strip(canvas: Canvas, x0: float, x1: float, colour: Colour, z0: float = NEAR, z1: float = 140.0) -> None:
    """A band of ground along the street between x0 and x1."""
    view = canvas.view
    z = STATIONS if z0 == NEAR and z1 == 140.0 else np.clip(STATIONS, z0, z1)
    scale = view.focal / z
    bend = view.column + (view.curve * z * z - view.x) * scale
    points = np.empty((2, len(z), 2))
    points[0, :, 0] = bend + x0 * scale
    points[1, :, 0] = (bend + x1 * scale)[::-1]
    points[0, :, 1] = view.row + view.height * scale
    points[1, :, 1] = points[0, ::-1, 1]
    cv2.fillPoly(canvas.buffer, [np.floor(points.reshape(-1, 2) + 0.5).astype(np.int32)], colour)


def _across(canvas: Canvas, z0: float, z1: float, x0: float, x1: float, colour: Colour) -> None:
    at = canvas.at
    canvas.poly([at(x0, 0, z0), at(x1, 0, z0), at(x1, 0, z1), at(x0, 0, z1)], colour)


def _backdrop(canvas: Canvas) -> None:
    """Sky, brighter towards the horizon, and a far skyline of roofs and trees."""
    height, width = canvas.view.size
    row = int(canvas.view.row) + 1
    canvas.buffer[:row, :, 0] = SKY
    canvas.buffer[:row, :, 2] = (np.arange(row) * 170 // row + 60).astype(np.uint8)[:, None]
    code, pick = depth_code(130), canvas.scene.pick
    x = -20
    while x < width:
        roof = pick & 7
        step = width // 28 + (pick >> 3 & 7) * width // 200
        tall = (2 + roof) * height // 110
        if pick & 3 == 0:
            canvas.rect((x, row - tall), (x + step, row + 3), (BUILDING, canvas.paint("facade", pick), 120, code))
        else:
            canvas.disc((x + step // 2, row), tall + step // 3, (VEGETATION, canvas.paint("foliage", pick & 3), 100, code))
        pick = pick * 1664525 + 1013904223 & 0xFFFFFFFF
        x += step


def _ground(canvas: Canvas) -> None:
    scene = canvas.scene
    height, width = canvas.view.size
    row = int(canvas.view.row) + 1
    grass = (TERRAIN, canvas.ground("grass", scene.pick), 220, 0)
    paving = (SIDEWALK, canvas.ground("paving", scene.pick >> 3), 220, 0)
    kerb = (SIDEWALK, canvas.ground("kerb", scene.pick >> 5), 235, 0)
    road = (ROAD, canvas.ground("asphalt", scene.pick >> 7), 220, 0)
    urban = scene.style in ("canyon", "plaza")
    canvas.buffer[row:] = paving if urban else grass
    edge = scene.road + scene.verge + scene.walk
    for side in (-1, 1):
        _strip(canvas, side * (scene.road + scene.verge), side * edge, paving)
        if scene.verge:
            _strip(canvas, side * scene.road, side * (scene.road + scene.verge), grass)
        _strip(canvas, side * scene.road, side * (scene.road + 0.22), kerb)
    _strip(canvas, -scene.road, scene.road, road)
    near, far = scene.junction
    if far:
        _across(canvas, near - 0.2, far + 0.2, -60, 60, kerb)
        _across(canvas, near, far, -60, 60, road)
        _across(canvas, near - 0.3, far + 0.3, -scene.road, scene.road, road)
    if scene.end:
        _across(canvas, scene.end - 9, scene.end - 2.5, -60, 60, road)
        _across(canvas, scene.end - 2.5, scene.end + 30, -60, 60, paving)
    _wear(canvas)
    _markings(canvas)


def _wear(canvas: Canvas) -> None:
    """Repairs, seams and manholes: the road's paint is never one colour."""
    scene = canvas.scene
    patch = (ROAD, canvas.ground("asphalt", scene.pick >> 9), 220, 0)
    pick = scene.pick
    for _ in range(3):
        x = (pick & 255) / 255 * 2 * (scene.road - 1.2) - scene.road
        z = 3 + (pick >> 8 & 255) / 12
        _across(canvas, z, z + 1.2 + (pick >> 16 & 7), x, x + 0.7 + (pick >> 20 & 3) * 0.5, patch)
        pick = pick * 1664525 + 1013904223 & 0xFFFFFFFF
    at, lid = canvas.at, (ROAD, canvas.ground("iron", 0), 200, 0)
    x, z = scene.camera.x - 0.6, 5 + (pick >> 12 & 7)
    canvas.poly([at(x, 0, z), at(x + 0.35, 0, z - 0.3), at(x + 0.7, 0, z), at(x + 0.35, 0, z + 0.3)], lid)


def _markings(canvas: Canvas) -> None:
    scene = canvas.scene
    white = (ROAD, canvas.ground("marking", 0), 230, 0)
    line = (ROAD, canvas.ground("marking", scene.pick >> 11), 230, 0)
    near, far = scene.junction
    clear = (near - 4, far + 1) if far else (999.0, 0.0)
    centre = 0.0 if scene.pick >> 13 & 3 else None
    if scene.tracks:
        iron = (ROAD, canvas.ground("rail", 0), 230, 0)
        for rail in (-0.72, 0.72):
            _strip(canvas, scene.tracks + rail - 0.05, scene.tracks + rail + 0.05, iron)
    if centre is not None and scene.road > 2.8:
        z = 1.5 + (scene.pick >> 15 & 3)
        dash = 3.0 if scene.pick >> 17 & 1 else 4.5
        while z < 60:
            if not clear[0] < z + dash < clear[1] + dash:
                _across(canvas, max(z, NEAR), z + dash, -0.09, 0.09, line)
            z += dash * 2.2
    if scene.pick >> 19 & 1:
        for side in (-1, 1):
            _strip(canvas, side * (scene.road - 0.45), side * (scene.road - 0.3), white, NEAR, min(clear[0], 120.0))
    if scene.crossing:
        x = 0.4 - scene.road
        while x < scene.road - 0.5:
            _across(canvas, scene.crossing, scene.crossing + 2.8, x, x + 0.55, white)
            x += 1.1
        _across(canvas, scene.crossing - 1.3, scene.crossing - 0.9, 0.1, scene.road - 0.2, white)


def _island(canvas: Canvas, scene: Scene) -> None:
    """The planted middle of a small roundabout."""
    z, radius = sum(scene.junction) / 2, scene.island
    ring = [(0.38, 0.92), (0.71, 0.71), (0.92, 0.38), (1, 0), (0.92, -0.38), (0.71, -0.71), (0.38, -0.92)]
    ring += [(0, -1), *[(-x, y) for x, y in reversed(ring)], (0, 1)]
    at = canvas.at
    canvas.poly([at(x * (radius + 0.3), 0, z + y * (radius + 0.3)) for x, y in ring], (SIDEWALK, canvas.ground("kerb", 3), 235, 0))
    canvas.poly([at(x * radius, 0.15, z + y * radius) for x, y in ring], (TERRAIN, canvas.ground("grass", scene.pick >> 4), 225, 0))
    _tree(canvas, Thing("tree", 0.0, z, "toward", 3.0 + radius * 0.5, scene.pick))


# ----------------------------------------------------------------------------------------------------------------- plots


def _wall(canvas: Canvas, x0: float, z0: float, x1: float, z1: float, low: float, high: float, colour: Colour) -> None:
    at = canvas.at
    canvas.poly([at(x0, low, z0), at(x0, high, z0), at(x1, high, z1), at(x1, low, z1)], colour)


FACADES = ("facade plaster", "facade plaster", "facade brick", "facade panel", "facade glass", "facade tall")


def _lot(canvas: Canvas, lot: Lot) -> None:
    if lot.kind == "block":
        _block(canvas, lot)
    elif lot.kind == "house":
        _house(canvas, lot)
    else:
        _lawn(canvas, lot)
    _trees(canvas, lot)
    if lot.boundary:
        _boundary(canvas, lot)


def _block(canvas: Canvas, lot: Lot) -> None:
    """A flat-roofed house on the street line: gable towards the camera, facade, ground floor, cornice."""
    side, z0, z1, pick = lot.side, lot.z0, lot.z1, lot.pick
    x, height, tone = side * lot.edge, lot.height, canvas.flank(side)
    material = FACADES[(pick & 255) * len(FACADES) >> 8]
    if z0 > 3:
        gable = canvas.upright(material if pick >> 8 & 1 else "facade bare", pick, x, z0, x + side * 14, z0, FRONT)
        _wall(canvas, x, z0, x + side * 14, z0, 0, height, (BUILDING, gable, 120, 0))
    front = canvas.upright(material, pick, x, z0, x, z1, SIDE)
    _wall(canvas, x, z0, x, z1, 0, height, (BUILDING, front, tone, 0))
    if pick >> 9 & 3:
        shops = canvas.upright("shops", pick >> 11, x, z0, x, z1, SIDE)
        _wall(canvas, x, z0, x, z1, 0, 3.4, (BUILDING, shops, tone, 0))
    ledge = canvas.upright("ledge", pick >> 13, x, z0, x, z1, SIDE)
    _wall(canvas, x, z0, x, z1, height - 0.4, height + 0.1, (BUILDING, ledge, tone, 0))
    if pick >> 15 & 1:
        _wall(canvas, x, z0, x, z1, 3.4, 3.7, (BUILDING, ledge, tone, 0))
    if canvas.scene.sun == side:
        inner = x - side * min(height * 0.45, lot.edge * 1.6)
        canvas.shade([(x, z0), (inner, z0 + 2), (inner, z1 + 2), (x, z1)], 70)


def _house(canvas: Canvas, lot: Lot) -> None:
    """A gabled house behind its front garden."""
    side, pick = lot.side, lot.pick
    margin = min(1.5, (lot.z1 - lot.z0) * 0.15)
    z0, z1 = max(lot.z0 + margin, NEAR), lot.z1 - margin
    x, height = side * (lot.edge + lot.setback), lot.height
    if z1 - z0 < 2:
        return
    back, ridge, mid = x + side * 9, height + 3.2, x + side * 4.5
    material = "cottage" if pick & 1 else "cottage brick"
    at = canvas.at
    if z0 > 2.5:
        gable = canvas.upright(material, pick, x, z0, back, z0, FRONT)
        canvas.poly(
            [at(x, 0, z0), at(x, height, z0), at(mid, ridge, z0), at(back, height, z0), at(back, 0, z0)],
            (BUILDING, gable, 125, 0),
        )
    roof = canvas.upright("roof", pick >> 4, x, z0, x, z1, SIDE)
    eave = x - side * 0.4
    canvas.poly(
        [at(eave, height - 0.2, z0), at(mid, ridge, z0), at(mid, ridge, z1), at(eave, height - 0.2, z1)],
        (BUILDING, roof, canvas.flank(side) // 2 + 90, 0),
    )
    front = canvas.upright(material, pick, x, z0, x, z1, SIDE)
    _wall(canvas, x, z0, x, z1, 0, height, (BUILDING, front, canvas.flank(side), 0))
    canvas.shadow(min(x, back), max(x, back), z0, z1, height * 0.6)


def _lawn(canvas: Canvas, lot: Lot) -> None:
    """Grass, with a wood at its back."""
    x, side = lot.side * lot.edge, lot.side
    if canvas.scene.style in ("canyon", "plaza"):
        grass = (TERRAIN, canvas.ground("grass", lot.pick), 220, 0)
        _across(canvas, lot.z0, lot.z1, x, x + side * 14, grass)
    blob = BLOBS[lot.pick & 15]
    z = lot.z1 - 1
    wood = (VEGETATION, canvas.paint("foliage", lot.pick >> 5), 70, depth_code(z))
    height = 3.0 + (lot.pick >> 9 & 3)
    for step in range(2):
        _blob(canvas, blob, x + side * (9 + step * 6), height * 0.45, z, 5.0, height * 0.75, wood)


def _trees(canvas: Canvas, lot: Lot) -> None:
    for offset, z, height, pick in lot.trees:
        x = lot.side * (lot.edge + offset)
        if z > 2.5 and _in_view(canvas, x, z):
            _tree(canvas, Thing("tree", x, z, "toward", height, pick))


def _boundary(canvas: Canvas, lot: Lot) -> None:
    x, z0, z1, side, pick = lot.side * (lot.edge + 0.1), lot.z0, lot.z1, lot.side, lot.pick >> 12
    high = {"wall": 1.0 + (pick & 3) * 0.4, "fence": 1.0 + (pick & 3) * 0.25, "hedge": 1.1 + (pick & 3) * 0.3}[lot.boundary]
    label = {"wall": WALL, "fence": FENCE, "hedge": VEGETATION}[lot.boundary]
    kinds = {
        "wall": ("wall stone", "wall brick", "wall concrete", "wall concrete"),
        "fence": ("fence pickets", "fence mesh", "fence boards", "fence rails"),
        "hedge": ("hedge",) * 4,
    }
    material, tone = kinds[lot.boundary][pick >> 2 & 3], canvas.flank(side)
    if z0 > 3:
        end = canvas.upright(material, pick >> 4, x, z0, x + side * 6, z0, FRONT)
        _wall(canvas, x, z0, x + side * 6, z0, 0, high, (label, end, 120, 0))
    face = canvas.upright(material, pick >> 4, x, z0, x, z1, SIDE)
    _wall(canvas, x, z0, x, z1, 0, high, (label, face, tone, 0))
    if lot.boundary == "wall":
        cap = canvas.upright("ledge", pick >> 6, x, z0, x, z1, SIDE)
        _wall(canvas, x, z0, x, z1, high - 0.12, high, (label, cap, 230, 0))
    canvas.shadow(min(x, x + side * 0.3), max(x, x + side * 0.3), z0, z1, high)


def _closing_row(canvas: Canvas) -> None:
    """Houses across the end of a T junction."""
    scene, pick = canvas.scene, canvas.scene.pick
    x, z = -48.0, scene.end
    while x < 48:
        width = 9.0 + (pick & 7)
        height = (7 if scene.style in ("suburb", "parkway") else 12) + (pick >> 3 & 7) * 0.9
        material = FACADES[(pick >> 6 & 255) * len(FACADES) >> 8]
        front = canvas.upright(material, pick, x, z, x + width, z, FRONT)
        _wall(canvas, x, z, x + width, z, 0, height, (BUILDING, front, 140, 0))
        pick = pick * 1664525 + 1013904223 & 0xFFFFFFFF
        x += width


# ---------------------------------------------------------------------------------------------------------------- plants


def _outlines() -> np.ndarray:
    """16 ragged outlines of unit radius: a 24-gon's corners, pushed in and out by a small integer recurrence."""
    corners = np.array([(100, 0), (97, 26), (87, 50), (71, 71), (50, 87), (26, 97)]) / 100
    quarter = [corners @ np.array(turn) for turn in ([[1, 0], [0, 1]], [[0, 1], [-1, 0]], [[-1, 0], [0, -1]], [[0, -1], [1, 0]])]
    circle = np.concatenate(quarter)
    word, radii = 12345, []
    for _ in range(16 * 24):
        word = word * 1664525 + 1013904223 & 0xFFFFFFFF
        radii.append(0.72 + (word >> 24) / 255 * 0.42)
    return circle[None] * np.array(radii).reshape(16, 24, 1)


BLOBS = _outlines()


def _blob(canvas: Canvas, blob: np.ndarray, x: float, y: float, z: float, rx: float, ry: float, colour: Colour) -> None:
    """A ragged ellipse facing the camera, centre and radii in metres."""
    column, row = canvas.at(x, y, z)
    scale = canvas.view.focal / z
    points = blob * np.array((rx * scale, ry * scale))
    points += np.array((column, row))
    cv2.fillPoly(canvas.buffer, [points.astype(np.int32)], colour)


def _tree(canvas: Canvas, tree: Thing) -> None:
    """A trunk, a crown of dark clumps, and brighter ones on its sunny side."""
    x, z, height, pick = tree.x, tree.z, tree.size, tree.pick
    code, at, sun = depth_code(z), canvas.at, canvas.scene.sun
    stem, crown = height * (0.25 + (pick & 3) * 0.05), height * (0.2 + (pick >> 2 & 3) * 0.035)
    bark = (VEGETATION, canvas.paint("bark", pick & 3), 130, code)
    leaf = canvas.paint("foliage", pick >> 4 & 15)
    scale = canvas.view.focal / z
    canvas.line(at(x, 0, z), at(x, stem + crown * 0.6, z), height * 0.035 * scale, bark)
    rise = (height - stem) / 2
    if pick >> 8 & 7 == 0:  # a conifer
        for level in range(5):
            low = stem * 0.4 + (height - stem * 0.4) * level * 0.17
            wide, top = crown * (0.95 - level * 0.16), min(low + height * 0.38, height)
            left, right = at(x - wide, low, z), at(x + wide, low, z)
            ragged = [left, at(x - wide * 0.5, low + 0.25, z), at(x - wide * 0.2, low - 0.1, z), at(x + wide * 0.3, low + 0.2, z), right]
            canvas.poly([*ragged, at(x, top, z)], (VEGETATION, leaf, 80 + 20 * level, code))
            lit = [at(x + sun * wide * 0.15, low, z), at(x, top, z), right if sun > 0 else left]
            canvas.poly(lit, (VEGETATION, leaf, 150 + 20 * level, code))
    else:
        middle = stem + rise
        _blob(canvas, BLOBS[pick >> 11 & 15], x, middle, z, crown, rise, (VEGETATION, leaf, 70, code))
        clumps = ((0.25, 0.68, 0.62, 165), (0.4, 0.38, 0.35, 245)) if scale * crown > 6 else ()
        for part, (shift, wide, tall, tone) in enumerate(clumps):
            blob, lean = BLOBS[pick >> (15 + 4 * part) & 15], x + sun * crown * shift
            _blob(canvas, blob, lean, middle + rise * shift, z, crown * wide, rise * tall, (VEGETATION, leaf, tone, code))
    if z > 45:
        return
    canvas.shadow(x - crown * 0.2, x + crown * 0.2, z - 0.25, z + 0.25, 0)
    shift = -sun * height * 0.35
    canvas.shade([(x + shift - crown, z), (x + shift, z - crown), (x + shift + crown, z), (x + shift, z + crown)], 70)


# -------------------------------------------------------------------------------------------------------------- vehicles


class Body(NamedTuple):
    """A car's cross-section along its length: (metres from the tail, metres above the road)."""

    width: float
    profile: tuple[tuple[float, float], ...]
    windows: tuple[tuple[float, float], ...]


BODIES = {
    "hatchback": Body(1.75, ((0, 0.3), (0.05, 0.95), (0.5, 1.46), (2.2, 1.46), (3.0, 0.98), (3.85, 0.8), (3.9, 0.3)),
                      ((0.5, 0.98), (0.75, 1.36), (2.15, 1.36), (2.75, 0.98))),
    "sedan": Body(1.8, ((0, 0.3), (0.05, 0.98), (0.85, 1.02), (1.5, 1.43), (2.8, 1.43), (3.55, 0.98), (4.5, 0.8), (4.55, 0.3)),
                  ((1.1, 1.0), (1.6, 1.34), (2.75, 1.34), (3.3, 1.0))),
    "suv": Body(1.9, ((0, 0.35), (0.05, 1.1), (0.3, 1.72), (2.7, 1.72), (3.4, 1.12), (4.4, 1.0), (4.45, 0.35)),
                ((0.45, 1.14), (0.6, 1.6), (2.65, 1.6), (3.15, 1.14))),
    "van": Body(1.95, ((0, 0.35), (0.02, 1.25), (0.12, 2.0), (3.7, 2.0), (4.4, 1.2), (4.95, 0.95), (5.0, 0.35)),
                ((3.0, 1.25), (3.05, 1.8), (3.7, 1.8), (4.1, 1.25))),
}  # fmt: skip


def _car(canvas: Canvas, car: Thing) -> None:
    body = BODIES["van" if car.kind == "van" else ("hatchback", "hatchback", "sedan", "suv")[car.pick & 3]]
    if car.facing in ("left", "right"):
        _car_abeam(canvas, car, body)
    else:
        _car_ahead(canvas, car, body)


def _car_abeam(canvas: Canvas, car: Thing, body: Body) -> None:
    """Seen from the side, crossing."""
    x, z, at, code, pick = car.x, car.z, canvas.at, depth_code(car.z), car.pick
    length, way = body.profile[-1][0], 1 if car.facing == "right" else -1
    scale = canvas.view.focal / z
    canvas.shadow(x - length / 2, x + length / 2, z, z + 1.8, 1.4)
    points = [at(x + way * (d - length / 2), y, z) for d, y in body.profile]
    canvas.poly(points, (CAR, canvas.paint("car", pick), 130, code))
    glass = [at(x + way * (d - length / 2), y, z) for d, y in body.windows]
    canvas.poly(glass, (CAR, canvas.paint("car glass", pick >> 20 & 1), 90, code))
    middle = sum(p[0] for p in glass) // 4
    canvas.line((middle, glass[0][1]), (middle, glass[1][1]), 0.08 * scale, (CAR, canvas.paint("car", pick), 130, code))
    for d in (0.75, length - 0.8):
        _wheel(canvas, at(x + way * (d - length / 2), 0.32, z), 0.34 * scale, CAR, code)
    nose, tail = (at(x + way * side * (length / 2 - 0.12), 0.7, z) for side in (1, -1))
    canvas.disc(nose, 0.1 * scale, (CAR, canvas.paint("headlight"), 200, code))
    canvas.disc(tail, 0.1 * scale, (CAR, canvas.paint("taillight"), 200, code))


def _wheel(canvas: Canvas, centre: Point, radius: float, label: int, code: int) -> None:
    canvas.disc(centre, radius, (label, canvas.paint("rubber"), 90, code))
    if radius > 3:
        canvas.disc(centre, radius * 0.45, (label, canvas.paint("chrome"), 140, code))


def _car_ahead(canvas: Canvas, car: Thing, body: Body) -> None:
    """Seen from behind or from the front, with the flank that is turned to us: the profile, swept across the width."""
    x, z, at, code, pick = car.x, car.z, canvas.at, depth_code(car.z), car.pick
    length, half = body.profile[-1][0], body.width / 2 * car.size
    away = car.facing == "away"
    profile = body.profile if away else [(length - d, y) for d, y in reversed(body.profile)]
    roof, belt = max(y for _, y in profile), 0.7 * max(y for _, y in profile)
    paint, glass = canvas.paint("car", pick), (CAR, canvas.paint("car glass", pick >> 20 & 1), 150, code)

    def across(y: float) -> float:
        """Half the width at height y: cabins are narrower than bodies."""
        return half if y < belt else half * (1 - 0.18 * (y - belt) / (roof - belt))

    canvas.shadow(x - half, x + half, z, z + length, 1.3)
    if canvas.view.focal < 4 * z:
        _car_afar(canvas, car, half, roof, (CAR, paint, 140, code), glass)
        return
    _car_flank(canvas, car, body, profile, across, (CAR, paint, canvas.flank(1 if x > canvas.view.x else -1), code))
    # Strips of the swept profile that rise towards the roof face us; the steep one below the roof is a window.
    top = next(i for i, (_, y) in enumerate(profile) if y == roof)
    for i in range(top - 1, -1, -1):
        (d0, y0), (d1, y1) = profile[i], profile[i + 1]
        w0, w1 = across(y0), across(y1)
        tone = 220 if y1 - y0 < d1 - d0 else 140
        strip = [at(x - w0, y0, z + d0), at(x - w1, y1, z + d1), at(x + w1, y1, z + d1), at(x + w0, y0, z + d0)]
        canvas.poly(strip, (CAR, paint, tone, code))
        if i == top - 1:
            ya, yb, k = y0 + (y1 - y0) * 0.12, y0 + (y1 - y0) * 0.85, 0.9
            da, db = d0 + (d1 - d0) * 0.12, d0 + (d1 - d0) * 0.85
            wa, wb = across(ya) * k, across(yb) * k
            canvas.poly([at(x - wa, ya, z + da), at(x - wb, yb, z + db), at(x + wb, yb, z + db), at(x + wa, ya, z + da)], glass)
    _car_face(canvas, car, half, profile[1][1], away)


def _car_afar(canvas: Canvas, car: Thing, half: float, roof: float, body: Colour, glass: Colour) -> None:
    """What is left of a car at less than four pixels a metre: body, window and lights."""
    x, z, at = car.x, car.z, canvas.at
    canvas.rect(at(x - half * 0.85, roof, z), at(x + half * 0.85, 0.6, z), body)
    canvas.rect(at(x - half * 0.7, roof - 0.15, z), at(x + half * 0.7, roof * 0.68, z), glass)
    canvas.rect(at(x - half, roof * 0.62, z), at(x + half, 0.15, z), body)
    lamp = (CAR, canvas.paint("taillight" if car.facing == "away" else "headlight"), 200, body[3])
    for side in (-1, 1):
        spot = at(x + side * half * 0.8, roof * 0.5, z)
        canvas.rect(spot, spot, lamp)


def _car_flank(canvas, car, body, profile, across, colour) -> None:
    """The side that is turned to us, with its windows and wheels; nothing if we look straight along it."""
    x, z, at = car.x, car.z, canvas.at
    offset = x - canvas.view.x
    if abs(offset) < across(0):
        return
    side = -1 if offset > 0 else 1
    code, length = colour[3], body.profile[-1][0]
    away = car.facing == "away"
    canvas.poly([at(x + side * across(y), y, z + d) for d, y in profile], colour)
    scale = canvas.view.focal / z
    if scale < 5:
        return
    windows = [(d if away else length - d, y) for d, y in body.windows]
    canvas.poly([at(x + side * across(y), y, z + d) for d, y in windows], (CAR, canvas.paint("car glass", 0), 90, code))
    for d in (0.75, length - 0.75):
        hub, rim = z + d, 0.33
        ring = [(-1, 0), (-0.7, 0.7), (0, 1), (0.7, 0.7), (1, 0), (0.7, -0.7), (0, -1), (-0.7, -0.7)]
        points = [at(x + side * across(0), rim + rim * b, hub + rim * a) for a, b in ring]
        canvas.poly(points, (CAR, canvas.paint("rubber"), 90, code))


def _car_face(canvas: Canvas, car: Thing, half: float, height: float, away: bool) -> None:
    """Lights, plate, bumper and the wheels' treads of the end that is turned to us."""
    x, z, at, code = car.x, car.z, canvas.at, depth_code(car.z)
    scale = canvas.view.focal / z
    rubber = (CAR, canvas.paint("rubber"), 80, code)
    for side in (-1, 1):
        inner, outer = x + side * (half - 0.32), x + side * (half - 0.08)
        canvas.rect(at(inner, 0.35, z), at(outer, 0, z), rubber)
    canvas.rect(at(x - half, 0.42, z), at(x + half, 0.24, z), (CAR, canvas.paint("bumper", car.pick >> 22 & 1), 120, code))
    lamp = (CAR, canvas.paint("taillight" if away else "headlight"), 200, code)
    high = height - 0.12
    for side in (-1, 1):
        canvas.rect(at(x + side * (half - 0.38), high, z), at(x + side * (half - 0.06), high - 0.17, z), lamp)
    if scale > 6:
        canvas.rect(at(x - 0.26, 0.62, z), at(x + 0.26, 0.5, z), (CAR, canvas.paint("plate", car.pick >> 23 & 1), 150, code))
        if not away:
            canvas.rect(at(x - 0.4, high, z), at(x + 0.4, high - 0.2, z), (CAR, canvas.paint("bumper", 1), 100, code))


class Coach(NamedTuple):
    """A large boxy vehicle. Window rows are (low, high) in metres."""

    label: int
    paint: str
    width: float
    height: float
    length: float
    windows: tuple[float, float]
    pane: float


COACHES = {
    "bus": Coach(BUS, "bus", 2.5, 3.1, 11.5, (1.25, 2.45), 1.5),
    "tram": Coach(TRAIN, "tram", 2.45, 3.5, 24.0, (1.3, 2.6), 1.9),
}


def _coach(canvas: Canvas, coach: Thing) -> None:
    """A bus or a tram: rows of large panes, doors, a destination board."""
    kind = COACHES[coach.kind]
    if coach.facing in ("left", "right"):
        _coach_abeam(canvas, coach, kind)
        return
    x, z, at, code, pick = coach.x, coach.z, canvas.at, depth_code(coach.z), coach.pick
    half, label = kind.width / 2, kind.label
    canvas.shadow(x - half, x + half, z, z + kind.length, 2.8)
    offset = x - canvas.view.x
    if abs(offset) > half:
        side = -1 if offset > 0 else 1
        _coach_flank(canvas, coach, kind, x + side * half, canvas.flank(1 if offset > 0 else -1))
    canvas.rect(at(x - half, kind.height, z), at(x + half, 0.3, z), (label, canvas.paint(kind.paint, pick), 140, code))
    low = 1.0 if coach.facing == "toward" else 1.6
    glass = (label, canvas.paint("car glass", pick >> 20 & 1), 130, code)
    canvas.rect(at(x - half * 0.9, kind.height - 0.55, z), at(x + half * 0.9, low, z), glass)
    stripe = (label, canvas.paint("stripe", pick >> 8), 140, code)
    canvas.rect(at(x - half, 0.6, z), at(x + half, 0.32, z), stripe)
    board = (label, canvas.paint("board"), 120, code)
    canvas.rect(at(x - half * 0.6, kind.height - 0.12, z), at(x + half * 0.6, kind.height - 0.45, z), board)
    lamp = (label, canvas.paint("taillight" if coach.facing == "away" else "headlight"), 200, code)
    for side in (-1, 1):
        canvas.rect(at(x + side * half * 0.9, 0.85, z), at(x + side * half * 0.65, 0.65, z), lamp)
        if kind.label == BUS:
            canvas.rect(at(x + side * half * 0.95, 0.35, z), at(x + side * half * 0.65, 0, z), (label, canvas.paint("rubber"), 80, code))
    if kind.label == TRAIN:
        canvas.rect(at(x - half * 0.85, 0.3, z), at(x + half * 0.85, 0.1, z), (label, canvas.paint("rubber"), 80, code))
        canvas.line(at(x, kind.height, z + 2), at(x, kind.height + 0.7, z + 2), 0.1 * canvas.view.focal / z, (label, canvas.paint("iron"), 100, code))


def _coach_flank(canvas: Canvas, coach: Thing, kind: Coach, x: float, tone: int) -> None:
    z, pick = coach.z, coach.pick
    body = (kind.label, canvas.upright(kind.paint, pick, x, z, x, z + kind.length, SIDE), tone, 0)
    stripe = (kind.label, canvas.upright("stripe", pick >> 8, x, z, x, z + kind.length, SIDE), tone, 0)
    panes = (kind.label, canvas.upright("panes", pick >> 20 & 1, x, z, x, z + kind.length, SIDE), 120, 0)
    rubber = (kind.label, canvas.paint("rubber"), 80, depth_code(z))
    _wall(canvas, x, z, x, z + kind.length, 0.12, 0.5, rubber)
    _wall(canvas, x, z, x, z + kind.length, 0.35, kind.height, body)
    _wall(canvas, x, z, x, z + kind.length, 0.4, 0.75, stripe)
    _wall(canvas, x, z + 0.3, x, z + kind.length - 0.3, *kind.windows, panes)


def _coach_abeam(canvas: Canvas, coach: Thing, kind: Coach) -> None:
    x, z, at, code, pick = coach.x, coach.z, canvas.at, depth_code(coach.z), coach.pick
    half, label = kind.length / 2, kind.label
    way = 1 if coach.facing == "right" else -1
    scale = canvas.view.focal / z
    canvas.shadow(x - half, x + half, z, z + 2.4, 2.8)
    canvas.rect(at(x - half, kind.height, z), at(x + half, 0.3, z), (label, canvas.paint(kind.paint, pick), 140, code))
    canvas.rect(at(x - half, 0.75, z), at(x + half, 0.4, z), (label, canvas.paint("stripe", pick >> 8), 140, code))
    glass, pane = (label, canvas.paint("car glass", pick >> 20 & 1), 120, code), -half + 0.3
    while pane + kind.pane < half:
        low = 0.5 if int(pane) % 4 == 1 else kind.windows[0]
        canvas.rect(at(x + pane, kind.windows[1], z), at(x + pane + kind.pane - 0.22, low, z), glass)
        pane += kind.pane
    for d in (-half + 2.2, half - 2.6):
        _wheel(canvas, at(x + d, 0.45, z), 0.48 * scale, label, code)
    canvas.disc(at(x + way * (half - 0.15), 0.8, z), 0.13 * scale, (label, canvas.paint("headlight"), 200, code))
    canvas.disc(at(x - way * (half - 0.15), 0.8, z), 0.13 * scale, (label, canvas.paint("taillight"), 200, code))


def _truck(canvas: Canvas, truck: Thing) -> None:
    """A cab and, behind it, a taller cargo box."""
    x, z, at, code, pick = truck.x, truck.z, canvas.at, depth_code(truck.z), truck.pick
    box, cab = canvas.paint("cargo", pick), canvas.paint("car", pick >> 10)
    glass = (TRUCK, canvas.paint("car glass", pick >> 20 & 1), 120, code)
    scale, high = canvas.view.focal / z, 2.9 + (pick & 3) * 0.2
    if truck.facing in ("left", "right"):
        way = 1 if truck.facing == "right" else -1
        canvas.shadow(x - 4, x + 4, z, z + 2.4, 2.8)
        canvas.rect(at(x - 4, 0.75, z), at(x + 4, 0.5, z), (TRUCK, canvas.paint("iron"), 90, code))
        canvas.rect(at(x - way * 4.1, high, z), at(x + way * 1.8, 0.8, z), (TRUCK, box, 140, code))
        outline = [(1.95, 0.45), (1.95, 2.5), (3.2, 2.5), (3.75, 1.5), (3.9, 1.4), (3.9, 0.45)]
        canvas.poly([at(x + way * d, y, z) for d, y in outline], (TRUCK, cab, 140, code))
        canvas.poly([at(x + way * d, y, z) for d, y in ((2.4, 1.5), (2.4, 2.25), (3.1, 2.25), (3.5, 1.5))], glass)
        for d in (-2.8, -1.8, 2.9):
            _wheel(canvas, at(x + way * d, 0.45, z), 0.48 * scale, TRUCK, code)
        canvas.disc(at(x + way * 3.8, 0.75, z), 0.12 * scale, (TRUCK, canvas.paint("headlight"), 200, code))
        return
    half, away, length = 1.22, truck.facing == "away", 8.0
    canvas.shadow(x - half, x + half, z, z + length, 2.8)
    offset = x - canvas.view.x
    if abs(offset) > half:
        side = -1 if offset > 0 else 1
        tone, flank = canvas.flank(-side), x + side * half
        z0, z1 = (z, z + 5.8) if away else (z + 2.1, z + length)
        _wall(canvas, flank, z, flank, z + length, 0.15, 0.8, (TRUCK, canvas.paint("rubber"), 90, code))
        _wall(canvas, flank, z0, flank, z1, 0.8, high, (TRUCK, canvas.upright("cargo", pick, flank, z0, flank, z1, SIDE), tone, 0))
        if not away:
            _wall(canvas, flank, z, flank, z + 1.9, 0.45, 2.5, (TRUCK, cab, tone, code))
            _wall(canvas, flank, z + 0.3, flank, z + 1.3, 1.5, 2.25, glass)
    _truck_face(canvas, truck, half, high, (TRUCK, box, 140, code), (TRUCK, cab, 140, code), glass)


def _truck_face(canvas, truck, half, high, box, cab, glass) -> None:
    x, z, at, code = truck.x, truck.z, canvas.at, depth_code(truck.z)
    scale, iron, rubber = canvas.view.focal / z, canvas.paint("iron"), (TRUCK, canvas.paint("rubber"), 80, code)
    for side in (-1, 1):
        canvas.rect(at(x + side * half * 0.95, 0.7, z), at(x + side * half * 0.5, 0, z), rubber)
    if truck.facing == "away":
        canvas.rect(at(x - half, high, z), at(x + half, 0.8, z), box)
        canvas.line(at(x, high - 0.15, z), at(x, 0.9, z), 0.05 * scale, (TRUCK, iron, 90, code))
        canvas.rect(at(x - half, 0.85, z), at(x + half, 0.6, z), (TRUCK, iron, 90, code))
        lamp, low = canvas.paint("taillight"), 0.78
    else:
        canvas.rect(at(x - half, high, z + 2.1), at(x + half, 2.0, z + 2.1), box)
        canvas.rect(at(x - half * 0.95, 2.5, z), at(x + half * 0.95, 0.4, z), cab)
        canvas.rect(at(x - half * 0.85, 2.3, z), at(x + half * 0.85, 1.5, z), glass)
        canvas.rect(at(x - half * 0.6, 1.2, z), at(x + half * 0.6, 0.8, z), (TRUCK, iron, 90, code))
        lamp, low = canvas.paint("headlight"), 0.7
    for side in (-1, 1):
        canvas.rect(at(x + side * half * 0.9, low, z), at(x + side * half * 0.66, low - 0.16, z), (TRUCK, lamp, 200, code))


# ---------------------------------------------------------------------------------------------------------------- people


def _figure(canvas: Canvas, x: float, base: float, z: float, height: float, label: int, pick: int, stride: float) -> None:
    """Legs, torso, arms and head of somebody whose soles are `base` metres above the road."""
    at, code, scale = canvas.at, depth_code(z), canvas.view.focal / z
    trousers = (label, canvas.paint("cloth", pick >> 4 & 31), 110, code)
    coat = (label, canvas.paint("cloth", pick >> 9 & 31), 165, code)
    hip, neck, wide = base + height * 0.47, base + height * 0.83, height * 0.14
    for step in (-1, 1):
        foot = at(x + step * (0.07 + stride), base, z)
        canvas.line(at(x + step * 0.06, hip, z), foot, 0.09 * height * scale, trousers)
    torso = [at(x - wide, neck - 0.05, z), at(x + wide, neck - 0.05, z), at(x + wide * 0.8, hip - 0.05, z), at(x - wide * 0.8, hip - 0.05, z)]
    canvas.poly(torso, coat)
    if scale > 9:
        arm = (label, coat[1], 90, code)
        for side in (-1, 1):
            canvas.line(at(x + side * wide, neck - 0.1, z), at(x + side * (wide + 0.05 + stride * 0.4), hip, z), 0.06 * height * scale, arm)
    hair = "helmet" if label == RIDER and pick >> 16 & 1 else "hair"
    canvas.disc(at(x, base + height * 0.935, z), 0.075 * height * scale, (label, canvas.paint(hair, pick >> 17 & 3), 150, code))
    if not (pick >> 19 & 3 == 0 and scale > 9):  # one in four shows the back of the head
        canvas.disc(at(x, base + height * 0.91, z), 0.062 * height * scale, (label, canvas.paint("skin", pick >> 14 & 3), 170, code))


def _person(canvas: Canvas, person: Thing) -> None:
    x, z = person.x, person.z
    stride = 0.16 if person.facing in ("left", "right") else 0.05
    canvas.shadow(x - 0.2, x + 0.2, z - 0.1, z + 0.2, 1.4)
    _figure(canvas, x, 0.0, z, 1.72 * person.size, PERSON, person.pick, stride)


def _cycle(canvas: Canvas, cycle: Thing) -> None:
    """A bicycle or motorcycle without its rider."""
    x, z, at, code = cycle.x, cycle.z, canvas.at, depth_code(cycle.z)
    motor = cycle.kind in ("motorcycle", "biker")
    label, scale = (MOTORCYCLE, canvas.view.focal / z) if motor else (BICYCLE, canvas.view.focal / z)
    frame = (label, canvas.paint("car" if motor else "cycle", cycle.pick & 63), 170, code)
    rubber = (label, canvas.paint("rubber"), 80, code)
    canvas.shadow(x - 0.3, x + 0.3, z - 0.1, z + 0.8, 0.7)
    if cycle.facing in ("left", "right"):
        way = 1 if cycle.facing == "right" else -1
        _cycle_abeam(canvas, cycle, way, motor, frame, rubber)
        return
    width, wheel = (0.11, 0.62) if motor else (0.05, 0.68)
    canvas.rect(at(x - width, wheel, z), at(x + width, 0, z), rubber)
    if motor:
        canvas.poly([at(x - 0.2, 0.45, z), at(x - 0.25, 0.85, z), at(x + 0.25, 0.85, z), at(x + 0.2, 0.45, z)], frame)
        lamp = canvas.paint("taillight" if cycle.facing == "away" else "headlight")
        canvas.disc(at(x, 0.78, z), 0.09 * scale, (label, lamp, 200, code))
    canvas.line(at(x, wheel, z), at(x, 1.0, z), 0.05 * scale, frame)
    canvas.line(at(x - 0.32, 1.02, z), at(x + 0.32, 1.02, z), 0.05 * scale, frame)


def _cycle_abeam(canvas: Canvas, cycle: Thing, way: int, motor: bool, frame: Colour, rubber: Colour) -> None:
    x, z, at, scale = cycle.x, cycle.z, canvas.at, canvas.view.focal / cycle.z
    base, radius = (0.68, 0.3) if motor else (0.52, 0.33)
    rim = max(1, int((0.13 if motor else 0.06) * scale + 0.5))
    for end in (-1, 1):
        cv2.circle(canvas.buffer, at(x + end * base, radius, z), int(radius * scale + 0.5), rubber, rim)
    hub, grip = at(x + way * base, radius, z), at(x + way * (base - 0.18), 0.98, z)
    seat, pedal, tail = at(x - way * 0.2, 0.82, z), at(x, radius, z), at(x - way * base, radius, z)
    width = 0.05 * scale
    if motor:
        tank = ((-0.75, 0.8), (-0.2, 0.75), (0.1, 0.98), (0.45, 0.85), (0.4, 0.4), (-0.35, 0.3))
        canvas.poly([at(x + way * d, y, z) for d, y in tank], frame)
        canvas.disc(at(x + way * 0.62, 0.85, z), 0.1 * scale, (frame[0], canvas.paint("headlight"), 200, frame[3]))
        width = 0.08 * scale
    for a, b in ((hub, grip), (grip, seat), (seat, pedal), (pedal, at(x + way * (base - 0.13), 0.8, z)), (pedal, tail), (tail, seat)):
        canvas.line(a, b, width, frame)


def _rider(canvas: Canvas, rider: Thing) -> None:
    """Somebody on a bicycle or a motorcycle: he sits on it, and above it in the picture."""
    _cycle(canvas, rider)
    x, z, pick, at, code = rider.x, rider.z, rider.pick, canvas.at, depth_code(rider.z)
    scale = canvas.view.focal / z
    if rider.facing not in ("left", "right"):
        _figure(canvas, x, 0.36, z - 0.05, 1.45, RIDER, pick, 0.09)
        return
    way = 1 if rider.facing == "right" else -1
    coat = (RIDER, canvas.paint("cloth", pick >> 9 & 31), 165, code)
    trousers = (RIDER, canvas.paint("cloth", pick >> 4 & 31), 110, code)
    seat, knee, foot = at(x - way * 0.2, 0.88, z), at(x + way * 0.15, 0.68, z), at(x, 0.28, z)
    canvas.line(seat, knee, 0.16 * scale, trousers)
    canvas.line(knee, foot, 0.13 * scale, trousers)
    shoulder = at(x + way * 0.12, 1.4, z)
    canvas.line(seat, shoulder, 0.3 * scale, coat)
    canvas.line(shoulder, at(x + way * 0.36, 1.02, z), 0.1 * scale, coat)
    canvas.disc(at(x + way * 0.18, 1.62, z), 0.13 * scale, (RIDER, canvas.paint("skin", pick >> 14 & 3), 160, code))
    canvas.disc(at(x + way * 0.16, 1.68, z), 0.11 * scale, (RIDER, canvas.paint("helmet", pick >> 17 & 3), 170, code))


# ------------------------------------------------------------------------------------------------------------- furniture


def _pole(canvas: Canvas, x: float, z: float, height: float, width: float, material: str = "pole", pick: int = 0) -> None:
    colour = (POLE, canvas.paint(material, pick), 150, depth_code(z))
    canvas.line(canvas.at(x, 0, z), canvas.at(x, height, z), width * canvas.view.focal / z, colour)
    if z < 25:
        canvas.shadow(x - 0.1, x + 0.1, z - 0.1, z + 0.1, height * 0.5)


def _lamp(canvas: Canvas, lamp: Thing) -> None:
    """A street lamp whose arm reaches over the road."""
    x, z, at, height = lamp.x, lamp.z, canvas.at, 5.5 * lamp.size
    way, scale, code = (-1 if lamp.facing == "left" else 1), canvas.view.focal / lamp.z, depth_code(lamp.z)
    _pole(canvas, x, z, height, 0.14, "pole", lamp.pick & 3)
    arm = (POLE, canvas.paint("pole", lamp.pick & 3), 150, code)
    tip = at(x + way * 1.6, height + 0.25, z)
    canvas.line(at(x, height, z), tip, 0.1 * scale, arm)
    canvas.line(tip, at(x + way * 1.1, height + 0.18, z), 0.2 * scale, (POLE, canvas.paint("lamp"), 200, code))
    cx, r = x + way * 1.6, 3.0
    canvas.shade([(cx - r, z), (cx - 2, z - 3), (cx + 2, z - 3), (cx + r, z), (cx + 2, z + 3), (cx - 2, z + 3)], 255)


def _sign(canvas: Canvas, sign: Thing) -> None:
    """Round, triangular, square or lozenge: the face of a traffic sign on its post."""
    x, z, at, pick, code = sign.x, sign.z, canvas.at, sign.pick, depth_code(sign.z)
    height, r, scale = 2.4 * sign.size, 0.36, canvas.view.focal / sign.z
    _pole(canvas, x, z, height, 0.08, "pole", pick & 3)
    red, white, blue = (
        (SIGN, canvas.paint(name), 170, code) for name in ("sign red", "sign white", "sign blue")
    )
    kind, y = pick >> 4 & 7, height
    if kind < 2:
        canvas.disc(at(x, y, z), r * scale, red)
        if r * scale > 1.6:
            canvas.disc(at(x, y, z), r * scale * 0.65, white)
    elif kind < 4:
        canvas.poly([at(x - 0.42, y - 0.3, z), at(x, y + 0.45, z), at(x + 0.42, y - 0.3, z)], red)
        canvas.poly([at(x - 0.22, y - 0.18, z), at(x, y + 0.2, z), at(x + 0.22, y - 0.18, z)], white)
    elif kind == 4:
        canvas.rect(at(x - 0.34, y + 0.34, z), at(x + 0.34, y - 0.34, z), blue)
        canvas.rect(at(x - 0.12, y + 0.2, z), at(x + 0.05, y - 0.2, z), white)
    elif kind == 5:
        lozenge = [(-0.42, 0), (0, 0.42), (0.42, 0), (0, -0.42)]
        canvas.poly([at(x + a, y + b, z) for a, b in lozenge], white)
        canvas.poly([at(x + a * 0.66, y + b * 0.66, z) for a, b in lozenge], (SIGN, canvas.paint("sign yellow"), 170, code))
    elif kind == 6:
        canvas.disc(at(x, y, z), r * scale, blue)
        canvas.line(at(x, y - 0.2, z), at(x, y + 0.2, z), 0.1 * scale, white)
    else:
        canvas.rect(at(x - 0.75, y + 0.3, z), at(x + 0.75, y - 0.3, z), (SIGN, canvas.paint("sign green", pick >> 8 & 1), 170, code))
        canvas.line(at(x - 0.5, y, z), at(x + 0.5, y, z), 0.1 * scale, white)


def _light(canvas: Canvas, light: Thing) -> None:
    """A traffic light at the kerb and, for half of them, a second one on an arm over the lanes."""
    x, z, pick = light.x, light.z, light.pick
    _pole(canvas, x, z, 3.1, 0.12, "pole", pick & 3)
    lit = pick >> 4 & 3
    _signal(canvas, x, 2.6, z, lit)
    if pick >> 6 & 1 and light.facing in ("left", "right"):
        way, scale = (-1 if light.facing == "left" else 1), canvas.view.focal / z
        colour = (POLE, canvas.paint("pole", pick & 3), 150, depth_code(z))
        canvas.line(canvas.at(x, 0, z), canvas.at(x, 5.4, z), 0.14 * scale, colour)
        canvas.line(canvas.at(x, 5.4, z), canvas.at(x + way * 3.2, 5.4, z), 0.1 * scale, colour)
        _signal(canvas, x + way * 3.0, 5.0, z, lit)
        _signal(canvas, x, 2.6, z, lit)


def _signal(canvas: Canvas, x: float, y: float, z: float, lit: int) -> None:
    at, code, scale = canvas.at, depth_code(z), canvas.view.focal / z
    canvas.rect(at(x - 0.2, y + 0.55, z), at(x + 0.2, y - 0.5, z), (LIGHT, canvas.paint("signal"), 120, code))
    for lamp, (name, offset) in enumerate((("red", 0.33), ("amber", 0.02), ("green", -0.29))):
        on = lamp == (0, 2, 1, 2)[lit]
        if on or scale > 14:
            colour = (LIGHT, canvas.paint(f"{name} on" if on else "lens off"), 200, code)
            canvas.disc(at(x, y + offset, z), 0.12 * scale, colour)


def _post(canvas: Canvas, post: Thing) -> None:
    """Three bollards."""
    for step in range(3):
        if post.z + step * 1.4 > NEAR:
            _pole(canvas, post.x, post.z + (2 - step) * 1.4, 0.95, 0.12, "pole", post.pick & 3)


def _mast(canvas: Canvas, mast: Thing) -> None:
    """A plain mast, as for tram wires and flags."""
    _pole(canvas, mast.x, mast.z, 7.5, 0.16, "pole", mast.pick & 3)


DRAW = {
    "car": _car, "van": _car, "truck": _truck, "bus": _coach, "tram": _coach, "person": _person, "bicycle": _cycle,
    "motorcycle": _cycle, "cyclist": _rider, "biker": _rider, "lamp": _lamp, "sign": _sign, "light": _light,
    "post": _post, "mast": _mast, "tree": _tree,
}  # fmt: skip
"""How each kind of `Thing` is drawn."""
