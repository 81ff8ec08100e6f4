"""Released anti-aliased checkpoints: networks built like the published ones, compared with ours."""

import copy
import functools

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torchvision.models import densenet, mobilenetv2, resnet, vgg

from normshift import BlurPool2d, IBN2d, antialias, convert, load_official
from normshift.released_blur import plain_names

PASCAL = {1: [1], 2: [1, 1], 3: [1, 2, 1], 4: [1, 3, 3, 1], 5: [1, 4, 6, 4, 1]}


class Blur(nn.Module):
    """A published blur: its filter is a buffer."""

    def __init__(self, channels, size):
        super().__init__()
        row = torch.tensor(PASCAL[size]) / sum(PASCAL[size])
        self.register_buffer("filt", torch.outer(row, row).expand(channels, 1, size, size).clone())

    def forward(self, x):
        before, after = (self.filt.shape[-1] - 1) // 2, self.filt.shape[-1] // 2
        return F.conv2d(F.pad(x, (before, after) * 2, "reflect"), self.filt, stride=2, groups=len(self.filt))


def alexnet(size, net):
    new, conv = [], None
    for layer in net.features:
        if isinstance(layer, nn.Conv2d):
            conv = layer
        if isinstance(layer, nn.MaxPool2d):
            new += [nn.MaxPool2d(3, 1), Blur(conv.out_channels, size)]
        elif isinstance(layer, nn.Conv2d) and layer.stride == (4, 4):
            new.append(nn.Conv2d(3, 64, 11, 2, 2))
        else:
            new.append(layer)
        if len(new) == 2:
            new.append(Blur(64, size))  # the stem keeps a stride of 2
    net.features = nn.Sequential(*new)
    return net


def vggs(size, net):
    new, channels = [], 0
    for layer in net.features:
        channels = getattr(layer, "out_channels", channels)
        new += [nn.MaxPool2d(2, 1), Blur(channels, size)] if isinstance(layer, nn.MaxPool2d) else [layer]
    net.features = nn.Sequential(*new)
    return net


def resnets(size, net):
    net.maxpool = nn.Sequential(nn.MaxPool2d(2, 1), Blur(net.bn1.num_features, size))
    for stage in (net.layer2, net.layer3, net.layer4):
        block = stage[0]
        strided, last = ("conv2", "conv3") if hasattr(block, "conv3") else ("conv1", "conv2")
        getattr(block, strided).stride = (1, 1)
        setattr(block, last, nn.Sequential(Blur(getattr(block, strided).out_channels, size), getattr(block, last)))
        conv, norm = block.downsample
        conv.stride = (1, 1)
        block.downsample = nn.Sequential(Blur(conv.in_channels, size), conv, norm)
    return net


class PoolAndBlur(Blur):
    def forward(self, x):
        return super().forward(F.max_pool2d(x, 3, 1, 1))


def densenets(size, net):
    net.features.pool0 = PoolAndBlur(net.features.norm0.num_features, size)
    for name, child in net.features.named_children():
        if name.startswith("transition"):
            child.pool = Blur(child.conv.out_channels, size)
    return net


def mobilenets(size, net):
    for block in net.features[1:-1]:
        depthwise = block.conv[-3][0]
        if depthwise.stride == (2, 2):
            depthwise.stride = (1, 1)
            *rest, project, norm = block.conv
            block.conv = nn.Sequential(*rest, Blur(depthwise.out_channels, size), project, norm)
    net.classifier = nn.Sequential(net.classifier[1])
    return net


def small_vgg(norm, hidden=8, classes=5):
    with torch.device("meta"):  # its linear layers of 4096 channels take seconds to initialise
        net = vgg.VGG(nn.Identity(), init_weights=False)
    net.features = vgg.make_layers([8, "M", 8, "M", 16, 16, "M", 16, 16, "M", 24, 24, "M"], norm)
    for index, shape in ((0, (24 * 49, 8)), (3, (8, hidden)), (6, (hidden, classes))):
        net.classifier[index] = nn.Linear(*shape)
    return net


def small_alexnet():
    with torch.device("meta"):
        net = torchvision.models.alexnet()
    net.features.to_empty(device="cpu")
    for layer in net.features:
        if isinstance(layer, nn.Conv2d):
            layer.reset_parameters()
    for index, shape in ((1, (256 * 36, 8)), (4, (8, 8)), (6, (8, 5))):
        net.classifier[index] = nn.Linear(*shape)
    return net


def small_resnet(block=resnet.Bottleneck, **options):
    return resnet.ResNet(block, [1, 2, 1, 1], num_classes=5, **options)


