"""What the classification studies share: their flags, and how a set of arms is trained, judged and gathered.

A study says what it compares as arms, each a recipe, a norm and the data it learns and is judged on, and how the
closing table is laid out; `run_arms` does the rest.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from experiments.flags import RunFlags, UsageError, check_weights, out_folder, smoke_wandb

if TYPE_CHECKING:  # these load torch; a command line that asks for --help need not wait
    from pandas import DataFrame

    from experiments.tables import Table
    from lightning_modules.classification_recipes import ClassificationRecipe


@dataclass
class ClassificationFlags(RunFlags):
    """Flags that every classification study has."""

    data: str = "shapes"
    """Set to train on: imagenet, cifar10, cifar100, office-home, pacs, domainnet, one domain of a set (pacs/photo), or
    shapes, which are drawn here and need nothing on disk."""
    norm: list[str] = field(default_factory=lambda: ["bn", "sn", "bin"])
    """Norms to compare, of bn syncbn in ln gn sn sn-in-ln bin ibn-a ibn-b."""
    sync_norm: bool = False
    """Take batch statistics over all processes, in bn, sn, bin and IBN's bn half alike."""
    recipe: str = "auto"
    """How it is trained (docs/recipes.md says what each recipe follows); auto: laptop on shapes, else the paper's. The
    flags below override parts of it."""
    backbone: str | None = None
    """A torchvision or timm name, or a CIFAR network such as cifar_resnet20."""
    weights: str = "none"
    """What to start from: none, imagenet (downloaded) or a checkpoint file, also the papers'."""
    image_size: int | None = None
    """Pixels of a side that the network sees."""
    crop: str | None = None
    """How training crops are cut: resized (area and shape drawn), padded (CIFAR's), random or centre."""
    width: float | None = None
    """Channels of the network, times its own."""
    lr: float | None = None
    """Learning rate at the recipe's reference batch size; other batch sizes scale it linearly."""
    weight_decay: float | None = None
    """Weight decay."""
    mixup: float | None = None
    """Alpha of mixup's Beta distribution, 0 for none; with cutmix as well, either is drawn for each batch."""
    cutmix: float | None = None
    """Alpha of cutmix's, 0 for none."""
    ema_decay: float | None = None
    """Decay of the averaged weights and buffers that are judged, 0 for none."""
    ema_statistics: str | None = None
    """Running statistics of the averaged network: averaged like its weights, as ResNet-RS has it, or reestimated over
    training images before each evaluation; by default the recipe's."""
    selection: str | None = None
    """Which evaluation counts: last, best (on the images it is given for, as some papers report) or training-domains
    (on held-out images of the training domains, where domains are left out); by default the recipe's."""
    small_images: bool = False
    """Give a ResNet a 3x3 stem without pooling, for images of 32 pixels or so."""
    images: int | None = None
    """Training images of the embedded shapes; a quarter as many are judged on."""

    def __post_init__(self):
        super().__post_init__()
        self.norm = list(dict.fromkeys(self.norm))
        if not self.norm:
            raise UsageError("--norm: name one norm or more, such as --norm bn ibn-a sn.")
        if self.selection not in (None, "last", "best", "training-domains"):
            raise UsageError(f"--selection {self.selection}: choose last, best or training-domains.")
        if self.ema_statistics not in (None, "averaged", "reestimated"):
            raise UsageError(f"--ema-statistics {self.ema_statistics}: choose averaged or reestimated.")
        if self.crop not in (None, "resized", "padded", "random", "centre"):
            raise UsageError(f"--crop {self.crop}: choose resized, padded, random or centre.")
        if self.ema_decay is not None and self.ema_decay >= 1:
            raise UsageError(f"--ema-decay {self.ema_decay}: it must be below 1.")
        check_weights(self.weights)

    @property
    def on_shapes(self) -> bool:
        return self.data.partition("/")[0] == "shapes"


MEASURES = ("top1", "top5", "loss", "chance", "consistency", "error", "flip", "top5_distance", "nll", "ece", "latency")


@dataclass(frozen=True)
class Arm:
    """One of the things that a study compares."""

    recipe: ClassificationRecipe
    norm: str
    train: str  # the domain it learns
    judged: tuple[str, ...]  # the domains it is judged on
    facts: dict  # what tells it from the other arms, as columns of the results
    antialias: int | None = None
    judge: tuple[str, ...] = ()  # parts of `lightning_modules.robustness` besides "clean"
    held_out: tuple[str, ...] = ()  # those judged domains that are held-out images of what it learns
    adapt_to: str | None = None  # a domain whose images are learned from without their labels
    processes: int | None = None  # that share a step, where a study says it; more than there are take turns


