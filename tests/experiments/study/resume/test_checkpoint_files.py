"""Checkpoint files after a kill, a full disk or damage at any moment."""

import errno
import os
import zipfile
from pathlib import Path

import pytest
import torch

from datamodules import whole_file
from experiments.study.endings import UsageError
from experiments.study.resume import checkpoint_files
from experiments.study.resume.checkpoint_files import (
    LAST,
    PREVIOUS,
    PROGRESS,
    SafeCheckpoints,
    copied,
    damage,
    newest,
    set_aside,
    write_checkpoint,
)
from tests.experiments.study.small_disk import small_disk


def checkpoint(step: int, width: int = 3) -> dict:
    return dict.fromkeys(PROGRESS, None) | {"state_dict": {"weight": torch.full((width, 3), float(step))}, "step": step}


def step_of(file: Path | None) -> int | None:
    return None if file is None else torch.load(file, weights_only=False)["step"]


class Killed(BaseException):
    """What follows is not done."""


CALLS = ("fsync", "replace", "open")
"""What changes something on the disk; a kill may come before each."""


@pytest.mark.parametrize("before", range(9))
def test_whenever_it_is_killed_a_whole_checkpoint_is_there(before, tmp_path, monkeypatch):
    """Two checkpoints are there, and a third one is being written: it is killed before the n-th change on the disk."""
    for step in (1, 2):
        write_checkpoint(checkpoint(step), tmp_path / LAST)
    calls = [0]

    def counted(whole):
        def call(*arguments, **named):
            calls[0] += 1
            if calls[0] > before:
                raise Killed  # from here on nothing happens, nor is anything tidied up
            return whole(*arguments, **named)

        return call

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", counted(Path.replace))
        patched.setattr(Path, "unlink", counted(Path.unlink))
        patched.setattr(os, "fsync", counted(os.fsync))
        try:
            write_checkpoint(checkpoint(3), tmp_path / LAST)
        except Killed:
            killed = True
        else:
            killed = False
    assert set_aside(tmp_path) == []  # nothing is damaged
    found = step_of(newest(tmp_path))
    assert found == 3 if not killed else found in (2, 3)
    assert {file.name for file in tmp_path.iterdir()} <= {LAST, PREVIOUS}  # what was half written is gone
    assert killed or before >= 6
    write_checkpoint(checkpoint(4), tmp_path / LAST)
    assert step_of(newest(tmp_path)) == 4


def test_the_one_before_is_kept(tmp_path):
    for step in (1, 2, 3):
        write_checkpoint(checkpoint(step), tmp_path / LAST)
    assert step_of(tmp_path / LAST) == 3 and step_of(tmp_path / PREVIOUS) == 2
    write_checkpoint(checkpoint(7), tmp_path / "model.ckpt")
    write_checkpoint(checkpoint(8), tmp_path / "model.ckpt")
    assert {file.name for file in tmp_path.iterdir()} == {LAST, PREVIOUS, "model.ckpt"}


def cut(raw: bytes) -> bytes:
    return raw[: len(raw) // 2]


def flipped(raw: bytes) -> bytes:
    """One bit of a weight; the archive is whole."""
    place = raw.index(torch.full((2,), 2.0).numpy().tobytes())
    return raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]


@pytest.mark.parametrize(
    ("harm", "said"),
    [(cut, "is damaged"), (flipped, "is damaged"), (lambda raw: b"", "is empty"), (lambda raw: b"text", "is damaged")],
    ids=["cut", "flipped", "empty", "text"],
)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(harm, said, tmp_path):
    for step in (1, 2):
        write_checkpoint(checkpoint(step), tmp_path / LAST)
    (tmp_path / LAST).write_bytes(harm((tmp_path / LAST).read_bytes()))
    assert newest(tmp_path) == tmp_path / PREVIOUS  # found by every process, before the first one renames it
    (sentence,) = set_aside(tmp_path)
    assert sentence == (
        f"{tmp_path / LAST} {said}; it is kept as last-damaged.ckpt, and the training continues from the one before, "
        "previous.ckpt."
    )
    assert step_of(newest(tmp_path)) == 1 and (tmp_path / "last-damaged.ckpt").exists()
    (tmp_path / PREVIOUS).write_bytes(b"")
    assert set_aside(tmp_path)[0].endswith("the training continues from its start.") and newest(tmp_path) is None


