"""docs/own-data.md, run as it stands: from made images to exported networks."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "own-data.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.+?)```", PAGE, re.DOTALL)


def run(block: str, folder: Path) -> None:
    """The commands of a block, one after the other, as typed in the repository's folder."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    script = f'python() {{ "{sys.executable}" "$@"; }}\nset -e\n{block}'
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("own data")
    (made / "experiments").symlink_to(ROOT / "experiments")
    (code,) = blocks("python")
    (made / "make_sets.py").write_text(code, encoding="utf-8")
    run("python make_sets.py", made)
    (text,) = blocks("yaml")
    for season in ("summer", "fog"):
        (made / "fields" / season / "fields.yaml").write_text(text, encoding="utf-8")
    return made


@pytest.mark.slow
def test_classes_in_folders_are_trained_evaluated_and_predicted(folder):
    run(blocks("bash")[0], folder)
    results = pd.read_csv(folder / "runs" / "fruit" / "results.csv")
    assert set(results["norm"]) == {"bn", "bin"} and set(results["domain"]) == {"fruit/drawing:all"}
    evaluated = pd.read_csv(folder / "runs" / "fruit-evaluated" / "results.csv")
    assert "fruit/photo 1" in set(evaluated["domain"])
    predicted = pd.read_csv(folder / "runs" / "fruit-predicted" / "predictions.csv")
    assert len(predicted) == 10 and set(predicted["class"]) <= {"Äpfel rot", "груша", "plum", "レモン", "fig"}


@pytest.mark.slow
def test_a_set_in_a_yaml_file_is_trained_evaluated_predicted_and_exported(folder):
    run(blocks("bash")[1], folder)
    results = pd.read_csv(folder / "runs" / "fields" / "results.csv")
    assert {"iou/pole, thin", "iou/sky", "miou"} <= set(results["measure"]) and results["domain"].nunique() == 2
    assert len(list((folder / "runs" / "fields-predicted").rglob("*.png"))) == 2 * 11
    assert list((folder / "runs" / "fields").rglob("*.onnx"))


def test_what_the_page_makes_is_whole(folder):
    run(blocks("bash")[2], folder)
    assert len(list((folder / "runs" / "checked").glob("*.png"))) == 6
