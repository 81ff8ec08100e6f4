"""README must stay true: its commands parse, its files exist, its names are the names."""

import re
import shlex
from pathlib import Path

import pytest

import normshift
from datamodules.domains import DOMAINS
from experiments.flags import parse
from experiments.seg_gta2city import Flags

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^(?:    )?python experiments/seg_gta2city\.py(.*)$", README, re.MULTILINE)
COMMANDS += re.findall(
    r"^    python experiments/seg_gta2city\.py(.*)$", (ROOT / "experiments/seg_gta2city.py").read_text(), re.M
)


@pytest.mark.parametrize("arguments", COMMANDS)
def test_commands_parse(arguments):
    parse(Flags, "", shlex.split(arguments))


def test_there_are_commands():
    assert len(COMMANDS) >= 3


def test_targets_of_make_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_pictures_and_folders_exist():
    for path in re.findall(r"\]\((docs/[^)]+)\)", README):
        assert (ROOT / path).is_file(), path
    for folder in re.findall(r"^\| `([a-z_]+/)`", README, re.MULTILINE):
        assert (ROOT / folder).is_dir(), folder


def test_flags_named_in_readme_are_flags():
    known = {f"--{name.replace('_', '-')}" for name in Flags.__dataclass_fields__} | {
        "--config",
        "--no-augment-colour",
        "--help",
    }
    assert set(re.findall(r"`(--[a-z-]+)", README)) <= known | {"--system-site-packages"}


def test_norms_and_domains_are_all_named():
    assert f"`{' '.join(normshift.NORMS)}`" in README
    for name in DOMAINS:
        assert f"`{name}`" in README or f"`-{name.removeprefix('streets-')}`" in README, name
