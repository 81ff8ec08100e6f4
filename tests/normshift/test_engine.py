"""What holds for every layer in every backend: choice of backend, second derivatives, memory, torch's conventions."""

import copy
import os
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad

from normshift import BatchInstanceNorm1d, BatchInstanceNorm2d, IBN2d, SwitchNorm1d, SwitchNorm2d, backends
from normshift.backends import backend_of, compiled, reference
from normshift.engine import Batch, Formula, normalize
from normshift.formulas import BatchFormula
from normshift.layers import BatchNorm, InstanceNorm1d, InstanceNorm2d
from tests.normshift.agreement import agrees, close, run, run_written_out
from tests.normshift.passes import rows
from tests.normshift.written_out import randomize, state_of, written_out

LAYERS = {
    "sn": SwitchNorm2d,
    "sn-gn": lambda c: SwitchNorm2d(c, statistics=("gn", "bn"), groups=2, correction=1),
    "bin": BatchInstanceNorm2d,
    "ibn": IBN2d,
    "ibn-batch-norm-first": lambda c: IBN2d(c, ratio=0.3, instance_first=False),
    "in": InstanceNorm2d,
    "bn": BatchNorm,
}
VECTOR_LAYERS = {"sn": SwitchNorm1d, "bin": BatchInstanceNorm1d, "in": InstanceNorm1d, "bn": BatchNorm}

layers = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
modes = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
layouts = pytest.mark.parametrize("view", [torch.Tensor.contiguous, rows], ids=["planes", "rows"])


# Which backend it is


def test_homes_by_setting(monkeypatch):
    x = torch.randn(2, 3, 4, 4)
    monkeypatch.setenv("NORMSHIFT_KERNELS", "torch")
    assert backend_of(x) is reference
    monkeypatch.setenv("NORMSHIFT_KERNELS", "cuda")
    with pytest.raises(ValueError, match=r"^NORMSHIFT_KERNELS=cuda: it is auto, or torch for plain torch alone.$"):
        SwitchNorm2d(3)(x)


@pytest.mark.parametrize("setting", [None, "auto"])
def test_compiled_kernels_where_they_can_be_had(monkeypatch, setting):
    monkeypatch.delenv("NORMSHIFT_KERNELS", raising=False)
    if setting:
        monkeypatch.setenv("NORMSHIFT_KERNELS", setting)
    expected = compiled if compiled.load() else reference
    assert backend_of(torch.randn(2, 3, 4, 4)) is backend_of(torch.randn(2, 3, 4).half()) is expected
    assert backend_of(torch.randn(2, 3)) is backend_of(torch.randn(2, 3, 4).double()) is reference


class Annotated(torch.Tensor):
    """As torchvision's and MONAI's images are: a tensor with memory of its own, and something written on it."""


def test_compiled_kernels_take_annotated_tensors(backend):
    x = torch.randn(2, 3, 4, 4)
    assert backend_of(x.as_subclass(Annotated)) is backend
    layer = SwitchNorm2d(3).eval()
    assert torch.equal(layer(x.as_subclass(Annotated)).as_subclass(torch.Tensor), layer(x))


@pytest.mark.skipif(torch.cuda.is_available(), reason="they run here")
def test_triton_that_cannot_run_leaves_it_to_plain_torch():
    with pytest.warns(UserWarning, match="normshift's Triton kernels do not run here: its norms use plain torch"):
        assert backends.triton_backend.__wrapped__() is None


PROBE = """
import torch
from normshift import SwitchNorm2d
from normshift.backends import backend_of, reference

layer = SwitchNorm2d(6)
for _ in range(2):
    x = torch.randn(2, 6, 4, 4, requires_grad=True)
    layer(x).sum().backward()
print("plain" if backend_of(x) is reference else "compiled")
"""


