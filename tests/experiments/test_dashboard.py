"""The dashboard names what runs really log, and offline runs hold on disk all that they logged."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from experiments import cls_imagenet, seg_gta2city
from experiments.dashboard import Flags, run
from experiments.reporting import page as report
from experiments.reporting.dashboard_pages import SECTIONS
from experiments.study.endings import one_sentence
from experiments.study.flags import parse
from experiments.study.wandb_runs.offline_history import read_offline
from lightning_modules import layer_log
from lightning_modules.gates import tracker

LAYERS = 3
CLASSIFIERS = (
    "--recipe smoke --backbone cifar_resnet8 --width 0.25 --images 24 --max-steps 2 --workers 0 --gpus 0 --data shapes"
)
STREETS = (
    "--source streets-game --target streets-night --recipe smoke --batch-size 2 --max-steps 2 --scenes 2 --workers 0 "
    "--gpus 0 --norm sn"
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """Folders of tiny offline runs of two studies, one a norm."""
    out = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:  # drawing takes longer than these trainings
        patch.setattr(tracker, "draw_gates", lambda frame: Figure((1, 1)))
        patch.setattr(layer_log, "draw_layer_map", lambda *_: Figure((1, 1)))
        patch.setattr(report, "write_report", lambda folder: folder)
        train_all(out)
    return {f"{file.parent.name}/{file.name}": file for file in out.glob("*/*-seed0")}


def train_all(out: Path) -> None:
    for name, study, line in (
        (
            "evaluated",
            cls_imagenet,
            f"{CLASSIFIERS} --norm bin --evaluate shifts consistency corruptions perturbations",
        ),
        ("plain", cls_imagenet, f"{CLASSIFIERS} --norm ibn-a sn"),
        ("streets", seg_gta2city, STREETS),
    ):
        study.run(parse(study.Flags, "", f"{line} --wandb offline --out {out / name}".split()))


@pytest.fixture(scope="module")
def specification(tmp_path_factory) -> dict:
    file = tmp_path_factory.mktemp("dashboard") / "dashboard.json"
    run(Flags(project="team/normshift", layers=LAYERS, dry_run=str(file)))
    return json.loads(file.read_text())


def test_every_key_of_the_dashboard_is_logged(runs, specification):
    logged = {key for folder in runs.values() for call in logged_rows(folder) for key in call}
    settings = {key for folder in runs.values() for key in read_offline(folder, wait=60).config}
    keys, patterns, configured = named(specification)
    assert len(keys) > 25 and len(patterns) > 10 and configured == {"norm", "images_together"}
    assert keys - logged == set()
    assert {pattern for pattern in patterns if not any(re.fullmatch(pattern, key) for key in logged)} == set()
    assert configured <= settings


def test_a_layers_panel_shows_its_three_curves(runs, specification):
    _, patterns, _ = named(specification)
    shares = {"in", "ln", "bn"}
    for name, statistic, measures in (
        ("plain/sn-seed0", "mean", shares),
        ("plain/sn-seed0", "var", shares),
        ("evaluated/bin-seed0", "rho", {"mean", "near_0", "near_1"}),
    ):
        logged = {key for call in logged_rows(runs[name]) for key in call}
        for depth in range(LAYERS):
            start, end = f"layers/gates/{statistic}/(", f")/{depth:03d}_.*"
            (pattern,) = (p for p in patterns if p.startswith(start) and p.endswith(end))
            assert {key.split("/")[3] for key in logged if re.fullmatch(pattern, key)} == measures


def test_sections_and_place(specification):
    workspace, page = specification["workspace"], specification["report"]
    assert (workspace["entity"], workspace["project"]) == ("team", "normshift")
    sections = workspace["spec"]["section"]["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections] == [part.name for part in SECTIONS]
    assert all(section["panels"] for section in sections)
    headings = [block["children"][0]["text"] for block in page["spec"]["blocks"] if block["type"] == "heading"]
    assert headings == [part.name for part in SECTIONS if part.is_open]


def test_an_offline_run_holds_the_gate_curves(runs):
    """What `wandb sync` will send, against what gates.parquet says."""
    for name, folder in runs.items():
        if "sn-" not in name:
            continue
        table = pd.read_parquet(folder / "gates.parquet")
        calls = logged_rows(folder)
        assert set(table["statistic"]) == {"mean", "var"}
        for (step, depth, statistic, label), rows in table.groupby(["step", "depth", "statistic", "label"]):
            (value,) = rows["value"]
            start = f"layers/gates/{statistic}/{label}/{depth:03d}_"
            curve = {c["trainer/global_step"]: v for c in calls for key, v in c.items() if key.startswith(start)}
            assert curve[step] == pytest.approx(value, abs=1e-7)


def test_an_offline_run_holds_histograms_with_every_channel(runs):
    folder = runs["evaluated/bin-seed0"]
    start = pd.read_parquet(folder / "gates.parquet").query("epoch == 0").groupby("depth")["value"].size()
    calls = [call for call in logged_rows(folder) if "gates/rho/histogram" in call]
    first = {key: value for key, value in calls[0].items() if "/histogram" in key}
    assert all(value["_type"] == "histogram" for value in first.values())
    assert sum(first["gates/rho/histogram"]["values"]) == start.sum()
    each = [sum(first[key]["values"]) for key in sorted(first) if key.startswith("layers/")]
    assert each == start.tolist()  # these networks are narrow: the table keeps all channels
    assert first["gates/rho/histogram"]["values"][-1] == start.sum()  # rho starts at 1


def test_pictures_and_tables_are_on_disk(runs):
    for folder in runs.values():
        files = read_offline(folder, wait=60).media
        assert files and all(file.stat().st_size for file in files)
        (table,) = (file for file in files if file.name.endswith(".table.json"))
        results = json.loads((folder / "result.json").read_text())["results"]
        assert len(json.loads(table.read_text())["data"]) == len(results)
        assert [file for file in files if file.name.startswith("examples")]


def test_what_a_run_comes_to(runs):
    """The single numbers, against the tables of the study."""
    streets = merged(runs["streets/sn-seed0"])
    results = pd.read_csv(runs["streets/sn-seed0"].parent / "results.csv").query("measure == 'miou'")
    results = results.set_index("role")["value"]
    assert streets["final/source"] == pytest.approx(results["source"])
    assert streets["final/drop"] == pytest.approx(results["source"] - results["target"])
    divergence = pd.read_csv(runs["streets/sn-seed0"].parent / "divergence.csv")["mean"].mean()
    assert streets["final/divergence"] == pytest.approx(divergence)
    evaluated = merged(runs["evaluated/bin-seed0"])
    means = pd.read_csv(runs["evaluated/bin-seed0"].parent / "results.csv").groupby(["part", "measure"])["value"].mean()
    assert evaluated["final/top1"] == pytest.approx(means["clean", "top1"])
    assert evaluated["final/corruptions/error"] == pytest.approx(means["corruptions", "error"])
    assert evaluated["final/shifts/top1"] == pytest.approx(means["shifts", "top1"])


def test_automatic_panels_are_few(runs):
    """One for every key that is not hidden; a network's depth does not count."""
    for name, folder in runs.items():
        keys = {key for call in logged_rows(folder) for key in call}
        shown = {key for key in keys - read_offline(folder, wait=60).hidden if not key.startswith("_")}
        assert len(shown) <= 32, (name, sorted(shown))
        assert not any(key.startswith("layers/") or "/iou/" in key for key in shown)


