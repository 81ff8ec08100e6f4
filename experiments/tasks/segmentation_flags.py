"""The flags that every segmentation study has. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from experiments.study.flags import RunFlags, UsageError, check_weights, flag


@dataclass
class SegmentationFlags(RunFlags):
    """Flags that every segmentation study has."""

    source: str = "gta5"
    """Domain to train on, of gta5 cityscapes bdd100k bdd100k-drivable synthia mapillary camvid streets-game
    streets-city streets-night streets-fog."""
    target: list[str] = field(default_factory=lambda: ["cityscapes"])
    """Domains to be evaluated on besides the source; NAME:SPLIT evaluates on another split than val."""
    norm: list[str] = field(default_factory=lambda: ["bn", "ibn-a", "ibn-b", "sn", "bin"])
    """Norms to compare, of NORMS."""
    norm_in: str = "both"
    """Which half gets the norm: encoder, decoder or both (IBN-Net's always go into the encoder)."""
    sync_norm: bool = False
    """Take batch statistics over all processes, in bn, sn, bin and IBN's bn half alike."""
    recipe: str = "auto"
    """robustnet (ResNet-50, output stride 16), robustnet-r101 (ResNet-101, 8), or laptop for the embedded streets; the
    flags below override parts of it."""
    arch: str | None = None
    """Architecture: robustnet, which is RobustNet's DeepLabV3+, or one of segmentation-models-pytorch's by its name
    there, such as deeplabv3plus."""
    backbone: str | None = None
    """Encoder, by timm's name, also with a tag: resnet50.tv_in1k."""
    weights: str = "none"
    """Encoder weights to start from: none, imagenet (timm downloads the backbone's) or a checkpoint file, also the
    papers'; RobustNet's own files bring the whole network."""
    lr: float | None = None
    """Base learning rate, which the warm-up rises to and the polynomial decay falls from."""
    height: int | None = None
    """Height that every image is resized to first, 0 for none; labels are taken at the new pixels' centres."""
    crop: tuple[int, int] | None = None
    """Height and width of the training crops."""
    evaluation: str | None = None
    """Evaluate whole images at once (whole) or by windows of the crop's size (sliding)."""
    augment_colour: bool = flag(default=True, negative_prefix="--no-")
    """Jitter colours and blur in training."""
    class_uniform: float | None = None
    """Share of the training crops that are aimed at a class drawn uniformly."""
    scenes: int | None = None
    """Scenes that an embedded domain is evaluated on."""

    def __post_init__(self):
        super().__post_init__()
        self.norm = list(dict.fromkeys(self.norm))
        if not self.norm:
            raise UsageError("--norm: name one norm or more, such as --norm bn ibn-a sn.")
        if self.crop is not None and any(side % 32 for side in self.crop):
            raise UsageError(f"--crop {self.crop[0]} {self.crop[1]}: the sides must be multiples of 32.")
        if self.height is not None and self.height != 0 and self.height < 32:
            raise UsageError(f"--height {self.height}: it must be 32 or more, or 0 for none.")
        check_weights(self.weights)
