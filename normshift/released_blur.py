"""Key names in the checkpoints of the anti-aliased networks that Zhang (ICML 2019) released.

In these networks a blur is a module of its own whose filter is in the state dict, so the modules after it have higher
numbers than in the plain network. With `features.2.filt`, an AlexNet's `features.3` is called `features.5`; with
`layer2.0.conv2.0.filt`, a ResNet's `layer2.0.conv2` is called `layer2.0.conv2.1`.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from normshift.antialiasing import antialias, set_stem_pool
from normshift.blur_pool import FILTER_SIZES, BlurPool2d

FILTER = re.compile(r"(?:(.+)\.)?filt")


def plain_names(keys: Iterable[str], model: nn.Module) -> dict[str, str]:
    """Released key -> key of the plain network; the filters, which a plain network does not have, are left out."""
    keys = list(keys)
    blurs = defaultdict(list)  # numbers of the blurs in each container
    for key in keys:
        container, _, number = key.removesuffix(".filt").rpartition(".")
        if FILTER.fullmatch(key) and number.isdigit():
            blurs[container].append(int(number))
    modules = {name for name, _ in model.named_modules()}
    return {key: _plain_name(key, blurs, modules) for key in keys if not FILTER.fullmatch(key)}


def _plain_name(key: str, blurs: Mapping[str, list[int]], modules: set[str]) -> str:
    parts = key.split(".")
    name: list[str] = []
    for index, part in enumerate(parts):
        before = blurs.get(".".join(parts[:index]))
        if before and part.isdigit():
            part = str(int(part) - sum(number < int(part) for number in before))
            here = ".".join(name)
            if part == "0" and here in modules and f"{here}.0" not in modules:
                continue  # the released network has this container only because of the blur
        name.append(part)
    return ".".join(name)


def filter_size(state: Mapping[str, Tensor]) -> int | None:
    """The size of the blur filters in a released checkpoint; None if it has none.

    Raises:
        ValueError: the filters are not binomial, or differ in size.
    """
    filters = {key: value for key, value in state.items() if FILTER.fullmatch(key)}
    sizes = {value.shape[-1] if value.dim() == 4 else 0 for value in filters.values()}
    if not filters:
        return None
    (size, *others) = sizes
    for key, value in filters.items():
        shape = (*value.shape[:1], 1, size, size)
        if others or size not in FILTER_SIZES or value.shape != shape or not _is_binomial(value):
            raise ValueError(f"the checkpoint's {key} is no filter of an anti-aliased network: {tuple(value.shape)}.")
    return size


def _is_binomial(value: Tensor) -> bool:
    expected = BlurPool2d(1, value.shape[-1]).filter
    return torch.allclose(value.float().cpu(), expected.expand(value.shape), rtol=0, atol=1e-3)


def refuse_other_blurs(model: nn.Module, size: int) -> None:
    """Raise a ValueError if the network is anti-aliased with another filter size than the checkpoint."""
    for name, module in model.named_modules():
        if isinstance(module, BlurPool2d) and module.filter_size != size:
            raise ValueError(
                f"the checkpoint is an anti-aliased network's of filter size {size}, and {name!r} blurs with "
                f"{module.filter_size}: pass antialias(model, {size})."
            )


def blur_as_released(model: nn.Module, size: int) -> None:
    """Anti-alias a network if it is not yet, and give a ResNet's stem the 2x2 pool of the released networks."""
    if not any(isinstance(module, BlurPool2d) for module in model.modules()):
        antialias(model, size)
        for module in model.modules():
            if isinstance(module, BlurPool2d):
                module.from_checkpoint = True
    set_stem_pool(model, 2)
