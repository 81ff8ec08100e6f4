"""What `check_data.py` prints and draws of sets of images."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from rich.progress import Progress

from datamodules.classification.domains import open_images
from datamodules.classification.sets import IMAGE_SETS
from datamodules.getting import GETTING
from datamodules.image_files import DataError, MissingDataError
from datamodules.inspection import Inspection, inspected, shared_images
from datamodules.segmentation.domains import DOMAINS, description_of, open_domain, split_of
from experiments.reporting.figures import figure_of, row_axis
from experiments.study.endings import UsageError

FAULTY = 2
"""Exit status where something is damaged."""
SHOWN = 40
"""Most classes of a picture."""
BAR = "#4477aa"


def check(names: Sequence[str], splits: Sequence[str], data_root: str, workers: int, out: str | None) -> None:
    """Check sets, one after the other; ends the script with status 2 where there are faults.

    Args:
        names: as `open_images` and `open_domain` take them. workers: processes that read.
        out: folder for pictures of how the classes are spread.
    """
    faults = 0
    for name in names:
        found = [_inspected(name, split, data_root, workers) for split in splits]
        for one in found:
            faults += _say(one, out)
        for fault in (shared := shared_images(found)):
            print(f"  {fault}")
        faults += len(shared)
    if not faults:
        print("nothing is damaged")
        return
    print(f"{faults} fault{'s' * (faults > 1)}", file=sys.stderr)
    sys.exit(FAULTY)


def _inspected(name: str, split: str, data_root: str, workers: int) -> Inspection:
    """A split's inspection; one with a single fault where it cannot be opened."""
    try:
        samples, classes = _opened(name, split, data_root)
    except DataError as error:
        said = str(error).rstrip(".")
        known = GETTING.get(re.split("[/:]", name)[0]) if isinstance(error, MissingDataError) else None
        return Inspection(name, split, [f"{said}; {known.sentence(_root(name, data_root))}" if known else said])
    with Progress(transient=True, disable=not sys.stdout.isatty()) as bar:
        task = bar.add_task(f"reading {name} {split}", total=len(samples))
        return inspected(name, split, samples, classes, workers, lambda count: bar.advance(task, count))


def _root(name: str, data_root: str) -> str:
    """The folder of a published set."""
    return f"{data_root.rstrip('/')}/{re.split('[/:]', name)[0].removesuffix('-drivable')}"


def _opened(name: str, split: str, data_root: str):
    """A split's samples and the names of their classes, of whatever task the name is."""
    plain = split_of(name, "")[0]
    if description_of(name) or (plain in DOMAINS and plain not in IMAGE_SETS):
        domain = open_domain(name, split, data_root)
        return domain.samples, domain.label_space.classes
    domain = open_images(name, split, data_root)
    if domain.of_videos:
        raise UsageError(f"{name} holds videos, which are checked when they are evaluated on: leave it out.")
    return domain.samples, domain.classes


def _say(found: Inspection, out: str | None) -> int:
    """Print what was found, and draw the spread of the classes; returns the number of faults."""
    sizes = found.sizes.most_common()
    told = f"{found.images:,} images"
    if sizes:
        (width, height), _ = sizes[0]
        others = f", {len(sizes)} sizes" if len(sizes) > 1 else ""
        told += f" of {'mostly ' * (len(sizes) > 1)}{width} x {height} pixels{others}"
    print(f"{found.name} {found.split}: {told}{_classes_in_words(found)}")
    for fault in found.faults:
        print(f"  {fault}")
    if out is not None and found.classes:
        name = re.sub(r"[^\w.-]+", "-", found.name).strip("-")
        file = Path(out) / f"{name}-{found.split}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        _draw(found, file)
        print(f"  classes: {file}")
    return len(found.faults)


def _classes_in_words(found: Inspection) -> str:
    """How many classes there are, and the rarest and the most frequent."""
    if not found.classes or not any(found.classes.values()):
        return ""
    by_count = sorted(found.classes.items(), key=lambda pair: pair[1])
    (rare, few), (often, most) = by_count[0], by_count[-1]
    pixels = all(isinstance(count, float) for count in found.classes.values())
    few, most = (f"{100 * count:.1f} % of the pixels" if pixels else f"{count:,} images" for count in (few, most))
    return f"; {len(found.classes)} classes, from {rare} ({few}) to {often} ({most})"


def _draw(found: Inspection, file: Path) -> None:
    """A bar for each class, the most frequent on top."""
    ranked = sorted(found.classes.items(), key=lambda pair: pair[1])[-SHOWN:]
    pixels = all(isinstance(count, float) for _, count in ranked)
    more = f", the {SHOWN} most frequent of {len(found.classes)} classes" if len(found.classes) > SHOWN else ""
    figure, ax = figure_of(6.0, 1.0 + 0.24 * len(ranked), f"{found.name} {found.split}{more}")
    counts = [100 * count if pixels else count for _, count in ranked]
    ax.barh(range(len(ranked)), counts, 0.65, color=BAR, linewidth=0)
    for y, count in enumerate(counts):
        ax.text(count, y, f" {count:.1f}" if pixels else f" {count:,}", va="center", fontsize=8)
    ax.set_xlim(0, 1.12 * max(1e-9, *counts))
    row_axis(ax, [str(name) for name, _ in ranked], "% of the pixels" if pixels else "images")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # matplotlib's font lacks some scripts
        figure.savefig(file, dpi=120)
