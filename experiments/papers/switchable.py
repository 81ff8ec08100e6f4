"""Differentiable Learning-to-Normalize via Switchable Normalization (Luo, Ren, Peng, Zhang, Li, ICLR 2019)."""

from pandas import Series

from experiments.papers.claim import Claim, Paper, Study
from experiments.papers.measures import (
    batch_share,
    batch_share_late,
    instance_share_early,
    less,
    more,
    of,
    of_arm,
    top1,
)
from experiments.study.reader import FolderRun

STUDIES = {
    "batch-size": Study("cls_batch_size.py --data shapes/photo --norm bn sn --settings 1x32 1x2 --epochs 6", 9),
    "styles": Study("cls_office_home.py --data shapes --norm bn bin sn", 10),
}
_IMAGENET = "cls_batch_size.py --data imagenet --gpus 8 --norm bn gn sn --settings 8x32 8x2 --seeds 3"


def _fall(norm: str, run: FolderRun) -> Series:
    """What a norm loses from 32 images normalised together to 2."""
    scores = top1(run)
    return of_arm(scores, f"{norm}-1x32") - of_arm(scores, f"{norm}-1x2")


PAPER = Paper(
    "Differentiable Learning-to-Normalize via Switchable Normalization",
    "Luo, Ren, Peng, Zhang, Li, ICLR 2019",
    {
        "sn-1": Claim(
            place="ImageNet, by images a GPU",
            sentence="From 32 images normalised together to 2, SN loses less accuracy than batch norm.",
            figure="ResNet-50, top-1 at 8 x 32 and 8 x 2: BN 76.4 and 65.3, SN 76.9 and 75.6",
            studies=("batch-size",),
            measure="top-1 at 32 images minus top-1 at 2: BN's minus SN's",
            unit="points of top-1",
            difference=lambda run: (_fall("bn", run) - _fall("sn", run)).dropna(),
            at_scale=_IMAGENET,
        ),
        "sn-2": Claim(
            place="ImageNet, by images a GPU",
            sentence="With two images at a time, SN is more accurate than batch norm.",
            figure="ResNet-50, top-1 at 8 x 2: BN 65.3, SN 75.6",
            studies=("batch-size",),
            measure="top-1 at 2 images: SN's minus BN's",
            unit="points of top-1",
            difference=more(top1, "sn-1x2", than="bn-1x2"),
            at_scale=_IMAGENET,
        ),
        "sn-3": Claim(
            place="analysis of the learned weights",
            sentence="The smaller the batch, the less SN takes from it.",
            figure="pictures of the shares by batch size",
            studies=("batch-size",),
            measure="the batch's share in SN's gates: at 32 images minus at 2",
            unit="points of share",
            difference=less(batch_share, "sn-1x2", than="sn-1x32"),
            at_scale=_IMAGENET,
        ),
        "sn-4": Claim(
            place="analysis of the learned weights",
            sentence="Early layers take more from the instance than late ones.",
            figure="pictures of the shares by layer",
            studies=("styles",),
            measure="the instance's share in SN's gates: first third of the layers minus last third",
            unit="points of share",
            difference=of(instance_share_early, "sn"),
            at_scale="cls_imagenet.py --data imagenet --gpus 8 --norm sn --seeds 3",
        ),
        "sn-5": Claim(
            place="analysis of the learned weights",
            sentence="Late layers take more from the batch than early ones.",
            figure="pictures of the shares by layer",
            studies=("styles",),
            measure="the batch's share in SN's gates: last third of the layers minus first third",
            unit="points of share",
            difference=of(batch_share_late, "sn"),
            at_scale="cls_imagenet.py --data imagenet --gpus 8 --norm sn --seeds 3",
        ),
    },
)
