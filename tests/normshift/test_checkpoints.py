"""Published checkpoints, with the papers' key names and shapes, are loaded into converted networks."""

import re

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from normshift import NORMS, BatchInstanceNorm2d, IBN2d, SwitchNorm1d, SwitchNorm2d, convert, load_official, norm_layers
from normshift.layers import InstanceNorm2d

BATCH = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def resnet(**options):
    """Stages of one and two blocks, so that first and last blocks differ."""
    return torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, [1, 2, 1, 1], num_classes=3, **options)


def se_resnet():
    block = timm.models.resnet.Bottleneck
    return timm.models.ResNet(block, [1, 1, 1, 1], num_classes=3, block_args={"attn_layer": "se"})


def densenet():
    return torchvision.models.DenseNet(growth_rate=12, block_config=(4, 2, 3, 2), num_init_features=24, num_classes=3)


def timm_densenet():
    return timm.models.DenseNet(growth_rate=12, block_config=(4, 2, 3, 2), num_classes=3)


def values(*shape):
    return torch.rand(shape) + 0.5


def published(model, norm_state, names=lambda name: name):
    """A checkpoint as a repository saves one: `norm_state(name, channels)` for each batch norm, all else as it is.

    `names` gives the repository's name of a module.
    """
    norms = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.BatchNorm2d)}
    state = {}
    for name, layer in norms.items():
        for key, value in norm_state(name, layer.num_features).items():
            state[f"{names(name)}.{key}"] = value
    for key, value in model.state_dict().items():
        owner, _, leaf = key.rpartition(".")
        if owner not in norms:
            state[f"{names(owner)}.{leaf}"] = values(*value.shape)
    return state


def batch_norm(name, channels):
    return {key: torch.tensor(7) if key == "num_batches_tracked" else values(channels) for key in BATCH}


def instance_norm(name, channels):
    return {"weight": values(channels), "bias": values(channels)}


def ibn(half, rest):
    first = {f"IN.{key}": value for key, value in instance_norm("", half).items()}
    return first | {f"BN.{key}": value for key, value in batch_norm("", rest).items()}


def ibn_a(name, channels):
    """IBN-Net's ResNets: `layer1.0.bn1.IN.weight` in the first norm of stages 1 to 3."""
    half = channels // 2
    return ibn(half, channels - half) if re.fullmatch(r"layer[123]\.\d+\.bn1", name) else batch_norm(name, channels)


def ibn_b(name, channels):
    return instance_norm(name, channels) if name == "bn1" else batch_norm(name, channels)


def switch_norm(shares):
    def state(name, channels):
        found = {key: values(1, channels, 1, 1) for key in ("weight", "bias")} | {
            key: values(shares) for key in ("mean_weight", "var_weight")
        }
        return found | ({key: values(1, channels, 1) for key in ("running_mean", "running_var")} if shares == 3 else {})

    return state


def batch_instance_norm(name, channels):
    return batch_norm(name, channels) | {"gate": torch.rand(channels)}


def with_sn_names(name):
    return re.sub(r"\bbn(\d)", r"sn\1", name)


def with_dots(name):
    """torchvision's DenseNets before 2018."""
    return re.sub(r"\b(norm|conv)([12])\b", r"\1.\2", name)


def holds(model, state, rename=lambda key: key):
    """The model has exactly the values of the checkpoint."""
    own = model.state_dict()
    expected = {rename(key): value for key, value in state.items()}
    counters = {key for key in own if key.endswith("num_batches_tracked")}
    assert set(own) - counters == set(expected) - counters
    for key, value in expected.items():
        if key in own:
            assert torch.equal(own[key].flatten(), value.flatten()), key


def untouched(model):
    return {key: value.clone() for key, value in model.state_dict().items()}, dict(model.named_modules())


def is_untouched(model, before):
    state, modules = before
    assert dict(model.named_modules()) == modules
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


# IBN-Net


def test_ibn_net_a():
    state = published(resnet(), ibn_a)
    assert state["layer1.0.bn1.IN.weight"].shape == state["layer1.0.bn1.BN.weight"].shape == (32,)
    model = convert(resnet(), "ibn-a")
    assert load_official(model, state) is model
    holds(model, state)


def test_ibn_net_a_of_resnext():
    state = published(resnet(groups=4, width_per_group=8), ibn_a)
    holds(load_official(convert(resnet(groups=4, width_per_group=8), "ibn-a"), state), state)


