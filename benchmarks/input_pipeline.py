"""The speed of our training transforms, compared with torchvision's reference pipeline and with decoding alone.

    python benchmarks/input_pipeline.py
    python benchmarks/input_pipeline.py --images data/imagenet/val

Classification: read and decode a JPEG, crop a random part, resize it to 224 x 224, flip, normalise. Segmentation: read
and decode an image of 2048 x 1024 and its label, scale by 0.5 to 2, crop 768 x 768, flip, jitter colours, blur,
normalise. Both references decode with PIL and use torchvision's transforms v2. Without --images, the JPEGs are embedded
street scenes of 500 x 375, written to a temporary folder.

One process with one thread runs all pipelines, which alternate every few images, so that other load on the machine
affects them equally. Times are CPU times; ratios are the median over rounds, with the lowest and highest.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from datamodules.classification.transforms import TrainImage
from datamodules.image_files import decode_rgb, decoded
from datamodules.segmentation.labels import IGNORE
from datamodules.segmentation.transforms import MEAN, STD, TrainTransform
from datamodules.worlds.streets.world import Streets

BLOCK = 16
"""Images before the next pipeline's turn; several, because in training a pipeline's code stays in the caches too."""

Pipeline = Callable[[Path], object]


def classification(size: int) -> dict[str, Pipeline]:
    """Pipelines from a JPEG file to a training image, by name."""
    reference = v2.Compose(
        [
            v2.RandomResizedCrop(size, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    ours, smooth = TrainImage(size), TrainImage(size, interpolation="antialiased")
    return {
        "torchvision": lambda path: reference(Image.open(path).convert("RGB")),
        "ours": lambda path: ours(decoded(path, decode_rgb)),
        "ours, antialiased": lambda path: smooth(decoded(path, decode_rgb)),
        "decoding, PIL": lambda path: Image.open(path).convert("RGB"),
        "decoding, ours": lambda path: decoded(path, decode_rgb),
    }


def segmentation(crop: int) -> dict[str, Pipeline]:
    """Pipelines from an image and its label, both PNG, to a training pair, by name."""
    joint = v2.Compose(
        [
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            v2.RandomApply([v2.GaussianBlur((3, 3), (0.1, 2.0))], p=0.5),
            v2.ToDtype({tv_tensors.Image: torch.float32, tv_tensors.Mask: torch.int64, "others": None}, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )

    def opened(path: Path):
        return Image.open(path).convert("RGB"), Image.open(label_of(path))

    def reference(path: Path):
        image, label = opened(path)
        pair = tv_tensors.Image(v2.functional.pil_to_tensor(image)), tv_tensors.Mask(v2.functional.pil_to_tensor(label))
        scale = float(torch.empty(()).uniform_(0.5, 2))
        pair = v2.Resize([round(scale * side) for side in pair[0].shape[-2:]], antialias=True)(*pair)
        cut = v2.RandomCrop(crop, pad_if_needed=True, fill={tv_tensors.Image: 0, tv_tensors.Mask: IGNORE})
        return joint(*v2.RandomHorizontalFlip()(*cut(*pair)))

    def decode(path: Path):
        return decoded(path, decode_rgb), cv2.imread(str(label_of(path)), cv2.IMREAD_GRAYSCALE)

    ours = TrainTransform((crop, crop), augment_colour=True)
    return {
        "torchvision": reference,
        "ours": lambda path: ours(*decode(path)),
        "decoding, PIL": lambda path: [np.asarray(image) for image in opened(path)],
        "decoding, ours": decode,
    }


def label_of(path: Path) -> Path:
    return path.with_name(f"{path.stem}_label.png")


def write_jpegs(folder: Path, count: int) -> list[Path]:
    """Write street scenes of 500 x 375, the size of most of ImageNet's photographs."""
    paths = [folder / f"{index}.jpg" for index in range(count)]
    for path, (image, _) in zip(paths, Streets("city", "train", count, (375, 500)), strict=True):
        Image.fromarray(image).save(path, quality=90)
    return paths


def write_streets(folder: Path, count: int) -> list[Path]:
    """Write street scenes of Cityscapes' size, with their labels."""
    paths = [folder / f"{index}.png" for index in range(count)]
    for path, (image, label) in zip(paths, Streets("city", "train", count, (1024, 2048)), strict=True):
        Image.fromarray(image).save(path)
        Image.fromarray(label).save(label_of(path))
    return paths


def measure(pipelines: dict[str, Pipeline], paths: Sequence[Path], rounds: int) -> dict[str, list[float]]:
    """Milliseconds per image, by pipeline and round."""
    found: dict[str, list[float]] = {name: [] for name in pipelines}
    for round_ in range(rounds + 1):
        spent = dict.fromkeys(pipelines, 0.0)
        for first in range(0, len(paths), BLOCK):
            for name, pipeline in pipelines.items():
                started = time.process_time()
                for path in paths[first : first + BLOCK]:
                    pipeline(path)
                spent[name] += time.process_time() - started
        if round_:  # the first round is a warm-up
            for name, seconds in spent.items():
                found[name].append(1000 * seconds / len(paths))
    return found


def show(title: str, found: dict[str, list[float]]) -> None:
    print(f"\n{title}\n{'':20}{'ms an image':>12}{'images/s':>10}   times torchvision's speed")
    for name, spent in found.items():
        ratios = [reference / own for reference, own in zip(found["torchvision"], spent, strict=True)]
        middle = statistics.median(spent)
        print(
            f"{name:20}{middle:12.2f}{1000 / middle:10.0f}   "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=Path, help="folder of JPEG files, searched with its subfolders")
    parser.add_argument("--count", type=int, default=100, help="number of JPEG images")
    parser.add_argument("--streets", type=int, default=4, help="number of street scenes for segmentation")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--size", type=int, default=224, help="output side of the classification pipelines")
    parser.add_argument("--crop", type=int, default=768, help="output side of the segmentation pipelines")
    flags = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        if flags.images:
            found = sorted(path for path in flags.images.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
            jpegs = found[:: max(1, len(found) // flags.count)][: flags.count]
            if not jpegs:
                parser.error(f"{flags.images} holds no JPEG file")
        else:
            jpegs = write_jpegs(Path(made), flags.count)
        times = measure(classification(flags.size), jpegs, flags.rounds)
        show(f"classification: {len(jpegs)} JPEGs to {flags.size} x {flags.size}", times)
        if flags.streets:
            streets = write_streets(Path(made), flags.streets)
            times = measure(segmentation(flags.crop), streets, flags.rounds)
            show(f"segmentation: {len(streets)} PNGs of 2048 x 1024 to {flags.crop} x {flags.crop}", times)


if __name__ == "__main__":
    main()
