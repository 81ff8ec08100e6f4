"""The published forms compute what our layers compute; the bytes they keep are counted by hand."""

import os

import pytest
import torch
from torch import nn
from torchvision.models import resnet50

from kept import bytes_kept
from norm_peers import kernels, publish, published
from normshift import NORMS, BatchInstanceNorm2d, IBN2d, SwitchNorm2d, convert, norm_layers
from tests.normshift.written_out import randomize

LAYERS = {
    "sn": SwitchNorm2d,
    "bin": BatchInstanceNorm2d,
    "ibn-a": IBN2d,
    "ibn-a, three tenths": lambda channels: IBN2d(channels, ratio=0.3),
    "in": NORMS["in"],
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", LAYERS)
def test_published_forms_agree_with_our_layers_in_float64(name, layout, training):
    torch.manual_seed(0)
    ours = randomize(LAYERS[name](6)).double().train(training)
    theirs = published(ours)
    x = torch.randn(3, 6, 4, 5, dtype=torch.float64).to(memory_format=layout) * 2 + 1
    dy = torch.randn_like(x)
    found = []
    for layer in (ours, theirs):
        leaf = x.detach().clone().requires_grad_()
        y = layer(leaf)
        parameters = dict(layer.named_parameters())
        gradients = torch.autograd.grad(y, [leaf, *parameters.values()], dy)
        found.append({"y": y, "x": gradients[0]} | dict(zip(parameters, gradients[1:], strict=True)))
    assert found[0].keys() == found[1].keys()
    for key in found[0]:
        torch.testing.assert_close(found[1][key], found[0][key], rtol=1e-10, atol=1e-10, msg=key)
    if training:
        torch.testing.assert_close(
            dict(theirs.named_buffers()).get("running_mean"), getattr(ours, "running_mean", None)
        )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", LAYERS)
def test_published_forms_keep_the_type_of_their_input(name, dtype):
    assert published(LAYERS[name](6))(torch.randn(2, 6, 3, 3).to(dtype)).dtype == dtype


@pytest.mark.parametrize("name", ["sn", "bin"])
def test_published_forms_train_on_maps_of_one_position(name):
    torch.manual_seed(0)
    ours, x = randomize(LAYERS[name](6)).double(), torch.randn(4, 6, 1, 1, dtype=torch.float64)
    torch.testing.assert_close(published(ours)(x), ours(x))


def test_what_has_no_published_form_stays():
    assert published(SwitchNorm2d(6, statistics=("in", "ln"))) is None
    assert published(IBN2d(6, instance_first=False)) is None
    assert published(nn.BatchNorm2d(6)) is None


@pytest.mark.parametrize("norm", ["sn", "bin", "ibn-a", "ibn-b"])
def test_publish_replaces_all_our_layers_of_a_network(norm):
    with torch.device("meta"):
        network = convert(resnet50(), norm)
        ours = [name for name, layer in norm_layers(network).items() if published(layer)]
        layers = {name: type(layer) for name, layer in norm_layers(publish(network)).items()}
    assert len(ours) == {"sn": 53, "bin": 53, "ibn-a": 13, "ibn-b": 3}[norm]
    assert not any("normshift" in layer.__module__ for layer in layers.values())


def test_kernels_are_chosen_and_the_users_choice_comes_back(monkeypatch):
    monkeypatch.setenv("NORMSHIFT_KERNELS", "mine")
    with kernels("torch"):
        assert os.environ["NORMSHIFT_KERNELS"] == "torch"
    assert os.environ["NORMSHIFT_KERNELS"] == "mine"
    monkeypatch.delenv("NORMSHIFT_KERNELS")
    with pytest.raises(KeyError), kernels("torch"):
        raise KeyError
    assert "NORMSHIFT_KERNELS" not in os.environ


def test_bytes_kept_counts_each_storage_once_and_not_what_is_ones_own():
    x, w = torch.randn(8, 16, requires_grad=True), torch.randn(16, requires_grad=True)
    assert bytes_kept(lambda: x * w, ()) == (8 * 16 + 16) * 4
    assert bytes_kept(lambda: x * w, (w,)) == 8 * 16 * 4
    assert bytes_kept(lambda: (x * w, x * 2 * w), (w,)) == 2 * 8 * 16 * 4  # x once, 2 x
    norm, maps = nn.BatchNorm2d(4), torch.randn(2, 4, 8, 8)
    statistics = 2 * 4 * 4  # the batch's mean and standard deviation
    assert bytes_kept(lambda: norm(maps), (*norm.parameters(), *norm.buffers())) == maps.nbytes + statistics
