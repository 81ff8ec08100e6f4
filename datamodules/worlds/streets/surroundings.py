"""What surrounds a street: sky and ground, the plots on either side, and what grows there."""

import cv2
import numpy as np

from datamodules.worlds.streets.canvas import (
    BUILDING,
    FENCE,
    FRONT,
    NEAR,
    ROAD,
    SIDE,
    SIDEWALK,
    SKY,
    TERRAIN,
    VEGETATION,
    WALL,
    Canvas,
    Colour,
    depth_code,
)  # fmt: skip
from datamodules.worlds.streets.scenes import Lot, Scene, Thing

# --------------------------------------------------------------------------------------------------------------- ground

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


def draw_backdrop(canvas: Canvas) -> None:
    """Sky, brighter towards the horizon, and a far skyline of roofs and trees."""
    height, width = canvas.view.size
    row = int(canvas.view.row) + 1
    canvas.buffer[:row, :, 0] = SKY
    canvas.buffer[:row, :, 2] = (np.arange(row) * 170 // row + 60).astype(np.uint8)[:, None]
    code, pick = depth_code(130), canvas.scene.pick
    x = -(width // 12)
    while x < width:
        roof = pick & 7
        step = width // 28 + (pick >> 3 & 7) * width // 200
        tall = (2 + roof) * height // 110
        if pick & 3 == 0:
            canvas.rect((x, row - tall), (x + step, row + 3), (BUILDING, canvas.paint("facade", pick), 120, code))
        else:
            canvas.disc(
                (x + step // 2, row), tall // 2 + step // 3, (VEGETATION, canvas.paint("foliage", pick & 3), 100, code)
            )
        pick = pick * 1664525 + 1013904223 & 0xFFFFFFFF
        x += step


def draw_ground(canvas: Canvas) -> None:
    """Grass or paving, sidewalks, verges, the road and its cross streets."""
    scene = canvas.scene
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


def draw_island(canvas: Canvas, scene: Scene) -> None:
    """The planted middle of a small roundabout."""
    z, radius = sum(scene.junction) / 2, scene.island
    ring = [(0.38, 0.92), (0.71, 0.71), (0.92, 0.38), (1, 0), (0.92, -0.38), (0.71, -0.71), (0.38, -0.92)]
    ring += [(0, -1), *[(-x, y) for x, y in reversed(ring)], (0, 1)]
    at = canvas.at
    canvas.poly(
        [at(x * (radius + 0.3), 0, z + y * (radius + 0.3)) for x, y in ring],
        (SIDEWALK, canvas.ground("kerb", 3), 235, 0),
    )
    canvas.poly(
        [at(x * radius, 0.15, z + y * radius) for x, y in ring],
        (TERRAIN, canvas.ground("grass", scene.pick >> 4), 225, 0),
    )
    draw_tree(canvas, Thing("tree", 0.0, z, "toward", 3.0 + radius * 0.5, scene.pick))


# ---------------------------------------------------------------------------------------------------------------- plots


FACADES = ("facade plaster", "facade plaster", "facade brick", "facade panel", "facade glass", "facade tall")


def draw_lot(canvas: Canvas, lot: Lot) -> None:
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
        canvas.wall(x, z0, x + side * 14, z0, 0, height, (BUILDING, gable, 120, 0))
    front = canvas.upright(material, pick, x, z0, x, z1, SIDE)
    canvas.wall(x, z0, x, z1, 0, height, (BUILDING, front, tone, 0))
    if pick >> 9 & 3:
        shops = canvas.upright("shops", pick >> 11, x, z0, x, z1, SIDE)
        canvas.wall(x, z0, x, z1, 0, 3.4, (BUILDING, shops, tone, 0))
    ledge = canvas.upright("ledge", pick >> 13, x, z0, x, z1, SIDE)
    canvas.wall(x, z0, x, z1, height - 0.4, height + 0.1, (BUILDING, ledge, tone, 0))
    if pick >> 15 & 1:
        canvas.wall(x, z0, x, z1, 3.4, 3.7, (BUILDING, ledge, tone, 0))
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
    canvas.wall(x, z0, x, z1, 0, height, (BUILDING, front, canvas.flank(side), 0))
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
        if z > 2.5 and canvas.in_view(x, z):
            draw_tree(canvas, Thing("tree", x, z, "toward", height, pick))


def _boundary(canvas: Canvas, lot: Lot) -> None:
    x, z0, z1, side, pick = lot.side * (lot.edge + 0.1), lot.z0, lot.z1, lot.side, lot.pick >> 12
    high = {"wall": 1.0 + (pick & 3) * 0.4, "fence": 1.0 + (pick & 3) * 0.25, "hedge": 1.1 + (pick & 3) * 0.3}[
        lot.boundary
    ]
    label = {"wall": WALL, "fence": FENCE, "hedge": VEGETATION}[lot.boundary]
    kinds = {
        "wall": ("wall stone", "wall brick", "wall concrete", "wall concrete"),
        "fence": ("fence pickets", "fence mesh", "fence boards", "fence rails"),
        "hedge": ("hedge",) * 4,
    }
    material, tone = kinds[lot.boundary][pick >> 2 & 3], canvas.flank(side)
    if z0 > 3:
        end = canvas.upright(material, pick >> 4, x, z0, x + side * 6, z0, FRONT)
        canvas.wall(x, z0, x + side * 6, z0, 0, high, (label, end, 120, 0))
    face = canvas.upright(material, pick >> 4, x, z0, x, z1, SIDE)
    canvas.wall(x, z0, x, z1, 0, high, (label, face, tone, 0))
    if lot.boundary == "wall":
        cap = canvas.upright("ledge", pick >> 6, x, z0, x, z1, SIDE)
        canvas.wall(x, z0, x, z1, high - 0.12, high, (label, cap, 230, 0))
    canvas.shadow(min(x, x + side * 0.3), max(x, x + side * 0.3), z0, z1, high)


def draw_closing_row(canvas: Canvas) -> None:
    """Houses across the end of a T junction."""
    scene, pick = canvas.scene, canvas.scene.pick
    x, z = -48.0, scene.end
    while x < 48:
        width = 9.0 + (pick & 7)
        height = (7 if scene.style in ("suburb", "parkway") else 12) + (pick >> 3 & 7) * 0.9
        material = FACADES[(pick >> 6 & 255) * len(FACADES) >> 8]
        front = canvas.upright(material, pick, x, z, x + width, z, FRONT)
        canvas.wall(x, z, x + width, z, 0, height, (BUILDING, front, 140, 0))
        pick = pick * 1664525 + 1013904223 & 0xFFFFFFFF
        x += width


# --------------------------------------------------------------------------------------------------------------- plants


def _outlines() -> np.ndarray:
    """16 ragged outlines of unit radius: a 48-gon's corners, pushed in and out by a small integer recurrence."""
    cosines = (
        100,
        99,
        97,
        92,
        87,
        79,
        71,
        61,
        50,
        38,
        26,
        13,
        0,
        -13,
        -26,
        -38,
        -50,
        -61,
        -71,
        -79,
        -87,
        -92,
        -97,
        -99,
    )
    cosines += tuple(-cosine for cosine in cosines)
    circle = np.array([(cosines[step], cosines[step - 12]) for step in range(48)]) / 100
    word, radii = 12345, []
    for step in range(16 * 48):
        word = word * 1664525 + 1013904223 & 0xFFFFFFFF
        bough = radii[-1] if step % 2 else 0.72 + (word >> 24) / 255 * 0.38
        radii.append(bough + ((word >> 16 & 255) / 255 - 0.5) * 0.12)
    return circle[None] * np.array(radii).reshape(16, 48, 1)


BLOBS = _outlines()


def _blob(canvas: Canvas, blob: np.ndarray, x: float, y: float, z: float, rx: float, ry: float, colour: Colour) -> None:
    """A ragged ellipse facing the camera, centre and radii in metres."""
    column, row = canvas.at(x, y, z)
    scale = canvas.view.focal / z
    if rx * scale < 14:
        blob = blob[::2]
    points = blob * np.array((rx * scale, ry * scale))
    points += np.array((column, row))
    cv2.fillPoly(canvas.buffer, [points.astype(np.int32)], colour)


def draw_tree(canvas: Canvas, tree: Thing) -> None:
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
            ragged = [
                left,
                at(x - wide * 0.5, low + 0.25, z),
                at(x - wide * 0.2, low - 0.1, z),
                at(x + wide * 0.3, low + 0.2, z),
                right,
            ]
            canvas.poly([*ragged, at(x, top, z)], (VEGETATION, leaf, 80 + 20 * level, code))
            lit = [at(x + sun * wide * 0.15, low, z), at(x, top, z), right if sun > 0 else left]
            canvas.poly(lit, (VEGETATION, leaf, 150 + 20 * level, code))
    else:
        middle = stem + rise
        _blob(canvas, BLOBS[pick >> 11 & 15], x, middle, z, crown, rise, (VEGETATION, leaf, 70, code))
        clumps = ((0.25, 0.68, 0.62, 165), (0.4, 0.38, 0.35, 245)) if scale * crown > 6 else ()
        for part, (shift, wide, tall, tone) in enumerate(clumps):
            blob, lean = BLOBS[pick >> (15 + 4 * part) & 15], x + sun * crown * shift
            _blob(
                canvas, blob, lean, middle + rise * shift, z, crown * wide, rise * tall, (VEGETATION, leaf, tone, code)
            )
    if z > 45:
        return
    canvas.shadow(x - crown * 0.2, x + crown * 0.2, z - 0.25, z + 0.25, 0)
    shift = -sun * height * 0.35
    canvas.shade([(x + shift - crown, z), (x + shift, z - crown), (x + shift + crown, z), (x + shift, z + crown)], 70)
