"""README and docs must stay true: their commands parse, their files exist, their names are the names."""

import importlib
import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest

import normshift
from datamodules.classification.domains import NAMES
from datamodules.classification.sets import IMAGE_SETS
from datamodules.registered import REGISTERED
from datamodules.segmentation.domains import DOMAINS
from datamodules.segmentation.sets import STREET_SETS
from experiments import dashboard
from experiments.study.flags import parse
from lightning_modules.classification.backbones import OWN_BACKBONES
from lightning_modules.classification.recipes import CLASSIFICATION_RECIPES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
FILES = (
    *(ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING")),
    *sorted((ROOT / "docs").glob("*.md")),
)
PAGES = {path: path.read_text() for path in FILES}
OTHERS = {"__init__", "claims", "compare", "dashboard", "report"}
SCRIPTS = sorted({file.stem for file in (ROOT / "experiments").glob("*.py")} - OTHERS)
STUDIES = {name: importlib.import_module(f"experiments.{name}") for name in SCRIPTS}
TEXTS = [*PAGES.values(), *((ROOT / "experiments" / f"{name}.py").read_text() for name in (*SCRIPTS, "dashboard"))]
COMMANDS = [
    (name, arguments)
    for text in TEXTS
    for name, arguments in re.findall(r"^ *python experiments/(\w+)\.py(.*)$", re.sub(r"\\+\n", "", text), re.MULTILINE)
]


def tables(page: str):
    """The streets tables of docs/results.md, as the picture's script reads them."""
    spec = importlib.util.spec_from_file_location("draw_survival", ROOT / "docs" / "draw_survival.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script.tables(page)


@pytest.fixture
def in_a_folder_with_the_files(tmp_path, monkeypatch, request):
    """Where the files that the commands name are there: checkpoints, and a user's own Python files."""
    for file in ("model.ckpt", "ibn_resnet50.pth", "resnet101-imagenet.pth"):
        (tmp_path / file).touch()
    files = {"mynorm.py": re.search(r"```python\n(.+?)```", (ROOT / "docs" / "own-norm.md").read_text(), re.DOTALL)[1]}
    saved = r"Save this as `(\w+\.py)`.*?```python\n(.+?)```"
    files |= re.findall(saved, (ROOT / "docs" / "plugins.md").read_text(), re.DOTALL)
    for name, code in files.items():
        (tmp_path / name).write_text(code)
    monkeypatch.chdir(tmp_path)
    for registry in (REGISTERED, IMAGE_SETS, STREET_SETS, OWN_BACKBONES, CLASSIFICATION_RECIPES):
        before = registry.copy()
        request.addfinalizer(lambda registry=registry, before=before: (registry.clear(), registry.update(before)))
    yield
    for name in files:
        sys.modules.pop(f"plugin_{Path(name).stem}", None)
    normshift.NORMS._known.pop("mynorm", None)


@pytest.mark.parametrize(("name", "arguments"), COMMANDS)
def test_commands_parse(name, arguments, in_a_folder_with_the_files):
    module = importlib.import_module(f"experiments.{name}")
    if hasattr(module, "Flags"):  # report.py has none
        parse(module.Flags, "", shlex.split(arguments))


def test_readme_is_short_and_activates_the_environment_before_it_needs_it():
    assert len(README.splitlines()) <= 120
    assert README.index("source .venv/bin/activate") < README.index("python experiments/")


def test_the_table_in_readme_is_that_of_the_results():
    plain, augmented = tables((ROOT / "docs" / "results.md").read_text())
    rows = re.findall(r"^\| ([\w-]+) \|((?: \**[\d.]+ ± [\d.]+\** \|){5})$", README, re.MULTILINE)
    assert {norm for norm, _ in rows} == plain.keys()
    for norm, cells in rows:
        assert [*map(float, re.findall(r"[\d.]+", cells))] == [*plain[norm], *augmented[norm][6:]], norm


def test_every_page_is_in_the_site():
    index = (ROOT / "docs" / "index.md").read_text()
    notebooks = [f"../notebooks/{file.stem}" for file in (ROOT / "notebooks").glob("*.ipynb")]
    pages = [file.stem for file in (ROOT / "docs").glob("*.md") if file.stem != "index"]
    for page in (*pages, *notebooks, "../README", "../CHANGELOG", "../CONTRIBUTING", "../benchmarks/README"):
        assert re.search(rf"^(?:.*<)?{re.escape(page)}>?$", index, re.MULTILINE), page


def test_code_in_the_pages_uses_names_that_exist():
    code = re.findall(r"^```python\n(.*?)^```", "\n".join(PAGES.values()), re.MULTILINE | re.DOTALL)
    assert code
    for block in code:
        compile(block, "a page", "exec")
        for name in re.findall(r"normshift\.(\w+)", block):
            assert hasattr(normshift, name), name


def test_every_public_name_is_in_the_reference():
    reference = (ROOT / "docs" / "api.md").read_text()
    for name in normshift.__all__:
        assert re.search(rf"^(?:\.\. auto\w+:: |\.\. class:: | +|`){name}\b", reference, re.MULTILINE), name


def test_every_study_is_shown_with_a_command():
    assert {name for name, _ in COMMANDS} >= set(STUDIES)
    for name in STUDIES:
        assert f"{name}.py" in README, name


def test_targets_of_make_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", "\n".join(PAGES.values()), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_links_lead_somewhere():
    for page, text in PAGES.items():
        for path in re.findall(r"\]\(((?!\d+\))[\w/.-]+)(?:#[\w-]+)?\)", text):
            assert (page.parent / path).is_file(), f"{page.name}: {path}"


def test_flags_that_are_named_are_flags():
    fields = {name for study in (*STUDIES.values(), dashboard) for name in study.Flags.__dataclass_fields__}
    known = {f"--{name.replace('_', '-')}" for name in fields}
    known |= {
        "--config",
        "--recipes",
        "--no-augment-colour",
        "--no-fold",
        "--help",
        "--seeds",
        "--times",
        "--scale",
        "--processes",
    }
    of_others = {"--system-site-packages", "--kill-on-bad-exit", "--build-arg"}
    assert set(re.findall(r"`(--[a-z-]+)", "\n".join(PAGES.values()))) <= known | of_others


def test_norms_and_domains_are_all_named():
    library, data = ((ROOT / "docs" / f"{name}.md").read_text() for name in ("library", "data"))
    assert {*re.search(r"^`NORMS`: `(.*?)`", library, re.MULTILINE)[1].split()} >= {*normshift.NORMS} - {"mynorm"}
    for name in DOMAINS:
        assert f"`{name}`" in data or f"`-{name.removeprefix('streets-')}`" in data, name
    for name in NAMES:
        assert f"`{name.partition('/')[0]}" in data, name
