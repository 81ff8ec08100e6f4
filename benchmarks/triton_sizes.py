"""The speed of the Triton kernels on a GPU, with their own tile sizes and with one size changed at a time.

    python benchmarks/triton_sizes.py --json sizes.json

For each layout and change, it prints the share of the copy bandwidth that each pass reaches: the geometric mean over
shapes of a ResNet-50 at batch size 64. The cache is emptied before each launch. Kernels are compiled before, in several
processes.
"""

import argparse
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from math import exp, log

import torch
from triton.testing import do_bench

from bandwidth import copy_bandwidth

CHANGES: dict[str, dict] = {
    "as they are": {},
    "8 warps": {"warps": 8},
    "TILE 2048": {"TILE": 2048},
    "TILE 8192, 8 warps": {"TILE": 8192, "warps": 8},
    "PIECE 512": {"PIECE": 512},
    "PIECE 2048": {"PIECE": 2048},
    "PIECE 4096": {"PIECE": 4096},
    "DEPTH 2": {"DEPTH": 2},
    "DEPTH 8": {"DEPTH": 8},
    "CHANNELS 32": {"CHANNELS": 32},
    "CHANNELS 128": {"CHANNELS": 128},
    "PROGRAMS 1024": {"PROGRAMS": 1024},
    "PROGRAMS 4096": {"PROGRAMS": 4096},
    "PROGRAMS 8192": {"PROGRAMS": 8192},
}
SHAPES = ((64, 112, 112), (256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7))
MAPS = {"moments": 1, "scale_shift": 2, "reductions": 2, "input_gradient": 3}
"""The number of maps that each pass reads and writes."""
LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--json", metavar="FILE")
    flags = parser.parse_args()
    with multiprocessing.get_context("spawn").Pool(min(len(CHANGES), os.cpu_count() or 1)) as pool:
        pool.starmap(compiled, [(flags, change) for change in CHANGES])
    copied, found = copy_bandwidth(2**30, "cuda"), []
    print(f"{torch.cuda.get_device_name()}, {flags.dtype}, batch {flags.batch_size}: {copied / 1e12:.2f} TB/s copied")
    for layout in LAYOUTS:
        for change in CHANGES:
            shares: dict[str, list[float]] = {name: [] for name in MAPS}
            for shape, name, work, size in passes(flags, layout, change):
                share = MAPS[name] * size / (do_bench(work, warmup=5, rep=30, return_mode="median") / 1000) / copied
                shares[name].append(share)
                found.append({"layout": layout, "change": change, "shape": shape, "pass": name, "share": share})
            means = ", ".join(
                f"{name} {exp(sum(map(log, s)) / len(s)):.2f} (last {s[-1]:.2f})" for name, s in shares.items()
            )
            print(f"{layout:13} {change:20} {means}", flush=True)
    if flags.json:
        with open(flags.json, "w") as file:
            json.dump(found, file)


def compiled(flags: argparse.Namespace, change: str) -> None:
    """Run every kernel of one change once, so that it is in Triton's cache."""
    for layout in LAYOUTS:
        for _, _, work, _ in passes(flags, layout, change):
            work()


def passes(flags: argparse.Namespace, layout: str, change: str) -> Iterator[tuple[str, str, Callable, int]]:
    """Yields the shape, the name of the pass, a function that runs it, and the bytes of one map."""
    kernels = changed(CHANGES[change])
    for channels, height, width in SHAPES:
        values = torch.randn(
            flags.batch_size, channels, height, width, device="cuda", dtype=getattr(torch, flags.dtype)
        )
        x = values.to(memory_format=LAYOUTS[layout])
        dy = torch.randn_like(x)
        mean, scale, shift = torch.randn(3, flags.batch_size, channels, device="cuda").unbind()
        each = {
            "moments": lambda x=x: kernels.moments(x),
            "scale_shift": lambda x=x, v=(mean, scale, shift): kernels.scale_shift(x, *v),
            "reductions": lambda x=x, dy=dy, mean=mean: kernels.reductions(dy, x, mean),
            "input_gradient": lambda x=x, dy=dy, v=(mean, scale, shift, mean): kernels.input_gradient(dy, x, *v),
        }
        for name, work in each.items():
            yield f"{channels}x{height}x{width}", name, work, x.numel() * x.element_size()


def changed(change: dict):
    """The kernels' module, with changed sizes."""
    from normshift.backends import triton_kernels as kernels

    original = {"TILE": 4096, "DEPTH": 4, "CHANNELS": 64, "PIECE": 1024, "PROGRAMS": 2048}
    for name, value in (original | change).items():
        if name != "warps":
            setattr(kernels, name, value)
    kernels.OPTIONS["num_warps"] = change.get("warps", 4)
    for cached in (kernels._sums, kernels._merges, kernels._elementwise):
        cached.cache_clear()
    return kernels


if __name__ == "__main__":
    main()
