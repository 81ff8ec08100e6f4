"""Numbers, texts and config files as flags: what does not fit is one sentence, before anything is loaded."""

import dataclasses
import importlib
import math
import os
import typing

import pytest

from experiments.study.bounds import BOUNDS, LARGEST, Bounds, check_bounds, fitting
from experiments.study.endings import UsageError
from experiments.study.flags import RunFlags, parse

SCRIPTS = (
    "cls_batch_size", "cls_cifar", "cls_imagenet", "cls_office_home", "cls_resnet_rs", "cls_rs_efficientnet",
    "cls_rs_scaling", "cls_rs_weight_decay", "seg_gta2city", "eval_robustness", "evaluate",
    "predict", "dashboard",
)  # fmt: skip
FLAGS = {name: importlib.import_module(f"experiments.{name}").Flags for name in SCRIPTS}
NUMERIC = [
    (script, name, "float" if "float" in str(kind) else "int")
    for script, flags in FLAGS.items()
    for name, kind in typing.get_type_hints(flags).items()
    if "int" in str(kind) or "float" in str(kind)
]


def sentence(flags, line: list[str], capsys) -> str:
    with pytest.raises(SystemExit) as stopped:
        parse(flags, "", line)
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    return said


def required(flags) -> list[str]:
    return ["--project", "normshift"] if "project" in {field.name for field in dataclasses.fields(flags)} else []


@pytest.mark.parametrize(("script", "name", "kind"), NUMERIC)
def test_every_number_has_an_end(script, name, kind, capsys):
    flag, flags = f"--{name.replace('_', '-')}", FLAGS[script]
    values = (
        ["nan", "inf", "-inf", "1e300", "-1e300", "x"] if kind == "float" else ["9" * 30, "-" + "9" * 30, "1.5", "nan"]
    )
    for value in values:
        more = [value] if name == "crop" and script == "seg_gta2city" else []
        joined = [f"{flag}={value}"] if not more else [flag, *more, value]  # a minus begins a flag
        assert flag in sentence(flags, [*joined, *required(flags)], capsys)


def test_the_ends_themselves_are_taken():
    @dataclasses.dataclass
    class Some:
        seed: int = 0
        lr: float = 1.0
        ema_decay: float = 0.0
        sizes: tuple = (16,)
        other: float = 0.0

    for name, (low, high) in {"seed": BOUNDS["seed"], "lr": BOUNDS["lr"], "other": Bounds(-LARGEST, LARGEST)}.items():
        for value in (low, high):
            assert check_bounds(Some(**{name: value})) is None
    assert check_bounds(Some(seed=-1)) == "--seed -1: it must be 0 or more."
    assert check_bounds(Some(seed=2**32)) == "--seed 4294967296: it must be 4294967295 or less."
    assert check_bounds(Some(lr=math.nan)) == "--lr nan: it must be a finite number."
    assert check_bounds(Some(lr=0.0)) == "--lr 0: it must be 1e-12 or more."
    assert check_bounds(Some(sizes=(16, 17, 15))) == "--sizes 15: it must be 16 or more."
    assert check_bounds(Some(ema_decay=2.0), ema_decay=Bounds(0, 3)) is None
    assert "of many digits" in check_bounds(Some(seed=10**100_000))


def test_seeds_end_where_numpys_do(capsys):
    parse(FLAGS["cls_cifar"], "", ["--seed", "4294967295"])
    assert "the last seed" in sentence(FLAGS["cls_cifar"], ["--seed", "4294967295", "--seeds", "2"], capsys)


def test_a_run_without_a_folder_is_refused():
    with pytest.raises(UsageError, match="--out: name a folder"):
        RunFlags(out=" ")


def test_loader_processes_do_not_fork_without_end():
    assert 64 <= BOUNDS["workers"].high <= max(64, 2 * os.cpu_count())


