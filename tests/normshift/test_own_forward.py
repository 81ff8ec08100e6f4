"""A norm layer's own forward through exchanges: it stays, or the exchange is refused."""

import copy
import pickle

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn
from torchvision.ops import FrozenBatchNorm2d as TorchvisionsFrozen

from normshift import convert, norm_layers, synchronize
from normshift.exchange.own_forward import OwnForward
from normshift.layers import BatchNorm
from tests.normshift.exchanging import (
    KEEPING,
    WithReLU,
    close,
    converting,
    maps,
    randomize,
    refused,
    same_function,
)


class Written(nn.BatchNorm2d):
    def forward(self, x):
        averages = self.running_mean, self.running_var
        return F.relu(F.batch_norm(x, *averages, self.weight, self.bias, self.training, self.momentum, self.eps))


class Leaky(nn.BatchNorm2d):
    slope = 0.2

    def forward(self, x):
        return F.leaky_relu(super().forward(x), self.slope).clamp(max=30)


class WithPReLU(nn.BatchNorm2d):
    def __init__(self, channels):
        super().__init__(channels)
        self.act = nn.PReLU()

    def forward(self, x):
        return self.act(super().forward(x))


class InFloat(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x.to(self.weight.dtype)).to(x.dtype)


class Unused(nn.BatchNorm2d):
    """Its child does not run."""

    def __init__(self, channels):
        super().__init__(channels)
        self.act = nn.ReLU()


class Counting(nn.BatchNorm1d):
    def forward(self, x):
        return F.elu(super().forward(x))


FORWARDS = {
    "relu": lambda: WithReLU(8),
    "written out": lambda: Written(8),
    "leaky": lambda: Leaky(8),
    "child": lambda: WithPReLU(8),
    "in float": lambda: InFloat(8),
    "unused child": lambda: Unused(8),
    "timm's": lambda: timm.layers.BatchNormAct2d(8, act_layer=nn.SiLU),
    "timm's with dropout": lambda: timm.layers.BatchNormAct2d(8, act_layer=nn.PReLU, drop_layer=nn.Dropout2d),
    "without affine": lambda: WithReLU(8, affine=False),
    "without averages": lambda: WithReLU(8, track_running_stats=False),
    "bare": lambda: WithReLU(8, affine=False, track_running_stats=False),
    "cumulative": lambda: Leaky(8, momentum=None),
}  # fmt: skip


@pytest.mark.parametrize("how", KEEPING)
@pytest.mark.parametrize("make", FORWARDS.values(), ids=FORWARDS)
def test_a_forward_of_its_own_stays(make, how):
    model = randomize(nn.Sequential(nn.Conv2d(3, 8, 1), make()))
    same_function(model, how, maps(4, 3, 5, 5))


@pytest.mark.parametrize("norm", ["bn", "in", "gn", "sn", "bin", "ibn-a"])
def test_other_norms_keep_what_runs_behind(norm):
    own, plain = randomize(nn.Sequential(WithReLU(8))), nn.Sequential(nn.BatchNorm2d(8))
    plain.load_state_dict(own.state_dict())
    plain, x = convert(plain, norm, where="0"), maps()
    expected = copy.deepcopy(plain)(x)
    model = copy.deepcopy(convert(own, norm, where="0"))
    close(model(x), expected.relu())
    assert set(model.state_dict()) == set(plain.state_dict())
    plain(x)
    close(pickle.loads(pickle.dumps(model)).eval()(x), plain.eval()(x).relu())


def test_a_norm_of_vectors_keeps_its_forward():
    model = randomize(nn.Sequential(nn.Linear(6, 8), Counting(8)))
    for how in ("synchronize", "bin"):
        same_function(model, how, maps(5, 6))
        same_function(nn.Sequential(model[1]), how, maps(5, 8, 3))


