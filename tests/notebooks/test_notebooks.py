"""Every notebook runs from nothing, and is committed with what it showed and what was seen in it."""

from pathlib import Path

import nbformat
import pytest

from notebooks.execute import executed

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


def drawing(notebook) -> list[bool]:
    """Whether each cell of code shows a picture."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [any("image/png" in output.get("data", {}) for output in cell.outputs) for cell in code]


def test_there_are_notebooks():
    assert {file.stem for file in NOTEBOOKS} >= {"gate_distributions", "domain_gap", "batch_size", "robustness"}


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs_from_nothing(file, tmp_path, monkeypatch):
    monkeypatch.setenv("NORMSHIFT_SIZE", "smoke")
    monkeypatch.setenv("NORMSHIFT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    assert drawing(executed(file)) == drawing(nbformat.read(file, as_version=4))
    assert list((tmp_path / "runs").iterdir())


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_is_committed_as_it_ran(file):
    notebook = nbformat.read(file, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [*range(1, len(code) + 1)]
    assert all(len(cell.source.splitlines()) <= 16 for cell in code)
    assert file.stat().st_size < 500_000
    told = [cell for cell in notebook.cells if cell.cell_type == "markdown" and "**What to see.**" in cell.source]
    assert len(told) >= 2 and sum(drawing(notebook)) >= 1
    printed = "".join(o.text for cell in code for o in cell.outputs if o.output_type == "stream")
    assert "python experiments/" in printed and "-smoke" not in printed and "-small" not in printed
    assert "/home/" not in printed and " /" not in printed  # of no machine in particular
