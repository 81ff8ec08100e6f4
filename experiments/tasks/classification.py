"""Classification as a task: any backbone under any norm, trained by a recipe on one domain, evaluated on several."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from datamodules.classification.data import AdaptationData, ClassificationData
from experiments.study import task
from experiments.study.endings import UsageError
from experiments.study.loop import run_study
from experiments.study.settings import RunSettings, resolved
from experiments.study.task import Pace, Task
from experiments.tasks.affordable import check_affordable
from experiments.tasks.classification_checks import check_averages, check_classes, check_processes, fitted
from experiments.tasks.classification_domains import Opened
from experiments.tasks.classification_flags import ClassificationFlags
from lightning_modules.classification.domain_adversarial import DomainAdversarialModule, DomainInvariantModule
from lightning_modules.classification.module import ClassificationModule
from lightning_modules.classification.recipe_images import evaluation_image, train_image
from lightning_modules.classification.recipes import SELECTIONS, ClassificationRecipe
from lightning_modules.examples import Example
from lightning_modules.predictions import classification_examples
from lightning_modules.robustness.evaluator import EvaluatedNetwork, evaluate
from lightning_modules.weight_averaging import AveragedWeights, moving_average

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from pandas import DataFrame
    from torch import nn

    from experiments.study.tables.table import Table

BUILDS = (
    "backbone", "width", "dropout", "stochastic_depth", "stochastic_depth_by", "small_images", "trains", "architecture",
    "bottleneck", "tells_domains",
)  # fmt: skip
"""Parts of a recipe that a network is built from."""


@dataclass(frozen=True, kw_only=True)
class Arm(task.Arm):
    """A network to train: a recipe, a norm, and the domains on which it is trained and evaluated."""

    recipe: ClassificationRecipe
    norm: str
    train: str  # the domain it is trained on
    evaluated: tuple[str, ...]  # the domains it is evaluated on
    antialias: int | None = None
    evaluate: tuple[str, ...] = ()  # parts of `lightning_modules.robustness.evaluator` besides "clean"
    held_out: tuple[str, ...] = ()  # evaluated domains that are held-out images of the training domains
    adapt_to: str | None = None  # a domain whose images are used in training, without their labels
    processes: int | None = None  # processes that share a step, if the study sets it; fewer accumulate gradients
    by_trial: bool = False  # whether splits called :in0 and :out0 are those of each seed, as DomainBed's trials have it
    name: str = ""  # `run_arms` sets it

    def turns(self, run: RunSettings) -> tuple[int, int]:
        """The number of batches of one step, and how many of them each process accumulates.

        Raises:
            UsageError: the arm's number of processes is not a multiple of the existing ones.
        """
        if self.processes is None:
            return run.shares, run.flags.accumulate
        if self.processes % run.world:
            raise UsageError(
                f"a step of {self.processes} processes cannot be split over the {run.world} that are running."
            )
        return self.processes, self.processes // run.world

    @property
    def step_images(self) -> int:
        """Images that pass the network in one step, over all processes."""
        domains = len(self.train.split("+")) if self.recipe.from_each else 1
        return self.recipe.batch_size * (domains + (self.adapt_to is not None))

    @property
    def selected_on(self) -> tuple[str, ...]:
        """The evaluated domains that select the evaluation to report; none if the last one is reported.

        Raises:
            UsageError: no images of the training domains are held out.
        """
        if self.recipe.selection == "training-domains" and not self.held_out:
            raise UsageError("--selection training-domains: it goes with cls_office_home.py --setting leave-one-out.")
        return {"last": (), "best": self.evaluated, "training-domains": self.held_out}[self.recipe.selection]

    def of_seed(self, seed: int) -> Arm:
        """The arm for one seed, whose trial splits the domains."""
        if not self.by_trial:
            return self

        def split(domains: str) -> str:
            return re.sub(r":(in|out)0\b", rf":\g<1>{seed}", domains)

        evaluated, held_out = tuple(map(split, self.evaluated)), tuple(map(split, self.held_out))
        return dataclasses.replace(self, train=split(self.train), evaluated=evaluated, held_out=held_out)


class ClassificationTask(Task):
    """How classifiers are trained and evaluated.

    Args:
        flags: the study's.
        table: makes the closing table of the results.
        opened: the domains, where they are not simply those that the names say.
    """

    headline = "top1"
    measures = (
        "top1", "top5", "loss", "chance", "consistency", "error", "flip", "top5_distance", "nll", "ece", "latency",
    )  # fmt: skip

    def __init__(
        self,
        flags: ClassificationFlags,
        table: Callable[[DataFrame], Table | None],
        opened: Opened | None = None,
    ):
        self.flags, self.closing_table, self.opened = flags, table, opened or Opened(flags)
        self.selections: list[str] = []

    def prepare(self, arms: Sequence[Arm], run: RunSettings) -> list[Arm]:
        self.opened.workers = run.workers
        arms = [fitted(self.flags, arm, self.opened) for arm in arms]
        self.selections = list(dict.fromkeys(arm.recipe.selection for arm in arms))
        return arms

    def check(self, arms: Sequence[Arm], run: RunSettings) -> None:
        check_averages(self.flags, [arm.recipe for arm in arms])
        networks = {}
        for arm in arms:
            check_classes(arm, self.opened)
            check_processes(arm, run)
            built_of = [getattr(arm.recipe, part) for part in BUILDS]
            networks.setdefault(str((arm.norm, arm.antialias, arm.adapt_to is None, built_of)), arm)
        if not self.flags.on_shapes:
            longest = max(arms, key=lambda arm: arm.recipe.max_steps * arm.step_images)

            def network() -> nn.Module:
                return build(self.flags, longest, self.opened).net

            check_affordable(network, longest.recipe.image_size, longest.step_images, longest.recipe.max_steps, run)
        super().check(list(networks.values()), run)

    def of_seed(self, arm: Arm, seed: int) -> Arm:
        return arm.of_seed(seed)

    def data(self, arm: Arm, run: RunSettings) -> ClassificationData:
        return loaded(arm, self.opened, run)

    def module(self, arm: Arm, run: RunSettings) -> ClassificationModule:
        return build(self.flags, arm, self.opened)

    def pace(self, arm: Arm, run: RunSettings) -> Pace:
        recipe = arm.recipe
        return Pace(recipe.max_steps, recipe.epoch_steps, recipe.evaluation_epochs, arm.turns(run)[1])

    def settings(self, arm: Arm, run: RunSettings) -> dict:
        together = arm.step_images // arm.turns(run)[1 if self.flags.sync_norm else 0]
        return arm.recipe.plain() | {"images_together": together}  # normalised as one batch

    def callbacks(self, arm: Arm, run: RunSettings) -> list[pl.Callback]:
        recipe = arm.recipe
        if not recipe.ema_decay:
            return []
        return [AveragedWeights(moving_average(recipe.ema_decay, recipe.ema_warmup), recipe.ema_statistics)]

    def evaluate_further(
        self, module: ClassificationModule, data: ClassificationData, arm: Arm, run: RunSettings
    ) -> dict[str, list[dict]]:
        """What the arm is to be evaluated on besides clean images, on each of its domains."""
        if not arm.evaluate:
            return {}
        network, rows = EvaluatedNetwork.trained(arm.name, module), []
        for domain in arm.evaluated:
            samples = self.opened(domain, "val", arm.recipe).in_order_of(module.classes, arm.train).samples
            for row in evaluate([network], samples, arm.evaluate, workers=run.workers):
                rows.append({"domain": domain} | {key: value for key, value in row.items() if key != "network"})
        return {"results": rows}

    def examples(self, module: ClassificationModule, data: ClassificationData) -> list[Example]:
        return classification_examples(module, data)

    def table(self, results: DataFrame) -> Table | None:
        """The study's table, which says so where not the last evaluation counts."""
        table = self.closing_table(results)
        if table is None or self.selections == ["last"]:
            return table
        return dataclasses.replace(table, legend=f"{table.legend} Each figure is {SELECTIONS[self.selections[0]]}.")


