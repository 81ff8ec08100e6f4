"""The cost of a norm layer on the activations of three networks, compared with torch's batch norm.

    python benchmarks/norms.py
    python benchmarks/norms.py --sets resnet50 cifar streets --modes train eval --dtypes float32 bfloat16 --forms ours
    python benchmarks/norms.py --sets cifar --forms ours --before ../another-checkout
    python benchmarks/norms.py --device cuda --dtypes bfloat16 --json norms.json

The sets of shapes are a ResNet-50's at 224 pixels, a CIFAR ResNet's at batch 64, and at batch 8 those of the laptop
recipe's network for streets.

Each norm runs in three forms: ours; ours in plain torch (NORMSHIFT_KERNELS=torch); and as published, which computes the
paper's formula term by term. Also timed are the floor, which only moves the same bytes (see bandwidth.py), and a second
nn.BatchNorm2d, whose deviation from 1 shows the accuracy of the measurement.

--before names the root of another checkout of this repository. Each setting is then measured by that checkout as well,
in a process of its own right before, against `nn.BatchNorm2d` there.

All candidates alternate in one process, in a random order in each round. Every time is divided by that of
nn.BatchNorm2d in the same round, for the same shape, layout and type. Medians over the rounds are printed, with
quartiles in brackets. The summary has the geometric means over the shapes, computed for each round. Memory kept for the
backward pass counts each storage once, without parameters, as a multiple of the activation: batch norm keeps 1, the
activation itself. The share of the copy bandwidth is the floor's traffic divided by the time; with data in caches it
can exceed 100 %.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import machine
from paired import Spread, geometric_means, spread

NORMS = ("sn", "bin", "ibn-a", "in", "bn")
FORMS = ("ours", "plain", "published")
MODES = ("train", "eval")
LAYOUTS = ("contiguous", "channels-last")
DTYPES = ("float32", "bfloat16", "float16")
RESNET50 = (
    (64, 112, 112), (64, 56, 56), (256, 56, 56), (128, 56, 56), (128, 28, 28), (512, 28, 28), (256, 28, 28),
    (256, 14, 14), (1024, 14, 14), (512, 14, 14), (512, 7, 7), (2048, 7, 7),
)  # fmt: skip
"""The distinct shapes (channels, height, width) of norm inputs in torchvision's ResNet-50, for images of 224 pixels."""

CIFAR = ((16, 32, 32), (32, 16, 16), (64, 8, 8))
"""Those of a CIFAR ResNet (He et al., CVPR 2016, section 4.2)."""

STREETS = (
    (64, 48, 96), (32, 24, 48), (64, 24, 48), (64, 12, 24), (128, 6, 12), (64, 6, 12), (256, 3, 6), (64, 3, 6),
)  # fmt: skip
"""Those of the laptop recipe's network for crops of 96 x 192 pixels, without its maps pooled to 6 x 6 or less."""

SETS = {"resnet50": (RESNET50, None), "cifar": (CIFAR, 64), "streets": (STREETS, 8)}
"""Shapes, and images in a batch; None: by the device."""

QUICK = {"shapes": [(64, 14, 14), (32, 7, 7)], "batch_size": 2, "rounds": 2, "min_ms": 1.0}


def main(arguments: Sequence[str] | None = None) -> None:
    flags = parsed(arguments)
    record = {"benchmark": "norms"} | machine.description(flags) | {"rows": [], "summary": []}
    print(f"{machine.heading(record)}; {flags.rounds} rounds", flush=True)
    for name, mode, dtype, layout in product(flags.sets, flags.modes, flags.dtypes, flags.layouts):
        shapes, batch_size = chosen(name, flags)
        print(f"\n{name}, batch {batch_size}, {mode} mode", file=sys.stderr, flush=True)
        setting = {"mode": mode, "dtype": dtype, "layout": layout, "batch_size": batch_size, "shapes": shapes}
        with machine.limits_in_words():
            rows = [row | {"set": name} for row in before(setting, flags) + now(setting, flags)]
        summary = summarized(rows)
        for norm in flags.norms:
            print_norm(norm, rows, summary)
        record["rows"] += rows
        record["summary"] += summary
        machine.save(record, flags.json)
    print_summary(record["summary"])


