"""How accurate and how robust is a classifier, by norm, by anti-aliasing and by the papers' recipes?

The papers' numbers on ImageNet, top-1 in percent: IBN-Net (Pan et al., ECCV 2018) ResNet-50 75.73 -> 77.46 with IBN-a;
Switchable Normalization (Luo et al., ICLR 2019) ResNet-50 76.4 -> 76.9; Batch-Instance Normalization (Nam and Kim,
NeurIPS 2018) ResNet-18 69.89 -> 70.68; anti-aliased CNNs (Zhang, ICML 2019) ResNet-50 76.16 -> 77.41 and shift
consistency 89.20 -> 91.32, filter 4; ResNet-RS (Bello et al., NeurIPS 2021) 152 at 256 pixels 83.0.

Eight GPUs, with data/imagenet on disk (not run here):

    python experiments/cls_imagenet.py --data imagenet --gpus 8 --norm bn ibn-a sn bin --evaluate shifts consistency
    python experiments/cls_imagenet.py --data imagenet --gpus 8 --norm bn --antialias 0 4 --recipe antialiased
    python experiments/cls_imagenet.py --data imagenet --gpus 8 --norm bn --recipe resnet-rs-152-256

Fine-tuning of a trained network with anti-aliasing added; linear evaluation; training on a teacher's pseudo-labels
(Noisy Student):

    python experiments/cls_imagenet.py --data imagenet --norm bn --antialias 4 --weights imagenet \\
        --recipe antialiased-finetune
    python experiments/cls_imagenet.py --data pacs --norm bn --weights imagenet --recipe linear
    python experiments/cls_imagenet.py --data pacs/photo --norm bn --teacher model.ckpt --unlabelled pacs/sketch

A laptop, with no data on disk (the embedded shapes):

    python experiments/cls_imagenet.py --data shapes/photo --norm bn ibn-a bin --evaluate shifts --seeds 3
    python experiments/cls_imagenet.py --data shapes/photo --norm bn --antialias 0 2 4 --evaluate consistency --seeds 3

The first took 8 minutes on one of two busy cores. Under the appearance shifts of light, bn loses 1.9 +- 0.6 points of
97.0, ibn-a 0.9 +- 0.4 of 97.6 and bin 0.3 +- 0.2 of 98.2. Shift consistency is 95.9 +- 0.4 without anti-aliasing and
98.1 +- 0.7 with filter 4.

The closing table has a row for each network, with top-1 and top-5 on clean images and the measures of `--evaluate`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from experiments.study.endings import UsageError, one_sentence
from experiments.study.flags import parse
from experiments.tasks.classification_flags import ClassificationFlags, chosen_recipe, smoked
from experiments.tasks.classification_tables import evaluated_table
from lightning_modules.checkpoint_files import ABSENT, fault_of_path

FURTHER_PARTS = ("shifts", "consistency", "corruptions", "perturbations")
"""What a network can be evaluated on besides clean images; see `lightning_modules.robustness.evaluator`."""
QUESTION = "How do the norm, anti-aliasing and the training recipe change a classifier's accuracy and robustness?"


@dataclass
class Flags(ClassificationFlags):
    """Flags of this study."""

    norm: list[str] = field(default_factory=lambda: ["bn", "ibn-a", "sn", "bin"])
    """Norms to compare, of NORMS."""
    antialias: list[int] = field(default_factory=lambda: [0])
    """Filter sizes of the blur before each subsampling, 1 to 7; 0 is the network without anti-aliasing."""
    evaluate: list[str] = field(default_factory=list)
    """What to evaluate on besides clean images: shifts consistency corruptions perturbations."""
    teacher: str | None = None
    """Checkpoint of a network that labels the images of --unlabelled; training also uses those of which it is sure."""
    unlabelled: str | None = None
    """Domain whose images the teacher labels; the domain's own labels are not used."""
    confidence: float = 0.5
    """Smallest probability of the teacher's label with which an image is used."""

    def __post_init__(self):
        super().__post_init__()
        for part in self.evaluate:
            if part not in FURTHER_PARTS:
                raise UsageError(f"--evaluate {part}: choose from {', '.join(FURTHER_PARTS)}.")
        if (self.teacher is None) != (self.unlabelled is None):
            raise UsageError("--teacher and --unlabelled go together: pass both or neither.")
        if self.teacher is not None and (fault := fault_of_path(self.teacher)):
            fault = "no such checkpoint" if fault == ABSENT else f"it {fault}"
            raise UsageError(f"--teacher {self.teacher}: {fault}.")
        if self.unlabelled and self.unlabelled.partition(":")[2] not in ("", "train"):
            raise UsageError(f"--unlabelled {self.unlabelled}: training uses the train split; leave :SPLIT out.")


def main() -> None:
    with one_sentence():
        run(parse(Flags, __doc__))


def run(flags: Flags):
    """Train and evaluate every norm, filter and seed; returns the results."""
    from experiments.tasks.classification import Arm, run_arms  # imports torch: --help must not wait for it
    from experiments.tasks.classification_domains import Opened, Taught

    flags = smoked(flags, teacher=None, unlabelled=None) if flags.smoke else flags
    recipe = chosen_recipe(flags, "ibn-step")
    arms = {}
    for norm in flags.norm:
        for size in dict.fromkeys(flags.antialias):
            name = f"{norm}-blur{size}" if size else norm
            columns = {"network": name, "norm": norm, "backbone": recipe.backbone, "antialias": size}
            arms[name] = Arm(
                recipe=recipe,
                norm=norm,
                train=flags.data,
                evaluated=(flags.data,),
                columns=columns,
                antialias=size or None,
                evaluate=tuple(flags.evaluate),
            )
    opened = Taught(flags, flags.teacher, flags.unlabelled, flags.confidence) if flags.teacher else Opened(flags)
    return run_arms(
        flags, "cls_imagenet", QUESTION, arms, evaluated_table, opened=opened, arm_flags=("norm", "antialias")
    )


if __name__ == "__main__":
    main()
