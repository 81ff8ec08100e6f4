"""Shapes: objects that differ in outline, drawn on the fly in four styles, so that style and class can be crossed.

A small controlled laboratory for what a classifier makes of style: a photograph, a painting, a cartoon or a pencil
sketch of an apple, a bell, a bird, ... among fragments that are nothing. Colour, texture and light are picked alike for
every class; only its outline and inner lines tell it. `python -m datamodules.worlds.shapes.world --out shapes.png`
draws a contact sheet.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from datamodules.image_files import DataError
from datamodules.worlds.dice import Dice
from datamodules.worlds.shapes.outlines import OUTLINES
from datamodules.worlds.shapes.scenes import Raster, plan
from datamodules.worlds.shapes.styles import PAINTERS
from datamodules.worlds.shapes.textures import textures

STYLES = tuple(PAINTERS)
"""photo, painting, cartoon, sketch."""
CLASSES = tuple(OUTLINES)
"""All twenty; a set of n classes has the first n."""
LENGTHS = {"train": 4000, "val": 1000, "test": 1000}
"""The splits, and how many samples each has by default."""

GOLDEN = 2654435769
"""2**32 over the golden ratio: multiples of it modulo 2**32 spread over the range as evenly as can be."""


class Shapes:
    """Pictures of shapes, size x size; sample i depends on the split, i and the settings only, wherever it is drawn.

    Item i is (image, label): uint8 (size, size, 3) RGB and an int. With even weights, sample i shows the same object in
    the same pose whatever the styles, and, but for the pixels, at whatever size.

    Args:
        split: "train", "val" or "test"; no sample is in two.
        length: number of samples; None for the split's own in LENGTHS.
        size: side in pixels, at least 16.
        styles: the styles that occur, of STYLES.
        classes: how many of CLASSES occur, 2 to 20.
        joint: (classes, styles) weights, at least 0 and not all 0: how often each class comes in each style, in the
            order of `styles`. None: all alike. Counts follow the weights to within a few samples at any length.
        seed: at least 0; another seed, other samples.

    Attributes:
        classes: names, (classes,). labels: int64 (length,). styles: names of what occurs. name: "shapes", or
            "shapes/photo" and so on where one style occurs.

    Raises:
        DataError: a setting is not as described. IndexError: a sample is outside of `length`.
    """

    def __init__(
        self,
        split: str = "train",
        length: int | None = None,
        size: int = 32,
        styles: Sequence[str] = STYLES,
        classes: int = 10,
        joint: np.ndarray | Sequence[Sequence[float]] | None = None,
        seed: int = 0,
    ):
        self.styles = (styles,) if isinstance(styles, str) else tuple(styles)
        _check(split, length, size, self.styles, classes, seed)
        self.split, self.size, self.seed = split, int(size), seed
        self.length = LENGTHS[split] if length is None else int(length)
        self.classes = CLASSES[:classes]
        self.name = f"shapes/{self.styles[0]}" if len(self.styles) == 1 else "shapes"
        cells = _cells(self.length, _weights(joint, classes, len(self.styles)), list(LENGTHS).index(split))
        self.labels = cells // len(self.styles)
        self._style = (cells % len(self.styles)).astype(np.int8)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        index = self._index(index)
        return self._drawn(index)[0], int(self.labels[index])

    def style(self, index: int) -> str:
        """The style of a sample, known without drawing it."""
        return self.styles[self._style[self._index(index)]]

    def mask(self, index: int) -> np.ndarray:
        """Where the object is and nothing hides it: bool (size, size)."""
        return self._drawn(self._index(index))[1] >= 128

    def box(self, index: int) -> tuple[int, int, int, int]:
        """The tightest box (x0, y0, x1, y1) around the mask, which lies in mask[y0:y1, x0:x1]."""
        mask = self.mask(index)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1

    def _index(self, index: int) -> int:
        if not -self.length <= index < self.length:
            raise IndexError(f"sample {index} of {self.length}")
        return int(index) % self.length

    def _drawn(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        dice = Dice(self.seed, list(LENGTHS).index(self.split), index, 1)
        scene = plan(self.classes[self.labels[index]], dice)
        painter = PAINTERS[self.styles[self._style[index]]]
        return painter(Raster(scene, self.size), textures(self.size), dice)


def _check(split: str, length: int | None, size: int, styles: tuple[str, ...], classes: int, seed: int) -> None:
    if split not in LENGTHS:
        raise DataError(f"Shapes has no split {split!r}: choose one of {', '.join(LENGTHS)}.")
    if length is not None and length < 0:
        raise DataError(f"Shapes cannot have a length of {length}: give 0 or more.")
    if size < 16:
        raise DataError(f"Shapes cannot be drawn {size} pixels wide: give a size of at least 16.")
    for style in styles:
        if style not in STYLES:
            raise DataError(f"Shapes has no style {style!r}: choose from {', '.join(STYLES)}.")
    if not styles or len(set(styles)) < len(styles):
        raise DataError(f"Shapes needs one style or several different ones, not {styles}.")
    if not 2 <= classes <= len(CLASSES):
        raise DataError(f"Shapes has 2 to {len(CLASSES)} classes, not {classes}.")
    if seed < 0:
        raise DataError(f"Shapes cannot have a seed of {seed}: give 0 or more.")


def _weights(joint: np.ndarray | Sequence[Sequence[float]] | None, classes: int, styles: int) -> np.ndarray:
    try:
        weights = np.ones((classes, styles)) if joint is None else np.array(joint, np.float64)
    except (ValueError, TypeError) as error:
        raise DataError("joint must hold numbers in equally long rows, classes by styles.") from error
    if weights.shape != (classes, styles):
        raise DataError(f"joint must be of shape ({classes}, {styles}), classes by styles, not {weights.shape}.")
    if not np.isfinite(weights).all() or weights.min() < 0 or weights.max() == 0:
        raise DataError("joint must hold finite weights of at least 0, and not zeros alone.")
    return weights


def _cells(length: int, weights: np.ndarray, split: int) -> np.ndarray:
    """Which cell of `weights` each sample is of, int64: a class's cells follow one another, so that with even weights
    the class does not depend on the styles."""
    ends = np.cumsum(weights)
    ends = ends / ends[-1] * 2.0**32
    places = (np.arange(length, dtype=np.uint64) * GOLDEN + (2 * split + 1) * 2**29) % 2**32
    cells = np.searchsorted(ends, places.astype(np.float64), side="right")
    return np.minimum(cells, np.flatnonzero(weights)[-1])


def contact_sheet(classes: int = 10, size: int = 64, rows: int = 2, split: str = "train", seed: int = 0) -> np.ndarray:
    """A picture of samples: a column a class, `rows` rows a style; uint8 RGB."""
    bands = []
    for number, style in enumerate(STYLES):
        world = Shapes(split, 400 * classes, size, style, classes, seed=seed)
        for row in range(number * rows, (number + 1) * rows):
            picked = [np.flatnonzero(world.labels == label)[row] for label in range(classes)]
            bands.append(np.hstack([np.pad(world[index][0], ((1, 1), (1, 1), (0, 0))) for index in picked]))
    return np.vstack(bands)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw a contact sheet of shapes: a column a class, rows by style.")
    parser.add_argument("--out", type=Path, default=Path("shapes.png"))
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rows", type=int, default=2, help="rows of each style")
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    sheet = contact_sheet(flags.classes, flags.size, flags.rows, seed=flags.seed)
    quality = [cv2.IMWRITE_JPEG_QUALITY, 82] if flags.out.suffix == ".jpg" else []
    if not cv2.imwrite(str(flags.out), sheet[..., ::-1], quality):
        parser.error(f"cannot write {flags.out}")


if __name__ == "__main__":
    main()
