"""Folded networks compute the same as before; norms that cannot be folded stay, and the report says why."""

import copy
import functools
import pickle
from collections import OrderedDict

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torchvision.models import densenet, mobilenetv2, resnet
from torchvision.ops import FrozenBatchNorm2d

from lightning_modules.classification.cifar_networks import cifar_network
from normshift import (
    AffineBatchNorm,
    BatchInstanceNorm2d,
    BlurPool2d,
    Formula,
    IBN2d,
    SwitchNorm1d,
    SwitchNorm2d,
    antialias,
    convert,
    fold,
    norm_layers,
    synchronize,
)
from normshift.layers import InstanceNorm2d
from tests.normshift.written_out import randomize

TINY = {"layers": (1, 1, 1, 1), "channels": (8, 16, 24, 32), "stem_width": 8, "num_classes": 5}
INVERTED = [[1, 8, 1, 1], [3, 8, 1, 2], [3, 16, 2, 2]]  # expansion, channels, blocks, stride


def deeplab():
    return smp.DeepLabV3Plus("tu-resnet10t", encoder_weights=None, decoder_channels=16, decoder_aspp_dropout=0.2)


FAMILIES = {
    "resnet18": lambda: resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], num_classes=5),
    "resnet50": lambda: resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 1], num_classes=5, width_per_group=4),
    "resnext50": lambda: resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 1], num_classes=5, groups=4, width_per_group=4),
    "mobilenet_v2": lambda: mobilenetv2.MobileNetV2(5, inverted_residual_setting=INVERTED),
    "densenet": lambda: densenet.DenseNet(8, (2, 2, 2), 16, num_classes=5),
    "timm-resnet18d": lambda: timm.create_model("resnet18d", **TINY),
    "timm-seresnet50": lambda: timm.create_model("seresnet50", **TINY),
    "timm-efficientnet": lambda: timm.create_model("test_efficientnet", num_classes=5, pad_type="same"),
    "cifar-resnet": lambda: cifar_network("cifar_resnet8", 5),
    "cifar-preresnet": lambda: cifar_network("cifar_preresnet11", 5),
    "cifar-wrn": lambda: cifar_network("cifar_wrn10_2", 5, width=0.5),
    "deeplab": deeplab,
}
COUNTS = {  # norms folded, folded by half, staying: of bn, and of ibn-a
    "resnet18": ((12, 0, 0), (9, 3, 0)),
    "resnet50": ((17, 0, 0), (14, 3, 0)),
    "resnext50": ((17, 0, 0), (14, 3, 0)),
    "mobilenet_v2": ((13, 0, 0), None),
    "densenet": ((7, 0, 9), (7, 0, 9)),  # norm1 follows a concatenation
    "timm-resnet18d": ((15, 0, 0), (12, 3, 0)),
    "timm-seresnet50": ((17, 0, 0), (14, 3, 0)),
    "timm-efficientnet": ((13, 0, 0), None),
    "cifar-resnet": ((7, 0, 0), (4, 3, 0)),
    "cifar-preresnet": ((7, 0, 3), (6, 1, 3)),  # a block's bn1 follows an addition, but the first one's the stem
    "cifar-wrn": ((4, 0, 3), (3, 1, 3)),
    "deeplab": ((23, 0, 0), (20, 3, 0)),
}
WITH_IBN_A = [name for name, (_, ibn) in COUNTS.items() if ibn]
WITH_IBN_B = [name for name in WITH_IBN_A if name != "densenet"]

every_family = pytest.mark.parametrize("name", FAMILIES)


@functools.cache
def _built(name):
    torch.manual_seed(1)
    return FAMILIES[name]()


def build(name, norm="bn"):
    """A network in evaluation mode and float64, whose norms have weights and statistics unlike those at the start."""
    return ready(convert(_built(name), norm, inplace=False))


def ready(model):
    for layer in norm_layers(model).values():
        randomize(layer)
        for key, weight in layer.named_parameters():
            if key.endswith("weight"):
                nn.init.uniform_(weight, 0.5, 1.5)
    return model.double().eval()


