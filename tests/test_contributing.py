"""Every file and folder that CONTRIBUTING.md and other pages name is there, and what is said to be short is short."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = (
    "CONTRIBUTING.md",
    "README.md",
    "experiments/study/README.md",
    *(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")),
)
OURS = "experiments|lightning_modules|datamodules|normshift|notebooks|tests|benchmarks|docs"
NAMED = {page: re.findall(rf"`((?:{OURS})/[\w./-]*)`", (ROOT / page).read_text()) for page in PAGES}
PATHS = sorted({(page, path) for page, paths in NAMED.items() for path in paths if "TASK" not in path})


@pytest.mark.parametrize(("page", "path"), PATHS)
def test_a_path_that_is_named_is_there(page, path):
    assert (ROOT / path).is_dir() if path.endswith("/") else (ROOT / path).is_file()


def test_files_that_the_contract_of_a_task_names_are_there():
    folder = ROOT / "experiments" / "study"
    named = re.findall(r"`([\w/]+\.py)`", (folder / "README.md").read_text())
    places = (folder, ROOT, ROOT / "experiments", ROOT / "tests" / "experiments" / "study")
    missing = [name for name in named if not any((place / name).is_file() for place in places) and "TASK" not in name]
    assert named and not missing


def test_all_folders_are_described():
    described = {path for page, path in PATHS if page == "CONTRIBUTING.md" and path.count("/") == 1}
    assert {f"{folder}/" for folder in OURS.split("|")} - {"docs/"} <= described


@pytest.mark.parametrize(
    ("pattern", "most"),
    [
        ("normshift/norms/*.py", 25),
        ("datamodules/segmentation/sets/camvid.py", 60),
        ("datamodules/classification/sets/pacs.py", 15),
        ("tests/experiments/study/toy_task.py", 60),
    ],
)
def test_an_addition_takes_as_few_lines_as_is_said(pattern, most):
    files = list(ROOT.glob(pattern))
    assert files and all(len(re.findall(r"^.*\S", file.read_text(), re.MULTILINE)) <= most for file in files)


def test_a_norm_with_a_gate_takes_as_few_lines_as_is_said():
    page = (ROOT / "docs" / "own-norm.md").read_text()
    assert len(re.search(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[1].splitlines()) <= 60