def test_ibn_net_b():
    state = published(resnet(), ibn_b)
    for name, channels in (("layer1.0.IN", 256), ("layer2.1.IN", 512)):
        state |= {f"{name}.{key}": value for key, value in instance_norm(name, channels).items()}
    model = load_official(convert(resnet(), "ibn-b"), state)
    holds(model, state)
    assert isinstance(model.bn1, InstanceNorm2d) and isinstance(model.layer2[1].IN, InstanceNorm2d)


def test_ibn_net_a_with_squeeze_and_excitation():
    """Published as linear layers `se.fc.0` and `se.fc.2` without biases; timm's are 1x1 convolutions with them."""
    state = published(se_resnet(), ibn_a)
    for key in [k for k in state if ".se." in k]:
        value = state.pop(key)
        if key.endswith("weight"):
            state[key.replace("fc1", "fc.0").replace("fc2", "fc.2")] = value.flatten(1)
    assert state["layer1.0.se.fc.0.weight"].shape == (16, 256)
    model = load_official(convert(se_resnet(), "ibn-a"), state)
    weights = {k: v for k, v in model.state_dict().items() if not re.search(r"se\.fc\d\.bias", k)}
    assert len(weights) < len(model.state_dict())
    for key, value in weights.items():
        source = key.replace("se.fc1", "se.fc.0").replace("se.fc2", "se.fc.2")
        assert torch.equal(value.flatten(), state[source].flatten())
    se, x = model.layer1[0].se, torch.randn(2, 256, 3, 3)
    hidden = F.linear(x.mean((2, 3)), state["layer1.0.se.fc.0.weight"]).relu()
    share = F.linear(hidden, state["layer1.0.se.fc.2.weight"]).sigmoid()
    torch.testing.assert_close(se(x), x * share[:, :, None, None])


def ibn_dense(every):
    """norm1 of the first three blocks, of every dense layer or every third one; BN has the first int(.6 C) channels."""

    def state(name, channels):
        found = re.fullmatch(r"features\.denseblock[123]\.denselayer(\d+)\.norm1", name)
        if not found or (int(found[1]) - 1) % every:
            return batch_norm(name, channels)
        first = int(channels * 0.6)
        return ibn(channels - first, first)

    return state


@pytest.mark.parametrize("names", [lambda name: name, with_dots], ids=["norm1", "norm.1"])
@pytest.mark.parametrize("every", [1, 3])
def test_ibn_net_a_of_densenet(every, names):
    state = published(densenet(), ibn_dense(every), names)
    model = load_official(convert(densenet(), "ibn-a"), state)
    holds(model, state, lambda key: re.sub(r"\b(norm|conv)\.([12])\b", r"\1\2", key))
    split = [name for name, layer in norm_layers(model).items() if isinstance(layer, IBN2d)]
    expected = [
        f"features.denseblock{b}.denselayer{i}.norm1"
        for b, n in ((1, 4), (2, 2), (3, 3))
        for i in range(1, n + 1, every)
    ]
    assert split == expected
    model.eval()(torch.randn(1, 3, 32, 32))


def test_ibn_net_a_of_timms_densenet_keeps_the_fused_activations():
    state = published(timm_densenet(), ibn_dense(3))
    model = load_official(convert(timm_densenet(), "ibn-a"), state).eval()
    holds(model, state)
    layer = model.features.denseblock1.denselayer2.norm1
    x = torch.randn(2, layer.num_features, 4, 4)
    assert not isinstance(layer, IBN2d)
    batch = F.batch_norm(x, layer.running_mean, layer.running_var, layer.weight, layer.bias, eps=layer.eps)
    torch.testing.assert_close(layer(x), batch.relu())
    split = model.features.denseblock1.denselayer1.norm1
    assert isinstance(split, IBN2d)
    assert (split(torch.randn(2, split.num_features, 4, 4)) >= 0).all()


def test_ibn_net_a_of_densenet_as_its_repository_splits_the_channels():
    """Its ResNets put IN first, its DenseNets BN: `BN(x[:, :int(0.6 C)])`, then `IN` of what is left."""

    state = published(densenet(), ibn_dense(3))
    model = load_official(convert(densenet(), "ibn-a"), state).eval()
    name = "features.denseblock1.denselayer4.norm1"
    own = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
    x = torch.randn(2, 60, 5, 5)
    first = F.batch_norm(x[:, :36], own["BN.running_mean"], own["BN.running_var"], own["BN.weight"], own["BN.bias"])
    rest = F.instance_norm(x[:, 36:], weight=own["IN.weight"], bias=own["IN.bias"])
    torch.testing.assert_close(model.get_submodule(name)(x), torch.cat([first, rest], 1), rtol=1e-4, atol=1e-4)


# Switchable Normalization


