"""What makes a residual network better: how it is trained, how it is built, or how it is scaled?

ResNet-RS (Bello et al., NeurIPS 2021). Table 1, ResNet-200 at 256 pixels on ImageNet, top-1: 79.0 to begin with, 82.2
(+3.2) by training and regularisation alone, 83.4 (+1.2) with squeeze-and-excitation and ResNet-D. Table 2: lower the
weight decay where other regularisers are added. Section 6: scale depth where a network can overfit, else width, and
resolution slowly; section 7.2 does the latter to EfficientNets.

Eight GPUs, with data/imagenet on disk (not run here):

    python experiments/cls_resnet_rs.py --data imagenet --gpus 8 --precision bf16-mixed
    python experiments/cls_resnet_rs.py --data imagenet --gpus 8 --study weight-decay
    python experiments/cls_resnet_rs.py --data imagenet --gpus 8 --study grid --depths 26 50 101 200 300 350 400 \
        --widths 0.25 0.5 1 1.5 2 --sizes 128 160 224 320 448 --strengths 0.5 1 1.5
    python experiments/cls_resnet_rs.py --data imagenet --gpus 8 --study efficientnet --networks b0 b1 b2 b3 b4 b5 b6 b7

The recipes are those of the paper's code for TPUs, under Model Garden's cosine; docs/recipes.md says what is not
matched.

A laptop, nothing on disk (the embedded shapes, a ResNet-8 for CIFAR; 18 to 23 minutes a seed on one of two busy cores):

    python experiments/cls_resnet_rs.py --data shapes/photo --seeds 3

Top-1 is 22.7 ± 3.0 to begin with. Training brings 69.1 ± 4.5 points; regularisation takes 28.1 ± 5.3 away, for in
1,500 steps the network cannot fit what RandAugment and dropout make of its images; architecture, added to that, takes
13.8 ± 8.2 more.

The studies, each of which ends in one table:

- additive: Table 1, one step at a time, each added to the one before. Top-1, the gain over the step before, and the
  gains' sums by kind.
- weight-decay: Table 2, weight decay against the number of other regularisers.
- grid: depths x widths x resolutions, with multiply-adds, parameters and measured latency beside top-1. Learning rate
  (--lrs) and strength of regularisation (--strengths) are picked, for each network, on 2 % of the training images that
  are held out; the best is then trained on all of them.
- efficientnet: EfficientNets at their own resolution and at one that grows more slowly.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING

from experiments.flags import UsageError, one_sentence, parse
from experiments.resnet_rs_steps import (
    additive_recipes,
    additive_table,
    regularised_recipes,
    verdict,
    weight_decay_table,
)
from experiments.tasks.classification_flags import ClassificationFlags, chosen_recipe, smoked

if TYPE_CHECKING:
    from pandas import DataFrame

    from experiments.tables import Table
    from experiments.tasks.classification import Arm, Opened
    from lightning_modules.classification_recipes import ClassificationRecipe

STUDIES = {
    # study: the finished recipe on real data
    "additive": "resnet-rs-200-256",
    "weight-decay": "resnet-rs-200-256",
    "grid": "resnet-rs-50-160",
    "efficientnet": "resnet-rs-152-224",
}

EFFICIENTNETS = {
    # network: (its own resolution (Tan and Le, ICML 2019), the slow one, dropout)
    "b0": (224, 224, 0.2),
    "b1": (240, 232, 0.2),
    "b2": (260, 240, 0.3),
    "b3": (300, 256, 0.3),
    "b4": (380, 288, 0.4),
    "b5": (456, 320, 0.4),
    "b6": (528, 344, 0.5),
    "b7": (600, 368, 0.5),
}
"""The slow resolutions are 224 times the square root of (own / 224), to a multiple of 8. [unverified]: the paper shows
its choices in a figure alone (Figure 5)."""

LAPTOP = {
    "weight_decay": 2e-4, "decay_norms": False, "label_smoothing": 0.1, "stochastic_depth": 0.05,
    "randaugment": (1, 10), "dropout": 0.1, "ema_decay": 0.98, "batch_size": 32,
}  # fmt: skip
"""What the recipe `laptop` is completed by, so that every step has something to add. Ours: lightly regularised, because
the network is small."""
SMALL_NETWORK = {
    "backbone": "cifar_resnet8", "architecture": {"squeeze_excitation": True, "averaged_shortcut": True},
}  # fmt: skip
"""What joins it in the two studies of one network. Behind an ImageNet stem one pixel is left of 32 in the end, and such
a network hardly learns in minutes. Of ResNet-D, a CIFAR network has a place for one part: the averaged shortcuts."""
ON_SHAPES = {
    # study: (pixels, training images, epochs)
    "additive": (32, 4000, 12),
    "weight-decay": (32, 4000, 6),
    "grid": (32, 3000, 9),
    "efficientnet": (64, 1600, 8),
}
"""Where the flags do not say it."""
GRIDS = {
    "shapes": {"depths": [26, 50], "widths": [0.25, 0.5], "sizes": [32, 48]},
    "real": {"depths": [26, 50, 101], "widths": [0.5, 1.0], "sizes": [128, 160]},
}
"""What is compared where the flags do not say it; the paper's whole grid is in the command above."""
STRENGTHS = (0.5, 1.0)