def chosen_recipe(flags: ClassificationFlags, published: str) -> ClassificationRecipe:
    """The recipe that the flags name (`published` where they leave it open), with the parts that they override."""
    from lightning_modules.classification_recipes import CLASSIFICATION_RECIPES

    name = flags.recipe if flags.recipe != "auto" else "laptop" if flags.on_shapes else published
    if name not in CLASSIFICATION_RECIPES:
        raise UsageError(f"--recipe {name}: choose from auto, {', '.join(CLASSIFICATION_RECIPES)}.")
    recipe = CLASSIFICATION_RECIPES[name]
    parts = {f.name for f in dataclasses.fields(recipe)} & {f.name for f in dataclasses.fields(flags)} - {"epochs"}
    said = {part: getattr(flags, part) for part in parts}
    given = {part: value for part, value in said.items() if value is not None and value is not False}
    _check_setting(flags, name, recipe)
    for part in ("resize", "train_squash"):
        if "image_size" in given and getattr(recipe, part):
            given[part] = round(given["image_size"] * getattr(recipe, part) / recipe.image_size)
    if recipe.crop == "random" and not flags.on_shapes:  # drawn images alone have the size that crops are cut from
        given = {"crop": "resized"} | given
    recipe = dataclasses.replace(recipe, **given)
    return recipe.lasting(flags.epochs) if flags.epochs else recipe


def _check_setting(flags: ClassificationFlags, name: str, recipe: ClassificationRecipe) -> None:
    """Refuse a recipe that is another library's protocol outside the setting that it is one of."""
    said = getattr(flags, "setting", None), getattr(flags, "adapt", None) == "dann"
    if recipe.setting and said != (recipe.setting, recipe.adapts):
        adapt = " --adapt dann" if recipe.adapts else " without --adapt"
        wanted = f"--setting {recipe.setting}{adapt if recipe.setting == 'transfer' else ''}"
        raise UsageError(f"--recipe {name}: it is a protocol of cls_office_home.py {wanted}.")
    if recipe.setting and flags.weights == "none":
        frozen = ", and its norms are frozen" if recipe.frozen_norms else ""
        print(f"note: {name} starts from --weights imagenet{frozen}; from scratch it is not that protocol")


def smoked(flags: ClassificationFlags, **parts) -> ClassificationFlags:
    """The flags of a few seconds' run on a few small shapes; norms, backbone and the like stay."""
    changed = {"data": "shapes", "recipe": "smoke", "weights": "none", "images": 64, "workers": 0}
    changed |= {"batch_size": flags.batch_size and min(flags.batch_size, 16), "wandb": smoke_wandb(flags)}
    return dataclasses.replace(flags, **changed | parts)


def run_arms(
    flags: ClassificationFlags,
    study: str,
    question: str,
    arms: dict[str, Arm],
    table: Callable[[DataFrame], Table],
    *,
    opened: Opened | None = None,
    train: Callable | None = None,
    arm_flags: tuple[str, ...] = ("norm", "backbone"),
) -> DataFrame | None:
    """Train and judge every arm under every seed, and end in the study's table.

    Args:
        study: its name, of the script and of its folder in `runs/`.
        arms: by name; a name is also a folder's.
        table: makes the closing table of the tidy results: the arm's facts, seed, domain, part, condition, measure and
            value (accuracies in [0, 1]).
        opened: the domains, where they are not simply those that the names say.
        train: takes the place of `train_and_judge`.
        arm_flags: flags that choose the arms, to which a resumed run may add.

    Returns:
        The results; None on all processes but the first.
    """
    from experiments.run_folder import RunFolder  # after parsing: --help must not wait for it
    from experiments.train_arms import train_arms

    started = time.time()
    if not arms:
        raise UsageError("nothing is left to compare: a list that chooses the arms is empty.")
    out, fresh = out_folder(flags, study), flags.smoke and "NAME" in flags.out
    opened = opened or Opened(flags)
    arms = {name: fitted(flags, arm, opened) for name, arm in arms.items()}
    check(flags, arms, opened)
    facts = {name: arm.facts for name, arm in arms.items()}
    folder = RunFolder(out, flags, question, {}, facts, arm_flags, fresh, "top1", MEASURES)

    def train_one(name: str, seed: int) -> None:
        (train or train_and_judge)(flags, arms[name], opened, folder, name, seed)

    return train_arms(folder, train_one, lambda results: with_selection(table(results), arms), started)


