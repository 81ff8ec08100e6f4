"""Two at Once: IBN-Net (Pan, Luo, Shi, Tang, ECCV 2018)."""

from experiments.papers.claim import Claim, Paper, Study
from experiments.papers.measures import drop, less, light_loss, log_divergence, more, share_kept, source_miou, top1

STUDIES = {
    "streets": Study(
        "seg_gta2city.py --source streets-game --target streets-city streets-night streets-fog "
        "--norm bn ibn-a ibn-b --no-augment-colour --max-steps 500",
        13,
    ),
    "light": Study("cls_imagenet.py --data shapes/photo --norm bn ibn-a bin --evaluate shifts", 8),
}
_GTA5 = (
    "seg_gta2city.py --source gta5 --target cityscapes --norm bn ibn-a ibn-b --no-augment-colour --weights imagenet "
    "--seeds 3 --gpus 8"
)
_IMAGENET = "cls_imagenet.py --data imagenet --norm bn ibn-a --evaluate shifts --seeds 3 --gpus 8"

PAPER = Paper(
    "Two at Once: Enhancing Learning and Generalization Capacities via IBN-Net",
    "Pan, Luo, Shi, Tang, ECCV 2018",
    {
        "ibn-1": Claim(
            place="cross-domain segmentation",
            sentence="A network with IBN-b loses less on another city's appearance than one with batch norm.",
            figure="GTA5 to Cityscapes: the drop shrinks by 7.5 points of mIoU; Cityscapes to GTA5: by 8.5",
            studies=("streets",),
            measure="drop from source to targets: BN's minus IBN-b's",
            unit="points of mIoU",
            difference=less(drop, "ibn-b", than="bn"),
            at_scale=_GTA5,
        ),
        "ibn-2": Claim(
            place="cross-domain segmentation",
            sentence="A network with IBN-a loses less, too.",
            figure="said of both; the paper's figures for IBN-a are not verified here",
            studies=("streets",),
            measure="drop from source to targets: BN's minus IBN-a's",
            unit="points of mIoU",
            difference=less(drop, "ibn-a", than="bn"),
            at_scale=_GTA5,
        ),
        "ibn-3": Claim(
            place="cross-domain segmentation",
            sentence="On the targets, IBN-b keeps a larger share of what it reaches at home.",
            figure="GTA5 to Cityscapes: 22.2 to 29.6 mIoU on the target (not verified here)",
            studies=("streets",),
            measure="mean of targets in percent of the source: IBN-b's minus BN's",
            unit="points",
            difference=more(share_kept, "ibn-b", than="bn"),
            at_scale=_GTA5,
        ),
        "ibn-4": Claim(
            place="cross-domain segmentation",
            sentence="At home, IBN-a is no worse than batch norm.",
            figure="no loss on the source; figures not verified here",
            studies=("streets",),
            measure="mIoU on the source: IBN-a's minus BN's; a point less still counts as no worse",
            unit="points of mIoU",
            difference=more(source_miou, "ibn-a", than="bn"),
            margin=1.0,
            at_scale=_GTA5,
        ),
        "ibn-5": Claim(
            place="analysis of feature divergence",
            sentence="Features of the two domains differ less under IBN-b, on average over the layers.",
            figure="a picture: lower in nearly all layers",
            studies=("streets",),
            measure="log2 of the features' divergence, mean of the encoder's layers: BN's minus IBN-b's",
            unit="doublings",
            difference=less(log_divergence, "ibn-b", than="bn"),
            at_scale=_GTA5,
        ),
        "ibn-6": Claim(
            place="ImageNet, shifts of appearance",
            sentence="Under RGB+50, R+50 and std/1.5, a classifier with IBN-a loses less than one with batch norm.",
            figure="ResNet-50: less loss under each; figures not verified here",
            studies=("light",),
            measure="top-1 lost to the three shifts: BN's minus IBN-a's",
            unit="points of top-1",
            difference=less(light_loss, "ibn-a", than="bn"),
            at_scale=_IMAGENET,
        ),
        "ibn-7": Claim(
            place="ImageNet",
            sentence="On images as they were learned, IBN-a is more accurate than batch norm.",
            figure="ResNet-50, top-1: 75.73 to 77.46; ResNet-101: 77.52 to 78.61",
            studies=("light",),
            measure="top-1: IBN-a's minus BN's",
            unit="points of top-1",
            difference=more(top1, "ibn-a", than="bn"),
            at_scale=_IMAGENET,
        ),
    },
)