SMOKE = {
    "additive": {},
    "weight-decay": {},
    "grid": {"depths": [26], "widths": [0.25], "sizes": [32, 40]},
    "efficientnet": {"networks": ["b0", "b1"]},
}
"""The few networks of a smoke test."""


@dataclass
class Flags(ClassificationFlags):
    """Flags of this study."""

    study: str = "additive"
    """additive, weight-decay, grid or efficientnet."""
    norm: list[str] = field(default_factory=lambda: ["bn"])
    """The norm of all networks, of NORMS."""
    weight_decays: list[float] = field(default_factory=list)
    """Study weight-decay: by default the recipe's and 2.5 times that."""
    depths: list[int] = field(default_factory=list)
    """Study grid: of 26 50 101 152 200 270 300 350 400 420."""
    widths: list[float] = field(default_factory=list)
    """Study grid: channels, times the network's own."""
    sizes: list[int] = field(default_factory=list)
    """Study grid: pixels of a side."""
    lrs: list[float] = field(default_factory=list)
    """Study grid: learning rates to pick from; by default the recipe's alone."""
    strengths: list[float] = field(default_factory=list)
    """Study grid: factors on dropout, stochastic depth and RandAugment's magnitude to pick from; by default 0.5 1."""
    minival: float = 0.02
    """Study grid: share of the training images that is held out for picking."""
    networks: list[str] = field(default_factory=list)
    """Study efficientnet: of b0 b1 b2 b3 b4 b5 b6 b7."""
    latency_batch: int = 1
    """Studies grid and efficientnet: images that latency is measured on at a time."""
    latency_repeats: int = 20
    """Studies grid and efficientnet: passes whose median is the latency."""

    def __post_init__(self):
        super().__post_init__()
        if self.study not in STUDIES:
            raise UsageError(f"--study {self.study}: choose {', '.join(STUDIES)}.")
        if len(self.norm) > 1:
            raise UsageError(f"--norm {' '.join(self.norm)}: all networks of this study have one norm; pass one.")
        if self.weights != "none":
            raise UsageError("--weights: this study compares whole trainings, each from scratch; leave it out.")
        if not re.fullmatch(r"auto|laptop|smoke|resnet-rs-.*", self.recipe):
            raise UsageError(
                f"--recipe {self.recipe}: this study takes laptop, or a ResNet-RS such as resnet-rs-50-160."
            )
        self._check_study()

    def _check_study(self) -> None:
        """Refuse what belongs to another study, or says a second time what this one's own flags say."""
        for name, studies in BELONGS.items():
            if getattr(self, name) != DEFAULTS[name] and self.study not in studies:
                raise UsageError(f"--{name.replace('_', '-')}: it goes with --study {' or '.join(studies)}.")
        for name, instead in INSTEAD.get(self.study, {}).items():
            if getattr(self, name) is not None:
                raise UsageError(f"--{name.replace('_', '-')} does not go with --study {self.study}: {instead}.")
        if self.study == "additive" and not re.fullmatch(r"resnetrs\d+", self.backbone or "resnetrs50"):
            raise UsageError(f"--backbone {self.backbone}: the additive study ends in a ResNet-RS, such as resnetrs50.")

        for network in self.networks:
            if network not in EFFICIENTNETS:
                raise UsageError(f"--networks {network}: choose from {', '.join(EFFICIENTNETS)}.")