def with_selection(table: Table | None, arms: dict[str, Arm]) -> Table | None:
    """The closing table, which says so where not the last evaluation counts."""
    from lightning_modules.classification_recipes import SELECTIONS

    chosen = dict.fromkeys(arm.recipe.selection for arm in arms.values())
    if table is None or list(chosen) == ["last"]:
        return table
    return dataclasses.replace(table, legend=f"{table.legend} Each figure is {SELECTIONS[next(iter(chosen))]}.")


class Opened:
    """Domains by name, opened once for all arms."""

    def __init__(self, flags: ClassificationFlags):
        self.flags, self.domains = flags, {}

    def __call__(self, name: str, split: str, recipe: ClassificationRecipe):
        """A domain's split; embedded images are drawn at the size that the recipe cuts its crops from.

        Raises:
            UsageError: the set is not on disk; it says what runs without data.
        """
        key = (name, split, recipe.resize or recipe.image_size)
        if key not in self.domains:
            self.domains[key] = self._open(*key)
        return self.domains[key]

    def _open(self, name: str, split: str, size: int):
        from datamodules.image_domains import open_images
        from datamodules.image_files import MissingDataError

        count = self.flags.images
        length = count if split == "train" or not count else max(10, count // 4)
        try:
            return open_images(name, split, self.flags.data_root, size=size, length=length)
        except MissingDataError as error:
            raise UsageError(f"{str(error).rstrip('.')}; --data shapes needs nothing on disk.") from error


REMEMBERED = 0.2
"""Share of its beginning that an average of weights may still hold when it is judged."""


def fitted(flags: ClassificationFlags, arm: Arm, opened: Opened) -> Arm:
    """The arm with its recipe fitted to its data."""
    from lightning_modules.optimization import remembered

    images = len(opened(arm.train, "train", arm.recipe).samples)
    try:
        recipe = arm.recipe.fitted(images, flags.max_steps)
    except ValueError as error:
        raise UsageError(f"{arm.train}: {error}") from error
    if recipe.ema_decay and not flags.smoke and (share := remembered(recipe)) > REMEMBERED:
        raise UsageError(
            f"an average of decay {recipe.ema_decay:g} would be {100 * share:.0f} % its first step's weights after "
            f"{recipe.max_steps} steps: train longer, or pass a lower --ema-decay, 0 for none."
        )
    if arm.adapt_to and len(opened(arm.adapt_to, "train", recipe).samples) < recipe.batch_size:
        raise UsageError(f"{arm.adapt_to} has fewer images than the {recipe.batch_size} of one step to adapt to.")
    return dataclasses.replace(arm, recipe=recipe)


BUILDS = (
    "backbone", "width", "dropout", "stochastic_depth", "stochastic_depth_by", "small_images", "trains", "architecture",
    "bottleneck", "tells_domains",
)  # fmt: skip
"""Parts of a recipe that a network is built from."""


def check(flags: ClassificationFlags, arms: dict[str, Arm], opened: Opened) -> None:
    """Build every network once before the first is trained: what cannot be built must not stop a run half-way."""
    import torch

    from experiments.trainers import devices

    accelerator, count = devices(flags)
    world, built = count * flags.nodes, set()
    check_averages(flags, [arm.recipe for arm in arms.values()])
    for arm in arms.values():
        check_classes(arm, opened)
        shares = turns(arm, world)[0]
        if arm.recipe.batch_size % shares:
            raise UsageError(
                f"--batch-size {arm.recipe.batch_size} cannot be shared by {shares} processes: pass a multiple of it."
            )
        if arm.recipe.tells_domains and world > 1:
            raise UsageError("domainbed-dann: its two halves take turns in one process alone; pass --gpus 1 --nodes 1.")
        if arm.norm == "syncbn" and accelerator == "cpu" and world > 1:
            raise UsageError("--norm syncbn: torch's own needs GPUs to synchronise; on CPUs: --norm bn --sync-norm.")
        built_of = [getattr(arm.recipe, part) for part in BUILDS]
        network = str((arm.norm, arm.antialias, arm.adapt_to is None, built_of))
        if network in built:
            continue
        built.add(network)
        with torch.random.fork_rng(devices=[]):
            try:
                build(flags, arm, opened)
            except ValueError as error:
                raise UsageError(str(error)) from error


def check_averages(flags: ClassificationFlags, recipes: list[ClassificationRecipe]) -> None:
    """Raise UsageError where there are no statistics that --ema-statistics could estimate anew."""
    if flags.ema_statistics != "reestimated":
        return
    averaged = [recipe for recipe in recipes if recipe.ema_decay]
    if not averaged:
        raise UsageError("--ema-statistics reestimated: no weights are averaged; pass --ema-decay as well.")
    if any(recipe.frozen_norms or recipe.trains == "head" for recipe in averaged):
        raise UsageError("--ema-statistics reestimated: the recipe freezes the norms, whose statistics are to stay.")


def check_classes(arm: Arm, opened: Opened) -> None:
    """Raise UsageError where the domains that an arm learns and is judged on are of unlike classes, or no images."""
    from datamodules.image_files import DataError

    train = opened(arm.train, "train", arm.recipe)
    others = [opened(name, "val", arm.recipe) for name in arm.judged]
    others += [opened(arm.adapt_to, "train", arm.recipe)] if arm.adapt_to else []
    for domain in (train, *others):
        if domain.of_videos:
            raise UsageError(f"{domain.name} holds videos: eval_robustness.py --published judges on them.")
        try:
            labels = domain.in_order_of(train.classes, train.name).samples.labels
        except DataError as error:
            raise UsageError(str(error)) from error
        strange = sorted(set(labels.tolist()) - set(train.samples.labels.tolist()))
        if strange and domain.on_disk:  # a part of ImageNet's folders to learn, and others to be judged on
            said = f"{domain.name} shows {len(strange)} classes ({train.classes[strange[0]]}"
            said = f"{said}{', ...' * (len(strange) > 1)}) of which {train.name} has no image to learn"
            if len(strange) == len(set(labels.tolist())):
                raise UsageError(f"{said}, and no other: let their folders be of the same classes.")
            print(f"warning: {said}: whatever a network calls those is wrong.")


def turns(arm: Arm, world: int) -> tuple[int, int]:
    """In how many batches one step's images are shared, and how many of them each of the processes takes in turn.

    Raises:
        UsageError: an arm's processes cannot be shared by those that there are.
    """
    if arm.processes is None:
        return world, 1
    if arm.processes % world:
        raise UsageError(f"a step shared by {arm.processes} cannot be made by the {world} processes that there are.")
    return arm.processes, arm.processes // world


def build(flags: ClassificationFlags, arm: Arm, opened: Opened):
    """The arm's network, ready to train."""
    from lightning_modules.classification import ClassificationModule
    from lightning_modules.domain_adversarial import DomainAdversarialModule, DomainInvariantModule

    alone = DomainInvariantModule if arm.recipe.tells_domains else ClassificationModule
    module = (DomainAdversarialModule if arm.adapt_to else alone)(
        arm.recipe,
        arm.norm,
        opened(arm.train, "train", arm.recipe).classes,
        arm.judged,
        data=arm.train,
        antialias=arm.antialias,
        sync_norm=flags.sync_norm,
        pretrained=flags.weights == "imagenet",
        select_on=selected_on(arm),
    )
    return module if flags.weights in ("none", "imagenet") else module.start_from(flags.weights)


def selected_on(arm: Arm) -> tuple[str, ...]:
    """The judged domains that choose which judgement counts; none where the last one does.

    Raises:
        UsageError: nothing is held out of what the arm learns.
    """
    if arm.recipe.selection == "training-domains" and not arm.held_out:
        raise UsageError("--selection training-domains: it goes with cls_office_home.py --setting leave-one-out.")
    return {"last": (), "best": arm.judged, "training-domains": arm.held_out}[arm.recipe.selection]


def loaded(flags: ClassificationFlags, arm: Arm, opened: Opened, world: int):
    """The arm's data module: what it learns, and what it is judged on."""
    from datamodules.classification import AdaptationData, ClassificationData
    from experiments.trainers import loader_workers
    from lightning_modules.recipe_images import judged_image, train_image

    recipe, (shares, in_turn) = arm.recipe, turns(arm, world)
    endless = recipe.epoch_length is not None or recipe.from_each
    adapted = {"target": opened(arm.adapt_to, "train", recipe)} if arm.adapt_to else {}
    return (AdaptationData if adapted else ClassificationData)(
        opened(arm.train, "train", recipe),
        [opened(name, "val", recipe) for name in arm.judged],
        train_image(recipe),
        size=recipe.image_size,
        resize=recipe.resize,
        batch_size=recipe.batch_size // shares,
        workers=loader_workers(flags),
        judged_image=judged_image(recipe),
        keep_last=recipe.keep_last,
        steps=recipe.epoch_steps * in_turn if endless else None,
        from_each=recipe.from_each,
        **adapted,
    )


def step_images(arm: Arm) -> int:
    """Images that pass the network in one step, over all processes."""
    domains = len(arm.train.split("+")) if arm.recipe.from_each else 1
    return arm.recipe.batch_size * (domains + (arm.adapt_to is not None))


def train_and_judge(flags: ClassificationFlags, arm: Arm, opened: Opened, folder, name: str, seed: int) -> None:
    """One network: train it, judge it, and leave its part of the run in the folder."""
    from experiments.trainers import devices, end_wandb, forget_progress, make_trainer, train
    from experiments.wandb_outcome import log_outcome
    from lightning_modules.examples import save_examples
    from lightning_modules.gate_tracker import GateTracker
    from lightning_modules.halves_tracker import HalvesTracker
    from lightning_modules.optimization import ema_update
    from lightning_modules.predictions import classification_examples
    from lightning_modules.weight_averaging import AveragedWeights

    part, recipe = folder.part(name, seed), arm.recipe
    world = devices(flags)[1] * flags.nodes
    data, module = loaded(flags, arm, opened, world), build(flags, arm, opened)
    together = step_images(arm) // (1 if flags.sync_norm else turns(arm, world)[0])  # normalised as one batch
    averaging = [AveragedWeights(ema_update(recipe), recipe.ema_statistics)] if recipe.ema_decay else []
    trainer = make_trainer(
        flags,
        part,
        recipe,
        [*averaging, GateTracker(part, {"arm": name, **arm.facts, "seed": seed}), HalvesTracker()],
        {"arm": name, **arm.facts, "seed": seed, **recipe.plain(), "images_together": together},
        measure="top1",
        accumulate=turns(arm, world)[1],
    )
    train(trainer, module, data, flags.resume, module.take_selected)
    if trainer.is_global_zero:
        module.to(trainer.strategy.root_device)  # Lightning has moved it to the CPU
        results = [*module.results(), *judged_further(flags, arm, opened, module, name)]
        found = classification_examples(module, data)
        save_examples(found, folder.path / "examples", name)
        folder.finish(name, seed, {"results": results})
        log_outcome(trainer, results, found)
        forget_progress(trainer)
        end_wandb(trainer)


def judged_further(flags: ClassificationFlags, arm: Arm, opened: Opened, module, name: str) -> list[dict]:
    """What the arm is to be judged on besides clean images, on each of its domains."""
    if not arm.judge:
        return []
    from experiments.trainers import loader_workers
    from lightning_modules.robustness import Judged, evaluate

    recipe, network, rows = arm.recipe, Judged.trained(name, module), []
    for domain in arm.judged:
        samples = opened(domain, "val", recipe).in_order_of(module.classes, arm.train).samples
        for row in evaluate([network], samples, arm.judge, workers=loader_workers(flags)):
            rows.append({"domain": domain} | {key: value for key, value in row.items() if key != "network"})
    return rows


def accuracies(results: DataFrame, rows: str, columns: str, measure: str = "top1") -> DataFrame:
    """One measure on clean images, in points: the scores that `table_of` takes, rows and columns named by facts."""
    chosen = results[(results["measure"] == measure) & (results["part"] == "clean")]
    points = chosen.assign(points=100 * chosen["value"])
    order = list(dict.fromkeys(zip(points[rows], points["seed"], strict=True)))  # the order of the run
    wide = points.pivot_table(
        index=[rows, "seed"], columns=columns, values="points", aggfunc="last", sort=False, dropna=False
    )
    return wide.loc[order, list(dict.fromkeys(points[columns]))].rename_axis(columns=None)
