"""Switchable Normalization's published ResNets, v1 and v2, compute the same as ours."""

import copy
import re

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from lightning_modules.classification.backbones import build_backbone
from normshift import SwitchNorm1d, SwitchNorm2d, SwitchNorm3d, convert, load_official


class OfficialNorm(nn.Module):
    """The official 2d layer: unbiased variance over the positions, momentum as the share of the old average."""

    def __init__(self, channels, using_bn=True, momentum=0.9):
        super().__init__()
        self.momentum, count = momentum, 3 if using_bn else 2
        self.weight, self.bias = (nn.Parameter(torch.zeros(1, channels, 1, 1)) for _ in range(2))
        self.mean_weight, self.var_weight = (nn.Parameter(torch.ones(count)) for _ in range(2))
        if using_bn:
            for key in ("running_mean", "running_var"):
                self.register_buffer(key, torch.zeros(1, channels, 1))

    def forward(self, x):
        maps = x.flatten(2)
        mean, var = maps.mean(2), maps.var(2, correction=1)
        square = var + mean**2
        means, variances = [mean], [var]
        means.append(mean.mean(1, keepdim=True))
        variances.append(square.mean(1, keepdim=True) - means[-1] ** 2)
        if len(self.mean_weight) == 3:
            means.append(mean.mean(0, keepdim=True))
            variances.append(square.mean(0, keepdim=True) - means[-1] ** 2)
            averages = self.running_mean[..., 0], self.running_var[..., 0]
            if self.training:
                for average, value in zip(averages, (means[-1], variances[-1]), strict=True):
                    average.copy_(self.momentum * average + (1 - self.momentum) * value.detach())
            else:
                means[-1], variances[-1] = averages
        mu = sum(share * value for share, value in zip(self.mean_weight.softmax(0), means, strict=True))
        sigma = sum(share * value for share, value in zip(self.var_weight.softmax(0), variances, strict=True))
        y = (x - mu[..., None, None]) / (sigma[..., None, None] + 1e-5).sqrt()
        return self.weight * y + self.bias


def v1(norm):
    """torchvision's ResNet-50 with the official layers, and its keys under their names."""
    net = torchvision.models.resnet50(num_classes=7)
    for name, layer in list(net.named_modules()):
        if isinstance(layer, nn.BatchNorm2d):
            net.set_submodule(name, norm(layer.num_features))
    return net, lambda key: re.sub(r"\bbn(\d)", r"sn\1", key)


class V2Block(nn.Module):
    def __init__(self, before, out, stride, norm):
        super().__init__()
        inner = out // 4
        self.sn1, self.sn2, self.sn3 = norm(before), norm(inner), norm(inner)
        self.conv1 = nn.Conv2d(before, inner, 1, bias=False)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False)
        self.conv3 = nn.Conv2d(inner, out, 1, bias=False)
        if before != out or stride != 1:
            self.downsample = nn.Conv2d(before, out, 1, stride, bias=False)

    def forward(self, x):
        p = F.relu(self.sn1(x))
        y = self.conv3(F.relu(self.sn3(self.conv2(F.relu(self.sn2(self.conv1(p)))))))
        return y + (self.downsample(p) if hasattr(self, "downsample") else x)


class V2(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.conv1, self.sn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), norm(64)
        before = 64
        for stage, (out, blocks) in enumerate(zip((256, 512, 1024, 2048), (3, 4, 6, 3), strict=True), 1):
            first = V2Block(before, out, 1 if stage == 1 else 2, norm)
            setattr(
                self, f"layer{stage}", nn.Sequential(first, *(V2Block(out, out, 1, norm) for _ in range(blocks - 1)))
            )
            before = out
        self.sn_out, self.fc = norm(2048), nn.Linear(2048, 7)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.sn1(self.conv1(x))), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(F.relu(self.sn_out(x)).mean((2, 3)))


def v2(norm):
    return V2(norm), lambda key: key


def randomised(net):
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, OfficialNorm):
                for value in (module.weight, module.mean_weight, module.var_weight):
                    value.uniform_(0.5, 1.5)
                module.bias.normal_(std=0.2)
                if hasattr(module, "running_mean"):
                    module.running_mean.normal_(std=0.2), module.running_var.uniform_(0.5, 1.5)
    return net.double()


