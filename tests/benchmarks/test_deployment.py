"""The benchmark of deployed forms runs, and its record is complete; no test checks a time."""

import json

import pytest

import deployment


@pytest.mark.slow
def test_a_quick_run_writes_its_record(tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    file, forms = tmp_path / "forms.json", ["eager", "folded", "torchscript", "onnx"]
    deployment.main(["--norms", "ibn-a", "--forms", *forms, "--quick", "--threads", "1", "--json", str(file)])
    record = json.loads(file.read_text())
    assert {"date", "machine", "versions", "threads", "flags", "rows"} <= record.keys()
    rows = {(row["norm"], row["form"]): row for row in record["rows"]}
    assert rows.keys() == {("bn", "eager"), ("bn", "eager again"), *(("ibn-a", form) for form in forms)}
    assert all(len(row["samples_s"]) == 2 and row["ratio"]["median"] > 0 for row in rows.values())
    assert rows["bn", "eager"]["ratio"]["median"] == 1 and rows["ibn-a", "eager"]["own_ratio"]["median"] == 1
    for form in ("torchscript", "onnx"):  # ResNet-50's 25.6 million parameters of four bytes
        assert 95 < rows["ibn-a", form]["megabytes"] < 115 and rows["ibn-a", form]["load_s"] > 0
    assert "| ibn-a | onnx |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [("--norms gn", "invalid choice"), ("--forms tflite", "invalid choice"), ("--device cuda", "for the CPU here")],
)
def test_wrong_flags_are_answered_in_a_sentence(flags, sentence, capsys):
    with pytest.raises(SystemExit) as stopped:
        deployment.main(flags.split())
    assert stopped.value.code == 2 and sentence in capsys.readouterr().err
