"""The speed of drawing the embedded shapes: images per second on one core, by style and size.

    python benchmarks/shapes.py

Styles alternate in short blocks, so that other load on the machine affects all of them equally. The median, slowest and
fastest blocks are printed, and the rate of a set with equal shares of the four styles.
"""

import argparse
import statistics
import time

import cv2

from datamodules.worlds.shapes.world import STYLES, Shapes

BLOCK = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, nargs="+", default=(32, 64), metavar="PIXELS")
    parser.add_argument("--blocks", type=int, default=20, help=f"blocks of {BLOCK} images for each style")
    flags = parser.parse_args()
    cv2.setNumThreads(1)
    print("size  style      images/s (slowest-fastest)")
    for size in flags.size:
        seconds: dict[str, list[float]] = {style: [] for style in STYLES}
        worlds = {style: Shapes(length=BLOCK * (flags.blocks + 1), size=size, styles=style) for style in STYLES}
        for block in range(flags.blocks + 1):
            for style, world in worlds.items():
                started = time.process_time()
                for index in range(BLOCK * block, BLOCK * (block + 1)):
                    world[index]
                if block:  # the first block also creates the textures
                    seconds[style].append((time.process_time() - started) / BLOCK)
        rounds = [statistics.mean(took) for took in zip(*seconds.values(), strict=True)]
        for style, took in {**seconds, "all styles": rounds}.items():
            print(f"{size:4}  {style:10} {1 / statistics.median(took):8.0f} ({1 / max(took):.0f}-{1 / min(took):.0f})")


if __name__ == "__main__":
    main()