def images(size=48):
    return torch.randn(2, 3, size, size, dtype=torch.float64)


def counts(report):
    return len(report.folded), len(report.halved), len(report.staying)


@torch.no_grad()
def same_outputs(model, folded, x, tolerance=1e-11):
    expected, actual = model(x), folded(x)
    assert expected.std() > 0
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * expected.abs().max().item())


def outcome(report, name):
    return next(str(norm) for norm in report.norms if norm.name == name)


def in_a_row(**layers):
    return nn.Sequential(OrderedDict(layers))


# Networks


@every_family
def test_batch_norms_are_folded(name):
    model, x = build(name), images()
    folded, report = fold(model)
    assert counts(report) == COUNTS[name][0]
    assert type(folded) is type(model) and not any(module.training for module in folded.modules())
    assert tuple(norm_layers(folded)) == report.staying
    same_outputs(model, folded, x)


@every_family
def test_one_observed_pass_tells_the_same(name):
    model, x = build(name), images()
    folded, report = fold(model, example=x)
    assert [(n.name, n.into) for n in report.norms] == [(n.name, n.into) for n in fold(model)[1].norms]
    same_outputs(model, folded, x)


@pytest.mark.parametrize("name", WITH_IBN_A)
def test_of_ibn_a_the_instance_halves_stay(name):
    model, x = build(name, "ibn-a"), images()
    folded, report = fold(model)
    assert counts(report) == COUNTS[name][1]
    assert {f"{norm}.IN" for norm in report.halved} <= set(norm_layers(folded))
    same_outputs(model, folded, x)


@pytest.mark.parametrize("name", WITH_IBN_B)
def test_of_ibn_b_the_instance_norms_stay(name):
    model, x = build(name, "ibn-b"), images()
    folded, report = fold(model)
    staying = {n for n, layer in norm_layers(model).items() if isinstance(layer, InstanceNorm2d)}
    assert staying <= set(report.staying) and report.folded
    assert "each image" in outcome(report, sorted(staying)[0])
    same_outputs(model, folded, x)


@pytest.mark.parametrize(
    ("name", "norm"), [(n, norm) for n in FAMILIES for norm in ("sn", "bin")] + [("resnet18", "in"), ("resnet18", "gn")]
)
def test_norms_with_statistics_of_each_image_all_stay(name, norm):
    model, x = build(name, norm), images()
    folded, report = fold(model)
    assert counts(report) == (0, 0, len(norm_layers(model)))
    assert all("each image" in str(norm) for norm in report.norms)
    same_outputs(model, folded, x, tolerance=0)


@every_family
def test_batch_instance_norm_that_never_left_batch_norm_folds_like_it(name):
    model, x = build(name, "bin"), images()
    for layer in norm_layers(model).values():
        nn.init.ones_(layer.rho)
    folded, report = fold(model)
    assert counts(report) == COUNTS[name][0]
    same_outputs(model, folded, x)


@pytest.mark.parametrize("name", ["resnet50", "timm-resnet18d", "mobilenet_v2", "deeplab"])
def test_anti_aliased_networks(name):
    model, x = antialias(build(name)).eval(), images()
    assert any(isinstance(module, BlurPool2d) for module in model.modules())
    folded, report = fold(model)
    assert len(report.folded) >= 0.6 * len(report.norms)
    same_outputs(model, folded, x)


def test_networks_converted_for_several_processes():
    model, x = synchronize(build("resnet18", "ibn-a")), images()
    folded, report = fold(model)
    assert counts(report) == (9, 3, 0)
    same_outputs(model, folded, x)


# Layers


def pair(layer, norm, *more):
    return ready(nn.Sequential(layer, norm, *more))


def switch(layer, channels):
    return layer(channels, statistics=("bn",))


