"""What moves and stands on a street: vehicles, people, lamps, signs and lights."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2

from datamodules.worlds.streets.canvas import (
    BICYCLE,
    BUS,
    CAR,
    LIGHT,
    MOTORCYCLE,
    NEAR,
    PERSON,
    POLE,
    RIDER,
    SIDE,
    SIGN,
    TRAIN,
    TRUCK,
    Canvas,
    Colour,
    Point,
    depth_code,
)  # fmt: skip
from datamodules.worlds.streets.scenes import Thing

# ------------------------------------------------------------------------------------------------------------- vehicles


class Body(NamedTuple):
    """A car's cross-section along its length: (metres from the tail, metres above the road)."""

    width: float
    profile: tuple[tuple[float, float], ...]
    windows: tuple[tuple[float, float], ...]


BODIES = {
    "hatchback": Body(1.75, ((0, 0.3), (0.05, 0.95), (0.5, 1.46), (2.2, 1.46), (3.0, 0.98), (3.85, 0.8), (3.9, 0.3)),
                      ((0.5, 0.98), (0.75, 1.36), (2.15, 1.36), (2.75, 0.98))),
    "sedan": Body(1.8, ((0, 0.3), (0.05, 0.98), (0.85, 1.02), (1.5, 1.43), (2.8, 1.43), (3.55, 0.98), (4.5, 0.8),
                        (4.55, 0.3)), ((1.1, 1.0), (1.6, 1.34), (2.75, 1.34), (3.3, 1.0))),
    "suv": Body(1.9, ((0, 0.35), (0.05, 1.1), (0.3, 1.72), (2.7, 1.72), (3.4, 1.12), (4.4, 1.0), (4.45, 0.35)),
                ((0.45, 1.14), (0.6, 1.6), (2.65, 1.6), (3.15, 1.14))),
    "van": Body(1.95, ((0, 0.35), (0.02, 1.25), (0.12, 2.0), (3.7, 2.0), (4.4, 1.2), (4.95, 0.95), (5.0, 0.35)),
                ((3.0, 1.25), (3.05, 1.8), (3.7, 1.8), (4.1, 1.25))),
}  # fmt: skip


def draw_car(canvas: Canvas, car: Thing) -> None:
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
            canvas.poly(
                [at(x - wa, ya, z + da), at(x - wb, yb, z + db), at(x + wb, yb, z + db), at(x + wa, ya, z + da)], glass
            )
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


def _car_flank(
    canvas: Canvas, car: Thing, body: Body, profile: Sequence[tuple[float, float]], across: Callable, colour: Colour
) -> None:
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
    canvas.rect(
        at(x - half, 0.42, z), at(x + half, 0.24, z), (CAR, canvas.paint("bumper", car.pick >> 22 & 1), 120, code)
    )
    lamp = (CAR, canvas.paint("taillight" if away else "headlight"), 200, code)
    high = height - 0.12
    for side in (-1, 1):
        canvas.rect(at(x + side * (half - 0.38), high, z), at(x + side * (half - 0.06), high - 0.17, z), lamp)
    if scale > 6:
        canvas.rect(
            at(x - 0.26, 0.62, z), at(x + 0.26, 0.5, z), (CAR, canvas.paint("plate", car.pick >> 23 & 1), 150, code)
        )
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


def draw_coach(canvas: Canvas, coach: Thing) -> None:
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
    canvas.rect(at(x - half, 0.4, z), at(x + half, 0.14, z), (label, canvas.paint("rubber"), 60, code))
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
            canvas.rect(
                at(x + side * half * 0.95, 0.35, z),
                at(x + side * half * 0.65, 0, z),
                (label, canvas.paint("rubber"), 80, code),
            )
    if kind.label == TRAIN:
        canvas.rect(at(x - half * 0.85, 0.3, z), at(x + half * 0.85, 0.1, z), (label, canvas.paint("rubber"), 80, code))
        canvas.line(
            at(x, kind.height, z + 2),
            at(x, kind.height + 0.7, z + 2),
            0.1 * canvas.view.focal / z,
            (label, canvas.paint("iron"), 100, code),
        )


