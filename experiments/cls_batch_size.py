"""How much accuracy does each norm lose when the batch shrinks?

Switchable Normalization (Luo, Ren, Peng, ICLR 2019), top-1 of a ResNet-50 on ImageNet by (GPUs, images per GPU):

          8,32  8,16  8,8   8,4   8,2   1,16  1,32  8,1             1,8
    BN    76.4  76.3  75.2  72.7  65.3  76.2  76.5  fails           75.4
    GN    75.9  75.8  76.0  75.8  75.9  75.9  75.8  75.5            75.5
    SN    76.9  76.7  76.7  75.9  75.6  76.3  76.6  75.0 (IN + LN)  75.9

Eight GPUs, with data/imagenet on disk (not run here):

    python experiments/cls_batch_size.py --data imagenet --gpus 8 --norm bn gn sn \\
        --settings 8x32 8x16 8x8 8x4 8x2 8x1

On real data the recipe is sn-step: for all norms, the options of Switchable Normalization's ImageNet code, with
dropout, colour noise, and weight decay of all parameters, also the gates (docs/recipes.md).

A laptop, with no data on disk (the embedded shapes):

    python experiments/cls_batch_size.py --data shapes/photo --norm bn sn --settings 1x32 1x2 --epochs 6 --seeds 3

It took 9 minutes on one of two busy cores. From 32 images to 2, bn falls from 79.8 +- 3.0 to 44.6 +- 12.5, and sn from
84.4 +- 4.2 to 73.6 +- 4.1.

A setting is PROCESSESxIMAGES: the number of processes that share a step, and the number of images that each of them
normalises together. The learning rate is scaled linearly with their product. If there are fewer processes than a
setting names, gradients are accumulated over PROCESSES batches before each step. The step is the same, since no norm
here uses statistics beyond its own batch; only the running averages are updated once per batch and not once per step.
So one GPU reproduces eight, in eight times the time.

The closing table gives top-1, with a row for each norm, a column for each setting, and the fall from the most images
normalised together to the fewest.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from experiments.study.bounds import shown
from experiments.study.endings import UsageError, one_sentence
from experiments.study.flags import parse
from experiments.study.tables.chance import LUCK
from experiments.study.tables.table import table_of
from experiments.tasks.classification_flags import ClassificationFlags, chosen_recipe, smoked
from experiments.tasks.classification_tables import accuracies
from lightning_modules.measures import Measure
from normshift.registry import NORMS

if TYPE_CHECKING:
    from pandas import DataFrame

QUESTION = "How much accuracy does each norm lose when fewer images are normalised together?"
FALL = "fall"


@dataclass
class Flags(ClassificationFlags):
    """Flags of this study."""

    norm: list[str] = field(default_factory=lambda: ["bn", "gn", "sn"])
    """Norms to compare, of NORMS."""
    settings: list[str] = field(default_factory=list)
    """Settings to compare, as PROCESSESxIMAGES; by default the paper's on imagenet, else 1x32 1x8 1x2."""

    def __post_init__(self):
        super().__post_init__()
        if self.batch_size is not None:
            raise UsageError("--batch-size: in this study --settings sets it; pass --settings 8x32 8x2, for example.")
        if self.accumulate > 1:
            raise UsageError("--accumulate: in this study --settings sets it: fewer processes accumulate gradients.")
        if self.sync_norm or any(norm in NORMS and NORMS[norm].synchronized for norm in self.norm):
            raise UsageError(
                "--sync-norm and syncbn: in this study each process normalises its own images; leave them out."
            )
        for setting in self.settings:
            if not re.fullmatch(r"[1-9]\d{0,3}x[1-9]\d{0,5}", setting):
                raise UsageError(f"--settings {shown(setting)}: write PROCESSESxIMAGES, such as 8x32.")


def main() -> None:
    with one_sentence():
        run(parse(Flags, __doc__))


def run(flags: Flags):
    """Train and evaluate every norm, setting and seed; returns the results."""
    from experiments.tasks.classification import Arm, run_arms  # imports torch: --help must not wait for it

    flags = smoked(flags, settings=flags.settings or ["1x8", "2x2"]) if flags.smoke else flags
    recipe = chosen_recipe(flags, "sn-step")
    arms = {}
    for norm in flags.norm:
        for setting in flags.settings or default_settings(flags.data):
            processes, images = map(int, setting.split("x"))
            arms[f"{norm}-{setting}"] = Arm(
                recipe=dataclasses.replace(recipe, batch_size=processes * images),
                norm=norm,
                train=flags.data,
                evaluated=(flags.data,),
                columns={"norm": norm, "setting": setting},
                processes=processes,
            )
    return run_arms(flags, "cls_batch_size", QUESTION, arms, table, arm_flags=("norm", "settings"))


def default_settings(data: str) -> list[str]:
    """The paper's settings on ImageNet; on other sets three that a laptop can train."""
    if data == "imagenet":
        return ["8x32", "8x16", "8x8", "8x4", "8x2", "1x16", "1x32", "8x1", "1x8"]
    return ["1x32", "1x8", "1x2"]


def table(results: DataFrame):
    """Top-1, with a row for each norm and a column for each setting, and the fall from most to fewest images."""
    scores = accuracies(results, rows="norm", columns="setting")
    sized = sorted(scores.columns, key=lambda setting: int(setting.split("x")[1]))
    legend = "top-1 accuracy in percent by PROCESSESxIMAGES."
    if len(sized) > 1:
        chance = 100 * results.loc[results["measure"] == "chance", "value"].max()
        learned = ~(scores[sized[-1]] <= LUCK * chance)  # a network at chance cannot fall
        scores[FALL] = (scores[sized[-1]] - scores[sized[0]]).where(learned)
        legend += f" {FALL}: {sized[-1]} minus {sized[0]}, smaller is better."
    return table_of(scores, legend, measures={FALL: Measure(FALL, FALL, better="lower")})


if __name__ == "__main__":
    main()