LAYERS = {
    "conv without bias": lambda: (nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), (3, 9, 9)),
    "conv with bias": lambda: (nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), (3, 9, 9)),
    "reflecting": lambda: (nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(8), (3, 9, 9)),
    "grouped": lambda: (nn.Conv2d(6, 12, 3, groups=3), nn.BatchNorm2d(12), (6, 9, 9)),
    "conv1d": lambda: (nn.Conv1d(3, 8, 3, bias=False), nn.BatchNorm1d(8), (3, 9)),
    "conv3d": lambda: (nn.Conv3d(3, 8, 3), nn.BatchNorm3d(8), (3, 5, 5, 5)),
    "transposed": lambda: (nn.ConvTranspose2d(6, 4, 3, 2, output_padding=1), nn.BatchNorm2d(4), (6, 5, 5)),
    "transposed, grouped": lambda: (nn.ConvTranspose2d(6, 12, 3, 2, groups=3), nn.BatchNorm2d(12), (6, 5, 5)),
    "transposed 1d": lambda: (nn.ConvTranspose1d(4, 6, 3, 2, groups=2, bias=False), nn.BatchNorm1d(6), (4, 5)),
    "transposed 3d": lambda: (nn.ConvTranspose3d(4, 6, 3, groups=2), nn.BatchNorm3d(6), (4, 3, 3, 3)),
    "linear": lambda: (nn.Linear(6, 8), nn.BatchNorm1d(8), (6,)),
    "linear without bias": lambda: (nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), (6,)),
    "without affine": lambda: (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False), (3, 9, 9)),
    "frozen": lambda: (nn.Conv2d(3, 8, 3), FrozenBatchNorm2d(8), (3, 9, 9)),
    "synchronised": lambda: (nn.Conv2d(3, 8, 3), nn.SyncBatchNorm(8), (3, 9, 9)),
    "this library's": lambda: (nn.Conv2d(3, 8, 3), synchronize(nn.BatchNorm2d(8)), (3, 9, 9)),
    "averaging instance norm": lambda: (
        nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8, affine=True, track_running_stats=True), (3, 9, 9),
    ),
    "switchable": lambda: (nn.Conv2d(3, 8, 3), switch(SwitchNorm2d, 8), (3, 9, 9)),
    "switchable 1d": lambda: (nn.Linear(6, 8), switch(SwitchNorm1d, 8), (6,)),
}  # fmt: skip


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_layers_and_norms_that_fold(make):
    layer, norm, shape = make()
    model = pair(layer, norm)
    for options in ({}, {"example": torch.randn(2, *shape, dtype=torch.float64)}):
        folded, report = fold(model, **options)
        assert str(report.norms[0]) == "folded into 0"
        assert isinstance(folded[1], nn.Identity)
        assert folded[0].weight.shape == layer.weight.shape
        same_outputs(model, folded, torch.randn(4, *shape, dtype=torch.float64), 1e-13)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("layer", [lambda: nn.Conv2d(4, 10, 3), lambda: nn.ConvTranspose2d(4, 10, 3, groups=2)])
def test_ibn_halves_on_either_side(layer, first):
    model = pair(layer(), IBN2d(10, ratio=0.4, instance_first=first))
    folded, report = fold(model)
    assert str(report.norms[0]).startswith("BN half folded into 0; IN half stays (4 of 10 channels)")
    assert list(folded.state_dict()) == ["0.weight", "0.bias", "1.IN.weight", "1.IN.bias"]
    same_outputs(model, folded, torch.randn(2, 4, 7, 7, dtype=torch.float64), 1e-13)


@pytest.mark.parametrize("norm", ["bn", "ibn-a"])
def test_an_activation_fused_into_the_norm_is_kept(norm):
    fused = timm.layers.BatchNormAct2d(8, act_layer=nn.PReLU)
    model = convert(nn.Sequential(nn.Conv2d(3, 8, 3), fused), norm, where="*")
    folded, report = fold(ready(model))
    assert report.norms[0].into == "0"
    assert sum(isinstance(module, nn.PReLU) for module in folded.modules()) == 1
    same_outputs(model, folded, images(9), 1e-13)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2), (torch.float16, 4e-3)])
