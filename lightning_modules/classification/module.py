"""Training and evaluation of image classification on several domains."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy
from torchvision.transforms import v2

from lightning_modules.classification.backbones import build_backbone
from lightning_modules.classification.recipe_networks import backbone_parameters, prepare
from lightning_modules.classification.recipes import ClassificationRecipe
from lightning_modules.optimization import optimizers
from lightning_modules.study_module import StudyModule
from lightning_modules.weights import (
    DISCRIMINATOR,
    about,
    blur_of,
    head_of,
    network_weights,
    read_checkpoint,
    refuse_other_blur,
    with_own_head,
)
from normshift import load_official, norm_layers, synchronize
from normshift.antialiasing import set_stem_pool
from normshift.checkpoints import place_as_published
from normshift.released_blur import filter_size

RELEASED = {"stem_pool": 2}
"""Settings of the anti-aliased networks that the paper's author released."""


class ClassificationModule(StudyModule):
    """Any backbone with any norm, trained with any of the papers' recipes.

    Trains with cross entropy, and with the recipe's label smoothing, mixup and cutmix. Logs `train/loss` and, for every
    evaluated domain, `DOMAIN/top1`, `DOMAIN/loss` and, with more than five classes, `DOMAIN/top5`; accuracies are in
    [0, 1]. `load_from_checkpoint(file)` rebuilds the network without further arguments.

    Args:
        recipe: see `lightning_modules.classification.recipes`; also as the dict in a checkpoint.
        norm: a name in `normshift.NORMS`.
        classes: names of the classes, in the order of the labels.
        evaluated: names of the domains of the validation loaders, in their order.
        data: name of the training set.
        antialias: filter size of the blur pools, or None for the plain network.
        stem_pool: kernel of an anti-aliased ResNet's stem pool (`normshift.antialias`); a checkpoint keeps its own.
        sync_norm: pool batch statistics over all processes.
        pretrained: start from torchvision's or timm's ImageNet weights, which are downloaded.
        select_on: evaluated domains whose mean top-1 selects the evaluation, and its weights, that are kept at the end
            (`take_selected`); by default the last evaluation is kept.

    Raises:
        ValueError: an unknown backbone or norm, or a combination with each other or the recipe that is impossible.
    """

    task = "classification"
    measures, headline = ("top1", "top5", "loss", "chance"), "top1"

    def __init__(
        self,
        recipe: ClassificationRecipe | dict,
        norm: str,
        classes: Sequence[str],
        evaluated: Sequence[str],
        *,
        data: str = "",
        antialias: int | None = None,
        stem_pool: int = 2,
        sync_norm: bool = False,
        pretrained: bool = False,
        select_on: Sequence[str] = (),
    ):
        super().__init__(select_on)
        recipe = ClassificationRecipe.of(recipe)
        self.save_hyperparameters(
            {"module": type(self).__name__, "recipe": recipe.plain(), "norm": norm, "classes": list(classes)}
            | {"evaluated": list(evaluated), "data": data, "antialias": antialias, "stem_pool": stem_pool}
            | {"sync_norm": sync_norm, "select_on": list(select_on)}
            | {"weights_from": "imagenet" if pretrained else "none"}
        )
        self.recipe, self.norm, self.antialias, self.data = recipe, norm, antialias, data
        self.classes = tuple(classes)
        self.net = build_backbone(
            recipe.backbone,
            len(self.classes),
            norm=norm,
            antialias=antialias,
            stem_pool=stem_pool,
            pretrained=pretrained,
            dropout=recipe.dropout,
            stochastic_depth=recipe.stochastic_depth,
            stochastic_depth_by=recipe.stochastic_depth_by,
            width=recipe.width,
            small_images=recipe.small_images,
            **recipe.architecture,
        )
        prepare(self.net, recipe, fresh=not pretrained)
        if sync_norm:
            self.net = synchronize(self.net)
        if recipe.trains == "head":
            head = head_of(self.net)
            for name, parameter in self.net.named_parameters():
                parameter.requires_grad_(name.startswith(f"{head}."))
        self.evaluate_on(evaluated)
        self.select_on = tuple(select_on)
        self.mix = _mixing(recipe, len(self.classes))
        self.completed()

    def completed(self) -> None:
        """Called at the end of the constructor; subclasses add their modules here."""

    def evaluate_on(self, names: Sequence[str]) -> None:
        """Evaluate on other domains from now on, which have the same classes in the same order."""
        self.evaluated = tuple(names)
        self.metrics = nn.ModuleList(_metrics(len(self.classes)) for _ in self.evaluated).to(self.device)
        self.evaluation, self.select_on = [], ()

    def start_from(self, path: str) -> ClassificationModule:
        """Load the weights of a checkpoint of ours, of the papers, timm, ..., and the settings that it implies.

        If its head is for another number of classes, the module's head stays as initialised.

        Raises:
            ValueError: the file cannot be read, or is of another network. The message begins with the file.
        """
        checkpoint = read_checkpoint(path)
        with about(path):
            weights = network_weights(checkpoint)
            refuse_other_blur(checkpoint, weights, self.antialias)
            load_official(self.net, with_own_head(self.net, weights))
            if blur_of(checkpoint, weights):
                self._keep_stem_pool(RELEASED if filter_size(weights) else checkpoint["hyper_parameters"])
        self.hparams["weights_from"] = path
        return self

    def _keep_stem_pool(self, settings: dict) -> None:
        """Set the stem pool of a checkpoint's network; old checkpoints of ours without this entry have 3x3."""
        self.hparams["stem_pool"] = settings.get("stem_pool", 3)
        set_stem_pool(self.net, self.hparams["stem_pool"])

    def train(self, mode: bool = True) -> ClassificationModule:
        super().train(mode)
        if self.recipe.trains == "head":
            self.net.eval()  # so that the fixed features do not depend on the batch
        if self.recipe.frozen_norms:
            for layer in norm_layers(self.net).values():
                layer.eval()
        return self

    def on_train_start(self) -> None:
        self.train()  # Lightning does not call `train`, which sets the modes of frozen parts

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        super().on_load_checkpoint(checkpoint)
        if not hasattr(self, DISCRIMINATOR):  # a plain classifier does not need the discriminator of a DANN checkpoint
            state = checkpoint["state_dict"]
            checkpoint["state_dict"] = {k: v for k, v in state.items() if not k.startswith(f"{DISCRIMINATOR}.")}
        if checkpoint.get("hyper_parameters"):
            self._keep_stem_pool(checkpoint["hyper_parameters"])
        state = checkpoint["state_dict"].items()
        place_as_published(self.net, {k.removeprefix("net."): v for k, v in state if k.startswith("net.")})

    def forward(self, images: Tensor) -> Tensor:
        """Class scores (N, classes) for normalised images (N, 3, H, W)."""
        return self.net(images)

    def model_step(self, images: Tensor, labels: Tensor) -> Tensor:
        """The training loss of a batch; `labels` are indices (N,) or, after mixup or cutmix, shares (N, classes)."""
        return F.cross_entropy(self(images).float(), labels, label_smoothing=self.recipe.label_smoothing)

    def training_step(self, batch, batch_index: int) -> Tensor:
        loss = self.model_step(*(self.mix(*batch) if self.mix else batch))
        self.log("train/loss", loss.detach(), prog_bar=True)
        return loss

    def validation_step(self, batch, batch_index: int, dataloader_idx: int = 0) -> None:
        images, labels = batch
        scores = self(images).float()
        for metric in self.metrics[dataloader_idx].values():
            metric.update(scores, labels)

    def on_validation_epoch_end(self) -> None:
        evaluation = [{key: metric.compute().item() for key, metric in found.items()} for found in self.metrics]
        for name, found, values in zip(self.evaluated, self.metrics, evaluation, strict=True):
            for metric in found.values():
                metric.reset()
            self.log_dict({f"{name}/{key}": value for key, value in values.items()})
        self.keep_evaluation(evaluation)

    def results(self) -> list[dict]:
        """The evaluation, a row for each domain and measure; accuracies in [0, 1], "loss" in nats.

        The measure "chance" is the top-1 accuracy of random guessing, 1 / classes.
        """
        chance = {"chance": 1 / len(self.classes)}
        return [
            {"domain": name, "part": "clean", "condition": "clean", "measure": measure, "value": value}
            for name, values in zip(self.evaluated, self.evaluation, strict=True)
            for measure, value in (values | chance).items()
        ]

    def configure_optimizers(self):
        return optimizers(self.recipe, self, backbone_parameters(self.net, self.recipe))


class CrossEntropy(MeanMetric):
    """The mean cross entropy over all images, also if batches differ in size."""

    def update(self, scores: Tensor, labels: Tensor) -> None:
        super().update(F.cross_entropy(scores, labels, reduction="none"))


def _metrics(classes: int) -> nn.ModuleDict:
    metrics = {"loss": CrossEntropy(), "top1": MulticlassAccuracy(classes, average="micro")}
    if classes > 5:
        metrics["top5"] = MulticlassAccuracy(classes, top_k=5, average="micro")
    return nn.ModuleDict(metrics)


def _mixing(recipe: ClassificationRecipe, classes: int) -> v2.Transform | None:
    """Mixup (Zhang et al., ICLR 2018), cutmix (Yun et al., ICCV 2019), or either with equal chance."""
    mixes = [
        mix(num_classes=classes, alpha=alpha)
        for mix, alpha in ((v2.MixUp, recipe.mixup), (v2.CutMix, recipe.cutmix))
        if alpha
    ]
    return v2.RandomChoice(mixes) if mixes else None
