"""What a classification recipe changes in a network: classifier, initial norm weights, dropout, norm momentum."""

from collections import OrderedDict
from collections.abc import Iterator

from timm.models import resnet as timms
from torch import fx, nn
from torchvision.models import resnet as torchvisions

from lightning_modules.classification.recipes import ClassificationRecipe
from lightning_modules.weights import head_of

BLOCKS = (timms.BasicBlock, timms.Bottleneck, torchvisions.BasicBlock, torchvisions.Bottleneck)
"""Residual blocks whose last norm is called bn3 or, if there is none, bn2."""
NAMES = {kind.__name__ for kind in BLOCKS}


def prepare(net: nn.Module, recipe: ClassificationRecipe, *, fresh: bool) -> None:
    """Change a network as its recipe says.

    Args:
        fresh: whether the network has random weights; only then are the recipe's initial values set.
    """
    name = head_of(net)
    head = net.get_submodule(name)
    if fresh and recipe.head_std is not None:
        nn.init.normal_(head.weight, std=recipe.head_std)
    if fresh and recipe.zero_last_gamma is not None:
        for gamma in last_gammas(net):
            nn.init.constant_(gamma, 0.0 if recipe.zero_last_gamma else 1.0)
    if not recipe.own_dropout:
        for layer in net.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0
    if recipe.norm_momentum is not None and recipe.ema_decay:
        for layer in net.modules():
            if hasattr(layer, "running_var") and hasattr(layer, "momentum"):
                layer.momentum = recipe.norm_momentum
    if recipe.bottleneck:
        net.set_submodule(name, with_bottleneck(head, recipe.bottleneck))


def last_gammas(net: nn.Module) -> Iterator[nn.Parameter]:
    """The weights of the last norm in each residual block."""
    for block in net.modules():
        rewritten = isinstance(block, fx.GraphModule) and type(block).__name__ in NAMES  # IBN-b has rewritten it
        if rewritten or isinstance(block, BLOCKS):
            gamma = getattr(getattr(block, "bn3", block.bn2), "weight", None)
            if gamma is not None:
                yield gamma


def with_bottleneck(head: nn.Linear, features: int) -> nn.Sequential:
    """A classifier with a bottleneck: linear layer to `features`, batch norm, ReLU, linear layer to the classes."""
    layers = {
        "bottleneck": nn.Linear(head.in_features, features),
        "norm": nn.BatchNorm1d(features),
        "act": nn.ReLU(),
        "fc": nn.Linear(features, head.out_features),
    }
    return nn.Sequential(OrderedDict(layers))


def backbone_parameters(net: nn.Module, recipe: ClassificationRecipe) -> Iterator[nn.Parameter]:
    """The parameters before the classifier and its bottleneck, if it has one."""
    head = head_of(net).removesuffix(".fc") if recipe.bottleneck else head_of(net)
    return (parameter for name, parameter in net.named_parameters() if not name.startswith(f"{head}."))
