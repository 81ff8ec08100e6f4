"""`inplace` means the same in every function that changes a network."""

import pytest
import torch
import torchvision
from torch import nn

from normshift import antialias, convert, fold, gates, synchronize

CHANGES = {
    "convert": lambda model, **inplace: convert(model, "sn", **inplace),
    "antialias": antialias,
    "synchronize": synchronize,
    "fold": lambda model, **inplace: fold(model.eval(), **inplace)[0],
}
BY_DEFAULT = {"convert": True, "antialias": True, "synchronize": True, "fold": False}


def network():
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=5).eval()


def structure(model):
    """What there is in a network: names, classes and settings of its modules, and its tensors."""
    return repr(model), {key: value.clone() for key, value in model.state_dict().items()}


def same(a, b):
    return a[0] == b[0] and a[1].keys() == b[1].keys() and all(torch.equal(a[1][key], b[1][key]) for key in a[1])


@pytest.mark.parametrize("name", CHANGES)
def test_in_place_changes_the_network_itself(name):
    model = network()
    before = structure(model)
    assert CHANGES[name](model, inplace=True) is model
    assert not same(structure(model), before)


@pytest.mark.parametrize("name", CHANGES)
def test_otherwise_a_copy_is_changed(name):
    model = network()
    before = structure(model)
    other = CHANGES[name](model, inplace=False)
    assert same(structure(model), before) and not same(structure(other), before)
    own = {tensor.data_ptr() for tensor in model.state_dict().values()}
    assert own.isdisjoint(tensor.data_ptr() for tensor in other.state_dict().values())
    assert same(structure(other), structure(CHANGES[name](model, inplace=True)))


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_changed_by_default(name):
    model = network()
    assert (CHANGES[name](model) is model) == BY_DEFAULT[name]


def test_a_refused_copy_leaves_the_network():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LPPool2d(2, 2))
    before = structure(model)
    with pytest.raises(ValueError, match="LPPool2d"):
        antialias(model, inplace=False)
    assert same(structure(model), before) and gates(model) == []
