"""Semantic segmentation as a task: a network under any norm learns one street domain and is evaluated on several."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytorch_lightning as pl

from datamodules.image_files import MissingDataError
from datamodules.segmentation.data import SegmentationData
from experiments.study import task
from experiments.study.endings import UsageError
from experiments.study.flags import smoke_wandb
from experiments.study.loop import run_study
from experiments.study.settings import RunSettings, resolved
from experiments.study.tables.domain_drop import drop_table
from experiments.study.task import Pace, Task
from experiments.tasks.affordable import check_affordable
from experiments.tasks.recipe_flags import named_recipe, overridden_parts
from experiments.tasks.segmentation_flags import SegmentationFlags
from lightning_modules.examples import Example
from lightning_modules.layer_log import hide, wandb_runs
from lightning_modules.predictions import colours_in_hex, segmentation_examples
from lightning_modules.segmentation.module import SegmentationModule
from lightning_modules.segmentation.recipes import SEGMENTATION_RECIPES, SegmentationRecipe
from normshift import feature_divergence
from normshift.registry import NORMS, norm_spec

if TYPE_CHECKING:
    from pandas import DataFrame
    from torch import nn

    from experiments.study.tables.table import Table

ON_STREETS = "python experiments/seg_gta2city.py --source streets-game --target streets-city streets-night streets-fog"


@dataclass(frozen=True, kw_only=True)
class Arm(task.Arm):
    """A network under a norm; all else that the arms of a study have in common is in its flags."""

    norm: str


class SegmentationTask(Task):
    """How segmentation networks are trained and evaluated.

    Args:
        flags: the study's.
        table: makes the closing table of the results.
    """

    headline = "miou"
    measures = ("miou", "iou/*", "chance", "drop", "divergence")

    def __init__(self, flags: SegmentationFlags, table: Callable[[DataFrame], Table | None] = drop_table):
        self.flags, self.closing_table = flags, table

    def prepare(self, arms: Sequence[Arm], run: RunSettings) -> Sequence[Arm]:
        """Open the domains, which all arms share, and fit the recipe to the source."""
        check_norms(arms, run)
        recipe = chosen_recipe(self.flags)
        self.opened = opened(self.flags, recipe, run)
        self.recipe = with_epochs(recipe, self.flags, len(self.opened.source.samples))
        self.about = {"colours": colours_in_hex(self.opened.source.label_space)}
        return arms

    def check(self, arms: Sequence[Arm], run: RunSettings) -> None:
        check_batch(arms, self.flags, self.recipe, run)
        recipe, side = self.recipe, round(math.prod(self.recipe.crop) ** 0.5)
        if self.opened.source.on_disk:

            def network() -> nn.Module:
                return build(self.flags, recipe, self.opened, "bn").net

            check_affordable(network, side, recipe.batch_size, recipe.max_steps, run)
        super().check(arms, run)

    def check_data(self, run: RunSettings) -> None:
        self.opened.read_labels()

    def data(self, arm: Arm, run: RunSettings) -> SegmentationData:
        return self.opened

    def module(self, arm: Arm, run: RunSettings) -> SegmentationModule:
        return build(self.flags, self.recipe, self.opened, arm.norm)

    def pace(self, arm: Arm, run: RunSettings) -> Pace:
        recipe = self.recipe
        return Pace(recipe.max_steps, recipe.epoch_steps, recipe.evaluation_epochs, self.flags.accumulate)

    def settings(self, arm: Arm, run: RunSettings) -> dict:
        shares = self.flags.accumulate if self.flags.sync_norm else run.shares
        together = self.recipe.batch_size // shares  # normalised as one batch
        about = {"source": self.flags.source, "target": self.flags.target, "images_together": together}
        return about | dataclasses.asdict(self.recipe)

    def callbacks(self, arm: Arm, run: RunSettings) -> list[pl.Callback]:
        return [HiddenClasses(self.opened)]

    def evaluate_further(
        self, module: SegmentationModule, data: SegmentationData, arm: Arm, run: RunSettings
    ) -> dict[str, list[dict]]:
        return {"divergence": divergence(module, data)}

    def examples(self, module: SegmentationModule, data: SegmentationData) -> list[Example]:
        return segmentation_examples(module, data)

    def table(self, results: DataFrame) -> Table | None:
        return self.closing_table(results)


def run_arms(
    flags: SegmentationFlags,
    study: str,
    question: str,
    arms: Sequence[Arm],
    table: Callable[[DataFrame], Table | None] = drop_table,
    arm_flags: tuple[str, ...] = ("norm",),
) -> DataFrame | None:
    """Train and evaluate every arm under every seed, and end in the study's table.

    Args:
        study: its name, of the script and of its folder in `runs/`.
        question: what it asks, for the report.
        table: makes the closing table of the results in long form.
        arm_flags: flags that choose the arms, to which a resumed run may add.

    Returns:
        The results; None on all processes but the first.
    """
    run = resolved(flags, study, chosen_recipe(flags))
    if run.smoke:
        flags = smoked(flags, run)
        run = resolved(flags, study, chosen_recipe(flags))
    return run_study(SegmentationTask(run.flags, table), arms, run, question, arm_flags)


class HiddenClasses(pl.Callback):
    """Keeps the IoU of single classes, dozens of panels, out of W&B's workspace; the table of results holds them."""

    def __init__(self, data: SegmentationData):
        self.domains = data.evaluated

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        for run in wandb_runs(trainer):
            for domain in self.domains:
                for name in domain.label_space.classes:
                    hide(run, f"{domain.name}/iou/{name}")


