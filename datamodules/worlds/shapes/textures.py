"""Materials of the shapes' styles: photographed surfaces, brush strokes, canvas, comic patterns, paper and hatching.

Each is prepared once for an image size, four images wide, and every picture takes its own cut. Their grain is set in
image sides, so that larger pictures show the same things, finer. Integer noise and element-wise arithmetic throughout,
which round alike on every machine.
"""

from functools import lru_cache

import cv2
import numpy as np
from numpy.random import PCG64, SeedSequence

from datamodules.worlds.dice import Dice

WIDTH = 4
"""Side of a texture in image sides."""


def white(seed: int, *shape: int) -> np.ndarray:
    """Uniform noise, uint8."""
    count = int(np.prod(shape))
    words = PCG64(SeedSequence([23, seed])).random_raw((count + 7) // 8)
    return words.astype("<u8").view(np.uint8)[:count].reshape(shape)


def smooth(side: int, cells: tuple[int, int], seed: int) -> np.ndarray:
    """Noise that is smooth between `cells` (down, across) lattice points: float64 (side, side), 0 to 1."""
    lattice = white(seed, *cells) / 255.0
    for axis, count in enumerate(cells):
        at = (np.arange(side) + 0.5) * count / side
        low = at.astype(int)
        part = at - low
        part = (part * part * (3 - 2 * part)).reshape((-1, 1) if axis == 0 else (1, -1))
        first, second = lattice.take(low % count, axis), lattice.take((low + 1) % count, axis)
        lattice = first + (second - first) * part
    return lattice


def layered(side: int, seed: int, *octaves: tuple[int, int, float]) -> np.ndarray:
    """Sum of smooth noises (features down and across an image side, weight), stretched to 0 to 1."""
    total = np.zeros((side, side))
    for octave, (down, across, weight) in enumerate(octaves):
        total += weight * smooth(side, (WIDTH * down, WIDTH * across), seed * 16 + octave)
    return (total - total.min()) / (total.max() - total.min())


def places(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of every texel in image sides, as (side, 1) and (1, side)."""
    at = (np.arange(side) + 0.5) * WIDTH / side
    return at[:, None], at[None, :]


def wave(phase: np.ndarray) -> np.ndarray:
    """0 at whole numbers, 1 half way, straight in between."""
    return 1 - np.abs(2 * (phase - np.floor(phase)) - 1)


def step(values: np.ndarray, at: float, softness: float) -> np.ndarray:
    return np.clip((values - at) / softness + 0.5, 0, 1)


# -------------------------------------------------------------------------------------------------------- photographs


def pebbles(side: int, seed: int, count: int) -> np.ndarray:
    """Round stones, `count` along an image side, dark where they meet."""
    cells = WIDTH * count
    jitter = white(seed, 3, cells, cells) / 255.0
    at = (np.arange(side) + 0.5) * cells / side
    low = at.astype(int)
    nearest, second, tone = np.full((side, side), 9.0), np.full((side, side), 9.0), np.zeros((side, side))
    for down in (-1, 0, 1):
        for across in (-1, 0, 1):
            r, c = np.ix_((low + down) % cells, (low + across) % cells)
            dy = at[:, None] - (low + down)[:, None] - jitter[0][r, c]
            dx = at[None, :] - (low + across)[None, :] - jitter[1][r, c]
            distance = dx * dx + dy * dy
            closer = distance < nearest
            second = np.where(closer, nearest, np.minimum(second, distance))
            tone = np.where(closer, jitter[2][r, c], tone)
            nearest = np.minimum(nearest, distance)
    return np.clip((second - nearest) * 1.6, 0, 1) * (0.45 + 0.55 * tone)


def bricks(side: int, seed: int, rows: int) -> np.ndarray:
    down, across = places(side)
    row = np.floor(down * rows)
    column = np.floor(across * rows / 2 + row * 0.5)
    stones = white(seed, 64, 64)[(row.astype(int) % 64), (column.astype(int) % 64)] / 255.0
    v, u = wave(down * rows), wave(across * rows / 2 + row * 0.5)
    joint = np.minimum(step(v, 0.16, 0.16), step(u, 0.08, 0.08))
    return joint * (0.35 + 0.45 * stones + 0.2 * layered(side, seed + 1, (20, 20, 1.0)))


def wood(side: int, seed: int) -> np.ndarray:
    rings = layered(side, seed, (3, 1, 1.0))
    return 0.55 * wave(rings * 9) + 0.45 * layered(side, seed + 1, (40, 2, 1.0), (14, 1, 0.8))


def boards(side: int, seed: int) -> np.ndarray:
    down, _ = places(side)
    tone = white(seed, 64)[np.floor(down * 4).astype(int) % 64] / 255.0
    return step(wave(down * 4), 0.1, 0.1) * (
        0.3 + 0.35 * tone + 0.35 * layered(side, seed + 1, (30, 2, 1.0), (12, 1, 1.0))
    )


def woven(side: int, seed: int) -> np.ndarray:
    down, across = places(side)
    over = (np.floor(down * 9) + np.floor(across * 9)) % 2
    cloth = np.where(over > 0, wave(down * 9), wave(across * 9))
    return 0.65 * cloth + 0.35 * layered(side, seed, (2, 2, 1.0), (24, 24, 0.5))


def lights(side: int, seed: int) -> np.ndarray:
    """Lamps out of focus in the dark."""
    canvas = (30 + 70 * layered(side, seed, (2, 2, 1.0))).astype(np.uint8)
    dice = Dice(23, seed)
    for _ in range(220):
        centre = (dice.word() % side, dice.word() % side)
        radius, tone = max(1, int(side * dice.between(0.008, 0.035))), 40 + dice.word() % 110
        canvas = cv2.add(canvas, cv2.circle(np.zeros_like(canvas), centre, radius, tone, -1, cv2.LINE_AA))
    return canvas / 255.0


SURFACES = {
    "plaster": lambda side: layered(side, 1, (2, 2, 1.0), (5, 5, 0.7), (20, 20, 0.5)),
    "stone": lambda side: layered(side, 2, (3, 3, 1.0), (7, 7, 0.8), (14, 14, 0.7), (30, 30, 0.6)),
    "grass": lambda side: layered(side, 3, (4, 30, 1.0), (8, 16, 0.8), (2, 2, 0.6)),
    "foliage": lambda side: layered(side, 4, (9, 9, 1.0), (18, 18, 0.8), (3, 3, 0.9)),
    "water": lambda side: wave(2 * layered(side, 5, (8, 2, 1.0), (16, 4, 0.5))),
    "fur": lambda side: layered(side, 6, (24, 6, 1.0), (12, 3, 0.6), (3, 3, 0.5)),
    "pebbles": lambda side: pebbles(side, 7, 7),
    "cobbles": lambda side: pebbles(side, 8, 4),
    "bricks": lambda side: bricks(side, 9, 8),
    "wood": lambda side: wood(side, 10),
    "boards": lambda side: boards(side, 11),
    "woven": lambda side: woven(side, 12),
    "lights": lambda side: lights(side, 13),
    "sky": lambda side: layered(side, 14, (1, 1, 1.0), (2, 3, 0.7), (5, 8, 0.3)),
}
"""What photographs are taken of, and in front of."""

# ----------------------------------------------------------------------------------------------------------- paintings


class Strokes:
    """Overlapping brush strokes: for every texel, where its stroke takes its colour, and how it looks.

    Attributes:
        centre: int16 (side, side, 2), a third of the way (across, down) to the stroke's centre in texels. With all of
            the way, nothing would be left of small outlines.
        tone: int8 (3, side, side), how far the stroke's colour strays. ridge: int16 (side, side), the bristles' relief,
            about -64 to 64.
    """

    def __init__(self, side: int, seed: int, length: float, width: float):
        unit, count = side / WIDTH, int(4 * WIDTH * WIDTH / (length * width))
        x, y, wander, reach = (PCG64(SeedSequence([29, seed])).random_raw(4 * count) >> 11).reshape(4, -1) / 2.0**53
        x, y = x * side, y * side
        flow = layered(side, seed, (1, 1, 1.0), (2, 2, 0.5)) * 2.2 - 1.1
        t = flow[y.astype(int), x.astype(int)] + 0.4 * wander - 0.2
        cos, sin = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
        half = 0.5 * (length - width) * unit * (0.6 + 0.6 * reach)
        ends = np.stack([x - half * cos, y - half * sin, x + half * cos, y + half * sin], 1) * 16
        ids = np.full((side, side), -1, np.int32)
        # At least 2: how OpenCV steps along a line of one pixel has changed with its version 5.
        thick = max(2, round(width * unit))
        for number, (x0, y0, x1, y1) in enumerate(ends.astype(np.int32).tolist()):
            cv2.line(ids, (x0, y0), (x1, y1), number, thick, 8, 4)

        rows, columns = np.arange(side)[:, None], np.arange(side)[None, :]
        bare = ids < 0
        down, across = np.where(bare, 0, y[ids] - rows), np.where(bare, 0, x[ids] - columns)
        self.centre = np.rint(np.stack((across, down), -1) / 3).astype(np.int16)
        tone = white(seed + 1, count, 4).astype(np.int32)
        # A stroke is lighter or darker first, and only then of another hue.
        self.tone = ((2 * tone[:, :1] + tone[:, 1:]) // 3 - 128).astype(np.int8)[ids].transpose(2, 0, 1).copy()
        off = (down * cos[ids] - across * sin[ids]) / (width * unit)
        bristle = white(seed + 2, 4096)[(ids * 13 + np.floor(off * 7).astype(np.int32)) % 4096] / 255.0 - 0.5
        self.ridge = np.rint(52 * bristle + 90 * off * np.abs(off)).astype(np.int16)

    def gathered(self, rows: slice, columns: slice, *planes: np.ndarray) -> list[np.ndarray]:
        """What planes (size, size, ...) hold at the centres of the strokes in a window of `size` texels, or at the edge
        where those are outside. Centres are whole pixels: nothing is interpolated."""
        centres = self.centre[rows, columns] + lattice(len(planes[0]))
        return [cv2.remap(plane, centres, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE) for plane in planes]


@lru_cache(maxsize=8)
def lattice(size: int) -> np.ndarray:
    """Every pixel's column and row, int16 (size, size, 2)."""
    return np.stack(np.meshgrid(*2 * [np.arange(size, dtype=np.int16)]), -1)


# ------------------------------------------------------------------------------------------------------------ cartoons


def rays(side: int) -> np.ndarray:
    """Stripes that fan out from points an image side apart, drawn as wedges."""
    canvas = np.zeros((side, side), np.uint8)
    unit = side // WIDTH
    ring = [(x, -4) for x in range(-4, 4)]
    for _ in range(3):
        ring += [(-y, x) for x, y in ring[-8:]]
    for row in range(WIDTH):
        for column in range(WIDTH):
            tile = canvas[row * unit : (row + 1) * unit, column * unit : (column + 1) * unit]
            for first in range(0, 32, 2):
                corners = [(0, 0), ring[first], ring[first + 1]]
                points = np.array([(8 * unit + 4 * unit * x, 8 * unit + 4 * unit * y) for x, y in corners], np.int32)
                cv2.fillPoly(tile, [points], 255, cv2.LINE_AA, 4)
    return canvas / 255.0


def dots(side: int, count: int, share: float) -> np.ndarray:
    """Round dots, `count` along an image side, on a lattice that stands on its corner."""
    down, across = places(side)
    u, v = (down + across) * count * 0.7, (down - across) * count * 0.7
    u, v = u - np.floor(u) - 0.5, v - np.floor(v) - 0.5
    return 1 - step(u * u + v * v, share * share, 0.12)


PATTERNS = {
    "plain": lambda side: np.zeros((side, side)),
    "rays": rays,
    "dots": lambda side: dots(side, 4, 0.3),
    "halftone": lambda side: dots(side, 9, 0.34),
    "stripes": lambda side: step(wave(sum(places(side)) * 3.5), 0.5, 0.25),
    "bars": lambda side: step(wave(places(side)[1] * 4 + 0 * places(side)[0]), 0.5, 0.2),
    "checks": lambda side: sum(np.floor(place * 5) for place in places(side)) % 2,
    "hills": lambda side: step(wave(places(side)[0] + 0.35 * wave(places(side)[1] * 1.3)), 0.5, 0.04),
    "clouds": lambda side: step(layered(side, 21, (3, 2, 1.0), (6, 5, 0.5)), 0.52, 0.05),
}
"""Backgrounds of flat colours: where the second colour goes."""

# ------------------------------------------------------------------------------------------------------------ sketches


def hatching(side: int, seed: int, spacing: float, slope: tuple[float, float]) -> np.ndarray:
    """Pencil strokes side by side, `spacing` image sides apart, along `slope`; a little uneven, with gaps."""
    down, across = places(side)
    drift = 0.05 * smooth(side, (6, 6), seed) + 0.02 * smooth(side, (60, 60), seed + 1)
    phase = (down * slope[0] + across * slope[1] + drift) / spacing
    pressure = layered(side, seed + 2, (4, 4, 1.0), (9, 9, 0.8))
    return step(wave(phase), 0.7, 0.5) * step(pressure, 0.3, 0.5)


HATCHES = ((0.8, 0.6), (0.6, 0.8), (0.8, -0.6), (0.6, -0.8), (0.28, 0.96), (0.96, -0.28))
"""Unit vectors across the strokes, (down, across)."""


class Textures:
    """All materials at one image size, uint8, `WIDTH` images wide."""

    def __init__(self, size: int):
        side = WIDTH * size
        self.size = size
        self.surfaces = {name: _bytes(make(side)) for name, make in SURFACES.items()}
        self.patterns = {name: _bytes(make(side)) for name, make in PATTERNS.items()}
        self.strokes = tuple(
            Strokes(side, 100 + 8 * index, *shape)
            for index, shape in enumerate(((0.14, 0.05), (0.17, 0.055), (0.11, 0.045)))
        )
        self.canvas = _bytes(0.7 * woven_canvas(side) + 0.3 * layered(side, 31, (12, 12, 1.0)))
        self.paper = _bytes(layered(side, 41, (72, 72, 1.0), (30, 30, 0.9), (12, 12, 0.6), (2, 2, 0.3)))
        self.hatches = tuple(_bytes(hatching(side, 50 + 3 * i, 0.06, slope)) for i, slope in enumerate(HATCHES))
        self.grain = _bell(61, side)


def woven_canvas(side: int) -> np.ndarray:
    down, across = places(side)
    return wave(down * 14) * 0.5 + wave(across * 14) * 0.5


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.rint(values * 255).astype(np.uint8)


def _bell(seed: int, side: int) -> np.ndarray:
    """Bell-shaped noise of the sensor, pixel by pixel, int8 (3, side, side) with a standard deviation of 37."""
    noise = white(seed, 4, 3, side, side).astype(np.int32).sum(0) - 510
    return (noise // 4).clip(-127, 127).astype(np.int8)


@lru_cache(maxsize=4)
def textures(size: int) -> Textures:
    return Textures(size)