def test_what_stays_of_a_forward_is_no_norm_layer():
    model = synchronize(nn.Sequential(WithReLU(8, momentum=None)))
    assert list(norm_layers(model)) == ["0"] and isinstance(model[0], BatchNorm)
    before = copy.deepcopy(model[0].own_forward.layer.state_dict(keep_vars=True))
    update_bn([maps() for _ in range(3)], model)
    x = maps()
    assert torch.equal(model[0].own_forward(x), x.relu()) and model[0].own_forward.layer.state_dict() == before
    model.train()
    assert not model[0].own_forward.layer.training and torch.equal(model[0].own_forward(x), x.relu())


def test_a_network_of_the_meta_device_gets_its_forward_back():
    with torch.device("meta"):
        made, converted = nn.Sequential(WithReLU(8)), convert(nn.Sequential(WithReLU(8)), "bin")
    for model in (convert(made, "bin"), converted):
        model.to_empty(device="cpu")
        for module in model.modules():
            if isinstance(module, OwnForward):
                module.reset_parameters()
        x = maps()
        assert torch.equal(model[0].own_forward(x), x.relu())


class Before(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x.sign() * x.abs().sqrt())


class Scaled(nn.BatchNorm2d):
    def __init__(self, channels):
        super().__init__(channels)
        self.alpha = nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        return self.alpha * super().forward(x)


class Noisy(nn.BatchNorm2d):
    def forward(self, x):
        return F.dropout(super().forward(x), training=self.training)


class Conditional(nn.BatchNorm2d):
    def forward(self, x, scale):
        return super().forward(x) * scale


class GroupReLU(nn.GroupNorm):
    def forward(self, x):
        return F.relu(super().forward(x))


def patched():
    layer = nn.BatchNorm2d(8)
    layer.forward = lambda x: nn.BatchNorm2d.forward(layer, x).relu()
    return layer


UNKNOWN = {
    "something before": lambda: Before(8),
    "parameters": lambda: Scaled(8),
    "training": lambda: Noisy(8),
    "arguments": lambda: Conditional(8),
    "split": lambda: timm.layers.SplitBatchNorm2d(8),
    "one object's": patched,
}


@pytest.mark.parametrize("how", ["synchronize", "bin", "syncbn"])
@pytest.mark.parametrize("make", UNKNOWN.values(), ids=UNKNOWN)
def test_a_forward_that_nobody_knows_is_refused(make, how):
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 8, 1), make())
    refused(model, KEEPING[how], "'2', a [A-Za-z0-9]*, has a forward of its own")


def test_so_is_that_of_a_group_norm():
    refused(nn.Sequential(nn.GroupNorm(2, 8), GroupReLU(2, 8)), converting("sn"), "'1', a GroupReLU, has a forward")


class FrozenBatchNormWithReLU(TorchvisionsFrozen):
    def forward(self, x):
        return super().forward(x).relu()


class FrozenBatchNorm2d(nn.Module):
    """As in detection libraries, which keep no eps."""

    def __init__(self, channels):
        super().__init__()
        for key in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(key, torch.rand(channels) + 0.5)

    def forward(self, x):
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        return x * scale[:, None, None] + (self.bias - self.running_mean * scale)[:, None, None]


FROZEN = {
    "torchvision's": lambda: TorchvisionsFrozen(8),
    "eps": lambda: TorchvisionsFrozen(8, eps=1e-2),
    "timm's": lambda: timm.layers.FrozenBatchNormAct2d(8),
    "with an activation": lambda: FrozenBatchNormWithReLU(8),
    "without eps": lambda: FrozenBatchNorm2d(8),
}


@pytest.mark.parametrize("how", ["synchronize", "bn", "bin", "sn and back", "syncbn", "fold"])
@pytest.mark.parametrize("make", FROZEN.values(), ids=FROZEN)
def test_frozen_norms_evaluate_as_before(make, how):
    model, x = randomize(nn.Sequential(nn.Conv2d(3, 8, 1), make())).eval(), maps(4, 3, 5, 5)
    exchanged = KEEPING[how](copy.deepcopy(model))
    close(exchanged(x), model(x))
    if how == "bin":
        assert [n for n, p in exchanged[1].named_parameters() if p.requires_grad] == ["rho"]