FAMILIES = {
    "alexnet": (alexnet, small_alexnet),
    "vgg": (vggs, lambda: small_vgg(False)),
    "vgg_bn": (vggs, lambda: small_vgg(True)),
    "resnet18": (resnets, lambda: small_resnet(resnet.BasicBlock)),
    "resnet50": (resnets, lambda: small_resnet(width_per_group=16)),
    "resnext": (resnets, lambda: small_resnet(groups=4, width_per_group=8)),
    "wide_resnet": (resnets, lambda: small_resnet(width_per_group=32)),
    "densenet": (densenets, lambda: densenet.DenseNet(8, (4, 2, 2, 2), 16, num_classes=5)),
    "mobilenet_v2": (mobilenets, lambda: mobilenetv2.MobileNetV2(5, width_mult=0.25)),
}


def random(net):
    torch.manual_seed(0)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.2), module.running_var.uniform_(0.5, 2)
                module.weight.uniform_(0.5, 1.5), module.bias.normal_(std=0.2)
    return net


def published(family, size):
    return random(FAMILIES[family][0](size, copy.deepcopy(_plain(family)))).eval()


@functools.cache
def _plain(family):
    return FAMILIES[family][1]().eval()


def ours(family):
    return copy.deepcopy(_plain(family))


def same_function(model, reference):
    x = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        expected = reference(x)
        assert (model(x) - expected).abs().max() <= 1e-6 * expected.abs().max()


