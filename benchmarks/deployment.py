"""How fast each form of a network answers one request: eager, folded, compiled, traced, exported, in ONNX Runtime.

    python benchmarks/deployment.py --json deployment.json
    python benchmarks/deployment.py --norms bn sn --forms eager folded onnx --threads 1

The network is torchvision's ResNet-50 in evaluation mode, under each norm, with running statistics of its own, and with
gates drawn at random for BIN, because those of a trained network differ from their initial value. One pass takes
--batch-size images, by default one. All forms but "eager" are of the folded network; "torch-export", "torchscript" and
"onnx" are written to a file and read from it again, as by experiments/export.py.

Passes of all forms alternate in one process, in a random order in each round. Every time is divided by that of the
eager batch norm network in the same round; medians over the rounds are printed, with quartiles in brackets. The eager
batch norm network is timed twice: the second result's deviation from 1 shows the accuracy of the measurement.
"""

import argparse
from collections.abc import Sequence

import machine
from paired import Spread

NORMS = ("bn", "sn", "bin", "ibn-a")
FORMS = ("eager", "folded", "compiled", "torchscript", "torch-export", "onnx")


def main(arguments: Sequence[str] | None = None) -> None:
    flags = parsed(arguments)
    from deployed_networks import measured  # imports torch

    record = {"benchmark": "deployment"} | machine.description(flags)
    print(f"{machine.heading(record)}; {flags.rounds} rounds, {flags.batch_size} x 3 x {flags.size} x {flags.size}\n")
    with machine.limits_in_words():
        record["rows"] = measured(flags)
    print_rows(record["rows"])
    machine.save(record, flags.json)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--norms", nargs="+", choices=NORMS, default=NORMS, metavar="NORM", help=", ".join(NORMS))
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS, metavar="FORM", help=", ".join(FORMS))
    parser.add_argument("--batch-size", type=machine.positive, default=1, metavar="N", help="images in a pass")
    parser.add_argument("--size", type=machine.positive, metavar="PIXELS", help="image side; by default 224")
    machine.add_flags(parser)
    flags = parser.parse_args(arguments)
    if flags.device == "cuda":
        parser.error("--device cuda: files are read for the CPU here; leave the flag out")
    flags.device = "cpu"
    machine.prepare(parser, flags)
    flags.size = flags.size or (64 if flags.quick else 224)
    flags.rounds = flags.rounds or (2 if flags.quick else 21)
    return flags


def print_rows(rows: list[dict]) -> None:
    print("| norm | form | ms | time, bn eager = 1 (quartiles) | its own eager = 1 | to make, s | to load, s | MB |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for row in rows:
        cells = [row["norm"], row["form"], f"{1000 * row['seconds']['median']:.0f}", str(Spread(**row["ratio"]))]
        cells += [str(Spread(**row["own_ratio"]))] if row["own_ratio"] else ["-"]
        cells += [f"{row[cost]:.1f}" if row[cost] is not None else "-" for cost in ("make_s", "load_s", "megabytes")]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
