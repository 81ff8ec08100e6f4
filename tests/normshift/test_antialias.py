"""The positions of blurs, what does not change, and that outputs then depend less on a shift by one pixel."""

import contextlib
import copy
import functools
from collections import OrderedDict
from unittest.mock import patch

import pytest
import timm
import torch
import torchvision
from timm.layers import Conv2dSame
from timm.models.senet import SENet, SEResNetBottleneck
from timm.models.vgg import VGG as TimmVGG
from torch import nn
from torch.nn import functional as F
from torchvision.models import densenet, mobilenetv2, regnet, resnet, vgg

from lightning_modules.classification.cifar_networks import cifar_network
from normshift import NORMS, BlurPool2d, antialias, convert, norm_layers, synchronize
from normshift.blur_pool import MaxBlurPool2d

TINY = {"layers": (1, 1, 1, 1), "channels": (8, 16, 24, 32), "stem_width": 8, "num_classes": 5}
TINY_REGNET = {"depth": 5, "w0": 8, "wa": 16.0, "wm": 1.8, "group_size": 8}
LEGACY = {"inplanes": 64, "input_3x3": False, "downsample_kernel_size": 1, "downsample_padding": 0, "num_classes": 5}
INVERTED = [[1, 8, 1, 1], [3, 8, 1, 2], [3, 16, 2, 2]]  # expansion, channels, blocks, stride


def timm_resnet(name, **changes):
    return lambda: timm.create_model(name, **TINY | changes)


def tiny_vgg(norm):
    return vgg.make_layers([8, "M", 16, "M", 24, 24, "M", 32, "M"], norm)


def tiny_timm_densenet():
    return timm.create_model("densenet121", growth_rate=8, block_config=(2, 2, 2), num_classes=5)


def tiny_regnet():
    params = regnet.BlockParams.from_init_params(depth=4, w_0=8, w_a=16, w_m=2, group_width=8, se_ratio=0.25)
    return regnet.RegNet(params, num_classes=5, stem_width=8)


FAMILIES = {
    "alexnet": lambda: nn.Sequential(OrderedDict(features=torchvision.models.alexnet().features)),
    "vgg": lambda: nn.Sequential(OrderedDict(features=tiny_vgg(False))),
    "vgg_bn": lambda: nn.Sequential(OrderedDict(features=tiny_vgg(True))),
    "resnet": lambda: resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], num_classes=5),
    "resnet-bottleneck": lambda: resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 1], num_classes=5, width_per_group=4),
    "resnext": lambda: resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 1], num_classes=5, groups=4, width_per_group=4),
    "densenet": lambda: densenet.DenseNet(8, (2, 2, 2), 16, num_classes=5),
    "mobilenet_v2": lambda: mobilenetv2.MobileNetV2(5, inverted_residual_setting=INVERTED),
    "regnet": tiny_regnet,
    "timm-resnet": timm_resnet("resnet18"),
    "timm-wide_resnet": timm_resnet("wide_resnet50_2"),
    "timm-resnet-d": timm_resnet("resnet50d"),
    "timm-seresnet": timm_resnet("seresnet50"),
    "timm-resnetrs": timm_resnet("resnetrs50"),
    "timm-legacy_seresnet": lambda: SENet(SEResNetBottleneck, (1, 1, 1, 1), 1, 16, **LEGACY),
    "timm-preact": lambda: timm.create_model("resnetv2_18", **{k: v for k, v in TINY.items() if k != "stem_width"}),
    "timm-vgg_bn": lambda: TimmVGG([8, "M", 16, "M", 24, "M", 32, "M"], 5, mlp_ratio=1 / 64, norm_layer=nn.BatchNorm2d),
    "timm-densenet": tiny_timm_densenet,
    "timm-mobilenetv2": lambda: timm.create_model("mobilenetv2_035", num_classes=5),
    "timm-efficientnet": lambda: timm.create_model("test_efficientnet", num_classes=5),
    "timm-tf_efficientnet": lambda: timm.create_model("test_efficientnet", num_classes=5, pad_type="same"),
    "timm-regnet": lambda: timm.create_model("regnety_002", num_classes=5, **TINY_REGNET),
    "cifar-resnet": lambda: cifar_network("cifar_resnet8", 5),
    "cifar-resnet-bottleneck": lambda: cifar_network("cifar_resnet11", 5),
    "cifar-preresnet": lambda: cifar_network("cifar_preresnet8", 5),
    "cifar-preresnet-bottleneck": lambda: cifar_network("cifar_preresnet11", 5),
    "cifar-wide_resnet": lambda: cifar_network("cifar_wrn10_2", 5, width=0.5),
    "cifar-resnext": lambda: cifar_network("cifar_resnext11_2x16", 5, width=0.25),
    "cifar-densenet": lambda: cifar_network("cifar_densenet_bc10_8", 5),
    "cifar-vgg": lambda: cifar_network("cifar_vgg11", 5, width=0.125),
    "cifar-alexnet": lambda: cifar_network("cifar_alexnet", 5, width=0.125),
}
AVERAGING = {"densenet", "timm-densenet", "cifar-densenet", "timm-resnet-d", "timm-resnetrs"}
SAME = {"timm-tf_efficientnet"}  # pads by its stride, so that a dense conv's windows start elsewhere

