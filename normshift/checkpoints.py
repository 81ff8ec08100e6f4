"""Loading the checkpoints that the papers' repositories, torchvision and timm publish."""

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from normshift.layers import IBN2d
from normshift.record import CHANNELWISE, GATES, RENAMED, record, state_for
from normshift.registry import NORMS
from normshift.surgery import norm_layers, successor

RENAMES = (
    (re.compile(r"\bsn(\d)\b"), r"bn\1"),  # Switchable Normalization's ResNets call their norms sn1, sn2, sn3
    (
        re.compile(r"\b(norm|relu|conv)\.(\d)\b"),
        r"\1\2",
    ),  # torchvision's DenseNets before 2018, and IBN-Net's after them
    (re.compile(r"\bse\.fc\.0\b"), r"se.fc1"),  # IBN-Net's squeeze-and-excitation, a Sequential, in timm's names
    (re.compile(r"\bse\.fc\.2\b"), r"se.fc2"),
)
"""Published key names -> names of the same module in torchvision or timm; used where the network has the latter."""


def load_official(model: nn.Module, state_dict: Mapping, *, ignore: Iterable[str] = ()) -> nn.Module:
    """Load a published checkpoint into a network, converted beforehand as the checkpoint was.

    Takes the key names and shapes of IBN-Net (`bn1.IN.weight`, `bn1.BN.weight`, `layer1.2.IN.weight`; ResNet, SE,
    ResNeXt, DenseNet), Switchable Normalization (`weight` of shape (1, C, 1, 1), `mean_weight`, running averages of
    shape (1, C, 1)) and Batch-Instance Normalization (`gate`), also under "state_dict" or "model" and with "module."
    in front.

    Batch-norm checkpoints of torchvision and timm go into converted networks too: `weight`, `bias` and running
    statistics are carried into SN, BIN and (split) IBN layers, whose gates, and the norms that IBN-b adds, keep their
    present values; IN, LN and GN have no use for running statistics. In IBN-Net's DenseNets only every third dense
    layer has IN: where such a checkpoint has a plain batch norm, so has the network afterwards.

    Args:
        model: changed in place, and only if everything fits.
        state_dict: what `torch.load` returned.
        ignore: shell patterns of checkpoint keys to leave out by intent, such as "fc.*" for an encoder.

    Returns:
        `model`.

    Raises:
        ValueError: naming the keys that are left over in the checkpoint, missing from it, or of another shape.
    """
    every = unwrapped(state_dict).items()
    kept = {key: value for key, value in every if not any(fnmatchcase(key, pattern) for pattern in ignore)}
    published = _renamed(kept, model)
    norms = norm_layers(model)
    plain = _plain_batch_norms(norms, published)
    wanted = _wanted(model, plain)
    filled, taken = _norm_states(norms | plain, published)
    for key in wanted.keys() & published.keys() - taken:
        filled[key] = published[key]
        taken.add(key)
    _fill_absent_biases(filled, wanted)
    filled = {key: _without_ones(value, wanted[key]) for key, value in filled.items()}
    _complain(published.keys() - taken, wanted.keys() - filled.keys() - _optional(wanted, published), filled, wanted)
    for name, layer in plain.items():
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, layer)
    model.load_state_dict(filled, strict=False)
    return model


def _norm_states(norms: dict[str, nn.Module], published: dict[str, Tensor]) -> tuple[dict[str, Tensor], set[str]]:
    """What each norm layer takes from a checkpoint whose layer in that place may be of another kind; and the keys used.

    IBN's halves are not among them: they fit an IBN layer of the same split, key by key, or nothing.
    """
    filled, taken = {}, set()
    for name, layer in norms.items():
        prefix = f"{name}." if name else ""
        state = {key[len(prefix) :]: value for key, value in published.items() if key.startswith(prefix)}
        own = state_for(layer, record(state))
        filled |= {prefix + key: value for key, value in own.items()}
        known = CHANNELWISE | {"num_batches_tracked"} | own.keys()  # gates are used only where the layer has them
        taken |= {prefix + key for key in state if RENAMED.get(key, key) in known}
    return filled, taken


