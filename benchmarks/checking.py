"""Reading a set to check it, beside decoding its images alone: one process, rounds in turns, medians of the ratios.

    python benchmarks/checking.py
    python benchmarks/checking.py --images data/imagenet/val

Without --images it draws streets and writes them as JPEGs of 512 x 1024 in two folders.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from datamodules.classification.domains import open_images
from datamodules.image_files import decode_rgb
from datamodules.inspection import inspected
from datamodules.worlds.streets.world import Streets


def drawn(folder: Path, count: int) -> Path:
    """Pictures of streets in two class folders."""
    for name, appearance in (("game", "game"), ("city", "city")):
        (folder / name).mkdir(parents=True)
        scenes = Streets(appearance, "val", count, (512, 1024))
        for index in range(count):
            encoded = cv2.imencode(".jpg", cv2.cvtColor(scenes[index][0], cv2.COLOR_RGB2BGR))[1]
            (folder / name / f"{index}.jpg").write_bytes(encoded.tobytes())
    return folder


def decode(paths: list[Path]) -> None:
    for path in paths:
        decode_rgb(path.read_bytes())


def seconds(call) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", help="a folder of class folders")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--most", type=int, default=120, help="images that are read")
    flags = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = flags.images or str(drawn(Path(folder) / "streets", 40))
        domain = open_images(root, "all", "")
        samples = domain.samples
        keep = slice(0, len(samples), max(1, len(samples) // flags.most))
        samples.labels, samples._names = samples.labels[keep], samples._names[keep]
        paths = [samples.path(index) for index in range(len(samples))]
        ratios, taken = [], []
        for _ in range(flags.rounds):
            alone = seconds(lambda: decode(paths))
            whole = seconds(lambda: inspected("set", "all", samples, domain.classes, workers=1))
            ratios.append(alone / whole)
            taken.append(1000 * whole / len(paths))
    low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
    print(
        f"{len(paths)} images, {statistics.median(taken):.2f} ms each: {100 * middle:.1f} % of the speed of decoding "
        f"alone ({100 * low:.1f} to {100 * high:.1f})"
    )


if __name__ == "__main__":
    main()
