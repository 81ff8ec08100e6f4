"""The formulas' gradients, derived by hand and compiled, compared with autograd's in float64."""

import pytest
import torch

from normshift.backends import compiled, reference
from normshift.engine import Batch, Formula, Moments
from normshift.formulas import BatchFormula, BatchInstanceFormula, InstanceBatchFormula, InstanceFormula, SwitchFormula

EPS = 1e-3
FORMULAS = {
    "in": InstanceFormula(EPS),
    "bn": BatchFormula(EPS),
    "bin": BatchInstanceFormula(EPS),
    "ibn": InstanceBatchFormula(EPS, 4, True),
    "ibn-batch-norm-first": InstanceBatchFormula(EPS, 2, False),
} | {
    f"sn-{'+'.join(statistics)}": SwitchFormula(EPS, statistics, groups)
    for statistics, groups in [
        (("in",), 2),
        (("ln",), 2),
        (("bn",), 2),
        (("gn",), 3),
        (("in", "ln", "bn"), 2),
        (("bn", "in"), 2),
        (("gn", "bn", "ln", "in"), 3),
        (("gn", "ln"), 6),
        (("ln", "gn", "in"), 1),
    ]
}
formulas = pytest.mark.parametrize("formula", FORMULAS.values(), ids=FORMULAS)
means = pytest.mark.parametrize("mean", [0.0, 100.0])
sizes = pytest.mark.parametrize("images", [1, 3])


@pytest.fixture
def needs_loops():
    if not compiled.load():
        pytest.skip("the compiled kernels cannot be built here")


def case(formula, images, mean, channels=6):
    """Moments, a batch's statistics, parameters and the gradients with respect to scale and shift: all in float64."""
    draw = lambda *size: torch.randn(size, dtype=torch.float64)  # noqa: E731
    moments = Moments(mean + draw(images, channels), draw(images, channels).square() + 0.1, 7)
    batch = Batch(*reference.pooled(*moments[:2]), 1 / images)
    parameters = [draw(channels), draw(channels)]
    if isinstance(formula, InstanceBatchFormula):
        (a, b), (c, d) = (v.tensor_split([formula.split]) for v in parameters)
        parameters = [a, c, b, d]
    elif isinstance(formula, BatchInstanceFormula):
        parameters.append(torch.rand(channels, dtype=torch.float64))
    elif isinstance(formula, SwitchFormula):
        parameters += [draw(len(formula.statistics)), draw(len(formula.statistics))]
    return moments, batch, parameters, draw(images, channels), draw(images, channels)


def narrow(moments, batch, parameters, *seeds):
    """The same in float32."""
    moments, batch = (of._replace(mean=of.mean.float(), var=of.var.float()) for of in (moments, batch))
    return moments, batch, [p.float() for p in parameters], *(s.float() for s in seeds)


def widened(moments, batch, parameters, *seeds):
    moments, batch = (of._replace(mean=of.mean.double(), var=of.var.double()) for of in (moments, batch))
    return moments, batch, [p.double() for p in parameters], *(s.double() for s in seeds)


def agree(found, expected, like, tolerance):
    """Within `tolerance` of the largest element; None is 0."""
    for a, b, v in zip(found, expected, like, strict=True):
        a, b = ((torch.zeros_like(v) if g is None else g).double() for g in (a, b))
        assert a.shape == b.shape == v.shape
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance * max(1, b.abs().max().item()))


@formulas
@sizes
@means
def test_gradients_by_hand_are_autograds(formula, images, mean):
    moments, batch, parameters, *seeds = case(formula, images, mean)
    inputs = [v.clone() for v in (*moments[:2], *batch[:2], *parameters, *seeds)]
    expected = Formula.gradient(formula, moments, batch, parameters, *seeds)
    found = formula.gradient(moments, batch, parameters, *seeds)
    agree(found, expected, (*moments[:2], *batch[:2], *parameters), 1e-12)
    after = (*moments[:2], *batch[:2], *parameters, *seeds)
    assert all(torch.equal(a, b) for a, b in zip(inputs, after, strict=True))  # nothing is written over