def chosen(name: str, flags: argparse.Namespace) -> tuple[Sequence[tuple[int, int, int]], int]:
    """A set's shapes and the number of images, where flags do not say otherwise."""
    shapes, batch_size = SETS[name]
    return flags.shapes or shapes, flags.batch_size or batch_size or (64 if flags.device == "cuda" else 32)


def now(setting: dict, flags: argparse.Namespace) -> list[dict]:
    """One setting, measured in this process."""
    from norm_passes import Setting, measured  # imports torch

    own = Setting(flags.device, setting["dtype"], setting["layout"], setting["mode"], setting["batch_size"])
    return measured(own, setting["shapes"], flags)


def before(setting: dict, flags: argparse.Namespace) -> list[dict]:
    """The same setting, measured by another checkout in a process of its own; nothing where none is named."""
    if not flags.before:
        return []
    own = {
        "norms": flags.norms,
        "forms": ["ours"],
        "shapes": ["x".join(map(str, shape)) for shape in setting["shapes"]],
    }
    own |= {"batch-size": [setting["batch_size"]], "layouts": [setting["layout"]], "dtypes": [setting["dtype"]]}
    own |= {"modes": [setting["mode"]], "device": [flags.device], "rounds": [flags.rounds], "min-ms": [flags.min_ms]}
    own |= {"threads": [flags.threads]} if flags.threads else {}
    arguments = [word for flag, values in own.items() for word in (f"--{flag}", *map(str, values))]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "rows.json")
        command = [sys.executable, __file__, *arguments, "--json", str(file)]
        environment = os.environ | {"PYTHONPATH": str(flags.before)}
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        found = json.loads(file.read_text())["rows"]
    return [row | {"form": "before"} for row in found if row["form"] == "ours"]


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--norms", nargs="+", choices=NORMS, default=NORMS, metavar="NORM", help=", ".join(NORMS))
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS, metavar="FORM", help=", ".join(FORMS))
    parser.add_argument(
        "--sets", nargs="+", choices=SETS, default=("resnet50",), metavar="SET", help=f"of shapes: {', '.join(SETS)}"
    )
    parser.add_argument("--shapes", nargs="+", type=_shape, metavar="CxHxW", help="in place of a set's")
    parser.add_argument(
        "--batch-size", type=machine.positive, metavar="N", help="by default the set's, or 32, on a GPU 64"
    )
    parser.add_argument(
        "--layouts", nargs="+", choices=LAYOUTS, default=LAYOUTS, metavar="LAYOUT", help=", ".join(LAYOUTS)
    )
    parser.add_argument(
        "--dtypes", nargs="+", choices=DTYPES, default=DTYPES[:1], metavar="TYPE", help=", ".join(DTYPES)
    )
    parser.add_argument(
        "--modes",
        nargs="+",
        choices=MODES,
        default=MODES[:1],
        metavar="MODE",
        help="train; eval: the forward pass alone",
    )
    parser.add_argument("--before", type=_checkout, metavar="FOLDER", help="another checkout to be measured as well")
    parser.add_argument("--min-ms", type=_milliseconds, metavar="MS", help="shortest time of a sample; by default 20")
    machine.add_flags(parser)
    flags = parser.parse_args(arguments)
    machine.prepare(parser, flags)
    ordinary = {"rounds": 15, "min_ms": 20.0}
    for name, value in (QUICK if flags.quick else ordinary).items():
        setattr(flags, name, getattr(flags, name) or value)
    return flags


def _shape(text: str) -> tuple[int, int, int]:
    parts = text.split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(f"a shape is CHANNELSxHEIGHTxWIDTH, as in 64x112x112; got {text!r}")
    channels, height, width = (int(part) for part in parts)
    if channels < 2 or height * width < 2:
        raise argparse.ArgumentTypeError(f"a shape has two channels for IBN-a, and two positions or more; got {text!r}")
    return channels, height, width


