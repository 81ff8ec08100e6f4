"""Image files on disk: whole or cut short, their size without decoding them, their pixels."""

import struct
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
JPEG_START, JPEG_SCAN, JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
TAIL = 1024
"""Bytes read from a file's end to see that it is whole; some writers pad after the end."""


class DataError(ValueError):
    """A data set on disk is not what it was published as. One sentence: what is wrong where, and what was expected."""


class MissingDataError(DataError, FileNotFoundError):
    """A file or folder of a data set is not there."""


def check_kind(path: Path, start: bytes, size: int) -> None:
    if not start.startswith((PNG_START, JPEG_START)):
        raise DataError(f"{path} is no PNG or JPEG image: its {size} bytes begin with {start[:8]!r}.")


def is_whole(start: bytes, rest: bytes) -> bool:
    """Whether a PNG or JPEG that begins with `start` has its end mark in `rest`."""
    if start.startswith(PNG_START):
        return PNG_END in rest
    # After the last scan: a thumbnail in the header has an end mark of its own.
    return rest.rfind(JPEG_END) > rest.rfind(JPEG_SCAN)


def cut_short(path: Path, start: bytes, size: int) -> DataError:
    kind, mark = ("PNG", "IEND chunk") if start.startswith(PNG_START) else ("JPEG", "end-of-image mark")
    return DataError(f"{path} is cut short: its {size} bytes lack the {mark} that a whole {kind} ends with.")


def size_of(path: Path) -> tuple[int, int]:
    """(width, height) of an image file, from its first bytes and its last.

    Raises:
        DataError: the file is no PNG or JPEG, or is cut short.
    """
    length = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(24)
        check_kind(path, start, length)
        file.seek(max(0, length - TAIL))
        whole = is_whole(start, file.read())
        if not whole and start.startswith(JPEG_START):  # cameras may append more than a tail's worth
            file.seek(0)
            whole = is_whole(start, file.read())
    if not whole:
        raise cut_short(path, start, length)
    if start.startswith(PNG_START):
        return struct.unpack(">II", start[16:24])
    try:
        with Image.open(path) as image:
            return image.size
    except Exception as error:
        raise DataError(f"{path} cannot be read: {error}.") from error


def mismatch(pair: tuple[Path, Path]) -> str | None:
    """What is wrong with a pair's sizes, or None."""
    image, label = pair
    (width, height), (label_width, label_height) = size_of(image), size_of(label)
    if (width, height) == (label_width, label_height):
        return None
    return f"{label} is {label_width} x {label_height} pixels, but its image {image} is {width} x {height}"


def decoded(path: Path, decode: Callable[[bytes], np.ndarray]) -> np.ndarray:
    """A file's pixels. Looks for the end mark again: OpenCV fills what a JPEG lacks with grey and says nothing."""
    data = path.read_bytes()
    check_kind(path, data[:8], len(data))
    # The end first: looking through the whole of a JPEG takes a twentieth of the time that decoding it does.
    if not is_whole(data[:8], data[-TAIL:]) and not is_whole(data[:8], data):
        raise cut_short(path, data[:8], len(data))
    try:
        return decode(data)
    except Exception as error:  # decoders raise whatever they like
        raise DataError(f"{path} cannot be read: {error}.") from error


def decode_rgb(data: bytes) -> np.ndarray:
    """uint8 (H, W, 3), whatever is stored: grey, a palette, CMYK, 16 bits a channel; transparency is dropped.

    Labels are drawn on the pixels as stored, so a camera's orientation tag must not turn them.
    """
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise ValueError("the decoder gave up")
    return pixels