ORDERS = {
    "antialias-load": lambda net, size, state: load_official(antialias(net, size), state),
    "antialias-3x3-load": lambda net, size, state: load_official(antialias(net, size, stem_pool=3), state),
    "load-antialias": lambda net, size, state: antialias(load_official(net, state), size),
    "load": lambda net, size, state: load_official(net, state),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_released_checkpoint_is_the_same_function(family, order):
    reference = published(family, 4)
    same_function(ORDERS[order](ours(family), 4, {"state_dict": reference.state_dict()}), reference)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("family", ["alexnet", "resnet50", "mobilenet_v2"])
def test_every_filter_size(family, size):
    reference = published(family, size)
    same_function(load_official(antialias(ours(family), size), reference.state_dict()), reference)


@pytest.mark.parametrize("norm", ["bn", "syncbn"])
@pytest.mark.parametrize("order", ORDERS)
def test_conversion_before_and_after(norm, order):
    reference = published("resnet50", 4)
    same_function(ORDERS[order](convert(ours("resnet50"), norm), 4, reference.state_dict()), reference)
    same_function(convert(ORDERS[order](ours("resnet50"), 4, reference.state_dict()), "bn"), reference)


def test_training_from_scratch_is_of_the_published_network():
    reference = published("resnet50", 4).train()
    model = load_official(antialias(ours("resnet50"), 4), reference.state_dict()).train()
    x = torch.randn(2, 3, 96, 96)
    torch.testing.assert_close(model(x), reference(x), rtol=1e-4, atol=1e-4)
    pool = antialias(ours("resnet50"), 4).maxpool.pool
    assert (pool.kernel_size, pool.padding, pool.stride) == (2, 0, (1, 1))
    pool = antialias(ours("resnet50"), 4, stem_pool=3).maxpool.pool
    assert (pool.kernel_size, pool.padding, pool.stride) == (3, 1, (1, 1))
    pool = antialias(ours("densenet"), 4).features.pool0.pool
    assert (pool.kernel_size, pool.padding) == (3, 1)


def test_a_copy_keeps_the_pool_and_a_map_of_one_pixel_passes():
    model = copy.deepcopy(antialias(ours("resnet18"), 4))
    assert model.maxpool.pool.kernel_size == 2
    assert model(torch.randn(2, 3, 2, 2)).shape == (2, 5)


def test_ibn_networks_take_an_anti_aliased_checkpoint():
    state = published("resnet50", 3).state_dict()
    model = load_official(antialias(convert(ours("resnet50"), "ibn-a"), 3), state)
    layer = model.layer2[0].bn1
    assert isinstance(layer, IBN2d) and torch.equal(layer.BN.weight, state["layer2.0.bn1.weight"][layer.first :])


def test_timms_networks_take_them_too():
    reference = random(resnets(4, torchvision.models.resnet18(num_classes=5))).eval()
    same_function(load_official(timm.create_model("resnet18", num_classes=5), reference.state_dict()).eval(), reference)
    channels = [8, "M", 8, "M", 16, 16, "M", 16, 16, "M", 24, 24, "M"]
    small = timm.models.vgg.VGG(channels, 5, mlp_ratio=1 / 512)  # whose second linear layer always has 4096
    net = small_vgg(False, hidden=4096)
    reference, x = random(vggs(4, net)).eval(), torch.randn(2, 3, 224, 224)
    model = load_official(small, reference.state_dict()).eval()
    torch.testing.assert_close(model(x), reference(x), rtol=1e-5, atol=1e-6)


NETWORKS = {
    "alexnet": 16, "vgg11": 22, "vgg13": 26, "vgg16": 32, "vgg19": 38, "vgg11_bn": 62, "vgg13_bn": 76, "vgg16_bn": 97,
    "vgg19_bn": 118, "resnet18": 122, "resnet34": 218, "resnet50": 320, "resnet101": 626, "resnet152": 932,
    "resnext50_32x4d": 320, "resnext101_32x8d": 626, "wide_resnet50_2": 320, "wide_resnet101_2": 626,
    "densenet121": 727, "densenet161": 967, "densenet169": 1015, "densenet201": 1207, "mobilenet_v2": 314,
}  # fmt: skip
"""The released networks, and how many entries the state dict of the plain one has."""
FILTERS = {"alexnet": 4, "vgg": 5, "res": 7, "wide": 7, "densenet": 4, "mobilenet": 4}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_keys_of_every_released_network(name):
    modify = {"a": alexnet, "v": vggs, "r": resnets, "w": resnets, "d": densenets, "m": mobilenets}[name[0]]
    with torch.device("meta"):
        plain, released = (getattr(torchvision.models, name)() for _ in range(2))
        keys = list(modify(4, released).state_dict())
    names = plain_names(keys, plain)
    mobile = {"classifier.0.weight": "classifier.1.weight", "classifier.0.bias": "classifier.1.bias"}
    found = [mobile.get(n, n) if name == "mobilenet_v2" else n for n in names.values()]
    assert found == list(plain.state_dict())
    assert len(found) == NETWORKS[name]
    filters = next(count for start, count in FILTERS.items() if name.startswith(start))
    assert len(keys) - len(names) == filters


def test_published_numbers_of_keys():
    with torch.device("meta"):
        nets = {name: alexnet(4, torchvision.models.alexnet()) for name in ("alexnet",)}
        nets |= {name: vggs(4, getattr(torchvision.models, name)()) for name in ("vgg16", "vgg19_bn")}
        mobile = mobilenets(4, torchvision.models.mobilenet_v2())
    blurs = {n: [int(k.split(".")[1]) for k in net.state_dict() if k.endswith("filt")] for n, net in nets.items()}
    assert blurs == {"alexnet": [2, 4, 8, 16], "vgg16": [5, 11, 19, 27, 35], "vgg19_bn": [7, 15, 29, 43, 57]}
    found = [key for key in mobile.state_dict() if key.endswith("filt")]
    assert found == [f"features.{i}.conv.2.filt" for i in (2, 4, 7, 14)]


def wrong_filter(state):
    key = "layer2.0.conv3.0.filt"
    return state | {key: state[key].flip(0) * 1.2}


REFUSED = {
    "of filter size 4, and 'maxpool.blur' blurs with 3: pass antialias": (lambda net: antialias(net, 3), dict),
    "layer2.0.conv3.0.filt is no filter of an anti-aliased network": (lambda net: net, wrong_filter),
    "left over in the checkpoint: layer9": (lambda net: net, lambda s: s | {"layer9.weight": torch.ones(2)}),
    "missing from the checkpoint: conv1.weight": (
        lambda net: antialias(net, 4, stem_pool=3),
        lambda s: {k: v for k, v in s.items() if k != "conv1.weight"},
    ),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_does_not_fit_is_refused_and_nothing_changed(sentence):
    prepare, spoil = REFUSED[sentence]
    model, state = prepare(ours("resnet50")), dict(published("resnet50", 4).state_dict())
    modules, x = dict(model.named_modules()), torch.randn(1, 3, 64, 64)
    before = model(x)
    with pytest.raises(ValueError, match=sentence.replace(".", r"\.")):
        load_official(model, spoil(state))
    assert dict(model.named_modules()) == modules and torch.equal(model(x), before)


def test_another_filter_size_than_the_checkpoints_is_no_second_word():
    model = load_official(ours("resnet50"), published("resnet50", 4).state_dict())
    with pytest.raises(ValueError, match="anti-aliased already"):
        antialias(model, 3)
    assert antialias(model, 4) is model
    with pytest.raises(ValueError, match="anti-aliased already"):
        antialias(model, 4)


@pytest.mark.parametrize("stem_pool", [0, 1, 4, "2"])
def test_stem_pools_are_2_or_3(stem_pool):
    model = ours("resnet18")
    with pytest.raises(ValueError, match="stem_pool is 2"):
        antialias(model, stem_pool=stem_pool)
    assert not any(isinstance(module, BlurPool2d) for module in model.modules())