def in_a_process_of_its_own(**environment):
    """What a user prints and is told there."""
    environment = {k: v for k, v in os.environ.items() if k != "NORMSHIFT_KERNELS"} | environment
    process = subprocess.Popen(
        [sys.executable, "-c", PROBE],
        cwd=Path(__file__).parents[2],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    return process


def outcome(process):
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out.strip(), [line for line in err.splitlines() if "normshift" in line and "Warning" in line], err


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"CXX": "/nonexistent"}, "There is no C++ compiler: /nonexistent"),
        ({"PATH": ""}, "There is no C++ compiler"),
        ({"CXX": "{folder}/broken"}, "error: out of luck"),
        ({"TORCH_EXTENSIONS_DIR": "{folder}/a-file"}, "a-file"),
        ({"TORCH_EXTENSIONS_DIR": "/proc/nowhere"}, "/proc"),
    ],
    ids=["compiler-not-there", "nothing-there", "compiler-fails", "cache-is-a-file", "cache-cannot-be-written"],
)
def test_without_the_kernels_one_line_says_so(tmp_path, environment, reason):
    (tmp_path / "a-file").touch()
    broken = tmp_path / "broken"  # knows its version and nothing else
    broken.write_text(
        '#!/bin/sh\ncase "$1" in -*v*) exec c++ "$@";; esac\necho "x.cpp:1: error: out of luck" >&2; exit 1\n'
    )
    broken.chmod(0o755)
    environment = {"TORCH_EXTENSIONS_DIR": str(tmp_path)} | environment
    said, told, everything = outcome(
        in_a_process_of_its_own(**{k: v.format(folder=tmp_path) for k, v in environment.items()})
    )
    assert said == "plain"
    assert len(told) == 1, everything
    assert "could not be built: its norms run in plain torch" in told[0] and reason in told[0]
    assert len(told[0]) < 500
    assert not list(tmp_path.glob("**/*.cpp*")) and not list(tmp_path.glob("**/*.o"))  # no half-built things


@pytest.mark.slow
def test_processes_share_one_build(tmp_path):
    if not compiled.load():
        pytest.skip("the compiled kernels cannot be built here")
    several = [in_a_process_of_its_own(TORCH_EXTENSIONS_DIR=str(tmp_path)) for _ in range(3)]
    said, told, errors = zip(*(outcome(process) for process in several), strict=True)
    assert set(said) == {"compiled"} and not any(told)
    assert sum("building CPU kernels" in error for error in errors) == 1
    assert len(list(tmp_path.glob("normshift/*.so"))) == 1


# What does not fit


@pytest.mark.parametrize("name", ["weight", "bias", "mean_weight", "running_mean"])
def test_parameters_of_another_size_are_refused(name):
    if not compiled.load():
        pytest.skip("the compiled kernels cannot be built here")
    layer = SwitchNorm2d(4)
    held = layer._buffers if name in layer._buffers else layer._parameters
    held[name] = type(held[name])(torch.ones(2))
    with pytest.raises(RuntimeError, match=r"[34] values were expected, not a tensor of shape \[2\]"):
        layer(torch.randn(2, 4, 3, 3))


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_integers_are_refused(make):
    with pytest.raises(
        ValueError, match=r"normalises floating-point input, got torch.uint8: convert it, as by x.float()"
    ):
        make(4)(torch.zeros(2, 4, 3, 3, dtype=torch.uint8))


# What is not finite


@pytest.mark.parametrize("instance_first", [True, False])
def test_an_image_that_is_not_finite_stays_alone_under_instance_norm(backend, instance_first):
    layer, x = randomize(IBN2d(4, instance_first=instance_first)), torch.randn(3, 4, 5, 5)
    own = slice(0, 2) if instance_first else slice(2, 4)
    x[0] = torch.inf
    y = layer(x)
    assert y[1:, own].isfinite().all() and not y[0].isfinite().any()


def test_ibn_without_eps(backend):
    layer = randomize(IBN2d(4, eps=0.0)).eval()
    assert layer(torch.randn(2, 4, 5, 5)).isfinite().all()


# A part of a layer in another mode


@pytest.mark.parametrize("instance_first", [True, False])
def test_ibn_with_its_batch_norm_frozen(backend, instance_first):
    layer, x = randomize(IBN2d(4, instance_first=instance_first)), 3 + torch.randn(2, 4, 5, 5)
    expected = copy.deepcopy(layer).eval()(x)
    layer.BN.eval()
    before = layer.BN.running_mean.clone()
    assert torch.equal(layer(x), expected)
    assert torch.equal(layer.BN.running_mean, before)


# Formulas that only autograd and plain torch know


class Shrink(Formula):
    """Each value less a part of the batch's variance: no use of an image's own moments."""

    def __call__(self, moments, batch, weight):
        return weight / (1 + batch.var), moments.mean - weight


class Double(Formula):
    """Nothing depends on any statistic, but for the mean that is taken off."""

    def __call__(self, moments, batch, weight):
        return 2 * weight.expand_as(moments.mean), weight + 0 * moments.mean.detach()