def _checkout(text: str) -> Path:
    folder = Path(text).resolve()
    if not (folder / "normshift" / "__init__.py").is_file():
        raise argparse.ArgumentTypeError(f"{text} is no checkout of this repository: it has no normshift/__init__.py")
    return folder


def _milliseconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a time above 0, in milliseconds, got {text!r}")
    return value


def summarized(rows: list[dict]) -> list[dict]:
    """A row for each candidate of a setting, with the geometric means of its ratios over the shapes, for each round."""
    found = []
    for norm, form in dict.fromkeys((row["norm"], row["form"]) for row in rows):
        own = [row for row in rows if (row["norm"], row["form"]) == (norm, form)]
        means = geometric_means([row["ratios"] for row in own])
        setting = {
            key: own[0][key] for key in ("norm", "form", "set", "layout", "dtype", "device", "mode", "batch_size")
        }
        worst = max(own, key=lambda row: row["ratio"]["median"])
        found.append(
            setting
            | {"ratios": means, "ratio": spread(means)._asdict()}
            | {"worst_shape": worst["shape"], "worst_ratio": worst["ratio"]["median"]}
            | {"kept": _mean([row["kept"] for row in own])}
            | {"share_of_copy_bandwidth": _mean([row["share_of_copy_bandwidth"] for row in own])}
        )
    return found


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.geometric_mean(known) if known else None


def print_norm(norm: str, rows: list[dict], summary: list[dict]) -> None:
    """Print a table of one norm in one setting: a line for each shape, and one for their geometric mean."""
    forms = [form for form in ("before", *FORMS) if any((row["norm"], row["form"]) == (norm, form) for row in rows)]
    if not forms:
        return
    first = rows[0]
    work = "forward and backward" if first["mode"] == "train" else "forward"
    print(f"\n{norm}, {first['layout']}, {first['dtype']}: {work}, nn.BatchNorm2d = 1 (quartiles)\n")
    kept = f"kept, x = 1: bn, {', '.join(forms)}"
    titles = ("shape", "bn, ms", "floor", *forms, kept, f"copy bandwidth, {forms[0]}")
    print(f"| {' | '.join(titles)} |\n|{' --- |' * len(titles)}")
    for shape in dict.fromkeys(row["shape"] for row in rows):
        found = {(row["norm"], row["form"]): row for row in rows if row["shape"] == shape}
        _print_line(shape, f"{found['bn', 'reference']['milliseconds']['median']:.3f}", norm, forms, found)
    _print_line("geometric mean", "", norm, forms, {(row["norm"], row["form"]): row for row in summary})


def _print_line(title: str, milliseconds: str, norm: str, forms: list[str], found: dict) -> None:
    chosen = [found[norm, form] for form in forms]
    kept = ", ".join(_number(row["kept"]) for row in (found["bn", "reference"], *chosen))
    share = f"{chosen[0]['share_of_copy_bandwidth']:.0%}"
    cells = (title, milliseconds, *(_ratio(row) for row in (found["floor", ""], *chosen)), kept, share)
    print(f"| {' | '.join(cells)} |", flush=True)


def print_summary(summary: list[dict]) -> None:
    print("\nGeometric means over the shapes, nn.BatchNorm2d = 1 (quartiles over rounds)\n")
    print("| set | mode | norm | form | layout | type | time | slowest shape | kept, x = 1 | copy bandwidth |")
    print("| --- | --- | --- | --- | --- | --- | ---: | ---: | ---: | ---: |")
    for row in summary:
        norm, form = ("nn.BatchNorm2d" if row["form"] in ("reference", "again") else row["norm"]), row["form"]
        worst = f"{row['worst_ratio']:.2f} at {row['worst_shape']}"
        share = f"{row['share_of_copy_bandwidth']:.0%}"
        cells = (
            row["set"],
            row["mode"],
            norm,
            form,
            row["layout"],
            row["dtype"],
            _ratio(row),
            worst,
            _number(row["kept"]),
            share,
        )
        print(f"| {' | '.join(cells)} |")


def _ratio(row: dict) -> str:
    return str(Spread(**row["ratio"]))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    main()
