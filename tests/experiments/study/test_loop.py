"""How a study ends: in its table, its gates and its report; also where it is cut short."""

import os
import re
import shutil
import signal
import time
from pathlib import Path

import pandas as pd
import pytest

from experiments.reporting.page import write_side_by_side
from experiments.study.endings import TrainingsFailed, one_sentence
from experiments.study.loop import train_arms
from experiments.study.reader import read_folder
from experiments.study.run_folder import RunFolder
from experiments.study.tables.table import table_of
from lightning_modules.finite_training import NotFiniteError
from tests.experiments.study.test_run_folder import ARMS, Flags
from tests.experiments.three_norms import gates


def table(results: pd.DataFrame):
    return table_of(100 * results.set_index(["arm", "seed"])[["top1"]], "Per cent.")


class Trained:
    """Stands in for a training: leaves what one leaves, and meets with `accident` in the third."""

    def __init__(self, path: Path, accident=None, table=table):
        self.folder = RunFolder(path, Flags(), "Which?", {}, ARMS, arm_flags=("norm", "backbone"))
        self.accident, self.table, self.done = accident, table, []

    def train(self, arm: str, seed: int) -> None:
        self.done.append((arm, seed))
        part = self.folder.part(arm, seed)
        part.mkdir()
        pd.DataFrame({"step": [0, 1], "train/loss": [2.0, 1.0]}).to_csv(part / "metrics.csv", index=False)
        if arm == "r18-sn":
            gates("sn", seeds=1).drop(columns=["arm", "seed"]).to_parquet(part / "gates.parquet")
        if self.accident and len(self.done) == 3:
            self.accident()
        self.folder.finish(arm, seed, {"results": [{"top1": 0.5 + 0.1 * len(self.done)}]})

    def run(self, resume: bool = False):
        if resume:
            self.folder = RunFolder(self.folder.path, Flags(resume=True), "Which?", {}, ARMS, ("norm", "backbone"))
        return train_arms(self.folder, self.train, self.table, time.time())


def test_a_run_ends_in_its_table_its_gates_and_its_report(tmp_path, capsys):
    run = Trained(tmp_path / "run")
    results = run.run()
    assert run.done == [("r18-bn", 3), ("r18-sn", 3), ("r18-bn", 4), ("r18-sn", 4)]  # seed by seed
    assert list(results["top1"]) == pytest.approx([0.6, 0.8, 0.7, 0.9])  # arm by arm
    printed = capsys.readouterr().out
    table, gates_, report = printed.index("r18-bn"), printed.index("gates of r18-sn"), printed.index("report: ")
    assert table < gates_ < report and "75.0" not in printed and "80.0±14.1" in printed.replace(" ", "")
    assert "\x1b" not in printed  # plain where it is not a terminal
    assert (tmp_path / "run" / "report.html").exists()


def crash() -> None:
    raise ZeroDivisionError("in the middle of it")


def interrupt() -> None:
    raise KeyboardInterrupt


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)  # the signal is handled in between, and ends this


@pytest.mark.parametrize(
    ("accident", "error"), [(crash, ZeroDivisionError), (interrupt, KeyboardInterrupt), (terminate, SystemExit)]
)
def test_a_run_cut_short_leaves_a_report_of_what_there_is(accident, error, tmp_path, capsys):
    before = signal.getsignal(signal.SIGTERM)
    run = Trained(tmp_path / "run", accident)
    with pytest.raises(error) as stopped:
        run.run()
    assert signal.getsignal(signal.SIGTERM) == before
    if error is SystemExit:
        assert stopped.value.code == 128 + signal.SIGTERM
    assert str(tmp_path / "run" / "report.html") in capsys.readouterr().err
    html = re.sub("</?span.*?>", "", (tmp_path / "run" / "report.html").read_text())
    assert "begun but not finished: r18-bn-seed4 (last logged at step 1); nothing logged yet: r18-sn-seed4" in html
    assert "70.0" in html and "r18-sn: mean" in html  # the table so far, the gates so far
    assert len(pd.read_csv(tmp_path / "run" / "results.csv")) == 2


def test_what_is_finished_is_gathered_at_once(tmp_path):
    run, seen = Trained(tmp_path / "run"), []
    run.accident = lambda: seen.append((tmp_path / "run" / "table.md").read_text())
    run.run()
    assert "60.0" in seen[0] and "70.0" in seen[0]


