"""Loading the checkpoints that the papers' repositories, torchvision and timm publish."""

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from normshift.exchange.succession import hand_on_hooks, successor
from normshift.layers import IBN2d, Norm
from normshift.record import CHANNELWISE, gate_keys, published_names, record, state_for
from normshift.registry import NORMS
from normshift.released_blur import blur_as_released, filter_size, plain_names, refuse_other_blurs
from normshift.surgery import norm_layers
from normshift.wrapped import bare, inner, unwrapped

RENAMES = (
    (re.compile(r"\bsn(\d|_out)\b"), r"bn\1"),  # Switchable Normalization's ResNets call their norms sn1, sn2, sn3
    (
        re.compile(r"\b(norm|relu|conv)\.(\d)\b"),
        r"\1\2",
    ),  # torchvision's DenseNets before 2018, and IBN-Net's after them
    (re.compile(r"\bse\.fc\.0\b"), r"se.fc1"),  # IBN-Net's squeeze-and-excitation, a Sequential, in timm's names
    (re.compile(r"\bse\.fc\.2\b"), r"se.fc2"),
    (re.compile(r"^classifier\.0\b"), "classifier.1"),  # the anti-aliased MobileNetV2 has no dropout before it
    (re.compile(r"^classifier\.0\b"), "pre_logits.fc1"),  # timm's VGG, whose linear layers are convolutions
    (re.compile(r"^classifier\.3\b"), "pre_logits.fc2"),
    (re.compile(r"^classifier\.6\b"), "head.fc"),
)
"""Published key names -> names of the same module in torchvision or timm; used where the network has the latter."""


def load_official(model: nn.Module, state_dict: Mapping, *, ignore: Iterable[str] = ()) -> nn.Module:
    """Load a published checkpoint into a network, converted beforehand as the checkpoint was.

    Takes the key names and shapes of IBN-Net (`bn1.IN.weight`, `bn1.BN.weight`, `layer1.2.IN.weight`; ResNet, SE,
    ResNeXt, DenseNet), Switchable Normalization (`weight` of shape (1, C, 1, 1), `mean_weight`, running averages of
    shape (1, C, 1)), Batch-Instance Normalization (`gate`) and anti-aliased CNNs (`features.2.filt`; AlexNet, VGG,
    ResNet, ResNeXt, DenseNet, MobileNetV2), also below "state_dict", "model" and the like, and out of what DDP,
    torch.compile, `AveragedModel` and Lightning modules put before the keys.

    What the keys do not say comes along too. Switchable Normalization's layers divide by n - 1 (`correction=1`), with
    momentum 0.1 for images and 0.003 for vectors and volumes. A released anti-aliased checkpoint anti-aliases the
    network, where `antialias` has not yet, and gives a ResNet's stem its 2x2 pool. In IBN-Net's DenseNets every third
    dense layer has IN: where an IBN-Net checkpoint has a plain batch norm, so has the network afterwards, and the other
    way round.

    Batch-norm checkpoints of torchvision and timm go into converted networks too: `weight`, `bias` and running
    statistics are carried into SN, BIN and (split) IBN layers, whose gates, and the norms that IBN-b adds, keep their
    present values; IN, LN and GN have no use for running statistics.

    Args:
        model: changed in place, and only if everything fits.
        state_dict: what `torch.load` returned.
        ignore: shell patterns of checkpoint keys to leave out by intent, such as "fc.*" for an encoder.

    Returns:
        `model`.

    Raises:
        ValueError: naming the keys that are left over in the checkpoint, missing from it, or of another shape; or
            saying that it holds several networks, or one that is anti-aliased otherwise.
    """
    network = inner(model)
    every = bare(unwrapped(state_dict), network.state_dict())
    size = filter_size(every)
    if size:
        refuse_other_blurs(network, size)
    ignore = tuple(ignore)
    published = {
        name: every[key]
        for key, name in names_here(network, every).items()
        if not any(fnmatchcase(either, pattern) for pattern in ignore for either in (key, name))
    }
    norms = norm_layers(network)
    other = _placed_as_published(norms, published)
    wanted = _wanted(network, other)
    norms |= other
    filled, used_keys = _norm_states(norms, published)
    filled |= {key: published[key] for key in wanted.keys() & published.keys() - used_keys}
    used_keys |= wanted.keys() & published.keys()
    _fill_absent_biases(filled, wanted)
    filled = {key: _reshaped(value, wanted[key]) for key, value in filled.items()}
    missing = wanted.keys() - filled.keys() - _optional(wanted, published, norms)
    _complain(published.keys() - used_keys, missing, filled, wanted)
    if size:
        blur_as_released(network, size)
    _place(network, other)
    network.load_state_dict(filled, strict=False)
    _follow_published(norms, published)
    return model


