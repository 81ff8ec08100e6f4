"""Batch-Instance Normalization for Adaptively Style-Invariant Neural Networks (Nam, Kim, NeurIPS 2018)."""

from pandas import Series

from experiments.papers.claim import Claim, Paper, Study
from experiments.papers.measures import more, of, of_arm, rho_at_the_ends, rho_rising, top1
from experiments.study.reader import FolderRun

STUDIES = {
    "adaptation": Study(
        "cls_office_home.py --data shapes --setting transfer --adapt dann --source photo --target painting "
        "--norm bn bin --epochs 10",
        7,
    ),
    "architectures": Study(
        "cls_cifar.py --data shapes --norm bn bin --backbone cifar_preresnet8 cifar_densenet_bc16_12 --epochs 10", 10
    ),
}
_OFFICE_HOME = "cls_office_home.py --data office-home --gpus 1 --weights imagenet --norm bn bin --seeds 3"
_CIFAR = "cls_cifar.py --data cifar100 --gpus 1 --norm bn bin --seeds 3"


def _over_networks(run: FolderRun) -> Series:
    """Top-1 under BIN minus top-1 under BN, on average over the networks."""
    scores, networks = top1(run), dict.fromkeys(columns["backbone"] for columns in run.arms.values())
    gaps = [of_arm(scores, f"{name}-bin") - of_arm(scores, f"{name}-bn") for name in networks]
    return (sum(gaps) / len(gaps)).dropna()


PAPER = Paper(
    "Batch-Instance Normalization for Adaptively Style-Invariant Neural Networks",
    "Nam, Kim, NeurIPS 2018",
    {
        "bin-1": Claim(
            place="Office-Home, all domains at once",
            sentence="On several styles mixed, BIN is more accurate than batch norm.",
            figure="ResNet-18, mean top-1 of four domains: 78.95 to 80.08",
            studies=("styles",),
            measure="mean top-1 of four styles: BIN's minus BN's",
            unit="points of top-1",
            difference=more(top1, "bin", than="bn"),
            at_scale=_OFFICE_HOME,
        ),
        "bin-2": Claim(
            place="ImageNet and CIFAR",
            sentence="On images of one style, BIN is no worse.",
            figure="ImageNet, ResNet-18: 69.89 to 70.68; CIFAR-10, ResNet-110: 93.72 to 94.29",
            studies=("light",),
            measure="top-1: BIN's minus BN's; a point less still counts as no worse",
            unit="points of top-1",
            difference=more(top1, "bin", than="bn"),
            margin=1.0,
            at_scale="cls_imagenet.py --data imagenet --gpus 8 --norm bn bin --backbone resnet18 --seeds 3",
        ),
        "bin-3": Claim(
            place="Office-Home, domain adaptation",
            sentence="With adversarial adaptation to another domain, BIN is no worse than batch norm.",
            figure="level or better on 11 of 12 transfers",
            studies=("adaptation",),
            measure="top-1 on the target: BIN's minus BN's; a point less still counts as no worse",
            unit="points of top-1",
            difference=more(top1, "bin-photo-to-painting", than="bn-photo-to-painting"),
            margin=1.0,
            at_scale=f"{_OFFICE_HOME} --setting transfer --adapt dann",
        ),
        "bin-4": Claim(
            place="analysis of rho",
            sentence="Gates gather at both ends, not between them.",
            figure="histograms with two ends",
            studies=("styles",),
            measure="rho in the sparser of 0 to 0.2 and 0.8 to 1, minus rho in 0.4 to 0.6",
            unit="percent of the channels",
            difference=of(rho_at_the_ends, "bin"),
            at_scale=_CIFAR,
        ),
        "bin-5": Claim(
            place="analysis of rho",
            sentence="Lower layers turn to the instance, upper layers stay with the batch.",
            figure="histograms by layer",
            studies=("styles",),
            measure="mean rho: last third of the layers minus first third",
            unit="hundredths of rho",
            difference=of(rho_rising, "bin"),
            at_scale=_CIFAR,
        ),
        "bin-6": Claim(
            place="CIFAR-100, by architecture",
            sentence="BIN is more accurate in networks of several kinds.",
            figure="seven networks, 0.21 to 2.1 points more; PreResNet-110 76.49 to 77.84, DenseNet-BC 76.93 to 77.80",
            studies=("architectures",),
            measure="top-1, mean of a PreResNet and a DenseNet: BIN's minus BN's",
            unit="points of top-1",
            difference=_over_networks,
            at_scale=f"{_CIFAR} --backbone cifar_preresnet110 cifar_densenet_bc190_40 cifar_vgg19 cifar_wrn28_10",
        ),
    },
)
