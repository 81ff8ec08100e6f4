"""Evaluation of trained classification networks on sets by name, clean or disturbed, and predictions for images."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from datamodules.classification.data import ClassificationEvaluation
from datamodules.classification.domains import ImageDomain, open_images
from datamodules.classification.joined import Relabelled
from datamodules.classification.transforms import statistics
from datamodules.image_files import DataError, MissingDataError
from experiments.study.endings import UsageError
from experiments.study.trained.networks import Trained, learned_whole
from experiments.study.trained.one_device import in_precision, make_evaluator, placed
from experiments.study.trained.pictures import Picture, Reading
from experiments.study.trained.task import Exportable, TrainedTask
from lightning_modules.classification.module import ClassificationModule
from lightning_modules.classification.recipe_images import evaluation_image
from lightning_modules.classification.recipes import CLASSIFICATION_RECIPES
from lightning_modules.examples import Example
from lightning_modules.predictions import classification_examples
from lightning_modules.robustness import evaluator
from lightning_modules.robustness.progress import progress_bar
from lightning_modules.robustness.views import spread

CALIBRATION = "calibration"
"""The calibration error on clean images, a separate part because it needs another pass."""
PREDICTIONS = "predictions.csv"
BEST = 5
"""Number of most probable classes in an image's row."""
SMOKE_IMAGES = 8


class TrainedClassification(TrainedTask):
    """See `TrainedTask`."""

    task = "classification"
    parts = ("clean", CALIBRATION, *(part for part in evaluator.PARTS if part != "clean"))

    def __init__(self):
        self.opened: dict[tuple, ImageDomain] = {}

    def data(self, module: ClassificationModule, targets: Sequence[str], flags) -> ClassificationEvaluation:
        recipe = module.recipe
        names = list(targets) or list(module.evaluated)
        size, domains = recipe.resize or recipe.image_size, []
        for name in names:
            if targets and (learned := learned_whole(module.data, name)):
                raise UsageError(f"--target {name}: the network was trained on all images of {', '.join(learned)}.")
            domain = self._open(name, size, flags.images or module.images.get(name), flags)
            try:
                domains.append(domain.in_order_of(module.classes, "the network"))
            except DataError as error:
                raise UsageError(f"--target {error}") from error
        image = evaluation_image(recipe)
        data = ClassificationEvaluation(domains, image, batch_size=flags.batch_size or 64, workers=flags.workers)
        module.evaluate_on(names)
        return data

    def _open(self, name: str, size: int, images: int | None, flags) -> ImageDomain:
        """A set; drawn images are drawn at the size that the network's crops are cut from."""
        key = (name, size, images)
        if key not in self.opened:
            try:
                domain = open_images(name, "val", flags.data_root, size=size, length=images)
            except MissingDataError as error:
                raise UsageError(f"{str(error).rstrip('.')}; --target shapes needs nothing on disk.") from error
            except DataError as error:
                raise UsageError(f"--target {name}: {error}") from error
            if domain.of_videos:
                raise UsageError(f"--target {name} holds videos: eval_robustness.py --published evaluates on them.")
            self.opened[key] = _some_of(domain, flags.images) if domain.on_disk else domain
        return self.opened[key]

    def further(
        self, networks: Sequence[tuple[Trained, ClassificationEvaluation]], parts: Sequence[str], flags
    ) -> dict[str, list[dict]]:
        parts = [{CALIBRATION: "clean"}.get(part, part) for part in parts if part != "clean"]
        found: dict[str, list[dict]] = {network.source: [] for network, _ in networks}
        for name, alike in _sharing(networks).items() if parts else ():
            samples = alike[0][1].samples
            evaluated = [evaluator.EvaluatedNetwork.trained(network.source, network.module) for network, _ in alike]
            rows = evaluator.evaluate(
                evaluated,
                samples,
                parts,
                batch_size=flags.batch_size or 64,
                severities=flags.severities,
                seed=flags.seed,
                frames=flags.frames,
                workers=flags.workers,
                progress=True,
            )
            for row in rows:
                source = row.pop("network")
                if row["part"] != "clean":
                    found[source].append({"domain": name[0], **row})
                elif row["measure"] == "ece":
                    found[source].append({"domain": name[0], **row, "part": CALIBRATION})
        return found

    def examples(self, module: ClassificationModule, data: ClassificationEvaluation) -> list[Example]:
        return classification_examples(module, data)

    def predict(self, module: ClassificationModule, reading: Reading, out: Path, flags) -> str:
        if flags.overlay:
            raise UsageError("--overlay is for segmentation networks, and this one classifies: leave it out.")
        trainer = make_evaluator(flags)
        module, batch = placed(trainer, module), flags.batch_size or 64
        best = min(BEST, len(module.classes))
        with (
            (out / PREDICTIONS).open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
            progress_bar(len(reading), "predicting", "predicted") as advance,
            in_precision(trainer),
        ):
            table = csv.writer(file)
            others = [f"{column} {rank}" for rank in range(2, best + 1) for column in ("class", "probability")]
            table.writerow(["image", "class", "probability", *others])
            for pictures, chances in probabilities(module, reading, batch, trainer.precision_plugin.convert_input):
                for picture, own in zip(pictures, chances, strict=True):
                    table.writerow(_row(picture, own, module.classes, best))
                file.flush()  # finished rows are kept if an error follows
                advance(pictures[-1].file.name, len(pictures))
        return f"classes and their probabilities: {out / PREDICTIONS}"

    def exportable(self, module: ClassificationModule) -> Exportable:
        mean, std = statistics(module.recipe.normalisation)
        side = module.recipe.image_size
        output = {"axes": ["image", "class"], "classes": list(module.classes)}
        return Exportable(module.net, (side, side), {"mean": list(mean), "std": list(std)}, output)

    def smoke_network(self) -> ClassificationModule:
        classes = open_images("shapes", "val", "", length=1).classes
        module = ClassificationModule(CLASSIFICATION_RECIPES["smoke"], "bn", classes, ["shapes"], data="shapes")
        module.images = {"shapes": SMOKE_IMAGES}
        return module.eval()