def run_arms(
    flags: ClassificationFlags,
    study: str,
    question: str,
    arms: dict[str, Arm],
    table: Callable[[DataFrame], Table],
    *,
    opened: Opened | None = None,
    task: type[ClassificationTask] = ClassificationTask,
    arm_flags: tuple[str, ...] = ("norm", "backbone"),
) -> DataFrame | None:
    """Train and evaluate every arm under every seed, and end in the study's table.

    Args:
        study: its name, of the script and of its folder in `runs/`.
        arms: by name; a name is also a folder's.
        table: makes the closing table of the results in long form: the arm's columns, seed, domain, part, condition,
            measure and value (accuracies in [0, 1]).
        opened: the domains, where they are not simply those that the names say.
        task: evaluates more than `ClassificationTask` does.
        arm_flags: flags that choose the arms, to which a resumed run may add.

    Returns:
        The results; None on all processes but the first.
    """
    named = [dataclasses.replace(arm, name=name) for name, arm in chosen(arms, flags.only).items()]
    run = resolved(flags, study, named[0].recipe if named else None)
    computing = {"precision": run.precision, "channels_last": run.flags.channels_last}
    named = [dataclasses.replace(arm, recipe=dataclasses.replace(arm.recipe, **computing)) for arm in named]
    return run_study(task(run.flags, table, opened), named, run, question, (*arm_flags, "only"))


def chosen(arms: dict[str, Arm], only: Sequence[str]) -> dict[str, Arm]:
    """The arms that --only names, in the study's order; all without it.

    Raises:
        UsageError: the study has no such arm.
    """
    if unknown := [name for name in only if name not in arms]:
        raise UsageError(f"--only {unknown[0]}: this study's arms are {', '.join(arms)}.")
    return {name: arm for name, arm in arms.items() if not only or name in only}


def build(flags: ClassificationFlags, arm: Arm, opened: Opened) -> ClassificationModule:
    """The arm's network, ready to train."""
    alone = DomainInvariantModule if arm.recipe.tells_domains else ClassificationModule
    module = (DomainAdversarialModule if arm.adapt_to else alone)(
        arm.recipe,
        arm.norm,
        opened(arm.train, "train", arm.recipe).classes,
        arm.evaluated,
        data=arm.train,
        antialias=arm.antialias,
        sync_norm=flags.sync_norm,
        pretrained=flags.weights == "imagenet",
        select_on=arm.selected_on,
    )
    return module if flags.weights in ("none", "imagenet") else module.start_from(flags.weights)


def loaded(arm: Arm, opened: Opened, run: RunSettings) -> ClassificationData:
    """The arm's data module, with training and evaluation domains."""
    recipe, (shares, in_turn) = arm.recipe, arm.turns(run)
    endless = recipe.epoch_length is not None or recipe.from_each
    adapted = {"target": opened(arm.adapt_to, "train", recipe)} if arm.adapt_to else {}
    return (AdaptationData if adapted else ClassificationData)(
        opened(arm.train, "train", recipe),
        [opened(name, "val", recipe) for name in arm.evaluated],
        train_image(recipe),
        size=recipe.image_size,
        resize=recipe.resize,
        batch_size=recipe.batch_size // shares,
        workers=run.workers,
        evaluation_image=evaluation_image(recipe),
        keep_last=recipe.keep_last,
        steps=recipe.epoch_steps * in_turn if endless else None,
        from_each=recipe.from_each,
        **adapted,
    )
