"""Data modules: one source domain to train on, several domains to evaluate on."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from datamodules.evaluation_data import EvaluationData
from datamodules.image_files import DataError
from datamodules.sample_order import Order, Shuffled
from datamodules.samples import Samples
from datamodules.segmentation.class_uniform import (
    ClassUniformOrder,
    class_centres,
    class_weights,
    images_by_class,
)
from datamodules.segmentation.domains import Domain, open_all, split_of
from datamodules.segmentation.robustnet import CentralSquares, RobustNetTransform
from datamodules.segmentation.transforms import NEAREST, SCALES, EvalTransform, TrainTransform


class SegmentationEvaluation(EvaluationData):
    """Domains to evaluate on: batches of whole images float (N, 3, H, W), ImageNet-normalised, and labels int64
    (N, H, W) with 255 ignored.

    Args:
        evaluated: the domains of the validation loaders.
        height: height to which every image is resized first, keeping its aspect ratio; None keeps its size.
        batch_size: images of an embedded domain that are evaluated at once in a process.
        workers: loader processes.
        squares: sets that are evaluated on the central square that is left at a height, by name, where `height` is
            None.
    """

    def __init__(
        self,
        evaluated: Sequence[Domain],
        *,
        height: int | None = None,
        batch_size: int = 8,
        workers: int = 0,
        squares: Mapping[str, int] | None = None,
    ):
        super().__init__(evaluated, batch_size, workers)
        self.height, self.squares = height, dict(squares or {}) if height is None else {}

    def evaluation_loader(self, domain: Domain) -> DataLoader:
        """A loader of one domain's whole images; every process gets its own share, none twice."""
        return self._in_batches(self.share(EvalSamples(self.as_evaluated(domain))), domain)

    def undivided_loader(self, domain: Domain) -> DataLoader:
        """As `evaluation_loader`, but every process gets all images."""
        return self._in_batches(EvalSamples(self.as_evaluated(domain)), domain)

    def _in_batches(self, samples: Dataset, domain: Domain) -> DataLoader:
        together = 1 if domain.on_disk else self.batch_size  # photographs of one set may differ in size
        return DataLoader(samples, together, **self.loading())

    def as_evaluated(self, domain: Domain) -> "Resized | CentralSquares":
        """A domain's (image, label) pairs at the size they are evaluated at."""
        square = self.squares.get(split_of(domain.name, "")[0])
        return CentralSquares(domain.samples, square) if square else Resized(domain.samples, self.height)


