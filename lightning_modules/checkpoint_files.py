"""Checks whether a path can be a checkpoint file, before torch reads it; without torch, so that flags can use it."""

import os
import stat
import zipfile
from pathlib import Path

BEGINNINGS = {
    b"version https://git-lfs": "is Git LFS's pointer to a file: fetch that with `git lfs pull`",
    b"<": "is a web page, not the file that its link promised: download it again",
    b"\x1f\x8b": "is a gzip archive: unpack it first",
    b"7z\xbc\xaf": "is a 7z archive: unpack it first",
    b"\x89HDF": "is an HDF5 file, as Keras saves; a checkpoint of PyTorch is needed",
    b"\x93NUMPY": "is a NumPy array; a checkpoint of PyTorch is needed",
}
"""The first bytes of files that are mistaken for checkpoints -> what these files are."""

ABSENT = "does not exist"
LARGEST_EXPANSION = 100


def fault_of(path: str | Path) -> str | None:
    """Why a path is not a checkpoint file, as the end of a sentence that begins with the path.

    None if it may be one; torch does not try to read it.
    """
    fault = fault_of_path(path)
    if fault:
        return fault
    try:
        with Path(path).open("rb") as file:
            start = file.read(64)
        return _fault_of_contents(Path(path), start)
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        return f"cannot be read: {' '.join(str(error).split()) or type(error).__name__}"


def fault_of_path(path: str | Path) -> str | None:
    """As `fault_of`, without reading the file."""
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except PermissionError:
        return "may not be read by you"
    except OSError:
        return f"is a link to {os.readlink(path)}, which is not there" if os.path.islink(path) else ABSENT
    except ValueError:  # the path contains a null byte
        return ABSENT
    if stat.S_ISDIR(mode):
        return "is a folder: pass the checkpoint file in it"
    if not stat.S_ISREG(mode):
        return "is a pipe or a device, not a file: save what it gives to a file first"
    return None


def is_safetensors(path: str | Path) -> bool:
    """Whether a file begins like safetensors: with the length of a JSON header, then the header."""
    with Path(path).open("rb") as file:
        start = file.read(9)
    length = int.from_bytes(start[:8], "little")
    return start[8:] == b"{" and 2 <= length <= Path(path).stat().st_size - 8


def _fault_of_contents(path: Path, start: bytes) -> str | None:
    if not start:
        return "is empty: download or save it again"
    for beginning, fault in BEGINNINGS.items():
        if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(beginning):
            return fault
    return _fault_of_archive(path) if start.startswith(b"PK") else None


def _fault_of_archive(path: Path) -> str | None:
    if not zipfile.is_zipfile(path):
        return "is damaged, as a file is that was not downloaded or copied to its end"
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    names = [entry.filename for entry in entries]
    if sum(entry.file_size for entry in entries) > LARGEST_EXPANSION * path.stat().st_size:
        return "would unpack to more than a hundred times its size, which no checkpoint does"
    if any(name.endswith("constants.pkl") for name in names):
        return "is a TorchScript program: save the network's state dict, torch.save(network.state_dict(), FILE)"
    if not any(name.endswith("data.pkl") for name in names):
        return "is a zip archive, and no checkpoint: unpack it first"
    return None
