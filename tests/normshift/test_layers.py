"""Every layer compared with its paper's formula in float64, and with torch's own layers."""

import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from normshift import (
    BatchInstanceNorm1d,
    BatchInstanceNorm2d,
    BatchInstanceNorm3d,
    IBN2d,
    SwitchNorm1d,
    SwitchNorm2d,
    SwitchNorm3d,
)
from normshift.layers import InstanceNorm1d, InstanceNorm2d, InstanceNorm3d
from tests.normshift.agreement import agrees, close, run, run_written_out
from tests.normshift.written_out import randomize, state_of, written_out

SUBSETS = [
    ("in",),
    ("ln",),
    ("bn",),
    ("in", "ln"),
    ("in", "bn"),
    ("bn", "ln"),
    ("in", "ln", "bn"),
    ("ln", "gn"),
    ("gn", "bn", "ln", "in"),
]

# name -> (how to make the layer, an input's shape); channels are odd where groups allow it
LAYERS = {
    f"sn2d-{'+'.join(s)}-correction{c}": (
        lambda s=s, c=c: SwitchNorm2d(6, statistics=s, groups=3, correction=c),
        (3, 6, 4, 3),
    )
    for s in SUBSETS
    for c in (0, 1)
}
LAYERS |= {
    "sn1d-NC": (lambda: SwitchNorm1d(5), (4, 5)),
    "sn1d-NC-ln+gn": (lambda: SwitchNorm1d(6, statistics=("ln", "gn"), groups=2), (3, 6)),
    "sn1d-NC-ln+bn": (lambda: SwitchNorm1d(5, statistics=("ln", "bn")), (4, 5)),
    "sn1d-NCL": (lambda: SwitchNorm1d(5), (3, 5, 4)),
    "sn3d": (lambda: SwitchNorm3d(3), (2, 3, 2, 3, 2)),
    "sn2d-one-image": (lambda: SwitchNorm2d(3), (1, 3, 4, 3)),
    "sn2d-1x1": (lambda: SwitchNorm2d(7), (4, 7, 1, 1)),
    "sn2d-one-1x1-image": (lambda: SwitchNorm2d(7), (1, 7, 1, 1)),
    "sn2d-one-channel": (lambda: SwitchNorm2d(1), (3, 1, 4, 3)),
    "bin1d-NC": (lambda: BatchInstanceNorm1d(5), (4, 5)),
    "bin1d-NCL": (lambda: BatchInstanceNorm1d(5), (3, 5, 4)),
    "bin2d": (lambda: BatchInstanceNorm2d(3), (3, 3, 4, 3)),
    "bin2d-one-image": (lambda: BatchInstanceNorm2d(3), (1, 3, 4, 3)),
    "bin2d-1x1": (lambda: BatchInstanceNorm2d(3), (4, 3, 1, 1)),
    "bin3d": (lambda: BatchInstanceNorm3d(3), (2, 3, 2, 3, 2)),
    "ibn-0.5": (lambda: IBN2d(5), (3, 5, 4, 3)),
    "ibn-0.4": (lambda: IBN2d(5, ratio=0.4), (3, 5, 4, 3)),
    "ibn-0.8": (lambda: IBN2d(7, ratio=0.8), (3, 7, 2, 3)),
    "ibn-one-image": (lambda: IBN2d(4, ratio=0.25), (1, 4, 4, 3)),
    "ibn-1x1": (lambda: IBN2d(4), (3, 4, 1, 1)),
    "in1d-NC": (lambda: InstanceNorm1d(3), (3, 3)),
    "in1d-NCL": (lambda: InstanceNorm1d(3), (3, 3, 4)),
    "in2d": (lambda: InstanceNorm2d(3), (3, 3, 4, 3)),
    "in3d": (lambda: InstanceNorm3d(3), (2, 3, 2, 3, 2)),
}

# one of each kind, for what does not depend on the case
KINDS = {
    "sn": lambda: SwitchNorm2d(6),
    "sn-ln-gn": lambda: SwitchNorm2d(6, statistics=("ln", "gn"), groups=3),
    "bin": lambda: BatchInstanceNorm2d(6),
    "ibn": lambda: IBN2d(6, ratio=0.4),
    "in": lambda: InstanceNorm2d(6),
}