DEFAULTS = {
    f.name: f.default_factory() if f.default is dataclasses.MISSING else f.default for f in dataclasses.fields(Flags)
}
BELONGS = {
    "weight_decays": ("weight-decay",), "depths": ("grid",), "widths": ("grid",), "sizes": ("grid",), "lrs": ("grid",),
    "strengths": ("grid",), "minival": ("grid",), "networks": ("efficientnet",),
    "latency_batch": ("grid", "efficientnet"), "latency_repeats": ("grid", "efficientnet"),
}  # fmt: skip
"""Flags that some studies alone have."""
INSTEAD = {
    "additive": {"max_steps": "training for longer is one of its steps; pass --epochs"},
    "weight-decay": {"weight_decay": "it compares several; pass --weight-decays"},
    "grid": {
        "backbone": "pass --depths", "width": "pass --widths", "image_size": "pass --sizes", "lr": "pass --lrs",
    },
    "efficientnet": {"backbone": "pass --networks", "width": "EfficientNets are taken as they are"},
}  # fmt: skip
"""Flags that contradict a study, and what says it there."""


def main() -> None:
    with one_sentence():
        run(parse(Flags, __doc__))


def run(flags: Flags) -> DataFrame | None:
    """Train and judge what the study compares; returns the results."""
    if flags.smoke:
        few = {name: getattr(flags, name) or value for name, value in SMOKE[flags.study].items()}
        flags = smoked(flags, **few)
    if flags.on_shapes and flags.images is None:
        flags = dataclasses.replace(flags, images=ON_SHAPES[flags.study][1])
    studies = {"additive": additive, "weight-decay": weight_decay, "grid": grid, "efficientnet": efficientnet}
    return studies[flags.study](flags, finished(flags))


def finished(flags: Flags) -> ClassificationRecipe:
    """The recipe with everything on: the paper's, or one of the same parts at a laptop's size."""
    recipe = chosen_recipe(flags, STUDIES[flags.study])
    if not at_laptop(flags):
        return recipe
    parts = LAPTOP
    if flags.study in ("additive", "weight-decay") and not flags.backbone:
        parts = LAPTOP | SMALL_NETWORK
    recipe = dataclasses.replace(
        recipe, **{name: value for name, value in parts.items() if getattr(flags, name, None) is None}
    )
    if flags.smoke:
        return recipe
    size, _, epochs = ON_SHAPES[flags.study]
    recipe = recipe if flags.image_size else resized(recipe, size)
    return recipe if flags.epochs else recipe.lasting(epochs)


def at_laptop(flags: Flags) -> bool:
    return flags.recipe in ("laptop", "smoke") or (flags.recipe == "auto" and flags.on_shapes)


def arm_of(flags: Flags, recipe: ClassificationRecipe, columns: dict) -> Arm:
    from experiments.tasks.classification import Arm

    norm, data = flags.norm[0], flags.data
    return Arm(recipe=recipe, norm=norm, train=data, judged=(data,), columns=columns | {"norm": norm})


def name_of(label: str) -> str:
    """A label as a folder's name."""
    return label.replace("+ ", "+").replace(" ", "-")


def additive(flags: Flags, recipe: ClassificationRecipe) -> DataFrame | None:
    """Table 1: training, regularisation and architecture, one step at a time."""
    from experiments.tasks.classification import run_arms

    arms = {
        name_of(label): arm_of(flags, recipe, {"row": label, "kind": kind, "paper": paper})
        for label, kind, paper, recipe in additive_recipes(recipe)
    }
    question = "Is it training, regularisation or architecture that makes a residual network better?"
    results = run_arms(flags, "cls_resnet_rs-additive", question, arms, additive_table, arm_flags=())
    if results is not None:
        print(verdict(results))
    return results


