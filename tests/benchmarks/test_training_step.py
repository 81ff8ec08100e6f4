"""The benchmark of training steps runs, and its record is complete; no test checks a time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import training_step

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
OWN = {("bn", "reference"), ("bn", "again")}


@pytest.mark.parametrize(
    ("flags", "candidates"),
    [
        ("--networks resnet50 --norms sn --peers", {("sn", form) for form in training_step.FORMS}),
        ("--networks deeplabv3plus --norms bin --layout channels-last --dtype bfloat16", {("bin", "ours")}),
        ("--networks cifar_resnet20 --norms ibn-a", {("ibn-a", "ours")}),
        ("--networks streets --norms sn", {("sn", "ours")}),
        pytest.param("--networks resnet50 --norms sn --run compiled", {("sn", "ours")}, marks=pytest.mark.slow),
    ],
)
def test_a_quick_run_writes_its_record(flags, candidates, tmp_path, capsys):
    file = tmp_path / "steps.json"
    training_step.main([*flags.split(), "--quick", "--device", "cpu", "--threads", "1", "--json", str(file)])
    record = json.loads(file.read_text())
    assert {"date", "machine", "versions", "threads", "flags", "rows"} <= record.keys()
    rows = {(row["norm"], row["form"]): row for row in record["rows"]}
    assert rows.keys() == OWN | candidates
    for row in rows.values():
        assert len(row["samples_s"]) == len(row["ratios"]) == 2
        assert row["kept_bytes"] > 0
        assert row["peak_bytes"] is None  # no GPU
        assert row["images_per_second"] > 0
    assert rows["bn", "again"]["kept_bytes"] == rows["bn", "reference"]["kept_bytes"]
    if ("sn", "published") in rows:
        assert rows["sn", "published"]["kept_bytes"] > 1.5 * rows["sn", "ours"]["kept_bytes"]
    assert "images/s" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--networks vgg", "invalid choice"),
        ("--norms gn", "invalid choice"),
        ("--size 100", "multiple of 32"),
        ("--batch-size 1", "batch norm needs two"),
        ("--rounds none", "above 0"),
        ("--run graph --device cpu", "need a GPU"),
        ("--run graph --dtype float16", "gradient scaler"),
        ("--run compiled --peers", "eager steps alone"),
    ],
)
def test_wrong_flags_are_answered_in_a_sentence(flags, sentence, capsys):
    with pytest.raises(SystemExit) as stopped:
        training_step.main(flags.split())
    assert stopped.value.code == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("script", ["norms", "training_step"])
def test_help_does_not_wait_for_torch(script):
    code = f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r}); import {script}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    told = subprocess.run([sys.executable, BENCHMARKS / f"{script}.py", "--help"], capture_output=True, text=True)
    assert told.returncode == 0 and "--json" in told.stdout
