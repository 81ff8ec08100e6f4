"""The report of a run, and the table it begins with, on small runs whose numbers were worked out by hand."""

import re
import shutil
import subprocess
import sys
import time
from base64 import b64decode
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from experiments import report
from experiments.report import main, prediction_pictures, read_run, write_report
from experiments.tables import closing_table, markdown_table, print_table, seed_scores, table_rows, verdict
from lightning_modules.gate_figures import NORM_COLOURS, STATISTIC_COLOURS, draw_gate_movement, draw_gates
from normshift import NORMS

SOURCE, TARGETS = "streets-game", ("streets-night", "camvid:test")

# norm -> seed -> mIoU on the source and on the two targets
MIOU = {
    "bn": {0: (0.60, 0.30, 0.40), 1: (0.62, 0.28, 0.36)},  # drops 25 and 30: 27.5 +- 3.54
    "sn": {0: (0.61, 0.41, 0.45), 1: (0.63, 0.43, 0.47)},  # drops 18 and 18: 18.0 +- 0
    "bin": {0: (0.50, 0.31, 0.33), 1: (0.54, 0.34, 0.34)},  # drops 18 and 20: 19.0 +- 1.41
}


def results(miou: dict = MIOU) -> pd.DataFrame:
    rows = [
        {
            "norm": norm,
            "seed": seed,
            "domain": domain,
            "role": role,
            "miou": value,
            "iou/road": value,
            "iou/sky": np.nan,
        }
        for norm, seeds in miou.items()
        for seed, values in seeds.items()
        for domain, role, value in zip((SOURCE, *TARGETS), ("source", "target", "target"), values, strict=True)
    ]
    return pd.DataFrame(rows)


def gates(norm: str, layers: int = 6, epochs: int = 3, seeds: int = 2, channels: int = 8) -> pd.DataFrame:
    dice = np.random.default_rng(0)
    rows = []
    for seed, epoch, depth in np.ndindex(seeds, epochs, layers):
        about = {
            "norm": norm,
            "seed": seed,
            "epoch": epoch,
            "step": 10 * epoch,
            "layer": f"net.layer{depth // 2}.{depth}",
        }
        if norm == "bin":
            values = [("rho", str(channel), dice.random()) for channel in range(channels)]
        else:
            labels = ("in", "ln", "bn") if norm == "sn" else ("in", "ln")
            shares = {statistic: dice.dirichlet([1.0] * len(labels)) for statistic in ("mean", "var")}
            values = [(s, label, share) for s in shares for label, share in zip(labels, shares[s], strict=True)]
        rows += [about | {"depth": depth, "statistic": s, "label": label, "value": v} for s, label, v in values]
    return pd.DataFrame(rows)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run of three norms and two seeds."""
    run = tmp_path / "night-drive"
    (run / "predictions").mkdir(parents=True)
    config = {
        "source": SOURCE, "target": list(TARGETS), "norm": list(MIOU), "seeds": 2, "label_space": "street",
        "question": "Which norm sees <best> at night?", "command": "python experiments/seg_gta2city.py --norm bn sn",
        "machine": "a laptop", "git": "abc1234", "versions": {"torch": "2.11.0"}, "minutes": 3.2,
    }  # fmt: skip
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    results().to_csv(run / "results.csv", index=False)
    metrics, divergence = [], []
    for norm, seed in ((norm, seed) for norm in MIOU for seed in (0, 1)):
        one = {"norm": norm, "seed": seed}
        for epoch in (0, 1):
            metrics += [
                one | {"epoch": epoch, "step": 5 * epoch + i, "train/loss": 2 - epoch, "lr": 0.1} for i in range(5)
            ]
            metrics += [one | {"epoch": epoch, "step": 5 * epoch + 4} | {f"{d}/miou": 0.1 for d in (SOURCE, *TARGETS)}]
        divergence += [
            one | {"domain": domain, "layer": f"l{i}", "depth": i, "channels": 4, "mean": i + 1.0, "total": 4 * i + 4.0}
            for domain in TARGETS
            for i in range(3)
        ]
    pd.DataFrame(metrics).to_csv(run / "metrics.csv", index=False)
    pd.DataFrame(divergence).to_csv(run / "divergence.csv", index=False)
    pd.concat([gates("sn"), gates("bin")]).to_parquet(run / "gates.parquet")
    for domain in (SOURCE, *TARGETS):
        for what in ("image", "truth", *MIOU):
            Image.new("RGB", (64, 32), (128, 64, 128)).save(run / "predictions" / f"{domain}-0-{what}.png")
    return run


def sections(page: Path) -> dict[str, str]:
    """The page's HTML by heading."""
    parts = re.split(r"<h2>(.*?)</h2>", page.read_text(encoding="utf-8"))
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_table_by_hand():
    table = closing_table(results())
    assert list(table.index) == ["bn", "sn", "bin"]
    assert list(dict.fromkeys(table.columns.get_level_values(0))) == [SOURCE, *TARGETS, "mean of targets", "drop"]
    bn = table.loc["bn"]
    assert bn[SOURCE, "mean"] == pytest.approx(61)
    assert bn[SOURCE, "sd"] == pytest.approx(2**0.5)  # 60 and 62, n - 1
    assert bn["mean of targets", "mean"] == pytest.approx(33.5)  # 35 and 32
    assert bn["drop", "mean"] == pytest.approx(27.5)
    assert bn["drop", "sd"] == pytest.approx(5 / 2**0.5)
    assert bn["drop", "n"] == 2
    marked = {norm: [text for text, best in cells if best] for norm, cells in table_rows(table)}
    assert marked == {"bn": [], "sn": ["62.0 ± 1.4", "42.0 ± 1.4", "46.0 ± 1.4", "44.0 ± 1.4", "18.0 ± 0.0"], "bin": []}


