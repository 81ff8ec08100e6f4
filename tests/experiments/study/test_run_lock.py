"""A run's folder belongs to one process at a time."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.study.endings import UsageError
from experiments.study.run_lock import locked
from tests.experiments.study.test_run_folder import opened

HOLDS = """
import os, sys, time
from pathlib import Path
from experiments.study.run_lock import locked
lock = locked(Path(sys.argv[1]))
if os.fork() == 0:  # a loader's worker, which outlives a killed training by some seconds
    time.sleep(60)
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds tmp_path/run, in a process group of its own."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", HOLDS, str(tmp_path / "run")]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout.readline() == "held\n"
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_a_second_process_is_refused_until_the_first_is_dead(holder, tmp_path):
    for _ in range(2):  # a refused one takes nothing away
        with pytest.raises(UsageError, match=rf"is being written to by another process \(process {holder.pid} on"):
            opened(tmp_path / "run")
    assert not list((tmp_path / "run").glob("*.yaml"))
    holder.kill()
    holder.wait()
    opened(tmp_path / "run")  # its child is alive


def test_one_process_may_open_a_folder_several_times(tmp_path):
    first, second = locked(tmp_path / "run"), locked(tmp_path / "x" / ".." / "run")
    assert first is second
    opened(tmp_path / "run")


def test_a_smoke_run_is_emptied_only_by_its_owner(holder, tmp_path):
    (tmp_path / "run" / "old-seed0").mkdir()
    with pytest.raises(UsageError, match="another process"):
        opened(tmp_path / "run", fresh=True)
    assert (tmp_path / "run" / "old-seed0").exists()
    holder.kill()
    holder.wait()
    opened(tmp_path / "run", fresh=True)
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == [".lock", "arms.json", "config.yaml"]


def file_in_its_place(out: Path) -> None:
    out.write_text("")


def below_a_file(out: Path) -> None:
    out.parent.rmdir()
    out.parent.write_text("")


def dangling(out: Path) -> None:
    out.symlink_to("nowhere/at/all")


def loop(out: Path) -> None:
    out.symlink_to(out)


@pytest.mark.parametrize("spoil", [file_in_its_place, below_a_file, dangling, loop])
def test_an_out_that_cannot_be_written_is_one_sentence(spoil, tmp_path):
    (tmp_path / "a").mkdir()
    spoil(tmp_path / "a" / "run")
    with pytest.raises(UsageError, match=r"--out .*run cannot be written \(.*\): choose another"):
        opened(tmp_path / "a" / "run")


@pytest.mark.parametrize("out", ["/proc/run", "/dev/null/run", "/tmp/" + "x" * 300, "/proc"])
def test_an_out_that_no_user_may_write(out):
    with pytest.raises(UsageError, match=r"cannot be written \(.*\): choose another"):
        opened(Path(out))
