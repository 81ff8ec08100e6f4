"""Evaluation of trained segmentation networks on street sets by name, and their predictions for images."""

from __future__ import annotations

import copy
import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.image_files import DataError, MissingDataError
from datamodules.segmentation.data import Resized, SegmentationEvaluation
from datamodules.segmentation.domains import PREFIX, Domain, open_domain
from datamodules.segmentation.labels import IGNORE, STREET, LabelSpace
from datamodules.segmentation.transforms import MEAN, STD, EvalTransform
from datamodules.whole_file import write_whole
from experiments.study.endings import UsageError
from experiments.study.trained.one_device import in_precision, make_evaluator, placed
from experiments.study.trained.pictures import Picture, Reading
from experiments.study.trained.task import Exportable, TrainedTask
from lightning_modules.examples import Example
from lightning_modules.predictions import colour, segmentation_examples
from lightning_modules.robustness.progress import progress_bar
from lightning_modules.segmentation.module import SegmentationModule, scores_of_whole
from lightning_modules.segmentation.recipes import SEGMENTATION_RECIPES

LABELS, OVERLAYS, CLASSES = "labels", "overlays", "classes.csv"
"""Names of the output folders and files."""
SMOKE_SCENES = 4


class TrainedSegmentation(TrainedTask):
    """See `TrainedTask`."""

    task = "segmentation"

    def __init__(self):
        self.opened: dict[tuple, Domain] = {}

    def data(self, module: SegmentationModule, targets: Sequence[str], flags) -> SegmentationEvaluation:
        recipe = module.recipe
        names = list(targets) or [domain.name for domain in module.domains]
        data = SegmentationEvaluation(
            [self._open(name, flags.images or module.images.get(name), recipe.height, flags) for name in names],
            height=recipe.height,
            batch_size=flags.batch_size or recipe.batch_size,
            workers=flags.workers,
            squares=dict(recipe.squares),
        )
        try:
            module.evaluate_on(data.evaluated)
        except ValueError as error:
            raise UsageError(f"--target {error}") from error
        return data

    def _open(self, name: str, images: int | None, height: int | None, flags) -> Domain:
        key = (name, images, height)
        if key not in self.opened:
            try:
                domain = open_domain(name, "val", flags.data_root, height, images)
            except MissingDataError as error:
                raise UsageError(f"{str(error).rstrip('.')}; --target {PREFIX}city needs nothing on disk.") from error
            except DataError as error:
                raise UsageError(f"--target {name}: {error}") from error
            self.opened[key] = _some_of(domain, flags.images) if domain.on_disk else domain
        return self.opened[key]

    def examples(self, module: SegmentationModule, data: SegmentationEvaluation) -> list[Example]:
        return segmentation_examples(module, data)

    def predict(self, module: SegmentationModule, reading: Reading, out: Path, flags) -> str:
        space = module.label_space
        write_classes(space, out / CLASSES)
        trainer = make_evaluator(flags)
        module = placed(trainer, module)
        with progress_bar(len(reading), "predicting", "predicted") as advance, in_precision(trainer):
            for picture, label, image in label_maps(module, reading, trainer.precision_plugin.convert_input):
                write_label_map(label, space, out / LABELS / f"{picture.name}.png")
                if flags.overlay:
                    write_png(Image.fromarray(overlaid(image, label, space)), out / OVERLAYS / f"{picture.name}.png")
                advance(picture.file.name, 1)
        overlays = f", pictures under their classes' colours in {out / OVERLAYS}" if flags.overlay else ""
        return f"label maps: {out / LABELS}, whose ids and colours are in {out / CLASSES}{overlays}"

    def exportable(self, module: SegmentationModule) -> Exportable:
        """The network on whole images, or on one window where it is evaluated in sliding windows."""
        classes, mean, std = list(module.label_space.classes), list(MEAN), list(STD)
        output = {"axes": ["image", "class", "row", "column"], "classes": classes}
        output["palette"] = [list(colour) for colour in module.label_space.palette]
        return Exportable(WholeImages(module), tuple(module.recipe.crop), {"mean": mean, "std": std}, output)

    def smoke_network(self) -> SegmentationModule:
        domain = Domain(f"{PREFIX}night", (), STREET, tuple(range(len(STREET))), {})
        module = SegmentationModule(SEGMENTATION_RECIPES["smoke"], "bn", [domain])
        module.images = {domain.name: SMOKE_SCENES}
        return module.eval()