def opened(flags: SegmentationFlags, recipe: SegmentationRecipe, run: RunSettings) -> SegmentationData:
    """The study's domains.

    Raises:
        UsageError: a set is not on disk, which says what runs without data, or the processes cannot share it.
    """
    if recipe.batch_size % run.shares:
        raise UsageError(
            f"--batch-size {recipe.batch_size} cannot be shared by {run.shares_in_words}: "
            f"pass a multiple of {run.shares}."
        )
    try:
        data = SegmentationData(
            flags.source,
            flags.target,
            run.data_root,
            crop=recipe.crop,
            height=recipe.height,
            batch_size=recipe.batch_size // run.shares,
            workers=run.workers,
            augment_colour=flags.augment_colour,
            class_uniform=recipe.class_uniform,
            scales=recipe.scales,
            augmentation=recipe.augmentation,
            squares=dict(recipe.squares),
            train_scenes=recipe.scenes,
            evaluation_scenes=flags.scenes,
        )
    except MissingDataError as error:
        raise UsageError(f"{str(error).rstrip('.')}; without data on disk, run: {ON_STREETS}") from error
    few = next((domain for domain in data.evaluated if len(domain.samples) < run.world), None)
    if few:
        raise UsageError(
            f"{few.name} has {len(few.samples)} images to evaluate on, fewer than the {run.world} processes."
        )
    return data


def build(
    flags: SegmentationFlags, recipe: SegmentationRecipe, data: SegmentationData, norm: str
) -> SegmentationModule:
    """The network under one norm, ready to train."""
    return SegmentationModule(
        recipe,
        norm,
        data.evaluated,
        norm_in=flags.norm_in,
        weights=flags.weights,
        sync_norm=flags.sync_norm,
        class_weights=data.class_weights(recipe.class_weight_power),
    )


def check_norms(arms: Sequence[Arm], run: RunSettings) -> None:
    """Raise UsageError if a norm is unknown or does not work on this machine."""
    for arm in arms:
        try:
            norm_spec(arm.norm)
        except ValueError as error:
            raise UsageError(f"--norm: {error}") from error
        if NORMS[arm.norm].synchronized and run.accelerator == "cpu" and run.world > 1:
            raise UsageError(
                f"--norm {arm.norm}: torch's own needs GPUs to synchronise; on CPUs, pass --norm bn --sync-norm."
            )