def test_formulas_without_loops(backend):
    x, weight = torch.randn(3, 4, 5, 5).requires_grad_(), torch.rand(4).requires_grad_()
    y = normalize(x, Shrink(), (weight,), BatchNorm(4))
    wide, wide_weight = (v.detach().double().requires_grad_() for v in (x, weight))
    mean, column = wide.mean((2, 3), keepdim=True), wide_weight[:, None, None]
    var = wide.var((0, 2, 3), correction=0, keepdim=True)
    expected = column / (1 + var) * (wide - mean) + mean - column
    close(y, expected, 1e-5)
    seed = torch.randn_like(x)
    found = torch.autograd.grad(y, (x, weight), seed)
    for a, b in zip(found, torch.autograd.grad(expected, (wide, wide_weight), seed.double()), strict=True):
        close(a, b, 1e-5)


def test_formulas_of_no_statistic(backend):
    x, weight = torch.randn(3, 4, 5, 5).requires_grad_(), torch.rand(4).requires_grad_()
    normalize(x, Double(), (weight,)).square().sum().backward()
    wide = x.detach().double().requires_grad_()
    column = weight.detach().double()[:, None, None]
    (2 * column * (wide - wide.mean((2, 3), keepdim=True)) + column).square().sum().backward()
    close(x.grad, wide.grad, 1e-5)


# Empty inputs


# Gradients of gradients


def as_function(layer):
    """A function of x and the layer's parameters, and copies of these."""
    names = [name for name, _ in layer.named_parameters()]
    parameters = [p.detach().clone().requires_grad_() for p in layer.parameters()]

    def call(x, *values):
        twin = copy.deepcopy(layer)  # evaluation changes its running averages
        return torch.func.functional_call(twin, dict(zip(names, values, strict=True)), (x,))

    return call, parameters


@layers
@modes
def test_second_derivatives_are_right(make, training):
    call, parameters = as_function(randomize(make(4).double()).train(training))
    x = torch.randn(2, 4, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(call, (x, *parameters), fast_mode=True)


@layers
@modes
def test_graphs_of_gradients_where_an_input_hangs_on_another(backend, make, training):
    """A layer that is used twice, with its weights: what reaches one use through the other is counted once."""
    layer, x, seed = randomize(make(4)).train(training), torch.randn(2, 4, 5, 5), torch.randn(2, 4, 5, 5)
    parameters = list(layer.parameters())

    def gradients(**how):
        twin = torch.tanh(layer(x)) * parameters[0].sum()
        return torch.autograd.grad((copy.copy(layer)(twin) * seed).sum(), parameters, **how)

    for _ in range(2 * training):
        layer(x)
    expected = gradients()
    for found, truth in zip(gradients(create_graph=True), expected, strict=True):
        close(found, truth, 1e-3)


def test_graphs_of_gradients_of_tied_weights(backend):
    layer, x, seed = randomize(IBN2d(4)), torch.randn(2, 4, 5, 5), torch.randn(2, 4, 5, 5)
    layer.BN.weight = layer.IN.weight
    expected = torch.autograd.grad((layer(x) * seed).sum(), layer.IN.weight)[0]
    close(torch.autograd.grad((layer(x) * seed).sum(), layer.IN.weight, create_graph=True)[0], expected, 1e-5)


@layers
@layouts
def test_several_gradients_at_once(backend, make, view):
    layer, x = randomize(make(4)).eval(), view(torch.randn(2, 4, 3, 3)).requires_grad_()
    y, seeds = layer(x), torch.randn(3, 2, 4, 3, 3)
    (together,) = torch.autograd.grad(y, x, seeds, is_grads_batched=True, retain_graph=True)
    for found, seed in zip(together, seeds, strict=True):
        close(found, torch.autograd.grad(y, x, seed, retain_graph=True)[0], 1e-5)


@pytest.mark.parametrize("make", VECTOR_LAYERS.values(), ids=VECTOR_LAYERS)
def test_second_derivatives_of_vectors_are_right(make):
    call, parameters = as_function(randomize(make(4).double()))
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(call, (x, *parameters), fast_mode=True)


def gradient_penalty(call, x, parameters):
    """Gradients of the squared norm of a loss's gradient, which includes that with respect to the parameters."""
    inputs = [x, *parameters]
    first = torch.autograd.grad(
        call(x).square().mul(torch.arange(x.numel()).view(x.shape)).sum(), inputs, create_graph=True
    )
    return torch.autograd.grad(sum(g.square().sum() for g in first), inputs, allow_unused=True, materialize_grads=True)


@layers
@layouts
@modes
def test_second_derivatives_in_float32(backend, make, view, training):
    layer, x = randomize(make(6)).train(training), view(1 + torch.randn(3, 6, 5, 4))
    state, wide = state_of(layer), x.double().requires_grad_()
    parameters = [state[name] for name, _ in layer.named_parameters()]
    expected = gradient_penalty(lambda x: written_out(layer, x, state), wide, parameters)
    found = gradient_penalty(layer, x.requires_grad_(), list(layer.parameters()))
    for a, b in zip(found, expected, strict=True):
        close(a, b, 1e-3)


@layers
@modes
@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
def test_gradients_after_the_mode_has_changed(backend, make, training, twice):
    """They are those of the forward pass that was."""
    layer, x = randomize(make(6)).train(training), torch.randn(3, 6, 5, 4)
    state, wide = state_of(layer), x.double().requires_grad_()
    expected = written_out(layer, wide, state)
    (expected,) = torch.autograd.grad(expected.pow(3).sum(), wide, create_graph=True)
    y = layer(x.requires_grad_())
    layer.train(not training)
    layer(torch.randn(3, 6, 5, 4))  # and the running averages, too
    (found,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=twice)
    if twice:
        (expected,), (found,) = (torch.autograd.grad(g.square().sum(), v) for g, v in ((expected, wide), (found, x)))
    close(found, expected, 1e-3)


@layers
def test_second_derivatives_leave_the_running_averages(backend, make):
    layer, x = make(6), torch.randn(3, 6, 4, 4, requires_grad=True)
    y = layer(x)
    before = {name: b.clone() for name, b in layer.named_buffers()}
    (first,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    first.square().sum().backward()
    torch.testing.assert_close(dict(layer.named_buffers()), before, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(3, 6), (3, 6, 1)], ids=str)
def test_instance_norm_of_single_values_is_its_bias(backend, shape):
    layer, x, seed = randomize(InstanceNorm1d(6)), 1e3 + torch.randn(shape), torch.randn(shape)
    y, gradients = run(layer, x, seed)
    assert torch.equal(y, layer.bias.detach().reshape(6, *shape[2:]).expand_as(y))
    assert (gradients["x"].abs() < 1e-3).all()  # a seed scaled by 316, and taken off again


# Memory and torch's habits


@layers
@layouts
@modes
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_little_more_than_x_is_kept(backend, make, view, training, dtype):
    layer, x = make(6).train(training), view(torch.randn(4, 6, 32, 32, dtype=dtype)).requires_grad_()
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.update({t.data_ptr(): t.nbytes}) or t, lambda t: t):
        layer(x)
    assert x.data_ptr() in kept
    assert sum(kept.values()) <= 1.1 * x.nbytes


