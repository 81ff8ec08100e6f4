"""What --precision auto and --channels-last auto choose, against each fixed choice: whole training steps.

    python benchmarks/number_formats.py
    python benchmarks/number_formats.py --norms bn sn bin ibn-a --threads 1

A step is forward pass, cross entropy, backward pass and SGD with momentum on one batch that is in memory already. The
networks are those of the laptop recipes (streets: 8 crops of 96 x 192; shapes: 64 images of 32 x 32) and torchvision's
ResNet-50 (8 images of 224 x 224). Steps of all choices alternate in one process, in a random order in each round; times
are divided by that of 32 bits with contiguous maps in the same round. Medians, with quartiles in brackets.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from itertools import product

import machine
from paired import Candidate, interleaved, ratios, spread

NETWORKS = ("streets", "shapes", "resnet50")
NORMS = ("bn", "sn", "bin", "ibn-a")
CHOICES = tuple(product(("32-true", "bf16-mixed"), ("no", "yes")))
"""Precision, and whether maps are channels-last; the first is the reference."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS, metavar="NETWORK")
    parser.add_argument("--norms", nargs="+", choices=NORMS, default=("bn", "sn"), metavar="NORM")
    machine.add_flags(parser)
    flags = parser.parse_args(arguments)
    machine.prepare(parser, flags)
    record = {"benchmark": "number_formats"} | machine.description(flags) | {"rows": []}
    rounds = flags.rounds or (1 if flags.quick else 15)
    print(f"{machine.heading(record)}; {rounds} rounds", flush=True)
    automatic = auto(flags.device)
    print(f"auto: {automatic[0]}, channels-last {automatic[1]}\n")
    print("| network | norm | precision | channels-last | ms a step | 32 bits, contiguous = 1 (quartiles) | |")
    print("| --- | --- | --- | --- | ---: | ---: | --- |")
    for network, norm in product(flags.networks, flags.norms):
        candidates = {choice: Candidate(step(network, norm, *choice, flags.device)) for choice in CHOICES}
        times = interleaved({network: candidates}, rounds, 0.0, flags.device, flags.seed)[network]
        for choice, own in times.items():
            relative, middle = spread(ratios(own, times[CHOICES[0]])), spread(own)
            mark = "auto" if choice == automatic else ""
            print(f"| {network} | {norm} | {' | '.join(choice)} | {1e3 * middle.median:.1f} | {relative} | {mark} |")
            row = {"network": network, "norm": norm, "choice": choice, "seconds": own, "auto": bool(mark)}
            record["rows"].append(row)
        machine.save(record, flags.json)


def auto(device: str) -> tuple[str, str]:
    """What auto chooses on this machine."""
    from types import SimpleNamespace  # this and what follows: --help must not wait for torch

    from experiments.study.training.fastest import chosen

    found = chosen(SimpleNamespace(precision="auto", channels_last="auto"), None, {}, device == "cuda")
    return found.precision, found.channels_last


def step(name: str, norm: str, precision: str, channels_last: str, device: str):
    """A call that trains a network for one step."""
    import torch

    from normshift import convert
    from training_networks import TrainingStep

    torch.manual_seed(0)
    network, images, labels, loss = _built(name)
    layout = torch.channels_last if channels_last == "yes" else torch.contiguous_format
    network = convert(network, norm).train().to(device).to(memory_format=layout)
    images = images.to(device).to(memory_format=layout)
    dtype = "bfloat16" if precision == "bf16-mixed" else "float32"
    return TrainingStep(network, partial(loss, network, images, labels.to(device)), device, dtype)


def _built(name: str):
    """A network with batch norm, a batch of noise, its labels, and the loss of the three."""
    import torch
    import torchvision
    from torch.nn import functional as F

    def loss(network, images, labels):
        return F.cross_entropy(network(images).float(), labels)

    if name == "streets":
        from lightning_modules.segmentation.networks import built
        from lightning_modules.segmentation.recipes import SEGMENTATION_RECIPES

        network, _ = built(SEGMENTATION_RECIPES["laptop"], 19, pretrained=False)
        return network, torch.randn(8, 3, 96, 192), torch.randint(19, (8, 96, 192)), loss
    if name == "shapes":
        from lightning_modules.classification.cifar_networks import cifar_network

        return cifar_network("cifar_resnet8", 10), torch.randn(64, 3, 32, 32), torch.randint(10, (64,)), loss
    return torchvision.models.resnet50(), torch.randn(8, 3, 224, 224), torch.randint(1000, (8,)), loss


if __name__ == "__main__":
    main()