every_family = pytest.mark.parametrize("name", FAMILIES)


@functools.cache
def _built(name):
    torch.manual_seed(1)
    return settle(FAMILIES[name]())


def build(name):
    """A network in evaluation mode, whose norms have seen some batches."""
    return copy.deepcopy(_built(name))


def settle(model):
    for layer in norm_layers(model).values():
        with torch.no_grad():
            layer.weight.uniform_(0.5, 1.5)
            layer.bias.normal_(std=0.2)
        layer.momentum = 0.9
    with torch.no_grad():
        for _ in range(2):
            feature_map(model.train(), pictures())
    return model.eval()


def pictures(n=4, size=64):
    """Random images with the spectrum of photographs, amplitude 1/f, and nothing that half the resolution cannot hold.

    In white noise the aliasing of the stem's own stride, which stays, outweighs all that follows in untrained networks.
    """
    frequency = torch.fft.fftfreq(size).abs()
    radius = torch.hypot(frequency[:, None], frequency)
    radius[0, 0] = torch.inf
    radius[(frequency[:, None] >= 0.25) | (frequency >= 0.25)] = torch.inf
    x = torch.fft.ifft2(torch.fft.fft2(torch.randn(n, 3, size, size)) / radius).real
    return x / x.std((2, 3), keepdim=True)


def feature_map(model, x):
    """The input of the network's global pooling."""
    if hasattr(model, "forward_features"):
        return model.forward_features(x)
    if isinstance(model, densenet.DenseNet):
        return model.features(x).relu()
    if hasattr(model, "features"):
        return model.features(x)
    for child in model.children():
        if isinstance(child, nn.AdaptiveAvgPool2d):
            return x
        x = child(x)


def close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * expected.abs().max().item())


# Placement


def strides(model):
    return {n: m.stride for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d))}


def blurs(model):
    """The position of each blur: its neighbour's name -> (side, channels, stride)."""
    found = {n: m for n, m in model.named_modules() if isinstance(m, BlurPool2d)}
    return {n: (m.channels, m.stride, m.filter_size) for n, m in found.items()}


