"""What stands where: a driving scene as plain data, in metres, before anything is drawn.

The world is the street's own: x to the right of the road's centre line, y up from the asphalt, z ahead of the camera.
Everything is decided by `Dice` that roll the same on every machine, and only + - * / are used on the way.
"""

from dataclasses import dataclass
from typing import NamedTuple

from datamodules.worlds.dice import Dice


@dataclass(frozen=True)
class Style:
    """A kind of street. Ranges are (low, high) in metres, rates are probabilities or things per lot."""

    road: tuple[float, float]
    """Half the carriageway."""
    walk: tuple[float, float]
    """Sidewalk."""
    verge: float
    """Probability of a grass strip with trees between kerb and sidewalk."""
    lots: tuple[str, ...]
    """What the plots along the street may hold, equally likely."""
    height: tuple[float, float]
    """Buildings, ground to roof."""
    parked: float
    """Share of the kerb taken by parked vehicles."""
    people: float
    """Pedestrians on each side, at most."""
    junction: float
    """Probability of a cross street."""


STYLES = {
    "canyon": Style((3.2, 5.0), (2.6, 4.8), 0.3, ("block",) * 6 + ("house", "park"), (10, 22), 0.6, 6, 0.4),
    "avenue": Style((5.0, 8.0), (3.0, 5.5), 0.9, ("block", "block", "park", "park"), (10, 20), 0.5, 6, 0.4),
    "suburb": Style((3.0, 4.5), (1.9, 3.2), 0.5, ("house", "house", "house", "park"), (4.5, 7.5), 0.5, 4, 0.4),
    "parkway": Style((3.5, 6.5), (2.0, 3.8), 0.7, ("park", "park", "house", "block"), (6, 16), 0.35, 4, 0.3),
    "plaza": Style((6.0, 9.0), (4.0, 7.0), 0.3, ("block", "block", "block", "house"), (9, 18), 0.15, 8, 1.0),
}


class Camera(NamedTuple):
    """A pinhole without roll or pitch; a turned head is a shifted vanishing point, as in a view camera."""

    x: float
    height: float
    horizon: float
    """Row of the horizon, as a share of the image's height."""
    vanishing: float
    """Column in which straight ahead lies, as a share of the image's width."""
    curve: float
    """The street's centre line is at x = curve * z**2."""


class Lot(NamedTuple):
    """A plot on one side of the street, from z0 to z1, whose street edge is |x| = edge."""

    side: int
    z0: float
    z1: float
    edge: float
    kind: str
    height: float
    setback: float
    boundary: str
    """What stands on the street edge: "", "wall", "fence" or "hedge"."""
    trees: tuple[tuple[float, float, float, int], ...]
    """(distance from the edge, z, height, pick) of each."""
    pick: int
    """32 bits from which drawing takes colours and details."""


class Thing(NamedTuple):
    """A movable or a piece of street furniture at (x, z), its nearest point."""

    kind: str
    x: float
    z: float
    facing: str
    """"away" or "toward" along the street, "left" or "right" across it."""
    size: float
    pick: int


class Scene(NamedTuple):
    style: str
    camera: Camera
    sun: int
    """-1: the sun stands on the left, +1: on the right."""
    road: float
    verge: float
    walk: float
    crossing: float
    """z of the zebra crossing; 0 where there is none."""
    junction: tuple[float, float]
    """z of the cross street's two kerbs; (0, 0) where there is none."""
    island: float
    """Radius in metres of the round island in the middle of the junction; 0 where there is none."""
    end: float
    """z of the houses that close the view at a T junction; 0 for an open street."""
    tracks: float
    """x of the tram track; 0 where there is none."""
    lots: tuple[Lot, ...]
    things: tuple[Thing, ...]
    pick: int