def place_as_published(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put IBN layers and plain batch norms where a checkpoint of an IBN-Net has them, by the network's own keys."""
    _place(model, _placed_as_published(norm_layers(model), dict(state)))


def _place(model: nn.Module, layers: dict[str, nn.Module]) -> None:
    for name, layer in layers.items():
        parent, _, leaf = name.rpartition(".")
        hand_on_hooks(model.get_submodule(name), layer)
        setattr(model.get_submodule(parent), leaf, layer)


def names_here(model: nn.Module, published: Iterable[str]) -> dict[str, str]:
    """The network's name of each published key; filters of anti-aliased networks have none."""
    published = {key: None for key in published}
    plain = plain_names(published, model)
    norms = norm_layers(model)
    stateful = {n for n, m in model.named_modules() if n in norms or next(m.children(), None) or m.state_dict()}
    return {key: _name_here(name, stateful) for key, name in plain.items()}


def _name_here(key: str, modules: set[str]) -> str:
    names = (pattern.sub(replacement, key) for pattern, replacement in RENAMES)
    return key if _owner(key) in modules else next((name for name in names if _owner(name) in modules), key)


def _follow_published(norms: dict[str, nn.Module], published: dict[str, Tensor]) -> None:
    """Set layers as those were that a checkpoint is of, where its keys do not say how."""
    for name, layer in norms.items():
        if isinstance(layer, Norm):
            layer.follow_published(_state_of(name, published))


def _state_of(name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What of a state is one layer's, by the layer's own key names."""
    prefix = f"{name}." if name else ""
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}


def _norm_states(norms: dict[str, nn.Module], published: dict[str, Tensor]) -> tuple[dict[str, Tensor], set[str]]:
    """What each norm layer takes from a checkpoint whose layer in that place may be of another kind; and the keys used.

    IBN's halves are not among them: they fit an IBN layer of the same split, key by key, or nothing.
    """
    filled: dict[str, Tensor] = {}
    used_keys: set[str] = set()
    for name, layer in norms.items():
        prefix, state, own_name = f"{name}." if name else "", _state_of(name, published), published_names(layer)
        own = state_for(layer, record(state, layer))
        filled |= {prefix + key: value for key, value in own.items()}
        known = CHANNELWISE | {"num_batches_tracked"} | own.keys()  # gates are used only where the layer has them
        used_keys |= {prefix + key for key in state if own_name.get(key, key) in known}
    return filled, used_keys


def _owner(key: str) -> str:
    """The module that a key belongs to; the halves of an IBN layer belong to the layer."""
    return key.rpartition(".")[0].removesuffix(".IN").removesuffix(".BN")


def _placed_as_published(norms: dict[str, nn.Module], published: dict[str, Tensor]) -> dict[str, nn.Module]:
    """Batch norms in place of IBN layers, and the other way round, where an IBN-Net checkpoint has them so."""
    split = next((layer for layer in norms.values() if isinstance(layer, IBN2d)), None)
    if split is None or not any(key.endswith(".IN.weight") for key in published):
        return {}

    def like_the_others(num_features: int, dims: int = 2) -> IBN2d:
        return IBN2d(num_features, split.ratio, instance_first=split.instance_first)

    other = {}
    for name, layer in norms.items():
        halves = {f"{name}.IN.weight", f"{name}.BN.weight"} <= published.keys()
        if isinstance(layer, IBN2d) and f"{name}.weight" in published:
            other[name] = successor(layer, NORMS["bn"])
        elif not isinstance(layer, IBN2d) and halves:
            other[name] = successor(layer, like_the_others)
    return other


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


def _reshaped(value: Tensor, wanted: Tensor) -> Tensor:
    """Reshaped where shapes agree up to axes of size 1, or one is a linear layer's and the other a convolution's."""
    alike = [n for n in value.shape if n > 1] == [n for n in wanted.shape if n > 1]
    linear = {value.dim(), wanted.dim()} == {2, 4} and value.shape[0] == wanted.shape[0]
    return value.reshape(wanted.shape) if alike or (linear and value.numel() == wanted.numel()) else value


def _optional(wanted: Iterable[str], published: Iterable[str], norms: dict[str, nn.Module]) -> set[str]:
    """Keys that may keep their present values, because this kind of checkpoint has none of them."""
    published = list(published)
    gates = {key for layer in norms.values() for key in gate_keys(layer)}
    named_otherwise = {key for layer in norms.values() for key in published_names(layer)}
    has_gates = any(key.rpartition(".")[2] in gates | named_otherwise for key in published)
    has_ibn = any(key.endswith(".IN.weight") for key in published)
    return {
        key
        for key in wanted
        if key.endswith("num_batches_tracked")
        or (not has_gates and key.rpartition(".")[2] in gates)
        or (not has_ibn and re.search(r"\.IN\.(weight|bias)$", key))
    }


def _complain(left_over: set[str], missing: set[str], filled: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    shapes = [
        f"{key} is {tuple(value.shape)} and should be {tuple(wanted[key].shape)}"
        for key, value in sorted(filled.items())
        if value.shape != wanted[key].shape
    ] + [
        f"{key} is {value.dtype}".replace("torch.", "") + " and should be floating"
        for key, value in sorted(filled.items())
        if wanted[key].is_floating_point() and not value.is_floating_point()
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