def test_narrow_types_are_rounded_once(dtype, tolerance):
    model = pair(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).to(dtype)
    folded, _ = fold(model)
    assert {p.dtype for p in folded.parameters()} == {dtype}
    same_outputs(model, folded, images(9).to(dtype), tolerance)


def test_identities_and_dropout_between_do_not_matter():
    model = ready(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Identity(), nn.Dropout2d(0.5), nn.BatchNorm2d(8)))
    for options in ({}, {"example": images(9)}):
        folded, report = fold(model, **options)
        assert outcome(report, "3") == "folded into 0"
        same_outputs(model, folded, images(9))


# What stays, and why


class Net(nn.Module):
    """A convolution, a norm, and a user's own way through them."""

    def __init__(self, way=None, norm=None):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.bn = nn.BatchNorm2d(8) if norm is None else norm
        self.other = nn.Conv2d(3, 8, 3)
        self.way = way

    def forward(self, x):
        return self.way(self, x)


def changed(change, net=None):
    """A network after a change."""
    net = Net(lambda m, x: m.bn(m.conv(x))) if net is None else net
    change(net)
    return net


class OwnConv(nn.Conv2d):
    def forward(self, x):
        return F.conv2d(x, self.weight / self.weight.std(), self.bias)


class OwnNorm(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x) * 2


class Shared(nn.Module):
    """Two convolutions, one of them with a norm of its own, and a norm for both."""

    def __init__(self, layer):
        super().__init__()
        self.a, self.b, self.bn = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8)
        self.again = nn.ModuleDict({"bn": self.bn if layer == "norm" else nn.BatchNorm2d(8)})
        self.second = self.b if layer == "norm" else self.a

    def forward(self, x):
        return self.bn(self.a(x)) + self.again["bn"](self.second(x))


def averaging_less(net):
    net.bn = nn.BatchNorm2d(8, track_running_stats=False)


STAYING = {  # why, as the report says it -> the network, and whether an observed pass tells the same
    "the output of conv is used elsewhere": lambda: Net(lambda m, x: (y := m.conv(x)) + m.bn(y)),
    "the output of conv is used elsewhere, too": lambda: Net(lambda m, x: (y := m.conv(x), y.relu_(), m.bn(y))[2]),
    "conv before it is shared: it runs 2 times": lambda: Net(lambda m, x: m.bn(m.conv(x)) + m.conv(x)),
    "it is shared: it runs 2 times": lambda: Net(lambda m, x: m.bn(m.conv(x)) + m.bn(m.other(x))),
    "it does not run": lambda: Net(lambda m, x: m.conv(x)),
    "the weights of conv are used elsewhere": lambda: Net(lambda m, x: m.bn(m.conv(x)) * m.conv.weight.sum()),
    "its weights are used elsewhere": lambda: Net(lambda m, x: m.bn(m.conv(x)) * m.bn.weight[:, None, None]),
    "the network holds it outside": lambda: changed(
        lambda m: setattr(m, "order", [m.conv, m.bn]), Net(lambda m, x: m.order[1](m.order[0](x)))
    ),
    "no convolution or linear layer comes directly before it": lambda: Net(lambda m, x: m.bn(m.conv(x).relu())),
    "comes directly before it": lambda: Net(lambda m, x: m.conv(m.bn(x)), nn.BatchNorm2d(3)),
    "it has hooks": lambda: changed(lambda m: m.bn.register_forward_hook(lambda *_: None)),
    "conv before it has hooks": lambda: changed(lambda m: m.conv.register_forward_hook(lambda *_: None)),
    "the weight of conv is computed anew": lambda: changed(lambda m: parametrizations.weight_norm(m.conv)),
    "a OwnConv, has a forward of its own": lambda: changed(lambda m: setattr(m, "conv", OwnConv(3, 8, 3))),
    "its class OwnNorm has a forward of its own": lambda: changed(lambda m: setattr(m, "bn", OwnNorm(8))),
    "it has no running statistics": lambda: changed(averaging_less),
    "as a mixture of in, bn": lambda: changed(lambda m: setattr(m, "bn", SwitchNorm2d(8, statistics=("in", "bn")))),
}
ON_PAPER = {  # what a forward says better than a pass
    "but 'act', a ReLU": lambda: in_a_row(conv=nn.Conv2d(3, 8, 1), act=nn.ReLU(), bn=nn.BatchNorm2d(8)),
    "but 'b.blur', a BlurPool2d": lambda: in_a_row(
        conv=nn.Conv2d(3, 8, 1), b=in_a_row(blur=BlurPool2d(8)), bn=nn.BatchNorm2d(8)
    ),
    "but the network's input": lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 8, 1)),
    "but the function add": lambda: Net(lambda m, x: m.bn(m.conv(x) + m.other(x))),
}  # fmt: skip


