"""Segmentation recipes as literals that can be held against their sources."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SegmentationRecipe:
    """Everything about a segmentation run but its domains and its norm."""

    arch: str  # segmentation-models-pytorch's name
    backbone: str  # timm's name
    output_stride: int
    height: int | None  # images are resized to this first; None: as they are
    crop: tuple[int, int]  # (height, width)
    batch_size: int  # images a step, over all processes
    max_steps: int
    epoch_steps: (
        int | None
    )  # steps of an epoch, after which gates are tracked; None: a pass over the source, the most it can be
    lr: float
    momentum: float
    weight_decay: float
    poly_power: float
    warmup_steps: int
    auxiliary_weight: float
    class_uniform: float
    evaluation: str  # "whole" images at once, or "sliding" windows of the crop's size
    judge_epochs: int = 1  # epochs from one judgement to the next


SEGMENTATION_RECIPES = {
    # RobustNet (Choi et al., CVPR 2021), GTA5 to real cities. It warms up nothing; whole images are judged at once.
    "robustnet": SegmentationRecipe(
        arch="deeplabv3plus", backbone="resnet50", output_stride=16, height=None, crop=(768, 768), batch_size=16,
        max_steps=40_000, epoch_steps=None, lr=0.01, momentum=0.9, weight_decay=5e-4, poly_power=0.9, warmup_steps=0,
        auxiliary_weight=0.4, class_uniform=0.5, evaluation="whole", judge_epochs=4,
    ),
    # The same at a laptop's size, from scratch, on the embedded street scenes; warm-up because nothing is pretrained.
    "laptop": SegmentationRecipe(
        arch="deeplabv3plus", backbone="resnet18", output_stride=16, height=128, crop=(96, 192), batch_size=8,
        max_steps=160, epoch_steps=40, lr=0.1, momentum=0.9, weight_decay=5e-4, poly_power=0.9, warmup_steps=20,
        auxiliary_weight=0.4, class_uniform=0.5, evaluation="whole",
    ),
    # Proves in seconds that everything fits together; learns nothing.
    "smoke": SegmentationRecipe(
        arch="deeplabv3plus", backbone="resnet18", output_stride=16, height=64, crop=(64, 96), batch_size=2,
        max_steps=4, epoch_steps=2, lr=0.01, momentum=0.9, weight_decay=5e-4, poly_power=0.9, warmup_steps=1,
        auxiliary_weight=0.4, class_uniform=0.5, evaluation="whole",
    ),
}  # fmt: skip