@formulas
@sizes
@means
def test_loops_are_the_formulas(needs_loops, formula, images, mean):
    moments, batch, parameters, *seeds = narrow(*case(formula, images, mean))
    found = formula.compiled_form().evaluate(compiled, moments, batch, parameters)
    wide = widened(moments, batch, parameters, *seeds)
    expected = (v.expand(images, 6) for v in formula(*wide[:2], *wide[2]))
    agree(found, expected, moments[:2], 1e-4)
    gradients = formula.compiled_form().gradient(compiled, moments, batch, parameters, *seeds)
    agree(gradients, Formula.gradient(formula, *wide), (*moments[:2], *batch[:2], *parameters), 1e-4)


@pytest.mark.parametrize("channels", [1, 17, 2050])
@pytest.mark.parametrize("images", [1, 5, 130])
def test_loops_of_any_size(needs_loops, images, channels):
    for formula in (SwitchFormula(EPS, ("in", "ln", "bn"), 1), BatchInstanceFormula(EPS)):
        moments, batch, parameters, *seeds = narrow(*case(formula, images, 1.0, channels))
        gradients = formula.compiled_form().gradient(compiled, moments, batch, parameters, *seeds)
        expected = Formula.gradient(formula, *widened(moments, batch, parameters, *seeds))
        agree(gradients, expected, (*moments[:2], *batch[:2], *parameters), 1e-4)


@formulas
def test_unused_statistics_have_no_gradient(formula):
    """If a formula says that it does not use an image's moments, their gradient is 0."""
    moments, batch, parameters, *seeds = case(formula, 3, 1.0)
    own = formula.own_moments(6, training=False)
    for name, gradient in zip(("mean", "var"), formula.gradient(moments, batch, parameters, *seeds), strict=False):
        if name == "var" and gradient is not None:
            assert not gradient[:, : own.start].any() and not gradient[:, own.stop :].any()


# ------------------------------------------------------------------------------------------- on N x C numbers


@sizes
@means
@pytest.mark.parametrize("channels", [1, 6, 77])
def test_pooled_moments_are_those_of_all_values(backend, images, channels, mean):
    values = mean + torch.randn(images, channels, 50, dtype=torch.float64)
    var, mean = torch.var_mean(values, 2, correction=0)
    expected_var, expected_mean = torch.var_mean(values, (0, 2), correction=0)
    found_mean, found_var = backend.pooled(mean.float(), var.float())
    torch.testing.assert_close(found_mean.double(), expected_mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found_var.double(), expected_var, rtol=1e-4, atol=0)


@pytest.mark.parametrize("momentum", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("unbiased", [1.25, torch.tensor(1.25)], ids=["number", "tensor"])
def test_running_averages_follow(backend, momentum, kind, unbiased):
    before, new = torch.rand(2, 5, dtype=kind), torch.rand(2, 5)
    running = before.clone()
    backend.update_running(*running, *new, momentum, unbiased)
    expected = before.double().lerp(new.double() * torch.tensor([[1.0], [1.25]], dtype=torch.float64), momentum)
    torch.testing.assert_close(running.double(), expected, rtol=torch.finfo(kind).eps, atol=1e-6)


@pytest.mark.parametrize("batch", [True, False], ids=["batch", "no-batch"])
@pytest.mark.parametrize("given", ["both", "mean", "var", "neither"])
def test_what_reaches_x_through_moments(backend, given, batch):
    """Autograd's gradient with respect to x of any function of moments: slope * (x - mean) + offset."""
    n, c, p = 3, 5, 4
    x = (2 + torch.randn(n, c, p, dtype=torch.float64)).requires_grad_()
    scale, dshift, dmean, dvar = torch.randn(4, n, c, dtype=torch.float64)
    dbatch = torch.randn(2, c, dtype=torch.float64)
    dmean = dmean if given in ("both", "mean") else None
    dvar = dvar if given in ("both", "var") else None
    var, mean = torch.var_mean(x, 2, correction=0)
    total = -(mean * scale * dshift).sum()
    total = total + sum((m * d).sum() for m, d in ((mean, dmean), (var, dvar)) if d is not None)
    pooled = None
    if batch:
        together = torch.var_mean(x, (0, 2), correction=0)[::-1]
        total = total + sum((m * d).sum() for m, d in zip(together, dbatch, strict=True))
        pooled = (together[0].detach().float(), *dbatch.float(), 1 / n)
    (expected,) = torch.autograd.grad(total, x)
    vectors = (v if v is None else v.detach().float() for v in (mean, scale, dshift, dmean, dvar))
    slope, offset = backend.through_moments(*vectors, pooled, 1 / p, 2 / p)
    found = slope[..., None] * (x.detach() - mean.detach()[..., None]) + offset[..., None]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