PLACED = {
    "resnet18": (
        torchvision.models.resnet18,
        {"conv1": (2, 2)},
        {
            "maxpool.blur": None,
            "layer2.0.conv2.blur_before": 128,
            "layer2.0.downsample.0.blur_before": 64,
            "layer3.0.conv2.blur_before": 256,
            "layer3.0.downsample.0.blur_before": 128,
            "layer4.0.conv2.blur_before": 512,
            "layer4.0.downsample.0.blur_before": 256,
        },
    ),
    "vgg11": (
        lambda: nn.Sequential(OrderedDict(features=vgg.make_layers(vgg.cfgs["A"]))),
        {},
        {f"features.{i}.blur": None for i in (2, 5, 10, 15, 20)},
    ),
    "mobilenet_v2": (
        torchvision.models.mobilenet_v2,
        {"features.0.0": (2, 2)},
        {
            "features.2.conv.1.2.blur_behind": 96,
            "features.4.conv.1.2.blur_behind": 144,
            "features.7.conv.1.2.blur_behind": 192,
            "features.14.conv.1.2.blur_behind": 576,
        },
    ),
    "densenet121": (
        torchvision.models.densenet121,
        {"features.conv0": (2, 2)},
        {"features.pool0.blur": None} | {f"features.transition{i}.pool": None for i in (1, 2, 3)},
    ),
    "resnet50d": (
        lambda: timm.create_model("resnet50d"),
        {"conv1.0": (2, 2)},
        {"maxpool.blur": None}
        | {f"layer{s}.0.aa.blur_behind": 32 * 2**s for s in (2, 3, 4)}
        | {f"layer{s}.0.downsample.0": None for s in (2, 3, 4)},
    ),
    "resnetrs50": (
        lambda: timm.create_model("resnetrs50"),
        {"conv1.0": (2, 2)},
        {"maxpool.2.blur_behind": 64}
        | {f"layer{s}.0.aa.blur_behind": 32 * 2**s for s in (2, 3, 4)}
        | {f"layer{s}.0.downsample.0": None for s in (2, 3, 4)},
    ),
    "alexnet": (
        lambda: nn.Sequential(OrderedDict(features=torchvision.models.alexnet().features)),
        {"features.0": (2, 2)},
        {"features.1.blur_behind": 64} | {f"features.{i}.blur": None for i in (2, 5, 12)},
    ),
}


@pytest.mark.parametrize(("make", "strided", "placed"), PLACED.values(), ids=PLACED)
def test_strides_and_blurs_stand_where_the_paper_puts_them(make, strided, placed):
    model = make()
    keys = {key: value.data_ptr() for key, value in model.state_dict().items()}
    assert antialias(model, 3) is model
    assert {n: s for n, s in strides(model).items() if s not in (1, (1, 1))} == strided
    assert blurs(model) == {name: (channels, (2, 2), 3) for name, channels in placed.items()}
    assert {key: value.data_ptr() for key, value in model.state_dict().items()} == keys


def blurred(x):
    return BlurPool2d(x.shape[1], 4)(x)


def basic(block, x):
    y = F.relu(block.bn1(F.conv2d(x, block.conv1.weight, padding=1)))
    y = block.bn2(F.conv2d(blurred(y), block.conv2.weight, padding=1))
    return F.relu(y + block.downsample[1](F.conv2d(blurred(x), block.downsample[0].weight)))


def bottleneck(block, x):
    y = F.relu(block.bn1(F.conv2d(x, block.conv1.weight)))
    y = F.relu(block.bn2(F.conv2d(y, block.conv2.weight, padding=1, groups=block.conv2.groups)))
    y = block.bn3(F.conv2d(blurred(y), block.conv3.weight))
    return F.relu(y + block.downsample[1](F.conv2d(blurred(x), block.downsample[0].weight)))


def bottleneck_d(block, x):
    y = F.relu(block.bn1(F.conv2d(x, block.conv1.weight)))
    y = F.relu(block.bn2(F.conv2d(y, block.conv2.weight, padding=1)))
    y = block.bn3(F.conv2d(blurred(y), block.conv3.weight))
    return F.relu(y + block.downsample[2](F.conv2d(blurred(x), block.downsample[1].weight)))


def pre_activation(block, x):
    a = F.relu(block.bn1(x))
    y = F.relu(block.bn2(F.conv2d(a, block.conv1.weight, padding=1)))
    y = F.conv2d(blurred(y), block.conv2.weight, padding=1)
    return y + F.conv2d(blurred(a), block.downsample.weight)