layers = pytest.mark.parametrize(("make", "shape"), LAYERS.values(), ids=LAYERS)
kinds = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
modes = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])


@layers
@modes
def test_forward_and_gradients_are_the_formulas(make, shape, training):
    layer = randomize(make().double()).train(training)
    agrees(layer, 2 * torch.randn(shape, dtype=torch.float64) + 1, 1e-9)


@layers
@modes
def test_in_float32(make, shape, training):
    layer = randomize(make()).train(training)
    agrees(layer, 2 * torch.randn(shape) + 1, 2e-4)


@layers
@modes
def test_gradcheck(make, shape, training):
    layer = randomize(make().double()).train(training)
    names = [name for name, _ in layer.named_parameters()]

    def call(x, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    parameters = [p.detach().clone().requires_grad_() for p in layer.parameters()]
    assert torch.autograd.gradcheck(call, (x, *parameters), fast_mode=x.numel() > 40)


@layers
def test_without_gradients_the_output_is_the_same(make, shape):
    layer, x = randomize(make()), torch.randn(shape)
    with_graph = layer(x)
    with torch.no_grad():
        assert torch.equal(layer(x), with_graph)
    with torch.inference_mode():
        assert torch.equal(layer(x), with_graph)


# Running statistics: torch's convention


@pytest.mark.parametrize("momentum", [0.1, 0.5, 1.0, 0.0, None])
@pytest.mark.parametrize(
    "make",
    [SwitchNorm2d, BatchInstanceNorm2d, lambda c, momentum: IBN2d(c + 2, 2.5 / (c + 2), momentum=momentum)],
    ids=["sn", "bin", "ibn"],
)
def test_running_statistics_over_several_batches_are_batch_norms(make, momentum):
    layer, reference = make(5, momentum=momentum), nn.BatchNorm2d(5, momentum=momentum)
    tracked = layer.BN if isinstance(layer, IBN2d) else layer
    for n in (4, 1, 3):
        x = 3 * torch.randn(n, layer.num_features, 4, 3) - 2
        layer(x)
        reference(x[:, -5:])
        close(tracked.running_mean, reference.running_mean, 1e-5)
        close(tracked.running_var, reference.running_var, 1e-5)
    layer.eval()(x)
    close(tracked.running_mean, reference.running_mean, 1e-5)
    if isinstance(layer, IBN2d):
        assert layer.BN.num_batches_tracked == reference.num_batches_tracked == 3


def test_running_variance_of_a_single_value_is_finite():
    layer = SwitchNorm2d(3)
    layer(torch.randn(1, 3, 1, 1))
    close(layer.running_var, torch.full((3,), 0.9), 1e-6)


def test_running_variance_with_correction_is_the_published_one():
    layer, x = SwitchNorm2d(3, correction=1, momentum=1.0), torch.randn(2, 3, 2, 2)
    layer(x)
    close(layer.running_var, x.var((2, 3)).mean(0) + x.mean((2, 3)).var(0, correction=0), 1e-5)


def test_running_variance_of_vectors_is_batch_norms():
    layer, reference = SwitchNorm1d(5), nn.BatchNorm1d(5)
    x = torch.randn(8, 5)
    layer(x), reference(x)
    close(layer.running_var, reference.running_var, 1e-5)


# The special cases that have layers of torch's own


def agrees_with_torch(layer, reference, x, tolerance=1e-9):
    seed = torch.randn_like(x)
    actual, gradients = run(layer, x, seed)
    expected, expected_gradients = run(reference, x, seed)
    close(actual, expected, tolerance)
    for name, gradient in expected_gradients.items():
        close(gradients[name], gradient, tolerance)


def with_affine_of(layer, reference):
    layer.load_state_dict({k: v for k, v in reference.state_dict().items() if k in layer.state_dict()}, strict=False)
    return layer


def gate(layer, statistic):
    """Make one statistic's share 1."""
    logits = torch.tensor([0.0 if name == statistic else -1e4 for name in layer.statistics])
    with torch.no_grad():
        layer.mean_weight.copy_(logits)
        layer.var_weight.copy_(logits)
    return layer


@modes
def test_bin_with_rho_one_is_batch_norm(training):
    reference = randomize(nn.BatchNorm2d(5)).double().train(training)
    layer = with_affine_of(BatchInstanceNorm2d(5).double(), reference).train(training)
    x = 2 * torch.randn(4, 5, 3, 3, dtype=torch.float64) + 1
    agrees_with_torch(layer, reference, x)
    close(layer.running_mean, reference.running_mean, 1e-9)
    close(layer.running_var, reference.running_var, 1e-9)


@modes
def test_bin_with_rho_zero_is_instance_norm(training):
    reference = randomize(nn.InstanceNorm2d(5, affine=True)).double()
    layer = with_affine_of(BatchInstanceNorm2d(5).double(), reference).train(training)
    nn.init.zeros_(layer.rho)
    agrees_with_torch(layer, reference, torch.randn(4, 5, 3, 3, dtype=torch.float64))


ONE_HOT = {
    "in": lambda: nn.InstanceNorm2d(6, affine=True),
    "ln": lambda: nn.GroupNorm(1, 6),
    "gn": lambda: nn.GroupNorm(3, 6),
    "bn": lambda: nn.BatchNorm2d(6),
}


@modes
@pytest.mark.parametrize("statistic", ONE_HOT)
def test_sn_with_one_hot_gates_is_torchs_layer(statistic, training):
    reference = randomize(ONE_HOT[statistic]()).double().train(training)
    layer = SwitchNorm2d(6, statistics=("in", "ln", "bn", "gn"), groups=3).double().train(training)
    gate(with_affine_of(layer, reference), statistic)
    agrees_with_torch(layer, reference, 2 * torch.randn(3, 6, 4, 3, dtype=torch.float64) + 1)


@modes
def test_ibn_is_instance_norm_beside_batch_norm(training):
    class Reference(nn.Module):
        def __init__(self):
            super().__init__()
            self.IN, self.BN = nn.InstanceNorm2d(2, affine=True), nn.BatchNorm2d(3)

        def forward(self, x):
            return torch.cat([self.IN(x[:, :2]), self.BN(x[:, 2:])], 1)

    reference = randomize(Reference()).double().train(training)
    layer = IBN2d(5, ratio=0.4).double().train(training)
    layer.load_state_dict(reference.state_dict())  # the key names are the published ones
    agrees_with_torch(layer, reference, torch.randn(4, 5, 3, 3, dtype=torch.float64))
    close(layer.BN.running_var, reference.BN.running_var, 1e-9)


def test_hand_worked_switch_norm():
    """Two images, two channels, two positions; every number below can be checked on paper."""
    x = torch.tensor([[[0.0, 2.0], [4.0, 6.0]], [[2.0, 4.0], [6.0, 8.0]]])
    layer = SwitchNorm1d(2, eps=0.0)
    # first value: IN mean 1, var 1; LN mean 3, var 5; BN mean 2, var 2; a third of each: mean 2, var 8/3
    assert layer(x)[0, 0, 0].item() == pytest.approx(-2 / (8 / 3) ** 0.5, rel=1e-6)
    assert layer.running_mean.tolist() == pytest.approx([0.2, 0.6])
    assert layer.running_var.tolist() == pytest.approx([0.9 + 0.1 * 8 / 3] * 2)  # unbiased: 2 * 4 / 3


def test_hand_worked_batch_instance_norm():
    x = torch.tensor([[[0.0, 2.0]], [[2.0, 4.0]]])
    layer = BatchInstanceNorm1d(1, eps=0.0)
    nn.init.constant_(layer.rho, 0.25)
    # first value: BN -2/sqrt(2), IN -1
    assert layer(x)[0, 0, 0].item() == pytest.approx(0.25 * -(2**0.5) - 0.75, rel=1e-6)


def test_defaults_are_the_papers():
    layer = SwitchNorm2d(4)
    assert layer.mean_weight.tolist() == layer.var_weight.tolist() == [1, 1, 1]
    assert (layer.statistics, layer.eps, layer.momentum) == (("in", "ln", "bn"), 1e-5, 0.1)
    assert BatchInstanceNorm2d(4).rho.tolist() == [1] * 4
    assert {k: tuple(v.shape) for k, v in SwitchNorm2d(4).state_dict().items()} == {
        "weight": (4,),
        "bias": (4,),
        "mean_weight": (3,),
        "var_weight": (3,),
        "running_mean": (4,),
        "running_var": (4,),
    }
    assert "running_mean" not in SwitchNorm2d(4, statistics=("in", "ln")).state_dict()


# Memory layouts


@kinds
@pytest.mark.parametrize("shape", [(3, 6, 4, 5), (1, 6, 4, 5), (3, 6, 1, 5)], ids=str)
def test_channels_last_gives_the_same_values_in_channels_last(make, shape):
    layer, x, seed = randomize(make()), torch.randn(shape), torch.randn(shape)
    expected, expected_gradients = run(copy.deepcopy(layer), x, seed)
    last = x.to(memory_format=torch.channels_last).requires_grad_()
    y = layer(last)
    assert y.stride() == last.stride()
    close(y, expected, 1e-5)
    y.backward(seed.to(memory_format=torch.channels_last))
    assert last.grad.stride() == last.stride()
    close(last.grad, expected_gradients["x"], 1e-4)
    with torch.no_grad():
        assert layer(last).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("make", [SwitchNorm3d, BatchInstanceNorm3d, InstanceNorm3d])
def test_channels_last_3d(make):
    layer, x = randomize(make(3)), torch.randn(2, 3, 2, 4, 5)
    y = layer(x.to(memory_format=torch.channels_last_3d))
    assert y.is_contiguous(memory_format=torch.channels_last_3d)
    close(y, layer(x), 1e-5)


VIEWS = {
    "every-second-column": lambda: torch.randn(3, 6, 4, 8)[..., ::2],
    "some-channels": lambda: torch.randn(3, 9, 4, 4)[:, 3:],
    "transposed": lambda: torch.randn(3, 6, 5, 4).transpose(2, 3),
    "one-image-expanded": lambda: torch.randn(1, 6, 4, 4).expand(3, -1, -1, -1),
    "one-row-expanded": lambda: torch.randn(3, 6, 1, 4).expand(-1, -1, 5, -1),
}


@kinds
@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_strided_and_expanded_inputs(make, view):
    layer, x = randomize(make()), view()
    seed = torch.randn(1, 6, 1, 1).expand(x.shape)  # and an expanded gradient
    expected, expected_gradients = run(copy.deepcopy(layer), x.contiguous(), seed.contiguous())
    actual, gradients = run(layer, x, seed)
    close(actual, expected, 1e-5)
    for name in gradients:
        torch.testing.assert_close(gradients[name], expected_gradients[name], rtol=1e-3, atol=1e-4)


# Numbers: mixed precision, large means, large maps


@kinds
@modes
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("weights", ["float32", "same"])
def test_half_precision_is_float64_up_to_rounding(make, training, dtype, weights):
    layer = randomize(make()).train(training)
    layer = layer.to(dtype) if weights == "same" else layer
    rounding = torch.finfo(dtype).eps
    x = (2 * torch.randn(4, 6, 8, 8) + 1).to(dtype)
    seed = torch.randn(4, 6, 8, 8).to(dtype)
    expected, expected_gradients = run_written_out(layer, x, seed)
    actual, gradients = run(layer, x, seed)
    reference = nn.BatchNorm2d(6).to(dtype) if weights == "same" else nn.BatchNorm2d(6)
    assert actual.dtype == reference(x).dtype == dtype
    assert gradients["x"].dtype == dtype
    close(actual, expected, rounding)
    close(gradients["x"], expected_gradients["x"], 2 * rounding)
    for name, p in layer.named_parameters():
        assert gradients[name].dtype == p.dtype
        close(gradients[name], expected_gradients[name], 1e-3 if weights == "float32" else 2 * rounding)


@kinds
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_autocast_gives_batch_norms_output_type(make, dtype):
    layer, x = randomize(make()), torch.randn(3, 6, 5, 5, dtype=dtype)
    expected = written_out(layer, x.double(), state_of(layer))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
        assert y.dtype == nn.BatchNorm2d(6)(x).dtype
    close(y, expected, 2**-7 if dtype == torch.bfloat16 else 1e-5)


@kinds
def test_training_step_under_autocast(make):
    network = nn.Sequential(nn.Conv2d(3, 6, 1), make(), nn.ReLU(inplace=True))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = network(torch.randn(3, 3, 5, 5))
        assert y.dtype == torch.bfloat16
        y.float().square().mean().backward()
    assert all(
        p.grad.isfinite().all() and p.grad.dtype == torch.float32 for p in network.parameters() if p.grad is not None
    )
    assert network[1].training and all(p.grad is not None for p in network[1].parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("make", [SwitchNorm2d, BatchInstanceNorm2d])
def test_statistics_of_half_precision_are_taken_in_float32(make, dtype):
    layer = make(3, momentum=1.0)
    x = (100 + torch.randn(4, 3, 32, 32)).to(dtype)
    layer(x)
    wide = x.double()
    close(layer.running_mean, wide.mean((0, 2, 3)), 1e-6)
    close(layer.running_var, wide.var((0, 2, 3)), 1e-4)


@kinds
def test_float16_maps_with_sums_beyond_its_range(make):
    layer, x = make(), (1000 + 500 * torch.randn(2, 6, 64, 64)).half()
    close(layer(x), written_out(layer, x.double(), state_of(layer)), 2e-3)


@kinds
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "as-the-compiler-sees-it"])
def test_mean_of_ten_thousand_with_variance_one(make, compiled, monkeypatch):
    if compiled:
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    # gates compare means with one another, which float32 holds to within 1e-3 here: too coarse for their gradients
    agrees(randomize(make()), 1e4 + torch.randn(4, 6, 16, 16), 1e-2, gates=False)


