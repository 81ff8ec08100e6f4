"""From the command line to the page: real studies, as small as they can be."""

import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from experiments.papers import page, running, testing
from experiments.papers.claim import Claim, Paper, Study
from experiments.papers.measures import less, more, top1
from experiments.papers.running import Settings
from experiments.papers.verdicts import verdicts_of
from experiments.study.endings import TrainingsFailed, UsageError
from lightning_modules.measures import measure_of

ROOT = Path(__file__).parents[3]
TINY = (
    "cls_imagenet.py --data shapes/photo --recipe smoke --backbone cifar_resnet8 --width 0.25 --images 40 "
    "--max-steps 2 --norm bn sn --workers 0 --gpus 0"
)


STUDY_OF_ONE = Study(TINY.replace("--norm bn sn", "--norm sn"), 1)


def claim(studies: str, difference) -> Claim:
    return Claim("Table 1", "SN <is> better.", "1 to 2", (studies,), "SN's minus BN's", "points", difference, "x.py")


@pytest.fixture
def small(monkeypatch):
    """Two claims of one tiny study, and one of a study that fails."""
    claims = {
        "a-1": claim("tiny", more(top1, "sn", than="bn")),
        "a-2": claim("tiny", less(top1, "sn", than="bn")),
        "a-3": claim("broken", more(top1, "sn", than="bn")),
    }
    studies = {"tiny": Study(TINY, 1), "broken": Study("cls_imagenet.py --norm nothing", 1)}
    papers = {"A": Paper("On A", "Someone, 2020", claims)}
    for module in (page, running, testing):
        for name, value in (("CLAIMS", claims), ("STUDIES", studies), ("PAPERS", papers)):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)


def test_studies_run_once_and_a_failed_one_leaves_the_others(small, tmp_path, capsys):
    out = tmp_path / "claims"
    with pytest.raises(TrainingsFailed, match=r"1 of 2 studies did not finish .*nothing"):
        testing.put_to_the_test([], Settings(out, 2, processes=2, extra=("--wandb", "disabled")))
    said = capsys.readouterr().out
    assert "3 claims:" in said and "1 not measured" in said and "tiny: done in" in said
    kept = json.loads((out / "claims.json").read_text())["claims"]
    values = [kept[key]["values_by_seed"] for key in ("a-1", "a-2")]
    assert len(values[0]) == 2 and values[0] == [-value for value in values[1]]
    html = (out / "claims.html").read_text()
    assert "SN &lt;is&gt; better." in html and "not measured" in html and "<svg" in html
    assert (out / "claims.md").read_text().count("| `a-") == 3

    before = (out / "tiny" / "results.csv").stat().st_mtime_ns
    testing.put_to_the_test(["a-1"], Settings(out, 2))
    assert "finished before: tiny" in capsys.readouterr().out
    assert (out / "tiny" / "results.csv").stat().st_mtime_ns == before
    assert running.finished("tiny", Settings(out, 3)) is None  # more seeds are more work


@pytest.mark.slow
def test_a_study_that_is_written_otherwise_is_not_taken_for_finished(small, tmp_path, monkeypatch):
    how = Settings(tmp_path, 1, extra=("--wandb", "disabled"))
    subprocess.run(running.line_of("tiny", how), check=True, capture_output=True)
    assert running.finished("tiny", how) is not None and running.finished("tiny", replace(how, times=2)) is None
    monkeypatch.setattr(running, "STUDIES", {"tiny": Study(f"{TINY} --lr 0.5", 1)})
    assert running.finished("tiny", how) is None


def test_what_changes_no_training_makes_no_other_study(small):
    def counts(**how) -> dict:
        flags = running.flags_of(running.line_of("tiny", replace(Settings(Path("a")), **how)))
        return {flag: value for flag, value in flags.items() if flag not in running.FREE}

    plain = counts()
    assert plain == counts(out=Path("b"), seeds=5, processes=2, extra=("--wandb", "disabled"))
    assert plain != counts(times=2) and plain != counts(extra=("--lr", "0.1"))


