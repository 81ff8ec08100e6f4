"""Compares our corruptions with the PyPI package `imagecorruptions`: time, and the change of the image.

    pip install --no-deps imagecorruptions && pip install scikit-image
    python benchmarks/corruptions.py --images FOLDER_OF_PHOTOGRAPHS

Both corrupt the same images in turn, with one thread. Times are CPU times, the median over images. The change is output
minus input, in grey levels of 0 to 255; printed are the mean and standard deviation of its absolute value over all
values of all images, and its mean. The package is needed only for this benchmark.
"""

import argparse
import sys
import time
import types
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median

import cv2
import numpy as np

from datamodules.corruptions.imagenet_c import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES, corrupt
from datamodules.worlds.streets.world import Streets

TOLERANCE = 0.10
BROKEN = ("glass_blur", "gaussian_blur")
"""The package calls scikit-image with an argument that no longer exists; `their_package` helps. Not in the totals."""

OTHER = ("elastic_transform",)
"""Ours is ImageNet-C's operation, theirs another one of the same name; compared only if named with --names."""

SLOW = ("glass_blur",)
"""Theirs needs more than a second; compared on every eighth image."""
CHANCE = ("motion_blur", "snow", "frost", "fog", "spatter")
"""One random angle or texture affects the whole image, so several random draws of each image are compared."""


@dataclass
class Changes:
    """Times in ms, and moments of the change, for one corruption and severity."""

    times: list[float] = field(default_factory=list)
    moments: list[tuple[float, float, float]] = field(default_factory=list)

    def add(self, milliseconds: float, clean: np.ndarray, corrupted: np.ndarray) -> None:
        change = corrupted.astype(np.float32) - clean
        self.times.append(milliseconds)
        self.moments.append((np.abs(change).mean(), np.square(change).mean(), change.mean()))

    def summary(self) -> tuple[float, float, float]:
        """Mean and standard deviation of the absolute change, and mean of the change."""
        size, square, signed = np.mean(self.moments, axis=0)
        return size, np.sqrt(square - size**2), signed


def their_package() -> types.ModuleType:
    """`imagecorruptions`, with replacements for what newer numpy, setuptools and scikit-image have removed."""
    import importlib.util

    folder = Path(importlib.util.find_spec("imagecorruptions").origin).parent
    resources = types.ModuleType("pkg_resources")
    resources.resource_filename = lambda _, name: str(folder / name)
    sys.modules.setdefault("pkg_resources", resources)
    np.float_ = np.float64
    import imagecorruptions
    from skimage.filters import gaussian

    def translated(image, sigma, multichannel=False, **rest):
        return gaussian(image, sigma, channel_axis=-1 if multichannel else None, **rest)

    imagecorruptions.corruptions.gaussian = translated
    return imagecorruptions


def photographs(folder: Path | None, size: int, limit: int) -> list[np.ndarray]:
    """Images (size, size, 3): the folder's, with the shorter side resized to 8/7 of `size`, then centre-cropped."""
    if folder is None:
        return [Streets("city", "val", limit, (size, size))[index][0] for index in range(limit)]
    suffixes = {".jpg", ".jpeg", ".png"}
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes)
    images = []
    for path in paths[:: max(1, len(paths) // limit)][:limit]:
        image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        scale = max(size / side for side in image.shape[:2]) * 8 / 7
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
        images.append(np.ascontiguousarray(image[top : top + size, left : left + size]))
    return images


def compared(
    images: list[np.ndarray], names: list[str], draws: int, theirs
) -> dict[tuple[str, int], tuple[Changes, Changes]]:
    """The changes for each (corruption, severity): ours, theirs."""
    found = {(name, severity): (Changes(), Changes()) for name in names for severity in SEVERITIES}
    np.random.seed(0)
    for index, image in enumerate([images[0], *images]):
        for (name, severity), (our, their) in found.items():
            if name in SLOW and (index - 1) % 8:
                continue
            for draw in range(draws if name in CHANCE else 1):
                started = time.process_time()
                corrupted = corrupt(image, name, severity, seed=draws * index + draw)
                halfway = time.process_time()
                published = theirs.corrupt(image, severity=severity, corruption_name=name)
                ended = time.process_time()
                if index:  # the first round is a warm-up
                    our.add(1000 * (halfway - started), image, corrupted)
                    their.add(1000 * (ended - halfway), image, published)
    return found


def print_times(found, names) -> None:
    print(f"{'corruption':18} {'ours ms':>8} {'theirs ms':>10} {'ratio':>6}")
    totals: dict[str, list[tuple[float, float]]] = {"of the 15": [], "of all 19": []}
    for name in names:
        pairs = [found[name, severity] for severity in SEVERITIES]
        our, their = (mean(median(pair[side].times) for pair in pairs) for side in (0, 1))
        print(f"{name:18} {our:8.2f} {their:10.2f} {their / our:6.1f}{'  not in totals' * (name in BROKEN)}")
        if name not in BROKEN:
            totals["of all 19"].append((our, their))
            if name in CORRUPTIONS:
                totals["of the 15"].append((our, their))
    for label, times in totals.items():
        our, their = (sum(side) for side in zip(*times, strict=True)) if times else (0, 0)
        print(f"{f'{len(times)} {label}':18} {our:8.2f} {their:10.2f} {their / max(our, 1e-9):6.1f}")


def print_changes(found) -> None:
    """Print a row for each corruption and severity; * marks differences of more than the tolerance."""
    print(f"\n{'corruption':18} s | mean size: ours theirs   diff | spread: ours theirs   diff | mean: ours theirs")
    for (name, severity), (our, their) in found.items():
        (size, spread, signed), (size_, spread_, signed_) = our.summary(), their.summary()
        size_off, spread_off = size / size_ - 1, spread / spread_ - 1
        # the mean is often near 0, so its difference is divided by the mean absolute change
        flags = "".join(
            flag
            for flag, off in (("size ", size_off), ("spread ", spread_off), ("mean", (signed - signed_) / size_))
            if abs(off) > TOLERANCE
        )
        print(
            f"{name:18} {severity} | {size:15.2f} {size_:6.2f} {size_off:+6.1%} | {spread:12.2f} {spread_:6.2f} "
            f"{spread_off:+6.1%} | {signed:10.2f} {signed_:6.2f} {'* ' + flags if flags else ''}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=Path, help="folder of photographs; without it, embedded street scenes")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--limit", type=int, default=100, help="images to use")
    parser.add_argument("--draws", type=int, default=8, help="random draws per image, for corruptions that need them")
    alike = [name for name in (*CORRUPTIONS, *EXTRA_CORRUPTIONS) if name not in OTHER]
    parser.add_argument("--names", nargs="+", default=alike, help="corruptions to compare")
    flags = parser.parse_args()
    cv2.setNumThreads(1)
    images = photographs(flags.images, flags.size, flags.limit)
    print(f"{len(images)} images of {flags.size} x {flags.size}, {flags.images or 'embedded street scenes'}")
    found = compared(images, flags.names, flags.draws, their_package())
    print_times(found, flags.names)
    print_changes(found)


if __name__ == "__main__":
    main()
