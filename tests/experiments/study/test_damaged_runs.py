"""Run folders in whatever state a kill, a full disk or a slip of the hand leaves them: what is whole is shown."""

import json
import re
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from experiments.report import main
from experiments.reporting import notebook_runs
from experiments.reporting.gate_bars import print_gates
from experiments.reporting.page import write_report
from experiments.study.endings import UsageError
from experiments.study.reader import read_folder
from tests.experiments.study.test_run_folder import ARMS, accuracy, fill, opened
from tests.experiments.three_norms import finished_run

FILES = ("config.yaml", "arms.json", "table.json", "results.csv", "metrics.csv", "gates.parquet", "divergence.csv")


def in_its_place(file: Path) -> None:
    file.unlink()
    file.mkdir()


def dangling(file: Path) -> None:
    file.unlink()
    file.symlink_to("nowhere")


def changed(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    """A table of the run, changed."""

    def apply(file: Path) -> None:
        parquet = file.suffix == ".parquet"
        table = change(pd.read_parquet(file) if parquet else pd.read_csv(file))
        table.to_parquet(file) if parquet else table.to_csv(file, index=False)

    return apply


def written(text: str) -> Callable[[Path], None]:
    return lambda file: file.write_text(text)


OF_ANY = {
    "missing": Path.unlink,
    "empty": written(""),
    "cut": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "garbage": lambda file: file.write_bytes(bytes(range(256)) * 9),
    "zeros": lambda file: file.write_bytes(bytes(4096)),
    "a folder": in_its_place,
    "a dangling link": dangling,
}
OF_TABLES = {
    "no arm": changed(lambda table: table.drop(columns="arm")),
    "no seed": changed(lambda table: table.drop(columns="seed")),
    "the last column alone": changed(lambda table: table.iloc[:, -1:]),
    "no rows": changed(lambda table: table.iloc[:0]),
    "NaN": changed(lambda table: table.assign(**{c: float("nan") for c in table.select_dtypes("number")})),
    "infinite": changed(lambda table: table.assign(**{c: float("inf") for c in table.select_dtypes("float")})),
    "words for numbers": changed(lambda table: table.astype(str).assign(**dict.fromkeys(table, "word"))),
    "unknown norms": changed(lambda table: table.assign(norm="mystery-norm")),
    "other arms": changed(lambda table: table.assign(arm="stranger")),
}
OF_TEXTS = {
    "a list": written("[1, 2]"),
    "a number": written("7"),
    "null": written("null"),
    "numbers in names' places": written('{"3": 4, "source": 5, "seeds": "many", "seed": [1]}'),
    "columns of other kinds": written('{"bn": {"norm": ["bn"]}, "sn": {"norm": {"a": 1}}, "bin": {}}'),
    "unknown norms": written('{"bn": {"norm": "mystery"}, "zn": {"norm": "mystery", "backbone": null}}'),
    "a table of nothing": written('{"rows": [], "columns": {}, "legend": "", "corner": "", "smaller": [], '
                                  '"unranked": [], "digits": {}}'),
    "a table of words": written('{"rows": ["a"], "columns": {"x": {"mean": ["b"], "sd": [0], "n": [1]}}, "legend": 1, '
                                '"corner": 2, "smaller": [], "unranked": [], "digits": {"x": "y"}}'),
    "no seeds": written("seeds: 0\nseed: 0"),
    "seeds without end": written("seeds: 99999999999999\nseed: 0"),
    "deep": written("[" * 3000),
}  # fmt: skip
STATES = (
    [(file, state, spoil) for file in FILES for state, spoil in OF_ANY.items()]
    + [(file, state, spoil) for file in FILES[3:] for state, spoil in OF_TABLES.items()]
    + [(file, state, spoil) for file in FILES[:3] for state, spoil in OF_TEXTS.items()]
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A finished run as all its files are gathered."""
    return finished_run(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """A study's run, with the folders of its trainings."""
    folder = opened(tmp_path_factory.mktemp("study") / "run")
    for arm in ARMS:
        for seed in (3, 4):
            fill(folder, arm, seed, 0.5)
    folder.gather(1, accuracy)
    return folder.path


def looked_at(run: Path) -> str:
    """What the page says, where there can be one; tables, terminal and notebooks look at the folder as well."""
    try:
        page = write_report(run).read_text(encoding="utf-8")
    except ValueError as error:
        page = str(error)
        assert "Traceback" not in page and str(run) in page
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for style in (read_folder, notebook_runs._finished):
            try:
                style(run)
            except UsageError as error:
                assert str(run) in str(error)
    print_gates(run)
    return page


def chosen(states: list[tuple]) -> list:
    """Every ninth of the states, which are many to draw figures of; the others are slow tests."""
    slow = pytest.mark.slow
    return [
        pytest.param(*state, id=f"{state[0]}, {state[1]}", marks=() if i % 9 == 0 else slow)
        for i, state in enumerate(states)
    ]


@pytest.mark.parametrize(("file", "state", "spoil"), chosen(STATES))
def test_what_is_whole_is_shown_and_what_is_not_is_named(file, state, spoil, whole, tmp_path, monkeypatch, capsys):
    run = shutil.copytree(whole, tmp_path / "run")
    spoil(run / file)
    page = looked_at(run)
    assert "<h2>Result</h2>" in page or "no run folder" in page or "--resume" in page
    if state in ("garbage", "zeros", "a folder", "cut") and (file, state) not in LESS:
        assert re.search(rf"Damaged and therefore left out: {file}", re.sub("</?(span|wbr)[^>]*>", "", page))


LESS = {
    ("results.csv", "cut"), ("metrics.csv", "cut"), ("divergence.csv", "cut"),  # fewer rows
    ("config.yaml", "cut"),  # fewer flags
}  # fmt: skip
"""What is cut in the middle and still tells something."""

FILES = ("result.json", "metrics.csv", "gates.parquet")
OF_RESULTS = {
    "a list": written("[]"),
    "a list of numbers": written('{"results": [1, 2]}'),
    "no list": written('{"results": 3}'),
    "lists of lists": written('{"results": [[1], [2]], "divergence": null}'),
}
OF_FILES = [(file, state, spoil) for file in FILES for state, spoil in OF_ANY.items()]
OF_FILES += [("result.json", state, spoil) for state, spoil in OF_RESULTS.items()]
OF_FILES += [("metrics.csv", "words for steps", written("step,train/loss\na,1\nb,2\n"))]


@pytest.mark.parametrize(("file", "state", "spoil"), chosen(OF_FILES))
def test_a_training_that_is_damaged_costs_the_others_nothing(file, state, spoil, study, tmp_path):
    run = shutil.copytree(study, tmp_path / "run")
    spoil(run / "r18-sn-seed4" / file)
    page = looked_at(run)
    assert "<h2>Result</h2>" in page and "r18-bn" in page
    if state in ("garbage", "zeros", "a folder") or state in OF_RESULTS:
        assert f"r18-sn-seed4/{file}" in re.sub("</?(span|wbr)[^>]*>", "", page)
    if file == "result.json" and state not in ("missing", "a dangling link"):
        with pytest.raises(UsageError, match=r"result.json is damaged: move .*r18-sn-seed4 away"):
            opened(run, resume=True)


DAMAGE = ("empty", "garbage", "zeros", "a folder", "a list", "a number", "null", "deep")


@pytest.mark.parametrize("state", ["missing", *DAMAGE])
@pytest.mark.parametrize("file", ["config.yaml", "arms.json"])
def test_resume_says_what_to_do_about_what_it_cannot_read(file, state, study, tmp_path):
    run = shutil.copytree(study, tmp_path / "run")
    (OF_ANY | OF_TEXTS)[state](run / file)
    if (file, state) == ("arms.json", "missing"):
        opened(run, resume=True)
        assert list(json.loads((run / file).read_text())) == list(ARMS)
        return
    with pytest.raises(UsageError, match=rf"--resume: .*{file} is (damaged|missing): "):
        opened(run, resume=True)


def test_the_command_shows_what_it_can_and_names_the_rest(whole, tmp_path, monkeypatch, capsys):
    run = shutil.copytree(whole, tmp_path / "run")
    (run / "gates.parquet").write_bytes(b"PAR1 and no more")
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setattr(sys, "argv", ["report.py", str(run), str(empty), str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    printed = capsys.readouterr()
    assert printed.out.strip() == str(run / "report.html")
    assert "Damaged and therefore left out: gates.parquet." in printed.err
    assert printed.err.count("is no run folder") == 2 and "Traceback" not in printed.err
