"""Training and evaluation of semantic segmentation on several domains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassConfusionMatrix

from datamodules.segmentation.domains import Domain
from datamodules.segmentation.labels import IGNORE, LabelSpace
from lightning_modules.optimization import optimizers
from lightning_modules.segmentation.networks import architecture, built
from lightning_modules.segmentation.recipes import SegmentationRecipe
from lightning_modules.segmentation.robustnet import is_released, load_released, with_timms_stem
from lightning_modules.study_module import StudyModule
from lightning_modules.weights import about, network_weights, read_checkpoint, refuse_other_blur
from normshift import NORMS, convert, load_official, synchronize
from normshift.checkpoints import place_as_published
from normshift.wrapped import bare

CLASSIFIERS = ("fc.*", "classifier.*", "head.*", "last_linear.*")
"""Keys of a published classifier's last layer, which an encoder does not have."""


class SegmentationModule(StudyModule):
    """RobustNet's DeepLabV3+ or any architecture of segmentation-models-pytorch, with a timm encoder and any norm.

    Trains with cross entropy on the output and, unless its weight is 0, on an auxiliary head after the encoder's
    second-last stage.
    Logs `train/loss` and, for every evaluated domain, `DOMAIN/miou` and `DOMAIN/iou/CLASS` in [0, 1].
    `load_from_checkpoint(file)` rebuilds the network, with the names and colours of its classes, without further
    arguments; it does not read the file of `weights` again.

    Args:
        recipe: see `lightning_modules.segmentation.recipes`; also as the dict in a checkpoint.
        norm: a name in `normshift.NORMS`. IBN-Net's norms are always in the encoder only.
        domains: the domains of the validation loaders, in their order, the source first; all with the same label space.
        norm_in: "encoder", "decoder" (with the auxiliary head) or "both".
        weights: "none", "imagenet" (timm's, which are downloaded), a checkpoint file for the encoder (`load_official`),
            or a file with a whole network that RobustNet released.
        sync_norm: pool batch statistics over all processes.
        label_space: the classes of the network's output channels; by default those of the domains.
        class_weights: how much a pixel of each class weighs in the loss; by default all the same.

    Raises:
        ValueError: an unknown architecture, encoder or norm, or weights that do not fit.
    """

    task = "segmentation"
    measures, headline = ("miou", "iou/*", "chance"), "miou"

    def __init__(
        self,
        recipe: SegmentationRecipe | dict,
        norm: str,
        domains: Sequence[Domain | dict],
        *,
        norm_in: str = "both",
        weights: str = "none",
        sync_norm: bool = False,
        label_space: LabelSpace | dict | None = None,
        class_weights: Sequence[float] | None = None,
    ):
        super().__init__()
        self.recipe = recipe if isinstance(recipe, SegmentationRecipe) else SegmentationRecipe(**recipe)
        self.label_space = LabelSpace.of(label_space or domains[0].label_space)
        domains = [Domain.of(domain, self.label_space) for domain in domains]
        self.save_hyperparameters(
            {"module": type(self).__name__, "recipe": asdict(self.recipe), "norm": norm, "norm_in": norm_in}
            | {"sync_norm": sync_norm, "weights_from": weights, "label_space": self.label_space.plain()}
            | {"domains": [domain.plain() for domain in domains]}
            | {"class_weights": None if class_weights is None else [float(weight) for weight in class_weights]}
        )
        self.source = domains[0].name
        self.architecture = architecture(self.recipe.arch)
        self.net, self.auxiliary = built(self.recipe, len(self.label_space), pretrained=weights == "imagenet")
        self._set_norm(norm, norm_in)
        if weights not in ("none", "imagenet"):
            self._load(weights)
        if sync_norm:
            self.net, self.auxiliary = synchronize(self.net), self.auxiliary and synchronize(self.auxiliary)
        weights_of = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights_of, persistent=False)
        self.evaluate_on(domains)

    def evaluate_on(self, domains: Sequence[Domain]) -> None:
        """Evaluate on other domains from now on.

        Raises:
            ValueError: a domain's label space is not the network's.
        """
        for domain in domains:
            if domain.label_space != self.label_space:
                theirs, ours = domain.label_space, self.label_space
                raise ValueError(
                    f"{domain.name} is labelled in {len(theirs)} {theirs.name} classes, and the network was trained on "
                    f"{len(ours)} {ours.name} ones: choose a set that is labelled alike."
                )
        classes = len(self.label_space)
        self.domains, self.evaluation, self.select_on = list(domains), [], ()
        self.confusion = nn.ModuleList(MulticlassConfusionMatrix(classes, ignore_index=IGNORE) for _ in domains)
        for index, domain in enumerate(domains):
            fold = torch.arange(classes)
            for predicted, evaluated in domain.fold.items():
                fold[predicted] = evaluated
            self.register_buffer(f"_fold_{index}", fold.to(self.device), persistent=False)
        self.confusion.to(self.device)

    def compiled_parts(self) -> list[nn.Module]:
        parts = [self.net.encoder, self.net.decoder, self.net.segmentation_head]
        return parts if self.auxiliary is None else [*parts, self.auxiliary]

    def forward(self, images: Tensor) -> Tensor:
        """Class scores (N, classes, H, W) for normalised images (N, 3, H, W), whole or in sliding windows."""
        if self.recipe.evaluation == "sliding":
            from monai.inferers import sliding_window_inference  # loads slowly

            return sliding_window_inference(images, self.recipe.crop, 4, self._whole, overlap=1 / 3)
        return self._whole(images)

    def model_step(self, images: Tensor, labels: Tensor) -> Tensor:
        """The training loss of a batch; 0 if every pixel is ignored."""
        features = self.net.encoder(images)
        loss = pixel_loss(self.net.segmentation_head(self.net.decoder(features)), labels, self.class_weights)
        if self.auxiliary is None:
            return loss
        auxiliary, shrunk = self.architecture.compared(self.auxiliary(features[-2]), labels)
        return loss + self.recipe.auxiliary_weight * pixel_loss(auxiliary, shrunk, self.class_weights)

    def training_step(self, batch, batch_index: int) -> Tensor:
        loss = self.model_step(*batch)
        self.log("train/loss", loss.detach(), prog_bar=True)
        return loss

    def validation_step(self, batch, batch_index: int, dataloader_idx: int = 0) -> None:
        images, labels = batch
        predicted = getattr(self, f"_fold_{dataloader_idx}")[self(images).argmax(1)]
        self.confusion[dataloader_idx].update(predicted, labels)

    def on_validation_epoch_end(self) -> None:
        absent = self.recipe.absent_classes
        self.keep_evaluation(
            [
                class_ious(confusion.compute(), self._counted(domain), absent)
                for domain, confusion in self._evaluations()
            ]
        )
        for (domain, confusion), ious in zip(self._evaluations(), self.evaluation, strict=True):
            confusion.reset()
            names = domain.label_space.classes
            self.log(f"{domain.name}/miou", mean_iou(ious))
            self.log_dict({f"{domain.name}/iou/{names[c]}": iou for c, iou in ious.items()})

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        super().on_load_checkpoint(checkpoint)
        state = checkpoint["state_dict"].items()
        place_as_published(self.net, {k.removeprefix("net."): v for k, v in state if k.startswith("net.")})

    def results(self) -> list[dict]:
        """The last evaluation in long form: for each domain `miou`, `iou/CLASS` and `chance`, all in [0, 1].

        `chance` is the largest mIoU of a network that predicts the same class everywhere, 1 / classes; it is left out
        if fewer than two classes were evaluated. `mean_over` says in words which classes the mean is over.
        """
        rows = []
        for domain, ious in zip(self.domains, self.evaluation, strict=True):
            names = domain.label_space.classes
            about = {"domain": domain.name, "role": self.role(domain), "part": "clean"}
            about |= {"condition": "clean", "mean_over": self.mean_over(domain)}
            values = {"miou": mean_iou(ious)} | {f"iou/{names[c]}": iou for c, iou in ious.items()}
            values |= {"chance": 1 / len(ious)} if len(ious) > 1 else {}
            rows += [about | {"measure": measure, "value": value} for measure, value in values.items()]
        return rows

    def role(self, domain: Domain) -> str:
        """The domain's role: "source" if the network was trained on it, otherwise "target"."""
        return "source" if domain.name in (self.source, f"{self.source}:train") else "target"

    def mean_over(self, domain: Domain) -> str:
        """The classes that a domain's mean is over, in words."""
        missing = "0 for one that is predicted but does not occur" if self.recipe.absent_classes else "where they occur"
        return f"{len(self._counted(domain))} classes, {missing}"

    def _counted(self, domain: Domain) -> tuple[int, ...]:
        return tuple(range(len(domain.label_space))) if self.recipe.absent_classes else domain.evaluated

    def _evaluations(self):
        return zip(self.domains, self.confusion, strict=True)

    def configure_optimizers(self):
        return optimizers(self.recipe, self)

    def _whole(self, images: Tensor) -> Tensor:
        return scores_of_whole(self.net, images, self.architecture.multiple_of)

    def _set_norm(self, norm: str, norm_in: str) -> None:
        if norm_in not in ("encoder", "decoder", "both"):
            raise ValueError(f"norm_in is encoder, decoder or both, not {norm_in!r}.")
        placement = NORMS[norm].placement if norm in NORMS else "everywhere"
        if placement != "everywhere":
            if norm_in == "decoder":
                raise ValueError(f"{norm} is a placement of layers in an encoder: it cannot go into the decoder alone.")
            positions = self.architecture.ibn_b_positions(self.net.encoder) if placement == "ibn-b" else None
            convert(self.net.encoder, norm, where=positions)
            return
        if norm_in != "decoder":
            convert(self.net.encoder, norm)
        if norm_in != "encoder":
            convert(self.net.decoder, norm)
            if self.auxiliary is not None:
                convert(self.auxiliary, norm)

    def _load(self, file: str) -> None:
        checkpoint = read_checkpoint(file)
        with about(file):
            state = network_weights(checkpoint)
            refuse_other_blur(checkpoint, state, None)
            if not is_released(state):
                encoder = _timm_model(self.net.encoder)
                load_official(encoder, with_timms_stem(bare(state, encoder.state_dict())), ignore=CLASSIFIERS)
            elif self.recipe.arch == "robustnet":
                load_released(self.net, self.auxiliary, state)
            else:
                raise ValueError("it holds RobustNet's whole network, which goes into --arch robustnet alone")


