"""Random layers on random activations: no backend differs from float64 by more than rounding."""

import copy
import os
from typing import NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from normshift import IBN2d
from normshift.backends import compiled
from normshift.layers import BatchInstanceNorm, BatchNorm, InstanceNorm, SwitchNorm
from tests.normshift.passes import rows

ROUNDINGS = 1e-6  # of every value, relative: what backends may do to x and dy in float32
KINDS = ("sn", "bin", "ibn", "ibn-batch-norm-first", "in", "bn")
VIEWS = {
    "planes": lambda shape, draw: draw(shape),
    "rows": lambda shape, draw: rows(draw(shape)),
    "some-channels": lambda shape, draw: draw((shape[0], shape[1] + 3, *shape[2:]))[:, 2:-1],
    "some-channels-of-rows": lambda shape, draw: rows(draw((shape[0], shape[1] + 3, *shape[2:])))[:, 2:-1],
    "every-second-image-of-rows": lambda shape, draw: rows(draw((2 * shape[0], *shape[1:])))[::2],
    "every-second-column": lambda shape, draw: draw((*shape[:-1], 2 * shape[-1]))[..., ::2],
    "images-last": lambda shape, draw: draw((*shape[1:], shape[0])).movedim(-1, 0),
    "not-aligned": lambda shape, draw: draw(torch.Size(shape).numel() + 1)[1:].view(shape),
    "one-image-expanded": lambda shape, draw: draw((1, *shape[1:])).expand(shape),
    "one-channel-expanded": lambda shape, draw: draw((shape[0], 1, *shape[2:])).expand(shape),
    "one-column-expanded": lambda shape, draw: draw((*shape[:-1], 1)).expand(shape),
}


class Case(NamedTuple):
    kind: str
    shape: tuple[int, ...]
    statistics: tuple[str, ...]
    groups: int
    correction: int
    eps: float
    momentum: float
    extreme_gates: bool
    training: bool
    frozen: tuple[str, ...]
    x_is_frozen: bool
    x_view: str
    dy_view: str
    dtype: torch.dtype
    narrow_layer: bool
    mean: float
    spread: float
    seed: int


@st.composite
def cases(draw):
    kind = draw(st.sampled_from(KINDS))
    dims = 4 if kind.startswith("ibn") else draw(st.sampled_from((2, 3, 4, 4, 5)))
    channels = draw(st.one_of(st.integers(1, 9), st.sampled_from((16, 31, 64, 130)))) + kind.startswith("ibn")
    shape = (draw(st.integers(1, 4)), channels, *(draw(st.integers(1, 9 - dims)) for _ in range(dims - 2)))
    statistics = draw(st.lists(st.sampled_from(SwitchNorm.STATISTICS), min_size=1, unique=True))
    divisors = [g for g in range(2, channels) if channels % g == 0]  # of others, "gn" would be "in" or "ln"
    return Case(
        kind=kind,
        shape=shape,
        statistics=tuple(s for s in statistics if s != "gn" or divisors) or ("in",),
        groups=draw(st.sampled_from(divisors or [1])),
        correction=draw(st.integers(0, 1)) if torch.Size(shape[2:]).numel() > 1 else 0,
        eps=draw(st.sampled_from((1e-5, 1e-3, 1.0))),
        momentum=draw(st.sampled_from((0.0, 0.1, 1.0))),
        extreme_gates=draw(st.booleans()),
        training=draw(st.booleans()),
        frozen=tuple(name for name in ("weight", "bias", "rho", "weight_") if draw(st.integers(0, 3)) == 0),
        x_is_frozen=draw(st.integers(0, 7)) == 0,
        x_view=draw(st.sampled_from(tuple(VIEWS))),
        dy_view=draw(st.sampled_from(tuple(VIEWS))),
        dtype=draw(st.sampled_from((torch.float32, torch.float32, torch.bfloat16, torch.float16))),
        narrow_layer=draw(st.booleans()),
        mean=draw(st.sampled_from((0.0, 1.0, -30.0, 1e3))),
        spread=draw(st.sampled_from((0.1, 1.0, 10.0))),
        seed=draw(st.integers(0, 2**32 - 1)),
    )