@modes
@pytest.mark.parametrize(
    ("make", "shape"),
    [(make, (3, 6, 5, 4)) for make in LAYERS.values()] + [(make, (4, 6)) for make in VECTOR_LAYERS.values()],
    ids=[f"{name}-maps" for name in LAYERS] + [f"{name}-vectors" for name in VECTOR_LAYERS],
)
def test_relu_in_place(backend, make, shape, training):
    layer, x, seed = randomize(make(6)).train(training), torch.randn(shape), torch.randn(shape)
    expected = run(nn.Sequential(copy.deepcopy(layer), nn.ReLU()), x, seed)
    assert_equal(run(nn.Sequential(layer, nn.ReLU(inplace=True)), x, seed), expected)


def assert_equal(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@layers
@modes
def test_twice_in_one_graph(backend, make, training):
    layer, x, seed = randomize(make(6)).train(training), torch.randn(3, 6, 4, 5), torch.randn(3, 6, 4, 5)
    wide, state = x.double().requires_grad_(), state_of(layer)
    expected = written_out(layer, written_out(layer, wide, state).tanh(), state)
    expected.backward(seed.double())
    y = layer(layer(x.requires_grad_()).tanh())
    y.backward(seed)
    close(y, expected, 1e-4)
    close(x.grad, wide.grad, 1e-3)
    for name, p in layer.named_parameters():
        close(p.grad, state[name].grad, 1e-3)


@layers
@modes
@layouts
def test_gradients_are_the_formulas(backend, make, training, view):
    agrees(randomize(make(6)).train(training), view(1 + torch.randn(3, 6, 5, 7)), 1e-4)


@layers
@modes
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_layers_of_half_precision(backend, make, training, dtype):
    layer = randomize(make(6)).to(dtype).train(training)
    x, seed = (torch.randn(4, 6, 8, 8).to(dtype) for _ in range(2))
    expected, expected_gradients = run_written_out(layer, x, seed)
    y, gradients = run(layer, x, seed)
    assert y.dtype == dtype and all(g.dtype == dtype for g in gradients.values())
    close(y, expected, torch.finfo(dtype).eps)
    for name, gradient in gradients.items():
        close(gradient, expected_gradients[name], 2 * torch.finfo(dtype).eps)
    assert all(b.dtype == dtype for b in layer.buffers() if b.is_floating_point())


@layers
def test_autocast_between_convolutions(backend, make):
    network = nn.Sequential(nn.Conv2d(3, 6, 3), randomize(make(6)), nn.ReLU(inplace=True), nn.Conv2d(6, 4, 1))
    x = torch.randn(3, 3, 7, 7)
    expected = network(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = network(x)
    assert y.dtype == torch.bfloat16
    close(y, expected, 0.05)
    y.float().square().mean().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in network.parameters())


def test_no_warnings_where_nothing_is_wrong(backend):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for make in LAYERS.values():
            make(6)(torch.randn(2, 6, 3, 3, requires_grad=True)).sum().backward()


# What one operator for a whole layer must not change


@modes
@layers
def test_a_graph_changes_no_digit(backend, make, training):
    layer, x = randomize(make(4)).train(training), 3 + torch.randn(3, 4, 5, 6)
    if hasattr(layer, "rho"):
        layer.rho.data = torch.tensor([1.0, 0.5, 0.0, 1.0])
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        expected = layer(x)
    assert torch.equal(twin(x), expected)


@layers
def test_forward_mode_is_refused_and_not_dropped(make):
    layer, x = make(4).requires_grad_(False), torch.randn(2, 4, 3, 3)
    with forward_ad.dual_level(), pytest.raises((RuntimeError, NotImplementedError)):
        layer(forward_ad.make_dual(x, torch.ones_like(x)))


def test_a_weight_that_a_subclass_computes_is_used(backend):
    class Doubled(SwitchNorm2d):
        @property
        def weight(self):
            return 2 * self._parameters["weight"]

    layer, x = SwitchNorm2d(4), torch.randn(2, 4, 3, 3)
    doubled = Doubled.__new__(Doubled)
    doubled.__dict__ |= copy.deepcopy(layer).__dict__
    torch.testing.assert_close(doubled(x), 2 * layer(x))


def test_averages_that_a_subclass_keeps_otherwise_are_used(backend):
    class Counting(SwitchNorm2d):
        seen = 0

        def observe(self, mean, var, count, backend):
            self.seen += 1

    layer = Counting(4)
    layer(torch.randn(2, 4, 3, 3))
    assert layer.seen == 1 and torch.equal(layer.running_mean, torch.zeros(4))


def test_a_source_needs_no_averages_for_an_operator(backend):
    class Source:
        training = False

        def running(self, dtype):
            return Batch(torch.ones(4), torch.full((4,), 3.0))

    x = torch.randn(2, 4, 3, 3)
    y = normalize(x, BatchFormula(1.0), (torch.ones(4), torch.zeros(4)), Source())
    torch.testing.assert_close(y, (x - 1) / 2)


@pytest.mark.parametrize("momentum", [1.0, None])
def test_a_whole_new_variance_keeps_its_digits(backend, momentum):
    layer, x = BatchNorm(3, momentum=momentum), 1e-4 * torch.randn(4, 3, 5, 5)
    layer(x)
    torch.testing.assert_close(layer.running_var, x.transpose(0, 1).flatten(1).var(1), rtol=1e-5, atol=0)


def test_any_number_of_batches_is_counted(backend):
    layer = BatchNorm(3, momentum=None)
    layer.num_batches_tracked = layer.num_batches_tracked.to(torch.int32)
    xs = torch.randn(3, 4, 3, 5, 5)
    for x in xs:
        layer(x)
    assert layer.num_batches_tracked == 3
    torch.testing.assert_close(layer.running_mean, xs.mean((0, 1, 3, 4)), rtol=1e-5, atol=1e-6)


def test_threads_may_begin_together():
    if not compiled.load():
        pytest.skip("the compiled kernels cannot be built here")
    compiled.operator.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: SwitchNorm2d(4)(torch.ones(2, 4, 3, 3)), range(32)))
    assert all(torch.equal(y, found[0]) for y in found)
