"""metrics.csv of a training that is interrupted: the same bytes as of one that is not."""

import math
from pathlib import Path

import pandas as pd
import pytest

from datamodules import whole_file
from experiments.study.resume import metrics_file
from experiments.study.resume.metrics_file import MetricsFile, MetricsLog

ROWS = [
    ({"lr": 0.1}, 0),
    ({"train/loss": 1 / 3, "epoch": 0}, 0),
    ({"city/miou": math.nan, "epoch": 0}, 4),
    ({"train/loss": 1e-12, "epoch": 1}, 5),
    ({"late": 7}, 5),
    ({"train/loss": 2.0, "epoch": 1}, 9),
]


def logged(file: MetricsFile, rows, save_after=()) -> None:
    for number, (row, step) in enumerate(rows):
        file.log_metrics(row, step)
        if number in save_after:
            file.save()


@pytest.fixture
def whole(tmp_path) -> bytes:
    file = MetricsFile(tmp_path / "whole")
    logged(file, ROWS)
    file.save()
    return (tmp_path / "whole" / "metrics.csv").read_bytes()


def test_it_is_a_table_of_what_was_logged(whole, tmp_path):
    found = pd.read_csv(tmp_path / "whole" / "metrics.csv")
    assert list(found) == sorted(["lr", "train/loss", "epoch", "city/miou", "late", "step"])
    assert found["step"].tolist() == [step for _, step in ROWS] and found["train/loss"].dropna().tolist()[0] == 1 / 3


@pytest.mark.parametrize("kept", range(7))
@pytest.mark.parametrize("logged_before", [(0, 1, 2, 3, 4, 5), (2, 5), ()])
def test_it_continues_behind_the_rows_of_the_checkpoint(kept, logged_before, whole, tmp_path):
    """The rows behind those are in the file, or in part, and are logged again; headers grow in either part."""
    before = MetricsFile(tmp_path / "run")
    logged(before, ROWS[:kept])
    assert before.rows() == kept
    logged(before, ROWS[kept:], [number - kept for number in logged_before])
    again = MetricsFile(tmp_path / "run")
    again.restore(kept)
    assert again.rows() == kept
    logged(again, ROWS[kept:], (1, 3))
    assert again.rows() == len(ROWS) and (tmp_path / "run" / "metrics.csv").read_bytes() == whole


def test_a_torn_row_is_no_row(whole, tmp_path, capsys):
    file = tmp_path / "run" / "metrics.csv"
    file.parent.mkdir()
    for torn in (len(whole) - 1, len(whole) - 3):
        file.write_bytes(whole[:torn])
        again = MetricsFile(tmp_path / "run")
        again.restore(len(ROWS) - 1)
        logged(again, ROWS[-1:])
        again.save()
        assert file.read_bytes() == whole and capsys.readouterr().err == ""
    file.write_bytes(whole[:-3])
    MetricsFile(tmp_path / "run").restore(len(ROWS))
    assert "has 5 whole rows, and the training that continues had logged 6" in capsys.readouterr().err


def test_a_new_training_begins_with_an_empty_file(whole, tmp_path):
    file = MetricsFile(tmp_path / "whole")
    assert (tmp_path / "whole" / "metrics.csv").read_bytes() == whole  # until something is logged
    logged(file, ROWS[:1])
    file.save()
    assert pd.read_csv(tmp_path / "whole" / "metrics.csv")["lr"].tolist() == [0.1]


def test_a_kill_while_the_header_grows_loses_nothing(tmp_path, monkeypatch):
    file = MetricsFile(tmp_path)
    logged(file, ROWS[:2])
    file.save()
    before = (tmp_path / "metrics.csv").read_bytes()

    def kill(*_):
        raise KeyboardInterrupt

    logged(file, ROWS[2:3])
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", kill)
        with pytest.raises(KeyboardInterrupt):
            file.save()
    assert (tmp_path / "metrics.csv").read_bytes() == before


def test_rows_are_appended_and_not_written_anew(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(metrics_file, "write_whole", lambda *a, **k: written.append(whole_file.write_whole(*a, **k)))
    file = MetricsFile(tmp_path)
    for step in range(500):
        file.log_metrics({"loss": step}, step)
        file.save()
    assert len(written) == 1 and len(pd.read_csv(tmp_path / "metrics.csv")) == 500


def test_it_is_lightnings_logger_with_hyper_parameters(tmp_path):
    log = MetricsLog(tmp_path)
    log.log_hyperparams({"lr": 0.1})
    log.log_metrics({"loss": 1.0}, 3)
    log.finalize("success")
    assert (tmp_path / "hparams.yaml").read_text() == "lr: 0.1\n"
    assert pd.read_csv(tmp_path / "metrics.csv")["step"].tolist() == [3]
