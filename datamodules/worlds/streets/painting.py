"""Light, colour and texture: turns the `Drawing` of a scene into a photograph in one appearance.

Every pixel knows its paint and its depth, so its place in the world follows, and from it the texel that lies there:
windows recede, paving runs to the horizon. Then albedo x texture x light, haze, and what the lens and the sensor do.

Arithmetic is element-wise float32 + - * / and OpenCV's fixed-point filters: no sums, exponentials or fused operations
that one machine would round differently from the next.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.random import PCG64, SeedSequence

from datamodules.worlds.streets.canvas import GROUND, SIDE, Drawing, Paint

RGB = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Appearance:
    """What a domain does to a scene. Light is in units of albedo: 1.0 leaves a surface its own colour."""

    colours: Mapping[str, tuple[RGB, ...]]
    """Albedos to choose from, for each family of materials."""
    ambient: tuple[float, float, float]
    """Light that reaches everything."""
    sun: tuple[float, float, float]
    """Light added where the sun shines."""
    variety: int = 18
    """How far an object's colour strays from its table's, in grey levels."""
    grain: float = 1.0
    """Contrast of the textures."""
    contact: float = 0.5
    """Share of the ambient light that is left beneath a car."""
    softness: float = 0.0
    """Blur of shadows, in pixels of a 128-row image."""
    lamps: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Light on the ground beneath a street lamp."""
    headlights: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Light of the car's own headlights on what is close."""
    glow: Mapping[str, RGB] | None = None
    """Materials that shine by themselves, and their colour; they bloom. None: no such light is visible."""
    haze: RGB = (0, 0, 0)
    """Colour of the air."""
    visibility: float = 0.0
    """Distance in metres at which a third of a thing's own light is left; 0 for clear air."""
    saturation: float = 1.0
    """Distance of the albedos from grey."""
    contrast: float = 1.0
    """Slope about mid-grey."""
    lift: RGB = (0, 0, 0)
    """Grey levels added at the end: the cast of the blacks."""
    exposure: float = 0.1
    """How far the exposure strays from one scene to the next, as a share."""
    blur: float = 0.0
    """Standard deviation of the lens' blur, in pixels of a 128-row image."""
    noise: int = 0
    """Amplitude of the sensor's noise, in grey levels."""


MATERIALS: dict[str, tuple[str, float, str]] = {
    "sky": ("clouds", 0.4, "sky"),
    "glass dark": ("flat", 1, "glass"),
    "glass bright": ("flat", 1, "glass bright"),
    "trim": ("flat", 1, "trim"),
    "window warm": ("flat", 1, "glass"),
    "window cold": ("flat", 1, "glass"),
    "shop": ("flat", 1, "shop"),
    "door": ("flat", 1, "door"),
    "cloud": ("flat", 1, "cloud"),
    "asphalt": ("asphalt", 20, "asphalt"),
    "marking": ("worn", 20, "marking"),
    "rail": ("flat", 1, "steel"),
    "iron": ("flat", 1, "steel"),
    "paving": ("paving", 24, "paving"),
    "kerb": ("stone", 16, "kerb"),
    "grass": ("grass", 14, "grass"),
    "foliage": ("leaves", 20, "foliage"),
    "hedge": ("leaves", 22, "foliage"),
    "bark": ("leaves", 30, "bark"),
    "facade": ("plaster", 4, "plaster"),
    "facade bare": ("plaster", 8, "plaster"),
    "facade plaster": ("windows", 10, "plaster"),
    "facade brick": ("brick windows", 10, "brick"),
    "facade panel": ("ribbons", 10, "plaster"),
    "facade glass": ("curtain", 10, "panel"),
    "facade tall": ("tall windows", 10, "plaster"),
    "cottage": ("cottage", 11, "plaster"),
    "cottage brick": ("brick cottage", 11, "brick"),
    "shops": ("shops", 9.4, "panel"),
    "ledge": ("flat", 1, "trim"),
    "roof": ("tiles", 12, "roof"),
    "wall stone": ("stone", 18, "wall"),
    "wall brick": ("brick", 20, "brick"),
    "wall concrete": ("panels", 14, "wall"),
    "fence pickets": ("pickets", 24, "fence"),
    "fence mesh": ("mesh", 24, "fence"),
    "fence boards": ("boards", 18, "fence"),
    "fence rails": ("rails", 20, "fence"),
    "car": ("flat", 1, "car"),
    "bus": ("flat", 1, "coach"),
    "tram": ("flat", 1, "coach"),
    "stripe": ("flat", 1, "coach"),
    "cargo": ("flat", 1, "cargo"),
    "panes": ("panes", 10, "glass"),
    "car glass": ("flat", 1, "glass"),
    "rubber": ("flat", 1, "rubber"),
    "bumper": ("flat", 1, "bumper"),
    "chrome": ("flat", 1, "trim"),
    "plate": ("flat", 1, "plate"),
    "board": ("flat", 1, "rubber"),
    "headlight": ("flat", 1, "headlight"),
    "taillight": ("flat", 1, "taillight"),
    "cloth": ("flat", 1, "cloth"),
    "skin": ("flat", 1, "skin"),
    "hair": ("flat", 1, "hair"),
    "helmet": ("flat", 1, "car"),
    "cycle": ("flat", 1, "car"),
    "pole": ("flat", 1, "pole"),
    "lamp": ("flat", 1, "headlight"),
    "signal": ("flat", 1, "rubber"),
    "lens off": ("flat", 1, "steel"),
    "red on": ("flat", 1, "red"),
    "amber on": ("flat", 1, "amber"),
    "green on": ("flat", 1, "green"),
    "sign red": ("flat", 1, "red sign"),
    "sign white": ("flat", 1, "marking"),
    "sign blue": ("flat", 1, "blue sign"),
    "sign yellow": ("flat", 1, "yellow sign"),
    "sign green": ("flat", 1, "blue sign"),
}
"""Each material's texture, its scale in texels a metre, and the family its colours come from."""


