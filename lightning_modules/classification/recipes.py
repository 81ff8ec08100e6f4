"""Classification recipes as literals that can be compared with their papers."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace

from datamodules.registered import note
from lightning_modules.training_recipe import TrainingRecipe

SELECTIONS = {
    "last": "that of the last step",
    "best": "that of the evaluation with the best result on these images themselves, which is optimistic",
    "training-domains": "that of the evaluation with the best result on held-out images of the training domains",
}
"""Which evaluation of a training is reported, in the words of a table's legend."""


@dataclass(frozen=True, kw_only=True)
class ClassificationRecipe(TrainingRecipe):
    """All settings of a classification run except its data and its norm.

    An epoch is a pass over the training images, unless `epoch_length` is set; milestones and warm-up are in epochs. The
    fields are, after those of the optimiser (`TrainingRecipe`): steps, network, images, evaluation.
    """

    backbone: str  # a name for `build_backbone`
    image_size: int  # side of the network's input, in training and evaluation
    crop: str  # kind of training crops: see `datamodules.classification.transforms.TrainImage`
    resize: int | None  # shorter side before the centre crop in evaluation; None: images are not resized
    epochs: float
    lr_batch: int = 256
    warmup_epochs: float = 0
    label_smoothing: float = 0.0

    dropout: float = 0.0  # before the classifier; 0: the architecture's own
    own_dropout: bool = True  # whether the architecture's own dropout is kept
    stochastic_depth: float = 0.0  # drop rate of the last residual block
    stochastic_depth_by: str = "block"  # how the rate depends on depth: see `build_backbone`
    width: float = 1.0  # factor on the backbone's channels
    small_images: bool = False  # a 3x3 stem without pooling instead of ImageNet's
    architecture: dict = field(default_factory=dict)  # further keyword arguments of `build_backbone`
    zero_last_gamma: bool | None = None  # initialise each block's last norm with 0 or 1; None: the library's default
    head_std: float | None = None  # standard deviation of the initial classifier weights; None: the library's default
    norm_momentum: float | None = None  # share of the new batch in running statistics, if there is an EMA
    frozen_norms: bool = False  # norms use their running statistics in training as well
    bottleneck: int = 0  # features of a layer with batch norm and ReLU before the classifier; 0: no such layer
    trains: str = "network"  # or "head": train the classifier only, with the network in evaluation mode
    discriminator: str = "dropout"  # hidden layers of DANN's discriminator: with "dropout" or batch "norm"
    tells_domains: bool = False  # whether a discriminator separates the training domains (`DomainInvariantModule`)
    reversal_steps: int | None = None  # step at which the reversal is .46; None: it depends on `max_steps`

    interpolation: str = "bilinear"  # or "bicubic", in training and evaluation
    crop_area: float = 0.08  # smallest share of the image in crops of random area
    squash: bool = False  # resize evaluation images to a square of side `resize`, whatever their shape
    train_squash: int | None = None  # resize training images to a square of this side before cropping
    randaugment: tuple[int, float] | None = None  # operations for each image, magnitude (10: their full range)
    randaugment_operations: str = "timm"  # or "tensorflow": see `datamodules.classification.transforms.TrainImage`
    jitter: tuple[float, float, float, float] | None = None  # of brightness, contrast, saturation and hue
    grey: float = 0.0  # probability that a training image is converted to grey
    colour_noise: float = 0.0  # standard deviation of the shift along the colours' principal components
    normalisation: str = "imagenet"  # or "cifar": mean and standard deviation of the channels
    mixup: float = 0.0  # alpha of the Beta distribution; with cutmix too, one of both is drawn for each batch
    cutmix: float = 0.0

    ema_decay: float | None = None  # decay of the averaged weights and buffers, which are evaluated
    ema_warmup: bool = False  # whether the decay starts lower: see `lightning_modules.weight_averaging.decay_at`
    ema_statistics: str = "averaged"  # or "reestimated": see `lightning_modules.weight_averaging.AveragedWeights`
    keep_last: bool = False  # train on an epoch's last, smaller batch as well
    from_each: bool = False  # batches have `batch_size` images of each training domain, drawn with replacement
    epoch_length: int | None = None  # steps of an epoch that is not a pass over the training images
    evaluate_every: int | None = None  # epochs between two evaluations; None: five evaluations in total
    selection: str = "last"  # which evaluation is reported: a name in `SELECTIONS`
    setting: str | None = None  # the value that `cls_office_home.py --setting` must have
    adapts: bool = False  # whether training uses unlabelled images of a target (--adapt dann)
    epoch_steps: int | None = None  # steps of an epoch; `fitted` sets it
    evaluation_epochs: int = 1  # epochs between two evaluations; `fitted` sets it

    @property
    def max_steps(self) -> int:
        """The number of steps; at least one."""
        if self.epoch_steps is None:
            raise ValueError("the recipe does not know its data yet: call fitted(images) first.")
        return max(1, round(self.epochs * self.epoch_steps))

    @property
    def warmup_steps(self) -> int:
        return round(self.warmup_epochs * self.epoch_steps)

    @property
    def milestone_steps(self) -> tuple[int, ...]:
        return tuple(round(milestone * self.epoch_steps) for milestone in self.milestones)

    def lasting(self, epochs: float) -> ClassificationRecipe:
        """The recipe for another number of epochs: milestones and warm-up keep their share of the training."""
        share = epochs / self.epochs
        return replace(
            self,
            epochs=epochs,
            milestones=tuple(m * share for m in self.milestones),
            warmup_epochs=self.warmup_epochs * share,
        )

    def longer(self) -> ClassificationRecipe:
        return self.lasting(2 * self.epochs)

    def fitted(self, images: int, max_steps: int | None = None, evaluations: int = 5) -> ClassificationRecipe:
        """The recipe for a number of training images; without `keep_last`, incomplete batches are left out.

        Args:
            images: the number of training images.
            max_steps: shorten the training to so many steps; milestones and warm-up are scaled.
            evaluations: about how many evaluations a training has, unless `evaluate_every` is set.

        Raises:
            ValueError: there are fewer images than one step needs.
        """
        if images < self.batch_size:
            raise ValueError(f"{images} images to train on are fewer than the {self.batch_size} of one step.")
        passed = math.ceil(images / self.batch_size) if self.keep_last else images // self.batch_size
        steps = self.epoch_length or passed
        steps = min(steps, max_steps or steps)  # a training shorter than one pass is one epoch
        recipe = self.lasting(max_steps / steps) if max_steps else self
        evaluation_epochs = self.evaluate_every or max(1, round(recipe.epochs / evaluations))
        return replace(recipe, epoch_steps=steps, evaluation_epochs=evaluation_epochs)

    @classmethod
    def of(cls, recipe: ClassificationRecipe | dict) -> ClassificationRecipe:
        """The recipe itself, or the recipe of a checkpoint's dict."""
        if isinstance(recipe, cls):
            return recipe
        tuples = {key: tuple(value) for key, value in recipe.items() if isinstance(value, list)}
        return cls(**recipe | tuples)

    def plain(self) -> dict:
        """The recipe as a dict of numbers, strings and lists, for checkpoints and tables."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}


_IMAGENET = {"image_size": 224, "crop": "resized", "resize": 256}
_SN = {"decay_gates": True, "dropout": 0.5, "zero_last_gamma": True, "colour_noise": 0.1}

# Images, RandAugment, Nesterov momentum, weight decay, moving averages, stochastic depth and initialisation are those
# of github.com/tensorflow/tpu (models/official), the paper's code. That code has only a "step" schedule; the paper's
# cosine is that of TensorFlow Model Garden, which is not shifted by the warm-up. The warm-up's first rate is not 0.
# Differences: TensorFlow's resizing reads 4 x 4 pixels, ours averages over blocks when it reduces by 2 or more; its
# crops have uniformly distributed aspect ratios and heights, ours areas and logarithms of aspect ratios. A flag sets
# the precision.
_RESNET_RS = ClassificationRecipe(
    backbone="resnetrs50", image_size=160, crop="resized", resize=183, batch_size=4096, epochs=350, lr=0.1,
    schedule="whole-cosine", warmup_epochs=5, nesterov=True, weight_decay=4e-5, decay_norms=False, decay_biases=True,
    label_smoothing=0.1, dropout=0.25, stochastic_depth_by="stage", zero_last_gamma=True, head_std=0.01,
    norm_momentum=1.0, interpolation="bicubic", crop_area=0.1, randaugment=(2, 10), randaugment_operations="tensorflow",
    ema_decay=0.9999, ema_warmup=True,
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
"""The Pareto table of ResNet-RS (Bello et al., NeurIPS 2021): larger networks have more regularisation."""

_TLL = {
    "image_size": 224, "crop": "resized", "resize": 256, "squash": True, "train_squash": 256, "batch_size": 32,
    "lr_batch": 32, "schedule": "inverse", "nesterov": True, "backbone_lr": 0.1, "evaluate_every": 1,
    "selection": "best", "setting": "transfer",
}  # fmt: skip

_DOMAINBED = {
    "image_size": 224, "crop": "resized", "resize": 224, "squash": True, "crop_area": 0.7,
    "jitter": (0.3, 0.3, 0.3, 0.3), "grey": 0.1, "batch_size": 32, "from_each": True, "epochs": 5001 / 300,
    "epoch_length": 300, "optimizer": "adam", "lr": 5e-5, "lr_batch": 32, "schedule": "constant", "weight_decay": 0.0,
    "frozen_norms": True, "evaluate_every": 1, "selection": "training-domains", "setting": "leave-one-out",
}  # fmt: skip

CLASSIFICATION_RECIPES = {
    # IBN-Net (Pan et al., ECCV 2018), section 4: ResNets' ImageNet recipe. Norm weights start at 1, as in its code.
    "ibn-step": ClassificationRecipe(
        backbone="resnet50", **_IMAGENET, batch_size=256, epochs=100, lr=0.1, schedule="step", milestones=(30, 60, 90),
        weight_decay=1e-4, zero_last_gamma=False,
    ),
    # Switchable Normalization (Luo et al., ICLR 2019) on ImageNet, as in its code: everything decays, also the gates;
    # the learning rate is proportional to the batch (8 x 4 images: .0125; 8 x 1: .003125). The step schedule, and the
    # cosine schedule, with which ResNet-50 v1 reaches 77.5. Differences: the first version of the code trained the last
    # five epochs on centre crops (so the released networks did); the cosine's warm-up does not start at 0.
    "sn-step": ClassificationRecipe(
        backbone="resnet50", **_IMAGENET, batch_size=256, epochs=100, lr=0.1, schedule="step", milestones=(30, 60, 90),
        weight_decay=1e-4, **_SN,
    ),
    "sn-cosine": ClassificationRecipe(
        backbone="resnet50", **_IMAGENET, batch_size=256, epochs=120, lr=0.1, schedule="cosine", warmup_epochs=5,
        weight_decay=1e-4, **_SN,
    ),
    # Batch-Instance Normalization (Nam and Kim, NeurIPS 2018) on CIFAR, as in its code: `--depth 110` builds
    # bottlenecks, with 164 layers; the paper's tables do not say which blocks were used (cifar_bin_resnet110_basic has
    # basic ones). The code reports the best test accuracy of all epochs; `--selection last` reports the last.
    "bin-cifar": ClassificationRecipe(
        backbone="cifar_bin_resnet110", image_size=32, crop="padded", resize=None, batch_size=128, epochs=164, lr=0.1,
        lr_batch=128, schedule="step", milestones=(81, 122), weight_decay=1e-4, normalisation="cifar", keep_last=True,
        evaluate_every=1, selection="best",
    ),
    # Anti-aliased CNNs (Zhang, ICML 2019), and the fine-tuning of a network that was trained without blur. The paper's
    # VGG was trained with a rate of .05 and the sum of the gradients of two batches of 128. A batch of 256 has the mean
    # of both gradients, so twice the rate and half the weight decay give the same steps; with two processes, batch
    # statistics are over 128 images as well.
    "antialiased": ClassificationRecipe(
        backbone="resnet50", **_IMAGENET, batch_size=256, epochs=90, lr=0.1, schedule="step", milestones=(30, 60),
        weight_decay=1e-4, zero_last_gamma=False,
    ),
    "antialiased-alexnet": ClassificationRecipe(
        backbone="alexnet", **_IMAGENET, batch_size=256, epochs=90, lr=0.01, schedule="step", milestones=(30, 60),
        weight_decay=1e-4,
    ),
    "antialiased-vgg": ClassificationRecipe(
        backbone="torchvision/vgg16_bn", **_IMAGENET, batch_size=256, epochs=90, lr=0.1, schedule="step",
        milestones=(30, 60), weight_decay=5e-5,
    ),
    "antialiased-mobilenet": ClassificationRecipe(
        backbone="torchvision/mobilenet_v2", **_IMAGENET, batch_size=256, epochs=150, lr=0.05, schedule="cosine",
        weight_decay=4e-5, own_dropout=False,
    ),
    "antialiased-finetune": ClassificationRecipe(
        backbone="resnet50.tv_in1k", **_IMAGENET, batch_size=256, epochs=60, lr=0.01, schedule="step", milestones=(30,),
        weight_decay=1e-4,
    ),
    # ResNet-RS: resnet-rs-DEPTH-SIZE. Evaluated on a centre crop of 7/8 of the shorter side.
    **{
        f"resnet-rs-{depth}-{size}": replace(
            _RESNET_RS, backbone=f"resnetrs{depth}", image_size=size, resize=size + round(size / 7),
            dropout=dropout, stochastic_depth=drop, randaugment=(2, magnitude),
        )
        for (depth, size), (dropout, drop, magnitude, _) in RESNET_RS_TABLE.items()
    },
    # SimCLR's settings (Chen et al., ICML 2020, appendix B), which ResNet-RS uses for transfer: augmentation by crops
    # and flips only. SimCLR searches learning rate and weight decay for each data set, with 20,000 steps; the number of
    # epochs here is ours, and the rates are from the middle of its grid.
    "finetune": ClassificationRecipe(
        backbone="resnet50.tv_in1k", **_IMAGENET, batch_size=256, epochs=60, lr=0.01, schedule="cosine", nesterov=True,
        weight_decay=1e-4,
    ),
    "linear": ClassificationRecipe(
        backbone="resnet50.tv_in1k", **_IMAGENET, batch_size=4096, epochs=90, lr=0.1, schedule="cosine", nesterov=True,
        weight_decay=0.0, trains="head",
    ),
    # Batch-Instance Normalization on Office-Home: ResNet-18. The paper does not give a schedule; this one is ours. With
    # a domain left out it is not DomainBed's protocol ("domainbed-erm" is): batches have the training domains in
    # proportion to their sizes, and the network of the last step is evaluated on all images of the left-out domain.
    "office-home": ClassificationRecipe(
        backbone="resnet18.tv_in1k", **_IMAGENET, batch_size=64, epochs=60, lr=0.01, lr_batch=64, schedule="step",
        milestones=(30, 45), weight_decay=5e-4,
    ),
    # DANN (Ganin et al., JMLR 2016, section 5.2.2): its learning rate and annealing; each step has as many target
    # images as source images. The other settings are ours; those of Transfer-Learning-Library, whose results are
    # usually quoted, are "tll-dann". The backbone is that of Batch-Instance Normalization's table of Office-Home.
    "dann": ClassificationRecipe(
        backbone="resnet18.tv_in1k", **_IMAGENET, batch_size=64, epochs=60, lr=0.01, lr_batch=64, schedule="annealed",
        weight_decay=5e-4,
    ),
    # Transfer-Learning-Library (github.com/thuml/Transfer-Learning-Library), Office-Home with ResNet-50: a mean over
    # twelve transfers of 65.2, without adaptation 58.4. Its epochs are a fixed number of steps; the reported epoch is
    # selected with the target's labels, so both results are optimistic. Needs --weights imagenet, cls_office_home.py
    # --setting transfer and, for DANN, --adapt dann. --norm does not change the batch norms of the bottleneck and the
    # discriminator. A step has 32 source and 32 target images. [unverified]: Nesterov momentum in "tll-erm".
    "tll-dann": ClassificationRecipe(
        backbone="resnet50.tv_in1k", **_TLL, epochs=30, epoch_length=1000, lr=0.01, lr_gamma=0.001, weight_decay=1e-3,
        bottleneck=256, discriminator="norm", reversal_steps=1000, adapts=True,
    ),
    "tll-erm": ClassificationRecipe(
        backbone="resnet50.tv_in1k", **_TLL, epochs=5, epoch_length=500, lr=0.001, lr_gamma=0.0003, weight_decay=5e-4,
    ),
    # DomainBed (Gulrajani and Lopez-Paz, ICLR 2021; tables of 2020) with its default hyper-parameters: means over the
    # left-out domains of 85.5 on PACS and 66.5 on Office-Home with ERM. Needs --weights imagenet (norms are frozen) and
    # cls_office_home.py --setting leave-one-out. Each seed splits every domain into 80 % and 20 %. Reported is the
    # result on the left-out domain's 80 %, of the evaluation that is best on the training domains' 20 %; --selection
    # last is DomainBed's oracle selection for one set of hyper-parameters. Differences: its tables select among 20
    # random sets of hyper-parameters, and its splits have other random numbers. DANN among the training domains: 83.6
    # and 65.9. [unverified]: Adam's beta 2 of .9 there, and that the network's step comes before the discriminator's.
    "domainbed-erm": ClassificationRecipe(backbone="resnet50.tv_in1k", **_DOMAINBED),
    "domainbed-dann": ClassificationRecipe(
        backbone="resnet50.tv_in1k", **_DOMAINBED, momentum=0.5, beta2=0.9, tells_domains=True,
    ),
    # Ours, for the embedded shapes on a laptop: images have 36 pixels and are cropped to 32. It is what was found to
    # learn most in a minute (docs/recipes.md).
    "laptop": ClassificationRecipe(
        backbone="cifar_resnet8", image_size=32, crop="random", resize=36, batch_size=64, epochs=20, lr=0.3,
        lr_batch=64, schedule="cosine", warmup="to-highest", warmup_epochs=3, weight_decay=5e-4, nesterov=True,
        label_smoothing=0.1, precision="auto", channels_last="auto",
    ),
    # Shows in seconds that all parts work together; learns nothing.
    "smoke": ClassificationRecipe(
        backbone="cifar_resnet8", image_size=32, crop="random", resize=36, batch_size=8, epochs=2, lr=0.01,
        schedule="cosine", weight_decay=1e-4,
    ),
}  # fmt: skip


def register_recipe(name: str, recipe: ClassificationRecipe) -> ClassificationRecipe:
    """Add a recipe of your own, which `--recipe` then takes; returns it.

    Raises:
        ValueError: there is a recipe of that name.
    """
    note("recipe", name, CLASSIFICATION_RECIPES)
    CLASSIFICATION_RECIPES[name] = recipe
    return recipe
