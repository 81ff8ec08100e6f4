"""What makes a residual network better: its training or its architecture?

ResNet-RS (Bello et al., NeurIPS 2021), Table 1: ResNet-200 at 256 pixels on ImageNet, with one change added at a time.
Top-1 is 79.0 for the baseline, 82.2 (+3.2) with better training and regularisation, and 83.4 (+1.2) with
squeeze-and-excitation and ResNet-D as well.

Eight GPUs, with data/imagenet on disk (not run here):

    python experiments/cls_resnet_rs.py --data imagenet --gpus 8 --precision bf16-mixed

The recipes are those of the paper's code for TPUs, with Model Garden's cosine schedule; docs/recipes.md says what
differs.

A laptop, with no data on disk (the embedded shapes, a ResNet-8 for CIFAR):

    python experiments/cls_resnet_rs.py --data shapes/photo --epochs 20 --seeds 3 \\
        --only baseline +EMA-of-weights +less-weight-decay +ResNet-D

Without --only, every step has its row. It took 13 minutes on one of two busy cores. Top-1 of the baseline is 66.3 ±
2.9. Training adds 30.9 ± 2.9 points, regularisation takes 3.8 ± 2.5, architecture adds 1.0 ± 4.1: the network is too
small to fit what RandAugment and dropout make of its images.

The closing table has a row for each step: top-1, the gain over the row before, and the paper's gain. Its last rows are
the sums of the gains by kind.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from experiments.study.endings import UsageError, one_sentence
from experiments.study.flags import parse
from experiments.study.tables.table import Table, table_of
from experiments.tasks.resnet_rs import SMALL_NETWORK, Laptop, ResNetRSFlags, arm_of, finished, folder_name, sized

if TYPE_CHECKING:
    from pandas import DataFrame

    from lightning_modules.classification.recipes import ClassificationRecipe

LAPTOP = Laptop(image_size=32, images=4000, epochs=12, parts=SMALL_NETWORK)


@dataclass
class Flags(ResNetRSFlags):
    """Flags of this study."""

    laptop: ClassVar = LAPTOP

    def __post_init__(self):
        super().__post_init__()
        self.refuse(max_steps="longer training is one of the steps that it compares; pass --epochs")
        if not re.fullmatch(r"resnetrs\d+", self.backbone or "resnetrs50"):
            raise UsageError(f"--backbone {self.backbone}: this study needs a ResNet-RS, such as resnetrs50.")


WITHOUT_D = {"stem_type": "", "avg_down": False, "replace_stem_pool": False}
WITHOUT_SE = {"block_args": {}}
ON_CIFAR = {"avg_down": "averaged_shortcut", "block_args": "squeeze_excitation"}
"""Parts of timm's ResNets that our CIFAR networks have too, and their names there."""


@dataclass(frozen=True)
class Step:
    """A row of the table."""

    label: str
    kind: str  # training, regularisation or architecture
    paper: float  # top-1 of ResNet-200 at 256 pixels on ImageNet
    before: dict = field(default_factory=dict)  # the recipe's values before this step; of the architecture, some
    before_times: dict = field(default_factory=dict)  # values before this step, as factors on the final recipe's


BASELINE, BASELINE_TOP1 = "baseline", 79.0
STEPS = (
    Step("+ cosine schedule", "training", 79.3, before={"schedule": "step"}),
    Step("+ more epochs", "training", 78.8, before_times={"epochs": 90 / 350}),
    Step("+ EMA of weights", "training", 79.1, before={"ema_decay": None}),
    Step("+ label smoothing", "regularisation", 80.4, before={"label_smoothing": 0.0}),
    Step("+ stochastic depth", "regularisation", 80.6, before={"stochastic_depth": 0.0}),
    Step("+ RandAugment", "regularisation", 81.0, before={"randaugment": None}),
    Step("+ dropout", "regularisation", 80.7, before={"dropout": 0.0}),
    Step("+ less weight decay", "regularisation", 82.2, before_times={"weight_decay": 1e-4 / 4e-5}),
    Step("+ SE", "architecture", 82.9, before={"architecture": WITHOUT_SE}),
    Step("+ ResNet-D", "architecture", 83.4, before={"architecture": WITHOUT_D}),
)
"""Table 1 of the paper. There, more epochs lower top-1 until regularisation is added, and dropout does until weight
decay is lowered.

timm's plain ResNets already have one of ResNet-D's four parts, the stride in a block's 3x3 convolution. If the width is
not the network's own, all rows have the deep stem.
"""
MILESTONES = (30 / 90, 60 / 90, 80 / 90)
"""Milestones of the step schedule, as shares of the epochs. [unverified] for the paper, as are its baseline's 90
epochs."""
KINDS = {
    "training + regularisation": ("training", "regularisation"),
    "of which training": ("training",),
    "of which regularisation": ("regularisation",),
    "architecture": ("architecture",),
}
PAPERS_GAIN = "paper's gain"


