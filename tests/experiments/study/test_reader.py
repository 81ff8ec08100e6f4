"""A run's tables, from a folder filled by hand and from a stand-in for W&B's Api."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import wandb

from experiments.study import run_files, tables_on_disk
from experiments.study.endings import UsageError
from experiments.study.reader import read_folder, read_runs, read_wandb
from experiments.study.run_folder import RunFolder
from experiments.study.tables.domain_drop import drop_table
from experiments.study.tables_on_disk import read_table
from tests.experiments.three_norms import MIOU, results

ARMS = {"bn-1x2": {"norm": "bn", "setting": "1x2"}, "sn-1x2": {"norm": "sn", "setting": "1x2"}}
RECIPE = "norm: sn\nrecipe:\n  lr: 0.1\n  crop: !!python/tuple\n  - 96\n  - 192\n"


@dataclass
class Flags:
    norm: tuple[str, ...] = ("bn", "sn")
    lr: float | None = None
    seed: int = 3
    seeds: int = 2
    resume: bool = False


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return RunFolder(tmp_path / "run", Flags(), "Which?", {}, ARMS)


def fill(folder: RunFolder, arm: str, seed: int, rows: list[dict], divergence: tuple = ()) -> None:
    part = folder.part(arm, seed)
    part.mkdir()
    (part / "hparams.yaml").write_text(RECIPE)
    logged = {"step": [4, 9], "epoch": [np.nan, 0], "lr": [0.1, np.nan], "train/loss": [np.nan, 1.5]}
    pd.DataFrame(logged).to_csv(part / "metrics.csv", index=False)
    if arm.startswith("sn"):
        gates = {"epoch": 1, "step": 9, "layer": "a", "depth": 0, "statistic": "mean", "label": ["in", "bn"]}
        pd.DataFrame(gates | {"value": [0.4, 0.6]}).to_parquet(part / "gates.parquet")
    folder.finish(arm, seed, {"results": rows, "divergence": list(divergence)})


def filled(folder: RunFolder) -> RunFolder:
    for arm in ARMS:
        for seed in (3, 4):
            row = {"domain": "shapes", "part": "clean", "condition": "clean", "measure": "top1", "value": 0.5}
            fill(folder, arm, seed, [row])
    folder.gather(1, lambda results: None)
    return folder


def test_tables_of_a_folder(folder):
    run = read_folder(filled(folder).path)
    assert run.arms == ARMS and run.name == "run"
    for table in (run.results, run.metrics, run.gates, run.configs):
        assert list(table)[:4] == ["arm", "norm", "setting", "seed"]
    assert len(run.results) == 4 and (run.results.value == 0.5).all()
    first = run.metrics.head(2)
    assert list(first["metric"]) == ["lr", "train/loss"] and list(first["value"]) == [0.1, 1.5]
    assert list(run.metrics.columns[4:]) == ["step", "epoch", "metric", "value"] and len(run.metrics) == 8
    assert set(run.gates.arm) == {"sn-1x2"} and len(run.gates) == 4
    assert run.divergence.empty and {"domain", "layer", "mean"} <= set(run.divergence)
    assert len(run.configs) == 4 and set(run.configs["crop"]) == {"96 192"} and set(run.configs["lr"]) == {0.1}
    assert list(run.configs["norm"]) == ["bn", "bn", "sn", "sn"]  # each training's own, not the flag


@pytest.mark.parametrize("wide", [False, True])
def test_results_come_back_as_they_were_written(wide, tmp_path):
    """Also those of older runs, which have a column a measure."""
    long = results()
    labels = ["arm", "norm", "seed", "domain", "role"]
    written = long.pivot(index=labels, columns="measure", values="value").reset_index() if wide else long
    written = written.assign(**{"iou/sky": np.nan}) if wide else written
    folder = RunFolder(tmp_path / "run", Flags(seed=0), "Which?", {}, {norm: {"norm": norm} for norm in MIOU})
    for (arm, seed), rows in written.groupby(["arm", "seed"], sort=False):
        measured = rows.drop(columns=["arm", "norm", "seed"]).to_dict("records")
        layer = {"domain": "camvid:test", "layer": "a", "depth": 0, "channels": 2, "mean": 1.0, "total": 2.0}
        fill(folder, arm, seed, measured, (layer,))
    folder.gather(1, lambda results: None)
    run = read_folder(tmp_path / "run")
    key = [*labels, "measure"]
    read, whole = (frame.sort_values(key).reset_index(drop=True)[list(long)] for frame in (run.results, long))
    pd.testing.assert_frame_equal(read, whole)  # what was not measured is no row
    cells = drop_table(long).cells
    pd.testing.assert_frame_equal(drop_table(run.results).cells.loc[cells.index, cells.columns], cells)
    assert len(run.divergence) == 6


def test_arms_wear_the_colour_of_their_norm(folder):
    styles = read_folder(filled(folder).path).styles
    assert styles["bn-1x2"].colour != styles["sn-1x2"].colour


def test_what_is_no_finished_run_is_refused(folder, tmp_path):
    with pytest.raises(UsageError, match="no such folder"):
        read_folder(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"no config\.yaml"):
        read_folder(tmp_path / "empty")
    fill(folder, "bn-1x2", 3, [])
    with pytest.raises(UsageError, match=r"finished, without sn-1x2-seed3, bn-1x2-seed4, sn-1x2-seed4: .* --resume"):
        read_folder(folder.path)


TABLE = "media/table/results_9_0123.table.json"


class FakeFile:
    def __init__(self, name: str, text: str):
        self.name, self.text = name, text

    def download(self, root: str):
        file = Path(root, self.name)
        file.parent.mkdir(parents=True)
        file.write_text(self.text)
        return file.open()


class FakeRun:
    """What `wandb.Api().run` returns: its `state`, `config`, `scan_history` and `file`."""

    def __init__(self, state: str, config: dict, history: list[dict], results: pd.DataFrame | None = None):
        self.state, self.config, self.history, self.results = state, config, history, results

    def scan_history(self):
        return iter({"_step": i, "_runtime": 1.0, "_timestamp": 2.0, **row} for i, row in enumerate(self.history))

    def file(self, name: str) -> FakeFile:
        assert name == TABLE
        return FakeFile(name, self.results.to_json(orient="split", index=False))


class FakeApi:
    def __init__(self, **runs: FakeRun):
        self.runs = runs

    def run(self, path: str) -> FakeRun:
        entity, project, name = path.split("/")
        if name not in self.runs:
            raise wandb.errors.CommError(f"Could not find run <Run {entity}/{project}/{name} (not found)>")
        return self.runs[name]


STEP = "trainer/global_step"


def history(before: dict, half_way: dict, after: dict) -> list[dict]:
    """What a training of one epoch of ten steps logs, given its gates at three times."""
    return [
        {"epoch": 0, STEP: 0, "gates/map": {"_type": "image-file"}} | before,
        {STEP: 4, "lr-SGD/weights": 0.1},
        {STEP: 5} | half_way,
        {STEP: 4, "epoch": 0, "train/loss": 1.5},
        {STEP: 10} | after,
        {STEP: 9, "epoch": 0, "shapes/photo/top1": 0.4},
        {STEP: 10, "epoch": 1, "gates/map": {"_type": "image-file"}},
        {STEP: 10, "final/top1": 0.4, "results": {"_type": "table-file", "path": TABLE}},
    ]


def switch(share: float) -> dict:
    layers = ("002_layer1_0_bn2", "010_bn")
    single = {f"layers/gates/mean/{label}/{layer}": share for label in ("in", "bn") for layer in layers}
    return single | {f"gates/mean/{label}": share for label in ("in", "bn")}


def batch_instance(counts: list[int]) -> dict:
    histogram = {"_type": "histogram", "values": counts}
    return {
        "layers/gates/rho/histogram/000_bn1": histogram | {"bins": [0, 0.5, 1]},
        "layers/gates/rho/histogram/001_bn2": histogram | {"packedBins": {"min": 0, "size": 0.5, "count": 2}},
        "layers/gates/rho/mean/000_bn1": 0.5,
        "gates/rho/histogram": histogram | {"bins": [0, 0.5, 1]},
    }


@pytest.fixture
def api() -> FakeApi:
    common = {"seed": 1, "lr": 0.1, "crop": [96, 192]}
    tidy = {"domain": "shapes/photo", "part": "clean", "condition": "clean", "measure": ["top1", "top5"]}
    wide = {"domain": "streets-city", "role": "target", "miou": [0.5], "iou/sky": [None]}
    return FakeApi(
        switch=FakeRun(
            "finished", {"norm": "sn", **common}, history(*map(switch, (0.5, 0.4, 0.25))), pd.DataFrame(wide)
        ),
        gated=FakeRun(
            "finished",
            {"arm": "r8-bin", "norm": "bin", "backbone": "r8", **common},
            history(batch_instance([0, 3]), {}, batch_instance([1, 2])),
            pd.DataFrame(tidy | {"value": [0.4, 0.9]}),
        ),
        crashed=FakeRun("crashed", {"norm": "bn", **common}, []),
    )


@pytest.mark.parametrize(("name", "measured"), [("switch", {"miou": 0.5}), ("gated", {"top1": 0.4, "top5": 0.9})])
def test_results_from_wandb(name, measured, api):
    results = read_wandb(f"me/normshift/{name}", api=api).results
    assert results.set_index("measure")["value"].to_dict() == measured
    assert list(results)[:4] == ["arm", "norm", "seed", "domain"]


def test_the_same_tables_from_wandb(api):
    run = read_wandb("me/normshift/gated", "me/normshift/switch", api=api)
    assert run.arms == {"r8-bin": {"norm": "bin"}, "sn": {"norm": "sn"}}
    for table in (run.metrics, run.gates, run.divergence, run.configs):
        assert list(table)[:3] == ["arm", "norm", "seed"]
    bare = {"lr-SGD/weights", "train/loss", "shapes/photo/top1", "final/top1"}
    assert set(run.metrics[run.metrics.arm == "r8-bin"].metric) == bare
    assert set(run.metrics[run.metrics.arm == "sn"].metric) == bare | {"gates/mean/in", "gates/mean/bn"}
    assert list(run.configs["crop"]) == ["96 192"] * 2 and run.configs["backbone"][0] == "r8"


def test_gates_from_wandb_are_those_at_the_ends_of_epochs(api):
    gates = read_wandb("me/normshift/switch", "me/normshift/gated", api=api).gates
    assert set(zip(gates.epoch, gates.step, strict=True)) == {(0, 0), (1, 10)}
    shares = gates[(gates.norm == "sn") & (gates.epoch == 1)]
    assert set(zip(shares.depth, shares.layer, strict=True)) == {(2, "layer1_0_bn2"), (10, "bn")}
    assert set(shares.label) == {"in", "bn"} and (shares.value == 0.25).all() and set(shares.statistic) == {"mean"}
    rho = gates[(gates.norm == "bin") & (gates.epoch == 1)]
    assert set(rho.layer) == {"bn1", "bn2"} and set(rho.statistic) == {"rho"}
    for _, values in rho.groupby("layer"):
        assert list(values.value) == [0.25, 0.75, 0.75] and list(values.label) == ["0", "1", "2"]


def test_what_wandb_does_not_have_is_refused(api):
    with pytest.raises(UsageError, match="me/normshift/other cannot be read from W&B: Could not find run"):
        read_wandb("me/normshift/other", api=api)
    with pytest.raises(UsageError, match="W&B says that it is crashed"):
        read_wandb("me/normshift/crashed", api=api)
    with pytest.raises(UsageError, match="ENTITY/PROJECT/RUN"):
        read_wandb(api=api)


def whole_run(path: Path, arms: dict = ARMS, seed: int = 3, value: float = 0.5) -> RunFolder:
    folder = RunFolder(path, Flags(seed=seed), "Which?", {"note": f"of {path.name}"}, arms, headline="top1")
    for arm in arms:
        for each in folder.seeds:
            row = {"domain": "shapes", "part": "clean", "condition": "clean", "measure": "top1", "value": value}
            fill(folder, arm, each, [row, row | {"measure": "chance", "value": 0.1}])
    folder.gather(1, lambda results: None)
    return folder


def test_many_runs_are_their_tables_below_one_another(tmp_path):
    """Also where runs have other columns, and one column holds numbers in one run and text in another."""
    blurred = {"sn-blur": {"norm": "sn", "antialias": 4}, "bn-plain": {"norm": "bn", "antialias": None}}
    named = {"sn-x": {"norm": "sn", "antialias": "rect"}}
    for name, arms in (("a", ARMS), ("b", blurred), ("c", named)):
        whole_run(tmp_path / name, arms, value=0.1 + len(name))
    (tmp_path / "no-run").mkdir()
    (tmp_path / "file").touch()
    runs = read_runs(tmp_path / "*")
    assert list(runs) == ["a", "b", "c"] and len(runs) == 3 and runs["b"].arms == blurred
    labels = ["run", "arm", "norm", "setting", "antialias", "seed"]
    for kind in ("results", "metrics", "gates", "configs"):
        together = getattr(runs, kind)
        assert list(together)[: len(labels)] == labels
        for name in runs:
            alone = getattr(read_folder(tmp_path / name), kind)
            part = together[together["run"] == name].reset_index(drop=True)[list(alone)]
            same = [column for column in alone if column != "antialias"]  # text beside c's
            pd.testing.assert_frame_equal(part[same], alone[same], check_dtype=False)
        assert len(together) == sum(len(getattr(run, kind)) for run in runs.values())
    assert set(runs.results["antialias"].dropna()) == {"4", "rect"}
    assert runs.divergence.empty and runs["a"].headline.name == "top1"


def test_a_table_is_read_when_it_is_asked_for(tmp_path, monkeypatch):
    path = whole_run(tmp_path / "run").path
    runs, run = read_runs(path), read_folder(path)
    opened = []
    monkeypatch.setattr(run_files, "read_table", lambda file: opened.append(file.name) or read_table(file))
    assert run.arms == ARMS and len(runs) == 1 and opened == []
    assert len(run.results) == 8 and len(run.results) == 8 and opened == ["results.csv"]
    assert len(runs.metrics) == 8 and opened == ["results.csv", "metrics.csv"]


def test_settings_are_those_of_the_files(tmp_path, monkeypatch):
    """They are kept in JSON as well, which counts only while it says what the files say."""
    path = whole_run(tmp_path / "run").path
    kept = read_folder(path).configs
    with monkeypatch.context() as patched:
        patched.setattr(tables_on_disk, "parse_yaml", lambda text: pytest.fail("the YAML was parsed"))
        pd.testing.assert_frame_equal(read_folder(path).configs, kept)
    (path / "settings.json").unlink()
    pd.testing.assert_frame_equal(read_folder(path).configs, kept)
    (path / "settings.json").write_text("[1, 2]")
    pd.testing.assert_frame_equal(read_folder(path).configs, kept)
    whole_run(tmp_path / "other")
    (tmp_path / "other" / "sn-1x2-seed4" / "hparams.yaml").write_text(RECIPE.replace("0.1", "0.7"))
    (tmp_path / "other" / "config.yaml").write_text("seed: 3\nseeds: 2\nnote: changed by hand")
    configs = read_folder(tmp_path / "other").configs
    assert list(configs["lr"]) == [0.1, 0.1, 0.1, 0.7] and set(configs["note"]) == {"changed by hand"}


def test_what_is_not_finished_or_damaged_is_left_out_of_a_pattern_and_refused_by_name(tmp_path, folder):
    whole_run(tmp_path / "good")
    whole_run(tmp_path / "bad")
    (tmp_path / "bad" / "arms.json").write_text("[")
    fill(folder, "bn-1x2", 3, [])  # half a run
    with pytest.warns(UserWarning, match=r"2 runs are left out: .*arms\.json is damaged: .* \.\.\."):
        assert list(read_runs(str(tmp_path / "*"))) == ["good"]
    with pytest.raises(UsageError, match="is not finished"):
        read_runs(tmp_path / "good", folder.path)
    with pytest.raises(UsageError, match=r"there is no finished run in .*nothing"):
        read_runs(tmp_path / "nothing*")


def test_runs_of_one_name_are_told_apart(tmp_path):
    for parent in ("first", "second"):
        whole_run(tmp_path / parent / "run")
    assert list(read_runs(tmp_path / "*" / "run")) == ["first/run", "second/run"]
    assert list(read_runs(tmp_path / "first" / "run", f"{tmp_path}/first/*")) == ["run"]


@pytest.mark.parametrize("spoil", ["", "arm,seed\nbn", "arm,seed,measure,value\nbn,3,top1,0.5,7\n", "\x00" * 50])
def test_damaged_results_are_refused_when_they_are_asked_for(spoil, tmp_path):
    path = whole_run(tmp_path / "run").path
    (path / "results.csv").write_text(spoil)
    run = read_folder(path)
    assert len(run.gates) == 4
    with pytest.raises(UsageError, match=r"results\.csv (is damaged|has no column norm, setting): its command|, which"):
        _ = run.results


def test_damaged_metrics_are_an_empty_table_and_a_warning(tmp_path):
    path = whole_run(tmp_path / "run").path
    (path / "metrics.csv").write_bytes(bytes(range(256)))
    with pytest.warns(UserWarning, match=r"metrics\.csv is damaged: its table is empty"):
        metrics = read_folder(path).metrics
    assert metrics.empty and list(metrics) == ["arm", "norm", "setting", "seed", "step", "epoch", "metric", "value"]


def test_numbers_come_back_to_the_last_bit(tmp_path):
    value = 0.1 + 0.2  # 0.30000000000000004
    run = read_folder(whole_run(tmp_path / "run", value=value).path)
    assert (run.results.query("measure == 'top1'").value == value).all()


def test_many_folders_are_read_quickly(tmp_path):
    whole_run(tmp_path / "run0")
    for number in range(1, 200):
        shutil.copytree(tmp_path / "run0", tmp_path / f"run{number}")
    begin = time.process_time()
    assert len(read_runs(tmp_path / "run*").results) == 200 * 8
    assert time.process_time() - begin < 4  # seconds of one core; a fifth of one it takes
