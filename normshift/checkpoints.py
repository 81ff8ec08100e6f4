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
    # DenseNets of torchvision before 2018, and those of IBN-Net
    (re.compile(r"\b(norm|relu|conv)\.(\d)\b"), r"\1\2"),
    (re.compile(r"\bse\.fc\.0\b"), r"se.fc1"),  # IBN-Net's squeeze-and-excitation, a Sequential, in timm's names
    (re.compile(r"\bse\.fc\.2\b"), r"se.fc2"),
    (re.compile(r"^classifier\.0\b"), "classifier.1"),  # the anti-aliased MobileNetV2 has no dropout there
    (re.compile(r"^classifier\.0\b"), "pre_logits.fc1"),  # timm's VGG, whose linear layers are convolutions
    (re.compile(r"^classifier\.3\b"), "pre_logits.fc2"),
    (re.compile(r"^classifier\.6\b"), "head.fc"),
)
"""Published key names -> names in torchvision or timm; applied where the network has a module of the second name."""


def load_official(model: nn.Module, state_dict: Mapping, *, ignore: Iterable[str] = ()) -> nn.Module:
    """Load a published checkpoint into a network that has been converted to the checkpoint's norm.

    These key names and shapes are understood:

    - IBN-Net (ResNet, SE, ResNeXt, DenseNet): `bn1.IN.weight`, `bn1.BN.weight`, `layer1.2.IN.weight`;
    - Switchable Normalization: `weight` of shape (1, C, 1, 1), `mean_weight`, running averages of shape (1, C, 1);
    - Batch-Instance Normalization: `gate`;
    - anti-aliased CNNs (AlexNet, VGG, ResNet, ResNeXt, DenseNet, MobileNetV2): `features.2.filt`.

    The network may be nested under "state_dict", "model" and similar keys. Prefixes that DDP, torch.compile,
    `AveragedModel` and Lightning modules put before the keys are removed.

    Settings that the keys do not contain are set as in the published code. Switchable Normalization's layers divide by
    n - 1 (`correction=1`), with momentum 0.1 for images and 0.003 for vectors and volumes. A released anti-aliased
    checkpoint anti-aliases a network that is not yet, and gives a ResNet's stem the 2x2 pool. In IBN-Net's DenseNets
    every third dense layer has IN: IBN layers and batch norms of the network are exchanged so that they stand where
    the checkpoint has them.

    Batch-norm checkpoints of torchvision and timm can be loaded into converted networks. SN, BIN and IBN layers get
    `weight`, `bias` and the running statistics; gates, and the norms that IBN-b adds, keep their values. IN, LN and GN
    have no running statistics.

    Args:
        model: changed in place, and only if everything fits.
        state_dict: what `torch.load` returned.
        ignore: shell patterns of checkpoint keys that shall not be loaded, such as "fc.*" for an encoder.

    Returns:
        `model`.

    Raises:
        ValueError: keys are left over in the checkpoint, missing from it, or of another shape (the message names
            them); or the checkpoint holds several networks, or a network with other blur filters.
    """
    network = inner(model)
    every = bare(unwrapped(state_dict), network.state_dict())
    size = filter_size(every)
    if size:
        refuse_other_blurs(network, size)
    published = _published(network, every, tuple(ignore))
    norms = norm_layers(network)
    other = _placed_as_published(norms, published)
    wanted = _wanted(network, other)
    norms |= other
    filled, used_keys = _filled(norms, published, wanted)
    missing = wanted.keys() - filled.keys() - _optional(wanted, published, norms)
    _complain(published.keys() - used_keys, missing, filled, wanted)
    if size:
        blur_as_released(network, size)
    _place(network, other)
    network.load_state_dict(filled, strict=False)
    _set_as_published(norms, published)
    return model


def _published(network: nn.Module, every: Mapping, ignore: tuple[str, ...]) -> dict:
    """A checkpoint's values by the network's own keys, without those that shall not be loaded."""
    return {
        name: every[key]
        for key, name in names_here(network, every).items()
        if not any(fnmatchcase(either, pattern) for pattern in ignore for either in (key, name))
    }