def scores_of_whole(net: nn.Module, images: Tensor, multiple_of: int) -> Tensor:
    """Scores for whole images, which are padded to multiples of the encoder's stride; scores are cropped back."""
    height, width = images.shape[-2:]
    padding = (0, -width % multiple_of, 0, -height % multiple_of)
    padded = F.pad(images, padding, mode="replicate") if multiple_of > 1 else images
    return net(padded)[..., :height, :width]


def pixel_loss(scores: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Mean cross entropy over the pixels that are not ignored, each times its class's weight; 0 if there are none."""
    counted = (labels != IGNORE).sum().clamp(min=1)
    if torch.are_deterministic_algorithms_enabled():  # on a GPU, torch's loss of maps has no deterministic form
        scores, labels = scores.movedim(1, -1).flatten(0, -2), labels.flatten()
    summed = F.cross_entropy(scores.float(), labels, class_weights, ignore_index=IGNORE, reduction="sum")
    return summed / counted


def class_ious(confusion: Tensor, evaluated: tuple[int, ...], absent: bool = False) -> dict[int, float]:
    """Intersection over union of the evaluated classes that occur in the truth.

    Args:
        confusion: (classes, classes) pixel counts; rows are the truth.
        evaluated: numbers of the evaluated classes.
        absent: include classes that occur only in the prediction, with an IoU of 0 (as in RobustNet's mean).
    """
    confusion = confusion.double()
    hits, truth, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    union = truth + predicted - hits
    return {c: (hits[c] / union[c]).item() for c in evaluated if (union if absent else truth)[c] > 0}


def mean_iou(ious: dict[int, float]) -> float:
    """The mean of the classes' IoUs; NaN if there are none."""
    return sum(ious.values()) / len(ious) if ious else float("nan")


def _timm_model(encoder: nn.Module) -> nn.Module:
    return getattr(encoder, "model", encoder)