def test_a_table_that_needs_all_rows_waits_for_them(tmp_path, capsys):
    def difference(results):
        wide = results.pivot(index="seed", columns="arm", values="top1")
        wide.loc[4]  # a seed that comes last
        return table_of(wide.eval("`r18-sn` - `r18-bn`").rename("gain").to_frame().set_index([["x", "x"], [3, 4]]), "")

    assert len(Trained(tmp_path / "run", table=difference).run()) == 4
    run = Trained(tmp_path / "crashed", crash, difference)
    with pytest.raises(ZeroDivisionError):
        run.run()
    assert (tmp_path / "crashed" / "report.html").exists()


def test_a_report_that_cannot_be_made_does_not_hide_why_the_run_stopped(tmp_path, monkeypatch, capsys):
    def broken(_):
        raise RuntimeError("no space left")

    monkeypatch.setattr("experiments.study.loop.write_report", broken)
    with pytest.raises(ZeroDivisionError):
        Trained(tmp_path / "run", crash).run()
    assert "no report could be made: RuntimeError('no space left')" in capsys.readouterr().err


def diverge() -> None:
    raise NotFiniteError(2, "the loss is not finite", "in the output of net.bn1")


class Diverging(Trained):
    """Trainings of which some fail."""

    def __init__(self, path: Path, failing: set):
        super().__init__(path)
        self.failing = failing

    def train(self, arm: str, seed: int) -> None:
        self.accident = diverge if (arm, seed) in self.failing else None
        done, self.done = self.done, [None, None]  # so that the accident comes in this one
        try:
            super().train(arm, seed)
        finally:
            self.done = [*done, (arm, seed)]


WHY = "at step 2 the loss is not finite, first in the output of net.bn1"


def test_a_training_that_fails_fails_alone(tmp_path, capsys):
    run = Diverging(tmp_path / "run", {("r18-bn", 4)})
    with pytest.raises(SystemExit) as stopped, one_sentence():
        run.run()
    printed = capsys.readouterr()
    assert stopped.value.code == 3 and f"1 of the trainings failed: r18-bn, seed 4: {WHY}." in printed.err
    assert run.done == [("r18-bn", 3), ("r18-sn", 3), ("r18-bn", 4), ("r18-sn", 4)]  # the others went on
    table = (tmp_path / "run" / "table.md").read_text()
    assert "| r18-bn | 1, 1 failed |" in table and f"Failed: r18-bn, seed 4: {WHY}." in table
    html = re.sub("</?span.*?>", "", (tmp_path / "run" / "report.html").read_text())
    assert f"Failed, without a result: r18-bn, seed 4: {WHY}" in html and "1, 1 failed" in html
    assert "was not finished" not in html
    tables = read_folder(tmp_path / "run")  # what notebooks read
    assert len(tables.results) == 3 and set(tables.arms) == {"r18-bn", "r18-sn"}


def test_an_arm_that_always_fails_has_a_row_without_numbers(tmp_path):
    with pytest.raises(TrainingsFailed):
        Diverging(tmp_path / "run", {("r18-bn", 3), ("r18-bn", 4)}).run()
    first, second = (tmp_path / "run" / "table.md").read_text().splitlines()[2:4]
    assert first == "| r18-bn | 0, 2 failed | – |" and second.startswith("| r18-sn | 2 |")
    with pytest.raises(TrainingsFailed):
        Diverging(tmp_path / "other", {(arm, seed) for arm in ARMS for seed in (3, 4)}).run()
    table = (tmp_path / "other" / "table.md").read_text()
    assert "| r18-bn | 0, 2 failed |" in table and "| r18-sn | 0, 2 failed |" in table
    assert "r18-sn" in (tmp_path / "other" / "report.html").read_text()
    side = write_side_by_side([tmp_path / "run", tmp_path / "other"]).read_text()
    assert "run · r18-bn" in re.sub("</?span.*?>", "", side) and "0, 2 failed" in side


def test_what_has_failed_is_not_trained_again_before_it_is_removed(tmp_path, capsys):
    run = Diverging(tmp_path / "run", {("r18-bn", 3)})
    with pytest.raises(TrainingsFailed):
        run.run()
    run.failing, run.done = set(), []
    with pytest.raises(TrainingsFailed, match=r"--resume does not repeat .* remove r18-bn-seed3 first"):
        run.run(resume=True)
    assert run.done == []
    shutil.rmtree(tmp_path / "run" / "r18-bn-seed3")
    assert len(run.run(resume=True)) == 4 and run.done == [("r18-bn", 3)]
    assert "failed" not in (tmp_path / "run" / "table.md").read_text()