def _coach_flank(canvas: Canvas, coach: Thing, kind: Coach, x: float, tone: int) -> None:
    z, pick = coach.z, coach.pick
    body = (kind.label, canvas.upright(kind.paint, pick, x, z, x, z + kind.length, SIDE), tone, 0)
    stripe = (kind.label, canvas.upright("stripe", pick >> 8, x, z, x, z + kind.length, SIDE), tone, 0)
    panes = (kind.label, canvas.upright("panes", pick >> 20 & 1, x, z, x, z + kind.length, SIDE), 120, 0)
    rubber = (kind.label, canvas.paint("rubber"), 80, depth_code(z))
    canvas.wall(x, z, x, z + kind.length, 0.12, 0.5, rubber)
    canvas.wall(x, z, x, z + kind.length, 0.35, kind.height, body)
    canvas.wall(x, z, x, z + kind.length, 0.4, 0.75, stripe)
    canvas.wall(x, z + 0.3, x, z + kind.length - 0.3, *kind.windows, panes)


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


def draw_truck(canvas: Canvas, truck: Thing) -> None:
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
        canvas.wall(flank, z, flank, z + length, 0.15, 0.8, (TRUCK, canvas.paint("rubber"), 90, code))
        canvas.wall(
            flank,
            z0,
            flank,
            z1,
            0.8,
            high,
            (TRUCK, canvas.upright("cargo", pick, flank, z0, flank, z1, SIDE), tone, 0),
        )
        if not away:
            canvas.wall(flank, z, flank, z + 1.9, 0.45, 2.5, (TRUCK, cab, tone, code))
            canvas.wall(flank, z + 0.3, flank, z + 1.3, 1.5, 2.25, glass)
    _truck_face(canvas, truck, half, high, (TRUCK, box, 140, code), (TRUCK, cab, 140, code), glass)


def _truck_face(
    canvas: Canvas, truck: Thing, half: float, high: float, box: Colour, cab: Colour, glass: Colour
) -> None:
    """The end that is turned to us: cargo doors, or the cab before its box."""
    x, z, at, code = truck.x, truck.z, canvas.at, depth_code(truck.z)
    scale, iron, rubber = canvas.view.focal / z, canvas.paint("iron"), (TRUCK, canvas.paint("rubber"), 80, code)
    for side in (-1, 1):
        canvas.rect(at(x + side * half * 0.95, 0.7, z), at(x + side * half * 0.5, 0, z), rubber)
    canvas.rect(at(x - half * 0.8, 0.9, z), at(x + half * 0.8, 0.3, z), rubber)
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
        canvas.rect(
            at(x + side * half * 0.9, low, z), at(x + side * half * 0.66, low - 0.16, z), (TRUCK, lamp, 200, code)
        )


# --------------------------------------------------------------------------------------------------------------- people


def _figure(
    canvas: Canvas, x: float, base: float, z: float, height: float, label: int, pick: int, stride: float
) -> None:
    """Legs, torso, arms and head of somebody whose soles are `base` metres above the road."""
    at, code, scale = canvas.at, depth_code(z), canvas.view.focal / z
    trousers = (label, canvas.paint("cloth", pick >> 4 & 31), 110, code)
    coat = (label, canvas.paint("cloth", pick >> 9 & 31), 165, code)
    hip, neck, wide = base + height * 0.47, base + height * 0.83, height * 0.14
    for step in (-1, 1):
        foot = at(x + step * (0.07 + stride), base, z)
        canvas.line(at(x + step * 0.06, hip, z), foot, 0.09 * height * scale, trousers)
    torso = [
        at(x - wide, neck - 0.05, z),
        at(x + wide, neck - 0.05, z),
        at(x + wide * 0.8, hip - 0.05, z),
        at(x - wide * 0.8, hip - 0.05, z),
    ]
    canvas.poly(torso, coat)
    if scale > 9:
        arm = (label, coat[1], 90, code)
        for side in (-1, 1):
            canvas.line(
                at(x + side * wide, neck - 0.1, z),
                at(x + side * (wide + 0.05 + stride * 0.4), hip, z),
                0.06 * height * scale,
                arm,
            )
    hair = "helmet" if label == RIDER and pick >> 16 & 1 else "hair"
    canvas.disc(
        at(x, base + height * 0.935, z), 0.075 * height * scale, (label, canvas.paint(hair, pick >> 17 & 3), 150, code)
    )
    if not (pick >> 19 & 3 == 0 and scale > 9):  # one in four shows the back of the head
        canvas.disc(
            at(x, base + height * 0.91, z),
            0.062 * height * scale,
            (label, canvas.paint("skin", pick >> 14 & 3), 170, code),
        )


