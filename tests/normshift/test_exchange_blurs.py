"""Anti-aliasing and folding of layers with forwards of their own: the same output, or an error."""

import copy
from collections import OrderedDict

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import FrozenBatchNorm2d

from normshift import BlurPool2d, antialias, convert, fold, norm_layers, synchronize
from tests.normshift.exchanging import WithReLU, close, randomize, refused
from tests.normshift.test_own_forward import FrozenBatchNormWithReLU


def behind(*layers):
    return nn.Sequential(nn.Conv2d(3, 4, 1), *layers)


def images(*shape):
    return torch.randn(*shape or (2, 3, 17, 16))


# Layers that subsample in a way of their own


class Hard(nn.Conv2d):
    """Its forward ignores its stride."""

    def forward(self, x):
        return F.conv2d(x, self.weight, self.bias, stride=2, padding=1)


class Standardized(nn.Conv2d):
    def forward(self, x):
        weight = self.weight / self.weight.std()
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class Conditional(nn.Conv2d):
    def forward(self, x, y):
        return super().forward(x) + y


class HardPool(nn.MaxPool2d):
    def forward(self, x):
        return F.max_pool2d(x, 2, 2)


class Averaging(nn.AvgPool2d):
    def forward(self, x):
        return super().forward(x).relu()


class Rectifying(nn.MaxPool2d):
    def forward(self, x):
        return super().forward(x).relu()


def patched(layer):
    layer.forward = lambda x: type(layer).forward(layer, x)
    return layer


REFUSED = {
    "Hard": lambda: behind(Hard(4, 4, 3, 2, 1), nn.ReLU()),
    "Conditional": lambda: behind(Conditional(4, 4, 3, 2, 1), nn.ReLU()),
    "HardPool": lambda: behind(HardPool(2)),
    "Averaging": lambda: behind(Averaging(2)),
    "Conv2d": lambda: behind(patched(nn.Conv2d(4, 4, 3, 2, 1))),
    "MaxPool2d": lambda: behind(patched(nn.MaxPool2d(2))),
    "AvgPool2d": lambda: behind(patched(nn.AvgPool2d(2))),
}


@pytest.mark.parametrize(("kind", "make"), REFUSED.items(), ids=REFUSED)
def test_a_way_of_its_own_to_subsample_is_refused(kind, make):
    model = make()
    model.add_module("last", nn.MaxPool2d(2))
    stride = model[1].stride
    refused(model, antialias, f"cannot tell how '1', a {kind} with a forward of its own, subsamples")
    assert model[1].stride == stride


@pytest.mark.parametrize("layer", [Standardized(4, 4, 3, 2, 1), Rectifying(2), Rectifying(3, 2, 1)], ids=repr)
def test_a_forward_that_follows_its_stride_stays(layer):
    model, x = behind(layer), images()
    close(antialias(copy.deepcopy(model), 1)(x), model(x))


class Listing(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.pool = nn.Conv2d(3, 4, 1), nn.MaxPool2d(2)
        self.steps = [self.stem, self.pool]

    def forward(self, x):
        return self.steps[1](self.steps[0](x))


def test_a_pool_that_a_list_holds_is_refused():
    refused(Listing(), antialias, "cannot replace 'pool': it is also held in 'steps' of 'the network'")


# Where a blur stands


class InFrontOfContainer(nn.Module):
    """An activation as a function, and then a container that runs all its children."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, 2, 1)
        self.tail = nn.Sequential(nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()), nn.Conv2d(4, 2, 1))

    def forward(self, x):
        return self.tail(F.relu(self.conv(self.stem(x))))


class InContainer(InFrontOfContainer):
    """A container that is the activation."""

    def __init__(self):
        super().__init__()
        self.act = nn.Sequential(nn.Dropout(0.1), nn.Sequential(nn.ReLU()))

    def forward(self, x):
        return self.tail(self.act(self.conv(self.stem(x))))


@pytest.mark.parametrize("kind", [InFrontOfContainer, InContainer])
def test_a_blur_beside_a_container_runs_once(kind):
    model, x = kind().eval(), images()
    dense = F.conv2d(model.stem(x), model.conv.weight, model.conv.bias, padding=1)
    expected = model.tail(BlurPool2d(4)(dense.relu()))
    close(antialias(copy.deepcopy(model))(x), expected)
    close(antialias(copy.deepcopy(model), 1)(x), model(x))


class Preactivated(nn.Module):
    """A norm that follows an activation without a module: the blur stands before the norm."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv, self.bn = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, 2, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.bn(F.relu(self.conv(self.stem(x))))


@pytest.mark.parametrize("norm", ["in", "gn", "sn", "bin", "bn"])
@pytest.mark.parametrize("training", [False, True])
def test_a_blur_before_a_norm_stays_before_it(norm, training):
    model, x = randomize(Preactivated()).train(training), images()
    dense = F.conv2d(model.stem(x), model.conv.weight, model.conv.bias, padding=1)
    expected = convert(copy.deepcopy(model), norm).bn(BlurPool2d(4)(dense.relu()))
    for order in (lambda m: convert(antialias(m), norm), lambda m: antialias(convert(m, norm))):
        found = order(copy.deepcopy(model))
        assert isinstance(found.bn.blur_before, BlurPool2d)
        close(synchronize(found)(x), expected)


class NormLast(nn.Module):
    """A norm with its activation in it, whose output two take: the blur stands behind the norm itself."""

    def __init__(self, norm):
        super().__init__()
        self.stem, self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, 2, 1), norm

    def forward(self, x):
        y = self.norm(self.conv(self.stem(x)))
        return y * y.sigmoid()


