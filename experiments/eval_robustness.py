"""How robust are trained networks to shifts of appearance, corruptions, perturbations and translations?

Each paper measured one kind of robustness. ImageNet-C and -P (Hendrycks, Dietterich, ICLR 2019): a ResNet-50 of 23.85 %
clean error has mCE 76.7 and mFR 58.0. Anti-aliased CNNs (Zhang, ICML 2019): blur before subsampling raises a
ResNet-50's shift consistency from 89.20 to 91.32 % (filter 4), and lowers mFR to 51.2 (filter 5). IBN-Net (Pan et al.,
ECCV 2018): with instance norm in the shallow layers, accuracy drops less under shifts of light and colour.

Eight GPUs, with data/imagenet on disk (not run here); each GPU evaluates some of the networks:

    python experiments/eval_robustness.py torchvision/resnet50 torchvision/alexnet --gpus 8 --workers 64

As published, on the files of ImageNet-C and -P in data/imagenet-c and data/imagenet-p:

    python experiments/eval_robustness.py torchvision/resnet50 --gpus 1 --published

A laptop: the networks of a study, on the data that they were trained on (the embedded shapes need no files):

    python experiments/cls_imagenet.py --norm bn ibn-a
    python experiments/eval_robustness.py runs/cls_imagenet

All parts together evaluate each network on about 360 views of an image. A CIFAR ResNet-20 at 32 x 32 takes 0.9 s an
image on one core, three quarters of it for the perturbations; --parts and --images make it shorter.

The script evaluates every network on clean images, under IBN-Net's appearance shifts, ImageNet-C's corruptions and
ImageNet-P's perturbations, and by shift consistency and calibration. It generates the corruptions itself, once for all
networks of one input size. mCE, relative mCE and mFR divide by AlexNet's errors on the published files. They are given
only for these files (--published), for all 1000 classes at 224 x 224. For generated corruptions and perturbations the
table gives plain means, called "mean error, corrupted" and "flip probability". OUT then holds table.md, results.csv and
a figure, robustness.png. W&B gets one run for each network, with the keys that the dashboard shows.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from experiments.study.bounds import Bounds
from experiments.study.endings import UsageError, one_sentence
from experiments.study.flags import check_choices, check_numbers, check_wandb, parse, register_plugins, smoke_wandb

if TYPE_CHECKING:
    from pandas import DataFrame

PARTS = ("clean", "shifts", "corruptions", "perturbations", "consistency")
POSITIONAL = {"positional": True, "custom_args": {"metavar": "NETWORK ..."}}


@dataclass
class Flags:
    """Flags of this evaluation."""

    networks: list[str] = field(default_factory=list, metadata=POSITIONAL)
    """Checkpoints, folders of runs (all their checkpoints; seeds of one arm are averaged), or torchvision and timm
    names."""
    data: str | None = None
    """Set to evaluate on; by default the set that the checkpoints were trained on, and imagenet for names."""
    data_root: str = "data"
    """Folder with the real data sets, each in a subfolder of its name."""
    split: str = "val"
    """Split of the set."""
    images: int | None = None
    """Number of images, spread over the classes; by default all, and 200 of an embedded set."""
    parts: list[str] = field(default_factory=lambda: list(PARTS))
    """What to measure: clean shifts corruptions perturbations consistency."""
    severities: list[int] = field(default_factory=lambda: [1, 2, 3, 4, 5])
    """Severities of the corruptions, 1 to 5."""
    frames: int | None = None
    """Number of frames of each perturbation; by default as many as in ImageNet-P."""
    published: bool = False
    """Evaluate on the published files of ImageNet-C and -P, in DATA_ROOT/imagenet-c and DATA_ROOT/imagenet-p."""
    frost: str | None = None
    """Folder with ImageNet-C's photographs of frost, frost1.png to frost5.jpg; by default frost is drawn."""
    weights: str = "imagenet"
    """Weights of networks that are named: imagenet (downloaded) or none."""
    batch_size: int = 128
    """Images per batch; it does not change the results."""
    gpus: int | None = None
    """GPUs; 0 evaluates on the CPU. By default one GPU if there is one. With several, each evaluates some networks."""
    workers: int | None = None
    """Data loader processes, which also corrupt the images; by default half the cores, at most 8."""
    seed: int = 0
    """Seed of corruptions and crops."""
    out: str = "runs/eval_robustness"
    """Folder for the table, the results and the figure."""
    plugin: list[str] = field(default_factory=list)
    """Python files of yours that register norms, backbones, data sets or tasks (docs/plugins.md)."""
    wandb: str = "auto"
    """Weights & Biases: online, offline or disabled; auto is online if you are logged in, else offline."""
    smoke: bool = False
    """Evaluate a small untrained network on a few embedded shapes: a test, in seconds, that everything runs."""

    def __post_init__(self):
        register_plugins(self)
        check_numbers(self, images=Bounds(1, 10**9))
        check_choices(self, parts=PARTS, severities=(1, 2, 3, 4, 5))
        if self.weights not in ("imagenet", "none"):
            raise UsageError(f"--weights {self.weights}: choose imagenet or none.")
        if self.published and self.frames is not None:
            raise UsageError("--frames is for generated perturbations: leave it out with --published.")
        if self.published and self.frost is not None:
            raise UsageError("--frost is for generated corruptions: leave it out with --published.")
        check_wandb(self.wandb)
        if not self.networks and not self.smoke:
            raise UsageError("name a network to evaluate: a checkpoint, a run's folder, or a torchvision or timm name.")


def main() -> None:
    with one_sentence():
        run(parse(Flags, __doc__))


def run(flags: Flags) -> DataFrame:
    """Evaluate the networks; returns results in long form: arm, its columns, seed, part, condition, severity, measure,
    value."""
    from experiments.tasks.robustness_comparison import compared  # imports torch: --help must not wait for it

    return compared(smoked(flags) if flags.smoke else flags)


def smoked(flags: Flags) -> Flags:
    """The flags of a smoke run; parts and the like stay."""
    changed = {"data": "shapes", "images": 4, "workers": 0, "frames": 3, "severities": [1, 5], "published": False}
    out = f"{flags.out}-smoke" if flags.out == Flags(smoke=True).out else flags.out
    networks = flags.networks or ["cifar_resnet8"]
    return dataclasses.replace(flags, networks=networks, weights="none", out=out, wandb=smoke_wandb(flags), **changed)


if __name__ == "__main__":
    main()
