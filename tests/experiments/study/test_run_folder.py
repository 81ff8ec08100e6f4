"""A run's folder, with a study of two networks made up by hand."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest
import yaml

from experiments.reporting.run import read_run
from experiments.study.endings import UsageError
from experiments.study.run_folder import RunFolder
from experiments.study.run_parts import read_measures
from experiments.study.tables.table import Table, table_of

ARMS = {
    "r18-bn": {"norm": "bn", "backbone": "r18", "antialias": None},
    "r18-sn": {"norm": "sn", "backbone": "r18", "antialias": 4},
}


@dataclass
class Flags:
    norm: list[str] = field(default_factory=lambda: ["bn", "sn"])
    backbone: list[str] = field(default_factory=lambda: ["r18"])
    crop: tuple[int, int] = (32, 32)
    plugin: list[str] = field(default_factory=list)
    seed: int = 3
    seeds: int = 2
    resume: bool = False


def accuracy(results: pd.DataFrame) -> Table | None:
    clean = results[results["condition"] == "clean"]
    return table_of(clean.set_index(["arm", "seed"])[["top1"]] * 100, "Per cent.") if len(clean) else None


def opened(path: Path, arms: dict = ARMS, fresh: bool = False, headline: str | None = None, **flags) -> RunFolder:
    about, free = {"data": "shapes"}, ("norm", "backbone")
    return RunFolder(path, Flags(**flags), "Which?", about, arms, arm_flags=free, fresh=fresh, headline=headline)


def fill(folder: RunFolder, arm: str, seed: int, top1: float) -> None:
    part = folder.part(arm, seed)
    part.mkdir()
    pd.DataFrame({"step": [0, 1], "train/loss": [2.0, 1.0], "epoch": 0}).to_csv(part / "metrics.csv", index=False)
    gates = {"norm": "wrong", "step": [1], "layer": ["a"], "value": [0.5]}
    pd.DataFrame(gates).to_parquet(part / "gates.parquet")
    rows = [{"condition": "clean", "top1": top1}, {"condition": "fog", "top1": top1 / 2, "backbone": "another"}]
    folder.finish(arm, seed, {"results": rows, "divergence": [{"domain": "fog", "mean": 1.0}]})


def test_gathered_tables_begin_with_the_arm_its_columns_and_the_seed(tmp_path):
    folder = opened(tmp_path / "run")
    for (arm, seed), top1 in zip([(a, s) for a in ARMS for s in (3, 4)], (0.5, 0.7, 0.8, 0.8), strict=True):
        assert not folder.is_finished(arm, seed)
        fill(folder, arm, seed, top1)
        assert folder.is_finished(arm, seed)
    results = folder.gather(2, accuracy)
    labels = ["arm", "norm", "backbone", "antialias", "seed"]
    out = tmp_path / "run"
    read = [pd.read_csv(out / f"{name}.csv") for name in ("results", "metrics", "divergence")]
    for frame in (results, *read, pd.read_parquet(out / "gates.parquet")):
        assert list(frame)[: len(labels)] == labels and list(frame["arm"].unique()) == list(ARMS)
        assert set(zip(frame["arm"], frame["norm"], frame["backbone"], strict=True)) == {
            ("r18-bn", "bn", "r18"), ("r18-sn", "sn", "r18")
        }  # fmt: skip
        assert set(frame["seed"]) == {3, 4} and frame.columns.is_unique
    assert list(results)[len(labels) :] == ["condition", "top1"] and len(results) == 8
    table = (out / "table.md").read_text()
    assert "| r18-bn | 2 | 60.0 ± 14.1 |" in table and "| r18-sn | 2 | **80.0 ± 0.0** |" in table
    assert Table.from_json((out / "table.json").read_text()).markdown() + "\n" == table
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config["question"] == "Which?" and config["data"] == "shapes" and config["minutes"] == 2
    assert config["crop"] == [32, 32] and "resume" not in config


def test_what_is_not_there_yet_makes_no_table(tmp_path):
    folder = opened(tmp_path)
    assert folder.gather(0, accuracy).empty
    folder.finish("r18-bn", 3, {"results": [{"condition": "fog", "top1": 0.1}]})
    assert len(folder.gather(0, accuracy)) == 1  # and nothing clean in it
    assert not (tmp_path / "table.md").exists() and not (tmp_path / "table.json").exists()


def test_resume_may_add_arms_and_seeds_but_change_nothing(tmp_path):
    with pytest.raises(UsageError, match="there is no run in"):
        opened(tmp_path, resume=True)
    first = opened(tmp_path)
    fill(first, "r18-bn", 3, 0.5)
    first.gather(1, accuracy)
    with pytest.raises(UsageError, match="already holds a run: pass --resume"):
        opened(tmp_path)
    with pytest.raises(UsageError, match=r"started with other flags \(crop was \[32, 32\]\)"):
        opened(tmp_path, resume=True, crop=(64, 64))
    changed = ARMS | {"r18-bn": {"norm": "bn", "backbone": "r50", "antialias": None}}
    with pytest.raises(UsageError, match=r"other flags \(r18-bn was .*'backbone': 'r18'"):
        opened(tmp_path, changed, resume=True)
    more = ARMS | {"r50-bn": {"norm": "bn", "backbone": "r50"}}
    for _ in range(2):  # the second time with all arms known
        added = {"norm": ["bn"], "backbone": ["r18", "r50"], "plugin": ["/norms/mine.py"]}
        again = opened(tmp_path, more, resume=True, seeds=3, **added)
        assert again.is_finished("r18-bn", 3) and not again.is_finished("r50-bn", 5)
    fill(again, "r50-bn", 5, 0.9)
    results = again.gather(1, accuracy)
    assert list(results["arm"].unique()) == ["r18-bn", "r50-bn"]
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["minutes"] == 2  # of both calls


@pytest.mark.parametrize("missing", ["crop", "measures.json"])
def test_a_run_of_an_earlier_version_is_not_gone_on_with(missing, tmp_path):
    first = opened(tmp_path, headline="top1")
    fill(first, "r18-bn", 3, 0.5)
    if missing == "measures.json":
        (tmp_path / missing).unlink()
    else:  # a flag that there was not yet
        written = yaml.safe_load(first.config_file.read_text())
        del written[missing]
        first.config_file.write_text(yaml.safe_dump(written))
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(UsageError, match=r"is of an earlier version, .*: begin anew with another --out"):
        opened(tmp_path, resume=True, headline="top1")
    assert {file: file.read_bytes() for file in before} == before


@pytest.mark.parametrize("name", ["torchvision/resnet50", "..", ".hidden", "-bn", "", "a b", "a\n"])
def test_an_arm_that_is_no_file_name_is_refused_before_anything_is_written(name, tmp_path):
    with pytest.raises(UsageError, match="cannot name a folder of the run"):
        opened(tmp_path / "run", {name: {"norm": "bn"}})
    assert not (tmp_path / "run").exists()
    opened(tmp_path / "run", {"cifar_resnet20-sn-in-ln_b2,lr0.1": {"norm": "sn-in-ln"}})


def test_the_measures_on_disk_hold_the_headline_whether_the_task_lists_it_or_not(tmp_path):
    arms = {"bn": {"norm": "bn"}}
    RunFolder(tmp_path / "run", Flags(), "Which?", {}, arms, headline="miou", measures=["chance"])
    headline, measures = read_measures(tmp_path / "run")
    assert headline == "miou" and list(measures) == ["chance", "miou"]


def test_an_evaluation_is_finished_when_its_own_networks_are(tmp_path):
    named = {"trainings": [["r18-bn", 3], ["r18-sn", 4]]}
    folder = RunFolder(tmp_path / "run", Flags(), "How good?", named, ARMS)
    fill(folder, "r18-bn", 3, 0.5)
    assert list(read_run(tmp_path / "run").unfinished) == ["r18-sn-seed4"]
    fill(folder, "r18-sn", 4, 0.5)
    assert not read_run(tmp_path / "run").unfinished


def test_what_killed_processes_left_half_written_is_removed(tmp_path):
    run = tmp_path / "run"
    folder = opened(run)
    fill(folder, "r18-bn", 3, 0.5)
    (run / "examples").mkdir()
    nobody = 2**40  # no system numbers its processes so high
    left = [run / f"table.md.partial-{nobody}", run / "r18-bn-seed3" / f"gates.png.partial-{nobody}"]
    left.append(run / "examples" / f"a.png.partial-{nobody}")
    others = [run / f"report.html.partial-{os.getpid()}", run / "notes.partial-result", run / "r18-bn-seed3" / "mine"]
    for file in (*left, *others):
        file.write_text("half")
    opened(run, resume=True)
    assert not any(file.exists() for file in left) and all(file.exists() for file in others)
    assert (run / "r18-bn-seed3" / "result.json").exists()