def main() -> None:
    with one_sentence():
        run(parse(Flags, __doc__))


def run(flags: Flags) -> DataFrame | None:
    """Train and evaluate the baseline and every step; returns the results."""
    from experiments.tasks.classification import run_arms  # imports torch: --help must not wait for it

    flags = sized(flags, LAPTOP)
    arms = {
        folder_name(label): arm_of(flags, recipe, {"row": label, "kind": kind, "paper": paper})
        for label, kind, paper, recipe in additive_recipes(finished(flags, "resnet-rs-200-256", LAPTOP))
    }
    question = "Is it training, regularisation or architecture that makes a residual network better?"
    results = run_arms(flags, "cls_resnet_rs", question, arms, additive_table, arm_flags=())
    if results is not None:
        print(verdict(results))
    return results


def additive_recipes(recipe: ClassificationRecipe) -> list[tuple[str, str, float, ClassificationRecipe]]:
    """(label, kind, the paper's top-1, recipe) of the baseline and of every step, each adding to the one before.

    `recipe` is the final one, with all steps. They are undone one by one, from the last to the first. A step that
    changes nothing is left out: a ResNet-50's recipe, for example, has no stochastic depth.
    """
    rows, stripped = [], recipe
    for step in reversed(STEPS):
        rows.append((step.label, step.kind, step.paper, with_milestones(stripped)))
        stripped = without(stripped, step)
    rows.append((BASELINE, "baseline", BASELINE_TOP1, with_milestones(stripped)))
    rows.reverse()
    return [row for i, row in enumerate(rows) if not i or row[3] != rows[i - 1][3]]


def without(recipe: ClassificationRecipe, step: Step) -> ClassificationRecipe:
    """The recipe with one step undone."""
    before = step.before | {name: times * getattr(recipe, name) for name, times in step.before_times.items()}
    if "architecture" in before:
        plain = before["architecture"]
        if recipe.backbone.startswith("cifar_"):
            plain = {ON_CIFAR[part]: False for part in plain if part in ON_CIFAR}
        elif recipe.width != 1:  # timm cannot narrow a plain stem, and a full one would not fit the narrow stages
            plain = {part: value for part, value in plain.items() if part != "stem_type"}
        before["architecture"] = recipe.architecture | plain
    return dataclasses.replace(recipe, **before)


def with_milestones(recipe: ClassificationRecipe) -> ClassificationRecipe:
    """The recipe with its milestones, which only the step schedule has."""
    milestones = tuple(share * recipe.epochs for share in MILESTONES) if recipe.schedule == "step" else ()
    return dataclasses.replace(recipe, milestones=milestones)


def additive_scores(results: DataFrame) -> DataFrame:
    """Top-1, its gain over the step before, and the paper's gain, for each step and seed; then the sums by kind."""
    clean = results[(results["part"] == "clean") & (results["measure"] == "top1")]
    top1 = (100 * clean.set_index(["row", "seed"])["value"]).unstack("seed")
    steps = clean.drop_duplicates("row").set_index("row")[["kind", "paper"]]
    top1 = top1.loc[steps.index]
    gains, papers = top1.diff(), steps["paper"].diff()
    for label, kinds in KINDS.items():
        rows = steps.index[steps["kind"].isin(kinds)]
        if len(rows):
            gains.loc[label] = gains.loc[rows].sum(skipna=False)
            papers.loc[label] = papers.loc[rows].sum()
    scores = top1.reindex(gains.index).stack(future_stack=True).to_frame("top-1")
    scores["gain"] = gains.stack(future_stack=True)
    scores[PAPERS_GAIN] = papers.reindex(scores.index.get_level_values("row")).to_numpy()
    return scores


def additive_table(results: DataFrame) -> Table:
    """A row for each step, and one for each sum of gains by kind."""
    legend = (
        "top-1 accuracy in percent and its gain over the row before; the last rows are sums of the gains by kind. "
        f"{PAPERS_GAIN}: ResNet-200 at 256 pixels on ImageNet."
    )
    return table_of(additive_scores(results), legend, corner="step", unranked=frozenset({"gain", PAPERS_GAIN}))


def verdict(results: DataFrame) -> str:
    """One sentence: the gain by training and regularisation, and the gain by architecture."""
    gains = additive_scores(results)["gain"].groupby(level=0, sort=False).mean()
    trained, built = gains.get("training + regularisation", float("nan")), gains.get("architecture", float("nan"))
    return f"training and regularisation: {trained:+.1f} points; architecture: {built:+.1f} points"


if __name__ == "__main__":
    main()