def weight_decay(flags: Flags, recipe: ClassificationRecipe) -> DataFrame | None:
    """Table 2: weight decay against the number of other regularisers."""
    from experiments.tasks.classification import run_arms

    values = sorted(set(flags.weight_decays or (recipe.weight_decay, 2.5 * recipe.weight_decay)), reverse=True)
    arms = {}
    for label, regularised in regularised_recipes(recipe):
        for value in values:
            facts = {"regularisers": label, "weight decay": f"{value:g}"}
            changed = dataclasses.replace(regularised, weight_decay=value)
            arms[f"{name_of(label)}-wd{value:g}"] = arm_of(flags, changed, facts)
    question = "Should weight decay be lowered where other regularisers are added?"
    study = "cls_resnet_rs-weight-decay"
    return run_arms(flags, study, question, arms, weight_decay_table, arm_flags=("weight_decays",))


def grid(flags: Flags, recipe: ClassificationRecipe) -> DataFrame | None:
    """Section 6: depth x width x resolution, each with the hyper-parameters that are picked for it on the minival."""
    from experiments.minival import begun, picked

    study, question = "cls_resnet_rs-grid", "What is worth its time: more layers, more channels or more pixels?"
    candidates = grid_candidates(flags, recipe)
    chosen = picked(flags, study, question, candidates, flags.minival)
    if any(len(group) > 1 for group in candidates.values()) and not begun(flags, study):
        flags = dataclasses.replace(flags, resume=False)  # it was interrupted while it was picking
    return scaled(flags, study, question, chosen)


def grid_candidates(flags: Flags, recipe: ClassificationRecipe) -> dict[str, dict[str, Arm]]:
    """Of every network of the grid, an arm for each learning rate and strength of regularisation."""
    depths, widths, sizes = (
        getattr(flags, name) or default for name, default in GRIDS["shapes" if flags.on_shapes else "real"].items()
    )
    groups = {}
    for depth, width, size in product(depths, widths, sizes):
        network = f"{depth}-x{width:g}-{size}px"
        sized = dataclasses.replace(resized(recipe, size), backbone=f"resnetrs{depth}", width=width)
        groups[network] = {}
        for lr, strength in product(flags.lrs or [recipe.lr], flags.strengths or STRENGTHS):
            candidate = f"lr {lr:g}, strength {strength:g}"
            facts = {"network": network, "candidate": candidate, "layers": depth, "width": width, "size": size}
            tried = strengthened(dataclasses.replace(sized, lr=lr), strength)
            groups[network][f"{network}-lr{lr:g}-strength{strength:g}"] = arm_of(
                flags, tried, facts | {"lr": lr, "strength": strength}
            )
    return groups


def resized(recipe: ClassificationRecipe, size: int) -> ClassificationRecipe:
    """The recipe at another resolution; judged images keep their margin."""
    return dataclasses.replace(recipe, image_size=size, resize=round(size * recipe.resize / recipe.image_size))


def strengthened(recipe: ClassificationRecipe, strength: float) -> ClassificationRecipe:
    """The recipe with its dropout, stochastic depth and RandAugment's magnitude times a factor."""
    layers, magnitude = recipe.randaugment
    return dataclasses.replace(
        recipe,
        dropout=min(0.9, strength * recipe.dropout),
        stochastic_depth=min(0.9, strength * recipe.stochastic_depth),
        randaugment=(layers, max(3, round(strength * magnitude)))
        if strength
        else None,  # posterize keeps no bit below 3
    )


def efficientnet(flags: Flags, recipe: ClassificationRecipe) -> DataFrame | None:
    """Section 7.2: EfficientNets at their own resolution, and at one that grows more slowly."""
    question = "Do EfficientNets need the resolutions that they were scaled to?"
    return scaled(flags, "cls_resnet_rs-efficientnet", question, efficientnet_arms(flags, recipe))


