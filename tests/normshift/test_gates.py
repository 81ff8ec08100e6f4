"""The results of gates(), and how parameter_groups() trains gates."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from normshift import BatchInstanceNorm2d, SwitchNorm2d, convert, gates, parameter_groups
from normshift.gate_reader import GateReader


def network():
    return nn.Sequential(
        nn.Conv2d(3, 4, 1),
        nn.BatchNorm2d(4),
        nn.Sequential(nn.Conv2d(4, 4, 1), SwitchNorm2d(4), nn.ReLU()),
        BatchInstanceNorm2d(4),
        SwitchNorm2d(4, statistics=("ln", "gn"), groups=2),
    )


def test_records_tell_layer_depth_and_values():
    model = network()
    with torch.no_grad():
        model[2][1].mean_weight.copy_(torch.tensor([1.0, 2.0, 4.0]).log())
        model[3].rho.copy_(torch.tensor([0.0, 0.25, 0.5, 1.0]))
    records = gates(model)
    assert [(r.layer, r.depth, r.norm, r.statistic) for r in records] == [
        ("2.1", 1, "sn", "mean"),
        ("2.1", 1, "sn", "var"),
        ("3", 2, "bin", "rho"),
        ("4", 3, "sn", "mean"),
        ("4", 3, "sn", "var"),
    ]
    torch.testing.assert_close(records[0].values, torch.tensor([1.0, 2.0, 4.0]) / 7)
    torch.testing.assert_close(records[1].values, torch.full((3,), 1 / 3))
    assert records[2].values.tolist() == [0.0, 0.25, 0.5, 1.0]
    assert [tuple(r.labels) for r in records] == [("in", "ln", "bn")] * 2 + [("0", "1", "2", "3")] + [("ln", "gn")] * 2


def test_records_are_float32_and_stay_as_they_were():
    model = network().bfloat16()
    records = gates(model)
    nn.init.zeros_(model[3].rho)
    for record in records:
        assert record.values.dtype == torch.float32 and not record.values.requires_grad
        assert len(record.values) == len(record.labels)
    assert records[2].values.tolist() == [1.0] * 4


def test_no_gates_no_records():
    assert gates(nn.Sequential(nn.BatchNorm2d(3))) == []
    assert gates(nn.Linear(2, 2)) == []


def test_a_lone_layer():
    assert [r.layer for r in gates(SwitchNorm2d(3))] == ["", ""]


def test_groups_hold_every_parameter_once():
    model = network()
    groups = parameter_groups(model, lr=0.1, weight_decay=1e-4)
    held = [id(p) for group in groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())
    assert {g["name"]: (g["lr"], g["weight_decay"]) for g in groups} == {
        "weights": (0.1, 1e-4),
        "gates": (0.1, 0.0),
        "fast_gates": (pytest.approx(1.0), 0.0),
    }
    by_name = {group["name"]: {id(p) for p in group["params"]} for group in groups}
    assert by_name["fast_gates"] == {id(model[3].rho)}
    assert by_name["gates"] == {id(p) for i in (model[2][1], model[4]) for p in (i.mean_weight, i.var_weight)}


def test_gate_learning_rate_multiplier():
    groups = parameter_groups(network(), lr=0.2, weight_decay=0.0, gate_lr_multiplier=3.0)
    assert {g["name"]: g["lr"] for g in groups} == {"weights": 0.2, "gates": 0.2, "fast_gates": pytest.approx(0.6)}


def test_frozen_parameters_and_empty_groups_are_left_out():
    model = network()
    model[0].requires_grad_(False)
    model[3].rho.requires_grad_(False)
    groups = parameter_groups(model, lr=0.1, weight_decay=0.0)
    assert [g["name"] for g in groups] == ["weights", "gates"]
    held = {id(p) for group in groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters() if p.requires_grad}


def test_shared_layers_are_held_once():
    layer = BatchInstanceNorm2d(4)
    groups = parameter_groups(nn.Sequential(layer, nn.ReLU(), layer), lr=0.1, weight_decay=0.0)
    torch.optim.SGD(groups)  # which refuses a parameter that comes twice
    assert sum(len(g["params"]) for g in groups) == 3


@pytest.mark.parametrize("norm", ["bn", "sn", "bin"])
def test_optimizers_take_the_groups(norm):
    model = convert(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), norm)
    groups = parameter_groups(model, lr=0.1, weight_decay=1e-2)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    torch.optim.SGD(groups).step()  # without a gradient weight decay alone moves a parameter
    for name, p in model.named_parameters():
        decays = not name.endswith(("mean_weight", "var_weight", "rho"))
        torch.testing.assert_close(p.detach(), before[name] * (1 - 0.1 * 1e-2 if decays else 1))


def test_a_reader_sees_every_later_value():
    model = network()
    reader = GateReader(model)
    before = reader.read()
    with torch.no_grad():
        model[2][1].var_weight.copy_(torch.tensor([1.0, 1.0, 2.0]).log())
        model[3].rho.fill_(0.5)
    after = reader.read()
    assert not torch.equal(before, after) and before[reader.slots[2].slice].tolist() == [1.0] * 4
    for place, record in zip(reader.slots, gates(model), strict=True):
        assert torch.equal(after[place.slice], record.values)
    assert after[reader.slots[1].slice].tolist() == pytest.approx([0.25, 0.25, 0.5])


@pytest.mark.parametrize("kind", [SwitchNorm2d, BatchInstanceNorm2d])
def test_reading_takes_no_more_operations_in_a_deeper_network(kind):
    """On a GPU each would be a kernel or a wait."""

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, arguments=(), named=None):
            counts[-1] += 1
            return operation(*arguments, **(named or {}))

    counts = []
    for depth in (2, 50):
        reader = GateReader(nn.Sequential(*(kind(4) for _ in range(depth))))
        counts.append(0)
        with Count():
            reader.read()
    assert counts[0] == counts[1] < 10


@pytest.mark.parametrize(
    ("settings", "undecayed"),
    [
        ({"decay_gates": True}, ("rho",)),
        ({"decay_norms": False, "decay_gates": True}, ("rho", "norm")),
        ({"decay_norms": False, "decay_biases": True}, ("rho", "gates", "norm")),
        ({"decay_norms": False}, ("rho", "gates", "norm", "bias")),
        ({"decay_biases": False}, ("rho", "gates", "bias")),
    ],
)
def test_what_decays_is_chosen_by_kind(settings, undecayed):
    """Without a gradient weight decay alone moves a parameter; SN's ImageNet code and ResNet-RS' are among these."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), SwitchNorm2d(4), nn.Conv2d(4, 4, 1), BatchInstanceNorm2d(4), nn.Flatten())
    model.append(nn.Linear(4, 2))
    kinds = {}
    for name, p in model.named_parameters():
        nn.init.constant_(p, 0.5)
        p.grad = torch.zeros_like(p)
        kind = "gates" if name.endswith(("mean_weight", "var_weight")) else "rho" if name.endswith("rho") else None
        plain = "bias" if name.endswith("bias") else "kernel"
        kinds[name] = kind or ("norm" if name[0] in "13" else plain)
    torch.optim.SGD(parameter_groups(model, lr=0.1, weight_decay=0.1, **settings)).step()
    for name, p in model.named_parameters():
        expected = 0.5 if kinds[name] in undecayed else 0.5 * (1 - 0.1 * 0.1)
        if settings.get("decay_norms") is False and "decay_biases" not in settings and kinds[name] == "bias":
            expected = 0.5  # biases follow the norms
        torch.testing.assert_close(p.detach(), torch.full_like(p, expected), msg=name)


def test_a_gate_that_two_layers_share_is_in_one_group_once():
    first, second = BatchInstanceNorm2d(3), BatchInstanceNorm2d(3)
    second.rho = first.rho
    groups = parameter_groups(nn.Sequential(first, second), lr=0.1, weight_decay=0.0)
    ids = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(ids) == len(set(ids)) == 5