def layer_of(case):
    channels = case.shape[1]
    if case.kind == "sn":
        layer = SwitchNorm(channels, case.eps, case.momentum, case.statistics, case.groups, case.correction)
    elif case.kind.startswith("ibn"):
        layer = IBN2d(channels, 0.5, case.eps, case.momentum, instance_first=case.kind == "ibn")
    elif case.kind == "in":
        layer = InstanceNorm(channels, case.eps)
    else:
        layer = {"bin": BatchInstanceNorm, "bn": BatchNorm}[case.kind](channels, case.eps, case.momentum)
    for name, value in layer.named_parameters():
        value.data.normal_()
        if name == "rho":
            value.data.uniform_()
            value.data = value.data.round() if case.extreme_gates else value.data
        elif name.endswith("_weight") and case.extreme_gates:
            value.data *= 20
        value.requires_grad_(not name.endswith(case.frozen))
    for name, value in layer.named_buffers():
        if value.is_floating_point():
            value.uniform_(0.5, 2)
            value += case.mean * name.endswith("mean")
    layer.to(case.dtype if case.narrow_layer else torch.float32)
    return layer.train(case.training)


def outcome(layer, x, dy, case):
    """All results of a step: output, gradients, running averages."""
    layer, x = copy.deepcopy(layer), x.detach().requires_grad_(not case.x_is_frozen)
    y = layer(x)
    if y.requires_grad:
        y.backward(dy)
    gradients = {f"by {name}": value.grad for name, value in (("x", x), *layer.named_parameters())}
    return {"y": y.detach()} | gradients | dict(layer.named_buffers())


def check(case):
    torch.manual_seed(case.seed)
    layer = layer_of(case)
    x = VIEWS[case.x_view](case.shape, lambda size: (case.mean + case.spread * torch.randn(size)).to(case.dtype))
    dy = VIEWS[case.dy_view](case.shape, lambda size: torch.randn(size).to(case.dtype))
    wide_layer, wide = copy.deepcopy(layer).double(), (x.double(), dy.double())
    expected = outcome(wide_layer, *wide, case)
    shaken = [
        outcome(wide_layer, *(v + ROUNDINGS * torch.randn_like(v) * v.abs().max() for v in wide), case)
        for _ in range(2)
    ]
    largest_weight = max(p.abs().max().item() for n, p in layer.named_parameters() if n.endswith("weight"))
    largest_scale = largest_weight / case.eps**0.5
    largest = max(1.0, *(v.abs().max().item() for v in expected.values() if v is not None))
    sources = {"y": wide[0], "by x": wide[1]}
    variances = wide[0].reshape(*case.shape[:2], -1).var(-1, correction=0)
    rsigma = (variances.min() + case.eps).rsqrt().item()
    of_a_mean = ROUNDINGS * rsigma * (wide[0].abs().max() * wide[1].norm()).item()  # rounded, in sums that may cancel
    for backend in ("torch", "auto"):
        os.environ["NORMSHIFT_KERNELS"] = backend
        for name, found in outcome(layer, x, dy, case).items():
            truth = expected[name]
            assert (found is None) == (truth is None), f"{name} in {backend}"
            if found is None or not truth.is_floating_point():
                continue
            assert found.dtype == (x.dtype if name in ("y", "by x") else next(layer.parameters()).dtype)
            scale = truth.abs().max().item()
            allowed = (2 * torch.finfo(found.dtype).eps + 1e-5) * scale + 2e-5 * largest
            if name in sources:  # what is scaled may cancel: plain torch takes a mean off after that
                allowed += ROUNDINGS * sources[name].abs().max().item() * largest_scale
            if name.endswith("weight"):
                allowed += of_a_mean
            if name == "by x":
                allowed += of_a_mean * largest_weight * rsigma
            allowed += 30 * max((s[name] - truth).abs().max().item() for s in shaken)
            error = (found.double() - truth).abs().max().item()
            assert error <= allowed, f"{name} in {backend}: off by {error:.3g} of {scale:.3g}, {allowed:.3g} allowed"


@pytest.fixture(autouse=True)
def both_homes(monkeypatch):
    if not compiled.load():
        pytest.skip("the compiled kernels cannot be built here")
    monkeypatch.setenv("NORMSHIFT_KERNELS", "auto")  # and put back what was there


bounded = settings(
    derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=False
)


@settings(bounded, max_examples=400)
@given(cases())
def test_a_few_hundred_draws(case):
    check(case)


@pytest.mark.slow
@settings(bounded, max_examples=10_000)
@given(cases())
def test_ten_thousand_draws(case):
    check(case)