@pytest.mark.parametrize(
    ("value", "kind", "fits"),
    [
        (3, int, 3), (3, float, 3.0), ("1e-3", float, 1e-3), (True, bool, True), (None, int | None, None),
        ([1, 2], tuple[int, int] | None, (1, 2)), (["bn"], list[str], ["bn"]), ([1, 0.5], list[float], [1.0, 0.5]),
    ],
)  # fmt: skip
def test_values_of_a_config_that_fit(value, kind, fits):
    found = fitting(value, kind)
    assert found == fits and type(found) is type(fits)


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("3", int, "an integer"), (3.0, int, "an integer"), (True, int, "an integer"), (True, float, "a number"),
        ("yes", bool, "true or false"), (1, bool, "true or false"), (3, str, "a text"), (["a"], str, "a text"),
        ("bn", list[str], "a list of texts"), ([1], list[str], "a text"), ([["a"]], list[str], "a text"),
        ([32], tuple[int, int], "a list of 2 integers"), ([1, 2, 3], tuple[int, int] | None, "a list of 2 integers"),
        ({"a": 1}, list[int], "a list of integers"), (None, str, "a text"), (10**400, float, "a number"),
    ],
)  # fmt: skip
def test_values_of_a_config_that_do_not(value, kind, expected):
    with pytest.raises(TypeError, match=expected):
        fitting(value, kind)


CONFIGS = {
    "nothing": b"", "no flags": b"- norm", "no YAML": b"norm: [bn", "another encoding": "norm: [bn]".encode("utf-16"),
    "Latin-1": b"data: \xe9", "bytes": bytes(range(256)), "no date": b"norm: 2024-99-99", "deep": b"[" * 5000,
    "keys of all kinds": b"1: 2\nnull: 3\n? [a]\n: 4", "code": b"norm: !!python/object/apply:os.getcwd []",
    "large": b"norm: [bn] #" + b"x" * 2_000_000, "a loop": b"norm: &a [*a]", "unknown": b"colour: red",
    "a text for a number": b"batch_size: '16'", "a text for yes": b"smoke: 'no'", "NaN": b"lr: .nan",
    "infinite": b"weight_decay: .inf", "a list for a number": b"seed: [1, 2]", "a nested list": b"norm: [[bn]]",
    "null": b"data: null", "a number for a text": b"out: 3", "NUL": b'out: "a\\0b"',
    "huge": b"workers: 1" + b"0" * 5000,
}  # fmt: skip


@pytest.mark.parametrize("content", CONFIGS.values(), ids=CONFIGS)
def test_a_config_that_is_none(content, tmp_path, capsys):
    (tmp_path / "config.yaml").write_bytes(content)
    sentence(FLAGS["cls_imagenet"], ["--config", str(tmp_path / "config.yaml")], capsys)


def test_a_config_that_is_no_file(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to("nowhere")
    for place in ("pipe", "dangling", ".", "missing", "n" * 300, "pipe/x"):
        assert "--config" in sentence(FLAGS["cls_imagenet"], ["--config", str(tmp_path / place)], capsys)
    assert "no regular file" in sentence(FLAGS["cls_imagenet"], ["--config", "/dev/zero"], capsys)


@pytest.mark.parametrize("crop", ["[64]", "[64, 64, 64]", "[64, x]", "64", "[33, 64]", "[-32, 64]", "{a: 1}"])
def test_crops_of_the_wrong_length_or_size(crop, tmp_path, capsys):
    (tmp_path / "config.yaml").write_text(f"crop: {crop}")
    assert "crop" in sentence(FLAGS["seg_gta2city"], ["--config", str(tmp_path / "config.yaml")], capsys)
    (tmp_path / "config.yaml").write_text("crop: [64, 96]\nlr: 1e-3")
    taken = parse(FLAGS["seg_gta2city"], "", ["--config", str(tmp_path / "config.yaml")])
    assert taken.crop == (64, 96) and taken.lr == 1e-3


def test_bytes_that_are_no_text_are_no_names():
    with pytest.raises(UsageError, match=r"--out a.b: it holds bytes that are no text"):
        FLAGS["cls_cifar"](out="a\0b")
    with pytest.raises(UsageError, match="no text"):
        FLAGS["cls_cifar"](data="\udcff")