def place_as_published(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put IBN layers and plain batch norms where an IBN-Net's state dict, with the network's key names, has them."""
    _place(model, _placed_as_published(norm_layers(model), dict(state)))


def _place(model: nn.Module, layers: dict[str, nn.Module]) -> None:
    for name, layer in layers.items():
        parent, _, leaf = name.rpartition(".")
        hand_on_hooks(model.get_submodule(name), layer)
        setattr(model.get_submodule(parent), leaf, layer)


def names_here(model: nn.Module, published: Iterable[str]) -> dict[str, str]:
    """Published key -> key of the network; the blur filters of anti-aliased networks are left out."""
    published = {key: None for key in published}
    plain = plain_names(published, model)
    norms = norm_layers(model)
    stateful = {n for n, m in model.named_modules() if n in norms or next(m.children(), None) or m.state_dict()}
    return {key: _name_here(name, stateful) for key, name in plain.items()}


def _name_here(key: str, modules: set[str]) -> str:
    names = (pattern.sub(replacement, key) for pattern, replacement in RENAMES)
    return key if _owner(key) in modules else next((name for name in names if _owner(name) in modules), key)


def _set_as_published(norms: dict[str, nn.Module], published: dict[str, Tensor]) -> None:
    """Give the norm layers the settings of the published code that checkpoints do not contain."""
    for name, layer in norms.items():
        if isinstance(layer, Norm):
            layer.follow_published(_state_of(name, published))


def _state_of(name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """One layer's part of a state dict, with the layer's name removed from the keys."""
    prefix = f"{name}." if name else ""
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}


def _filled(
    norms: dict[str, nn.Module], published: dict[str, Tensor], wanted: dict[str, Tensor]
) -> tuple[dict[str, Tensor], set[str]]:
    """The network's state from a checkpoint, in the wanted shapes where they are alike; and the keys that were used."""
    filled, used_keys = _norm_states(norms, published)
    filled |= {key: published[key] for key in wanted.keys() & published.keys() - used_keys}
    used_keys |= wanted.keys() & published.keys()
    _fill_absent_biases(filled, wanted)
    filled = {key: _reshaped(value, wanted[key]) for key, value in filled.items()}
    return filled, used_keys


def _norm_states(norms: dict[str, nn.Module], published: dict[str, Tensor]) -> tuple[dict[str, Tensor], set[str]]:
    """The state of each norm layer, from a checkpoint that may have another norm there; and the keys that were used.

    The keys of IBN's two halves are not among them: they fit only an IBN layer with the same split, key by key.
    """
    filled: dict[str, Tensor] = {}
    used_keys: set[str] = set()
    for name, layer in norms.items():
        prefix, state, own_name = f"{name}." if name else "", _state_of(name, published), published_names(layer)
        own = state_for(layer, record(state, layer))
        filled |= {prefix + key: value for key, value in own.items()}
        known = CHANNELWISE | {"num_batches_tracked"} | own.keys()  # gates are used only if the layer has them
        used_keys |= {prefix + key for key in state if own_name.get(key, key) in known}
    return filled, used_keys


def _owner(key: str) -> str:
    """The name of the module that a key belongs to; for the halves of an IBN layer, that layer's."""
    return key.rpartition(".")[0].removesuffix(".IN").removesuffix(".BN")


def _placed_as_published(norms: dict[str, nn.Module], published: dict[str, Tensor]) -> dict[str, nn.Module]:
    """Layers to exchange, by name: batch norms for IBN layers and the reverse, as an IBN-Net checkpoint has them."""
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
    """The network's state dict after some layers are replaced."""
    inside = tuple(f"{name}." for name in replaced)
    kept = {key: value for key, value in model.state_dict().items() if not key.startswith(inside)}
    return kept | {
        f"{name}.{key}": value for name, layer in replaced.items() for key, value in layer.state_dict().items()
    }


def _fill_absent_biases(filled: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """timm's squeeze-and-excitation has biases, IBN-Net's has none: fill in zeros."""
    for key in wanted.keys() - filled.keys():
        if re.search(r"\.se\.fc[12]\.bias$", key) and key.replace("bias", "weight") in filled:
            filled[key] = torch.zeros_like(wanted[key])


def _reshaped(value: Tensor, wanted: Tensor) -> Tensor:
    """The value in the wanted shape, if the shapes differ only by axes of size 1, or linear layer and convolution."""
    alike = [n for n in value.shape if n > 1] == [n for n in wanted.shape if n > 1]
    linear = {value.dim(), wanted.dim()} == {2, 4} and value.shape[0] == wanted.shape[0]
    return value.reshape(wanted.shape) if alike or (linear and value.numel() == wanted.numel()) else value


def _optional(wanted: Iterable[str], published: Iterable[str], norms: dict[str, nn.Module]) -> set[str]:
    """Keys that this kind of checkpoint does not have; the network keeps its values."""
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
