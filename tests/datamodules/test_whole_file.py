"""Files that are there whole or not at all."""

import errno
import os

import pytest

from datamodules.whole_file import write_whole


def test_text_bytes_and_what_writes_them(tmp_path):
    for content in ("ä\n", "ä\n".encode(), lambda opened: opened.write("ä\n".encode())):
        write_whole(tmp_path / "a.txt", content)
        assert (tmp_path / "a.txt").read_bytes() == "ä\n".encode()
        (tmp_path / "a.txt").unlink()
    write_whole(tmp_path / ("n" * 250), "a long name", durable=False)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("when", ["write", "fsync", "replace"])
def test_a_full_disk_costs_nothing_that_was_there(when, tmp_path, monkeypatch):
    file = tmp_path / "config.yaml"
    write_whole(file, "before")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if when != "write":
        monkeypatch.setattr(os, when, full)  # pathlib renames by os.replace
    with pytest.raises(OSError, match="No space left"):
        write_whole(file, full if when == "write" else "after")
    assert file.read_text() == "before" and list(tmp_path.iterdir()) == [file]
