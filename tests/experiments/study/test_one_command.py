"""One command starts a run, goes on with it, says that it is finished, and makes it longer."""

import filecmp
import json
from pathlib import Path

import pandas as pd
import pytest

from experiments import cls_imagenet
from experiments.study.endings import UsageError
from experiments.study.flags import chosen_resume, parse, resumes
from experiments.study.resume.time_limit import TimeLimit, seconds_of
from tests.experiments.study import toy_study

LINE = "--gpus 0 --workers 0 --wandb disabled --norm sn --resume auto"


def toy(line: str, out: Path) -> pd.DataFrame:
    return toy_study.run(parse(toy_study.Flags, "", [*line.split(), "--out", str(out)]))


def test_the_same_line_starts_and_says_that_it_is_finished(tmp_path, capsys):
    first = toy(LINE, tmp_path / "run")
    result = tmp_path / "run" / "sn-0.1-seed0" / "result.json"
    written = result.stat().st_mtime_ns
    assert "finished" not in capsys.readouterr().out
    pd.testing.assert_frame_equal(toy(LINE, tmp_path / "run"), first)
    printed = capsys.readouterr().out
    assert f"finished: every training of {tmp_path / 'run'} has been done before" in printed and "report: " in printed
    assert result.stat().st_mtime_ns == written
    with pytest.raises(UsageError, match="already holds a run: pass --resume"):
        toy(LINE.replace("auto", "no"), tmp_path / "run")
    with pytest.raises(UsageError, match="there is no run in"):
        toy(LINE.replace("auto", "yes"), tmp_path / "other")


@pytest.mark.parametrize(
    ("environment", "default"),
    [
        ({}, "no"),
        ({"SLURM_JOB_ID": "7"}, "auto"),
        ({"PBS_JOBID": "7"}, "auto"),
        ({"LSB_JOBID": "7"}, "auto"),
        ({"TORCHELASTIC_MAX_RESTARTS": "0"}, "no"),
        ({"TORCHELASTIC_MAX_RESTARTS": "2"}, "auto"),
    ],
)
def test_a_job_of_a_scheduler_goes_on_by_itself(environment, default, monkeypatch):
    for name in ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID", "TORCHELASTIC_MAX_RESTARTS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert parse(toy_study.Flags, "", []).resume == default
    assert parse(toy_study.Flags, "", ["--resume"]).resume == "yes"
    assert parse(toy_study.Flags, "", ["--resume", "no"]).resume == "no"


def test_what_resume_takes(tmp_path):
    assert [chosen_resume(value) for value in (True, False, "auto")] == ["yes", "no", "auto"]
    with pytest.raises(UsageError, match="--resume maybe: choose from auto, yes, no"):
        chosen_resume("maybe")
    assert resumes("yes", tmp_path) and not resumes("auto", tmp_path) and not resumes("no", tmp_path)
    (tmp_path / "bn-seed0").mkdir()
    assert resumes("auto", tmp_path) and not resumes("no", tmp_path)


def test_a_longer_training_is_that_of_its_whole_length(tmp_path):
    toy(f"{LINE} --max-steps 3", tmp_path / "run")
    toy(f"{LINE} --max-steps 6", tmp_path / "run")
    toy(f"{LINE} --max-steps 6", tmp_path / "whole")
    for name in ("gates.parquet", "metrics.csv", "results.csv", "sn-0.1-seed0/result.json"):
        assert filecmp.cmp(tmp_path / "run" / name, tmp_path / "whole" / name, shallow=False), name
    assert not (tmp_path / "run" / "sn-0.1-seed0" / "result-shorter.json").exists()
    with pytest.raises(UsageError, match=r"started with other flags \(max_steps was 6"):
        toy(f"{LINE} --max-steps 4", tmp_path / "run")


def test_a_schedule_that_ends_with_the_training_cannot_be_made_longer(tmp_path):
    line = "--gpus 0 --workers 0 --wandb disabled --recipe smoke --data shapes/photo --width 0.25 --images 40 --norm bn"
    line = f"{line} --resume auto --out {tmp_path / 'run'} --max-steps"

    def run(steps: int) -> pd.DataFrame:
        return cls_imagenet.run(parse(cls_imagenet.Flags, "", [*line.split(), str(steps)]))

    run(5)
    before = json.loads((tmp_path / "run" / "bn-seed0" / "result.json").read_text())
    with pytest.raises(
        UsageError, match="max_steps was 5 and is now 10, but bn cannot be trained longer, since its lear"
    ):
        run(10)
    assert json.loads((tmp_path / "run" / "bn-seed0" / "result.json").read_text()) == before
    assert len(run(5))


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 5400), ("1.5", 90), ("01:30:00", 5400), ("0:00:20", 20), ("2-03:00:00", 183_600)]
)
def test_limits_of_time(text, seconds):
    assert seconds_of(text) == seconds
    limit = TimeLimit(text, started=0)
    assert limit.reached()  # of 1970


@pytest.mark.parametrize("text", ["", "soon", "-3", "0", "1:30", "1:60:00", "0:00:00"])
def test_other_limits_are_refused(text):
    with pytest.raises(UsageError, match="pass minutes, HH:MM:SS or D-HH:MM:SS"):
        seconds_of(text)


def test_a_study_stops_before_its_limit_and_goes_on(tmp_path, capsys):
    """The reserve for a checkpoint and the report is longer than this limit: it stops before the first training."""
    with pytest.raises(SystemExit) as stopped:
        toy(f"{LINE} --time-limit 0:00:10", tmp_path / "run")
    assert stopped.value.code == 124
    assert "stopped between two trainings, since --time-limit 0:00:10 is near" in capsys.readouterr().err
    assert len(toy(LINE, tmp_path / "run"))