@pytest.mark.slow
def test_a_run_that_was_given_more_arms_is_finished(small, tmp_path, monkeypatch):
    how = Settings(tmp_path, 1, extra=("--wandb", "disabled"))
    subprocess.run(running.line_of("tiny", how), check=True, capture_output=True)
    more = Study(TINY.replace("--norm bn sn", "--norm bn sn bin"), 1)
    for study, there in ((STUDY_OF_ONE, True), (more, False)):
        monkeypatch.setattr(running, "STUDIES", {"tiny": study})
        assert (running.finished("tiny", how) is not None) == there
    subprocess.run(running.line_of("tiny", how), check=True, capture_output=True)  # adds an arm
    assert running.finished("tiny", how) is not None


def test_a_training_that_failed_is_said_again_and_its_seed_is_not_measured(small, tmp_path):
    """Two runs of one study: the first loses a training, the second finds that it has."""
    how = Settings(tmp_path, 2, extra=("--wandb", "disabled", "--lr", "1e12", "--max-steps", "9"))
    for _ in range(2):
        with pytest.raises(TrainingsFailed, match=r"tiny: .*not finite"):
            testing.put_to_the_test(["a-1"], how)
    assert json.loads((tmp_path / "claims.json").read_text())["claims"] == {}


def test_what_guesses_is_not_said_to_be_no_worse(tmp_path):
    rows = [
        {"arm": arm, "norm": arm, "seed": seed, "domain": "d", "part": "clean", "measure": measure, "value": value}
        for arm, seed, top in (("bn", 0, 0.1), ("sn", 0, 0.1), ("bn", 1, 0.8), ("sn", 1, 0.9))
        for measure, value in (("top1", top), ("chance", 0.1))
    ]
    run = SimpleNamespace(results=pd.DataFrame(rows), headline=measure_of("top1"))
    better, no_worse = (
        claim("tiny", more(top1, "sn", than="bn")),
        replace(claim("tiny", more(top1, "sn", "bn")), margin=1.0),
    )
    assert testing.measured_by_seed("a", better, [run]).tolist() == pytest.approx([0.0, 10.0])
    assert testing.measured_by_seed("a", no_worse, [run]).tolist() == pytest.approx([10.0])


def test_one_seed_is_written_as_json_that_every_program_reads(small):
    verdict = verdicts_of({"a-1": (np.array([3.0]), 0.0)})["a-1"]
    told = json.loads(json.dumps(page.plain(page.CLAIMS["a-1"], verdict), allow_nan=False))
    assert told["low"] is None and told["mean"] == 3.0 and told["verdict"] == "undecided"


@pytest.mark.parametrize(
    ("keys", "numbers", "sentence"),
    [
        (["a-9"], {}, "there is no claim a-9: choose from a-1, a-2, a-3"),
        ([], {"seeds": 0}, "--seeds 0: it must be 1 or more"),
        ([], {"processes": -1}, "--processes -1: it must be 1 or more"),
        ([], {"times": 0}, "--times 0: it must be 1 or more"),
    ],
)
def test_what_cannot_be_is_said(small, keys, numbers, sentence, tmp_path):
    with pytest.raises(UsageError, match=sentence):
        testing.put_to_the_test(keys, Settings(tmp_path / "out", **numbers))


@pytest.mark.parametrize(
    ("command", "twice"),
    [
        ("a.py --max-steps 500 --norm bn", "a.py --max-steps 1000 --norm bn"),
        ("a.py --epochs 6", "a.py --epochs 12"),
        ("a.py --norm bn", "a.py --norm bn --epochs 40"),  # the recipe laptop has 20
    ],
)
def test_a_study_can_be_twice_as_long(command, twice):
    assert shlex.join(Study(command, 1).line()) == command and shlex.join(Study(command, 1).line(2)) == twice


def test_a_folder_that_cannot_be_written_is_said(small, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        testing.put_to_the_test([], Settings(tmp_path / "file"))


def test_the_papers_scale_prints_commands_and_help_does_not_wait(tmp_path):
    script = [sys.executable, str(ROOT / "experiments" / "claims.py")]
    said = subprocess.run([*script, "--scale", "paper", "sn-1"], capture_output=True, text=True, check=True).stdout
    assert "# SN\n# sn-1: " in said and "cls_batch_size.py --data imagenet" in said and "ibn-1" not in said
    wrong = subprocess.run([*script, "nope"], capture_output=True, text=True, cwd=tmp_path)
    assert (
        wrong.returncode == 2
        and wrong.stderr.startswith("error: there is no claim nope")
        and not any(tmp_path.iterdir())
    )