NORMS = {
    "own forward": lambda: WithReLU(4),
    "timm's": lambda: timm.layers.BatchNormAct2d(4),
    "frozen": lambda: timm.layers.FrozenBatchNormAct2d(4),
    "frozen, own forward": lambda: FrozenBatchNormWithReLU(4),
}
EXCHANGES = {
    "synchronize": synchronize,
    "bin": lambda model: convert(model, "bin"),
    "sn and back": lambda model: convert(convert(model, "sn"), "bn"),
    "fold": lambda model: fold(model)[0],
    "synchronize, fold": lambda model: fold(synchronize(model))[0],
    "bin, fold": lambda model: fold(convert(model, "bin"))[0],
}


@pytest.mark.parametrize("how", EXCHANGES)
@pytest.mark.parametrize("make", NORMS.values(), ids=NORMS)
def test_blurs_stand_behind_what_a_norm_has_in_it(make, how):
    model, x = randomize(NormLast(make())).eval(), images()
    dense = F.conv2d(model.stem(x), model.conv.weight, model.conv.bias, padding=1)
    y = BlurPool2d(4)(model.norm(dense))
    for order in (lambda m: EXCHANGES[how](antialias(m)), lambda m: antialias(EXCHANGES[how](m))):
        close(order(copy.deepcopy(model))(x), y * y.sigmoid())


def test_hooks_of_a_norm_see_the_same_maps_in_either_order():
    seen = []
    for order in (lambda m: convert(antialias(m), "bin"), lambda m: antialias(convert(m, "bin"))):
        model = NormLast(timm.layers.BatchNormAct2d(4))
        model.norm.register_forward_hook(lambda module, inputs, y: seen.append(y.shape))
        order(model)(images())
    assert seen == [(2, 4, 17, 16)] * 2


# Folding


def in_a_row(**layers):
    return nn.Sequential(OrderedDict(layers)).eval()


def test_a_blur_behind_a_norm_is_no_reason_to_keep_it():
    model, x = randomize(NormLast(timm.layers.BatchNormAct2d(4))).eval(), images()
    model = antialias(model)
    folded, report = fold(model)
    assert report.folded == ("norm",)
    close(folded(x), model(x))


def test_a_frozen_norm_with_a_forward_of_its_own_is_not_folded_by_its_name():
    model, x = randomize(in_a_row(conv=nn.Conv2d(3, 4, 1), norm=FrozenBatchNormWithReLU(4))), images()
    folded, report = fold(model)
    assert "has a forward of its own" in str(report) and torch.equal(folded(x), model(x))
    plain = randomize(in_a_row(conv=nn.Conv2d(3, 4, 1), norm=FrozenBatchNorm2d(4)))
    assert fold(plain)[1].folded == ("norm",)


def test_what_runs_behind_an_exchanged_norm_outlives_folding():
    model, x = randomize(in_a_row(conv=nn.Conv2d(3, 4, 1), norm=WithReLU(4))), images()
    folded, report = fold(convert(copy.deepcopy(model), "bin"))
    assert report.folded == ("norm",) and not norm_layers(folded)
    close(folded(x), model(x))


def test_a_child_that_does_not_run_is_not_run_by_folding():
    norm = nn.BatchNorm2d(4)
    norm.act = nn.ReLU()
    model, x = randomize(in_a_row(conv=nn.Conv2d(3, 4, 1), norm=norm)), images()
    folded, report = fold(model)
    assert report.folded == ("norm",)
    close(folded(x), model(x))
