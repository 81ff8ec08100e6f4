"""The domains of a classification study, opened by name, and joined by images that a teacher labels."""

from __future__ import annotations

from datamodules.classification.domains import ImageDomain, open_images
from datamodules.image_files import MissingDataError
from experiments.study.endings import UsageError
from experiments.tasks.classification_flags import ClassificationFlags
from lightning_modules.classification.pseudo_labels import with_pseudo_labels
from lightning_modules.classification.recipes import ClassificationRecipe


class Opened:
    """Domains by name, opened once for all arms."""

    def __init__(self, flags: ClassificationFlags):
        self.flags, self.domains = flags, {}
        self.workers = 0  # data loader processes; the task sets it

    def __call__(self, name: str, split: str, recipe: ClassificationRecipe) -> ImageDomain:
        """A domain's split; embedded images are drawn at the size from which the recipe cuts its crops.

        Raises:
            UsageError: the set is not on disk; the message names a set that needs no files.
        """
        key = (name, split, recipe.resize or recipe.image_size)
        if key not in self.domains:
            self.domains[key] = self._open(*key)
        return self.domains[key]

    def _open(self, name: str, split: str, size: int) -> ImageDomain:
        count = self.flags.images
        length = count if split == "train" or not count else max(10, count // 4)
        try:
            return open_images(name, split, self.flags.data_root, size=size, length=length)
        except MissingDataError as error:
            raise UsageError(f"{str(error).rstrip('.')}; --data shapes needs nothing on disk.") from error


class Taught(Opened):
    """The domains, with images that a teacher labels with confidence added to the training set.

    Args:
        teacher: checkpoint of a classifier.
        unlabelled: domain whose training images it labels; the domain's own labels are not used.
        confidence: smallest probability of the teacher's label with which an image is used.
    """

    def __init__(self, flags: ClassificationFlags, teacher: str, unlabelled: str, confidence: float):
        super().__init__(flags)
        self.teacher, self.unlabelled, self.confidence = teacher, unlabelled, confidence

    def _open(self, name: str, split: str, size: int) -> ImageDomain:
        domain = super()._open(name, split, size)
        if split != "train":
            return domain
        unlabelled = super()._open(self.unlabelled, "train", size)
        try:
            joined, kept = with_pseudo_labels(domain, unlabelled, self.teacher, self.confidence, self.workers)
        except ValueError as error:
            raise UsageError(f"--teacher {self.teacher}: {error}") from error
        print(f"{self.teacher} labels {kept} of {len(unlabelled.samples)} images of {unlabelled.name}")
        return joined