@kinds
def test_large_maps(make):
    channels = torch.arange(1.0, 7)[:, None, None]
    agrees(randomize(make()), channels * (3 + torch.randn(1, 6, 512, 512)), 1e-3)


@kinds
def test_constant_maps_give_finite_gradients(make):
    x = torch.full((2, 6, 4, 4), 3.0)
    layer = randomize(make())
    y, gradients = run(layer, x, torch.randn_like(x))
    assert y.isfinite().all()
    assert all(g.isfinite().all() for g in gradients.values())


# As a good citizen of torch


@kinds
@modes
def test_relu_in_place_after_the_layer(make, training):
    layer, x = randomize(make()).train(training), torch.randn(3, 6, 4, 4)
    seed = torch.randn_like(x)
    _, expected = run(nn.Sequential(copy.deepcopy(layer), nn.ReLU()), x, seed)
    _, gradients = run(nn.Sequential(layer, nn.ReLU(inplace=True)), x, seed)
    assert all(torch.equal(gradients[name], expected[name]) for name in expected)


def held_by(node):
    """Every tensor that a backward node keeps in Python, however deep."""
    found, todo, seen = [], gc.get_referents(node), set()
    while todo:
        item = todo.pop()
        if id(item) not in seen and isinstance(item, (tuple, list, dict, torch.Tensor)):
            seen.add(id(item))
            found += [item] if isinstance(item, torch.Tensor) else []
            todo += gc.get_referents(item)
    return found


