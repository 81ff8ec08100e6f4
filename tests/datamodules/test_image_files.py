"""Image files as people have them: damaged, mistaken for files, of every kind; and what is said of each."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from datamodules.classification.folders import ImageFiles, class_files
from datamodules.classification.imagenet import read_video
from datamodules.decoder_warnings import decoder_words
from datamodules.image_files import DataError, MissingDataError, decode_rgb, decoded, header_size, size_of
from tests.datamodules.classification.published_layouts import make_imagenet_p


@pytest.fixture(scope="module")
def picture():
    """Smooth and rough parts, uint8 (96, 128, 3)."""
    rng = np.random.default_rng(0)
    image = np.linspace(0, 255, 128)[None, :, None] * np.ones((96, 1, 3)) * (0.3, 0.6, 1)
    image[48:] = rng.integers(0, 256, (48, 128, 3))
    return image.astype(np.uint8)


def stored(picture, kind="JPEG", **settings):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind, **settings)
    return file.getvalue()


def refusal(path, error=DataError):
    """What `decoded` says: one line that names the file."""
    with pytest.raises(error) as raised:
        decoded(path, decode_rgb)
    message = str(raised.value)
    assert message.startswith(str(path)) and message.endswith(".") and "\n" not in message.replace(str(path), "")
    return message


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width, height):
    """A PNG whose header promises so much, and that holds next to nothing."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def jpeg_of(picture, width, height):
    """A JPEG whose header promises so much."""
    data = bytearray(stored(picture))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize("settings", [{}, {"progressive": True}, {"quality": 95, "optimize": True}], ids=str)
@pytest.mark.parametrize("share", [0.4, 0.6, 0.9])
def test_a_jpeg_damaged_inside_is_no_image(settings, share, picture, tmp_path):
    """Its end mark is there, so that it looks whole; the decoder makes up what is missing."""
    whole = stored(picture, **settings)
    (tmp_path / "whole.jpg").write_bytes(whole)
    assert decoded(tmp_path / "whole.jpg", decode_rgb).shape == picture.shape
    first, last = whole.find(b"\xff\xda"), len(whole)
    place = first + int(share * (last - first))
    (tmp_path / "damaged.jpg").write_bytes(whole[:place] + b"\xff\xd9")
    assert "is damaged: its decoder says" in refusal(tmp_path / "damaged.jpg")


def test_bytes_between_the_picture_and_its_end_are_let_pass(picture, tmp_path):
    """Published files have such: every pixel is there."""
    (tmp_path / "more.jpg").write_bytes(stored(picture)[:-2] + bytes(300) + b"\xff\xd9")
    (tmp_path / "plain.jpg").write_bytes(stored(picture))
    assert np.array_equal(decoded(tmp_path / "more.jpg", decode_rgb), decoded(tmp_path / "plain.jpg", decode_rgb))