def plan(dice: Dice) -> Scene:
    """Roll a scene: first the street, then the plots beside it, then what moves and stands on it."""
    style = dice.pick(tuple(STYLES))
    row = STYLES[style]
    road, walk = dice.between(*row.road), dice.between(*row.walk)
    verge = dice.between(1.2, 2.6) if dice.chance(row.verge) else 0.0
    lane = road * dice.between(0.35, 0.6)
    curve = dice.between(-0.003, 0.003) if dice.chance(0.6) else 0.0
    camera = Camera(lane, dice.between(1.3, 1.85), dice.between(0.40, 0.53), dice.between(0.38, 0.62), curve)
    crossroad = dice.chance(row.junction)
    near = dice.between(9, 30)
    junction = (near, near + dice.between(7, 12) * (1.5 if style == "plaza" else 1)) if crossroad else (0.0, 0.0)
    island = (junction[1] - junction[0]) * 0.32 if style == "plaza" and dice.chance(0.5) else 0.0
    end = dice.between(38, 75) if dice.chance(0.4) else 0.0
    crossing = near - 3.5 if crossroad and dice.chance(0.7) else dice.between(7, 25) if dice.chance(0.15) else 0.0
    tracks = -road * 0.42 if road > 4.2 and dice.chance(0.3) else 0.0
    edge = road + verge + walk
    lots = tuple(lot for side in (-1, 1) for lot in _lots(dice, row, side, edge, junction, end or 85))
    sun = dice.pick((-1, 1))
    street = Scene(
        style, camera, sun, road, verge, walk, crossing, junction, island, end, tracks, lots, (), dice.word()
    )
    return street._replace(things=_things(dice, row, street))


def _lots(dice: Dice, row: Style, side: int, edge: float, junction: tuple[float, float], end: float) -> list[Lot]:
    lots, z = [], dice.between(-6, 2)
    while z < end:
        length = dice.between(8, 17) * (1 + max(z, 0) / 50)
        if z < junction[0] < z + length:
            length = max(junction[0] - z, 2.0)
        if junction[0] and junction[0] <= z < junction[1]:
            z = junction[1]
            continue
        if z + length > 2.2:
            lots.append(_lot(dice, row, side, max(z, 1.3), z + length, edge))
        z += length
    return lots


def _lot(dice: Dice, row: Style, side: int, z0: float, z1: float, edge: float) -> Lot:
    kind = dice.pick(row.lots)
    height = dice.between(*row.height) if kind == "block" else dice.between(4.2, 7.0)
    setback = {"block": 0.0, "house": dice.between(2.5, 8), "park": 14.0}[kind]
    boundary = "" if kind == "block" else dice.pick(("wall", "wall", "fence", "fence", "hedge", ""))
    count = {"block": 0, "house": dice.word() % 3, "park": 2 + dice.word() % 3}[kind]
    depth = setback if kind == "house" else 12.0
    trees = tuple(
        sorted(
            ((dice.between(1, depth), dice.between(z0, z1), dice.between(4, 10.5), dice.word()) for _ in range(count)),
            key=lambda tree: -tree[1],
        )
    )
    return Lot(side, z0, z1, edge, kind, height, setback, boundary, trees, dice.word())


def _things(dice: Dice, row: Style, street: Scene) -> tuple[Thing, ...]:
    things = [*_parked(dice, row, street), *_traffic(dice, street), *_cross_traffic(dice, street)]
    for side in (-1, 1):
        things += _furniture(dice, street, side)
        things += _pedestrians(dice, row, street, side)
    return tuple(thing for thing in things if thing.z < (street.end or 999) - 3)


def _free(street: Scene, z: float, length: float = 0.0) -> bool:
    """Whether the kerb from z on is clear of the cross street and the zebra crossing."""
    (near, far), zebra = street.junction, street.crossing
    return not (near - 5 < z + length and z < far + 1 and far) and not (zebra and z - 4 < zebra < z + length + 2)


VEHICLE_LENGTH = {"car": 4.6, "van": 5.0, "truck": 8.5, "bus": 11.5, "tram": 24.0, "motorcycle": 2.1, "bicycle": 1.8}


def _parked(dice: Dice, row: Style, street: Scene) -> list[Thing]:
    parked = []
    for side in (-1, 1):
        if not dice.chance(0.75):
            continue
        z = dice.between(3, 9)
        while z < 60:
            kind = dice.pick(("car",) * 14 + ("van", "van", "truck", "motorcycle", "motorcycle", "bicycle"))
            length = VEHICLE_LENGTH[kind]
            if dice.chance(row.parked) and _free(street, z, length):
                # The driver keeps clear of what is parked on his own side.
                x = side * (street.road - 0.95)
                if abs(x - street.camera.x) > 2.0 or z > 14:
                    facing = "away" if side > 0 else "toward"
                    parked.append(Thing(kind, x, z, facing, dice.between(0.94, 1.06), dice.word()))
            z += length + dice.between(0.7, 2.5)
    return parked