def _sharing(networks: Sequence[tuple[Trained, ClassificationEvaluation]]) -> dict[tuple, list[tuple]]:
    """Networks, each with the images of a set, by the set: those that share its images and their labels together."""
    groups: dict[tuple, list[tuple]] = {}
    for network, data in networks:
        for domain in data.evaluated:
            key = (domain.name, len(domain.samples), network.module.recipe.resize, network.module.classes)
            groups.setdefault((*key, network.module.recipe.image_size), []).append((network, domain))
    return groups


def _some_of(domain: ImageDomain, images: int | None) -> ImageDomain:
    """The domain with so many of its images, spread over the classes; None: all."""
    labels = domain.samples.labels
    if images is None or images >= len(labels):
        return domain
    chosen = spread(labels, images)
    return ImageDomain(domain.name, Relabelled(domain.samples, chosen, labels[chosen]), domain.classes)


@torch.inference_mode()
def probabilities(
    module: ClassificationModule, reading: Reading, batch: int, convert=lambda images: images
) -> Iterator[tuple[list[Picture], np.ndarray]]:
    """Pictures, and the probability of each class for each of them, float32 (N, classes), batch by batch."""
    pictures, images = [], []

    def scored() -> np.ndarray:
        scores = module(convert(torch.stack(images)).to(module.device))
        return scores.float().softmax(1).cpu().numpy()

    for picture, image in reading.each(evaluation_image(module.recipe)):
        pictures.append(picture)
        images.append(image)
        if len(pictures) == batch:
            yield pictures, scored()
            pictures, images = [], []
    if pictures:
        yield pictures, scored()


def _row(picture: Picture, chances: np.ndarray, classes: Sequence[str], best: int) -> list:
    order = np.argsort(-chances, kind="stable")[:best]
    return [str(picture.file), *(told for i in order for told in (classes[i], f"{chances[i]:.4f}"))]
