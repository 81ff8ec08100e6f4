"""Two runs are equal only to the last bit, and the first difference is named."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from run_differences import differences


@pytest.fixture
def runs(tmp_path):
    """Two equal folders of runs, which name themselves."""
    for name in ("one", "two"):
        part = tmp_path / name / "bn-seed0"
        (part / "checkpoints").mkdir(parents=True)
        kept = {"net.weight": torch.tensor([1.0, float("nan"), 0.0]), "net.count": torch.tensor(3)}
        torch.save({"state_dict": kept, "study": {"steps": 3, "loss": float("nan")}}, part / "checkpoints/model.ckpt")
        pd.DataFrame({"step": [0, 1], "train/loss": [0.5, 0.25]}).to_csv(part / "metrics.csv", index=False)
        pd.DataFrame({"step": [0, 1], "value": [0.1, 0.2]}).to_parquet(part / "gates.parquet", index=False)
        (tmp_path / name / "config.yaml").write_text(f"norm: [bn]\nout: {tmp_path / name}\nminutes: {len(name)}.5\n")
        settings = {"config.yaml": {"crc32": hash(name), "values": {"out": name, "norm": ["bn"]}}}
        (tmp_path / name / "settings.json").write_text(json.dumps(settings))
        (tmp_path / name / "report.html").write_text(f"<td>{len(name)} seconds</td> {tmp_path / name}/a.png")
        (tmp_path / name / ".lock").write_text(name)
    return tmp_path / "one", tmp_path / "two"


def checkpoint_with(file, change) -> None:
    kept = torch.load(file, weights_only=False)
    change(kept)
    torch.save(kept, file)


def test_equal_runs_differ_in_nothing_but_their_names_and_times(runs):
    assert [*differences(*runs)] == []


def set_weight(value: float):
    def change(kept: dict) -> None:
        kept["state_dict"]["net.weight"][2] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (set_weight(-0.0), "model.ckpt: ['state_dict']['net.weight'] differs in 1 of 3 values"),
        (set_weight(1e-45), "model.ckpt: ['state_dict']['net.weight'] differs in 1 of 3 values"),
        (lambda kept: kept["state_dict"]["net.count"].add_(1), "['net.count'] differs in 1 of 1 values, by 1 at most"),
        (lambda kept: kept["study"].update(steps=4), "model.ckpt: ['study']['steps'] is 3 and 4"),
        (lambda kept: kept["study"].pop("loss"), "['study'] has the keys"),
        (lambda kept: kept["state_dict"].update({"net.count": torch.tensor(3.0)}), "torch.int64 and () torch.float32"),
    ],
)
def test_any_bit_of_a_checkpoint_counts(change, said, runs):
    checkpoint_with(runs[1] / "bn-seed0" / "checkpoints" / "model.ckpt", change)
    found = [*differences(*runs)]
    assert len(found) == 1 and said in found[0]


def test_rows_are_named(runs):
    part = runs[1] / "bn-seed0"
    (part / "metrics.csv").write_text("step,train/loss\n0,0.5\n1,0.250001\n")
    frame = pd.read_parquet(part / "gates.parquet")
    frame.loc[1, "value"] = np.nextafter(0.2, 1)
    frame.to_parquet(part / "gates.parquet", index=False)
    gates, metrics = differences(*runs)
    assert gates.startswith("bn-seed0/gates.parquet: line 3: ")
    assert metrics == "bn-seed0/metrics.csv: line 3: '1,0.25' and '1,0.250001'"


def test_files_that_are_missing_or_left_over_are_named(runs):
    (runs[1] / "bn-seed0" / "metrics.csv").unlink()
    shutil.copy(runs[1] / ".lock", runs[1] / "bn-seed0" / "table.csv.partial-12")
    assert [*differences(*runs)] == ["bn-seed0/metrics.csv is missing", "bn-seed0/table.csv.partial-12 is left over"]


@pytest.mark.parametrize("file", ["config.yaml", "settings.json", "report.html"])
def test_what_is_not_a_name_or_a_time_counts(file, runs):
    path = runs[1] / file
    path.write_text(path.read_text().replace("bn", "sn").replace("a.png", "b.png"))
    assert [one.partition(":")[0] for one in differences(*runs)] == [file]
