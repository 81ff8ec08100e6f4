"""A few of the draws of `fuzz.py`, and all of them as a slow test."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.experiments.fuzz import SCRIPTS, drawn, ending

ROOT = Path(__file__).parents[2]


def bad(numbers: range) -> list:
    return [one for one in map(ending, numbers) if one.fault]


def test_a_sample_of_wrong_input_ends_in_one_sentence_each():
    assert bad(range(5 * len(SCRIPTS))) == []


@pytest.mark.slow
def test_whatever_is_drawn_ends_in_one_sentence():
    assert bad(range(600)) == []


@pytest.mark.slow
def test_as_processes_of_their_own_scripts_end_alike(tmp_path):
    for number in range(1000, 1000 + 2 * len(SCRIPTS)):
        inside = ending(number)
        if inside.status != 2:
            continue
        folder = tmp_path / str(number)
        folder.mkdir()
        script, line = drawn(number, folder)
        try:
            [argument.encode() for argument in line]
        except UnicodeEncodeError:
            continue
        done = subprocess.run(
            [sys.executable, str(ROOT / "experiments" / f"{script}.py"), *line],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 2 and "Traceback" not in done.stderr, (number, line, done.stderr)
