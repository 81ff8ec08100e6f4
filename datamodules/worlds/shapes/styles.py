"""Four ways to picture a scene of shapes: a photograph, a painting, a cartoon and a pencil sketch.

Each takes the scene's raster and the sample's dice, and gives the picture and what of it is the object. Colours are
picked alike for every class. Work is in float32 planes, colour first, element by element.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from datamodules.worlds.dice import Dice
from datamodules.worlds.shapes.scenes import Raster, halved, ink, slope
from datamodules.worlds.shapes.textures import PATTERNS, SURFACES, Textures

RGB = Sequence[float]
"""Red, green and blue."""

SURROUNDINGS = (
    ((34, 46, 24), (116, 132, 66)), ((52, 44, 30), (150, 128, 92)), ((70, 68, 64), (168, 164, 156)),
    ((58, 34, 24), (150, 96, 66)), ((26, 40, 52), (112, 142, 156)), ((96, 88, 72), (204, 192, 164)),
    ((20, 22, 26), (92, 96, 104)), ((64, 78, 92), (186, 200, 210)), ((44, 26, 34), (132, 92, 96)),
    ((78, 72, 40), (176, 168, 104)), ((16, 26, 22), (70, 96, 80)), ((110, 104, 104), (206, 202, 200)),
)  # fmt: skip
"""Dark and light of what photographs show: foliage, soil, stone, brick, water, sand, asphalt, haze, ..."""

ALBEDOS = (
    (150, 52, 42), (172, 120, 50), (84, 110, 52), (56, 84, 116), (190, 184, 170), (62, 58, 60), (128, 92, 66),
    (156, 148, 84), (110, 62, 90), (66, 122, 118), (206, 170, 132), (120, 124, 130),
)  # fmt: skip
"""Colours of photographed objects."""

PALETTES = (
    ((30, 24, 52), (58, 70, 128), (112, 138, 178), (222, 196, 110), (244, 228, 170)),
    ((44, 24, 18), (112, 56, 28), (178, 106, 42), (216, 164, 82), (240, 214, 154)),
    ((20, 40, 40), (38, 92, 84), (116, 148, 92), (214, 156, 88), (238, 210, 172)),
    ((52, 16, 32), (152, 38, 48), (214, 92, 60), (238, 162, 82), (248, 220, 150)),
    ((24, 32, 26), (74, 86, 40), (142, 138, 58), (204, 178, 92), (232, 218, 168)),
    ((34, 20, 60), (102, 52, 118), (178, 84, 122), (232, 146, 118), (248, 208, 158)),
    ((18, 28, 60), (30, 84, 130), (80, 150, 160), (220, 130, 90), (246, 214, 180)),
)  # fmt: skip
"""Painters' palettes, dark to light."""

INKS = ((12, 10, 16), (18, 18, 60), (48, 18, 20), (10, 36, 34))
FLATS = (
    (250, 70, 70), (255, 150, 40), (255, 216, 50), (110, 210, 70), (40, 190, 160), (50, 160, 250), (90, 100, 240),
    (180, 90, 240), (250, 110, 190), (255, 250, 240), (150, 230, 240), (255, 190, 150), (190, 240, 150),
)  # fmt: skip
"""What comics are outlined with, and what they are printed in."""

PAPERS = ((246, 244, 238), (238, 232, 216), (228, 228, 226), (244, 240, 232), (214, 206, 190), (226, 232, 236))
PENCILS = ((52, 52, 56), (36, 34, 34), (76, 74, 78), (66, 50, 42), (44, 48, 62))
"""What is drawn on, and with: graphite, charcoal, sepia."""


def column(colour: RGB) -> np.ndarray:
    return np.array(colour, np.float32).reshape(3, 1, 1)


def cut(texture: np.ndarray, size: int, dice: Dice) -> np.ndarray:
    """A window of a texture (..., side, side) of `size` texels."""
    room = texture.shape[-1] - size
    down, across = dice.word() * room >> 32, dice.word() * room >> 32
    return texture[..., down : down + size, across : across + size]


def turned(texture: np.ndarray, size: int, dice: Dice) -> np.ndarray:
    """A window, mirrored or on its side as the dice say."""
    window, way = cut(texture, size, dice), dice.word()
    if way & 1:
        window = window[:, ::-1]
    if way & 2:
        window = window[::-1]
    return window.T if way & 4 else window


def scaled(plane: np.ndarray, by: float) -> np.ndarray:
    """A plane of integers times a number, float32."""
    product = plane.astype(np.float32, order="C")
    product *= by
    return product


def apart(options: tuple[RGB, ...], others: tuple[RGB, ...], distance: int, dice: Dice) -> RGB:
    """A colour that differs from all `others` by `distance` grey levels in sum; after five tries, whatever came."""
    for _ in range(5):
        red, green, blue = colour = dice.pick(options)
        if all(abs(red - r) + abs(green - g) + abs(blue - b) >= distance for r, g, b in others):
            break
    return colour


