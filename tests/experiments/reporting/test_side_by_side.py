"""Several runs on one page."""

import json
import re
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from experiments.report import main
from experiments.reporting.page import write_side_by_side
from experiments.reporting.run import read_run
from experiments.reporting.side_by_side import config, joined, run_names
from experiments.study.tables.domain_drop import drop_table
from lightning_modules.gates.panels import norm_colour
from tests.experiments.test_report import alternatives, classifiers, sections
from tests.experiments.three_norms import MIOU, SOURCE, TARGETS, finished_run, results


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """The same run twice, but that the second has no bin, and other flags."""
    plain, augmented = finished_run(tmp_path / "plain"), tmp_path / "augmented"
    shutil.copytree(plain, augmented)
    for name in ("results.csv", "metrics.csv", "divergence.csv"):
        rows = pd.read_csv(augmented / name)
        rows[rows["arm"] != "bin"].to_csv(augmented / name, index=False)
    (augmented / "arms.json").write_text(json.dumps({norm: {"norm": norm} for norm in ("bn", "sn")}))
    (augmented / "table.json").write_text(drop_table(results({norm: MIOU[norm] for norm in ("bn", "sn")})).to_json())
    gates = pd.read_parquet(augmented / "gates.parquet")
    gates[gates["arm"] == "sn"].to_parquet(augmented / "gates.parquet")
    about = yaml.safe_load((augmented / "config.yaml").read_text())
    about |= {"target": [TARGETS[0]], "git": "def5678", "command": "python experiments/seg_gta2city.py --again"}
    (augmented / "config.yaml").write_text(yaml.safe_dump(about))
    (augmented / "examples" / "bin.json").unlink()
    return [plain, augmented]


def test_one_page_holds_both(runs, tmp_path):
    page = write_side_by_side(runs)
    assert page == tmp_path / "side-by-side.html" and page.stat().st_size < 3_000_000
    text, html = page.read_text(), sections(page)
    assert "<h1>plain beside augmented</h1>" in text and text.count("Which norm sees &lt;best&gt; at night?") == 1
    command = re.sub("<.*?>", "", re.search("<pre>.*?</pre>", text, re.DOTALL)[0])
    assert "--norm bn sn\npython experiments/seg_gta2city.py --again" in command
    rows = re.findall(r'<tr><th scope="row"><span.*?background: (.*?)"></span>(.*?)</th>', html["Result"])
    arms = [("plain", "bn"), ("plain", "sn"), ("plain", "bin"), ("augmented", "bn"), ("augmented", "sn")]
    assert rows == [(norm_colour(norm), f"{run} · {norm}") for run, norm in arms]  # as each looks alone
    curves = alternatives(html["Training"])
    assert curves[:2] == ["training loss, plain during training", "training loss, augmented during training"]
    assert re.findall(r"<h3>(.*?)</h3>", html["What the gates learned"]) == [
        "plain · sn", "plain · bin", "augmented · sn"
    ]  # fmt: skip
    assert re.findall(r'height="13">(.*?)<', text) == list(MIOU)  # one legend for both
    assert "plain: abc1234; augmented: def5678" in html["How it was run"]


def test_predictions_of_one_scene_share_a_row(runs):
    html = sections(write_side_by_side(runs))["Predictions"]
    shown = [alt.rpartition(", ")[0] for alt in alternatives(html) if alt.endswith(SOURCE)]
    assert shown == ["image", "truth", *(f"plain · {norm}" for norm in MIOU), "augmented · bn", "augmented · sn"]


def test_frames_are_those_of_the_runs(runs):
    alone = [read_run(run) for run in runs]
    whole = joined(alone)
    assert list(whole.arms) == [f"plain · {norm}" for norm in MIOU] + ["augmented · bn", "augmented · sn"]
    for name in ("results", "metrics", "gates", "divergence"):
        together = getattr(whole, name)
        for run, one in zip(("plain", "augmented"), alone, strict=True):
            part = together[together["run"] == run].reset_index(drop=True)
            numbers = getattr(one, name).select_dtypes("number")
            pd.testing.assert_frame_equal(part[numbers.columns], numbers, check_dtype=False)
    assert whole.domains == [SOURCE, *TARGETS] and whole.compares_domains
    for column in alone[0].table.columns:
        assert list(whole.table.cells[column, "mean"])[: len(MIOU)] == list(alone[0].table.cells[column, "mean"])


def test_names_tell_runs_apart(tmp_path):
    assert run_names([tmp_path / "a" / "run", tmp_path / "b" / "run"]) == ["a/run", "b/run"]
    assert run_names([tmp_path / "x", tmp_path / "b" / "run"]) == ["x", "run"]
    for paths in ([tmp_path / "a"], [tmp_path / "a", tmp_path / "b" / ".." / "a"]):
        with pytest.raises(ValueError, match="two runs or more, each of them once"):
            run_names(paths)


def test_flags_are_told_apart_only_where_they_differ():
    first = {"lr": 0.1, "norm": ["bn", "sn"], "source": "gta5", "versions": {"torch": "2.11", "timm": "1.0"}}
    second = {"lr": 0.2, "norm": ["bn", "sn"], "source": "camvid", "versions": {"torch": "2.12", "timm": "1.0"}, "x": 1}
    assert config({"a": first, "b": second}) == {
        "lr": "a: 0.1; b: 0.2", "norm": ["bn", "sn"], "source": ["gta5", "camvid"],
        "versions": {"torch": "a: 2.11; b: 2.12", "timm": "1.0"}, "x": "a: –; b: 1",
    }  # fmt: skip


def test_runs_of_different_studies(runs, tmp_path):
    page = write_side_by_side([runs[0], classifiers(tmp_path / "sizes")])
    html = sections(page)
    assert "plain · bn" in html["Result"] and "sizes · " in html["Result"] and "–" in html["Result"]
    assert "plain · sn" in html["What the gates learned"] and "sizes · sn-b32" in html["What the gates learned"]


def test_command_line(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["report.py", *map(str, runs), str(runs[0]), str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit) as stop:
        main()
    printed = capsys.readouterr()
    assert stop.value.code and "nowhere is no run folder" in printed.err
    pages = [*(run / "report.html" for run in runs), tmp_path / "side-by-side.html"]
    assert printed.out.split() == [str(page) for page in pages] and all(page.exists() for page in pages)


def test_gates_as_a_picture(runs, tmp_path, monkeypatch, capsys):
    picture = tmp_path / "gates.png"
    monkeypatch.setattr(sys, "argv", ["report.py", str(runs[0]), "--gates", str(picture)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code and picture.read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(sys, "argv", ["report.py", *map(str, runs), "--gates", str(picture)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
