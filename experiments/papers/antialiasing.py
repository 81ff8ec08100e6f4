"""Making Convolutional Networks Shift-Invariant Again (Zhang, ICML 2019)."""

from experiments.papers.claim import Claim, Paper, Study
from experiments.papers.measures import less, more, score, top1

STUDIES = {
    "blur": Study(
        "cls_imagenet.py --data shapes/photo --norm bn --antialias 0 2 4 --evaluate consistency corruptions", 19
    ),
}
_IMAGENET = (
    "cls_imagenet.py --data imagenet --gpus 8 --norm bn --antialias 0 2 4 --recipe antialiased --seeds 3 "
    "--evaluate consistency corruptions"
)
consistency = score("consistency", "consistency")
corruption_error = score("error", "corruptions")

PAPER = Paper(
    "Making Convolutional Networks Shift-Invariant Again",
    "Zhang, ICML 2019",
    {
        "blur-1": Claim(
            place="ImageNet, shift consistency",
            sentence="Blur before subsampling makes predictions agree more often between two shifts of an image.",
            figure="ResNet-18, filter 4: 85.11 to 88.36; ResNet-50: 89.20 to 91.32",
            studies=("blur",),
            measure="shift consistency: filter 4's minus no filter's",
            unit="points of consistency",
            difference=more(consistency, "bn-blur4", than="bn"),
            at_scale=_IMAGENET,
        ),
        "blur-2": Claim(
            place="ImageNet, accuracy",
            sentence="It also raises accuracy.",
            figure="ResNet-18, filter 4: 69.74 to 71.67; ResNet-50: 76.16 to 77.41",
            studies=("blur",),
            measure="top-1: filter 4's minus no filter's",
            unit="points of top-1",
            difference=more(top1, "bn-blur4", than="bn"),
            at_scale=_IMAGENET,
        ),
        "blur-3": Claim(
            place="ImageNet, by filter",
            sentence="A longer filter makes predictions more consistent than a short one.",
            figure="curves of consistency by filter",
            studies=("blur",),
            measure="shift consistency: filter 4's minus filter 2's",
            unit="points of consistency",
            difference=more(consistency, "bn-blur4", than="bn-blur2"),
            at_scale=_IMAGENET,
        ),
        "blur-4": Claim(
            place="ImageNet-C",
            sentence="It lowers the error on corrupted images.",
            figure="said of ResNet-50; figures not verified here (on ImageNet-P, filter 5: flip rate 58.0 to 51.2)",
            studies=("blur",),
            measure="mean error over 15 corruptions: no filter's minus filter 4's",
            unit="points of error",
            difference=less(corruption_error, "bn-blur4", than="bn"),
            at_scale=_IMAGENET,
        ),
    },
)