class WholeImages(nn.Module):
    """A segmentation network with the padding that it needs: images (N, 3, H, W) to scores (N, classes, H, W)."""

    def __init__(self, module: SegmentationModule):
        super().__init__()
        self.net, self.multiple_of = module.net, module.architecture.multiple_of

    def forward(self, images: Tensor) -> Tensor:
        return scores_of_whole(self.net, images, self.multiple_of)


def _some_of(domain: Domain, images: int | None) -> Domain:
    """The domain with so many of its images, spread evenly over it; None: all."""
    pairs = domain.samples.pairs
    if images is None or images >= len(pairs):
        return domain
    samples = copy.copy(domain.samples)
    samples.pairs = [pairs[i * len(pairs) // images] for i in range(images)]
    return Domain(domain.name, samples, domain.label_space, domain.evaluated, domain.fold)


# -------------------------------------------------------------------------------------------------------- predictions


@torch.inference_mode()
def label_maps(
    module: SegmentationModule, reading: Reading, convert=lambda images: images
) -> Iterator[tuple[Picture, np.ndarray, np.ndarray]]:
    """Each picture with its label map uint8 (H, W) of training ids and its pixels uint8 (H, W, 3).

    The network sees it at the height that its recipe resizes images to, whole or by sliding windows, as the recipe
    says; its scores are brought back to the picture's own size.
    """
    for picture, (image, shown) in reading.each(_Shown(module.recipe.height)):
        scores = module(convert(shown[None]).to(module.device))[0]
        yield picture, largest(scores, image.shape[:2]).cpu().numpy().astype(np.uint8), image


class _Shown:
    """A picture as it is, and as the network sees it."""

    def __init__(self, height: int | None):
        self.height, self.transform = height, EvalTransform()

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, Tensor]:
        label = np.zeros(image.shape[:2], np.uint8)
        return image, self.transform(*Resized([(image, label)], self.height)[0])[0]


def largest(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """The class with the largest score at each pixel of a size (H, W), of scores (classes, h, w).

    Scores are resized bilinearly, class by class: all of them at a photograph's size may well be gigabytes.
    """
    if scores.shape[1:] == size:
        return scores.argmax(0)
    best, chosen = None, torch.zeros(size, dtype=torch.long, device=scores.device)
    for index, score in enumerate(scores):
        resized = F.interpolate(score[None, None].float(), size, mode="bilinear")[0, 0]
        if best is None:
            best = resized
            continue
        larger = resized > best
        chosen[larger] = index
        best = torch.where(larger, resized, best)
    return chosen


def write_label_map(label: np.ndarray, space: LabelSpace, file: Path) -> None:
    """Write a label map as a PNG of palette indices: training ids in the label space's colours, 255 black, ignored."""
    image = Image.fromarray(label)
    palette = np.zeros((IGNORE + 1, 3), np.uint8)
    palette[: len(space)] = space.palette
    image.putpalette(palette.tobytes())
    write_png(image, file)


def write_classes(space: LabelSpace, file: Path) -> None:
    """Write a table of training ids, class names and colours, the ignored id at its end."""
    text = io.StringIO(newline="")
    rows = [(index, name, *rgb) for index, (name, rgb) in enumerate(zip(space.classes, space.palette, strict=True))]
    csv.writer(text).writerows([("id", "class", "red", "green", "blue"), *rows, (IGNORE, "ignored", 0, 0, 0)])
    write_whole(file, text.getvalue())


def overlaid(image: np.ndarray, label: np.ndarray, space: LabelSpace) -> np.ndarray:
    """The picture uint8 (H, W, 3) with its classes' colours laid over it, half and half."""
    return ((image.astype(np.uint16) + colour(label, space)) // 2).astype(np.uint8)


def write_png(image: Image.Image, file: Path) -> None:
    """Write a picture, making the folders that it lies in."""
    data = io.BytesIO()
    image.save(data, "PNG")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, data.getvalue(), durable=False)