def unwrapped(state_dict: Mapping) -> dict[str, Tensor]:
    """A published checkpoint's tensors by key, out from under "state_dict" or "model", and without "module."."""
    for key in ("state_dict", "model"):
        if isinstance(state_dict.get(key), Mapping):
            state_dict = state_dict[key]
    return {key.removeprefix("module."): value for key, value in state_dict.items() if isinstance(value, Tensor)}


def _renamed(published: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    modules = {name for name, _ in model.named_modules()}

    def name_here(key: str) -> str:
        names = (pattern.sub(replacement, key) for pattern, replacement in RENAMES)
        return key if _owner(key) in modules else next((name for name in names if _owner(name) in modules), key)

    return {name_here(key): value for key, value in published.items()}


def _owner(key: str) -> str:
    """The module that a key belongs to; the halves of an IBN layer belong to the layer."""
    return key.rpartition(".")[0].removesuffix(".IN").removesuffix(".BN")


def _plain_batch_norms(norms: dict[str, nn.Module], published: dict[str, Tensor]) -> dict[str, nn.Module]:
    """Batch norms to stand in for IBN layers, where an IBN-Net checkpoint has a plain one in that place."""
    if not any(key.endswith(".IN.weight") for key in published):
        return {}
    return {
        name: successor(layer, NORMS["bn"])
        for name, layer in norms.items()
        if isinstance(layer, IBN2d) and f"{name}.weight" in published
    }


def _wanted(model: nn.Module, replaced: dict[str, nn.Module]) -> dict[str, Tensor]:
    """The network's state as it will be with some layers replaced."""
    inside = tuple(f"{name}." for name in replaced)
    kept = {key: value for key, value in model.state_dict().items() if not key.startswith(inside)}
    return kept | {
        f"{name}.{key}": value for name, layer in replaced.items() for key, value in layer.state_dict().items()
    }


def _fill_absent_biases(filled: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """IBN-Net's squeeze-and-excitation has no biases, timm's has: zeros are the same function."""
    for key in wanted.keys() - filled.keys():
        if re.search(r"\.se\.fc[12]\.bias$", key) and key.replace("bias", "weight") in filled:
            filled[key] = torch.zeros_like(wanted[key])


def _without_ones(value: Tensor, wanted: Tensor) -> Tensor:
    """Reshaped where shapes agree up to axes of size 1: a linear layer's weight for a 1x1 convolution."""
    alike = [n for n in value.shape if n > 1] == [n for n in wanted.shape if n > 1]
    return value.reshape(wanted.shape) if alike else value


def _optional(wanted: Iterable[str], published: Iterable[str]) -> set[str]:
    """Keys that may keep their present values, because this kind of checkpoint has none of them."""
    published = list(published)
    has_gates = any(key.rpartition(".")[2] in GATES | RENAMED.keys() for key in published)
    has_ibn = any(key.endswith(".IN.weight") for key in published)
    return {
        key
        for key in wanted
        if key.endswith("num_batches_tracked")
        or (not has_gates and key.rpartition(".")[2] in GATES)
        or (not has_ibn and re.search(r"\.IN\.(weight|bias)$", key))
    }


def _complain(left_over: set[str], missing: set[str], filled: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    shapes = [
        f"{key} is {tuple(value.shape)} and should be {tuple(wanted[key].shape)}"
        for key, value in sorted(filled.items())
        if value.shape != wanted[key].shape
    ]
    problems = [f"left over in the checkpoint: {_listed(left_over)}"] if left_over else []
    problems += [f"missing from the checkpoint: {_listed(missing)}"] if missing else []
    problems += [f"of another shape: {'; '.join(shapes[:8])}"] if shapes else []
    if problems:
        advice = "Was the network converted as the checkpoint's was?"
        raise ValueError(f"the checkpoint does not fit the network: {'. '.join(problems)}. {advice}")


def _listed(keys: Iterable[str]) -> str:
    keys = sorted(keys)
    return ", ".join(keys[:12]) + (f" and {len(keys) - 12} more" if len(keys) > 12 else "")
