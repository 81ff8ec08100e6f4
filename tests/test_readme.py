"""README and docs must stay true: their commands parse, their files exist, their names are the names."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

import normshift
from datamodules.domains import DOMAINS
from datamodules.image_domains import NAMES
from experiments import dashboard
from experiments.flags import parse

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {path: path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
SCRIPTS = sorted(file.stem for file in (ROOT / "experiments").glob("*.py") if re.match(r"seg_|cls_|eval_", file.stem))
STUDIES = {name: importlib.import_module(f"experiments.{name}") for name in SCRIPTS}
TEXTS = [*PAGES.values(), *((ROOT / "experiments" / f"{name}.py").read_text() for name in (*SCRIPTS, "dashboard"))]
COMMANDS = [
    (name, arguments)
    for text in TEXTS
    for name, arguments in re.findall(r"^ *python experiments/(\w+)\.py(.*)$", text.replace("\\\n", ""), re.MULTILINE)
]


@pytest.fixture
def in_a_folder_with_checkpoints(tmp_path, monkeypatch):
    """Where the files that the commands name are there."""
    for file in ("model.ckpt", "ibn_resnet50.pth", "resnet101-imagenet.pth"):
        (tmp_path / file).touch()
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("name", "arguments"), COMMANDS)
def test_commands_parse(name, arguments, in_a_folder_with_checkpoints):
    module = importlib.import_module(f"experiments.{name}")
    if hasattr(module, "Flags"):  # report.py has none
        parse(module.Flags, "", shlex.split(arguments))


def test_every_study_is_shown_with_a_command():
    assert {name for name, _ in COMMANDS} >= set(STUDIES)
    for name in STUDIES:
        assert f"{name}.py" in README, name


def test_targets_of_make_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", "\n".join(PAGES.values()), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_links_and_folders_lead_somewhere():
    for page, text in PAGES.items():
        for path in re.findall(r"\]\(([\w/.-]+)(?:#[\w-]+)?\)", text):
            assert (page.parent / path).is_file(), f"{page.name}: {path}"
    for folder in re.findall(r"^\| `([a-z_]+/)`", README, re.MULTILINE):
        assert (ROOT / folder).is_dir(), folder


def test_flags_that_are_named_are_flags():
    fields = {name for study in (*STUDIES.values(), dashboard) for name in study.Flags.__dataclass_fields__}
    known = {f"--{name.replace('_', '-')}" for name in fields} | {"--config", "--no-augment-colour", "--help"}
    assert set(re.findall(r"`(--[a-z-]+)", "\n".join(PAGES.values()))) <= known | {"--system-site-packages"}


def test_norms_and_domains_are_all_named():
    assert f"`{' '.join(normshift.NORMS)}`" in README
    for name in DOMAINS:
        assert f"`{name}`" in README or f"`-{name.removeprefix('streets-')}`" in README, name
    for name in NAMES:
        assert f"`{name.partition('/')[0]}" in README, name