def draw_person(canvas: Canvas, person: Thing) -> None:
    x, z = person.x, person.z
    stride = 0.16 if person.facing in ("left", "right") else 0.05
    canvas.shadow(x - 0.2, x + 0.2, z - 0.1, z + 0.2, 1.4)
    _figure(canvas, x, 0.0, z, 1.72 * person.size, PERSON, person.pick, stride)


def draw_cycle(canvas: Canvas, cycle: Thing) -> None:
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
    for a, b in (
        (hub, grip),
        (grip, seat),
        (seat, pedal),
        (pedal, at(x + way * (base - 0.13), 0.8, z)),
        (pedal, tail),
        (tail, seat),
    ):
        canvas.line(a, b, width, frame)


def draw_rider(canvas: Canvas, rider: Thing) -> None:
    """Somebody on a bicycle or a motorcycle: he sits on it, and above it in the picture."""
    draw_cycle(canvas, rider)
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


# ------------------------------------------------------------------------------------------------------------ furniture


def _pole(
    canvas: Canvas, x: float, z: float, height: float, width: float, material: str = "pole", pick: int = 0
) -> None:
    colour = (POLE, canvas.paint(material, pick), 150, depth_code(z))
    canvas.line(canvas.at(x, 0, z), canvas.at(x, height, z), width * canvas.view.focal / z, colour)
    if z < 25:
        canvas.shadow(x - 0.1, x + 0.1, z - 0.1, z + 0.1, height * 0.5)


def draw_lamp(canvas: Canvas, lamp: Thing) -> None:
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


def draw_sign(canvas: Canvas, sign: Thing) -> None:
    """Round, triangular, square or lozenge: the face of a traffic sign on its post."""
    x, z, at, pick, code = sign.x, sign.z, canvas.at, sign.pick, depth_code(sign.z)
    height, r, scale = 2.4 * sign.size, 0.36, canvas.view.focal / sign.z
    _pole(canvas, x, z, height, 0.08, "pole", pick & 3)
    red, white, blue = ((SIGN, canvas.paint(name), 170, code) for name in ("sign red", "sign white", "sign blue"))
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
        canvas.poly(
            [at(x + a * 0.66, y + b * 0.66, z) for a, b in lozenge], (SIGN, canvas.paint("sign yellow"), 170, code)
        )
    elif kind == 6:
        canvas.disc(at(x, y, z), r * scale, blue)
        canvas.line(at(x, y - 0.2, z), at(x, y + 0.2, z), 0.1 * scale, white)
    else:
        canvas.rect(
            at(x - 0.75, y + 0.3, z),
            at(x + 0.75, y - 0.3, z),
            (SIGN, canvas.paint("sign green", pick >> 8 & 1), 170, code),
        )
        canvas.line(at(x - 0.5, y, z), at(x + 0.5, y, z), 0.1 * scale, white)


def draw_light(canvas: Canvas, light: Thing) -> None:
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


def draw_post(canvas: Canvas, post: Thing) -> None:
    """Three bollards."""
    for step in range(3):
        if post.z + step * 1.4 > NEAR:
            _pole(canvas, post.x, post.z + (2 - step) * 1.4, 0.95, 0.12, "pole", post.pick & 3)


def draw_mast(canvas: Canvas, mast: Thing) -> None:
    """A plain mast, as for tram wires and flags."""
    _pole(canvas, mast.x, mast.z, 7.5, 0.16, "pole", mast.pick & 3)
