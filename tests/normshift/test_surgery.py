"""Exchanging the norms of other libraries' networks, and what must not change."""

import copy
import functools

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from normshift import (
    NORMS,
    BatchInstanceNorm2d,
    IBN2d,
    SwitchNorm1d,
    SwitchNorm2d,
    SwitchNorm3d,
    convert,
    norm_layers,
    synchronize,
)
from normshift.layers import InstanceNorm1d, InstanceNorm2d
from tests.normshift.written_out import randomize


class Toy(nn.Module):
    """A user's own network: names of its own, a norm used twice, a norm of vectors."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.shared = nn.BatchNorm2d(8, eps=1e-3, momentum=0.02)
        self.again = nn.ModuleDict({"conv": nn.Conv2d(8, 8, 1), "norm": self.shared})
        self.normalize = nn.BatchNorm2d(8)
        self.head = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))

    def forward(self, x):
        x = self.shared(self.first(x)).relu()
        x = self.again["norm"](self.again["conv"](x)).relu()
        return self.head(self.normalize(x).mean((2, 3)))


NETWORKS = {
    "resnet18": lambda: torchvision.models.resnet18(num_classes=5, zero_init_residual=True),
    "resnet50": lambda: torchvision.models.resnet50(num_classes=5),
    "resnext50": lambda: torchvision.models.resnext50_32x4d(num_classes=5),
    "densenet121": lambda: torchvision.models.densenet121(num_classes=5),
    "vgg11_bn": lambda: nn.Sequential(torchvision.models.vgg11_bn(init_weights=False).features, nn.Flatten(2)),
    "mobilenet_v2": lambda: torchvision.models.mobilenet_v2(num_classes=5),
    "timm-resnet18": lambda: timm.create_model("resnet18", num_classes=5),
    "timm-resnet50d": lambda: timm.create_model("resnet50d", num_classes=5),
    "timm-seresnet50": lambda: timm.create_model("seresnet50", num_classes=5),
    "timm-densenet121": lambda: timm.create_model("densenet121", num_classes=5),
    "timm-efficientnet_b0": lambda: timm.create_model("efficientnet_b0", num_classes=5),
    "timm-resnetrs50": lambda: timm.create_model("resnetrs50", num_classes=5),
    "deeplab-tu-resnet18": lambda: smp.DeepLabV3Plus("tu-resnet18", encoder_weights=None, classes=5),
    "deeplab-resnet18": lambda: smp.DeepLabV3Plus("resnet18", encoder_weights=None, classes=5),
    "unet": lambda: smp.Unet("resnet18", encoder_weights=None, classes=5),
    "toy": Toy,
}
RESIDUAL = [
    "resnet18",
    "resnet50",
    "resnext50",
    "timm-resnet18",
    "timm-resnet50d",
    "timm-seresnet50",
    "timm-resnetrs50",
    "deeplab-tu-resnet18",
    "deeplab-resnet18",
    "unet",
]
DENSE = ["densenet121", "timm-densenet121"]
EVERYWHERE = [norm for norm, spec in NORMS.items() if spec.placement == "everywhere"]
KEEP_RUNNING = ["bn", "syncbn", "sn", "bin"]  # hold the running statistics of every channel

every_network = pytest.mark.parametrize("name", NETWORKS)


@functools.cache
def _built(name):
    return randomize_norms(NETWORKS[name]())


def build(name):
    """A network in evaluation mode whose norms have weights and statistics that tell them apart."""
    return copy.deepcopy(_built(name)).eval()


def randomize_norms(model):
    with torch.no_grad():
        for layer in norm_layers(model).values():
            zero_gamma = bool((layer.weight == 0).all())
            layer.weight.uniform_(0.5, 1.5) if not zero_gamma else None
            layer.bias.normal_(std=0.1)
            layer.running_mean.normal_(std=0.1)
            layer.running_var.uniform_(0.5, 1.5)
    return model


def images(n=2):
    return torch.randn(n, 3, 64, 64)


@torch.no_grad()
def outputs(model, x):
    return model(x)


def same_outputs(actual, expected, tolerance=1e-4):
    error = (actual - expected).abs().max()
    assert error <= tolerance * expected.abs().max(), f"off by {error / expected.abs().max():.3g}"


def joined(layer, key):
    """A parameter over all channels, of split layers too."""
    if isinstance(layer, IBN2d):
        return torch.cat([getattr(layer.IN, key), getattr(layer.BN, key)])
    return getattr(layer, key)


# What must not change


@every_network
@pytest.mark.parametrize("norm", ["syncbn", "bin"])
def test_freshly_converted_the_network_is_the_same_function(name, norm):
    """BIN starts at rho = 1, batch norm; fused activations, eps and statistics all have to be right for this."""
    model, x = build(name), images()
    expected = outputs(model, x)
    same_outputs(outputs(convert(model, norm), x), expected)


@pytest.mark.parametrize(
    ("name", "via"),
    [(name, via) for name in NETWORKS for via in ("sn", "syncbn")],
)
def test_there_and_back_is_the_same_function(name, via):
    model, x = build(name), images()
    expected = outputs(model, x)
    same_outputs(outputs(convert(convert(model, via), "bn"), x), expected)


@every_network
def test_bn_to_bn_keeps_the_very_layers(name):
    model = build(name)
    before = norm_layers(model)
    assert all(layer is before[name] for name, layer in norm_layers(convert(model, "bn")).items())


@pytest.mark.parametrize("name", ["toy", "timm-efficientnet_b0", "deeplab-tu-resnet18"])
@pytest.mark.parametrize("norm", EVERYWHERE)
def test_everywhere_means_every_norm_and_carries_all_it_can(name, norm):
    model = build(name)
    before = {n: copy.deepcopy(layer) for n, layer in norm_layers(model).items()}
    after = norm_layers(convert(model, norm))
    assert list(after) == list(before)
    for layer_name, layer in after.items():
        old = before[layer_name]
        made = NORMS[norm](old.num_features, dims=1 if isinstance(old, nn.BatchNorm1d) else 2)
        assert isinstance(layer, type(made))
        assert torch.equal(layer.weight, old.weight) and torch.equal(layer.bias, old.bias)
        assert layer.eps == old.eps
        if norm in KEEP_RUNNING:
            assert torch.equal(layer.running_mean, old.running_mean)
            assert torch.equal(layer.running_var, old.running_var)
            assert layer.momentum == old.momentum


TRAINED = [("resnet18", norm) for norm in NORMS] + [
    (n, norm) for n in ("deeplab-tu-resnet18", "toy") for norm in EVERYWHERE
]
TRAINED += [
    ("timm-densenet121", "ibn-a"),
    ("timm-densenet121", "sn"),
    ("timm-efficientnet_b0", "bin"),
    ("deeplab-tu-resnet18", "ibn-b"),
]


@pytest.mark.parametrize(("name", "norm"), TRAINED)
def test_converted_networks_train(name, norm):
    model = convert(build(name).train(), norm)
    loss = model(images()).square().mean()
    loss.backward()
    assert loss.isfinite()
    unused = [n for n, p in model.named_parameters() if p.grad is None]
    assert not unused
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("norm", NORMS)
def test_mode_type_and_frozen_parameters_are_kept(norm):
    model = build("resnet18").double().train()
    model.layer2.eval()
    model.layer1.requires_grad_(False)
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    model = convert(model, norm)
    assert {t.dtype for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()} == {torch.float64}
    assert model.bn1.training and model.layer1[0].bn1.training and not any(m.training for m in model.layer2.modules())
    own = ("mean_weight", "var_weight", "rho")  # new gates, which nobody froze
    still = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen <= {n.replace(".IN.", ".").replace(".BN.", ".") for n in still}
    for n, p in model.named_parameters():
        if n.startswith("layer1.") and not n.endswith(own) and ".IN." not in n:
            assert not p.requires_grad, n
        elif not n.startswith("layer1."):
            assert p.requires_grad, n
    model(images().double())


@pytest.mark.parametrize("norm", NORMS)
def test_a_last_norm_that_starts_at_zero_stays_at_zero(norm):
    model = convert(torchvision.models.resnet18(zero_init_residual=True), norm)
    last = [m for n, m in norm_layers(model).items() if n.startswith("layer") and n.endswith("bn2")]
    assert len(last) == 8
    assert all((joined(m, "weight") == 0).all() for m in last)


@pytest.mark.parametrize("norm", ["in", "gn", "sn", "bin"])
def test_the_meta_device_is_kept(norm):
    with torch.device("meta"):
        model = torchvision.models.resnet18()
    assert {p.device.type for p in convert(model, norm).parameters()} == {"meta"}


def test_a_copy_leaves_the_original():
    model = build("resnet18")
    keys, x = list(model.state_dict()), images()
    expected = outputs(model, x)
    other = convert(model, "bin", inplace=False)
    assert list(model.state_dict()) == keys and isinstance(model.bn1, nn.BatchNorm2d)
    nn.init.zeros_(other.bn1.weight)
    assert torch.equal(outputs(model, x), expected)
    assert isinstance(other.bn1, BatchInstanceNorm2d)


def test_in_place_is_the_same_object():
    model = build("toy")
    assert convert(model, "sn") is model


def test_gates_over_other_statistics_start_anew():
    model = convert(nn.Sequential(nn.BatchNorm2d(4)), "sn-in-ln")
    nn.init.constant_(model[0].mean_weight, 3.0)
    assert convert(model, "sn")[0].mean_weight.tolist() == [1, 1, 1]
    pairs = nn.Sequential(SwitchNorm2d(4, statistics=("ln", "gn"), groups=2))
    nn.init.constant_(pairs[0].var_weight, 3.0)
    assert convert(pairs, "sn-in-ln")[0].var_weight.tolist() == [1, 1]


# Single layers and kinds of layers


def test_a_lone_norm_is_replaced():
    assert isinstance(convert(nn.BatchNorm2d(4), "sn"), SwitchNorm2d)


DIMENSIONS = {
    "1d": (nn.BatchNorm1d, SwitchNorm1d, (4, 32, 5)),
    "vectors": (nn.BatchNorm1d, SwitchNorm1d, (4, 32)),
    "2d": (nn.BatchNorm2d, SwitchNorm2d, (4, 32, 3, 5)),
    "3d": (nn.BatchNorm3d, SwitchNorm3d, (4, 32, 2, 3, 4)),
}


@pytest.mark.parametrize(("old", "new", "shape"), DIMENSIONS.values(), ids=DIMENSIONS)
def test_dimensions_are_kept(old, new, shape):
    model = convert(nn.Sequential(old(32)), "sn")
    assert type(model[0]) is new
    assert convert(model, "bn")(torch.randn(shape)).shape == shape
    assert type(model[0]) is old


@pytest.mark.parametrize(
    ("dimensions", "norm"),
    [(d, norm) for d in DIMENSIONS for norm in EVERYWHERE],
)
def test_dimensions_survive_the_way_back(dimensions, norm):
    old, _, shape = DIMENSIONS[dimensions]
    model = convert(convert(nn.Sequential(old(32)), norm), "bn")
    assert model(torch.randn(shape)).shape == shape


OTHERS = {
    "group": lambda: nn.GroupNorm(4, 8),
    "instance": lambda: nn.InstanceNorm2d(8, affine=True, eps=1e-3),
    "instance-bare": lambda: nn.InstanceNorm2d(8),
    "instance-tracking": lambda: nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
    "batch-bare": lambda: nn.BatchNorm2d(8, affine=False),
    "batch-untracked": lambda: nn.BatchNorm2d(8, track_running_stats=False),
    "batch-cumulative": lambda: nn.BatchNorm2d(8, momentum=None),
    "sync": lambda: nn.SyncBatchNorm(8),
    "frozen": lambda: torchvision.ops.FrozenBatchNorm2d(8),
    "timm-group": lambda: timm.layers.GroupNormAct(8, 4),
    "timm-frozen": lambda: timm.layers.FrozenBatchNormAct2d(8),
    "switch": lambda: SwitchNorm2d(8, statistics=("in", "ln")),
    "ibn": lambda: IBN2d(8),
}


@pytest.mark.parametrize("norm", EVERYWHERE)
@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_other_kinds_of_norm_are_converted_too(make, norm):
    old = make()
    weight = joined(old, "weight") if isinstance(old, IBN2d) else old.weight
    if isinstance(weight, nn.Parameter):
        nn.init.uniform_(weight)
    elif isinstance(old, IBN2d):
        randomize(old)
        weight = joined(old, "weight")
    expected = torch.ones(8) if weight is None else weight.clone()
    model = convert(nn.Sequential(old), norm)
    assert isinstance(model[0], type(NORMS[norm](8))) or model[0] is old
    if model[0].weight is not None:
        assert torch.equal(model[0].weight, expected)
    assert model[0].eps == old.eps
    assert model(torch.randn(3, 8, 4, 4)).isfinite().all()


@pytest.mark.parametrize("norm", EVERYWHERE)
def test_a_fused_activation_stays_behind_the_norm(norm):
    fused = timm.layers.BatchNormAct2d(8, act_layer=nn.SiLU)
    randomize(fused)
    plain = nn.Sequential(convert(copy.deepcopy(nn.BatchNorm2d(8)), norm))
    converted = convert(nn.Sequential(fused), norm).eval()
    plain[0].load_state_dict({k: v for k, v in converted[0].state_dict().items() if not k.startswith(("act", "drop"))})
    x = torch.randn(3, 8, 4, 4)
    torch.testing.assert_close(converted(x), F.silu(plain.eval()(x)))
    torch.testing.assert_close(copy.deepcopy(converted)(x), converted(x))
    again = convert(convert(converted, "bin"), "sn").eval()
    once = again[0].act(convert(plain, "sn").eval()(x))
    torch.testing.assert_close(again(x), once)


def test_a_shared_norm_stays_shared():
    model = convert(Toy(), "sn")
    assert model.shared is model.again["norm"]
    assert isinstance(model.shared, SwitchNorm2d)
    assert model.shared is not model.normalize


def test_norms_of_a_shared_block_stay_shared():
    block = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    model = convert(nn.Sequential(block, nn.ReLU(), block), "bin")
    assert model[0] is model[2] and isinstance(model[0][1], BatchInstanceNorm2d)


# Which layers


def converted(model, kind):
    return [name for name, layer in norm_layers(model).items() if isinstance(layer, kind)]


def test_where_is_a_pattern_a_list_or_a_function():
    expected = ["layer1.0.bn2", "layer1.1.bn2"]
    choices = "layer1.*.bn2", expected, lambda name, module: name.startswith("layer1") and name.endswith("bn2")
    for where in choices:
        assert converted(convert(build("resnet18"), "sn", where=where), SwitchNorm2d) == expected


def test_a_function_of_the_module_chooses_too():
    model = convert(build("resnet18"), "bin", where=lambda name, module: module.num_features == 512)
    assert set(converted(model, BatchInstanceNorm2d)) == {
        n for n, m in norm_layers(build("resnet18")).items() if m.num_features == 512
    }


def test_several_patterns():
    model = convert(build("resnet18"), "sn", where=["bn1", "layer4.1.*"])
    assert converted(model, SwitchNorm2d) == ["bn1", "layer4.1.bn1", "layer4.1.bn2"]


def test_where_with_ibn_a_overrules_the_placement():
    model = convert(build("timm-efficientnet_b0"), "ibn-a", where="blocks.1.*.bn1")
    assert converted(model, IBN2d) == ["blocks.1.0.bn1", "blocks.1.1.bn1"]
    assert model(images()).isfinite().all()


def test_where_with_ibn_b_takes_norms_and_blocks():
    model = convert(build("resnet18"), "ibn-b", where=["bn1", "layer3.1"])
    assert converted(model, InstanceNorm2d) == ["bn1", "layer3.1.IN"]


# IBN-Net's placement

STAGES = {
    "resnet18": (2, 2, 2),
    "resnet50": (3, 4, 6),
    "resnext50": (3, 4, 6),
    "timm-resnet18": (2, 2, 2),
    "timm-resnet50d": (3, 4, 6),
    "timm-seresnet50": (3, 4, 6),
    "timm-resnetrs50": (3, 4, 6),
    "deeplab-tu-resnet18": (2, 2, 2),
    "deeplab-resnet18": (2, 2, 2),
    "unet": (2, 2, 2),
}
PREFIX = {"deeplab-tu-resnet18": "encoder.model.", "deeplab-resnet18": "encoder.", "unet": "encoder."}


@pytest.mark.parametrize("name", RESIDUAL)
def test_ibn_a_stands_first_in_every_block_of_stages_1_to_3(name):
    model = build(name)
    old = {n: copy.deepcopy(m) for n, m in norm_layers(model).items()}
    model = convert(model, "ibn-a")
    prefix = PREFIX.get(name, "")
    expected = [f"{prefix}layer{s}.{i}.bn1" for s, blocks in enumerate(STAGES[name], 1) for i in range(blocks)]
    assert converted(model, IBN2d) == expected
    for n, layer in norm_layers(model).items():
        if n not in expected:
            assert type(layer) is type(old[n])
            continue
        half = old[n].num_features // 2
        assert len(layer.IN.weight) == half
        assert torch.equal(layer.IN.weight, old[n].weight[:half]) and torch.equal(layer.BN.weight, old[n].weight[half:])
        assert torch.equal(layer.IN.bias, old[n].bias[:half]) and torch.equal(layer.BN.bias, old[n].bias[half:])
        assert torch.equal(layer.BN.running_mean, old[n].running_mean[half:])
        assert torch.equal(layer.BN.running_var, old[n].running_var[half:])
    assert outputs(model, images()).isfinite().all()


@pytest.mark.parametrize("name", DENSE)
def test_ibn_a_in_densenets_is_norm1_of_every_third_layer_of_the_first_three_blocks(name):
    model = convert(build(name), "ibn-a")
    expected = third_dense_layers(6, 12, 24)
    assert converted(model, IBN2d) == expected
    for n, layer in norm_layers(model).items():
        if n in expected:
            assert layer.ratio == 0.4
    assert outputs(model, images()).isfinite().all()


def third_dense_layers(*blocks):
    names = "features.denseblock{}.denselayer{}.norm1"
    return [names.format(b, i) for b, n in enumerate(blocks, 1) for i in range(1, n + 1) if (i - 1) % 3 == 0]


@pytest.mark.parametrize(
    ("name", "blocks", "count"),
    [
        ("densenet121", (6, 12, 24), 14),
        ("densenet169", (6, 12, 32), 17),
        ("densenet201", (6, 12, 48), 22),
        ("densenet161", (6, 12, 36), 18),
    ],
)
def test_ibn_a_of_each_densenet_has_the_published_layers_and_split(name, blocks, count):
    """Batch norm on the first int(.6 C) channels, instance norm with weight and bias on the others."""
    with torch.device("meta"):
        model = convert(getattr(torchvision.models, name)(), "ibn-a")
    assert converted(model, IBN2d) == third_dense_layers(*blocks)
    layers = [layer for layer in model.modules() if isinstance(layer, IBN2d)]
    assert len(layers) == count
    for layer in layers:
        assert layer.parts() == ("BN", "IN") and layer.BN.num_features == int(0.6 * layer.num_features)
        assert len(layer.IN.weight) == len(layer.IN.bias) == layer.num_features - int(0.6 * layer.num_features)


STEMS = {"timm-resnet50d": ["conv1.1", "conv1.4", "bn1"], "timm-resnetrs50": ["conv1.1", "conv1.4", "bn1", "maxpool.1"]}


@pytest.mark.parametrize("name", RESIDUAL)
def test_ibn_b_stands_in_the_stem_and_behind_the_last_additions_of_stages_1_and_2(name):
    model = build(name)
    old = {n: copy.deepcopy(m) for n, m in norm_layers(model).items()}
    model = convert(model, "ibn-b")
    prefix = PREFIX.get(name, "")
    stem = [prefix + n for n in STEMS.get(name, ["bn1"])]
    behind = [f"{prefix}layer{s}.{blocks - 1}.IN" for s, blocks in enumerate(STAGES[name][:2], 1)]
    # a block's instance norm stands last among its children
    assert sorted(converted(model, InstanceNorm2d)) == sorted([*stem, *behind])
    after = norm_layers(model)
    assert all(torch.equal(after[n].weight, old[n].weight) for n in stem)
    assert set(after) == {*old, *behind}
    assert all(type(after[n]) is type(old[n]) for n in set(old) - set(stem))
    assert outputs(model, images()).isfinite().all()
    assert set(converted(convert(model, "ibn-b"), InstanceNorm2d)) == {*stem, *behind}  # a second time changes nothing


def bottleneck(block, x):
    """A bottleneck by hand, with an instance norm between addition and activation."""
    y = F.relu(block.bn1(block.conv1(x)))
    y = F.relu(block.bn2(block.conv2(y)))
    y = block.bn3(block.conv3(y))
    if "se" in dict(block.named_children()):
        y = block.se(y)
    return instance_normed(block, y + (block.downsample(x) if "downsample" in dict(block.named_children()) else x))


def basic(block, x):
    y = F.relu(block.bn1(block.conv1(x)))
    y = block.bn2(block.conv2(y))
    return instance_normed(block, y + (block.downsample(x) if "downsample" in dict(block.named_children()) else x))


def instance_normed(block, y):
    return F.relu(F.instance_norm(y, weight=block.IN.weight, bias=block.IN.bias, eps=block.IN.eps))


BY_HAND = {
    "resnet18": basic,
    "timm-resnet18": basic,
    "deeplab-tu-resnet18": basic,
    "resnet50": bottleneck,
    "timm-seresnet50": bottleneck,
}


@pytest.mark.parametrize(("name", "by_hand"), BY_HAND.items(), ids=BY_HAND)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_the_instance_norm_of_ibn_b_follows_the_addition(name, by_hand, training):
    model = convert(build(name), "ibn-b")
    block = model.get_submodule(PREFIX.get(name, "") + "layer2")[-1].train(training)
    randomize(block.IN)
    x = torch.randn(2, block.conv1.in_channels, 6, 6)
    expected = by_hand(copy.deepcopy(block), x)
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-4)


def test_ibn_b_behind_an_addition_with_a_downsample():
    model = convert(build("resnet50"), "ibn-b", where="layer2.0")
    block = randomize(model.layer2[0]).eval()
    x = torch.randn(2, 256, 6, 6)
    torch.testing.assert_close(block(x), bottleneck(block, x), rtol=1e-4, atol=1e-4)


def test_ibn_b_networks_can_be_copied_saved_and_moved(tmp_path):
    model, x = convert(build("resnet18"), "ibn-b"), images()
    randomize(model.layer1[1].IN)
    expected = outputs(model, x)
    assert torch.equal(outputs(copy.deepcopy(model), x), expected)
    fresh = convert(NETWORKS["resnet18"](), "ibn-b").eval()
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(outputs(fresh, x), expected)
    torch.save(model, tmp_path / "model.pt")
    assert torch.equal(outputs(torch.load(tmp_path / "model.pt", weights_only=False), x), expected)
    assert outputs(model.double(), x.double()).dtype == torch.float64


@pytest.mark.parametrize("norm", ["gn", "ln", "in", "sn", "bin"])
def test_ibn_b_of_a_network_with_other_norms(norm):
    model = convert(convert(build("resnet18"), norm), "ibn-b")
    assert outputs(model, images()).isfinite().all()


def test_ibn_b_keeps_the_hooks_of_a_block():
    model, called = build("resnet18"), []
    model.layer1[1].register_forward_hook(lambda *_: called.append(True))
    outputs(convert(model, "ibn-b"), images())
    assert called


# Errors


@pytest.mark.parametrize("norm", ["ibn-a", "ibn-b"])
@pytest.mark.parametrize("name", ["vgg11_bn", "mobilenet_v2", "timm-efficientnet_b0", "toy"])
def test_an_unknown_network_is_told_what_to_pass(name, norm):
    model = build(name)
    keys = list(model.state_dict())
    with pytest.raises(ValueError, match=r"Choose layers yourself with where=\[\.\.\.\]") as error:
        convert(model, norm)
    assert type(model).__name__ in str(error.value) and next(iter(norm_layers(model))) in str(error.value)
    assert list(model.state_dict()) == keys


def test_ibn_b_does_not_know_densenets():
    with pytest.raises(ValueError, match="ibn-b does not know"):
        convert(build("densenet121"), "ibn-b")


@pytest.mark.parametrize("norm", NORMS)
def test_a_network_without_norms_is_refused(norm):
    with pytest.raises(ValueError, match=r"no batch, instance or group norm layer|the norm layers here are none"):
        convert(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), norm)


def test_an_unknown_name_is_told_the_names():
    with pytest.raises(ValueError, match="unknown norm 'batchnorm'") as error:
        convert(build("toy"), "batchnorm")
    assert all(name in str(error.value) for name in NORMS)


def test_a_pattern_that_matches_nothing_is_refused():
    with pytest.raises(ValueError, match=r"where='layer9\.\*' matches none of the 20 norm layers \(bn1, "):
        convert(build("resnet18"), "sn", where=["bn1", "layer9.*"])


def test_a_norm_without_channels_yet_is_refused():
    with pytest.raises(ValueError, match="no channels yet"):
        convert(nn.Sequential(nn.LazyBatchNorm2d()), "sn")


def test_ibn_a_exists_for_images_only():
    with pytest.raises(ValueError, match="IBN-a exists for 2d maps, not for 3d ones"):
        convert(nn.Sequential(nn.BatchNorm3d(4)), "ibn-a", where="0")


# Synchronising


@pytest.mark.parametrize("norm", NORMS)
def test_torchs_conversion_leaves_our_layers_alone(norm):
    model = convert(build("resnet18"), norm)
    before = {n: type(m) for n, m in norm_layers(model).items() if type(m).__module__.startswith("normshift")}
    after = {n: type(m) for n, m in norm_layers(nn.SyncBatchNorm.convert_sync_batchnorm(model)).items()}
    assert all(after[n] is kind for n, kind in before.items())


SYNCHRONIZED = [
    "resnet18",
    "timm-resnet18",
    "timm-densenet121",
    "timm-efficientnet_b0",
]


@pytest.mark.parametrize("name", SYNCHRONIZED)
def test_a_synchronized_network_is_the_same_function(name):
    model, x = build(name), images()
    expected = outputs(model, x)
    same_outputs(outputs(synchronize(model), x), expected)


def test_every_name_of_a_norm_builds():
    for norm, spec in NORMS.items():
        assert spec(8)(torch.randn(2, 8, 3, 3)).shape == (2, 8, 3, 3), norm
    assert isinstance(NORMS["in"](8, dims=1), InstanceNorm1d)
    assert set(NORMS) == {"bn", "syncbn", "in", "ln", "gn", "sn", "sn-in-ln", "bin", "ibn-a", "ibn-b"}
