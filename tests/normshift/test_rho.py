"""BIN's gate stays in [0, 1], with every optimiser and after every write."""

import copy
import pickle
import threading

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from normshift import BatchInstanceNorm2d, convert

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=1e3),
    "sgd-foreach": lambda p: torch.optim.SGD(p, lr=1e3, foreach=True),
    "sgd-momentum": lambda p: torch.optim.SGD(p, lr=1e3, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=10.0),
    "adamw": lambda p: torch.optim.AdamW(p, lr=10.0),
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=1e2, max_iter=4),
}


def network():
    return nn.Sequential(nn.Conv2d(3, 8, 1), BatchInstanceNorm2d(8), nn.ReLU(inplace=True), nn.Conv2d(8, 2, 1))


def in_unit_interval(layer):
    assert layer.rho.isfinite().all()
    return bool(((layer.rho >= 0) & (layer.rho <= 1)).all())


def train(model, optimizer, steps=3):
    """A training loop without code for rho; checks rho after every step."""
    layer = next(m for m in model.modules() if isinstance(m, BatchInstanceNorm2d))
    target = torch.randn(4, 2, 5, 5)
    x = torch.randn(4, 3, 5, 5) * torch.rand(4, 3, 1, 1)

    def closure():
        optimizer.zero_grad()
        loss = (model(x) - target).square().mean()
        loss.backward()
        return loss

    for _ in range(steps):
        optimizer.step(closure)
        assert in_unit_interval(layer)


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_after_every_step_of_any_optimizer(make):
    model = network()
    train(model, make([model[1].rho]))  # alone: at these learning rates the other weights would go to infinity
    assert (model[1].rho != 1).any()


def test_the_step_does_leave_the_interval_without_the_clamp():
    """Otherwise the tests here would show nothing."""
    model = network()
    rho = model[1].rho
    model(torch.randn(4, 3, 5, 5)).square().mean().backward()
    assert not torch.all((rho - 1e3 * rho.grad >= 0) & (rho - 1e3 * rho.grad <= 1))


def test_accumulated_gradients():
    model = network()
    optimizer = torch.optim.SGD([model[1].rho], lr=1e3)
    for step in range(6):
        model(torch.randn(2, 3, 5, 5)).square().mean().backward()
        if step % 3 == 2:
            optimizer.step()
            optimizer.zero_grad()
            assert in_unit_interval(model[1])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_copies_are_kept_too(copied):
    model = network()
    twin = copied(model)
    train(twin, torch.optim.SGD([twin[1].rho], lr=1e3))
    assert (twin[1].rho != 1).any()
    assert torch.equal(model[1].rho, torch.ones(8))


def test_two_optimizers_and_a_converted_network():
    model = convert(nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1)), "bin")
    others = [p for p in model.parameters() if p is not model[1].rho]
    first, second = torch.optim.SGD(others, lr=0.1), torch.optim.Adam([model[1].rho], lr=5.0)
    for _ in range(3):
        model(torch.randn(4, 3, 5, 5)).square().mean().backward()
        first.step(), second.step()
        assert in_unit_interval(model[1])


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_after_writing_by_hand_the_next_forward_clamps(training):
    layer = BatchInstanceNorm2d(3).train(training)
    clamped = copy.deepcopy(layer)
    with torch.no_grad():
        layer.rho.copy_(torch.tensor([-2.0, 0.5, 3.0]))
        clamped.rho.copy_(torch.tensor([0.0, 0.5, 1.0]))
    x = torch.randn(4, 3, 5, 5)
    assert torch.equal(layer(x), clamped(x))
    assert layer.rho.tolist() == [0.0, 0.5, 1.0]


def test_a_loaded_state_is_clamped_at_the_next_forward():
    layer = BatchInstanceNorm2d(2)
    layer.load_state_dict(layer.state_dict() | {"rho": torch.tensor([-1.0, 2.0])})
    layer(torch.randn(2, 2, 3, 3))
    assert layer.rho.tolist() == [0.0, 1.0]


def test_a_gate_at_the_edge_still_gets_its_gradient():
    """A clamp inside the forward function would hold a gate of 1 there for ever."""
    layer = BatchInstanceNorm2d(4)
    layer(torch.randn(4, 4, 3, 3) * torch.rand(4, 4, 1, 1)).pow(3).sum().backward()
    assert (layer.rho.grad.abs() > 0).all()


def test_nothing_else_is_clamped():
    class OwnRho(nn.Module):
        def __init__(self):
            super().__init__()
            self.rho = nn.Parameter(torch.full((3,), 5.0))

        def forward(self, x):
            return x * self.rho[:, None, None]

    model = nn.Sequential(OwnRho(), BatchInstanceNorm2d(3))
    with torch.no_grad():
        model[1].weight.fill_(4.0)
        model[1].bias.fill_(-3.0)
    model(torch.randn(2, 3, 4, 4)).square().sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.0).step()
    assert (model[0].rho == 5).all() and (model[1].weight == 4).all() and (model[1].bias == -3).all()


def test_a_shared_layer_used_twice_before_backward():
    layer, x = BatchInstanceNorm2d(3), torch.randn(4, 3, 5, 5)
    nn.init.constant_(layer.rho, 1.5)
    layer(layer(x).relu()).square().sum().backward()
    assert layer.rho.grad.isfinite().all()
    torch.optim.SGD(layer.parameters(), lr=1e3).step()
    assert in_unit_interval(layer)


def test_a_frozen_or_dead_layer_is_no_trouble():
    model = network()
    model[1].rho.requires_grad_(False)
    gone = BatchInstanceNorm2d(3)
    del gone
    train(model, torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1))
    assert torch.equal(model[1].rho, torch.ones(8))


def test_layers_of_several_types_are_kept_in_one_step():
    wide, narrow = BatchInstanceNorm2d(2).double(), BatchInstanceNorm2d(2).bfloat16()
    for layer in (wide, narrow):
        nn.init.constant_(layer.rho, 7.0)
    other = nn.Linear(1, 1)
    other(torch.ones(1, 1)).backward()
    torch.optim.SGD([wide.rho, narrow.rho, *other.parameters()], lr=0.1).step()
    assert wide.rho.tolist() == narrow.rho.tolist() == [1, 1]


def test_layers_on_the_meta_device_are_let_be():
    with torch.device("meta"):
        layer = BatchInstanceNorm2d(2)
    other = nn.Linear(1, 1)
    other(torch.ones(1, 1)).backward()
    torch.optim.SGD([layer.rho, *other.parameters()], lr=0.1).step()
    assert layer.rho.is_meta


def test_only_what_an_optimizer_trains_is_clamped_by_it():
    """Others' gates may not be there to be written to: sharded away, or of another kind of tensor."""
    model = network()
    with FakeTensorMode():
        kept = [BatchInstanceNorm2d(3)]
    kept.append(BatchInstanceNorm2d(3))
    with torch.no_grad():
        kept[1].rho.fill_(2.0)
    train(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert kept[1].rho.tolist() == [2.0] * 3


def test_steps_while_another_thread_makes_layers():
    made, going = [], True

    def make():
        while going:
            made.append(BatchInstanceNorm2d(3))

    thread = threading.Thread(target=make)
    thread.start()
    try:
        model = network()
        train(model, torch.optim.SGD(model.parameters(), lr=0.1), steps=20)
    finally:
        going = False
        thread.join()
    assert made