@pytest.mark.parametrize(("why", "make"), (STAYING | ON_PAPER).items(), ids=STAYING | ON_PAPER)
def test_what_stays_says_why(why, make):
    model, x = ready(make()), images(9)
    folded, report = fold(model)
    assert len(report.staying) == 1 and why in str(report)
    same_outputs(model, folded, x, tolerance=0)
    if why in STAYING:
        folded, report = fold(model, example=x)
        assert len(report.staying) == 1 and why in str(report)
        same_outputs(model, folded, x, tolerance=0)


def test_a_gate_that_left_batch_norm_in_some_channels_keeps_its_norm():
    model = ready(changed(lambda m: setattr(m, "bn", BatchInstanceNorm2d(8))))
    with torch.no_grad():
        model.bn.rho.copy_(torch.tensor([1, 1, 1, 0.5, 1, 0, 1, 1]))
    folded, report = fold(model)
    assert "where rho is below 1, in 2 of 8 channels" in outcome(report, "bn")
    same_outputs(model, folded, images(9), tolerance=0)


@pytest.mark.parametrize("layer", ["norm", "conv"])
def test_modules_called_twice_are_left_alone(layer):
    model = ready(Shared(layer))
    for options in ({}, {"example": images(9)}):
        folded, report = fold(model, **options)
        assert not report.folded and "shared: it runs 2 times" in str(report)
        same_outputs(model, folded, images(9), tolerance=0)


def test_a_norm_under_two_names_is_replaced_under_both():
    model = Net(lambda m, x: m.bn(m.conv(x)))
    model.alias = model.bn
    folded, report = fold(ready(model))
    assert report.folded == ("bn",) and folded.alias is folded.bn
    same_outputs(model, folded, images(9))


def test_a_weight_that_two_convolutions_share_is_changed_in_one():
    model = Net(lambda m, x: m.bn(m.conv(x)) + m.other(x))
    model.other.weight = model.conv.weight
    folded, report = fold(ready(model))
    assert report.folded == ("bn",)
    same_outputs(model, folded, images(9))


def test_reading_a_shape_is_no_use_of_the_numbers():
    def way(model, x):
        y = model.conv(x)
        return F.interpolate(model.bn(y), size=[2 * s for s in (y.shape[2], y.size(3))])

    model = ready(Net(way))
    for options in ({}, {"example": images(9)}):
        folded, report = fold(model, **options)
        assert report.folded == ("bn",)
        same_outputs(model, folded, images(9))


# Forwards that cannot be traced


class Branching(nn.Module):
    """Asks for numbers on its way, and calls a layer of a part of its own."""

    def __init__(self):
        super().__init__()
        self.stem = in_a_row(conv0=nn.Conv2d(3, 4, 3), norm0=nn.BatchNorm2d(4), act=nn.ReLU())
        self.blocks = nn.ModuleList([nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)) for _ in range(2)])
        self.conv, self.bn = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        skip = self.stem.conv0(x)
        x = self.blocks[0](self.stem.act(self.stem.norm0(skip)))
        if x.mean() > -1e9:
            x = self.blocks[1](x)
        return self.bn(self.conv(x)) + skip.mean()


