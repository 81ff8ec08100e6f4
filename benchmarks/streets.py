"""The speed of drawing the embedded streets: images per second on one core, by appearance.

    python benchmarks/streets.py

Appearances alternate in short blocks, so that other load on the machine affects all of them equally. The median,
slowest and fastest blocks are printed, and each appearance's cost relative to `game`.
"""

import argparse
import statistics
import time

import cv2

from datamodules.worlds.streets.world import APPEARANCES, Streets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, nargs=2, default=(128, 256), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--blocks", type=int, default=8, help="blocks of 50 images for each appearance")
    flags = parser.parse_args()
    cv2.setNumThreads(1)
    rates: dict[str, list[float]] = {name: [] for name in APPEARANCES}
    worlds = {name: Streets(name, "train", 50 * (flags.blocks + 1), tuple(flags.size)) for name in APPEARANCES}
    for block in range(flags.blocks + 1):
        for name, world in worlds.items():
            started = time.process_time()
            for index in range(50 * block, 50 * (block + 1)):
                world[index]
            if block:  # the first block also creates the textures
                rates[name].append(50 / (time.process_time() - started))
    print("appearance   images/s (slowest-fastest)   cost relative to game")
    for name, found in rates.items():
        relative = statistics.median(g / r for g, r in zip(rates["game"], found, strict=True))
        print(f"{name:10} {statistics.median(found):9.0f} ({min(found):.0f}-{max(found):.0f}) {relative:20.2f}")


if __name__ == "__main__":
    main()
