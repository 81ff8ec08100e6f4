"""W&B that is out of reach costs a run its time neither at the beginning nor its life."""

import os
import socket
from types import SimpleNamespace

import pytest
import wandb

from experiments.study.run_folder import SHORTER
from experiments.study.wandb_runs import start as wandb_start
from experiments.study.wandb_runs.start import keep_rows_at_end, start_training, trouble_online


@pytest.fixture(autouse=True)
def nobody(monkeypatch, tmp_path):
    """No login, no W&B, nothing found out before."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(wandb_start, "_chosen", {})


@pytest.fixture
def begun(monkeypatch):
    """The modes that runs are begun in; online and what `fails` names cannot be."""
    modes, fails = [], {"online"}

    def init(mode, id=None, resume=None, **_):
        modes.append(mode)
        if mode in fails:
            raise wandb.errors.CommError(f"Run initialization has timed out\nin {mode}")
        return SimpleNamespace(mode=mode, id=id, resume=resume, starting_step=0, log=lambda *_: None)

    monkeypatch.setattr(wandb, "init", init)
    return modes, fails


def start(mode, folder):
    return begin(folder / "part", mode).mode


def begin(folder, mode="offline"):
    return start_training(mode, folder, "study", "run", {})


def test_a_training_keeps_its_run(begun, tmp_path, monkeypatch):
    """One that was killed while it wrote the id has logged nothing yet."""
    first, again, other = begin(tmp_path / "a"), begin(tmp_path / "a"), begin(tmp_path / "b")
    assert first.id == again.id != other.id and first.resume == "allow"
    keep_rows_at_end(tmp_path / "a", 7)
    assert begin(tmp_path / "a").id == first.id
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    assert begin(tmp_path / "a").id is None  # the agent's choice


def test_a_longer_training_begins_behind_the_end(begun, tmp_path):
    begin(tmp_path)
    keep_rows_at_end(tmp_path, 7)
    for longer, number in ((False, 5), (True, 7)):
        if longer:
            (tmp_path / SHORTER).touch()
        run = begin(tmp_path)
        run.log.restore(5)
        assert run.log.number == number


@pytest.mark.parametrize(
    ("mode", "trouble", "comes_to", "said"),
    [
        ("auto", "", "offline", "no run can begin (Run initialization has timed out in online)"),
        ("auto", "you are not logged in", "offline", ""),
        (
            "auto",
            "https://api.wandb.ai does not answer",
            "offline",
            "W&B: https://api.wandb.ai does not answer; runs stay",
        ),
        ("online", "you are not logged in", "offline", "W&B: you are not logged in; runs stay offline"),
        ("offline", "must not be asked", "offline", ""),
    ],
)
def test_a_run_goes_offline_and_says_so_once(mode, trouble, comes_to, said, begun, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(wandb_start, "trouble_online", lambda: trouble)
    assert [start(mode, tmp_path), start(mode, tmp_path)] == [comes_to, comes_to]
    assert begun[0].count("online") == (1 if trouble == "" else 0)  # the second does not wait once more
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == bool(said)


def test_a_training_goes_on_where_not_even_files_can_be_kept(begun, tmp_path, capsys):
    begun[1].add("offline")
    assert start("offline", tmp_path) == start("offline", tmp_path) == "disabled"
    assert capsys.readouterr().err.endswith("; nothing is logged there.\n") and begun[0] == [
        "offline",
        "disabled",
        "disabled",
    ]


def test_a_home_that_cannot_be_written_is_not_needed(tmp_path, monkeypatch):
    for variable in wandb_start.HOME_FOLDERS:
        monkeypatch.setenv(variable, "/dev/null/x")
    wandb_start._own_folders(tmp_path, wandb.env)
    assert wandb.env.get_data_dir() == str(tmp_path / "data")
    before = dict(os.environ)
    wandb_start._own_folders(tmp_path / "another", wandb.env)  # what can be written stays
    assert dict(os.environ) == before


def test_who_answers(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert wandb_start._answers(f"http://127.0.0.1:{port}")
        monkeypatch.setenv("https_proxy", f"127.0.0.1:{port}")
        assert wandb_start._answers("https://api.wandb.invalid")  # by way of the proxy
        monkeypatch.delenv("https_proxy")
    assert not wandb_start._answers(f"http://127.0.0.1:{port}") and not wandb_start._answers("https://host.invalid")


@pytest.mark.parametrize(("login", "said"), [(True, "does not answer"), (False, "you are not logged in")])
def test_what_the_trouble_is(login, said, monkeypatch):
    monkeypatch.setattr(wandb, "login", lambda **_: login)
    monkeypatch.setattr(wandb_start, "_answers", lambda url: False)
    assert said in trouble_online()


def test_a_key_that_is_none(monkeypatch):
    def login(**_):
        raise wandb.errors.AuthenticationError("API key must have 40+ characters, has 3.")

    monkeypatch.setattr(wandb, "login", login)
    assert "the login does not work (API key must have 40+ characters" in trouble_online()