def test_table_as_text():
    table = closing_table(results())
    lines = markdown_table(table).splitlines()
    assert lines[0] == "| norm | seeds | streets-game | streets-night | camvid:test | mean of targets | drop |"
    assert lines[2] == "| bn | 2 | 61.0 ± 1.4 | 29.0 ± 1.4 | 38.0 ± 2.8 | 33.5 ± 2.1 | 27.5 ± 3.5 |"
    assert "**18.0 ± 0.0**" in lines[3]
    from rich.console import Console

    printed = StringIO()
    print_table(table, Console(file=printed, width=80))
    rows = [line.split() for line in printed.getvalue().splitlines()]
    assert ["bn", "2", "61.0±1.4", "29.0±1.4", "38.0±2.8", "33.5±2.1", "27.5±3.5"] in rows
    narrow = StringIO()
    print_table(table, Console(file=narrow, width=30))
    assert "27.5±3.5" in narrow.getvalue()


def test_one_seed_has_no_spread():
    table = closing_table(results({norm: {0: seeds[0]} for norm, seeds in MIOU.items()}))
    assert "±" not in markdown_table(table)
    assert "one seed" in verdict(table)


def test_a_resumed_run_counts_once():
    table = closing_table(pd.concat([results({"bn": {0: (0.1, 0.1, 0.1)}}), results()]))
    assert table.loc["bn", (SOURCE, "mean")] == pytest.approx(61)


def test_a_seed_without_all_targets_has_no_drop():
    rows = results()
    cut = rows.drop(rows.index[(rows["norm"] == "bn") & (rows["seed"] == 1) & (rows["domain"] == TARGETS[1])])
    table = closing_table(cut)
    assert np.isnan(seed_scores(cut).loc[("bn", 1), "drop"])
    assert table.loc["bn", ("drop", "mean")] == pytest.approx(25)
    assert next(cells[0][0] for norm, cells in table_rows(table) if norm == "bn") == "1–2"


def test_verdict_is_honest():
    # 19 - 18 = 1 lies within sqrt(0 + 1.41^2); 27.5 - 18 = 9.5 lies beyond 3.5
    assert "too wide to tell it from BIN;" in verdict(closing_table(results()))
    clear = verdict(closing_table(results({norm: MIOU[norm] for norm in ("bn", "sn")})))
    assert clear.startswith("SN loses least, 18.0 points from source to targets, 9.5 fewer than BN and more than")
    assert "also the highest on the targets, 44.0" in clear
    poor = verdict(closing_table(results({"in": {0: (0.1, 0.05, 0.05)}, "bn": {0: (0.6, 0.3, 0.4)}})))
    assert poor.startswith("IN loses least") and "the highest on the targets is BN, 35.0 against its 5.0" in poor
    assert "no other norm" in verdict(closing_table(results({"bn": MIOU["bn"]})))
    only_source = results()[lambda rows: rows["role"] == "source"]
    assert "no drop to compare" in verdict(closing_table(only_source))


