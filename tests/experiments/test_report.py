"""The report of a run: of segmentation, with all its chapters, and of classification, with those it has."""

import re
import shutil
import subprocess
import sys
import time
from base64 import b64decode
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from experiments.report import main
from experiments.reporting import page as report
from experiments.reporting.page import prediction_pictures, write_report
from experiments.reporting.run import read_run
from experiments.study.run_folder import RunFolder
from experiments.study.tables.table import table_of
from lightning_modules.examples import Example, save_examples
from lightning_modules.gates.figures import draw_gate_movement, draw_gates
from lightning_modules.gates.panels import norm_colour
from normshift import NORMS
from tests.experiments.three_norms import MIOU, SOURCE, TARGETS, all_road, finished_run, gates


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return finished_run(tmp_path / "night-drive")


def sections(page: Path) -> dict[str, str]:
    """The page's HTML by heading."""
    parts = re.split(r"<h2>(.*?)</h2>", page.read_text(encoding="utf-8"))
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_report_is_whole_and_self_contained(run):
    page = write_report(run)
    html = page.read_text(encoding="utf-8")
    assert page == run / "report.html" and page.stat().st_size < 3_000_000
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?https?:|url\(|@import|<script src|<link""", html)
    images = re.findall(r"<img\b[^>]*>", html)
    assert len(images) > 20 and all(re.search(r'src="data:image/', image) for image in images)
    for name in (*MIOU, SOURCE, *TARGETS, "experiments/seg_gta2city.py", "abc1234", "2.11.0", "3 minutes", "sidewalk"):
        assert name in html
    assert "sees &lt;best&gt; at night?" in html
    assert str(run.parent) not in html
    assert list(sections(page)) == [
        "Result", "The drop", "Differences between arms", "Training", "What the gates learned",
        "Feature divergence between the domains", "Predictions", "In detail", "How it was run",
    ]  # fmt: skip
    assert "27.5 ± 3.5" in sections(page)["Result"]
    assert all("<img" in sections(page)[title] for title in list(sections(page))[1:7])
    assert 'role="note"' not in html  # which is what an unfinished run has


def test_each_file_may_be_missing_empty_or_damaged(run):
    for name in ("results.csv", "metrics.csv", "gates.parquet", "divergence.csv"):
        whole = (run / name).read_bytes()
        for content in (b"", whole[:10], None):
            (run / name).unlink() if content is None else (run / name).write_bytes(content)
            assert getattr(read_run(run), name.partition(".")[0]) is None
    for content in (b"", (run / "table.json").read_bytes()[:100], None):
        (run / "table.json").unlink() if content is None else (run / "table.json").write_bytes(content)
        assert read_run(run).table is None
    (run / "config.yaml").write_bytes(b"norm: [bn")
    assert read_run(run).config == {}
    (run / "config.yaml").write_text("norm: [bn, sn, bin]")
    shutil.rmtree(run / "examples")
    html = sections(write_report(run))
    assert not any("<img" in section for section in html.values())
    assert "stopped before a network was evaluated" in html["Result"]
    assert "metrics.csv is missing" in html["Training"]
    assert "gates.parquet is missing" in html["What the gates learned"]
    assert "The folder examples is missing" in html["Predictions"]


def test_run_killed_halfway(run):
    text = (run / "results.csv").read_text()
    (run / "results.csv").write_text(text[: text.index("sn,sn,0") + 30])  # in the middle of a row
    metrics = (run / "metrics.csv").read_text()
    (run / "metrics.csv").write_text(metrics[: len(metrics) // 2])
    (run / "divergence.csv").unlink()
    (run / "gates.parquet").write_bytes((run / "gates.parquet").read_bytes()[:-50])
    for file in (run / "examples").glob("camvid*"):
        file.write_bytes(file.read_bytes()[:40])
    html = sections(write_report(run))
    assert "61.0 ± 1.4" in html["Result"] and "Without a result so far: bin" in html["Result"]
    assert "<img" in html["The drop"]  # of the norms that got so far
    assert "<img" in html["Training"] and "<img" in html["Predictions"] and "camvid" not in html["Predictions"]
    (run / "arms.json").write_bytes((run / "arms.json").read_bytes()[:15])
    assert list(read_run(run).arms) == ["bn", "sn"]  # what was measured


def test_run_killed_without_a_word(tmp_path):
    """As kill -9 leaves it: trainings have folders, and nothing is gathered."""
    folder = RunFolder(tmp_path / "run", Flags(), "Which?", {}, CLASSIFIERS)
    folder.finish("bn-b32", 0, {"results": [measured(0.9)]})
    for arm, steps in (("bn-b32", 8), ("sn-b32", 5)):
        folder.part(arm, 0).mkdir(exist_ok=True)
        rows = [{"step": step, "train/loss": 2 - step / 10} for step in range(steps)]
        pd.DataFrame(rows).to_csv(folder.part(arm, 0) / "metrics.csv", index=False)
    gates("sn", seeds=1).drop(columns=["arm", "seed"]).to_parquet(folder.part("sn-b32", 0) / "gates.parquet")
    (folder.part("sn-b2", 0)).mkdir()
    whole = (folder.part("sn-b32", 0) / "gates.parquet").read_bytes()
    (folder.part("sn-b2", 0) / "gates.parquet").write_bytes(whole[:100])  # killed while it was written
    (folder.part("sn-b2", 0) / "metrics.csv").touch()
    page = write_report(tmp_path / "run")
    note = re.sub("<.*?>", "", re.search(r'role="note">(.*?)</p>', page.read_text())[1])
    assert "not finished: sn-b32-seed0 (last logged at step 4); nothing logged yet: bn-b2-seed0, " in note
    assert "bn-b32-seed0" not in note and note.count("seed") == 7 and note.endswith("--resume continues it.")
    html = sections(page)
    assert "table.json is missing" in html["Result"] and "<img" in html["Training"]
    assert "sn-b32: mean" in html["What the gates learned"] and "sn-b2: mean" not in html["What the gates learned"]
    assert not list((tmp_path / "run").glob("*.csv"))  # to look at a run does not change it


def test_evaluations_at_the_end_alone_are_left_to_the_table(run):
    def drawn(html: dict[str, str]) -> int:
        return html["Training"].count("<img")

    metrics = pd.read_csv(run / "metrics.csv")
    evaluated = metrics.columns[metrics.columns.str.endswith("/miou")]
    often = sections(write_report(run))
    assert drawn(often) == 1 + len(evaluated) and "evaluated only once" not in often["Training"]
    last = metrics.dropna(subset=evaluated, how="all").groupby(["arm", "seed"]).tail(1).index
    metrics.loc[~metrics.index.isin(last), evaluated] = float("nan")
    metrics.to_csv(run / "metrics.csv", index=False)
    once = sections(write_report(run))
    assert drawn(once) == 1 and "evaluated only once" in once["Training"]
    (run / "table.json").unlink()  # stopped before it: the curves' dots are all there is
    assert drawn(sections(write_report(run))) == 1 + len(evaluated)


def test_the_caption_says_where_some_channels_stand_for_all(run):
    note = "64 evenly spaced channels are shown"
    assert note not in sections(write_report(run))["What the gates learned"]
    wide = gates("bin", layers=2, channels=64)
    wide["label"] = (4 * wide["label"].astype(int)).astype(str)  # of 256
    wide.to_parquet(run / "gates.parquet")
    assert note in sections(write_report(run))["What the gates learned"]


def test_norms_without_gates(tmp_path):
    (tmp_path / "config.yaml").write_text("norm: bn\nsource: gta5\ntarget: cityscapes")
    assert "What the gates learned" not in sections(write_report(tmp_path))


def test_predictions_stay_within_their_budget(run, monkeypatch):
    shutil.rmtree(run / "examples")
    for norm in MIOU:
        found = [all_road(domain, index) for domain in (SOURCE, *TARGETS) for index in range(4)]
        save_examples(found, run / "examples", norm)
    pictures, left_out = prediction_pictures(read_run(run))
    assert [(domain, len(examples)) for domain, examples in pictures] == [(d, 4) for d in (SOURCE, *TARGETS)]
    assert [what for what, _ in pictures[0][1][0]] == ["image", "truth", *MIOU] and left_out == 0
    example = sum(len(uri) for _, uri in pictures[0][1][0])
    monkeypatch.setattr(report, "PICTURE_BYTES", 4 * example)
    pictures, left_out = prediction_pictures(read_run(run))
    assert [len(examples) for _, examples in pictures] == [2, 1, 1] and left_out == 8


def test_large_predictions_are_reduced(run):
    Image.new("RGB", (2048, 1024)).save(run / "examples" / f"{SOURCE}-0-picture.png")
    uri = dict(prediction_pictures(read_run(run))[0][0][1][0])["image"]
    assert Image.open(BytesIO(b64decode(uri.partition(",")[2]))).size == (320, 160)


def test_every_norm_and_statistic_has_its_own_colour():
    assert len({norm_colour(norm) for norm in NORMS}) == len(NORMS)


@pytest.mark.parametrize("norm", ["sn", "sn-in-ln", "bin"])
def test_gates_of_a_deep_network_are_drawn_quickly(norm):
    frame = gates(norm, layers=64, epochs=1, seeds=1, channels=512)
    begin = time.process_time()
    draw_gates(frame).savefig(BytesIO())
    assert time.process_time() - begin < 4  # seconds of one core; about half a second it takes
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


def test_a_folder_of_before_there_were_arms_says_how_to_get_a_report(run, monkeypatch, capsys):
    for name in ("results.csv", "metrics.csv", "divergence.csv"):
        pd.read_csv(run / name).drop(columns="arm").to_csv(run / name, index=False)
    monkeypatch.setattr(sys, "argv", ["report.py", str(run)])
    with pytest.raises(SystemExit) as stop:
        main()
    error = capsys.readouterr().err
    assert stop.value.code and error.count("\n") == 1 and "repeat its command with --resume" in error


def test_command_line(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["report.py", str(tmp_path / "nowhere"), str(run)])
    with pytest.raises(SystemExit) as stop:
        main()
    printed = capsys.readouterr()
    assert stop.value.code and printed.err.count("\n") == 1 and "is no run folder" in printed.err
    assert printed.out.strip() == str(run / "report.html")  # one bad folder does not keep the others waiting


@dataclass
class Flags:
    """The flags of a study of classifiers."""

    data: str = "shapes"
    norm: tuple[str, ...] = ("bn", "sn")
    seed: int = 0
    seeds: int = 2
    resume: bool = False


CLASSIFIERS = {f"{norm}-b{batch}": {"norm": norm, "batch": batch} for norm in ("bn", "sn") for batch in (32, 2)}
QUESTION = "Does it fall as batches shrink? A network is trained with few images a step."


def top1(results: pd.DataFrame):
    """By hand: bn 90 and 92, then 50 and 60; sn 89 and 91, then 88 and 88."""
    scores = results.pivot(index=["norm", "seed"], columns="batch", values="value") * 100
    scores = scores.rename(columns="{} images".format).assign(parameters=11.2)
    return table_of(scores, "Top-1 in per cent{spread}.", unranked=frozenset({"parameters"}))


def measured(score: float) -> dict:
    """A row of results."""
    about = {"domain": "photo", "part": "clean", "condition": "clean"}
    return about | {"measure": "top1", "value": score}


def classifiers(path: Path, arms: dict = CLASSIFIERS, scores=(0.9, 0.92, 0.5, 0.6, 0.89, 0.91, 0.88, 0.88)) -> Path:
    """The finished folder of a study, through the functions that studies use."""
    folder = RunFolder(path, Flags(), QUESTION, {}, arms)
    for i, (arm, seed) in enumerate((arm, seed) for arm in arms for seed in (0, 1)):
        norm, score = arms[arm]["norm"], scores[i % len(scores)]
        folder.finish(arm, seed, {"results": [measured(score) | {"recipe": "plain"}]})
        losses = [{"step": step, "train/loss": 2 - step / 10} for step in range(8)]
        evaluated = [{"step": s, "photo/top1": score, "sketch/top1": score / 2, "photo/ece": 0.1} for s in (3, 7)]
        pd.DataFrame(losses + evaluated).to_csv(folder.part(arm, seed) / "metrics.csv", index=False)
        if norm == "sn":
            gates("sn", seeds=1).drop(columns=["arm", "seed"]).to_parquet(folder.part(arm, seed) / "gates.parquet")
    folder.gather(1, top1)
    return path


def test_report_of_classifiers(tmp_path):
    page = write_report(classifiers(tmp_path / "sizes"))
    html = sections(page)
    assert list(html) == [
        "Result", "The result as a figure", "Differences between arms", "Training", "What the gates learned",
        "How it was run",
    ]  # fmt: skip
    assert "<h1>Does it fall as batches shrink?</h1>" in page.read_text()
    assert '<p class="question">A network is trained' in page.read_text()
    assert "91.0 ± 1.4" in html["Result"] and "<b>88.0 ± 0.0</b>" in html["Result"]
    assert "<b>11" not in html["Result"] and "Top-1 in per cent ± standard deviation" in html["Result"]
    assert "verdict" not in html["Result"] and "Without a result" not in html["Result"]
    assert alternatives(html["The result as a figure"]) == [
        "2 images, row by row", "32 images, row by row"
    ]  # fmt: skip
    assert alternatives(html["Training"]) == [
        "training loss during training", "photo: top-1 during training", "sketch: top-1 during training"
    ]  # fmt: skip
    assert re.findall(r"<h3>(.*?)</h3>", html["What the gates learned"]) == ["sn-b32", "sn-b2"]
    assert re.search(r'row">sn-b2</th><td>sn</td><td>2</td>', html["How it was run"])


def test_answers_of_classifiers_stand_below_their_images(tmp_path):
    run = classifiers(tmp_path / "run")
    black = np.zeros((36, 36, 3), np.uint8)

    def answered(arm: str, *answers: tuple[str, str, str]) -> Path:
        found = [Example("shapes/photo", index, black, *answer) for index, answer in enumerate(answers)]
        save_examples(found, run / "examples", arm)
        return run / "examples" / f"{arm}.json"

    answered("bn-b32", ("50", "50", "93 %"), ("mug", "<bell>", "40 %"))
    answered("sn-b2", ("50", "mug", "50 %"))
    cut = answered("sn-b32", ("50", "mug", "50 %"), ("mug", "mug", "50 %"))
    cut.write_bytes(cut.read_bytes()[:100])
    (run / "examples" / "bn-b2.json").touch()
    html = sections(write_report(run))["Predictions"]
    told = [re.sub(r"<.*?>", "", figure).split("\n") for figure in re.findall(r"<figure>(.*?)</figure>", html, re.S)]
    assert [[line for line in lines if line] for lines in told] == [
        ["50", "bn-b32: ✓ 50, 93 %", "sn-b2: ✗ mug, 50 %"], ["mug", "bn-b32: ✗ &lt;bell&gt;, 40 %"]
    ]  # fmt: skip
    assert html.count("<img") == 2


def axes(section: str) -> list[list[str]]:
    """The numbers along the lower axis of each figure."""
    svgs = [b64decode(uri).decode() for uri in re.findall(r'src="data:image/svg\+xml;base64,(.*?)"', section)]
    lower = [svg.partition('"matplotlib.axis_1"')[2].partition('"matplotlib.axis_2"')[0] for svg in svgs]
    return [re.findall(r">([\d.]+)</text>", part) for part in lower]


def test_columns_of_like_numbers_share_an_axis(tmp_path):
    run = classifiers(tmp_path / "run")
    # best when large: 91 and 60 are alike, 4000 is not; best when small: 90 is alone; parameters have no best
    scores = {("bn", 0): (90, 50, 4000, 80, 11), ("sn", 0): (91, 60, 3000, 90, 25)}
    index = pd.MultiIndex.from_tuples(scores, names=["norm", "seed"])
    frame = pd.DataFrame(list(scores.values()), index, ["32", "2", "images/s", "error", "parameters"])
    table = table_of(frame, "", smaller=frozenset({"error"}), unranked=frozenset({"parameters"}))
    (run / "table.json").write_text(table.to_json())
    large, small, rate, error, parameters = axes(sections(write_report(run))["The result as a figure"])
    assert large == small and "50" in large and "90" in large
    assert "3000" in rate and "4000" in rate and error[-1] == "90.0" and "50" not in error and parameters[-1] == "25"


def alternatives(section: str) -> list[str]:
    return re.findall(r'alt="(.*?)"', section)


def test_classifiers_without_gates_have_no_chapter_on_them(tmp_path):
    folder = RunFolder(tmp_path / "run", Flags(), "Deep?", {}, {"50": {"norm": "bn"}, "101": {"norm": "bn"}})
    for arm, score in (("50", 0.5), ("101", 0.6)):
        folder.finish(arm, 0, {"results": [measured(score) | {"depth": int(arm)}]})
    folder.gather(1, lambda results: table_of(results.set_index(["arm", "seed"])[["value"]], ""))
    html = sections(write_report(tmp_path / "run"))
    assert list(html) == ["Result", "The result as a figure", "Training", "How it was run"]
    assert "metrics.csv is missing" in html["Training"] and "<img" in html["The result as a figure"]
    assert list(read_run(tmp_path / "run").arms) == ["50", "101"]  # and no third, called 50.0


def test_many_arms_are_split_into_panels(tmp_path):
    norms = [norm for norm in NORMS if norm != "sn"][:7]
    arms = {f"{norm}-b{batch}": {"norm": norm, "batch": batch} for norm in norms for batch in (32, 2)}
    page = write_report(classifiers(tmp_path / "many", arms, [0.5] * 28))
    assert alternatives(sections(page)["Training"]) == [
        f"{curve}, batch {batch} during training"
        for curve in ("training loss", "photo: top-1", "sketch: top-1")
        for batch in (32, 2)
    ]
    assert re.findall(r'height="13">(.*?)<', page.read_text()) == norms
    alike = {f"arm{i}": {"norm": "bn", "batch": 8} for i in range(14)}
    folder = RunFolder(tmp_path / "alike", Flags(), "", {}, alike)
    for arm in alike:
        folder.finish(arm, 0, {"results": [measured(0.5)]})
        pd.DataFrame({"step": [0, 1], "train/loss": [1, 0]}).to_csv(folder.part(arm, 0) / "metrics.csv", index=False)
    folder.gather(1, lambda results: None)
    html = sections(write_report(tmp_path / "alike"))
    assert "The first 12 of 14 arms are shown; metrics.csv holds the other 2." in html["Training"]
    assert "table.json is missing" in html["Result"]


def test_help_does_not_wait_for_what_draws():
    script = Path(__file__).parents[2] / "experiments" / "report.py"
    code = f"""
import runpy, sys
sys.argv = ["report.py", "--help"]
try:
    runpy.run_path({str(script)!r}, run_name="__main__")
except SystemExit:
    print("heavy:", sorted({{"torch", "numpy", "pandas", "matplotlib", "PIL", "jinja2"}} & set(sys.modules)))
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "RUN" in answer and "heavy: []" in answer
