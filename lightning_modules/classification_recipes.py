"""Classification recipes as literals that can be held against their papers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace


@dataclass(frozen=True)
class ClassificationRecipe:
    """Everything about a classification run but its data and its norm. Epochs are passes over the training images."""

    backbone: str  # a name that `build_backbone` knows
    image_size: int  # what the network sees, in training and when it is judged
    crop: str  # how training crops are cut: see `datamodules.image_transforms.TrainImage`
    resize: int | None  # shorter side before the judged centre crop; None: images as they are
    batch_size: int  # images a step, over all processes
    epochs: float
    lr: float  # at `lr_batch` images a step, and in proportion at any other batch size
    schedule: str  # a name in `lightning_modules.optimization.SCHEDULES`
    weight_decay: float
    lr_batch: int = 256
    milestones: tuple[float, ...] = ()  # epochs at which "step" divides the rate by ten
    warmup_epochs: float = 0
    momentum: float = 0.9
    nesterov: bool = False
    decay_norms: bool = True  # whether norms' weights and biases, and biases in general, decay as well
    label_smoothing: float = 0.0
    dropout: float = 0.0  # before the classifier
    stochastic_depth: float = 0.0  # drop rate of the last residual block, falling linearly towards the first
    randaugment: tuple[int, float] | None = None  # operations an image, magnitude (10: the operations' full range)
    mixup: float = 0.0  # alpha of the Beta distribution; with cutmix as well, either is drawn for each batch
    cutmix: float = 0.0
    ema_decay: float | None = None  # of the averaged weights and buffers that are judged
    trains: str = "network"  # or "head": the classifier alone, on a network in evaluation mode
    width: float = 1.0  # channels, times the backbone's own
    small_images: bool = False  # a 3x3 stem without pooling, in place of ImageNet's
    architecture: dict = field(default_factory=dict)  # further keyword arguments of `build_backbone`
    epoch_steps: int | None = None  # optimiser steps of an epoch; set where the data's size is known
    judge_epochs: int = 1  # epochs from one judgement to the next

    @property
    def max_steps(self) -> int:
        """Optimiser steps in all; at least one."""
        if self.epoch_steps is None:
            raise ValueError("the recipe does not know its data yet: call fitted(images) first.")
        return max(1, round(self.epochs * self.epoch_steps))

    @property
    def base_lr(self) -> float:
        """The highest rate, by the linear scaling rule (Goyal et al. 2017): `lr` x batch size / `lr_batch`."""
        return self.lr * self.batch_size / self.lr_batch

    def lasting(self, epochs: float) -> ClassificationRecipe:
        """The recipe stretched to other epochs: milestones and warm-up keep their share of the training."""
        share = epochs / self.epochs
        return replace(
            self,
            epochs=epochs,
            milestones=tuple(m * share for m in self.milestones),
            warmup_epochs=self.warmup_epochs * share,
        )

    def fitted(self, images: int, max_steps: int | None = None, judgements: int = 5) -> ClassificationRecipe:
        """The recipe for so many training images: the last, incomplete batch of an epoch is left out.

        Args:
            max_steps: ends the training there, milestones and warm-up in proportion.
            judgements: how often the network is judged on the way, at most.

        Raises:
            ValueError: fewer images than one step takes.
        """
        steps = images // self.batch_size
        if not steps:
            raise ValueError(f"{images} images to train on are fewer than the {self.batch_size} of one step.")
        steps = min(steps, max_steps or steps)  # less than a pass is an epoch of its own
        recipe = self.lasting(max_steps / steps) if max_steps else self
        return replace(recipe, epoch_steps=steps, judge_epochs=max(1, round(recipe.epochs / judgements)))

    @classmethod
    def of(cls, recipe: ClassificationRecipe | dict) -> ClassificationRecipe:
        """A recipe from itself or from the plain dict that a checkpoint holds."""
        if isinstance(recipe, cls):
            return recipe
        tuples = {key: tuple(value) for key, value in recipe.items() if isinstance(value, list)}
        return cls(**recipe | tuples)

    def plain(self) -> dict:
        """The recipe as a dict of numbers, strings and lists, for checkpoints and tables."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}


_IMAGENET = {"image_size": 224, "crop": "resized", "resize": 256}

_RESNET_RS = ClassificationRecipe(
    backbone="resnetrs50", image_size=160, crop="resized", resize=192, batch_size=4096, epochs=350, lr=0.1,
    schedule="cosine", warmup_epochs=5, weight_decay=4e-5, decay_norms=False, label_smoothing=0.1, dropout=0.25,
    randaugment=(2, 10), ema_decay=0.9999,
)  # fmt: skip

RESNET_RS_TABLE = {
    # (depth, image size): (dropout, stochastic depth, RandAugment magnitude, top-1 in the paper)
    (50, 160): (0.25, 0.0, 10, 78.8),
    (101, 160): (0.25, 0.0, 10, 80.3),
    (101, 192): (0.25, 0.0, 15, 81.2),
    (152, 192): (0.25, 0.0, 15, 82.0),
    (152, 224): (0.25, 0.0, 15, 82.2),
    (152, 256): (0.25, 0.0, 15, 83.0),
    (200, 256): (0.25, 0.1, 15, 83.4),
    (270, 256): (0.25, 0.1, 15, 83.8),
    (350, 256): (0.25, 0.1, 15, 84.0),
    (350, 320): (0.4, 0.1, 15, 84.2),
    (420, 320): (0.4, 0.1, 15, 84.4),
}
"""ResNet-RS (Bello et al., NeurIPS 2021), its Pareto table: regularisation grows with the network."""