def test_report_is_whole_and_self_contained(run):
    page = write_report(run)
    html = page.read_text(encoding="utf-8")
    assert page == run / "report.html" and page.stat().st_size < 3_000_000
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?https?:|url\(|@import|<script|<link""", html)
    images = re.findall(r"<img\b[^>]*>", html)
    assert len(images) > 20 and all(re.search(r'src="data:image/', image) for image in images)
    for name in (*MIOU, SOURCE, *TARGETS, "experiments/seg_gta2city.py", "abc1234", "2.11.0", "3 minutes", "sidewalk"):
        assert name in html
    assert "sees &lt;best&gt; at night?" in html
    assert str(run.parent) not in html
    assert list(sections(page)) == [
        "Result", "The drop", "Training", "What the gates learned", "Inside the network: how far apart the domains are",
        "Predictions", "Class by class", "How it was run",
    ]  # fmt: skip
    assert "27.5 ± 3.5" in sections(page)["Result"]
    assert all("<img" in sections(page)[title] for title in list(sections(page))[1:6])


def test_each_file_may_be_missing_empty_or_damaged(run):
    for name in ("results.csv", "metrics.csv", "gates.parquet", "divergence.csv"):
        whole = (run / name).read_bytes()
        for content in (b"", whole[:10], None):
            (run / name).unlink() if content is None else (run / name).write_bytes(content)
            assert getattr(read_run(run), name.partition(".")[0]) is None
    (run / "config.yaml").write_bytes(b"norm: [bn")
    assert read_run(run).config == {}
    (run / "config.yaml").write_text("norm: [bn, sn]")
    shutil.rmtree(run / "predictions")
    html = sections(write_report(run))
    assert not any("<img" in section for section in html.values())
    assert "stopped before a network was judged" in html["Result"]
    assert "metrics.csv is missing" in html["Training"]
    assert "gates.parquet is missing" in html["What the gates learned"]
    assert "The folder predictions is missing" in html["Predictions"]


def test_run_killed_halfway(run):
    text = (run / "results.csv").read_text()
    (run / "results.csv").write_text(text[: text.index("sn,0") + 30])  # in the middle of a row
    metrics = (run / "metrics.csv").read_text()
    (run / "metrics.csv").write_text(metrics[: len(metrics) // 2])
    (run / "divergence.csv").unlink()
    (run / "gates.parquet").write_bytes((run / "gates.parquet").read_bytes()[:-50])
    for file in (run / "predictions").glob("camvid*"):
        file.write_bytes(file.read_bytes()[:40])
    html = sections(write_report(run))
    assert "61.0 ± 1.4" in html["Result"] and "Without a result so far: bin" in html["Result"]
    assert "<img" in html["Training"] and "<img" in html["Predictions"] and "camvid" not in html["Predictions"]


def test_norms_without_gates(tmp_path):
    (tmp_path / "config.yaml").write_text("norm: bn\nsource: gta5\ntarget: cityscapes")
    html = sections(write_report(tmp_path))
    assert "No norm of this run has gates." in html["What the gates learned"]


def test_predictions_stay_within_their_budget(run, monkeypatch):
    for file in (run / "predictions").glob("*-0-*"):
        for index in range(1, 4):
            shutil.copy(file, str(file).replace("-0-", f"-{index}-"))
    pictures, left_out = prediction_pictures(read_run(run))
    assert [(domain, len(examples)) for domain, examples in pictures] == [(d, 4) for d in (SOURCE, *TARGETS)]
    assert [what for what, _ in pictures[0][1][0]] == ["image", "truth", *MIOU] and left_out == 0
    example = sum(len(uri) for _, uri in pictures[0][1][0])
    monkeypatch.setattr(report, "PICTURE_BYTES", 4 * example)
    pictures, left_out = prediction_pictures(read_run(run))
    assert [len(examples) for _, examples in pictures] == [2, 1, 1] and left_out == 8


def test_large_predictions_are_reduced(run):
    Image.new("RGB", (2048, 1024)).save(run / "predictions" / f"{SOURCE}-0-image.png")
    uri = dict(prediction_pictures(read_run(run))[0][0][1][0])["image"]
    assert Image.open(BytesIO(b64decode(uri.partition(",")[2]))).size == (320, 160)


def test_every_norm_and_statistic_has_its_own_colour():
    assert list(NORM_COLOURS) == list(NORMS) and len(set(NORM_COLOURS.values())) == len(NORMS)
    assert set(STATISTIC_COLOURS) == {"in", "ln", "bn", "gn"}


@pytest.mark.parametrize("norm", ["sn", "sn-in-ln", "bin"])
def test_gates_of_a_deep_network_are_drawn_quickly(norm):
    frame = gates(norm, layers=64, epochs=1, seeds=1, channels=512)
    begin = time.perf_counter()
    draw_gates(frame).savefig(BytesIO())
    assert time.perf_counter() - begin < 4  # about half a second on a quiet machine
    with pytest.raises(ValueError, match="recorded once"):
        draw_gate_movement(frame)
    with pytest.raises(ValueError, match="empty"):
        draw_gates(frame.iloc[:0])


def test_gates_are_those_of_the_last_epoch_averaged_over_seeds():
    frame = gates("sn", layers=2, epochs=2)
    last = frame[(frame["epoch"] == 1) & (frame["statistic"] == "mean")]
    bars = draw_gates(frame.drop(columns=["norm", "seed"])[frame["epoch"] == 1]).axes[0].containers
    assert draw_gates(frame).axes[0].get_title("left") == "sn: mean"
    for bar, label in zip(bars, ("in", "ln", "bn"), strict=True):
        expected = last[last["label"] == label].groupby("depth")["value"].mean()
        assert [patch.get_height() for patch in bar] == pytest.approx(list(expected))


def test_command_line(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["report.py", str(tmp_path / "nowhere"), str(run)])
    with pytest.raises(SystemExit) as stop:
        main()
    printed = capsys.readouterr()
    assert stop.value.code and printed.err.count("\n") == 1 and "is no run folder" in printed.err
    assert printed.out.strip() == str(run / "report.html")  # one bad folder does not keep the others waiting


def test_help_is_quick():
    script = Path(__file__).parents[2] / "experiments" / "report.py"
    begin = time.perf_counter()
    answer = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True, check=True)
    assert "RUN" in answer.stdout and time.perf_counter() - begin < 1
