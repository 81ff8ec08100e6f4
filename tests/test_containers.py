"""Dockerfiles and environment.yml name files, extras and commands that exist. No test builds an image."""

import re
import shlex
import subprocess
import sys
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCKERFILES = ("Dockerfile", "Dockerfile.cuda")
PROJECT = (ROOT / "pyproject.toml").read_text()
EXTRAS = set(re.findall(r"^([\w-]+) = \[", PROJECT.split("[project.optional-dependencies]")[1], re.MULTILINE))
NEEDED = ("pyproject.toml", "README.md", "LICENSE", "normshift/__init__.py", "experiments/export.py")


def instructions(name: str) -> list[tuple[str, str]]:
    """A Dockerfile's instructions with their arguments."""
    text = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", (ROOT / name).read_text(), flags=re.MULTILINE))
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def extras_in(command: str) -> set[str]:
    return {extra for group in re.findall(r"-e '?\.\[([\w,]+)\]", command) for extra in group.split(",")}


def ignored(path: str) -> bool:
    """Whether .dockerignore leaves a path out; its patterns here are names, without exceptions."""
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert not any(pattern.startswith("!") for pattern in patterns)
    first, parts = path.split("/")[0], path.split("/")
    return any(
        any(fnmatch(part, pattern[3:]) for part in parts) if pattern.startswith("**/") else fnmatch(first, pattern)
        for pattern in patterns
    )


@pytest.mark.parametrize("name", DOCKERFILES)
def test_a_dockerfile_names_what_exists(name):
    found = instructions(name)
    kinds = [kind for kind, _ in found]
    assert set(kinds) <= {"ARG", "FROM", "RUN", "ENV", "WORKDIR", "COPY"}
    assert kinds.index("FROM") == (1 if "ARG" in kinds else 0)
    for kind, arguments in found:
        if kind == "COPY":
            assert all((ROOT / source).exists() for source in arguments.split()[:-1])
        if kind == "RUN":
            shlex.split(arguments)  # quotes are closed
            assert extras_in(arguments) <= EXTRAS
            for module in re.findall(r"python -m ([\w.]+)", arguments):
                assert find_spec(module), module
    (environment,) = (arguments for kind, arguments in found if kind == "ENV")
    folder = re.search(r"TORCH_EXTENSIONS_DIR=(\S+)", environment)[1]
    assert any(f"chmod -R a+rX {folder}" in arguments for kind, arguments in found if kind == "RUN")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_command_in_its_comment_runs_a_script(name):
    text = (ROOT / name).read_text()
    (script,) = re.findall(r"^# .*python (experiments/\w+\.py)", text, re.MULTILINE)
    assert (ROOT / script).is_file() and not ignored(script)
    build = re.search(r"^#\s+docker build (.*)$", text, re.MULTILINE)[1]
    assert ("-f Dockerfile.cuda" in build) == (name == "Dockerfile.cuda")


def test_images_hold_what_is_installed_and_no_runs():
    assert not [path for path in NEEDED if ignored(path) or not (ROOT / path).is_file()]
    for path in ("runs/x/model.ckpt", "data/gta5/x.png", ".git/HEAD", ".venv/bin/python", "normshift/__pycache__/x"):
        assert ignored(path), path
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    assert not [path for path in listed.split() if ignored(path) and not path.startswith("tests/")]


def test_conda_installs_what_pyproject_lists():
    found = yaml.safe_load((ROOT / "environment.yml").read_text())
    packages = [one for one in found["dependencies"] if isinstance(one, str)]
    (from_pip,) = [one["pip"] for one in found["dependencies"] if isinstance(one, dict)]
    python = re.search(r'^requires-python = "(.+)"$', PROJECT, re.MULTILINE)[1]
    assert f"python{python}" in packages and "pip" in packages
    # one line, which installs this repository with its extras: so there is no second list that could differ
    assert len(from_pip) == 1 and extras_in(from_pip[0]) <= EXTRAS and "studies" in extras_in(from_pip[0])
    assert {re.split(r"[<>=]", one)[0] for one in packages} == {"python", "pip", "make", "cxx-compiler"}
    assert sys.version_info >= tuple(int(part) for part in re.findall(r"\d+", python))