def test_a_checkpoint_of_something_else(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / LAST)
    assert "is not the checkpoint of a training under way" in set_aside(tmp_path)[0]
    write_checkpoint(checkpoint(1, width=2), tmp_path / LAST)
    network = torch.nn.Linear(3, 3, bias=False)
    with pytest.raises(UsageError, match=f"--resume: {tmp_path / LAST} is of another network: remove it"):
        newest(tmp_path, network)
    write_checkpoint(checkpoint(1), tmp_path / LAST)
    assert newest(tmp_path, network) == tmp_path / LAST


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_an_error_is_raised_by_the_next_call_and_loses_nothing(error, tmp_path, monkeypatch):
    files = SafeCheckpoints()
    for step in (1, 2):
        files.save_checkpoint(checkpoint(step), tmp_path / LAST)
    files.wait()

    def fail(*_):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "fsync", fail)
    files.save_checkpoint(checkpoint(3), tmp_path / LAST)  # returns: the thread finds out
    with pytest.raises(OSError, match=os.strerror(error)):
        files.save_checkpoint(checkpoint(4), tmp_path / LAST)
    monkeypatch.undo()
    assert {file.name for file in tmp_path.iterdir()} == {LAST, PREVIOUS} and step_of(tmp_path / LAST) == 2
    files.save_checkpoint(checkpoint(5), tmp_path / LAST)
    files.teardown()
    assert step_of(tmp_path / LAST) == 5


def test_a_disk_that_returns_other_bytes_is_noticed(tmp_path, monkeypatch):
    write_checkpoint(checkpoint(2), tmp_path / LAST)
    whole = whole_file.write_whole

    def flip(path, content, **named):
        whole(path, content, **named)
        path.write_bytes(flipped(path.read_bytes()))

    monkeypatch.setattr(checkpoint_files, "write_whole", flip)
    with pytest.raises(OSError, match="was written and is damaged when it is read back"):
        write_checkpoint(checkpoint(2), tmp_path / LAST)
    assert damage(tmp_path / LAST) is None and [file.name for file in tmp_path.iterdir()] == [LAST]


def test_what_is_saved_is_what_there_was(tmp_path):
    """Weights, lists and nested states change while the thread writes."""
    tensor, growing = torch.zeros(1000, 1000), [1, {"inner": torch.zeros(2)}]
    files = SafeCheckpoints()
    files.save_checkpoint(checkpoint(1) | {"tensor": tensor, "growing": growing}, tmp_path / LAST)
    tensor.fill_(7)
    growing[1]["inner"].fill_(7)
    growing.append(2)
    files.wait()
    kept = torch.load(tmp_path / LAST, weights_only=False)
    assert not kept["tensor"].any() and len(kept["growing"]) == 2 and not kept["growing"][1]["inner"].any()


def test_a_copy_has_the_types_of_the_original():
    point = torch.return_types.max((torch.ones(1), torch.ones(1)))
    for value in ((1, [2]), {"a": (torch.ones(1),)}, torch.Size([2, 3]), "text", None):
        assert type(copied(value)) is type(value) or isinstance(value, torch.Size)
    assert torch.equal(copied([point[0]])[0], point[0])


def test_torch_writes_checksums(tmp_path):
    """Without them a flipped bit would not be found."""
    write_checkpoint(checkpoint(1), tmp_path / LAST)
    with zipfile.ZipFile(tmp_path / LAST) as archive:
        assert any(entry.CRC for entry in archive.infolist() if "data/" in entry.filename)


def test_a_full_disk_keeps_the_checkpoint_that_was_there(tmp_path):
    with small_disk(tmp_path / "disk", "2m") as disk:
        large = torch.zeros(400, 1000) + torch.rand(400, 1000)  # 1.6 MB: there is room for one
        write_checkpoint(checkpoint(1) | {"large": large}, disk / LAST)
        with pytest.raises(OSError) as error:
            write_checkpoint(checkpoint(2) | {"large": large}, disk / LAST)
        assert error.value.errno == errno.ENOSPC
        assert step_of(newest(disk)) == 1 and [file.name for file in disk.iterdir()] == [LAST]
