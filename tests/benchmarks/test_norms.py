"""The benchmark of norm layers runs, and its record is complete; no test checks a time."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import resnet50

import norms
import training_networks
from bandwidth import PASSES, READS, floor


def norm_inputs(network, step):
    """The distinct (channels, height, width) of the batch norms' inputs in a step."""
    seen = set()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.register_forward_hook(lambda _, inputs, __: seen.add(tuple(inputs[0].shape[1:])))
    step()
    return seen


def test_shapes_are_those_that_a_resnet50_has():
    with torch.device("meta"):
        network = resnet50()
        seen = norm_inputs(network, lambda: network(torch.randn(2, 3, 224, 224)))
    assert seen == set(norms.RESNET50)
    assert len(norms.RESNET50) == len(seen)


@pytest.mark.parametrize(
    ("name", "size", "shapes"), [("cifar_resnet20", (32, 32), norms.CIFAR), ("streets", (96, 192), norms.STREETS)]
)
def test_shapes_are_those_that_small_networks_have(name, size, shapes):
    network, loss = training_networks.MAKERS[name]("bn", torch.randn(2, 3, *size))
    seen = {shape for shape in norm_inputs(network, loss) if name != "streets" or shape[1:] not in POOLED}
    assert seen == set(shapes) and len(seen) == len(shapes)


POOLED = {(side, side) for side in (1, 2, 3, 6)}


def test_another_checkout_is_measured_as_well(tmp_path):
    """Here this one."""
    file = tmp_path / "norms.json"
    flags = (
        "--norms sn --forms ours --shapes 4x3x3 --layouts contiguous --batch-size 2 --rounds 2 --min-ms 1 --threads 1"
    )
    root = Path(norms.__file__).parents[1]
    norms.main([*flags.split(), "--device", "cpu", "--before", str(root), "--json", str(file)])
    rows = {(row["norm"], row["form"]): row for row in json.loads(file.read_text())["rows"]}
    assert {("sn", "before"), ("sn", "ours")} <= rows.keys()
    assert rows["sn", "before"]["kept"] == rows["sn", "ours"]["kept"]


def test_a_quick_run_writes_its_record(tmp_path, capsys):
    file = tmp_path / "norms.json"
    norms.main(["--quick", "--device", "cpu", "--threads", "1", "--json", str(file)])
    record = json.loads(file.read_text())
    assert {"date", "machine", "versions", "threads", "flags", "rows", "summary"} <= record.keys()
    assert record["threads"] == 1
    assert record["versions"]["torch"] == torch.__version__
    candidates = {("bn", "reference"), ("bn", "again"), ("floor", ""), ("bn", "ours"), ("bn", "plain")}
    candidates |= {(norm, form) for norm in ("sn", "bin", "ibn-a", "in") for form in norms.FORMS}
    assert {(row["norm"], row["form"]) for row in record["rows"]} == candidates
    assert len(record["rows"]) == len(candidates) * 2 * 2  # shapes, layouts
    assert len(record["summary"]) == len(candidates) * 2
    for row in record["rows"]:
        assert len(row["samples_ms"]) == len(row["ratios"]) == record["flags"]["rounds"] == 2
        assert {"shape", "layout", "dtype", "device", "mode", "batch_size", "ratio", "kept"} <= row.keys()
        assert row["form"] != "reference" or row["ratios"] == [1.0, 1.0]
        assert (row["kept"] is None) == (row["norm"] == "floor")
    shown = capsys.readouterr().out
    assert all(title in shown for title in ("sn, contiguous, float32", "bin, channels-last, float32", "geometric mean"))


def test_evaluation_in_another_type(tmp_path, capsys):
    file = tmp_path / "norms.json"
    flags = "--modes eval --dtypes bfloat16 --layouts contiguous --norms sn --forms ours --shapes 4x3x3 --quick"
    norms.main([*flags.split(), "--device", "cpu", "--threads", "1", "--json", str(file)])
    rows = json.loads(file.read_text())["rows"]
    assert {(row["mode"], row["dtype"], row["shape"], row["kept"]) for row in rows} == {
        ("eval", "bfloat16", "4x3x3", None)
    }


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--norms xn", "invalid choice"),
        ("--shapes 64x56", "CHANNELSxHEIGHTxWIDTH"),
        ("--shapes 64x1x1", "two positions"),
        ("--batch-size 0", "above 0"),
        ("--min-ms nan", "above 0"),
        ("--json no/such/folder/file.json", "folder"),
        ("--threads -1", "above 0"),
        ("--sets imagenet", "invalid choice"),
        ("--before no/such/folder", "no checkout of this repository"),
    ],
)
def test_wrong_flags_are_answered_in_a_sentence(flags, sentence, capsys):
    with pytest.raises(SystemExit) as stopped:
        norms.main(flags.split())
    assert stopped.value.code == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_answered_in_a_sentence(capsys):
    with pytest.raises(SystemExit):
        norms.main(["--device", "cuda"])
    assert "no CUDA device" in capsys.readouterr().err


def test_the_floor_moves_the_bytes_it_says(monkeypatch):
    """Bytes counted from the arguments of its operations: inputs are read, outputs written."""
    moved, size = [], 4096
    for name in READS:
        monkeypatch.setitem(READS, name, lambda *buffers: moved.append(sum(b.nbytes for b in buffers)))
    add, copy_ = torch.add, torch.Tensor.copy_
    monkeypatch.setattr(torch, "add", lambda a, b, out: (moved.append(3 * size), add(a, b, out=out)))
    monkeypatch.setattr(torch.Tensor, "copy_", lambda a, b: (moved.append(2 * size), copy_(a, b)))
    for mode, passes in PASSES.items():
        work = floor(size, mode, "cpu").call
        moved.clear()
        work()
        assert sum(moved) == passes * size