# ------------------------------------------------------------------------------------------------------------- textures

TILE = 128
"""Texels along a texture's side; all of them repeat."""
LEVELS = 4
"""Each texture is stored sharp and averaged over 2, 4 and 8 texels, for what is far."""


class Brush:
    """One texture under work: `shade`, 128 for the paint's own brightness, and `part`, an index into PARTS."""

    def __init__(self, seed: int):
        words = PCG64(SeedSequence([7, seed])).random_raw(TILE * TILE + 4096)
        self.grain = (words[: TILE * TILE] >> np.uint64(56)).astype(np.int32).reshape(TILE, TILE)
        self.dice = iter((words[TILE * TILE :] >> np.uint64(40)).tolist())
        self.shade = np.full((TILE, TILE), 128, np.int32)
        self.part = np.zeros((TILE, TILE), np.uint8)

    def cloud(self, radius: int, strength: int) -> "Brush":
        """Add noise with spots of about `radius` texels and a spread of about `strength`."""
        noise = _average(self.grain, radius) if radius > 1 else self.grain
        low, high = int(noise.min()), int(noise.max())
        self.shade += (noise - low) * 2 * strength // max(high - low, 1) - strength
        self.grain = np.roll(self.grain, (37, 59), (0, 1))
        return self

    def courses(self, high: int, wide: int, joint: int, vary: int) -> "Brush":
        """Bricks, slabs or tiles: rows `high` texels high, each shifted by half a stone."""
        for row, v in enumerate(range(0, TILE, high)):
            shift = (row % 2) * wide // 2
            for u in range(0, TILE, wide):
                columns = np.arange(u + shift, u + shift + wide) % TILE
                self.shade[v : v + high, columns] += next(self.dice) % (2 * vary + 1) - vary
                self.shade[v : v + high, columns[0]] += joint
            self.shade[v, :] += joint
        return self

    def panes(self, wide: int, high: int, left: int, low: int, right: int, top: int, mullions: int = 1) -> "Brush":
        """A window in each cell of `wide` x `high` texels, with frame, sill, reveal and mullions."""
        for v in range(0, TILE, high):
            for u in range(0, TILE, wide):
                glass = (1, 1, 1, 2, 2, 4, 4, 5)[next(self.dice) % 8]
                rows, columns = slice(v + low, v + top), slice(u + left, u + right)
                self.part[v + low - 1 : v + top + 1, u + left - 1 : u + right + 1] = 3
                self.part[rows, columns] = glass
                self.shade[rows, columns] = 112 + next(self.dice) % 40
                self.shade[v + top - 2 : v + top, columns] = 70
                for m in range(1, mullions + 1):
                    self.part[rows, u + left + (right - left) * m // (mullions + 1)] = 3
                self.shade[v + low - 3 : v + low - 1, u + left - 2 : u + right + 2] += 25
        return self

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        return np.clip(self.shade, 10, 250), self.part


def _average(values: np.ndarray, width: int) -> np.ndarray:
    """The mean over a wrapping square of `width`, in integers, twice, so that no box shows."""
    for _ in range(2):
        for axis in (0, 1):
            values = sum(np.roll(values, step - width // 2, axis) for step in range(width)) // width
    return values


def _clouds(brush: Brush) -> Brush:
    """Where the noise is high there is a cloud, brighter at its heart."""
    height = brush.shade - 128
    brush.part[height > 14] = 8
    brush.shade[:] = 128 + np.where(height > 14, height // 3 - 14, 0)
    return brush


def _curtain(brush: Brush) -> Brush:
    """A glass front: panes from floor to floor in a thin grid."""
    brush.part[:] = np.repeat(np.repeat([[next(brush.dice) % 2 + 1 for _ in range(8)] for _ in range(8)], 16, 0), 16, 1)
    brush.part[next(brush.dice) % 8 * 16 :][:14, 32:60] = 5
    brush.part[::16], brush.part[:, ::16] = 0, 0
    brush.part[1::16] = 0
    brush.part[2::32] = 0
    return brush


def _ribbons(brush: Brush) -> Brush:
    """Bands of windows between bands of panels."""
    brush.panes(16, 32, 1, 11, 15, 26, 0)
    brush.shade[::32] -= 30
    return brush


def _shops(brush: Brush) -> Brush:
    """Ground floors: display windows, doors, and signboards above them. 32 texels are the storey's height."""
    for shop in range(4):
        u = shop * 32
        brush.part[4:22, u + 2 : u + 21] = 6
        brush.part[1:22, u + 24 : u + 30] = 7
        brush.part[24:30, u + 2 : u + 30] = (3, 0, 6, 7)[next(brush.dice) % 4]
        brush.shade[4:22, u + 2 : u + 21] += next(brush.dice) % 60 - 30
        brush.shade[24:30, u + 2 : u + 30] += next(brush.dice) % 90 - 45
        brush.part[4:22, u + 11] = 3
    return brush


def _bars(brush: Brush, period: int, width: int, gap: int, rails: tuple[int, ...]) -> Brush:
    """Uprights with darkness between them, and rails across."""
    u = np.arange(TILE) % period
    brush.shade[:, u >= width] -= gap
    for v in rails:
        brush.shade[v % TILE : v % TILE + 3] = 128
    return brush


def _mesh(brush: Brush) -> Brush:
    u, v = np.meshgrid(np.arange(TILE), np.arange(TILE))
    open_ = ((u + v) % 8 > 1) & ((u - v) % 8 > 1) & (u % 64 > 3)
    brush.shade[open_] -= 62
    brush.shade[28:31] = 140
    return brush


TEXTURES = {
    "flat": lambda b: b,
    "clouds": lambda b: _clouds(b.cloud(31, 40).cloud(13, 26).cloud(5, 16)),
    "asphalt": lambda b: b.cloud(1, 14).cloud(17, 14).cloud(3, 10),
    "worn": lambda b: b.cloud(2, 22).cloud(5, 12),
    "paving": lambda b: b.cloud(1, 8).courses(16, 16, -34, 14),
    "stone": lambda b: b.cloud(3, 16).courses(8, 16, -30, 22),
    "grass": lambda b: b.cloud(1, 24).cloud(3, 24).cloud(17, 22),
    "leaves": lambda b: b.cloud(1, 12).cloud(2, 34).cloud(5, 40).cloud(17, 30),
    "plaster": lambda b: b.cloud(3, 7).cloud(19, 10),
    "brick": lambda b: b.cloud(1, 8).courses(4, 8, 26, 16),
    "tiles": lambda b: b.cloud(2, 8).courses(4, 6, -26, 14),
    "panels": lambda b: b.cloud(9, 12).cloud(1, 6).courses(32, 32, -30, 8),
    "windows": lambda b: b.cloud(3, 6).cloud(19, 8).panes(32, 32, 9, 10, 23, 27),
    "tall windows": lambda b: b.cloud(3, 6).panes(32, 32, 11, 5, 22, 28, 0).panes(32, 32, 11, 5, 22, 28),
    "brick windows": lambda b: b.cloud(1, 8).courses(4, 8, 22, 14).panes(32, 32, 9, 9, 22, 26),
    "ribbons": lambda b: _ribbons(b.cloud(3, 6)),
    "curtain": lambda b: _curtain(b.cloud(21, 22)),
    "cottage": lambda b: b.cloud(3, 8).panes(64, 32, 22, 11, 44, 25, 2),
    "brick cottage": lambda b: b.cloud(1, 8).courses(4, 8, 22, 14).panes(64, 32, 22, 11, 42, 25, 1),
    "shops": lambda b: _shops(b.cloud(3, 6)),
    "pickets": lambda b: _bars(b.cloud(3, 8), 8, 4, 75, (8, 22, 72, 86)),
    "boards": lambda b: _bars(b.cloud(5, 12), 8, 7, 50, ()).cloud(17, 10),
    "rails": lambda b: _bars(b, 12, 2, 85, (2, 20, 42, 66, 90, 112)),
    "mesh": _mesh,
    "panes": lambda b: _bars(b.cloud(11, 26), 18, 15, 60, ()),
}
"""How each texture is made. Rows run upwards from the ground, or away from the camera."""


@lru_cache(maxsize=1)
def atlas() -> np.ndarray:
    """All textures and their coarser levels: uint16, shade + 256 * part, flat in (texture, level, v, u)."""
    tiles = []
    for seed, make in enumerate(TEXTURES.values()):
        shade, part = make(Brush(seed)).finish()
        for level in range(LEVELS):
            smooth = _average(shade, 2**level) if level else shade
            tiles.append(smooth + 256 * part.astype(np.int32))
    return np.stack(tiles).astype(np.uint16).ravel()


_TEXTURE_START = {name: index * LEVELS * TILE * TILE for index, name in enumerate(TEXTURES)}


@lru_cache(maxsize=32)
def _noise(amplitude: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Sensor noise to add and to subtract, larger than the picture so that each picture gets its own cut."""
    height, width = size[0] + 64, size[1] + 64
    words = (
        PCG64(SeedSequence([11, amplitude])).random_raw(height * width * 3).view(np.uint8).reshape(height, width, 3, 8)
    )
    bell = (words[..., :4].astype(np.int32).sum(-1) - 510) * amplitude // 148
    return np.clip(bell, 0, 255).astype(np.uint8), np.clip(-bell, 0, 255).astype(np.uint8)


# -------------------------------------------------------------------------------------------------------------- picture

_DEPTHS = 2040.0 / np.maximum(np.arange(256), 8) - 8.0
"""Metres for each depth code (beyond 247 m all is one)."""
_INVERSE = np.zeros(256, np.float32)
_INVERSE[1:] = 1.0 / np.maximum(_DEPTHS[1:], 0.5)


def develop(drawing: Drawing, appearance: Appearance, pick: int) -> np.ndarray:
    """The picture of a drawing: uint8 (H, W, 3) RGB. `pick` (32 bits) varies exposure and noise."""
    size = drawing.label.shape
    code, texel = _texels(drawing)
    shade = texel.astype(np.uint8)
    part = (texel >> 8).astype(np.uint8)
    paint = np.where(part > 0, part, drawing.paint)
    albedo, glow = _tints(drawing.paints, appearance)
    gain = 1.0 + appearance.exposure * ((pick & 255) - 127.5) / 127.5
    light = _light(drawing, appearance, code, gain)
    texture = cv2.LUT(shade, _grain(appearance.grain, appearance.contrast))
    picture = np.empty((3, *size), np.float32)
    for channel in range(3):
        cv2.LUT(paint, albedo[channel], dst=picture[channel])
    picture *= texture
    picture *= light
    _air(picture, appearance, code)
    image = _film(picture, appearance)
    if appearance.glow:
        shine = cv2.merge([cv2.LUT(paint, glow[channel]) for channel in range(3)])
        image = cv2.add(cv2.max(image, shine), _bloom(shine))
    return _lens(image, appearance, pick)


def _texels(drawing: Drawing) -> tuple[np.ndarray, np.ndarray]:
    """The depth code and the texel of every pixel: where its ray meets its paint's plane, and what lies there."""
    height, width = drawing.label.shape
    view, paint = drawing.camera, drawing.paint
    tables = _plane_tables(drawing.paints)
    columns = np.arange(width, dtype=np.float32)
    rows = np.arange(height, dtype=np.float32)[:, None]
    inverse = cv2.LUT(paint, tables[0])
    inverse += cv2.LUT(paint, tables[1]) * columns
    inverse += cv2.LUT(paint, tables[2]) * rows
    inverse += cv2.LUT(drawing.depth, _INVERSE)
    np.maximum(inverse, np.float32(1 / 240), out=inverse)
    z = np.float32(1.0) / inverse
    across = z * ((columns - np.float32(view.column)) / np.float32(view.focal))
    above = np.float32(view.height) - z * ((rows - np.float32(view.row)) / np.float32(view.focal))
    u = cv2.LUT(paint, tables[3]) * across
    u += cv2.LUT(paint, tables[4]) * z
    u += cv2.LUT(paint, tables[5])
    v = cv2.LUT(paint, tables[6]) * above
    v += cv2.LUT(paint, tables[7]) * z
    v += np.float32(TILE * 256)
    code = (np.float32(2040.0) / (z + np.float32(8.0))).astype(np.uint8)
    index = v.astype(np.int32)
    index &= TILE - 1
    index <<= 7
    index |= u.astype(np.int32) & (TILE - 1)
    index += cv2.LUT(paint, tables[8].astype(np.int32))
    index += cv2.LUT(code, _level_starts(view.focal))
    return code, atlas().take(index)


def _plane_tables(paints: list[Paint]) -> np.ndarray:
    """float32 (9, 256): a, b, c of each paint's plane; texels a metre of x, z, and the offset of u; of y, z; start."""
    rows = []
    for material, pick, axes, (a, b, c) in paints:
        texture, scale, _ = MATERIALS[material]
        along, up = (0.0 if axes == SIDE else scale), (0.0 if axes == GROUND else scale)
        offset = TILE * 256.0 + (pick >> 3 & 127)
        rows.append((a, b, c, along, scale - along, offset, up, scale - up, _TEXTURE_START[texture]))
    tables = np.zeros((9, 256), np.float32)
    tables[:, : len(rows)] = np.array(rows, np.float32).T
    return tables


@lru_cache(maxsize=32)
def _level_starts(focal: float) -> np.ndarray:
    """For each depth code, the offset of the texture level whose texels, 12 a metre, are about a pixel there."""
    footprint = _DEPTHS * 12.0 / focal
    level = (footprint > 1.2).astype(np.int32) + (footprint > 2.6) + (footprint > 5.5)
    return level * (TILE * TILE)


@lru_cache(maxsize=16)
def _grain(grain: float, contrast: float) -> np.ndarray:
    """Shade to a factor on albedo; the film's contrast, being a factor too, rides along."""
    return ((1.0 + (np.arange(256) - 128) / 128.0 * grain).clip(0.05, 2.0) * contrast).astype(np.float32)


@lru_cache(maxsize=16)
def _palette(appearance: Appearance) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All albedos in one (N, 3) array; where each material's begin, how many they are, and what glow it has, (M, 3)."""
    albedos, starts, counts, glows = [], {}, {}, appearance.glow or {}
    for family, colours in appearance.colours.items():
        starts[family], counts[family] = len(albedos), len(colours)
        albedos += colours
    albedos = np.array(albedos, np.float32)
    grey = (albedos[:, :1] + albedos[:, 1:2] + albedos[:, 1:2] + albedos[:, 2:]) * np.float32(0.25)
    families = [family for _, _, family in MATERIALS.values()]
    return (
        grey + (albedos - grey) * np.float32(appearance.saturation),
        np.array([starts[family] for family in families]),
        np.array([counts[family] for family in families]),
        np.array([glows.get(material, (0, 0, 0)) for material in MATERIALS], np.uint8),
    )


_NUMBER = {material: number for number, material in enumerate(MATERIALS)}


def _tints(paints: list[Paint], appearance: Appearance) -> tuple[np.ndarray, np.ndarray]:
    """The albedo of each paint, float32 (3, 256), and the light it gives off, uint8 (3, 256)."""
    albedos, starts, counts, glows = _palette(appearance)
    material = np.array([_NUMBER[paint.material] for paint in paints])
    pick = np.array([paint.pick for paint in paints])
    words = (pick >> 2) * 2654435761 & 0xFFFFFFFF
    # Mostly lighter or darker, a little warmer or colder.
    value = (((words >> 24) - 128) * (appearance.variety / 128)).astype(np.float32)
    warmth = (((words >> 16 & 255) - 128) * (appearance.variety / 384)).astype(np.float32)
    tint = albedos[starts[material] + pick % counts[material]].T + value
    tint[0] += warmth
    tint[2] -= warmth
    albedo, glow = np.zeros((3, 256), np.float32), np.zeros((3, 256), np.uint8)
    np.clip(tint, 4, 255, out=albedo[:, : len(paints)])
    glow[:, : len(paints)] = glows[material].T
    return albedo, glow


def _light(drawing: Drawing, appearance: Appearance, code: np.ndarray, gain: float) -> np.ndarray:
    """Light at each pixel, float32 (3, H, W)."""
    ground = np.zeros(256, bool)
    ground[: len(drawing.paints)] = [paint.axes == GROUND for paint in drawing.paints]
    fall = drawing.light
    sigma = appearance.softness * fall.shape[0] / 128
    if sigma > 0.3:
        fall = cv2.GaussianBlur(fall, (0, 0), sigma)
    fall = np.where(cv2.LUT(drawing.paint, ground.view(np.uint8)) > 0, fall, np.uint8(128))
    levels = np.arange(256, dtype=np.float32)
    open_sky = appearance.contact + (1 - appearance.contact) * np.clip(levels / 70, 0, 1)
    ambient = cv2.LUT(fall, (open_sky * gain).astype(np.float32))
    sun = cv2.LUT(fall, np.clip((levels - 70) / 58, 0, 1)) * cv2.LUT(drawing.tone, levels * np.float32(gain / 255))
    sources = [(sun, appearance.sun)]
    if any(appearance.lamps):
        lamps = cv2.LUT(fall, np.clip((levels - 128) / 127, 0, 1))
        near = np.clip(levels / 170, 0, 1)
        beam = cv2.LUT(code, (near * near).astype(np.float32))
        sources += [(lamps, appearance.lamps), (beam, appearance.headlights)]
    light, share = np.empty((3, *fall.shape), np.float32), np.empty(fall.shape, np.float32)
    for channel in range(3):
        np.multiply(ambient, np.float32(appearance.ambient[channel]), out=light[channel])
        for source, colour in sources:
            np.multiply(source, np.float32(colour[channel]), out=share)
            light[channel] += share
    return light


def _air(picture: np.ndarray, appearance: Appearance, code: np.ndarray) -> None:
    """Mix the colour of the air in, by distance: exp(-t) by the first terms of its series, the same on all machines."""
    if not appearance.visibility:
        return
    t = _DEPTHS / appearance.visibility
    clear = (1.0 / (1.0 + t * (1.0 + t * (0.5 + t / 6.0)))).astype(np.float32)
    through = cv2.LUT(code, clear)
    for channel, haze in enumerate(appearance.haze):
        haze = np.float32(haze * appearance.contrast)
        picture[channel] -= haze
        picture[channel] *= through
        picture[channel] += haze


def _film(picture: np.ndarray, appearance: Appearance) -> np.ndarray:
    """Cast and black level, then eight bits, (H, W, 3)."""
    for channel, lift in enumerate(appearance.lift):
        offset = lift + 128.0 * (1.0 - appearance.contrast)
        if offset:
            picture[channel] += np.float32(offset)
    np.clip(picture, 0, 255, out=picture)
    return cv2.merge(list(picture.astype(np.uint8)))


def _bloom(shine: np.ndarray) -> np.ndarray:
    """Halos about lights, made at a quarter of the size."""
    glare = cv2.subtract(shine, (165, 165, 165, 0))
    small = cv2.pyrDown(cv2.pyrDown(glare))
    halo = cv2.GaussianBlur(small, (0, 0), 1.8 * shine.shape[0] / 128)
    halo = cv2.add(cv2.add(halo, halo), cv2.add(halo, small))
    halo = cv2.add(halo, halo)
    return cv2.resize(halo, shine.shape[1::-1], interpolation=cv2.INTER_LINEAR_EXACT)


def _lens(image: np.ndarray, appearance: Appearance, pick: int) -> np.ndarray:
    sigma = appearance.blur * image.shape[0] / 128
    if sigma > 0.25:
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    if appearance.noise:
        height, width = image.shape[:2]
        more, less = _noise(appearance.noise, (height, width))
        v, u = pick >> 8 & 63, pick >> 14 & 63
        image = cv2.subtract(cv2.add(image, more[v : v + height, u : u + width]), less[v : v + height, u : u + width])
    return image