@pytest.mark.parametrize("names", [with_sn_names, lambda name: name], ids=["sn1", "bn1"])
@pytest.mark.parametrize(("norm", "shares"), [("sn", 3), ("sn-in-ln", 2)])
def test_switchable_normalization(norm, shares, names):
    state = published(resnet(), switch_norm(shares), names)
    model = load_official(convert(resnet(), norm), state)
    holds(model, state, lambda key: re.sub(r"\bsn(\d)", r"bn\1", key))
    assert model.layer1[0].bn3.weight.shape == (256,)
    assert isinstance(model.layer1[0].downsample[1], SwitchNorm2d)


def test_switchable_normalization_of_vectors():
    """Its 1d layers mix LN and BN."""
    model = nn.Sequential(nn.Linear(3, 4), SwitchNorm1d(4, statistics=("ln", "bn")))
    state = {f"1.{key}": values(1, 4) for key in ("weight", "bias", "running_mean", "running_var")}
    state |= {"1.mean_weight": values(2), "1.var_weight": values(2), "0.weight": values(4, 3), "0.bias": values(4)}
    holds(load_official(model, state), state)


# Batch-Instance Normalization


def test_batch_instance_normalization():
    state = published(resnet(), batch_instance_norm)
    assert state["layer1.0.bn1.gate"].shape == (64,)
    model = load_official(convert(resnet(), "bin"), state)
    holds(
        model,
        {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")},
        lambda key: re.sub("gate$", "rho", key),
    )
    assert isinstance(model.bn1, BatchInstanceNorm2d)


# Batch norm checkpoints of torchvision and timm


@pytest.mark.parametrize("make", [resnet, se_resnet, densenet, timm_densenet])
@pytest.mark.parametrize("norm", NORMS)
def test_a_batch_norm_checkpoint_goes_into_every_norm(norm, make):
    if norm == "ibn-b" and make in (densenet, timm_densenet):
        pytest.skip("no placement of its own")
    state = published(make(), batch_norm)
    model = load_official(convert(make(), norm), state)
    for key, value in state.items():
        owner, _, leaf = key.rpartition(".")
        layer = model.get_submodule(owner)
        if isinstance(layer, IBN2d):
            if leaf == "num_batches_tracked":
                continue
            for part, channels in zip(layer.parts(), value.tensor_split([layer.first]), strict=True):
                if part == "BN" or leaf in ("weight", "bias"):
                    assert torch.equal(getattr(getattr(layer, part), leaf), channels)
        elif leaf in layer.state_dict():
            assert torch.equal(getattr(layer, leaf), value)
        else:
            assert leaf in ("running_mean", "running_var", "num_batches_tracked")
    for key, value in model.state_dict().items():  # gates, and the norms that IBN-b adds, keep their values
        if key.endswith(("mean_weight", "var_weight", "rho")) or (".IN.weight" in key and norm == "ibn-b"):
            assert (value == 1).all()


@pytest.mark.parametrize("make", [resnet, timm_densenet])
@pytest.mark.parametrize("norm", ["bn", "syncbn", "bin"])
def test_with_a_batch_norm_checkpoint_the_network_is_the_batch_norm_network(norm, make):
    reference = make().eval()
    for layer in norm_layers(reference).values():
        nn.init.uniform_(layer.weight, 0.5, 1.5), layer.running_mean.normal_(), layer.running_var.uniform_(0.5, 1.5)
    model = load_official(convert(make(), norm), reference.state_dict()).eval()
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model(x), reference(x), rtol=1e-3, atol=1e-4)


def test_old_checkpoints_without_counters():
    state = {k: v for k, v in published(resnet(), batch_norm).items() if not k.endswith("num_batches_tracked")}
    holds(load_official(resnet(), state), state)


# Wrappings


WRAPPERS = {
    "plain": lambda state: state,
    "module": lambda state: {f"module.{key}": value for key, value in state.items()},
    "state_dict": lambda state: {"state_dict": state, "epoch": 90, "best_prec1": torch.tensor(77.0)},
    "model": lambda state: {"model": state, "optimizer": {}},
    "both": lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}, "arch": "resnet50"},
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_wrappings_are_taken_off(wrap):
    state = published(resnet(), ibn_a)
    holds(load_official(convert(resnet(), "ibn-a"), wrap(state)), state)


def test_ignored_keys_stay_out():
    state = published(resnet(), ibn_a)
    state["fc.weight"], state["fc.bias"] = values(1000, 2048), values(1000)
    encoder = convert(resnet(), "ibn-a")
    encoder.fc = nn.Identity()
    load_official(encoder, state, ignore=["fc.*"])
    holds(encoder, {k: v for k, v in state.items() if not k.startswith("fc.")})