def far(actual, expected):
    return ((actual - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("using_bn", [True, False])
@pytest.mark.parametrize(
    ("make", "backbone"),
    [(v1, "torchvision/resnet50"), (v1, "resnet50"), (v2, "preresnet50")],
    ids=["v1", "timm", "v2"],
)
def test_a_published_network_is_the_same_function_in_both_modes(make, backbone, using_bn):
    torch.manual_seed(0)
    official, names = make(lambda channels: OfficialNorm(channels, using_bn))
    randomised(official)
    state = {f"module.{names(key)}": value.clone() for key, value in official.state_dict().items()}
    norm = "sn" if using_bn else "sn-in-ln"
    model = load_official(build_backbone(backbone, 7, norm=norm).double(), {"state_dict": state})
    x = torch.randn(3, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        assert far(model.eval()(x), official.eval()(x)) < 1e-9
        assert far(model.train()(x), official.train()(x)) < 1e-9
        assert far(model.eval()(x), official.eval()(x)) < 1e-9  # the averages have moved alike
    assert len(model.state_dict()) == len(state)


def test_in_single_precision_too():
    torch.manual_seed(0)
    official, names = v1(OfficialNorm)
    randomised(official).eval()
    model = load_official(
        build_backbone("resnet50", 7, norm="sn"), {names(k): v.float() for k, v in official.state_dict().items()}
    ).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert far(model(x).double(), official(x.double())) < 1e-5


def small(**options):
    return nn.Sequential(nn.Conv2d(3, 4, 1), SwitchNorm2d(4, **options))


def through_a_file(state, file):
    torch.save(state, file)
    return torch.load(file, weights_only=True)


def test_saving_and_copying_keep_the_convention(tmp_path):
    official, x = small(correction=1).eval(), torch.randn(2, 3, 5, 5)
    expected = official(x)
    state = through_a_file(official.state_dict(), tmp_path / "own.pth")
    assert list(state) == list(small().state_dict())
    for values in (state, dict(state)):  # with and without torch's note of versions
        again = small().eval()
        again.load_state_dict(values)
        assert torch.equal(again(x), expected) and again[1].correction == 1
    assert torch.equal(copy.deepcopy(official)(x), expected)
    assert torch.equal(load_official(small().eval(), state)(x), expected)
    assert torch.equal(torch.func.functional_call(official, state, (x,)), expected)
    averaged = torch.optim.swa_utils.AveragedModel(official)
    assert torch.equal(load_official(small().eval(), averaged.state_dict())(x), expected)


def test_a_biased_layers_state_dict_makes_a_layer_biased(tmp_path):
    biased, x = small().eval(), torch.randn(2, 3, 5, 5)
    state = through_a_file(biased.state_dict(), tmp_path / "own.pth")
    unbiased = small(correction=1).eval()
    unbiased.load_state_dict(state)
    assert torch.equal(unbiased(x), biased(x))
    assert torch.equal(load_official(small(correction=1).eval(), dict(state))(x), biased(x))


def test_state_dicts_from_before_leave_the_layer_as_it_is():
    state = dict(small().state_dict())  # no note of a version, as those had
    layer = small(correction=1)
    layer.load_state_dict(state)
    assert layer[1].correction == 1


@pytest.mark.parametrize(
    ("kind", "shape", "momentum"), [(SwitchNorm2d, (1, 4, 1, 1), 0.1), (SwitchNorm3d, (1, 4, 1, 1, 1), 0.003)]
)
def test_momentum_and_eps_are_those_of_the_official_layers(kind, shape, momentum):
    layer = kind(4, eps=1e-3, momentum=0.5)
    state = {key: torch.rand(shape) for key in ("weight", "bias")} | {
        f"{k}_weight": torch.rand(3) for k in ("mean", "var")
    }
    load_official(layer, state | {key: torch.rand(1, 4, 1) for key in ("running_mean", "running_var")})
    assert (layer.correction, layer.momentum, layer.eps) == (1, momentum, 1e-5)


def official_1d(x, state, training):
    """Gates [LN, BN]; both variances unbiased."""
    statistics = [(x.mean(1, keepdim=True), x.var(1, keepdim=True))]
    statistics.append((x.mean(0), x.var(0)) if training else (state["running_mean"], state["running_var"]))
    means, variances = zip(*statistics, strict=True)
    mu = sum(share * value for share, value in zip(state["mean_weight"].softmax(0), means, strict=True))
    var = sum(share * value for share, value in zip(state["var_weight"].softmax(0), variances, strict=True))
    return (x - mu) / (var + 1e-5).sqrt() * state["weight"] + state["bias"]


def test_switch_norm_of_vectors_is_the_official_one():
    torch.manual_seed(0)
    state = {key: torch.rand(1, 6).double() + 0.5 for key in ("weight", "bias", "running_mean", "running_var")}
    state |= {key: torch.rand(2).double() for key in ("mean_weight", "var_weight")}
    layer = load_official(SwitchNorm1d(6, statistics=("ln", "bn")).double(), state)
    assert (layer.correction, layer.momentum) == (1, 0.003)
    made = SwitchNorm1d(6, statistics=("ln", "bn"), correction=1, momentum=0.003).double()
    made.load_state_dict(state)
    for ours in (layer, made):
        x = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
        reference = {key: value.clone().requires_grad_("running" not in key) for key, value in state.items()}
        expected, found = official_1d(x, reference, True), ours.train()(x)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        leaves = ["weight", "bias", "mean_weight", "var_weight"]
        wanted = torch.autograd.grad(expected.pow(3).sum(), [x, *(reference[key] for key in leaves)])
        got = torch.autograd.grad(found.pow(3).sum(), [x, *(getattr(ours, key) for key in leaves)])
        for a, b in zip(got, wanted, strict=True):
            torch.testing.assert_close(a.flatten(), b.flatten(), rtol=1e-9, atol=1e-9)
        for key, value in {"running_mean": x.mean(0), "running_var": x.var(0)}.items():
            expected = 0.997 * state[key][0] + 0.003 * value
            torch.testing.assert_close(getattr(ours, key), expected.detach())
        after = state | {key: getattr(ours, key) for key in ("running_mean", "running_var")}
        torch.testing.assert_close(ours.eval()(x), official_1d(x, after, False), rtol=1e-12, atol=1e-12)


def test_vectors_too_few_to_have_a_variance_are_refused():
    with pytest.raises(ValueError, match="needs 2 channels and 2 vectors or more"):
        SwitchNorm1d(4, statistics=("ln", "bn"), correction=1)(torch.randn(1, 4))
    with pytest.raises(ValueError, match="needs maps of 2 positions or more"):
        SwitchNorm1d(4, correction=1)(torch.randn(3, 4))


def test_a_zero_last_gamma_is_kept_and_gates_are_the_networks():
    model = build_backbone("preresnet50", 7, norm="sn", layers=(1, 1, 1, 1), width=0.125)
    state = convert(copy.deepcopy(model), "sn").state_dict() | {"layer1.0.bn3.weight": torch.zeros(1, 8, 1, 1)}
    assert load_official(model, state).layer1[0].bn3.weight.abs().max() == 0