@kinds
@modes
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_only_x_and_small_vectors_are_kept_for_backward(make, training, dtype):
    layer, x = make().train(training), torch.randn(2, 6, 32, 32, dtype=dtype).requires_grad_()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        y = layer(x)
    assert len(saved) > 1
    statistics = (2 * 2 + 2) * 6  # means and variances of two images and of their batch
    large = [t for t in saved if t.numel() > statistics]
    assert [t.data_ptr() for t in large] == [x.data_ptr()]
    assert all(
        t.untyped_storage().nbytes() <= 4 * statistics
        for t in (*saved, *held_by(y.grad_fn))
        if t.data_ptr() != x.data_ptr()
    )


@kinds
@modes
def test_the_graph_is_freed_with_its_output(make, training):
    layer, x = make().train(training), torch.randn(2, 6, 8, 8)
    gc.disable()  # by reference counts alone, without waiting for a collection
    try:
        for backward in (False, True):
            inside = x.clone()
            there = weakref.ref(inside)
            y = layer(inside)
            if backward:
                y.sum().backward()
            del inside, y
            assert there() is None
    finally:
        gc.enable()


@kinds
@modes
def test_used_twice_in_one_graph(make, training):
    layer, x = randomize(make().double()).train(training), torch.randn(3, 6, 4, 4, dtype=torch.float64)
    seed = torch.randn_like(x)
    wide, state = x.clone().requires_grad_(), state_of(layer)
    expected = written_out(layer, written_out(layer, wide, state).tanh(), state)
    expected.backward(seed)
    x = x.requires_grad_()
    y = layer(layer(x).tanh())
    y.backward(seed)
    close(y, expected, 1e-9)
    close(x.grad, wide.grad, 1e-8)
    for name, p in layer.named_parameters():
        if state[name].grad is not None:
            close(p.grad, state[name].grad, 1e-8)


