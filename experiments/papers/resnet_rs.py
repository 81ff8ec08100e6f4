"""Revisiting ResNets: Improved Training and Scaling Strategies (Bello et al., NeurIPS 2021)."""

from pandas import Series

from experiments.papers.claim import Claim, Paper, Study
from experiments.papers.measures import more, of_arm, top1
from experiments.study.reader import FolderRun

BASELINE, TRAINED, REGULARISED, BUILT = "baseline", "+EMA-of-weights", "+less-weight-decay", "+ResNet-D"
"""Arms of cls_resnet_rs.py: where the additive study begins, and the last step of each kind."""
ALONE, TOGETHER = "none", "+stochastic-depth"
"""Sets of regularisers of cls_rs_weight_decay.py: weight decay alone, and with all the others."""
LOW, HIGH = "wd0.0002", "wd0.0005"
DEEP, WIDE = "cifar_wrn28_1-bn", "cifar_wrn10_2-bn"
"""Networks of the same operations an image: 28 layers of one width, 10 of twice that width."""

_NETWORKS = "cls_cifar.py --data shapes/photo --norm bn --backbone cifar_wrn28_1 cifar_wrn10_2 --width 0.5"
STUDIES = {
    "additive": Study(
        f"cls_resnet_rs.py --data shapes/photo --epochs 20 --only {BASELINE} {TRAINED} {REGULARISED} {BUILT}", 13
    ),
    "weight-decay": Study(
        "cls_rs_weight_decay.py --data shapes/photo --epochs 10 --only "
        + " ".join(f"{kind}-{decay}" for kind in (ALONE, TOGETHER) for decay in (LOW, HIGH)),
        5,
    ),
    "short": Study(f"{_NETWORKS} --epochs 6", 3),
    "long": Study(f"{_NETWORKS} --epochs 20", 7),
}


def _training_before_architecture(run: FolderRun) -> Series:
    scores = top1(run)
    regularised = of_arm(scores, REGULARISED)
    trained, built = regularised - of_arm(scores, BASELINE), of_arm(scores, BUILT) - regularised
    return (trained - built).dropna()


def _gain_of_low_decay(run: FolderRun, regularisers: str) -> Series:
    scores = top1(run)
    return of_arm(scores, f"{regularisers}-{LOW}") - of_arm(scores, f"{regularisers}-{HIGH}")


def _less_decay_with_regularisers(run: FolderRun) -> Series:
    return (_gain_of_low_decay(run, TOGETHER) - _gain_of_low_decay(run, ALONE)).dropna()


def _depth_for_long_training(short: FolderRun, long: FolderRun) -> Series:
    deeper = more(top1, DEEP, than=WIDE)
    return (deeper(long) - deeper(short)).dropna()


PAPER = Paper(
    "Revisiting ResNets: Improved Training and Scaling Strategies",
    "Bello, Fedus, Du, Cubuk, Srinivas, Lin, Shlens, Zoph, NeurIPS 2021",
    {
        "rs-1": Claim(
            place="Table 1",
            sentence="Training and regularisation bring more than architecture.",
            figure="ResNet-200 at 256 pixels: 79.0, 82.2 with training and regularisation, 83.4 with architecture",
            studies=("additive",),
            measure="gain by training and regularisation minus gain by squeeze-and-excitation and ResNet-D",
            unit="points of top-1",
            difference=_training_before_architecture,
            at_scale="cls_resnet_rs.py --data imagenet --gpus 8 --precision bf16-mixed --seeds 3",
        ),
        "rs-2": Claim(
            place="Table 1",
            sentence="Regularisation brings accuracy on top of better training.",
            figure="ResNet-200 at 256 pixels, top-1: 79.1 after training, 82.2 with regularisation",
            studies=("additive",),
            measure="top-1 with all regularisers minus top-1 before them",
            unit="points of top-1",
            difference=more(top1, REGULARISED, than=TRAINED),
            at_scale="cls_resnet_rs.py --data imagenet --gpus 8 --precision bf16-mixed --seeds 3",
            cause="The network, a ResNet-8, is too small to fit what RandAugment and dropout make of its images: its "
            "training loss ends at 1.2, where label smoothing alone would leave 0.5.",
        ),
        "rs-3": Claim(
            place="Table 2",
            sentence="Lowering weight decay helps more when other regularisers are on.",
            figure="ResNet-50, gain of 4e-5 over 1e-4: -1.0 without other regularisers, +0.5 with them",
            studies=("weight-decay",),
            measure="gain of the lower weight decay with all other regularisers minus that without",
            unit="points of top-1",
            difference=_less_decay_with_regularisers,
            at_scale="cls_rs_weight_decay.py --data imagenet --gpus 8 --seeds 3",
            cause="Under all regularisers this ResNet-8 does not fit its training images in ten epochs (training loss "
            "1.9, top-1 near 50 with 17 between the seeds), so weight decay has no overfitting to prevent.",
        ),
        "rs-4": Claim(
            place="section 6",
            sentence="The longer the training, the more depth is worth against width.",
            figure="scale width for 10 epochs of ImageNet, depth for 350",
            studies=("short", "long"),
            measure="top-1 of 28 narrow layers minus that of 10 wide ones: after 20 epochs minus after 6",
            unit="points of top-1",
            difference=_depth_for_long_training,
            at_scale="cls_rs_scaling.py --data imagenet --gpus 8 --depths 26 50 101 200 --widths 0.5 1 2 --sizes 160 "
            "--seeds 3",
        ),
    },
)
