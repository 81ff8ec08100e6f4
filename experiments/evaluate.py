"""How accurate are trained networks on any data set, also on one that their study did not use?

A laptop: the networks of a study, on the sets on which the study evaluated them:

    python experiments/evaluate.py runs/seg_gta2city

On other sets, and with other networks (the embedded sets need no files):

    python experiments/evaluate.py runs/seg_gta2city more/model.ckpt --target streets-night streets-fog
    python experiments/evaluate.py runs/cls_imagenet --target shapes/sketch --parts clean corruptions consistency

A GPU, with data/cityscapes and data/bdd100k on disk:

    python experiments/evaluate.py runs/seg_gta2city --target cityscapes bdd100k --gpus 1 --workers 8

The script takes checkpoints of studies and folders of their runs, of segmentation or of classification networks. It
rebuilds each network from its checkpoint alone, and preprocesses images as the network's recipe does. A set must have
the classes of the network, which are matched by name. `--parts` evaluates classification networks further: on IBN-Net's
appearance shifts, ImageNet-C's corruptions and ImageNet-P's perturbations, and by shift consistency and calibration.
(eval_robustness.py also takes torchvision's and timm's networks, and the published files of ImageNet-C and -P.)

The closing table has a row for each arm, with mean and standard deviation over its seeds. OUT then holds table.md,
table.json, results.csv with one value per row, config.yaml and examples. W&B gets one run for each network.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from experiments.study.bounds import Bounds
from experiments.study.endings import UsageError, one_sentence
from experiments.study.flags import (
    PRECISIONS,
    check_choices,
    check_numbers,
    check_wandb,
    parse,
    register_plugins,
    smoke_wandb,
)

if TYPE_CHECKING:
    from pandas import DataFrame

PARTS = ("clean", "calibration", "shifts", "corruptions", "perturbations", "consistency")
POSITIONAL = {"positional": True, "custom_args": {"metavar": "CHECKPOINT ..."}}


@dataclass
class Flags:
    """Flags of this evaluation."""

    networks: list[str] = field(default_factory=list, metadata=POSITIONAL)
    """Checkpoints, or folders of runs, of which all arms and seeds are evaluated. Seeds of one arm are averaged."""
    target: list[str] = field(default_factory=list)
    """Sets to evaluate on, NAME or NAME:SPLIT; by default those on which each network's study evaluated it."""
    data_root: str = "data"
    """Folder with the real data sets, each in a subfolder of its name."""
    parts: list[str] = field(default_factory=lambda: ["clean"])
    """What to measure: clean calibration shifts corruptions perturbations consistency."""
    images: int | None = None
    """Number of images of each set; by default all, and of an embedded set as many as in the network's study."""
    severities: list[int] = field(default_factory=lambda: [1, 2, 3, 4, 5])
    """Severities of the corruptions, 1 to 5."""
    frames: int | None = None
    """Number of frames of each perturbation; by default as many as in ImageNet-P."""
    seed: int = 0
    """Seed of corruptions and crops."""
    batch_size: int | None = None
    """Images per batch; by default as in the network's study."""
    precision: str = "32-true"
    """Lightning's precision: 32-true, bf16-mixed, 16-mixed or 64-true."""
    gpus: int | None = None
    """1 evaluates on a GPU, 0 on the CPU; by default on a GPU if there is one."""
    workers: int | None = None
    """Data loader processes; by default half the cores, at most 8."""
    out: str = "runs/evaluate"
    """Folder for the table, the results and the examples."""
    plugin: list[str] = field(default_factory=list)
    """Python files of yours that register norms, backbones, data sets or tasks (docs/plugins.md)."""
    wandb: str = "auto"
    """Weights & Biases: online, offline or disabled; auto is online if you are logged in, else offline."""
    resume: bool = False
    """Continue the evaluation in OUT: networks that have results there are not evaluated again."""
    smoke: bool = False
    """Evaluate a few images, of an untrained network if none is named: a test, in seconds, that everything runs."""

    def __post_init__(self):
        register_plugins(self)
        check_numbers(self, images=Bounds(1, 10**9))
        check_choices(self, parts=PARTS, severities=(1, 2, 3, 4, 5))
        if self.precision not in PRECISIONS:
            raise UsageError(f"--precision {self.precision}: choose from {', '.join(PRECISIONS)}.")
        check_wandb(self.wandb)
        if not self.networks and not self.smoke:
            raise UsageError("name a network to evaluate: a checkpoint, or the folder of a study's run.")
        self.target, self.parts = list(dict.fromkeys(self.target)), list(dict.fromkeys(self.parts))


def main() -> None:
    with one_sentence():
        run(parse(Flags, __doc__))


def run(flags: Flags) -> DataFrame:
    """Evaluate the networks; returns results in long form: arm, its columns, seed, domain, part, condition, measure,
    value."""
    from experiments.study.trained.evaluation import evaluated  # imports torch: --help must not wait for it

    return evaluated(smoked(flags) if flags.smoke else flags)


def smoked(flags: Flags) -> Flags:
    """The flags of a smoke run; networks, sets and parts stay."""
    out = f"{flags.out}-smoke" if flags.out == Flags(smoke=True).out else flags.out
    changed = {"images": 4, "workers": 0, "frames": 3, "severities": [1, 5]}
    return dataclasses.replace(flags, out=out, wandb=smoke_wandb(flags), **changed)


if __name__ == "__main__":
    main()
