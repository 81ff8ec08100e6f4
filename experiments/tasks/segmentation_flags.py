"""The flags that every segmentation study has. It does not import torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from experiments.study.endings import UsageError
from experiments.study.flags import RunFlags, check_weights, flag
from lightning_modules.segmentation.recipes import SEGMENTATION_RECIPES, SegmentationRecipe


@dataclass
class SegmentationFlags(RunFlags):
    """Flags that every segmentation study has."""

    source: str = "gta5"
    """Domain to train on: gta5 cityscapes bdd100k bdd100k-drivable synthia mapillary camvid, or the embedded
    streets-game streets-city streets-night streets-fog."""
    target: list[str] = field(default_factory=lambda: ["cityscapes"])
    """Domains to evaluate on besides the source; NAME:SPLIT takes another split than val."""
    norm: list[str] = field(default_factory=lambda: ["bn", "ibn-a", "ibn-b", "sn", "bin"])
    """Norms to compare, of NORMS."""
    norm_in: str = "both"
    """Where the norm replaces batch norm: encoder, decoder or both (IBN-Net's norms always go into the encoder)."""
    sync_norm: bool = False
    """Compute batch statistics over all processes, in every norm that has them (bn, sn, bin and IBN's BN half)."""
    recipe: str = "auto"
    """Training recipe: robustnet (ResNet-50, output stride 16), robustnet-r101 (ResNet-101, output stride 8), laptop
    or smoke; auto is laptop on the embedded streets, else robustnet. The flags below override parts of it."""
    arch: str | None = None
    """Architecture: robustnet, which is RobustNet's DeepLabV3+, or a segmentation-models-pytorch name such as
    deeplabv3plus. With --arch or --backbone, networks have all their channels."""
    backbone: str | None = None
    """Encoder: a timm name, also with a tag, such as resnet50.tv_in1k."""
    weights: str = "none"
    """Initial weights of the encoder: none, imagenet (timm downloads them) or a checkpoint file, also one that a
    paper's authors published; RobustNet's own files hold the whole network."""
    lr: float | None = None
    """Base learning rate: the end of the warm-up and the start of the polynomial decay."""
    height: int | None = None
    """Height to which every image is resized first; 0 keeps the image's own. Label maps are resized by nearest
    neighbour."""
    crop: tuple[int, int] | None = None
    """Height and width of the training crops."""
    evaluation: str | None = None
    """Evaluate on whole images (whole) or on sliding windows of the crop's size (sliding)."""
    augment_colour: bool = flag(default=True, negative_prefix="--no-")
    """Augment training images with colour jitter and blur."""
    class_uniform: float | None = None
    """Share of the training crops that are placed on an object of a class, which is drawn uniformly."""
    scenes: int | None = None
    """Number of scenes on which an embedded domain is evaluated."""

    @classmethod
    def recipes_to_choose(cls) -> dict[str, SegmentationRecipe]:
        return SEGMENTATION_RECIPES

    @classmethod
    def default_recipe(cls) -> tuple[str, SegmentationRecipe]:
        return "robustnet", SEGMENTATION_RECIPES["robustnet"]

    def __post_init__(self):
        super().__post_init__()
        self.norm = list(dict.fromkeys(self.norm))
        if not self.norm:
            raise UsageError("--norm: name one norm or more, such as --norm bn ibn-a sn.")
        if self.crop is not None and any(side % 32 for side in self.crop):
            raise UsageError(f"--crop {self.crop[0]} {self.crop[1]}: the sides must be multiples of 32.")
        if self.height is not None and self.height != 0 and self.height < 32:
            raise UsageError(f"--height {self.height}: it must be 32 or more, or 0 to keep the images' own.")
        check_weights(self.weights)
