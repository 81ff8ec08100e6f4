"""How a study ends: in its table, its gates and its report; also where it is cut short."""

import os
import re
import signal
import time
from pathlib import Path

import pandas as pd
import pytest

from experiments.run_folder import RunFolder
from experiments.tables import table_of
from experiments.train_arms import train_arms
from tests.experiments.test_run_folder import ARMS, Flags
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

    def run(self):
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

    monkeypatch.setattr("experiments.train_arms.write_report", broken)
    with pytest.raises(ZeroDivisionError):
        Trained(tmp_path / "run", crash).run()
    assert "no report could be made: RuntimeError('no space left')" in capsys.readouterr().err