def inverted(block, x):
    expand, depthwise, project, norm = block.conv
    y = F.relu6(expand[1](F.conv2d(x, expand[0].weight)))
    y = F.relu6(depthwise[1](F.conv2d(y, depthwise[0].weight, padding=1, groups=y.shape[1])))
    return norm(F.conv2d(blurred(y), project.weight))


def transition(block, x):
    return blurred(F.conv2d(F.relu(block.norm(x)), block.conv.weight))


def option_a(block, x):
    y = F.relu(block.bn1(F.conv2d(x, block.conv1.weight, padding=1)))
    y = block.bn2(F.conv2d(blurred(y), block.conv2.weight, padding=1))
    return F.relu(y + F.pad(blurred(x), (0, 0, 0, 0, 0, y.shape[1] - x.shape[1])))


BY_HAND = {
    "resnet": ("layer2.0", 64, basic),
    "resnext": ("layer2.0", 256, bottleneck),
    "timm-resnet": ("layer3.0", 16, basic),
    "timm-resnet-d": ("layer2.0", 32, bottleneck_d),
    "mobilenet_v2": ("features.3", 8, inverted),
    "densenet": ("features.transition1", 32, transition),
    "cifar-preresnet": ("layer2.0", 16, pre_activation),
    "cifar-resnet": ("layer2.0", 16, option_a),
}


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "as-the-compiler-sees-it"])
@pytest.mark.parametrize("name", BY_HAND)
def test_a_block_is_the_papers_written_out(name, compiled, monkeypatch):
    path, channels, by_hand = BY_HAND[name]
    block, x = antialias(build(name)).get_submodule(path), torch.randn(2, channels, 8, 8)
    expected = by_hand(copy.deepcopy(block), x)
    if compiled:
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    close(block(x), expected)


@pytest.mark.parametrize("name", [n for n in FAMILIES if n not in AVERAGING | SAME])
def test_a_filter_of_one_pixel_gives_the_plain_network(name):
    """Subsampling behind the activation is then the same as in the conv: weights, phases and paths are all right."""
    model, x = build(name), torch.randn(2, 3, 67, 64)
    with torch.no_grad():
        close(feature_map(antialias(copy.deepcopy(model), 1, stem_pool=3), x), feature_map(model, x))


@pytest.mark.parametrize("size", [6, 7])
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_rect_2_is_a_2x2_average_pool(size, ceil_mode):
    pool, x = nn.AvgPool2d(2, ceil_mode=ceil_mode, count_include_pad=False), torch.randn(2, 3, size, size)
    found, expected = antialias(nn.Sequential(pool), 2)(x), pool(x)
    assert found.shape == expected.shape
    torch.testing.assert_close(found[..., :3, :3], expected[..., :3, :3])


# What must not change


@every_family
@pytest.mark.parametrize("size", [32, 33, 64])
def test_maps_keep_their_size(name, size):
    size = size + 32 if "alexnet" in name and "cifar" not in name else size  # too small for AlexNet at all
    model, x = build(name), torch.randn(2, 3, size, size)
    with torch.no_grad():
        expected = feature_map(model, x).shape
        assert feature_map(antialias(copy.deepcopy(model), 5, stem_pool=3), x).shape == expected
        if size % 32 == 0:  # of odd maps, the published pool in a ResNet's stem leaves out one
            assert feature_map(antialias(model, 5), x).shape == expected


@every_family
def test_keys_stay_and_checkpoints_load_before_and_after(name):
    plain, x = build(name), torch.randn(2, 3, 64, 64)
    after = antialias(FAMILIES[name]()).eval()
    assert list(after.state_dict()) == list(plain.state_dict())
    after.load_state_dict(plain.state_dict())
    before = antialias(copy.deepcopy(plain))
    with torch.no_grad():
        expected = feature_map(before, x)
        assert torch.equal(feature_map(after, x), expected)
        assert torch.equal(feature_map(copy.deepcopy(before), x), expected)
    plain.load_state_dict(before.state_dict())


