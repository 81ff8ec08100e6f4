"""The embedded shapes, which need nothing on disk."""

from pathlib import Path

from datamodules.classification.domain_folders import known_domain
from datamodules.classification.image_set import ImageSet, Request
from datamodules.image_files import DataError
from datamodules.in_memory import InMemory
from datamodules.samples import LabelledImages
from datamodules.worlds.shapes.world import LENGTHS, STYLES, Shapes

SIZE = 32
KEPT_BYTES = 2**29
"""Drawn images are kept in memory up to this; beyond, they are drawn anew each time."""


def _drawn(request: Request) -> LabelledImages:
    styles = tuple(known_domain(request.name, style, STYLES) for style in request.parts) or STYLES
    length = request.length or LENGTHS.get(request.split)
    try:
        samples = Shapes(request.split, length=length, size=request.size or SIZE, styles=styles)
    except ValueError as error:
        raise DataError(str(error)) from error
    return InMemory(samples) if len(samples) * samples[0][0].nbytes <= KEPT_BYTES else samples


def _domains(root: Path) -> tuple[str, ...]:
    return tuple(f"shapes/{style}" for style in STYLES)


SETS = (ImageSet(("shapes", "shapes/STYLE"), _drawn, _domains),)