def test_types_of_the_network_are_kept():
    state = published(resnet(), switch_norm(3), with_sn_names)
    model = load_official(convert(resnet(), "sn").double(), state)
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    torch.testing.assert_close(model.bn1.weight.float(), state["sn1.weight"].flatten())


# Errors, which leave the model as it was


def without(state, *keys):
    return {key: value for key, value in state.items() if key not in keys}


def ibn_state():
    return published(resnet(), ibn_a)


LAYER1_IN = {"layer1.0.IN.weight": torch.ones(256), "layer1.0.IN.bias": torch.ones(256)}
OTHER_SPLIT = {f"layer1.0.bn1.{key}": value for key, value in ibn(16, 48).items()}
MISFITS = {
    "left-over": (
        "ibn-a",
        lambda: ibn_state() | {"layer9.weight": values(3)},
        r"left over in the checkpoint: layer9\.weight",
    ),
    "missing": (
        "ibn-a",
        lambda: without(ibn_state(), "conv1.weight"),
        r"missing from the checkpoint: conv1\.weight",
    ),
    "missing-in-a-norm": (
        "ibn-a",
        lambda: without(ibn_state(), "bn1.bias"),
        r"missing from the checkpoint: bn1\.bias",
    ),
    "missing-half": ("ibn-a", lambda: without(ibn_state(), "layer1.0.bn1.IN.bias"), r"layer1\.0\.bn1"),
    "misshapen": (
        "ibn-a",
        lambda: ibn_state() | {"fc.weight": values(1000, 2048)},
        r"fc\.weight is \(1000, 2048\) and should be \(3, 2048\)",
    ),
    "misshapen-norm": (
        "bn",
        lambda: published(resnet(), batch_norm) | {"bn1.weight": values(32)},
        r"bn1\.weight is \(32,\) and should be \(64,\)",
    ),
    "gates-for-other-statistics": (
        "sn-in-ln",
        lambda: published(resnet(), switch_norm(3)),
        r"bn1\.mean_weight is \(3,\) and should be \(2,\)",
    ),
    "sn-into-bn": (
        "bn",
        lambda: published(resnet(), switch_norm(3)),
        r"left over in the checkpoint: bn1\.mean_weight",
    ),
    "bin-into-sn": (
        "sn",
        lambda: published(resnet(), batch_instance_norm),
        r"left over in the checkpoint: bn1\.gate",
    ),
    "ibn-a-into-ibn-b": ("ibn-b", ibn_state, r"missing from the checkpoint: .*layer1\.0\.IN\.bias"),
    "ibn-a-into-bn": ("bn", ibn_state, r"layer1\.0\.bn1"),
    "ibn-a-into-sn": ("sn", ibn_state, r"layer1\.0\.bn1"),
    "ibn-a-split-elsewhere": ("ibn-a", lambda: ibn_state() | OTHER_SPLIT, r"layer1\.0\.bn1"),
    "ibn-b-into-bn": ("bn", lambda: published(resnet(), ibn_b) | LAYER1_IN, r"layer1\.0\.IN\.bias"),
    "wrong-width": ("sn", lambda: published(resnet(width_per_group=32), switch_norm(3)), "of another shape"),
    "empty": ("bn", dict, "missing from the checkpoint"),
}


@pytest.mark.parametrize(
    ("norm", "state", "sentence"),
    [pytest.param(*misfit, id=name) for name, misfit in MISFITS.items()],
)
def test_a_checkpoint_that_does_not_fit_is_refused(norm, state, sentence):
    model = convert(resnet(), norm)
    before = untouched(model)
    with pytest.raises(ValueError, match=sentence) as error:
        load_official(model, state())
    assert "does not fit the network" in str(error.value)
    is_untouched(model, before)


def test_a_misfit_of_densenet_leaves_the_split_layers_in_place():
    model = convert(densenet(), "ibn-a")
    before = untouched(model)
    with pytest.raises(ValueError, match=r"missing from the checkpoint: classifier\.bias"):
        load_official(model, without(published(densenet(), ibn_dense(3)), "classifier.bias"))
    is_untouched(model, before)


def test_unknown_keys_inside_a_norm_are_left_over():
    with pytest.raises(ValueError, match=r"left over in the checkpoint: bn1\.moving_mean"):
        load_official(resnet(), published(resnet(), batch_norm) | {"bn1.moving_mean": values(64)})


def test_long_lists_are_cut():
    with pytest.raises(ValueError, match=r"and \d+ more"):
        load_official(resnet(), {})
