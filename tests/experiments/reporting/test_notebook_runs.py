"""Runs for the notebooks, of a study that is written here."""

import json

import pytest
import yaml

from experiments.reporting import notebook_runs
from experiments.reporting.notebook_runs import ensure_run
from experiments.study.endings import UsageError

STUDY = """
import json, pathlib, sys, yaml
if "--fail" in sys.argv:
    sys.exit("error: --fail was asked for.")
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
out.mkdir(parents=True, exist_ok=True)
(out / "config.yaml").write_text(yaml.safe_dump({"arguments": sys.argv[1:]}))
(out / "results.csv").write_text("arm,seed,measure,value\\nbn,0,top1,0.5\\n")
"""


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A repository with one study, and nothing run in it."""
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "study.py").write_text(STUDY)
    monkeypatch.setattr(notebook_runs, "ROOT", tmp_path)
    for name in ("NORMSHIFT_SIZE", "NORMSHIFT_RUNS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def arguments(folder) -> list[str]:
    return yaml.safe_load((folder / "config.yaml").read_text())["arguments"]


def test_small_runs_are_made_once(root, capsys):
    folder = ensure_run("a", "study.py --norm bn", small="--epochs 1")
    assert folder == root / "runs" / "notebooks" / "a-small"
    assert arguments(folder) == ["--norm", "bn", "--epochs", "1", "--out", "runs/notebooks/a-small"]
    assert capsys.readouterr().out.startswith("python experiments/study.py --norm bn --epochs 1 --out")
    written = (folder / "config.yaml").stat().st_mtime_ns
    assert ensure_run("a", "study.py --norm bn", small="--epochs 1") == folder
    assert (folder / "config.yaml").stat().st_mtime_ns == written


def test_full_runs_are_preferred_and_smoke_runs_lie_elsewhere(root, monkeypatch):
    monkeypatch.setenv("NORMSHIFT_SIZE", "full")
    full = ensure_run("a", "study.py", small="--epochs 1")
    assert arguments(full) == ["--out", "runs/notebooks/a"]
    monkeypatch.delenv("NORMSHIFT_SIZE")
    assert ensure_run("a", "study.py", small="--epochs 1") == full
    monkeypatch.setenv("NORMSHIFT_SIZE", "smoke")
    monkeypatch.setenv("NORMSHIFT_RUNS", str(root / "elsewhere"))
    smoke = ensure_run("a", f"study.py {full}", small="--epochs 1")
    assert smoke == root / "elsewhere" / "a-smoke"
    assert arguments(smoke) == ["runs/notebooks/a", "--epochs", "1", "--smoke", "--out", "elsewhere/a-smoke"]


def test_half_a_run_goes_on(root):
    folder = root / "runs" / "notebooks" / "a-small"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"seed": 0, "seeds": 1}))
    (folder / "arms.json").write_text(json.dumps({"bn": {}}))
    (folder / "results.csv").touch()
    assert "--resume" in arguments(ensure_run("a", "study.py"))


def test_what_fails_says_how(root, monkeypatch):
    with pytest.raises(UsageError, match=r"study.py --fail[\s\S]*--fail was asked for"):
        ensure_run("a", "study.py --fail")
    monkeypatch.setenv("NORMSHIFT_SIZE", "huge")
    with pytest.raises(UsageError, match="choose from smoke, small, full"):
        ensure_run("a", "study.py")
