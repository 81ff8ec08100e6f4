"""The flags that every classification study has, and the recipe that they choose. Loads no torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from experiments.study.flags import RunFlags, UsageError, check_weights, smoke_wandb
from lightning_modules.classification.recipes import CLASSIFICATION_RECIPES, ClassificationRecipe


@dataclass
class ClassificationFlags(RunFlags):
    """Flags that every classification study has."""

    data: str = "shapes"
    """Set to train on: imagenet, cifar10, cifar100, office-home, pacs, domainnet, one domain of a set (pacs/photo), or
    shapes, which are drawn here and need nothing on disk."""
    norm: list[str] = field(default_factory=lambda: ["bn", "sn", "bin"])
    """Norms to compare, of NORMS."""
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
    """Decay of the averaged weights and buffers that are evaluated, 0 for none."""
    ema_statistics: str | None = None
    """Running statistics of the averaged network: averaged like its weights, as ResNet-RS has it, or reestimated over
    training images before each evaluation; by default the recipe's."""
    selection: str | None = None
    """Which evaluation counts: last, best (on the images it is given for, as some papers report) or training-domains
    (on held-out images of the training domains, where domains are left out); by default the recipe's."""
    small_images: bool = False
    """Give a ResNet a 3x3 stem without pooling, for images of 32 pixels or so."""
    images: int | None = None
    """Training images of the embedded shapes; a quarter as many are evaluated on."""

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


def chosen_recipe(flags: ClassificationFlags, published: str) -> ClassificationRecipe:
    """The recipe that the flags name (`published` where they leave it open), with the parts that they override."""
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