@kinds
def test_backward_twice_with_retain_graph(make):
    layer, x = randomize(make()), torch.randn(3, 6, 4, 4, requires_grad=True)
    loss = layer(x).square().sum()
    loss.backward(retain_graph=True)
    once = {name: p.grad.clone() for name, p in layer.named_parameters()}
    loss.backward()
    for name, p in layer.named_parameters():
        torch.testing.assert_close(p.grad, 2 * once[name])


@kinds
@modes
@pytest.mark.parametrize("frozen", ["weight", "bias", "gates", "everything", "input"])
def test_frozen_parameters_get_no_gradient_and_change_none(make, training, frozen):
    layer, x = randomize(make()).train(training), torch.randn(3, 6, 4, 4)
    seed = torch.randn_like(x)
    _, expected = run(copy.deepcopy(layer), x, seed)
    chosen = {"gates": ("mean_weight", "var_weight", "rho"), "everything": ("weight", "bias", "rho"), "input": ()}
    for name, p in layer.named_parameters():
        p.requires_grad_(not name.endswith(chosen.get(frozen, (f".{frozen}", frozen) if "." in name else (frozen,))))
    x = x.requires_grad_(frozen != "input")
    layer(x).backward(seed)
    for name, p in (("x", x), *layer.named_parameters()):
        if p.requires_grad:
            torch.testing.assert_close(p.grad, expected[name])
        else:
            assert p.grad is None


