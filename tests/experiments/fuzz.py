"""Draws command lines, config files and inputs at random, and looks how the scripts end.

    python -m tests.experiments.fuzz 600

draws so many over all scripts of experiments/, prints those that end badly, and fails where there are any. Each draw
has a number, which alone says what is drawn: `python -m tests.experiments.fuzz 1 317` repeats number 317.

Scripts run in this process. Networks are not built and nothing is trained or evaluated: what is tried is all that comes
before, which is what meets the user's input. A good end is exit status 0, or 2 (of `report.py` also 1) behind one
sentence on stderr, and no exception but SystemExit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import math
import os
import random
import sys
import tempfile
import traceback
import typing
import warnings
from pathlib import Path
from unittest import mock

import yaml

SCRIPTS = (
    "cls_batch_size", "cls_cifar", "cls_imagenet", "cls_office_home", "cls_resnet_rs", "cls_rs_efficientnet",
    "cls_rs_scaling", "cls_rs_weight_decay", "seg_gta2city", "eval_robustness", "evaluate", "predict",
    "export", "dashboard", "report",
)  # fmt: skip

INTEGERS = ("0", "1", "2", "3", "-1", "7", "16", "64", "10000000000", "9" * 30, "9" * 5000, "1.5", "1e3", "nan", "",
            "x", "0x10", "1_0", "٣", "-0", "+4", " 5", "--", "None", "true")  # fmt: skip
NUMBERS = ("0", "0.5", "1", "-1", "1e-3", "1e10", "1e300", "1e400", "-1e400", "1e-400", "nan", "-nan", "inf", "-inf",
           "0,5", "", "x", "1" * 400, "1e", ".", "٣.٥", "1_0.5", "5e-324", "None")  # fmt: skip
TEXTS = ("", " ", "x", "a b", "\n", "a\nb", "..", "%s", "{}", "{0.__class__}", "é", "😀", "\udcff", "x" * 5000, "'",
         '"', "$(x)",
         "--x", "-", "a/b/c", "shapes", "shapes/photo", "shapes/", "shapes/photo:", "shapes/photo:val:val", "+", "a+b",
         "pacs", "imagenet", "resnet18", "cifar_resnet8", "none", "auto", "laptop", "smoke", "bn", "sn", "ibn-a", "BN",
         "offline", "disabled", "whole", "both", "random", "transfer", "dann", "1x8", "0x8", "99999x99999",
         "streets-game",
         "streets-night:val", "streets-game streets-city", "clean", "64-true", "16-mixed", "torchvision/resnet18",
         "hf-hub:x/y", "timm/", "unet", "resnet-rs-50-160", "b0")  # fmt: skip
VALUES = (None, True, False, 0, -3, 7, 2.5, math.nan, math.inf, -math.inf, 1e300, 10**40, "", "x", "1", "1e-3", "a\0b",
          "two\nlines", [], [1], ["bn"], ["bn", "bn"], [None], [[1, 2]], [32], [32, 64], [32, 64, 96], [31, 31], {},
          {"a": 1}, [{"a": [1]}], "2024-01-01", "shapes", "\udc80")  # fmt: skip


TAKEN = {
    "data": ("shapes", "shapes/photo", "shapes/sketch", "shapes/photo+shapes/sketch"),
    "norm": ("bn", "bn sn bin", "ibn-a ibn-b", "sn-in-ln gn ln in", "bn bn", "syncbn"),
    "precision": ("32-true", "bf16-mixed", "64-true"), "batch_size": ("1", "2", "16", "4096"), "epochs": ("1", "1000"),
    "max_steps": ("1", "5000"), "seeds": ("1", "1000"), "seed": ("7", "4294967295"), "gpus": ("0",),
    "nodes": ("1", "3"),
    "recipe": ("auto", "laptop", "smoke", "dann", "linear", "ibn-step", "robustnet", "office-home"),
    "crop": ("padded", "64 64"),
    "backbone": ("resnet18", "cifar_resnet8", "resnet18 vgg11"), "image_size": ("16", "224"), "images": ("20", "100"),
    "ema_decay": ("0", "0.9", "0.99999"), "antialias": ("0 4", "3 3"), "evaluate": ("shifts", "shifts consistency"),
    "setting": ("mixed", "leave-one-out", "transfer"), "adapt": ("none", "dann"), "source": ("photo", "streets-game"),
    "target": ("sketch", "streets-night", "streets-city streets-fog:val"), "settings": ("1x8 2x4", "3x5"),
    "depths": ("50 101",), "widths": ("0.5 1",),
    "evaluation": ("whole", "sliding"), "norm_in": ("encoder", "decoder", "both"), "height": ("0", "64"),
    "scenes": ("1", "8"),
    "parts": ("clean", "clean shifts"), "severities": ("1 5",), "split": ("val", "train"), "wandb": ("disabled",),
    "unlabelled": ("shapes/sketch",), "sync_norm": ("",), "small_images": ("",), "layers": ("0", "3"),
}  # fmt: skip
"""Values that some of the scripts take, so that not every draw ends at its first flag."""


class Enough(Exception):
    """The input was taken: what would come now is the work."""


@dataclasses.dataclass
class Ending:
    """How a draw ended."""

    number: int
    line: list[str]
    status: int | None
    said: str
    fault: str  # what is wrong with the ending; "" where it is good


def files(folder: Path, dice: random.Random) -> dict[str, str]:
    """Files, and what is none, by a word for each."""
    made = {
        "empty": b"", "text": b"hello", "binary": bytes(range(256)) * 4, "utf-16": "norm: [bn]".encode("utf-16"),
        "latin": b"norm: [\xe9]", "list": b"[1, 2]", "number": b"3", "null": b"null", "open": b"norm: [bn",
        "tag": b"norm: !!python/object/apply:os.system [ls]", "tabs": b"\tnorm: bn", "keys": b"1: 2\nnull: 3\n[a]: 4",
        "bomb": b"a: &a [x,x]\nb: &b [*a,*a]\nnorm: &c [*b,*b,*b]", "loop": b"norm: &a [*a]",
        "date": b"norm: 2024-99-99",
        "deep": b"norm: " + b"[" * 5000, "two": b"a: 1\n---\nb: 2", "twice": b"norm: [bn]\nnorm: [sn]",
        "large": b"# " + b"x" * 2_000_000, "zip": b"PK\x03\x04" + bytes(200), "pickle": b"\x80\x04K\x01.",
        "png": b"\x89PNG\r\n\x1a\n" + bytes(30), "nul": b'out: "a\\0b"', "bom": b"\xef\xbb\xbfnorm: [bn]",
    }  # fmt: skip
    for name, content in made.items():
        (folder / f"{name}.ckpt").write_bytes(content)
    (folder / "folder").mkdir()
    (folder / "dangling").symlink_to("nowhere")
    (folder / "circle").symlink_to("circle")
    os.mkfifo(folder / "pipe")
    paths = {name: str(folder / f"{name}.ckpt") for name in made}
    paths |= {name: str(folder / name) for name in ("folder", "dangling", "circle", "pipe")}
    paths |= {"missing": str(folder / "missing"), "long": str(folder / ("n" * 300)), "below": paths["text"] + "/x"}
    return paths | {"null device": "/dev/null", "memory": "/proc/self/mem", "proc": "/proc/none/x"}


def drawn(number: int, folder: Path) -> tuple[str, list[str]]:
    """A script and its arguments."""
    dice = random.Random(number)
    script = SCRIPTS[number % len(SCRIPTS)]
    paths = files(folder, dice)
    if script == "report":
        return script, _report_line(dice, paths, folder)
    kinds = typing.get_type_hints(importlib.import_module(f"experiments.{script}").Flags)
    line = []
    if script in ("eval_robustness", "evaluate", "predict", "export"):
        line += dice.choices([*TEXTS, *paths.values(), str(folder)], k=dice.choice((0, 1, 1, 2)))
    if dice.random() < 0.35:
        line += ["--config", dice.choice([*paths.values(), *[_config(dice, kinds, folder)] * len(paths)])]
    known = [name for name in TAKEN if name in kinds]
    for name in dice.sample(known, min(len(known), dice.choice((0, 1, 2, 3)))):
        line += [f"--{name.replace('_', '-')}", *dice.choice(TAKEN[name]).split()]
    for name in dice.sample(sorted(kinds), dice.choice((0, 1, 1, 2))):
        line += _flag(dice, name, kinds[name], paths)
    if "project" in kinds and dice.random() < 0.7:
        line += ["--project", "normshift", "--dry-run", dice.choice(["spec.json", paths["folder"], paths["below"]])]
    if dice.random() < 0.05:
        line.insert(dice.randrange(len(line) + 1), dice.choice(["--unknown", "--", "-h9", "stray", "--nor", "--norm="]))
    if dice.random() < 0.3 and "smoke" in kinds:
        line += ["--smoke"]
    return script, [argument for argument in line if "\0" not in argument]  # which no command line can hold


def _report_line(dice: random.Random, paths: dict[str, str], folder: Path) -> list[str]:
    run = folder / "some-run"
    run.mkdir()
    for name in ("config.yaml", "arms.json", "table.json", "results.csv", "metrics.csv", "gates.parquet"):
        if dice.random() < 0.6:
            like = dice.choice(["empty", "text", "binary", "list", "null", "open"])
            (run / name).write_bytes(Path(paths[like]).read_bytes())
    line = dice.choices([str(run), *paths.values(), *TEXTS], k=dice.choice((0, 1, 1, 2)))
    return line + dice.choice([[], [], ["--gates", str(folder / "gates.png")], ["--gates"], ["--unknown"]])


def _config(dice: random.Random, kinds: dict, folder: Path) -> str:
    """A config file of flags, some of which have values of the wrong kind or length."""
    some = dice.sample(sorted(kinds), min(len(kinds), dice.choice((1, 1, 2, 3))))
    values = {name: dice.choice(VALUES) for name in some}
    values.pop("out", None)
    if dice.random() < 0.2:
        values[dice.choice(["colour", "git", "", "norms"])] = dice.choice(VALUES)
    file = folder / "drawn.yaml"
    try:
        file.write_text(yaml.safe_dump(values))
    except ValueError:  # half a surrogate, which no file holds
        file.write_text("norm: 3")
    return str(file)


def _flag(dice: random.Random, name: str, kind, paths: dict[str, str]) -> list[str]:
    if name in ("networks", "network", "inputs") or (name == "project" and dice.random() < 0.5):
        return []
    flag, text = f"--{name.replace('_', '-')}", str(kind)
    if name in ("out", "dry_run"):  # only where nothing of value is
        places = ("text", "dangling", "circle", "below", "long", "proc", "folder", "null device")
        return [flag, dice.choice(["", "x", "NAME", "a/b", *(paths[place] for place in places)])]
    pool = INTEGERS if "int" in text else NUMBERS if "float" in text else TEXTS
    if pool is TEXTS and (name in ("weights", "teacher", "data_root") or dice.random() < 0.1):
        pool = [*paths.values(), "none", "imagenet"]
    if kind is bool:
        return [flag] if dice.random() < 0.8 else [flag, dice.choice(TEXTS)]
    count = dice.choice((0, 1, 2, 2, 3)) if "list" in text or "tuple" in text else dice.choice((0, 1, 1, 1, 1, 1, 2))
    return [flag, *dice.choices(pool, k=count)]


@contextlib.contextmanager
def without_work():
    """Networks are not built, and nothing is trained or evaluated."""
    from experiments.study import loop
    from experiments.study.trained import evaluation, export, prediction
    from experiments.tasks import classification, costs, minival, robustness_comparison, segmentation

    def enough(*_, **__):
        raise Enough

    with contextlib.ExitStack() as stack:
        for module, name in (
            (loop, "train_arms"), (robustness_comparison, "evaluate"), (costs, "with_costs"), (minival, "score"),
            (evaluation, "evaluate_all"), (prediction, "begin"),
            (export, "begin"),
        ):  # fmt: skip
            stack.enter_context(mock.patch.object(module, name, enough))
        for module in (classification, segmentation):
            stack.enter_context(mock.patch.object(module, "build", lambda *_, **__: None))
            stack.enter_context(mock.patch.object(module, "check_affordable"))
        yield


def ending(number: int) -> Ending:
    """What comes of a draw."""
    before, said, status = Path.cwd(), io.StringIO(), None
    with tempfile.TemporaryDirectory() as folder:
        inputs, here = Path(folder) / "inputs", Path(folder) / "here" / "and" / "now"
        inputs.mkdir()
        here.mkdir(parents=True)
        script, line = drawn(number, inputs)
        main = importlib.import_module(f"experiments.{script}").main
        os.chdir(here)
        try:
            with (
                without_work(),
                mock.patch.object(sys, "argv", [f"{script}.py", *line]),
                contextlib.redirect_stderr(said),
                contextlib.redirect_stdout(io.StringIO()),
                warnings.catch_warnings(),
            ):
                warnings.simplefilter("ignore")
                main()
                status = 0
        except Enough:
            status = 0
        except SystemExit as stopped:
            status = stopped.code
        except BaseException:
            said.write(traceback.format_exc())
        finally:
            os.chdir(before)
    return Ending(number, [script, *line], status, said.getvalue(), _fault(script, status, said.getvalue()))


def _fault(script: str, status: int | None, said: str) -> str:
    if status is None or "Traceback" in said:
        return "traceback"
    good = {0, 1, 2} if script == "report" else {0, 2}
    if int(status or 0) not in good:
        return f"exit status {status}"
    lines = [line for line in said.splitlines() if line.strip()]
    sentence = len(lines) == 1 and lines[0].startswith("error: ") and len(lines[0]) > 20
    if status == 2 and script != "report" and not sentence:
        return "not one sentence"
    return "as long as a page" if status and max(map(len, lines), default=0) > 9000 else ""


def main(count: int, first: int = 0) -> int:
    endings = [ending(number) for number in range(first, first + count)]
    bad = [one for one in endings if one.fault]
    for one in bad:
        print(f"--- {one.number}: {one.fault}\n{' '.join(map(repr, one.line))[:1500]}\n{one.said[-1500:]}")
    statuses = {status: sum(one.status == status for one in endings) for status in (0, 1, 2)}
    print(f"{len(endings)} draws: exit statuses {statuses}, {len(bad)} bad endings")
    return len(bad)


if __name__ == "__main__":
    sys.exit(bool(main(*map(int, sys.argv[1:]))))
