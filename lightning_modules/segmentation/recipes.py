"""Segmentation recipes as literals that can be held against their sources."""

from dataclasses import dataclass, replace

from lightning_modules.training_recipe import TrainingRecipe


@dataclass(frozen=True, kw_only=True)
class SegmentationRecipe(TrainingRecipe):
    """Everything about a segmentation run but its domains and its norm."""

    arch: str  # "robustnet" (lightning_modules.segmentation.robustnet), or segmentation-models-pytorch's name
    backbone: str  # timm's name, with the tag of its weights where it matters
    output_stride: int
    height: int | None  # images are resized to this first; None: as they are
    crop: tuple[int, int]  # (height, width)
    max_steps: int
    epoch_steps: int | None  # after which gates are tracked; None: a pass over the source, the most it can be
    warmup_steps: int
    auxiliary_weight: float
    class_uniform: float
    evaluation: str  # "whole" images at once, or "sliding" windows of the crop's size
    evaluation_epochs: int = 1  # epochs from one evaluation to the next
    augmentation: str = (
        "ours"  # "ours" (datamodules.segmentation.transforms) or "robustnet" (datamodules.segmentation.robustnet)
    )
    squares: tuple[tuple[str, int], ...] = ()  # a set and the height at which its central square is evaluated
    absent_classes: bool = False  # a mean over all classes, in which one that is predicted and not there counts 0


_ROBUSTNET = SegmentationRecipe(
    arch="robustnet", backbone="resnet50.tv_in1k", output_stride=16, height=None, crop=(768, 768), batch_size=16,
    max_steps=40_000, epoch_steps=None, lr=0.01, momentum=0.9, weight_decay=5e-4, schedule="poly", poly_power=0.9,
    warmup_steps=0,
    auxiliary_weight=0.4, class_uniform=0.5, evaluation="whole", evaluation_epochs=4, augmentation="robustnet",
    squares=(("mapillary", 1536),), absent_classes=True,
)  # fmt: skip

SEGMENTATION_RECIPES = {
    # RobustNet (Choi et al., CVPR 2021), GTA5 to real cities: network, images, training and evaluation as published.
    # What remains different: it is evaluated every 4 epochs as well as after the last step; GTA5's training images are
    # split.mat's 12,403 without those whose label is of another size, where the published list has 12,388; its own
    # norms (ISW and the other whitenings) are not here. docs/robustnet.md has the details.
    "robustnet": _ROBUSTNET,
    # A laptop's size, from scratch, on the embedded street scenes; warm-up because nothing is pretrained. This network
    # is segmentation-models-pytorch's DeepLabV3+, and the augmentation ours.
    "laptop": SegmentationRecipe(
        arch="deeplabv3plus", backbone="resnet18", output_stride=16, height=128, crop=(96, 192), batch_size=8,
        max_steps=160, epoch_steps=40, lr=0.1, momentum=0.9, weight_decay=5e-4, schedule="poly", poly_power=0.9,
        warmup="to-highest", warmup_steps=20,
        auxiliary_weight=0.4, class_uniform=0.5, evaluation="whole",
    ),
    # Proves in seconds that everything fits together; learns nothing.
    "smoke": SegmentationRecipe(
        arch="deeplabv3plus", backbone="resnet18", output_stride=16, height=64, crop=(64, 96), batch_size=2,
        max_steps=4, epoch_steps=2, lr=0.01, momentum=0.9, weight_decay=5e-4, schedule="poly", poly_power=0.9,
        warmup="to-highest", warmup_steps=1,
        auxiliary_weight=0.4, class_uniform=0.5, evaluation="whole",
    ),
    # robustnet with a ResNet-101 whose stem is three 3x3 convolutions, at output stride 8: the paper's other network.
    # Published, it starts from MIT CSAIL's resnet101-imagenet.pth, which --weights FILE takes; --weights imagenet gives
    # timm's resnet101s.gluon_in1k, the same network trained by others.
    "robustnet-r101": replace(_ROBUSTNET, backbone="resnet101s.gluon_in1k", output_stride=8),
}  # fmt: skip