def mixed(fine: np.ndarray, ground: np.ndarray, colours: Sequence[RGB]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The flat picture times 255, float32 (3, size, size); the object's share and the ground's times 255, float32
    (2, size, size); and the object's as it is, uint8 (size, size).

    `fine` is a canvas halved. `ground` is uint8 (size, size), from the first of `colours` at 0 to the second at 255;
    the others are those of CLUTTER, OTHER, BODY and ACCENT. Colours are whole numbers, so that all products and sums
    are integers below 2**24: exact in any order.
    """
    clutter, other, body, accent = cv2.split(fine)
    seen = cv2.add(body, accent)
    left = cv2.subtract(~seen, cv2.add(clutter, other))
    blend = left.astype(np.uint16) * ground >> 8
    parts = np.array([seen, left, blend, clutter, other, body, accent], np.float32)
    weights = np.array(colours, np.float32)
    weights[1] -= weights[0]
    picture = weights.T.dot(parts[1:].reshape(6, -1))
    return picture.reshape(3, *seen.shape), parts[:2], seen


def film(planes: np.ndarray) -> np.ndarray:
    """Planes of float32 to an image of bytes, (size, size, 3)."""
    return cv2.merge(planes.clip(0, 255, out=planes).astype(np.uint8))


def strayed(colour: RGB, by: int, dice: Dice) -> RGB:
    """A colour a little lighter or darker, warmer or colder."""
    word = dice.word()
    value, warmth = (word >> 16) % (2 * by + 1) - by, (word & 0xFFFF) % (by + 1) - by // 2
    return colour[0] + value + warmth, colour[1] + value, colour[2] + value - warmth


def ramp(size: int, x: float, y: float) -> np.ndarray:
    """A plane that rises by 2 `x` from left to right and by 2 `y` from top to bottom, 0 in the middle."""
    along = slope(size)
    return (along * y)[:, None] + along * x


# ------------------------------------------------------------------------------------------------------------- photo


def photo(raster: Raster, textures: Textures, dice: Dice) -> tuple[np.ndarray, np.ndarray]:
    """Rough surfaces under a lamp: soft shadows, cushioned shading, a gloss, white balance, and the sensor's noise."""
    size, lamp = raster.size, raster.scene.light
    ground = turned(textures.surfaces[dice.pick(_SURFACES)], size, dice)
    picture, shares, seen = mixed(halved(raster.canvas()), ground, _exposed(dice))
    shares *= 1 / 255

    cushion = raster.cushion()
    relief = cushion.relief()
    relief *= shares[0]
    bumps = scaled(turned(textures.surfaces[dice.pick(_SURFACES)], size, dice), dice.between(0.1, 0.4) / 255)
    bumps -= 0.25
    shadow = scaled(cushion.moved(dice.between(0.05, 0.11)), -dice.between(0.35, 0.7) / 255)
    shadow -= bumps
    shadow *= shares[1]  # on the ground there are shadows, elsewhere bumps
    shadow += bumps
    shadow += relief * dice.between(0.35, 0.7)
    fall = dice.between(0.05, 0.3)
    shadow += ramp(size, lamp[0] * fall, lamp[1] * fall)
    shadow += 1
    shadow *= 1 / 255
    picture *= shadow
    relief -= 0.3
    np.maximum(relief, 0, out=relief)
    relief *= dice.between(0, 300)
    picture += relief
    picture += scaled(cut(textures.grain, size, dice), dice.between(0.06, 0.24))
    return film(picture), seen


_SURFACES = tuple(SURFACES)


def _exposed(dice: Dice) -> np.ndarray:
    """A photograph's colours, as `mixed` wants them, with its exposure and white balance: float32 (6, 3)."""
    dark, light = (strayed(colour, 12, dice) for colour in dice.pick(SURROUNDINGS))
    middle = [(a + b) // 2 for a, b in zip(dark, light, strict=True)]
    contrast = dice.between(0.3, 0.9)
    ground = [[m + contrast * (level - m) for level, m in zip(end, middle, strict=True)] for end in (dark, light)]
    albedo = apart(ALBEDOS, (*ground, middle), 140, dice)
    accent = apart(ALBEDOS, (albedo,), 70, dice)
    clutter = [strayed(apart(ALBEDOS, (albedo,), 80, dice), 20, dice) for _ in range(2)]
    colours = [*ground, *clutter, strayed(albedo, 16, dice), strayed(accent, 16, dice)]
    exposure, warmth = dice.between(0.85, 1.3), dice.between(-0.1, 0.1)
    warm, cold = exposure * (1 + warmth), exposure * (1 - warmth)
    return np.rint(np.array([(r * warm, g * exposure, b * cold) for r, g, b in colours], np.float32))


# ---------------------------------------------------------------------------------------------------------- painting


def painting(raster: Raster, textures: Textures, dice: Dice) -> tuple[np.ndarray, np.ndarray]:
    """Every stroke has one colour: that of the scene at its centre, a little off; bristles, canvas and varnish."""
    size = raster.size
    palette = dice.pick(PALETTES)
    if dice.chance(0.5):
        palette = palette[::-1]
    at = dice.word() % 2
    grounds = palette[at : at + 2]
    colour = apart(palette[3:], grounds, 140, dice)
    accent = apart(palette, (colour, *grounds), 90, dice)
    clutter = [strayed(apart(palette, (colour,), 120, dice), 14, dice) for _ in range(2)]
    clouds = turned(textures.surfaces[dice.pick(("plaster", "sky", "foliage"))], size, dice)
    colours = [*(strayed(tint, 10, dice) for tint in grounds), *clutter, strayed(colour, 14, dice), accent]
    relief = raster.cushion().relief()
    gloss = dice.between(50, 90)

    strokes = dice.pick(textures.strokes)
    down, across = dice.word() * (3 * size) >> 32, dice.word() * (3 * size) >> 32
    rows, columns = slice(down, down + size), slice(across, across + size)
    fine, clouds, relief = strokes.gathered(rows, columns, halved(raster.canvas()), clouds, relief)
    picture, shares, seen = mixed(fine, clouds, colours)
    relief *= shares[0]
    relief *= gloss
    picture += relief
    picture *= 1 / 255

    picture += scaled(strokes.tone[:, rows, columns], dice.between(0.12, 0.28))
    surface = scaled(strokes.ridge[rows, columns], dice.between(0.25, 0.6))
    surface += scaled(cut(textures.canvas, size, dice), dice.between(0.04, 0.14))
    surface -= 12
    picture += surface
    varnish = dice.between(0.05, 0.3)
    picture *= column((1.0, 1 - 0.35 * varnish, 1 - varnish))
    return film(picture), seen


# ----------------------------------------------------------------------------------------------------------- cartoon


def cartoon(raster: Raster, textures: Textures, dice: Dice) -> tuple[np.ndarray, np.ndarray]:
    """Flat printed colours within thick outlines, one step of shade and one of light, on a pattern."""
    size = raster.size
    first = dice.pick(FLATS)
    second = apart(FLATS, (first,), 60, dice)
    colour = apart(FLATS, (first, second), 150, dice)
    accent = apart(FLATS, (colour,), 120, dice)
    pattern = turned(textures.patterns[dice.pick(_PATTERNS)], size, dice)
    canvas = raster.canvas(line=0.0)
    colours = [first, second, dice.pick(FLATS), dice.pick(FLATS), colour, accent]
    picture, shares, seen = mixed(halved(canvas), pattern, colours)

    relief = raster.cushion().relief()
    relief *= shares[0]
    relief *= 1 / 32
    shade = (-1 - relief).clip(0, 1)
    shine = (relief - 3).clip(0, 1)
    line = scaled(ink(canvas), 1 / 255)
    clear = 1 - line
    picture *= (1 - shade * 0.3) * clear * (1 / 255)
    picture += shine * clear * dice.between(0, 110)
    picture += column(dice.pick(INKS)) * line
    return film(picture), seen


_PATTERNS = tuple(PATTERNS)

# ------------------------------------------------------------------------------------------------------------ sketch


def sketch(raster: Raster, textures: Textures, dice: Dice) -> tuple[np.ndarray, np.ndarray]:
    """Pencil on paper: outlines gone over twice, hatching where the light does not fall and in the cast shadow."""
    size, cushion = raster.size, raster.cushion()
    clutter, _, body, accent = cv2.split(halved(raster.canvas()))
    seen = cv2.add(body, accent)
    relief = cushion.relief()
    hatches = [turned(dice.pick(textures.hatches), size, dice) for _ in range(3)]
    tone = relief * -3
    tone += dice.between(0.2, 0.9)
    tone.clip(0, 1, out=tone)
    tone *= scaled(hatches[0], dice.between(0.2, 0.55) / 65025)
    relief *= -4
    relief -= 0.3
    relief.clip(0, 1, out=relief)
    relief *= scaled(hatches[1], 0.5 / 65025)
    tone += relief
    tone *= seen
    behind = cv2.max(clutter, cv2.min(cushion.moved(dice.between(0.05, 0.11)), ~seen))
    cast = scaled(behind, dice.between(0, 0.5) / 65025)
    cast *= hatches[2]
    tone += cast
    tone += scaled(raster.pencil(dice), dice.between(0.4, 0.9) / 255)
    paper = scaled(cut(textures.paper, size, dice), 1 / 255)
    tone *= paper * 0.7 + 0.55
    np.minimum(tone, 1, out=tone)

    sheet, lead = strayed(dice.pick(PAPERS), 10, dice), dice.pick(PENCILS)
    paper *= 14
    paper += ramp(size, dice.between(-8, 8), dice.between(-8, 8))
    picture = column([b - a for a, b in zip(sheet, lead, strict=True)]) * tone
    picture += column([value - 8 for value in sheet])
    picture += paper
    return film(picture), seen


PAINTERS = {"photo": photo, "painting": painting, "cartoon": cartoon, "sketch": sketch}
"""How each style is pictured."""