def test_a_damaged_png_says_what_is_wrong(picture, tmp_path):
    whole = bytearray(stored(picture, "PNG"))
    whole[len(whole) // 2] ^= 255
    (tmp_path / "damaged.png").write_bytes(whole)
    assert "libpng" in refusal(tmp_path / "damaged.png")


@pytest.mark.parametrize("size", [(60000, 60000), (2**31 - 1, 2**31 - 1), (20000, 20000)])
def test_an_image_bomb_is_not_decoded(size, picture, tmp_path):
    (tmp_path / "bomb.png").write_bytes(png_of(*size))
    assert f"{size[0]} x {size[1]} pixels, more than" in refusal(tmp_path / "bomb.png")
    with pytest.raises(DataError, match=f"{size[0]} x {size[1]}"):
        size_of(tmp_path / "bomb.png")
    if size[0] < 2**16:
        (tmp_path / "bomb.jpg").write_bytes(jpeg_of(picture, *size))
        assert f"{size[0]} x {size[1]} pixels, more than" in refusal(tmp_path / "bomb.jpg")
        with pytest.raises(DataError, match=r"bomb\.jpg"):
            size_of(tmp_path / "bomb.jpg")


@pytest.mark.parametrize(
    "settings", [{}, {"progressive": True, "exif": b"Exif\0\0" + bytes(500)}], ids=("base", "exif")
)
def test_size_in_the_header(settings, picture):
    assert header_size(stored(picture, **settings)) == header_size(stored(picture, "PNG")) == (128, 96)
    assert header_size(b"\xff\xd8\xff\xe0\x00") is None and header_size(b"\x89PNG\r\n\x1a\n") is None


def test_what_is_no_file(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")  # nobody writes to it: whoever waits waits for ever
    (tmp_path / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    assert "is a folder" in refusal(tmp_path / "folder.jpg")
    assert "is a pipe" in refusal(tmp_path / "pipe.jpg")
    assert "is a device" in refusal(tmp_path / "device.jpg")
    assert f"is a link to {tmp_path / 'gone.jpg'}" in refusal(tmp_path / "link.jpg", MissingDataError)
    assert "is not there" in refusal(tmp_path / "none.jpg", MissingDataError)
    assert "0 bytes" in refusal(tmp_path / "empty.jpg")
    for name in ("folder", "pipe", "link", "empty", "device", "none"):
        with pytest.raises(DataError, match=f"{name}.jpg"):
            size_of(tmp_path / f"{name}.jpg")
        if name != "link":
            with pytest.raises(DataError, match=f"{name}.jpg"):
                read_video(tmp_path / f"{name}.jpg")


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda path: path.mkdir(), "is a folder"),
        (os.mkfifo, "is a pipe"),
        (lambda path: path.symlink_to("/nowhere.jpg"), "is a link that leads nowhere"),
    ],
)
def test_what_is_no_file_is_said_when_a_set_is_listed(make, what, picture, tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/1.jpg").write_bytes(stored(picture))
    (tmp_path / "cat/2.jpg").symlink_to(tmp_path / "cat/1.jpg")
    assert class_files(tmp_path, ["cat"])[0] == ["cat/1.jpg", "cat/2.jpg"]
    make(tmp_path / "cat/3.jpg")
    with pytest.raises(DataError, match=f"3.jpg {what}"):
        class_files(tmp_path, ["cat"])


@pytest.mark.parametrize("name", [b"line\nbreak.png", b"\xff\xfe.png", "ä 100%.png".encode(), b"%d.png"])
def test_any_name(name, picture, tmp_path):
    (tmp_path / "cat").mkdir()
    path = os.fsencode(tmp_path / "cat") + b"/" + name
    with open(path, "wb") as file:
        file.write(stored(picture, "PNG"))
    files = ImageFiles(tmp_path, *class_files(tmp_path, ["cat"]), ["cat"])
    assert np.array_equal(files[0][0], picture)
    size_of(files.path(0))


def test_a_worker_of_a_loader_names_the_file(picture, tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/1.jpg").write_bytes(stored(picture)[:-200] + b"\xff\xd9")
    files = ImageFiles(tmp_path, *class_files(tmp_path, ["cat"]), ["cat"])
    with pytest.raises(DataError, match=r"cat/1\.jpg is damaged"):
        next(iter(DataLoader(files, num_workers=1)))


def test_sixteen_bits_a_channel_keep_their_upper_eight(tmp_path):
    deep = np.random.default_rng(0).integers(0, 2**16, (20, 30), np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    read = decoded(tmp_path / "deep.png", decode_rgb)
    assert np.array_equal(read, np.repeat((deep >> 8).astype(np.uint8)[..., None], 3, 2))


def test_other_lines_still_reach_standard_error(capfd):
    with decoder_words(("Corrupt",)) as said:
        os.write(2, b"Corrupt JPEG data: so much\nsomething else\n")
    os.write(2, b"afterwards\n")
    with decoder_words(("Corrupt",)) as nothing:
        pass
    assert said.text == "Corrupt JPEG data: so much" and nothing.text == ""
    assert capfd.readouterr().err == "something else\nafterwards\n"


def test_a_damaged_video(tmp_path):
    make_imagenet_p(tmp_path, frames=20)
    path = sorted(tmp_path.rglob("*.mp4"))[0]
    whole = path.read_bytes()
    assert read_video(path).shape == (20, 48, 64, 3)
    start = whole.index(b"mdat") + 4
    path.write_bytes(whole[: start + 60] + bytes(range(100, 180)) + whole[start + 140 :])
    with pytest.raises(DataError, match=f"{path.name} is (damaged|cut short)"):
        read_video(path)