def test_a_forward_that_cannot_be_traced_costs_what_it_calls_itself():
    model, x = ready(Branching()), images(15)
    folded, report = fold(model)
    assert report.folded == ("blocks.0.1", "blocks.1.1")
    for name in ("stem.norm0", "bn"):
        assert "the forward of the network, a Branching, cannot be traced" in outcome(report, name)
    same_outputs(model, folded, x)


def test_such_a_forward_costs_its_callers_nothing():
    model, x = ready(nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), Branching())), images(17)
    folded, report = fold(model)
    assert report.folded == ("1", "2.blocks.0.1", "2.blocks.1.1")
    assert "the forward of '2', a Branching, cannot be traced" in outcome(report, "2.bn")
    same_outputs(model, folded, x)


def test_a_module_that_the_network_does_not_own_is_not_followed():
    outside = nn.Sequential(nn.ReLU())
    model = ready(nn.Sequential(Net(lambda m, x: outside(m.bn(m.conv(x)))), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)))
    folded, report = fold(model)
    assert report.folded == ("2",)
    same_outputs(model, folded, images(9))


def test_an_example_tells_what_tracing_cannot():
    model, x = ready(Branching()), images(15)
    folded, report = fold(model, example=x)
    assert report.folded == ("blocks.0.1", "blocks.1.1", "bn")
    assert "the output of stem.conv0 is used elsewhere" in outcome(report, "stem.norm0")
    same_outputs(model, folded, x)


def test_hooks_of_containers_are_a_border():
    """They may look at all that goes in and out, so a convolution may not change on one side of them."""
    seen = []
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 8, 3)), nn.BatchNorm2d(8))
    model[0].register_forward_hook(lambda module, inputs, output: seen.append(output))
    folded, report = fold(ready(model))
    assert report.folded == ("0.1",) and not seen
    assert "but '0', a Sequential" in outcome(report, "1")
    same_outputs(model, folded, images(9))


def test_a_forward_exchanged_on_one_object_is_the_one_that_counts():
    model = ready(nn.Sequential(Net(lambda m, x: m.bn(m.conv(x)))))
    model[0].forward = lambda x: model[0].bn(model[0].conv(x)) + model[0].conv(x)
    _, report = fold(model, inplace=True)
    assert "conv before it is shared" in outcome(report, "0.bn")
    model = ready(Net(lambda m, x: m.bn(m.conv(x))))
    model.forward = lambda x: model.bn(model.conv(x)) + model.conv(x)
    _, report = fold(model, inplace=True)
    assert "cannot be traced" in outcome(report, "bn")


def test_wrapped_networks():
    model, x = build("resnet18"), images()
    folded, report = fold(nn.DataParallel(model).eval())
    assert counts(report) == COUNTS["resnet18"][0]
    same_outputs(model, folded.module, x)


def test_tracing_leaves_nothing_behind():
    def way(model, x):
        model.last = model.first = model.conv(x)
        return model.bn(model.last)

    model = ready(Net(way))
    model.first = None
    _, report = fold(model, inplace=True)
    assert model.first is None and not hasattr(model, "last") and report.folded == ("bn",)


def test_arguments_with_defaults_are_as_if_not_given():
    class Optional(Net):
        def forward(self, x, scale=None, *, raw=False):
            y = self.conv(x)
            return y if raw else self.bn(y) * (1 if scale is None else scale)

    assert fold(ready(Optional()))[1].folded == ("bn",)


def test_linear_layers_over_tokens_are_told_apart_by_an_example():
    """A norm takes the second axis for the channels, a linear layer the last."""
    model = pair(nn.Linear(6, 8), nn.BatchNorm1d(8))
    x = torch.randn(2, 8, 6, dtype=torch.float64)
    folded, report = fold(model, example=x)
    assert not report.folded
    same_outputs(model, folded, x, tolerance=0)


# What comes back


