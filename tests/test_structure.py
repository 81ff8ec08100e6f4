"""The structure of the repository: imports point down and never in a circle, functions and folders stay small."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("experiments", "lightning_modules", "datamodules", "normshift")
"""From the top down: a package imports those behind it."""
SHARED = ("experiments.study", "experiments.tasks", "experiments.reporting")
"""What the scripts in `experiments/` share, and which imports none of them."""
LONGEST_FUNCTION = 56
LARGEST_FOLDER = 22
IMPORTS_IN_FUNCTIONS = 48
"""No more than these: a script's one import of its task, so that `--help` is fast, and packages that are slow to import
and seldom needed. Each says why it stands there."""

FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for layer in LAYERS
    for path in sorted((ROOT / layer).rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


class Import(NamedTuple):
    """One module of ours, or another, that a module imports."""

    target: str
    line: int
    in_function: bool
    for_types: bool  # under `if TYPE_CHECKING`, which never runs


def imports_of(name: str) -> Iterator[Import]:
    """All imports of a module, those inside functions and those for type checkers among them."""
    yield from _imports(name, TREES[name], in_function=False, for_types=False)


def _imports(name: str, node: ast.AST, in_function: bool, for_types: bool) -> Iterator[Import]:
    in_function |= isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        for child in node.body:
            yield from _imports(name, child, in_function, for_types=True)
        for child in node.orelse:
            yield from _imports(name, child, in_function, for_types)
        return
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(alias.name, node.lineno, in_function, for_types)
    elif isinstance(node, ast.ImportFrom):
        source = _source(name, node)
        for alias in node.names:  # a name imported from a package may be a module of it
            target = f"{source}.{alias.name}" if f"{source}.{alias.name}" in FILES else source
            yield Import(target, node.lineno, in_function, for_types)
    for child in ast.iter_child_nodes(node):
        yield from _imports(name, child, in_function, for_types)


def _source(name: str, node: ast.ImportFrom) -> str:
    """The module that a `from ... import` names, relative ones written out."""
    if not node.level:
        return node.module or ""
    package = name.split(".") if FILES[name].stem == "__init__" else name.split(".")[:-1]
    return ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])


def ours(target: str) -> str | None:
    """The module of this repository that an imported name belongs to."""
    while target and target not in FILES:
        target = target.rpartition(".")[0]
    return target or None


def is_script(name: str) -> bool:
    return name.startswith("experiments.") and name.count(".") == 1 and FILES[name].stem != "__init__"


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_point_down(layer):
    allowed = LAYERS[LAYERS.index(layer) :]
    wrong = [
        f"{name}:{found.line} imports {found.target}"
        for name in TREES
        if name.partition(".")[0] == layer
        for found in imports_of(name)
        if found.target.partition(".")[0] in LAYERS and found.target.partition(".")[0] not in allowed
    ]
    assert not wrong


def test_what_scripts_share_imports_no_script():
    wrong = [
        f"{name}:{found.line} imports {found.target}"
        for name in TREES
        if name.startswith(SHARED)
        for found in imports_of(name)
        if (target := ours(found.target)) and is_script(target)
    ]
    assert not wrong


def test_what_all_tasks_share_imports_no_task():
    wrong = [
        f"{name}:{found.line} imports {found.target}"
        for name in TREES
        if name.startswith(("experiments.study", "experiments.reporting"))
        for found in imports_of(name)
        if found.target.startswith("experiments.tasks")
    ]
    assert not wrong


def test_nothing_imports_in_a_circle():
    """Imports inside functions count as well; those for type checkers alone do not."""
    graph = {
        name: {target for found in imports_of(name) if not found.for_types and (target := ours(found.target))} - {name}
        for name in TREES
    }
    while free := {name for name, targets in graph.items() if not targets & graph.keys()} | (
        graph.keys() - set().union(*graph.values())
    ):
        graph = {name: targets for name, targets in graph.items() if name not in free}
    in_circles = {name: sorted(targets & graph.keys()) for name, targets in graph.items()}
    assert not in_circles


def test_functions_fit_on_a_screen():
    too_long = [
        f"{name}:{node.lineno} {node.name} has {lines} lines"
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and (lines := length(node)) > LONGEST_FUNCTION
    ]
    assert not too_long


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function, its docstring among them."""
    return function.end_lineno - function.lineno + 1


def test_folders_hold_few_modules():
    sizes = Counter(path.parent.relative_to(ROOT) for path in FILES.values() if path.stem != "__init__")
    assert {str(folder): size for folder, size in sizes.items() if size > LARGEST_FOLDER} == {}


def test_imports_inside_functions_are_few():
    inside = [f"{name}:{found.line}" for name in TREES for found in imports_of(name) if found.in_function]
    lines = len(set(inside))
    assert lines <= IMPORTS_IN_FUNCTIONS, f"{lines} imports stand inside functions"