def efficientnet_arms(flags: Flags, recipe: ClassificationRecipe) -> dict[str, Arm]:
    """Each network at its own and at its slow resolution, where they differ; the recipe's is B0's.

    The paper keeps EfficientNets' own hyper-parameters; here they are trained by ResNet-RS's recipe, and RandAugment's
    magnitude grows with the resolution as the paper has it.
    """
    arms = {}
    for network in flags.networks or (["b0", "b1"] if flags.on_shapes else list(EFFICIENTNETS)):
        *sizes, dropout = EFFICIENTNETS[network]
        for scaling, size in zip(("own", "slow"), sizes, strict=True):
            magnitude = recipe.randaugment[1] if at_laptop(flags) else magnitude_at(size)
            sized = dataclasses.replace(
                resized(recipe, round(size * recipe.image_size / 224)),
                backbone=f"efficientnet_{network}",
                width=1.0,
                dropout=dropout,
                stochastic_depth=0.2,
                stochastic_depth_by="block",
                randaugment=(2, magnitude),
            )
            if sized not in [other.recipe for other in arms.values()]:
                facts = {"network": f"{network}-{sized.image_size}px-{scaling}", "size": sized.image_size}
                arms[facts["network"]] = arm_of(flags, sized, facts | {"scaling": scaling})
    return arms


def magnitude_at(size: int) -> int:
    """RandAugment's magnitude at a resolution (section 7.2)."""
    return 10 if size <= 224 else 15 if size <= 320 else 20


def scaled(flags: Flags, study: str, question: str, arms: dict[str, Arm]) -> DataFrame | None:
    """Train and judge networks of different cost; the table has what they cost beside top-1."""
    from experiments.tasks.classification import Opened, run_arms
    from experiments.timed_classification import TimedTask

    opened = Opened(flags)
    arms = {one.columns["network"]: counted(flags, one, opened) for one in arms.values()}
    free = ("depths", "widths", "sizes", "networks")
    return run_arms(flags, study, question, arms, cost_table, opened=opened, task=TimedTask, arm_flags=free)


def counted(flags: Flags, arm: Arm, opened: Opened) -> Arm:
    """The arm with its parameters and multiply-adds among its columns."""
    from experiments.tasks.classification import build
    from lightning_modules.backbones import complexity

    try:
        parameters, flops = complexity(build(flags, arm, opened).net, arm.recipe.image_size)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return dataclasses.replace(arm, columns=arm.columns | {"parameters": parameters, "flops": flops})


def cost_table(results: DataFrame) -> Table:
    """A row a network: multiply-adds, parameters, latency, what was picked for it, and top-1."""
    from experiments.tables import table_of
    from experiments.tasks.classification import accuracies

    top1 = accuracies(results, rows="network", columns="measure")["top1"]
    facts = results.drop_duplicates("network").set_index("network").loc[top1.index.get_level_values("network")]
    latencies = results[results["measure"] == "latency"].groupby(["network", "seed"])["value"].mean()
    scores = top1.to_frame("top-1")
    scores["MFLOPs"] = facts["flops"].to_numpy() / 1e6
    scores["M parameters"] = facts["parameters"].to_numpy() / 1e6
    scores["ms an image"] = latencies.reindex(scores.index)
    for fact in ("lr", "strength"):
        if fact in facts and facts[fact].nunique() > 1:
            scores[fact] = facts[fact].to_numpy()
    costs = [column for column in scores if column != "top-1"]
    batch = results.loc[results["measure"] == "latency", "condition"].iloc[0]
    legend = (
        f"top-1 accuracy in percent. FLOPs: multiply-adds of an image. ms an image: measured in inference, {batch}."
    )
    digits = {column: 2 for column in costs if column != "MFLOPs"}
    return table_of(scores[[*costs, "top-1"]], legend, corner="network", unranked=frozenset(costs), digits=digits)


if __name__ == "__main__":
    main()
