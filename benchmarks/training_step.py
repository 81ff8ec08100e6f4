"""The cost of a norm in training: whole steps of networks with each norm, compared with batch norm.

    python benchmarks/training_step.py
    python benchmarks/training_step.py --networks resnet50 --norms sn bin --peers
    python benchmarks/training_step.py --device cuda --dtype bfloat16 --layout channels-last --json steps.json

A step is forward pass, loss, backward pass and SGD with momentum, on one batch of noise that is on the device already.
resnet50 is torchvision's, with cross entropy over 1000 classes; deeplabv3plus is the network of the segmentation
studies (ResNet-50, output stride 16, auxiliary head, 19 classes); cifar_resnet20 is a ResNet-20 for CIFAR; streets is
the network of the laptop recipe for streets, whose images are twice as wide as high. --dtype is the type of autocast.
--peers adds our layers in plain torch (NORMSHIFT_KERNELS=torch) and the norms as published. --run compiled gives the
networks to torch.compile; --run graph records each whole step as a CUDA graph and replays it, which leaves the time of
the GPU alone.

Steps of all networks alternate in one process, in a random order in each round. Every time is divided by that of the
batch norm network in the same round; medians over the rounds are printed, with quartiles in brackets. The batch norm
network is timed twice: the second result's deviation from 1 shows the accuracy of the measurement.

Memory is what autograd keeps for the backward pass, without parameters, buffers and images, each storage counted once;
on a GPU also the step's peak above the memory that is used between steps, as torch's allocator counts it.
"""

import argparse
from collections.abc import Sequence

import machine
from paired import Spread

NETWORKS = ("resnet50", "deeplabv3plus", "cifar_resnet20", "streets")
NORMS = ("sn", "bin", "ibn-a", "ibn-b")
FORMS = ("ours", "plain", "published")
RUNS = ("eager", "compiled", "graph")
DTYPES = ("float32", "bfloat16", "float16")
SIZES = {"resnet50": 224, "deeplabv3plus": 256, "cifar_resnet20": 32, "streets": 96}
BATCHES = {
    "cpu": {"resnet50": 8, "deeplabv3plus": 4, "cifar_resnet20": 64, "streets": 8},
    "cuda": {"resnet50": 64, "deeplabv3plus": 16, "cifar_resnet20": 512, "streets": 32},
}


def main(arguments: Sequence[str] | None = None) -> None:
    flags = parsed(arguments)
    from training_networks import measured  # imports torch

    record = {"benchmark": "training_step"} | machine.description(flags) | {"rows": []}
    print(f"{machine.heading(record)}; {flags.rounds} rounds, {flags.layout}, {flags.dtype}, {flags.run}", flush=True)
    for network in flags.networks:
        size = flags.size or (64 if flags.quick else SIZES[network])
        batch_size = flags.batch_size or (2 if flags.quick else BATCHES[flags.device][network])
        with machine.limits_in_words():
            rows = measured(network, batch_size, size, flags)
        print_rows(rows)
        record["rows"] += rows
        machine.save(record, flags.json)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    named = {"nargs": "+", "choices": NETWORKS, "default": NETWORKS[:2], "metavar": "NETWORK"}
    parser.add_argument("--networks", **named, help=", ".join(NETWORKS))
    parser.add_argument("--norms", nargs="+", choices=NORMS, default=NORMS, metavar="NORM", help=", ".join(NORMS))
    parser.add_argument("--peers", action="store_true", help="also time ours in plain torch, and the published forms")
    parser.add_argument(
        "--batch-size", type=machine.positive, metavar="N", help="by default a network's own, larger on a GPU"
    )
    parser.add_argument(
        "--size", type=_size, metavar="PIXELS", help="images' height, a multiple of 32; by default a network's own"
    )
    parser.add_argument("--layout", choices=("contiguous", "channels-last"), default="contiguous")
    parser.add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help="types other than float32 use autocast")
    parser.add_argument("--run", choices=RUNS, default=RUNS[0], help="how steps are run; graph: on a GPU only")
    machine.add_flags(parser)
    flags = parser.parse_args(arguments)
    if flags.run == "graph" and flags.dtype == "float16":
        parser.error("--run graph: the gradient scaler of float16 asks the GPU for its results, which a graph cannot")
    if flags.run != "eager" and flags.peers:
        parser.error(f"--run {flags.run}: the other forms of --peers are compared in eager steps alone")
    if flags.batch_size == 1 and ("deeplabv3plus" in flags.networks or flags.size == 32):
        parser.error("--batch-size 1: some maps are then a single value, and batch norm needs two")
    machine.prepare(parser, flags)
    if flags.run == "graph" and flags.device != "cuda":
        parser.error("--run graph: CUDA graphs need a GPU")
    flags.rounds = flags.rounds or (2 if flags.quick else 9)
    return flags


def _size(text: str) -> int:
    if machine.positive(text) % 32:
        raise argparse.ArgumentTypeError(f"expected a multiple of 32, got {text!r}")
    return int(text)


def print_rows(rows: list[dict]) -> None:
    first = rows[0]
    print(f"\n{first['network']}, {first['batch_size']} images of {first['size']} x {first['size']} a step\n")
    print("| norm | form | images/s | time, bn = 1 (quartiles) | kept, MB | kept, bn = 1 | peak, MB | peak, bn = 1 |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for row in rows:
        cells = [row["norm"], row["form"], f"{row['images_per_second']:.1f}", str(Spread(**row["ratio"]))]
        for memory in ("kept_bytes", "peak_bytes"):
            known = row[memory] is not None
            cells += [f"{row[memory] / 1e6:.0f}", f"{row[memory] / first[memory]:.2f}"] if known else ["-", "-"]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
