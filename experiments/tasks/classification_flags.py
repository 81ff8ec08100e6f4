"""The flags that every classification study has, and the recipe that they choose. It does not import torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from experiments.study.endings import UsageError
from experiments.study.flags import RunFlags, check_weights, smoke_wandb
from experiments.tasks.recipe_flags import named_recipe, overridden_parts
from lightning_modules.classification.recipes import CLASSIFICATION_RECIPES, ClassificationRecipe


@dataclass
class ClassificationFlags(RunFlags):
    """Flags that every classification study has."""

    data: str = "shapes"
    """Data set to train on: imagenet, cifar10, cifar100, office-home, pacs, domainnet, one domain of a set
    (pacs/photo), the path of a folder of your own (CLASS/*, train/CLASS/* and val/CLASS/*, or DOMAIN/CLASS/*), or
    shapes, the embedded set, which needs no files."""
    norm: list[str] = field(default_factory=lambda: ["bn", "sn", "bin"])
    """Norms to compare, of NORMS."""
    sync_norm: bool = False
    """Compute batch statistics over all processes, in every norm that has them (bn, sn, bin and IBN's BN half)."""
    recipe: str = "auto"
    """Training recipe (docs/recipes.md lists them); auto is laptop on shapes, else the paper's. The flags below
    override parts of it."""
    backbone: str | None = None
    """Name of a torchvision or timm network, or of a CIFAR network such as cifar_resnet20; by default the recipe's."""
    weights: str = "none"
    """Initial weights: none, imagenet (downloaded) or a checkpoint file, also one that a paper's authors published."""
    image_size: int | None = None
    """Height and width of the network's input in pixels."""
    crop: str | None = None
    """How training crops are cut: resized (random area and aspect ratio), padded (as for CIFAR), random or centre."""
    width: float | None = None
    """Factor on the network's numbers of channels."""
    lr: float | None = None
    """Learning rate at the recipe's reference batch size; it is scaled linearly with the batch size."""
    weight_decay: float | None = None
    """Weight decay."""
    mixup: float | None = None
    """Alpha of mixup's Beta distribution; 0 turns mixup off. With cutmix as well, each batch gets one of the two at
    random."""
    cutmix: float | None = None
    """Alpha of CutMix's Beta distribution; 0 turns CutMix off."""
    ema_decay: float | None = None
    """Decay of the exponential moving average of the weights, which is then the network that is evaluated; 0 turns it
    off."""
    ema_statistics: str | None = None
    """Running statistics of the averaged network: averaged like its weights (as in ResNet-RS), or reestimated on
    training images before each evaluation; by default the recipe's."""
    selection: str | None = None
    """Which evaluation is reported: last; best, chosen on the evaluation images themselves, as in some papers; or
    training-domains, chosen on held-out images of the training domains (setting leave-one-out). By default the
    recipe's."""
    small_images: bool = False
    """Give a ResNet a 3x3 stem without pooling, for images of about 32 pixels."""
    only: list[str] = field(default_factory=list)
    """Train only these of the study's arms, by the names of their folders, such as baseline; by default all."""
    images: int | None = None
    """Number of training images of the embedded shapes; the evaluation uses a quarter as many."""

    @classmethod
    def recipes_to_choose(cls) -> dict[str, ClassificationRecipe]:
        protocols = any(field.name == "setting" for field in dataclasses.fields(cls))
        return {name: one for name, one in CLASSIFICATION_RECIPES.items() if protocols or one.setting is None}

    @classmethod
    def default_recipe(cls) -> tuple[str, ClassificationRecipe]:
        return "laptop", CLASSIFICATION_RECIPES["laptop"]

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
    """The recipe that the flags name, with the parts that they override. `published` is what auto means on real
    data."""
    name = flags.recipe if flags.recipe != "auto" else "laptop" if flags.on_shapes else published
    recipe = named_recipe(name, CLASSIFICATION_RECIPES)
    given = overridden_parts(recipe, flags, but=("epochs",))
    _check_setting(flags, name, recipe)
    for part in ("resize", "train_squash"):
        if "image_size" in given and getattr(recipe, part):
            given[part] = round(given["image_size"] * getattr(recipe, part) / recipe.image_size)
    if recipe.crop == "random" and not flags.on_shapes:  # images on disk are of many sizes, some smaller than the crop
        given = {"crop": "resized"} | given
    recipe = dataclasses.replace(recipe, **given)
    return recipe.lasting(flags.epochs) if flags.epochs else recipe


def _check_setting(flags: ClassificationFlags, name: str, recipe: ClassificationRecipe) -> None:
    """Refuse a recipe of another library's protocol outside the setting for which that protocol was made."""
    said = getattr(flags, "setting", None), getattr(flags, "adapt", None) == "dann"
    if recipe.setting and said != (recipe.setting, recipe.adapts):
        adapt = " --adapt dann" if recipe.adapts else " without --adapt"
        wanted = f"--setting {recipe.setting}{adapt if recipe.setting == 'transfer' else ''}"
        raise UsageError(f"--recipe {name}: it is a protocol of cls_office_home.py {wanted}.")
    if recipe.setting and flags.weights == "none":
        frozen = ", and its norms are frozen" if recipe.frozen_norms else ""
        print(f"note: {name} starts from --weights imagenet{frozen}; from scratch it is not that protocol")


def smoked(flags: ClassificationFlags, **parts) -> ClassificationFlags:
    """The flags of a smoke run: a few small shapes, a few seconds. Norms, backbone and the like stay."""
    changed = {"data": "shapes", "recipe": "smoke", "weights": "none", "images": 64, "workers": 0}
    changed |= {"batch_size": flags.batch_size and min(flags.batch_size, 16), "wandb": smoke_wandb(flags)}
    return dataclasses.replace(flags, **changed | parts)
