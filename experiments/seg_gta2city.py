"""Which norm survives the drive from one city to another?

IBN-Net (Pan, Luo, Shi, Tang, ECCV 2018): instance norm in the shallow layers beside batch norm keeps accuracy on the
source and loses less on the targets. From GTA5 to Cityscapes a dilated ResNet-50 rises from 22.2 to 29.6 mIoU with
IBN-b (reported second-hand, unverified); in RobustNet's protocol (Choi et al., CVPR 2021; ResNet-101, output stride 8)
from 30.06 to 33.63 with IBN.

Eight GPUs, with data/gta5 and data/cityscapes on disk (not run here):

    python experiments/seg_gta2city.py --gpus 8 --weights imagenet --norm bn ibn-a ibn-b sn bin --sync-norm

This is RobustNet's protocol with a ResNet-50 (docs/robustnet.md); --recipe robustnet-r101 is that with a ResNet-101.

A laptop, with no data on disk (the embedded street scenes):

    python experiments/seg_gta2city.py --source streets-game --target streets-city streets-night streets-fog

Three seeds of five norms, --max-steps 500 and without colour augmentation, took 22 minutes on one of two busy cores.
The drop from the source to the mean of the targets was 41.2 +- 0.8 points with bn, 37.8 +- 1.0 with ibn-a, 37.4 +- 1.0
with sn, 34.4 +- 1.4 with bin and 23.1 +- 0.8 with ibn-b.

The study trains one network for each norm and seed on the source, and evaluates it on the source and on every target.
Its closing table gives mIoU on each domain and the drop, as mean and standard deviation over the seeds. OUT then holds
table.md, report.html, results.csv, metrics.csv, gates.parquet, divergence.csv, checkpoints and examples.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from experiments.study.endings import one_sentence
from experiments.study.flags import parse
from experiments.tasks.segmentation_flags import SegmentationFlags

if TYPE_CHECKING:
    from pandas import DataFrame

QUESTION = (
    "A segmentation network is trained on one domain of street scenes and evaluated on others. "
    "With which norm does its accuracy drop least, and what did its layers learn?"
)


@dataclass
class Flags(SegmentationFlags):
    """Flags of this study."""

    source: str = "gta5"
    """Domain to train on: gta5 cityscapes bdd100k bdd100k-drivable synthia mapillary camvid, or the embedded
    streets-game streets-city streets-night streets-fog."""
    target: list[str] = field(default_factory=lambda: ["cityscapes"])
    """Domains to evaluate on besides the source; NAME:SPLIT takes another split than val."""
    norm: list[str] = field(default_factory=lambda: ["bn", "ibn-a", "ibn-b", "sn", "bin"])
    """Norms to compare, of NORMS."""


def main() -> None:
    with one_sentence():
        run(parse(Flags, __doc__))


def run(flags: Flags) -> DataFrame | None:
    """Train and evaluate every norm and seed; returns the results in long form."""
    from experiments.tasks.segmentation import Arm, run_arms  # imports torch: --help must not wait for it

    arms = [Arm(name=norm, columns={"norm": norm}, norm=norm) for norm in flags.norm]
    return run_arms(flags, "seg_gta2city", QUESTION, arms)


if __name__ == "__main__":
    main()