@every_family
def test_every_weight_gets_a_gradient(name):
    model = antialias(build(name)).train()
    feature_map(model, torch.randn(2, 3, 64, 64)).square().sum().backward()
    trunk = [p for n, p in model.named_parameters() if p.grad is None and not n.startswith(HEADS)]
    assert not trunk and all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


HEADS = ("fc", "classifier", "head", "last_linear", "pre_logits")


@pytest.mark.parametrize("name", ["timm-resnet", "timm-regnet"])  # hooks on layers, on containers
def test_compiled_is_eager(name):
    model, x = antialias(build(name)), torch.randn(2, 3, 64, 64)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        close(compiled(x), model(x), 1e-4)


def test_exported_is_eager():
    model, x = antialias(build("timm-resnet-d")), torch.randn(3, 3, 32, 32)
    program = torch.export.export(model, (x[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},))
    with torch.no_grad():
        close(program.module()(x), model(x))


def test_saved_whole_and_in_double(tmp_path):
    model, x = antialias(build("timm-regnet")), torch.randn(2, 3, 64, 64)
    torch.save(model, tmp_path / "model.pt")
    loaded = torch.load(tmp_path / "model.pt", weights_only=False)
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))
        close(model.double()(x.double()).float(), loaded(x), 1e-4)


def test_hooks_on_a_pool_see_what_leaves_it():
    model, seen = build("resnet"), []
    model.maxpool.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    antialias(model)(torch.randn(1, 3, 64, 64))
    assert seen == [(1, 64, 16, 16)]


def test_a_pool_used_twice_stays_one_pool():
    pool = nn.MaxPool2d(2)
    model = antialias(nn.Sequential(nn.Conv2d(3, 4, 3), pool, nn.Conv2d(4, 6, 3), pool))
    assert model[1] is model[3] and isinstance(model[1], MaxBlurPool2d)
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, 6, 6, 6)


# With other norms

EVERYWHERE = [norm for norm, spec in NORMS.items() if spec.placement == "everywhere"]
CONVERTED = [(name, norm) for name in ("resnet", "timm-resnet-d") for norm in NORMS]
CONVERTED += [
    (name, norm) for name in ("timm-efficientnet", "timm-regnet", "timm-preact", "mobilenet_v2") for norm in EVERYWHERE
]


@pytest.mark.parametrize(("name", "norm"), CONVERTED)
def test_convert_before_or_after_gives_one_function(name, norm):
    model, x = build(name), torch.randn(2, 3, 64, 64)
    after = convert(antialias(copy.deepcopy(model)), norm)
    before = antialias(convert(copy.deepcopy(model), norm))
    assert list(after.state_dict()) == list(before.state_dict())
    assert len(blurs(after)) == len(blurs(before)) == len(blurs(antialias(model)))
    with torch.no_grad():
        assert torch.equal(after(x), before(x))
        if norm in ("bn", "syncbn", "bin"):  # which freshly converted are batch norm
            close(after(x), model(x), 1e-4)


