"""Formulas that use the context: the images' domains, the training flag, random numbers, the layer's name."""

import re
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

import normshift
from normshift import AffineNorm, Formula, NormSpec, batch_domains, convert

CHANNELS = 4


def page_code() -> str:
    """The norm of docs/own-norm.md with a weight for each domain."""
    page = (Path(__file__).parents[2] / "docs" / "own-norm.md").read_text()
    return next(code for code in re.findall(r"```python\n(.+?)```", page, re.DOTALL) if "DomainNorm" in code)


PAGE = {"__name__": "page"}
exec(page_code(), PAGE)
DomainNorm = PAGE["DomainNorm"]


class NoisyFormula(Formula):
    """Instance norm whose scale is drawn for each map while it trains, as in stochastic norms, and fixed afterwards."""

    def __init__(self, eps, context):
        self.eps, self.context = eps, context

    def __call__(self, moments, batch, weight, bias):
        scale = weight * torch.rsqrt(moments.var + self.eps)
        return scale * (0.5 + self.context.uniform("scale", moments.var)) if self.context.training else scale, bias


class NoisyNorm(AffineNorm):
    def formula(self):
        return NoisyFormula(self.eps, self.context())


class NamedFormula(NoisyFormula):
    """A norm that depends on the layer's name."""

    def __call__(self, moments, batch, weight, bias):
        scale = weight * torch.rsqrt(moments.var + self.eps)
        return scale.detach() if self.context.name.endswith("bn1") else scale, bias


class NamedNorm(AffineNorm):
    def formula(self):
        return NamedFormula(self.eps, self.context())


def domain_norm():
    layer = DomainNorm(CHANNELS).double()
    for p in layer.parameters():
        nn.init.normal_(p)
    return layer


def test_each_image_has_its_domains_affine():
    layer, x, ids = domain_norm(), torch.randn(5, CHANNELS, 3, 3, dtype=torch.float64), [0, 2, 2, 1, 0]
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, correction=0)
    weight, bias = (p[ids][..., None, None] for p in layer.parameters())
    with batch_domains(ids):
        y = layer(x)
    torch.testing.assert_close(y, (x - mean) / (var + layer.eps).sqrt() * weight + bias)
    y.sum().backward()  # outside of the block
    assert layer.bias.grad.sum(1).tolist() == [2 * 9 * CHANNELS, 9 * CHANNELS, 2 * 9 * CHANNELS]


@pytest.mark.parametrize("training", [True, False])
def test_gradients_by_domains(training):
    layer, x = domain_norm().train(training), torch.randn(3, CHANNELS, 2, 2, dtype=torch.float64, requires_grad=True)
    layer.track_running_stats = False

    def run(x, weight, bias):
        with batch_domains(torch.tensor([1, 0, 1])):
            return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, x)

    inputs = x, layer.weight, layer.bias
    assert torch.autograd.gradcheck(run, inputs) and torch.autograd.gradgradcheck(run, inputs)


def test_compiled_code_follows_the_domains():
    layer, x = domain_norm().eval(), torch.randn(2, CHANNELS, 3, 3, dtype=torch.float64)
    compiled = torch.compile(layer, backend="aot_eager")
    for ids in ([0, 1], [2, 0], [1, 1]):
        with batch_domains(torch.tensor(ids)):
            torch.testing.assert_close(compiled(x), layer(x))


def test_a_missing_domain_is_told():
    layer, x = domain_norm(), torch.randn(2, CHANNELS, 3, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match="run the network within normshift"):
        layer(x)
    with pytest.raises(ValueError, match="3 domains for a batch of 2 images"), batch_domains([0, 1, 2]):
        layer(x)


def test_each_domain_starts_as_the_batch_norm_before_it_and_cannot_go_back():
    model = nn.Sequential(nn.Conv2d(3, CHANNELS, 1), nn.BatchNorm2d(CHANNELS)).eval()
    nn.init.normal_(model[1].weight)
    nn.init.uniform_(model[1].running_var)
    x = torch.randn(2, 3, 4, 4)
    before = model(x)
    with spec("domain-bn", DomainNorm):
        model = convert(model, "domain-bn")
        with batch_domains([2, 0]):
            torch.testing.assert_close(model(x), before)
        with pytest.raises(ValueError, match=r"weight is \(3, 4\), which no parameter of shape \(4,\) can hold"):
            convert(model, "bn")


def test_one_draw_serves_forward_and_both_derivatives():
    layer, x = NoisyNorm(CHANNELS).double(), torch.randn(2, CHANNELS, 3, 3, dtype=torch.float64, requires_grad=True)

    def run(x, weight):
        layer.generator = torch.Generator().manual_seed(3)  # the same draw in each of the check's many passes
        return torch.func.functional_call(layer, {"weight": weight}, x)

    inputs = x, layer.weight
    assert torch.autograd.gradcheck(run, inputs) and torch.autograd.gradgradcheck(run, inputs)