def test_training_mode_is_refused_in_a_sentence():
    model = build("resnet18")
    with pytest.raises(ValueError, match=r"for inference, and this ResNet is in training mode: call model.eval\(\) fi"):
        fold(copy.deepcopy(model).train())
    model.layer1[0].bn1.train()
    with pytest.raises(ValueError, match=r"'layer1.0.bn1' is in training mode: call model.eval"):
        fold(model)


def test_the_original_stays_unless_in_place():
    model, x = build("resnet18", "ibn-a"), images()
    before, keys = model(x), {key: value.clone() for key, value in model.state_dict().items()}
    folded, _ = fold(model)
    assert folded is not model and model.state_dict().keys() == keys.keys()
    assert all(torch.equal(value, keys[key]) for key, value in model.state_dict().items())
    assert torch.equal(model(x), before)
    same, _ = fold(model, inplace=True)
    assert same is model and model.state_dict().keys() == folded.state_dict().keys() != keys.keys()
    torch.testing.assert_close(model(x), folded(x), rtol=0, atol=0)


@pytest.mark.parametrize("norm", ["bn", "ibn-a"])
def test_the_result_saves_copies_and_compiles(norm):
    model, x = build("timm-resnet18d", norm), images()
    folded, _ = fold(model)
    other, _ = fold(build("timm-resnet18d", norm))
    other.load_state_dict(folded.state_dict())
    for again in (other, copy.deepcopy(folded), pickle.loads(pickle.dumps(folded))):
        same_outputs(folded, again, x, tolerance=0)
    same_outputs(model, torch.compile(folded, backend="aot_eager", fullgraph=True), x)
    assert not fold(folded)[1].folded


def test_what_does_not_train_still_does_not():
    model = pair(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)).requires_grad_(False)
    folded, _ = fold(model)
    assert [p.requires_grad for p in folded.parameters()] == [False, False]


def test_the_report_is_a_table_with_a_sum():
    first = {"conv": nn.Conv2d(3, 8, 3), "bn": nn.BatchNorm2d(8)}
    model = in_a_row(**first, head=nn.Conv2d(8, 4, 1), norm=IBN2d(4), last=nn.GroupNorm(1, 4))
    _, report = fold(model.eval())
    assert str(report).splitlines() == [
        "bn    BatchNorm2d  folded into conv",
        "norm  IBN2d        BN half folded into head; IN half stays (2 of 4 channels): "
        "its statistics come from each image",
        "last  GroupNorm    stays: its statistics come from each image",
        "3 norm layers: 1 folded, 1 by half, 1 as before.",
    ]
    assert (report.folded, report.halved, report.staying) == (("bn",), ("norm",), ("last",))
    assert str(fold(nn.ReLU().eval())[1]) == "0 norm layers: 0 folded, 0 by half, 0 as before."


class TemperedFormula(Formula):
    """Batch norm, whose standard deviation has an exponent of its own in each channel."""

    def __init__(self, eps):
        self.eps = eps

    def __call__(self, moments, batch, weight, bias, power):
        scale = weight * (batch.var + self.eps) ** (-power.sigmoid())
        return scale, bias + scale * (moments.mean - batch.mean)

    def own_moments(self, channels, training):
        return slice(0, channels if training else 0)


class TemperedNorm(AffineBatchNorm):
    def __init__(self, num_features):
        super().__init__(num_features)
        self.power = nn.Parameter(torch.zeros(num_features))

    def formula(self):
        return TemperedFormula(self.eps)

    def formula_parameters(self):
        return self.weight, self.bias, self.power


@pytest.mark.parametrize("conv", [nn.Conv2d(3, 4, 3, bias=False), nn.ConvTranspose2d(3, 4, 2)])
def test_a_users_norm_that_takes_nothing_of_each_image_is_folded(conv):
    norm = TemperedNorm(4)
    for value in (*norm.parameters(), norm.running_mean):
        nn.init.normal_(value)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    model, x = nn.Sequential(conv, norm, nn.ReLU()).eval(), torch.randn(2, 3, 8, 8)
    folded, report = fold(model)
    assert report.folded == ("1",) and type(folded[1]) is nn.Identity
    torch.testing.assert_close(folded(x), model(x))
