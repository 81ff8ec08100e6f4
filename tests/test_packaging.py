"""What is installed: a wheel holds the library alone; an editable install, all; and what they import is required."""

import ast
import os
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("normshift", "datamodules", "lightning_modules", "experiments")
WITH_TORCH = {"triton"}
"""Comes with torch, where there is one."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    builder = pytest.importorskip("hatchling.builders.wheel").WheelBuilder(str(ROOT))
    with ZipFile(next(builder.build(directory=str(tmp_path_factory.mktemp("wheel"))))) as archive:
        yield archive


@pytest.fixture(scope="module")
def metadata(wheel):
    return wheel.read(next(name for name in wheel.namelist() if name.endswith("METADATA"))).decode()


def test_the_wheel_holds_the_library_alone(wheel):
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"normshift"}


def test_the_wheel_holds_all_of_the_library(wheel):
    files = [file for file in (ROOT / "normshift").rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    assert {file.relative_to(ROOT).as_posix() for file in files} <= {*wheel.namelist()}
    assert any(file.suffix == ".cpp" for file in files) and "normshift/py.typed" in wheel.namelist()


@pytest.mark.slow
def test_a_wheel_with_kernels_needs_no_compiler(tmp_path):
    environment = os.environ | {"NORMSHIFT_WHEEL": "kernels"}
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, env=environment, check=True, capture_output=True)
    (made,) = tmp_path.glob("*.whl")
    assert "-py3-none-" in made.name and "any" not in made.name
    with ZipFile(made) as archive:
        archive.extractall(tmp_path / "installed")
    code = "from normshift.backends import cpu_library as c; assert c.load(); print(c.library_file())"
    nothing = {
        "PYTHONPATH": str(tmp_path / "installed"),
        "CXX": "none",
        "TORCH_EXTENSIONS_DIR": str(tmp_path / "empty"),
    }
    told = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env=os.environ | nothing,
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0 and told.stdout.startswith(str(tmp_path / "installed")), told.stderr
    assert not (tmp_path / "empty").exists()


def test_the_wheel_says_whose_it_is(wheel, metadata):
    assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())
    for line in ("License: Apache-2.0", "Author: The NormShift authors", "Project-URL: Homepage, https://"):
        assert re.search(f"^{line}", metadata, re.MULTILINE), line


def test_citation_and_metadata_agree(metadata):
    citation = (ROOT / "CITATION.cff").read_text()
    for field, key in (("Version", "version"), ("License", "license"), ("Project-URL: Homepage,", "url")):
        value = re.search(rf"^{field}:? (.+)$", metadata, re.MULTILINE)[1]
        assert f"\n{key}: {value}\n" in citation, key


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_is_imported_is_required(folder, metadata):
    required = re.findall(r"^Requires-Dist: ([\w-]+)[^;\n]*(?:; extra == '(\w+)')?$", metadata, re.MULTILINE)
    extras = {""} if folder == "normshift" else {"", "studies", "export"}
    known = {normal(name) for name, extra in required if extra in extras}
    providers = packages_distributions()
    for module in third_party(folder) - WITH_TORCH:
        assert known & set(map(normal, providers[module])), module


def normal(name: str) -> str:
    """A distribution's name as packaging normalises it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def third_party(folder: str) -> set[str]:
    """The top-level modules that a folder imports, without the standard library's and our own."""
    found = set()
    for file in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found.add(node.module.partition(".")[0])
    return found - {*FOLDERS, *sys.stdlib_module_names}


def test_scripts_run_from_anywhere_without_a_path(tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, ROOT / "experiments" / "report.py", "--help"]
    told = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert told.returncode == 0 and "usage: report.py" in told.stdout, told.stderr