def check_batch(arms: Sequence[Arm], flags: SegmentationFlags, recipe: SegmentationRecipe, run: RunSettings) -> None:
    """Raise UsageError where batch norm would be left one image."""
    batch_normed = {arm.norm for arm in arms if NORMS[arm.norm].needs_batch}
    if recipe.batch_size == run.shares and batch_normed and not (flags.sync_norm and run.world > 1):
        raise UsageError(
            f"--batch-size {recipe.batch_size} leaves each batch one image, which batch norm cannot train on: "
            "raise it, pass --sync-norm, or leave out " + ", ".join(sorted(batch_normed)) + "."
        )


def chosen_recipe(flags: SegmentationFlags) -> SegmentationRecipe:
    """The recipe that the flags name, with the parts that they override."""
    name = flags.recipe
    if name == "auto":
        name = "laptop" if flags.source.startswith("streets-") else "robustnet"
    recipe = named_recipe(name, SEGMENTATION_RECIPES)
    given = overridden_parts(recipe, flags, but=("scenes",))
    if {"arch", "backbone"} & given.keys():  # the recipe's channels are those of its own network
        given |= {"width": 1.0, "decoder_channels": None}
    if given.get("height") == 0:
        given["height"] = None
    if given.get("evaluation", "whole") not in ("whole", "sliding"):
        raise UsageError(f"--evaluation {flags.evaluation}: choose whole or sliding.")
    return dataclasses.replace(recipe, **given)


def with_epochs(recipe: SegmentationRecipe, flags: SegmentationFlags, images: int) -> SegmentationRecipe:
    """The recipe with epochs of at most one pass over the source; the steps between evaluations stay the same."""
    whole_pass = images // recipe.batch_size
    if not whole_pass:
        raise UsageError(
            f"{flags.source} has {images} images to train on, fewer than the {recipe.batch_size} of one step: "
            "pass a smaller --batch-size, or --recipe laptop."
        )
    meant = recipe.epoch_steps or whole_pass
    steps = min(meant, whole_pass)
    max_steps = steps * flags.epochs if flags.epochs else recipe.max_steps
    fitted = {"epoch_steps": steps, "evaluation_epochs": recipe.evaluation_epochs * (meant // steps)}
    if recipe.warmup_share is not None:
        fitted["warmup_steps"] = round(recipe.warmup_share * max_steps)
    return dataclasses.replace(recipe, max_steps=max_steps, **fitted)


def smoked(flags: SegmentationFlags, run: RunSettings) -> SegmentationFlags:
    """The flags of a smoke run on the embedded streets; norms, architecture and the like stay."""
    return dataclasses.replace(
        flags,
        source="streets-game",
        target=["streets-night"],
        recipe="smoke",
        batch_size=min(flags.batch_size or 2 * run.shares, 8 * run.shares),
        scenes=4 * run.world,
        workers=0,
        wandb=smoke_wandb(flags),
    )


def divergence(module: SegmentationModule, data: SegmentationData) -> list[dict]:
    """Feature divergence between the source and each target, layer by layer, on the first images of each.

    One process computes it, for whatever number of processes has trained.
    """
    weights = next(module.parameters())
    source, *targets = (
        [images.to(weights) for images in first_images(data.undivided_loader(domain), 16)] for domain in data.evaluated
    )
    rows = []
    for domain, batches in zip(data.evaluated[1:], targets, strict=True):
        for layer in feature_divergence(module, source, batches):
            width = len(layer.per_channel)
            rows.append(
                {"domain": domain.name, "layer": layer.layer, "depth": layer.depth, "channels": width}
                | {"mean": layer.mean, "total": layer.total}
            )
    return rows


def first_images(loader, count: int):
    """Batches from a loader until they hold `count` images."""
    for images, _ in loader:
        yield images[:count]
        count -= len(images)
        if count <= 0:
            return
