"""Segmentation recipes as literals that can be compared with their sources."""

from dataclasses import dataclass, replace

from datamodules.registered import note
from lightning_modules.training_recipe import TrainingRecipe


@dataclass(frozen=True, kw_only=True)
class SegmentationRecipe(TrainingRecipe):
    """All settings of a segmentation run except its domains and its norm."""

    arch: str  # "robustnet" (lightning_modules.segmentation.robustnet), or a name of segmentation-models-pytorch
    backbone: str  # timm's name, with a tag for its weights if necessary
    output_stride: int  # of the architectures that have one to choose
    width: float = 1.0  # factor on the encoder's channels, for timm's ResNets
    decoder_channels: int | None = None  # None: the architecture's own number
    height: int | None  # height to which images are resized first; None: images are not resized
    crop: tuple[int, int]  # (height, width)
    max_steps: int
    epoch_steps: int | None  # steps of an epoch, after which gates are tracked; None or at most: a pass over the source
    warmup_steps: int
    warmup_share: float | None = None  # the warm-up as a share of all steps, which replaces `warmup_steps`
    auxiliary_weight: float  # weight of the auxiliary head's loss
    class_weight_power: float = 0.0  # a pixel of a class of frequency f weighs f ** -power in the loss, on average 1
    scenes: int | None = None  # scenes that an embedded source has
    class_uniform: float  # share of the training crops that are centred on a class, see `datamodules.segmentation`
    evaluation: str  # "whole" images at once, or "sliding" windows of the crop's size
    evaluation_epochs: int = 1  # epochs between two evaluations
    scales: tuple[float, float] = (0.5, 2.0)  # of the random scale before the crop, of the augmentation "ours"
    augmentation: str = "ours"  # or "robustnet": see `transforms` and `robustnet` in `datamodules.segmentation`
    squares: tuple[tuple[str, int], ...] = ()  # (set, height): its images are evaluated on central squares
    absent_classes: bool = False  # the mean includes classes that are predicted but do not occur, with an IoU of 0


_ROBUSTNET = SegmentationRecipe(
    arch="robustnet", backbone="resnet50.tv_in1k", output_stride=16, height=None, crop=(768, 768), batch_size=16,
    max_steps=40_000, epoch_steps=None, lr=0.01, momentum=0.9, weight_decay=5e-4, schedule="poly", poly_power=0.9,
    warmup_steps=0, auxiliary_weight=0.4, class_uniform=0.5, evaluation="whole", evaluation_epochs=5,
    augmentation="robustnet", squares=(("mapillary", 1536),), absent_classes=True,
)  # fmt: skip

SEGMENTATION_RECIPES = {
    # RobustNet (Choi et al., CVPR 2021), GTA5 to real cities: network, images, training and evaluation as published.
    # Differences: evaluation every 4 epochs and after the last step; GTA5's training images are the 12,403 of split.mat
    # without those whose label has another size (the published list has 12,388); RobustNet's own norms (ISW and the
    # other whitenings) are not available here. docs/robustnet.md has the details.
    "robustnet": _ROBUSTNET,
    # For a laptop: trained from scratch on the embedded street scenes. A ResNet-18 of half the width with UPerNet's
    # decoder (a pyramid pooled over the whole image, a head at stride 4), 3.4 million weights, and what was found to
    # learn most in a minute (docs/recipes.md). Images are cropped and flipped only.
    "laptop": SegmentationRecipe(
        arch="upernet", backbone="resnet18", output_stride=16, width=0.5, decoder_channels=64, height=128,
        crop=(96, 192), scenes=400, batch_size=8, max_steps=800, epoch_steps=50, lr=0.5, momentum=0.9, nesterov=True,
        weight_decay=5e-4, decay_norms=False, schedule="cosine", warmup="to-highest", warmup_steps=120,
        warmup_share=0.15, auxiliary_weight=0.0, class_weight_power=0.4, class_uniform=0.0, scales=(1.0, 1.0),
        evaluation="whole", evaluation_epochs=5, precision="auto", channels_last="auto",
    ),
    # Shows in seconds that all parts work together; learns nothing.
    "smoke": SegmentationRecipe(
        arch="deeplabv3plus", backbone="resnet18", output_stride=16, height=64, crop=(64, 96), batch_size=2,
        max_steps=4, epoch_steps=2, lr=0.01, momentum=0.9, weight_decay=5e-4, schedule="poly", poly_power=0.9,
        warmup="to-highest", warmup_steps=1, auxiliary_weight=0.4, class_uniform=0.5, evaluation="whole",
    ),
    # The paper's other network: a ResNet-101 whose stem is three 3x3 convolutions, at output stride 8. The paper starts
    # from MIT CSAIL's resnet101-imagenet.pth, which --weights FILE accepts; --weights imagenet uses timm's
    # resnet101s.gluon_in1k, the same network with other weights.
    "robustnet-r101": replace(_ROBUSTNET, backbone="resnet101s.gluon_in1k", output_stride=8),
}  # fmt: skip


def register_recipe(name: str, recipe: SegmentationRecipe) -> SegmentationRecipe:
    """Add a recipe of your own, which `--recipe` then takes; returns it.

    Raises:
        ValueError: there is a recipe of that name.
    """
    note("recipe", name, SEGMENTATION_RECIPES)
    SEGMENTATION_RECIPES[name] = recipe
    return recipe