@kinds
def test_activation_checkpointing(make):
    x, seed = torch.randn(3, 6, 4, 4), torch.randn(3, 6, 4, 4)
    layer = randomize(make())
    _, expected = run(copy.deepcopy(layer), x, seed)
    for reentrant in (False, True):
        twin = copy.deepcopy(layer)
        inputs = x.clone().requires_grad_()
        checkpoint(twin, inputs, use_reentrant=reentrant).backward(seed)
        torch.testing.assert_close(inputs.grad, expected["x"])
        for name, p in twin.named_parameters():
            torch.testing.assert_close(p.grad, expected[name])


@kinds
@modes
def test_compiled_is_eager(make, training):
    torch._dynamo.reset()
    layer, x, seed = randomize(make()).train(training), torch.randn(3, 6, 4, 4), torch.randn(3, 6, 4, 4)
    twin = copy.deepcopy(layer)
    expected, expected_gradients = run(layer, x, seed)
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    x = x.requires_grad_()
    y = compiled(x)
    y.backward(seed)
    close(y, expected, 1e-5)
    close(x.grad, expected_gradients["x"], 1e-4)
    for name, p in twin.named_parameters():
        torch.testing.assert_close(p.grad, expected_gradients[name], rtol=1e-3, atol=1e-4)
    for name, buffer in layer.named_buffers():
        torch.testing.assert_close(dict(twin.named_buffers())[name], buffer)