def test_without_login_one_sentence_says_so(capsys, monkeypatch, tmp_path):
    import wandb

    monkeypatch.setattr(wandb, "login", lambda **_: False)
    assert "not logged in to W&B: run `wandb login` first" in refused(capsys, Flags(project="normshift"))
    monkeypatch.setattr(wandb, "login", lambda **_: True)
    monkeypatch.setattr("experiments.study.wandb_runs.start._answers", lambda url: False)
    assert "does not answer: pass --dry-run FILE" in refused(capsys, Flags(project="normshift"))
    monkeypatch.setattr("experiments.study.wandb_runs.start._answers", lambda url: True)

    def unreachable(**_):
        raise wandb.errors.CommError("the network\nis down")

    monkeypatch.setattr(wandb, "Api", unreachable)
    assert "refused the dashboard: the network is down" in refused(capsys, Flags(project="normshift"))


@pytest.mark.parametrize("project", ["", "a/b/c", "/a", "a/"])
def test_projects_that_are_none(project, capsys):
    with pytest.raises(SystemExit), one_sentence():
        Flags(project=project)
    assert "NAME or ENTITY/NAME" in capsys.readouterr().err


def refused(capsys, flags: Flags) -> str:
    """The one sentence that it ends in."""
    with pytest.raises(SystemExit) as stopped, one_sentence():
        run(flags)
    assert stopped.value.code == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and "\n" not in error
    return error


def logged_rows(folder: Path) -> list[dict]:
    return list(read_offline(folder, wait=60).rows.values())


def merged(folder: Path) -> dict:
    return {key: value for call in logged_rows(folder) for key, value in call.items()}


def named(specification: dict) -> tuple[set[str], set[str], set[str]]:
    """The logged keys, the patterns of them, and the settings that all panels of a specification name."""
    keys: set[str] = set()
    patterns: set[str] = set()
    configured: set[str] = set()

    def take(name: str) -> None:
        section, _, rest = name.partition(":")
        if section == "config":
            configured.add(rest.removesuffix(".value"))
        else:
            keys.add(rest if section == "summary" else name)

    def walk(part) -> None:
        if isinstance(part, list):
            for inner in part:
                walk(inner)
        if not isinstance(part, dict):
            return
        config = part.get("config", {}) if "viewType" in part else {}
        for name in (*config.get("metrics", ()), *config.get("mediaKeys", ())):
            take(name)
        for name in (config.get("xAxis"), config.get("yAxis"), *(c["accessor"] for c in config.get("columns", ()))):
            if name:
                take(name)
        if "metricRegex" in config:
            patterns.add(config["metricRegex"])
        if "groupBy" in config:
            configured.add(config["groupBy"].removesuffix(".value"))
        if part.get("name") == "pick" and part["inputs"]["key"]["val"] not in ("run", "project"):
            keys.add(part["inputs"]["key"]["val"])
        for inner in part.values():
            walk(inner)

    walk(specification)
    return keys, patterns, configured
