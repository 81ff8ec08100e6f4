"""Image files on disk: checks for damage, sizes without decoding, and pixels."""

import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from datamodules.decoder_warnings import decoder_words

PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
JPEG_START, JPEG_SCAN, JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
TAIL = 1024
"""Bytes read from a file's end to check that it is complete; some programs pad after the end."""
LARGEST = 2**27
"""Most pixels of an image that is decoded (400 MB), since a damaged or forged header may give any number."""
DECODERS = ("JPEG data", "JPEG file", "libpng", "grfmt_", "progression", "SOS parameters", "JFIF", "Adobe color")
"""Texts in the lines that image decoders write to standard error."""
DAMAGE = ("premature end", "bad huffman", "bad arithmetic", "instead of rst", "inconsistent progression", "invalid sos")
"""libjpeg's warnings when it had to make up pixels of a JPEG. Its warning on extra bytes is ignored, since it also
comes for published files whose pixels are all there."""


class DataError(ValueError):
    """A data set on disk differs from the published one. The message says in one sentence what is wrong in which file,
    and what was expected."""


class MissingDataError(DataError, FileNotFoundError):
    """A file or folder of a data set is missing."""


def opened(path: Path) -> int:
    """A file descriptor of a regular file, open for reading.

    Raises:
        MissingDataError: there is no such file, or a link leads nowhere.
        DataError: it is not a regular file (a pipe, for example, is not waited for), or may not be read.
    """
    try:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError as error:
        what = f"is a link to {os.readlink(path)}, which is not there" if path.is_symlink() else "is not there"
        raise MissingDataError(f"{path} {what}.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be opened: {error.strerror or error}.") from error
    mode = os.fstat(file).st_mode
    if not stat.S_ISREG(mode):
        os.close(file)
        raise DataError(f"{path} is {kind_of(mode)}, and no file.")
    return file


def kind_of(mode: int) -> str:
    """The kind of file that a file mode describes, in words."""
    kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
    return next((name for is_it, name in kinds if is_it(mode)), "a device")


def file_bytes(path: Path) -> bytes:
    """All of a regular file; raises as `opened` does."""
    with os.fdopen(opened(path), "rb") as file:
        try:
            return file.read()
        except (OSError, MemoryError) as error:
            raise unreadable(path, getattr(error, "strerror", None) or "it is too large") from error


def lines_of(path: Path) -> list[str]:
    """The non-empty lines of a text file; bytes that are no UTF-8 are decoded as in file names.

    Raises:
        DataError: it is no file, or no text: a byte of it is zero.
    """
    data = file_bytes(path)
    if b"\0" in data:
        raise DataError(f"{path} is no list of file names: its {len(data)} bytes are no text.")
    return [line.strip() for line in os.fsdecode(data.removeprefix(b"\xef\xbb\xbf")).splitlines() if line.strip()]


def check_kind(path: Path, start: bytes, size: int) -> None:
    if not start.startswith((PNG_START, JPEG_START)):
        raise DataError(f"{path} is no PNG or JPEG image: its {size} bytes begin with {start[:8]!r}.")


def check_lossless(path: Path, start: bytes) -> None:
    """Raise DataError if a label is a JPEG, whatever its name, since compression changes ids at every border."""
    if start.startswith(JPEG_START):
        raise DataError(f"{path} is a JPEG, whose compression changes class ids: labels are PNGs as published.")


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
    with os.fdopen(opened(path), "rb") as file:
        length = os.fstat(file.fileno()).st_size
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
        size = header_size(start)
    else:
        try:
            with Image.open(path) as image:
                size = image.size
        except Exception as error:
            raise unreadable(path, error) from error
    check_pixels(path, size)
    return size


def mismatch(pair: tuple[Path, Path]) -> str | None:
    """What is wrong with a pair's sizes, or None; DataError if the label is a JPEG, or either image is incomplete."""
    image, label = pair
    with os.fdopen(opened(label), "rb") as file:
        check_lossless(label, file.read(len(PNG_START)))
    (width, height), (label_width, label_height) = size_of(image), size_of(label)
    if (width, height) == (label_width, label_height):
        return None
    return f"{label} is {label_width} x {label_height} pixels, but its image {image} is {width} x {height}"


def header_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) from the header of a complete PNG or JPEG; None if it has none."""
    if data.startswith(PNG_START):
        return struct.unpack(">II", data[16:24]) if len(data) >= 24 else None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        # a marker may stand behind fill bytes; the others begin with their length
        at += 1 if marker == 0xFF else 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
    return None


def check_pixels(path: Path, size: tuple[int, int] | None) -> None:
    """Raise DataError if a header gives more pixels than any image of a data set has."""
    if size is not None and size[0] * size[1] > LARGEST:
        raise DataError(
            f"{path} says that it has {size[0]} x {size[1]} pixels, more than the {LARGEST:,} that are decoded at most."
        )


def unreadable(path: Path, reason: object) -> DataError:
    """The error for a file that a decoder gave up on, its reason in one line."""
    return DataError(f"{path} cannot be read: {' '.join(str(reason).split()).rstrip('.') or type(reason).__name__}.")


def decoded(path: Path, decode: Callable[[bytes], np.ndarray]) -> np.ndarray:
    """A file's pixels. A damaged JPEG is an error here; OpenCV alone would fill missing pixels with grey.

    Raises:
        MissingDataError: there is no such file.
        DataError: it is no file, no image, cut short, damaged, or larger than any image of a data set.
    """
    data = file_bytes(path)
    check_kind(path, data[:8], len(data))
    # The end first: looking through the whole of a JPEG takes a twentieth of the time that decoding it does.
    if not is_whole(data[:8], data[-TAIL:]) and not is_whole(data[:8], data):
        raise cut_short(path, data[:8], len(data))
    check_pixels(path, header_size(data))
    pixels, failed = None, None
    with decoder_words(DECODERS) as said:
        try:
            pixels = decode(data)
        except Exception as error:  # decoders raise errors of many kinds
            failed = error
    if failed is not None:
        raise unreadable(path, said.text or failed) from failed
    if any(word in said.text.lower() for word in DAMAGE):
        raise DataError(f"{path} is damaged: its decoder says {' '.join(said.text.split())!r}, and makes up the rest.")
    return pixels


def decode_rgb(data: bytes) -> np.ndarray:
    """uint8 (H, W, 3) from any stored format: grey, palette, CMYK, 16 bits per channel; transparency is dropped.

    A camera's orientation tag is ignored, because labels refer to the pixels as stored.
    """
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise ValueError("the decoder gave up")
    return pixels
