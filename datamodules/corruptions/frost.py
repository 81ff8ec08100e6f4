"""Frost on a window pane. ImageNet-C overlays photographs of it; without them these are painted.

    photographs = frost_photographs("data/frost")  # the published frost1.png ... frost5.jpg
    corrupt(image, "frost", severity=3, seed=7, frost=photographs)

The photographs are part of the benchmark's code, not of its data, and are not here. Four sheets are painted the first
time frost is asked for, about 0.2 s each, and every image shows a part of one, drawn at random. A sheet's mean colour
and spread are those of the photograph whose place it takes; nothing else of it is measured.
"""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from datamodules.corruptions.rounding import cut
from datamodules.image_files import DataError, MissingDataError, decode_rgb, decoded

HEIGHT, WIDTH = 480, 720


class Pane(NamedTuple):
    """The grey levels of a sheet."""

    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]
    crystals: float
    """Share of the variance that is due to crystals; the rest is haze, in patches."""
    likely: float


PANES = (
    Pane((77.7, 149.1, 165.7), (26.9, 16.5, 15.3), crystals=0.35, likely=0.2),
    Pane((200.8, 205.4, 214.5), (21.4, 22.1, 22.6), crystals=0.7, likely=0.4),
    Pane((137.6, 152.8, 165.2), (28.5, 28.5, 29.9), crystals=0.7, likely=0.2),
    Pane((112.4, 123.4, 134.8), (44.4, 43.3, 41.7), crystals=0.75, likely=0.2),
)


class Photographs(tuple):
    """The published photographs, each uint8 (H, W, 3) RGB; each is as likely as the others."""


def frost_photographs(folder: str | Path) -> Photographs:
    """The five photographs that ImageNet-C draws from, frost1 to frost5; a sixth was published and is never drawn.

    Raises:
        MissingDataError: one of them is not in the folder.
        DataError: one of them is no image, or smaller than ImageNet's pictures.
    """
    found = []
    for number in range(1, 6):
        files = [path for path in Path(folder).glob(f"frost{number}.*") if path.suffix in (".png", ".jpg", ".jpeg")]
        if not files:
            raise MissingDataError(
                f"{folder} holds no frost{number}.png or .jpg: get frost1.png to frost5.jpg from ImageNet-C's code, "
                "https://github.com/hendrycks/robustness, ImageNet-C/create_c."
            )
        photograph = decoded(files[0], decode_rgb)
        if min(photograph.shape[:2]) < 224:
            raise DataError(f"{files[0]} has less than 224 pixels a side: the published photographs have 315 and more.")
        found.append(photograph)
    return Photographs(found)


def frost(image, figures, rng, photographs: Photographs | None = None):
    """The weighted sum of the image and a random part of a frosted pane, which is enlarged where it is too small."""
    weight, frost_weight, size = figures
    height, width = image.shape[:2]
    if photographs:
        pane = photographs[int(rng.integers(len(photographs)))]
    else:
        pane = _painted(int(rng.choice(len(PANES), p=[pane.likely for pane in PANES])))
    size = max(size, *((side + 1) / own for side, own in zip((height, width), pane.shape[:2], strict=True)))
    sheet = _resized(pane, size, linear=bool(photographs))
    top, left = rng.integers(sheet.shape[0] - height + 1), rng.integers(sheet.shape[1] - width + 1)
    part = sheet[top : top + height, left : left + width]
    return cut(cv2.addWeighted(image, weight, part, frost_weight, 0, dtype=cv2.CV_32F))


def _resized(pane: np.ndarray, size: float, linear: bool) -> np.ndarray:
    """A pane in another size; remembers a few, since a data set's images are mostly of one size."""
    if size == 1:
        return pane
    key = (id(pane), size)
    if key not in _sheets:
        if len(_sheets) >= 16:
            _sheets.clear()
        smooth = cv2.INTER_LINEAR if linear else cv2.INTER_AREA if size < 1 else cv2.INTER_CUBIC
        _sheets[key] = pane, cv2.resize(pane, None, fx=size, fy=size, interpolation=smooth)
    return _sheets[key][1]


_sheets: dict[tuple[int, float], tuple[np.ndarray, np.ndarray]] = {}
"""(id of a pane, size) -> the pane, which so keeps its id, and the pane in that size."""


@lru_cache(maxsize=len(PANES))
def _painted(pane: int) -> np.ndarray:
    """uint8 (HEIGHT, WIDTH, 3)."""
    look = PANES[pane]
    rng = np.random.default_rng(pane)
    crystals, haze = _even(_crystals(rng)), _even(_haze(rng))
    light = _even(look.crystals**0.5 * crystals + (1 - look.crystals) ** 0.5 * haze)[..., None]
    return cut((np.float32(look.mean) + np.float32(look.deviation) * light).astype(np.float32))


def _even(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / values.std()


def _haze(rng) -> np.ndarray:
    """Breath on the glass: noise over the octaves, each 0.6 as strong as the one before."""
    haze = np.zeros((HEIGHT, WIDTH), np.float32)
    for octave in range(8):
        grid = rng.standard_normal((2 << octave, 3 << octave), np.float32)
        haze += cv2.resize(grid, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) * 0.6**octave
    return haze


def _crystals(rng) -> np.ndarray:
    """Feathers of ice, one over the other, brighter than the glass about them."""
    ice = np.zeros((HEIGHT, WIDTH), np.uint8)
    for _ in range(900):
        root = rng.uniform((0, 0), (WIDTH, HEIGHT))
        stem, needles = _feather(root, rng.gamma(2.5, 16), rng.uniform(0, 2 * np.pi), rng)
        light = int(rng.integers(40, 200))
        for segments, brighter in ((needles, 0), (stem, 55)):
            points = np.rint(segments * 16).astype(np.int32)
            cv2.polylines(ice, points, False, light + brighter, 1, cv2.LINE_AA, shift=4)
    ice = cv2.GaussianBlur(ice.astype(np.float32), (0, 0), 0.5)
    return ice - 0.7 * cv2.GaussianBlur(ice, (0, 0), 9)


def _feather(root, length, angle, rng) -> tuple[np.ndarray, np.ndarray]:
    """A stem (1, 2, 2) and the needles (n, 2, 2) that leave it to both sides, each from (x, y) to (x, y) in pixels.

    Needles are about 60 degrees from the stem, as ice has it, and get shorter towards its tip.
    """
    count = 2 * int(2 + length / 4)
    place = np.sort(rng.uniform(0, 1, count))[:, None]
    turn = np.where(np.arange(count) % 2, 1, -1) * rng.normal(np.pi / 3, 0.12, count)
    reach = length * 0.35 * (1.05 - place) * rng.uniform(0.4, 1.2, (count, 1))
    start = root + place * length * np.array([np.cos(angle), np.sin(angle)])
    end = start + reach * np.stack([np.cos(angle + turn), np.sin(angle + turn)], axis=1)
    tip = root + length * np.array([np.cos(angle), np.sin(angle)])
    return np.stack([root, tip])[None], np.stack([start, end], axis=1)