class NormLast(nn.Module):
    """A strided conv and timm's norm with its activation in it, and two users of the result."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.norm = timm.layers.BatchNormAct2d(4)

    def forward(self, x):
        y = self.norm(self.conv(self.stem(x)))
        return y * y.sigmoid()


@pytest.mark.parametrize("norm", ["bn", "gn", "sn", "bin", "syncbn"])
def test_a_blur_behind_a_norm_survives_its_exchange(norm):
    model, x = settle_norm(NormLast()), torch.randn(2, 3, 9, 8)
    dense = F.conv2d(model.stem(x), model.conv.weight, model.conv.bias, padding=1)
    expected = blurred(convert(copy.deepcopy(model), norm).eval().norm(dense))
    for order in (lambda m: convert(antialias(m), norm), lambda m: antialias(convert(m, norm))):
        found = order(copy.deepcopy(model)).eval()
        assert list(blurs(found)) == ["norm.blur_behind"]
        close(synchronize(found)(x), expected * expected.sigmoid())


def settle_norm(model):
    nn.init.uniform_(model.norm.weight, 0.5, 1.5)
    nn.init.normal_(model.norm.bias)
    return model.eval()


# Other people's networks


class Functional(nn.Module):
    """Activations as functions; the blur stands before the next conv."""

    def __init__(self):
        super().__init__()
        self.stem, self.one = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.norm, self.two = nn.BatchNorm2d(6), nn.Conv2d(6, 8, 1)

    def forward(self, x):
        return self.two(F.dropout(F.leaky_relu(self.norm(self.one(self.stem(x)))), training=self.training))


class Swish(nn.Module):
    def forward(self, x):
        return x * x.sigmoid()


def own_activation():
    block = nn.Sequential(nn.Sequential(nn.Conv2d(4, 4, 3, 2, 1)), nn.BatchNorm2d(4), Swish(), nn.Conv2d(4, 2, 1))
    return nn.Sequential(nn.Conv2d(3, 4, 1), block)


def without_activation():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 2, 2), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


def in_a_list():
    class Listed(nn.Module):
        def __init__(self):
            super().__init__()
            self.convs = nn.ModuleList([nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, 2, 1)])
            self.acts = nn.ModuleDict({"last": nn.ReLU()})

        def forward(self, x):
            return self.acts["last"](self.convs[1](self.convs[0](x)))

    return Listed()


OTHERS = {
    "functions": (Functional, "two.blur_before"),
    "own-activation-behind-a-container": (own_activation, "1.2.blur_behind"),
    "no-activation": (without_activation, "1.blur_behind"),
    "lists": (in_a_list, "acts.last.blur_behind"),
}


@pytest.mark.parametrize(("make", "where"), OTHERS.values(), ids=OTHERS)
def test_other_peoples_networks(make, where):
    model, x = make().eval(), torch.randn(2, 3, 9, 8)
    expected = model(x)
    close(antialias(copy.deepcopy(model), 1)(x), expected)
    model = antialias(model)
    assert list(blurs(model)) == [where] and model(x).shape == expected.shape


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.conv, self.relu = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU()

    def forward(self, x):
        y = self.relu(self.conv(self.relu(self.stem(x))))
        return torch.cat([y, y], 1)


class Branching(Functional):
    def forward(self, x):
        return super().forward(x) if x.sum() > 0 else x


class Sliced(Functional):
    def forward(self, x):
        return super().forward(x) + x.mean(1, keepdim=True)[:, :, ::2, ::2]


class Pooling(nn.Module):
    def forward(self, x):
        return F.max_pool2d(x, 2)


def behind(*layers):
    return nn.Sequential(nn.Conv2d(3, 4, 1), *layers)


REFUSED = {
    "nothing to anti-alias": lambda: behind(nn.ReLU()),
    "nothing to anti-alias: ": lambda: nn.Sequential(nn.Conv2d(3, 4, 7, 2)),
    "anti-aliased already: it blurs in '1.blur'": lambda: antialias(behind(nn.MaxPool2d(2))),
    "first convs of stride 1, 2 and 4; '0' has .16, 16.": lambda: nn.Sequential(nn.Conv2d(3, 4, 16, 16)),
    "the blur behind 'conv', because its activation, in the forward of 'the network', a Shared": Shared,
    "cannot follow the forward of 'the network', a Branching": Branching,
    "slicing with a step in the forward of 'the network', a Sliced": Sliced,
    "call of max_pool2d in the forward of '1', a Pooling": lambda: behind(Pooling(), nn.MaxPool2d(2)),
    "'1', a Conv3d of stride": lambda: behind(nn.Conv3d(1, 1, 3, 2)),
    "'1', a BlurPool2d of stride 2": lambda: behind(timm.layers.BlurPool2d(4)),
    "cannot blur '1': it returns indices": lambda: behind(nn.MaxPool2d(2, return_indices=True)),
    "the ceil_mode of '1'": lambda: behind(nn.MaxPool2d(2, 2, 1, ceil_mode=True)),
    "'1' is AvgPool2d.kernel_size=8": lambda: behind(nn.AvgPool2d(8)),
    "of '1', a Sequential, calls it 2 times": lambda: behind(twice(nn.Conv2d(4, 4, 3, 2))),
}


def twice(layer):
    return nn.Sequential(layer, layer)


@pytest.mark.parametrize(("message", "make"), REFUSED.items(), ids=REFUSED)
def test_what_is_not_known_is_refused_and_left_alone(message, make):
    model = make()
    before = repr(model)
    with pytest.raises(ValueError, match=message):
        antialias(model)
    assert repr(model) == before


def test_a_wrong_filter_is_refused_before_anything_changes():
    model = build("resnet")
    with pytest.raises(ValueError, match="filter_size is 1 to 7"):
        antialias(model, 8)
    assert not blurs(model) and model.maxpool.stride == 2


# A shift by one pixel


def _circular(x, window, stride, padding):
    """Pads so that a window at every stride-th pixel gives size / stride outputs of a map without a border."""
    sides = []
    for w, s, p in zip(window[::-1], stride[::-1], padding[::-1], strict=True):
        sides += [p, max(w - s - p, 0)]
    return F.pad(x, sides, mode="circular")


def _pair(value):
    return value if isinstance(value, tuple) else (value, value)


def _conv(conv, x):
    window = tuple(d * (k - 1) + 1 for k, d in zip(conv.kernel_size, conv.dilation, strict=True))
    x = _circular(x, window, conv.stride, conv.padding)
    return F.conv2d(x, conv.weight, conv.bias, conv.stride, 0, conv.dilation, conv.groups)


def _max_pool(pool, x):
    window, stride = _pair(pool.kernel_size), _pair(pool.stride)
    return F.max_pool2d(_circular(x, window, stride, _pair(pool.padding)), window, stride)


def _blur_padding(blur, height, width):
    before, after = (blur.filter_size - 1) // 2, blur.filter_size // 2
    return (before, after, before, after), "circular"


@contextlib.contextmanager
def circular_world():
    """Every conv, pool and blur sees a map whose left border meets its right."""
    with contextlib.ExitStack() as stack:
        for owner, name, replacement in (
            (nn.Conv2d, "forward", _conv),
            (Conv2dSame, "forward", _conv),
            (nn.MaxPool2d, "forward", _max_pool),
            (BlurPool2d, "_padding", _blur_padding),
        ):
            stack.enter_context(patch.object(owner, name, replacement))
        yield


@torch.no_grad()
def change_by_a_shift(model, x):
    """Relative distance between the pooled features of images and of the same images shifted by one pixel."""
    with circular_world():
        here, there = (feature_map(model, image).mean((2, 3)) for image in (x, x.roll((1, 1), (2, 3))))
    return ((here - there).norm() / here.norm()).item()


@every_family
def test_a_shift_by_one_pixel_changes_less(name):
    changes = []
    for seed in range(3):
        torch.manual_seed(seed)
        x, plain = pictures(), FAMILIES[name]()
        blurring = antialias(copy.deepcopy(plain))
        with circular_world():
            plain, blurring = settle(plain), settle(blurring)
        changes.append((change_by_a_shift(plain, x), change_by_a_shift(blurring, x)))
    before, after = (sum(change) / len(changes) for change in zip(*changes, strict=True))
    assert after < before, changes


def test_the_circular_world_is_one():
    """A shift by all that a network strides over shifts its map by one, with or without blurs: nothing else matters."""
    for model in (build("resnet"), antialias(build("resnet")), antialias(build("alexnet"))):
        x = torch.randn(1, 3, 64, 64)
        with circular_world(), torch.no_grad():
            torch.testing.assert_close(
                feature_map(model, x.roll(32, 3)), feature_map(model, x).roll(1, 3), rtol=1e-4, atol=1e-5
            )