def _traffic(dice: Dice, street: Scene) -> list[Thing]:
    """The car ahead, oncoming cars, perhaps a tram on its track."""
    kinds = ("car",) * 12 + ("van", "truck", "truck", "bus", "cyclist", "cyclist", "biker", "biker")
    traffic, z = [], dice.between(6, 18)
    while z < 65:
        kind = dice.pick(kinds)
        x = street.camera.x + dice.between(-0.4, 0.4)
        if kind == "cyclist":
            x = street.road - dice.between(0.6, 1.2)
        traffic.append(Thing(kind, x, z, "away", dice.between(0.94, 1.06), dice.word()))
        z += dice.between(10, 35)
    if street.tracks and dice.chance(0.75):
        facing = dice.pick(("toward", "toward", "away"))
        traffic.append(Thing("tram", street.tracks, dice.between(9, 40), facing, 1.0, dice.word()))
        return traffic
    z = dice.between(5, 20)
    while z < 65:
        traffic.append(Thing(dice.pick(kinds), -street.road * 0.45, z, "toward", dice.between(0.94, 1.06), dice.word()))
        z += dice.between(9, 35)
    return traffic


def _cross_traffic(dice: Dice, street: Scene) -> list[Thing]:
    near, far = street.junction
    if not far:
        return []
    kinds = ("car",) * 5 + ("van", "bus", "truck", "cyclist", "cyclist", "biker")
    crossing = []
    for lane, facing in ((0.28, "right"), (0.72, "left")):
        x = dice.between(-22, -4)
        while x < 22:
            kind = dice.pick(kinds)
            if dice.chance(0.4):
                crossing.append(Thing(kind, x, near + (far - near) * lane, facing, 1.0, dice.word()))
            x += dice.between(9, 16)
    return crossing


def _furniture(dice: Dice, street: Scene, side: int) -> list[Thing]:
    """Lamps and trees in rows along the kerb, signs and lights where a driver looks for them."""
    kerb = side * (street.road + 0.5)
    items = []
    spacing, z = dice.between(16, 26), dice.between(5, 20)
    while z < 70:
        if _free(street, z):
            items.append(Thing("lamp", kerb, z, "left" if side > 0 else "right", dice.between(0.9, 1.1), dice.word()))
        z += spacing
    if street.verge:
        spacing, z = dice.between(7, 13), dice.between(4, 12)
        x = side * (street.road + street.verge * 0.6)
        while z < 70:
            if _free(street, z):
                items.append(Thing("tree", x, z + dice.between(-1, 1), "toward", dice.between(5, 10), dice.word()))
            z += spacing * (1 + z / 60)
    z = dice.between(6, 20)
    while z < 60:
        kind = dice.pick(("sign", "sign", "sign", "sign", "post", "mast"))
        items.append(Thing(kind, kerb, z, "toward", dice.between(0.85, 1.2), dice.word()))
        z += dice.between(8, 24)
    stop = (street.junction[0] or street.crossing) - 1.5
    if stop > 3 and dice.chance(0.8):
        items.append(Thing("light", kerb, stop, "left" if side > 0 else "right", 1.0, dice.word()))
        if street.junction[0]:
            items.append(Thing("light", kerb, street.junction[1] + 1.0, "toward", 1.0, dice.word()))
    return items


def _pedestrians(dice: Dice, row: Style, street: Scene, side: int) -> list[Thing]:
    people = []
    low, high = street.road + street.verge + 0.3, street.road + street.verge + street.walk - 0.3
    for _ in range(dice.word() % (int(row.people) + 1)):
        x, z = side * dice.between(low, high), dice.between(5, 45)
        for companion in range(2 if dice.chance(0.3) else 1):
            facing = dice.pick(("away", "toward", "left", "right"))
            people.append(Thing("person", x + companion * 0.7, z, facing, dice.between(0.62, 1.08), dice.word()))
    if street.crossing and side > 0:
        for _ in range(dice.word() % 4):
            x = dice.between(-street.road, street.road)
            people.append(
                Thing(
                    "person", x, street.crossing + dice.between(0.4, 2), dice.pick(("left", "right")), 1.0, dice.word()
                )
            )
    for _ in range(dice.word() % 4):
        kind = dice.pick(("bicycle", "bicycle", "motorcycle"))
        x, z = side * (high + 0.1), dice.between(5, 30)
        if _free(street, z):
            people.append(Thing(kind, x, z, dice.pick(("left", "right")), 1.0, dice.word()))
    return people