class SegmentationData(SegmentationEvaluation):
    """A source to train on, in batches of crops, and the source and targets to evaluate on.

    Args:
        source: the domain to train on (see `datamodules.segmentation.domains`); evaluated on its "val" split.
        targets: domains that are only evaluated on, on "val" unless the name says another split.
        data_root: folder of the real sets.
        crop: (height, width) to train on.
        height: height to which every image is resized first, keeping its aspect ratio; None keeps its size.
        batch_size: images a step and process.
        workers: loader processes.
        augment_colour: colour jitter and blur in training.
        class_uniform: share of the training images that are drawn class by class, with the crop aimed at the class.
        scales: least and greatest factor of the random scale before the crop, of the augmentation "ours".
        augmentation: "ours" (see `TrainTransform` and `TrainSamples`) or "robustnet" (see `RobustNetTransform` and
            `ClassUniformOrder`): how training images are drawn, cut and coloured.
        squares: sets that are evaluated on the central square that is left at a height, by name, where `height` is
            None.
        train_scenes, evaluation_scenes: sizes of the embedded domains.

    Attributes:
        evaluated: the domains of the validation loaders, source first.

    Raises:
        DataError: a set is missing or damaged, or the domains have different label spaces.
    """

    def __init__(
        self,
        source: str,
        targets: list[str],
        data_root: str = "data",
        *,
        crop: tuple[int, int],
        height: int | None = None,
        batch_size: int = 8,
        workers: int = 0,
        augment_colour: bool = True,
        class_uniform: float = 0.5,
        scales: tuple[float, float] = SCALES,
        augmentation: str = "ours",
        squares: Mapping[str, int] | None = None,
        train_scenes: int | None = None,
        evaluation_scenes: int | None = None,
    ):
        names = list(
            dict.fromkeys([split_of(source, "")[0], *targets])
        )  # the source is evaluated once, also as a target
        trained, evaluated = split_of(source, "train"), [split_of(name, "val") for name in names]
        if trained in evaluated:
            raise DataError(f"{source} would be evaluated on the images it is trained on: train on another split.")
        learned, *domains = open_all(
            [(source, "train", train_scenes), *((name, "val", evaluation_scenes) for name in names)], data_root, height
        )
        for domain in domains:
            if domain.label_space != learned.label_space:
                theirs, ours = domain.label_space, learned.label_space
                raise DataError(
                    f"{domain.name} is labelled in {len(theirs)} {theirs.name} classes and {source} in "
                    f"{len(ours)} {ours.name} ones{theirs.first_other(ours)}: choose domains labelled alike."
                )
        super().__init__(domains, height=height, batch_size=batch_size, workers=workers, squares=squares)
        self.source, self.crop, self.augmentation = learned, crop, augmentation
        self.augment_colour, self.class_uniform, self.scales = augment_colour, class_uniform, tuple(scales)
        self._by_class: dict[int, np.ndarray] | None = None  # images of a class, or centres, as the augmentation needs

    def read_labels(self) -> None:
        """Read the labels of every set on disk once, so that an id that a set does not define is found before training.

        The result is cached (see `images_by_class`), so that the next time is fast.
        """
        for domain in (self.source, *self.evaluated):
            if domain.on_disk:
                aimed = domain is self.source and self.augmentation == "robustnet"
                (class_centres if aimed else images_by_class)(domain, self.workers)

    def class_weights(self, power: float) -> list[float] | None:
        """The weight of each class's pixels in a loss (`class_uniform.class_weights`); None for a power of 0."""
        return class_weights(self.source, power, self.workers).tolist() if power else None

    def train_dataloader(self) -> DataLoader:
        return self.ordered_loader(*(self._robustnets() if self.augmentation == "robustnet" else self._ours()))

    def _ours(self) -> tuple[Dataset, Order]:
        """Training samples and their order."""
        if self.class_uniform and self._by_class is None:
            self._by_class = images_by_class(self.source, self.workers)
        samples = TrainSamples(
            Resized(self.source.samples, self.height),
            TrainTransform(self.crop, self.augment_colour, self.scales),
            self._by_class or {},
            self.class_uniform,
        )
        return samples, Shuffled(len(samples))

    def _robustnets(self) -> tuple[Dataset, Order]:
        if self._by_class is None:
            self._by_class = class_centres(self.source, self.workers) if self.class_uniform else {}
        samples = AimedSamples(self.source.samples, self.height, RobustNetTransform(self.crop, self.augment_colour))
        return samples, ClassUniformOrder(
            len(samples), self._by_class, len(self.source.label_space), self.class_uniform
        )


class Resized:
    """(image, label) pairs at a given height: images averaged over areas, labels as they are at the areas' centres."""

    def __init__(self, samples: Samples[np.ndarray], height: int | None):
        self.samples, self.height = samples, height

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.with_stored_height(index)[:2]

    def with_stored_height(self, index: int) -> tuple[np.ndarray, np.ndarray, int]:
        image, label = self.samples[index]
        stored = image.shape[0]
        if self.height is None or self.height == stored:
            return image, label, stored
        size = (round(image.shape[1] * self.height / image.shape[0]), self.height)
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        return image, cv2.resize(label, size, interpolation=NEAREST), stored


class TrainSamples(Dataset):
    """Augmented training samples, a share of which are drawn class by class: a class, then an image that holds it.

    In the manner of RobustNet's class-uniform sampling, which `ClassUniformOrder` is.
    """

    def __init__(
        self,
        samples: Samples[np.ndarray],
        transform: TrainTransform,
        by_class: dict[int, np.ndarray],
        class_uniform: float,
    ):
        self.samples, self.transform = samples, transform
        self.classes, self.images = list(by_class), list(by_class.values())
        self.class_uniform = class_uniform if by_class else 0.0

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int):
        if torch.rand(()) >= self.class_uniform:
            return self.transform(*self.samples[index])
        drawn = int(torch.randint(len(self.classes), ()))
        images = self.images[drawn]
        index = int(images[int(torch.randint(len(images), ()))])
        return self.transform(*self.samples[index], aim=self.classes[drawn])


class AimedSamples(Dataset):
    """Augmented training samples, drawn by image and, where the crop is aimed, by the pixel that it is to hold.

    The pixel (row, column) is one of the image as it is stored, before it is resized to `height`.
    """

    def __init__(self, samples: Samples[np.ndarray], height: int | None, transform: RobustNetTransform):
        self.samples, self.transform = Resized(samples, height), transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, drawn: tuple[int, tuple[int, int] | None]):
        index, aim = drawn
        image, label, stored = self.samples.with_stored_height(index)
        if aim is not None:
            aim = tuple(int(place * label.shape[0] / stored) for place in aim)
        return self.transform(image, label, aim)


class EvalSamples(Dataset):
    """Whole images, normalised."""

    def __init__(self, samples: Samples[np.ndarray]):
        self.samples, self.transform = samples, EvalTransform()

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int):
        return self.transform(*self.samples[index])