CLASSIFICATION_RECIPES = {
    # IBN-Net (Pan et al., ECCV 2018), section 4: the ImageNet recipe of ResNets.
    "ibn-step": ClassificationRecipe(
        backbone="resnet50", **_IMAGENET, batch_size=256, epochs=100, lr=0.1, schedule="step", milestones=(30, 60, 90),
        weight_decay=1e-4,
    ),
    # Switchable Normalization (Luo et al., ICLR 2019): steps, and the cosine that reaches 77.5 with ResNet-50.
    "sn-step": ClassificationRecipe(
        backbone="resnet50", **_IMAGENET, batch_size=256, epochs=100, lr=0.1, schedule="step", milestones=(30, 60, 90),
        weight_decay=1e-4,
    ),
    "sn-cosine": ClassificationRecipe(
        backbone="resnet50", **_IMAGENET, batch_size=256, epochs=120, lr=0.1, schedule="cosine", warmup_epochs=5,
        weight_decay=1e-4,
    ),
    # Batch-Instance Normalization (Nam and Kim, NeurIPS 2018), section 4.1: CIFAR; ImageNet's is the usual one.
    "bin-cifar": ClassificationRecipe(
        backbone="cifar_resnet110", image_size=32, crop="padded", resize=None, batch_size=128, epochs=164, lr=0.1,
        lr_batch=128, schedule="step", milestones=(81, 122), weight_decay=1e-4,
    ),
    # Anti-aliased CNNs (Zhang, ICML 2019), and the fine-tuning of a network that was trained without blur.
    "antialiased": ClassificationRecipe(
        backbone="resnet50", **_IMAGENET, batch_size=256, epochs=90, lr=0.1, schedule="step", milestones=(30, 60),
        weight_decay=1e-4,
    ),
    "antialiased-finetune": ClassificationRecipe(
        backbone="resnet50.tv_in1k", **_IMAGENET, batch_size=256, epochs=60, lr=0.01, schedule="step", milestones=(30,),
        weight_decay=1e-4,
    ),
    # ResNet-RS: resnet-rs-DEPTH-SIZE.
    **{
        f"resnet-rs-{depth}-{size}": replace(
            _RESNET_RS, backbone=f"resnetrs{depth}", image_size=size, resize=size + 32, dropout=dropout,
            stochastic_depth=drop, randaugment=(2, magnitude),
        )
        for (depth, size), (dropout, drop, magnitude, _) in RESNET_RS_TABLE.items()
    },
    # After SimCLR's settings (Chen et al., ICML 2020, appendix B), which ResNet-RS takes over for transfer: no
    # augmentation but crops and flips. Learning rate and weight decay are searched for each data set there, over 20,000
    # steps; the epochs here are ours, and the rates mid-grid.
    "finetune": ClassificationRecipe(
        backbone="resnet50.tv_in1k", **_IMAGENET, batch_size=256, epochs=60, lr=0.01, schedule="cosine", nesterov=True,
        weight_decay=1e-4,
    ),
    "linear": ClassificationRecipe(
        backbone="resnet50.tv_in1k", **_IMAGENET, batch_size=4096, epochs=90, lr=0.1, schedule="cosine", nesterov=True,
        weight_decay=0.0, trains="head",
    ),
    # Batch-Instance Normalization on Office-Home: ResNet-18. The paper's schedule is not known to us; this one is ours.
    "office-home": ClassificationRecipe(
        backbone="resnet18.tv_in1k", **_IMAGENET, batch_size=64, epochs=60, lr=0.01, lr_batch=64, schedule="step",
        milestones=(30, 45), weight_decay=5e-4,
    ),
    # DANN (Ganin et al., JMLR 2016, section 5.2.2): its rate and annealing; as many target images as source ones join
    # each step. Backbone as in Batch-Instance Normalization's table of Office-Home; epochs are ours.
    "dann": ClassificationRecipe(
        backbone="resnet18.tv_in1k", **_IMAGENET, batch_size=64, epochs=60, lr=0.01, lr_batch=64, schedule="annealed",
        weight_decay=5e-4,
    ),
    # Ours, for the embedded shapes on a laptop: images are drawn at 36 pixels and cropped to 32.
    "laptop": ClassificationRecipe(
        backbone="cifar_resnet8", image_size=32, crop="random", resize=36, batch_size=64, epochs=8, lr=0.1,
        lr_batch=64, schedule="cosine", warmup_epochs=1, weight_decay=5e-4, nesterov=True,
    ),
    # Proves in seconds that everything fits together; learns nothing.
    "smoke": ClassificationRecipe(
        backbone="cifar_resnet8", image_size=32, crop="random", resize=36, batch_size=8, epochs=2, lr=0.01,
        schedule="cosine", weight_decay=1e-4,
    ),
}  # fmt: skip