def test_draws_are_seeded_and_differ_by_forward():
    layer, x = NoisyNorm(CHANNELS), torch.randn(2, CHANNELS, 3, 3)
    draws = []
    for seed in (0, 0, 1):
        layer.generator = torch.Generator().manual_seed(seed)
        draws.append([layer(x), layer(x)])
    assert torch.equal(draws[0][0], draws[1][0]) and torch.equal(draws[0][1], draws[1][1])
    assert not torch.equal(draws[0][0], draws[0][1]) and not torch.equal(draws[0][0], draws[2][0])
    y = NoisyNorm(CHANNELS).eval()(x)
    torch.testing.assert_close(y, nn.functional.instance_norm(x))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled_code_draws(dynamic):
    torch.compiler.reset()
    layer, x = NoisyNorm(CHANNELS), torch.randn(2, CHANNELS, 3, 3)
    compiled = torch.compile(layer, backend="aot_eager", dynamic=dynamic)
    torch.manual_seed(0)
    first, second = compiled(x), compiled(x)
    assert not torch.equal(first, second)
    ratio = first / nn.functional.instance_norm(x)
    assert ((ratio > 0.499) & (ratio < 1.501)).all() and ratio.var((2, 3)).max() < 1e-6


def test_layers_are_told_their_names():
    with spec("named", NamedNorm):
        model = normshift.name_layers(convert(torchvision.models.resnet18(num_classes=2), "named"))
        again = convert(convert(model, "in", inplace=False), "named")
        assert again.layer1[0].bn1.module_name == "layer1.0.bn1"
        assert "module_name" not in vars(convert(again, "bn").bn1)
    assert model.layer1[0].bn1.context().name == "layer1.0.bn1"
    model(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert model.layer1[0].bn1.weight.grad is None and model.layer1[0].bn2.weight.grad is not None


class FixedDomainFormula(PAGE["DomainFormula"]):
    def own_moments(self, channels, training):
        return slice(0, channels if training else 0)


class FixedDomainNorm(DomainNorm):
    def formula(self):
        return FixedDomainFormula(self.eps, self.context())


@pytest.mark.parametrize("inside", [False, True])
def test_what_depends_on_the_domain_is_not_folded(inside):
    model = nn.Sequential(nn.Conv2d(3, CHANNELS, 1), nn.BatchNorm2d(CHANNELS)).eval()
    with spec("fixed-domain-bn", FixedDomainNorm), batch_domains([1]) if inside else nullcontext():
        _, report = normshift.fold(convert(model, "fixed-domain-bn"))
    assert [norm.stays for norm in report.norms] == ["its formula asks for each image's domain"]


class spec:
    """A norm that is registered during one test."""

    def __init__(self, name, layer):
        self.spec = NormSpec(name, f"test norm {name}", layer)

    def __enter__(self):
        return normshift.register_norm(self.spec)

    def __exit__(self, *_):
        del normshift.NORMS._known[self.spec.name]


class Returning(Formula):
    def __init__(self, value):
        self.value = value

    def __call__(self, moments, batch, weight, bias):
        return self.value(moments, weight, bias)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (lambda moments, weight, bias: weight * moments.var, "it returned Tensor"),  # two images would make it a pair
        (lambda moments, weight, bias: (moments.var, 0.0), r"it returned \('Tensor', 'float'\)"),
        (lambda moments, weight, bias: None, "it returned NoneType"),
    ],
)
def test_a_formula_that_returns_no_scale_and_shift_is_refused(value, said):
    layer = type("Wrong", (normshift.AffineNorm,), {"formula": lambda self: Returning(value)})(3)
    for run in (layer, torch.func.grad(lambda x: layer(x).sum())):
        with pytest.raises(TypeError, match=f"Returning has to return two tensors, scale and shift; {said}"):
            run(torch.randn(2, 3, 4, 4))


@pytest.mark.parametrize("base", [normshift.AffineNorm, normshift.AffineBatchNorm])
@pytest.mark.parametrize("images", [0, 2])
def test_a_formula_of_constants_takes_the_mean_off_and_has_that_gradient(base, images):
    constants = Returning(lambda moments, *_: (torch.full_like(moments.mean, 2.0), torch.ones_like(moments.mean)))
    layer = type("Centred", (base,), {"formula": lambda self: constants})(3).double()
    x = torch.randn(images, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    assert torch.allclose(y, 2 * (x - x.mean((2, 3), keepdim=True)) + 1)
    weights = torch.randn_like(x)
    (found,) = torch.autograd.grad((weights * y).sum(), x)
    assert torch.allclose(found, 2 * (weights - weights.mean((2, 3), keepdim=True)))
    assert not images or torch.autograd.gradgradcheck(layer, x)