@kinds
def test_exported_is_eager_for_any_batch(make):
    layer = randomize(make()).eval()
    program = torch.export.export(layer, (torch.randn(4, 6, 5, 5),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for n in (2, 7):
        x = torch.randn(n, 6, 5, 5)
        close(program.module()(x), layer(x), 1e-5)


@kinds
def test_copies_are_equal_and_apart(make):
    layer, x = randomize(make()), torch.randn(3, 6, 4, 4)
    layer(x)
    fresh = make()
    fresh.load_state_dict(layer.state_dict())
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), fresh):
        assert torch.equal(twin.eval()(x), layer.eval()(x))
        nn.init.constant_(next(twin.parameters()), 7.0)
        assert not torch.equal(twin(x), layer(x))


# Errors


WRONG_INPUTS = {
    "channels": ((3, 5, 4, 4), r"of 6 channels got 5, in input of shape \(3, 5, 4, 4\)"),
    "a-vector": ((3, 6), r"expects 4D input, got 2D of shape \(3, 6\)"),
    "a-volume": ((3, 6, 2, 2, 2), "expects 4D input, got 5D"),
    "no-batch": ((6, 4, 4), "expects 4D input, got 3D"),
}


@kinds
@pytest.mark.parametrize(("shape", "sentence"), WRONG_INPUTS.values(), ids=WRONG_INPUTS)
def test_wrong_inputs_are_refused_in_words(make, shape, sentence):
    layer = make()
    with pytest.raises(ValueError, match=sentence) as error:
        layer(torch.randn(shape))
    assert type(layer).__name__ in str(error.value)


def test_1d_layers_take_two_shapes():
    for make in (SwitchNorm1d, BatchInstanceNorm1d, InstanceNorm1d):
        with pytest.raises(ValueError, match="expects 2D or 3D input, got 4D"):
            make(3)(torch.randn(2, 3, 4, 4))


WRONG_SETTINGS = {
    "unknown-statistic": (lambda: SwitchNorm2d(4, statistics=("in", "xn")), "statistics are some of in, ln, bn, gn"),
    "statistic-twice": (lambda: SwitchNorm2d(4, statistics=("in", "in")), "each once"),
    "no-statistic": (lambda: SwitchNorm2d(4, statistics=()), "statistics are some of"),
    "groups": (lambda: SwitchNorm2d(6, statistics=("ln", "gn"), groups=4), "groups=4 does not divide num_features=6"),
    "groups-of-one": (lambda: SwitchNorm2d(32, statistics=("gn", "bn")), "one channel a group is instance norm"),
    "one-group": (lambda: SwitchNorm2d(6, statistics=("gn",), groups=1), "in one group are layer norm"),
    "correction": (lambda: SwitchNorm2d(4, correction=2), "correction is 0 or 1"),
    "momentum": (lambda: BatchInstanceNorm2d(4, momentum=1.5), r"a number in \[0, 1\], or None .*; got 1.5"),
    "momentum-in-words": (lambda: SwitchNorm2d(4, momentum="none"), "got 'none'"),
    "no-channels": (lambda: SwitchNorm2d(0), "at least 1 channel"),
    "ibn-one-channel": (lambda: IBN2d(1), "a channel under either norm"),
    "ibn-ratio": (lambda: IBN2d(4, ratio=1.0), "ratio=1.0 leave none"),
}


@pytest.mark.parametrize(("make", "sentence"), WRONG_SETTINGS.values(), ids=WRONG_SETTINGS)
def test_wrong_settings_are_refused_in_words(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_unbiased_variance_of_one_position_is_refused():
    with pytest.raises(ValueError, match="correction=1 needs maps of 2 positions or more"):
        SwitchNorm2d(4, correction=1)(torch.randn(2, 4, 1, 1))


def test_sync_batch_norm_conversion_of_torch_leaves_the_layers_alone():
    network = nn.Sequential(*(make() for make in KINDS.values()))
    before = [type(layer) for layer in network.modules()]
    assert [type(layer) for layer in nn.SyncBatchNorm.convert_sync_batchnorm(network).modules()] == before
