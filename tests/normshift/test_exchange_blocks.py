"""IBN-b rewrites a block's forward only if nothing but the new norm changes; and wrapped networks."""

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torchvision.models import resnet

from normshift import convert, synchronize
from normshift.layers import BatchNorm
from tests.normshift.exchanging import close, randomize, refused


class Block(nn.Module):
    def __init__(self, way):
        super().__init__()
        self.conv1, self.bn1, self.way = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), way

    def forward(self, x):
        return self.way(self, x)


class Network(nn.Module):
    def __init__(self, *ways):
        super().__init__()
        self.bn = nn.BatchNorm2d(4)
        self.layer1 = nn.Sequential(*(Block(way) for way in ways))
        self.layer2 = nn.Sequential(Block(plain))

    def forward(self, x):
        return self.layer2(self.layer1(self.bn(x)))


def plain(block, x):
    return (x + block.bn1(block.conv1(x))).relu()


def dropping(block, x):
    return (x + F.dropout(block.bn1(block.conv1(x)), training=block.training)).relu()


def branching(block, x):
    return x + block.bn1(block.conv1(x)) if x.sum() > 0 else x


def straight(block, x):
    return block.bn1(block.conv1(x)).relu()


WAYS = {
    dropping: "its forward differs between training and evaluation",
    branching: "cannot follow the forward of 'layer1.0', a Block",
    straight: "it finds no addition in its forward",
}


@pytest.mark.parametrize(("way", "why"), WAYS.items(), ids=[way.__name__ for way in WAYS])
def test_a_block_that_cannot_be_rewritten_is_refused_before_anything_is_exchanged(way, why):
    refused(Network(way), lambda model: convert(model, "ibn-b"), why)
    assert convert(Network(way, plain), "ibn-b").layer1[1].IN


def test_a_forward_exchanged_on_one_object_is_not_lost():
    model = Network(plain)
    model.layer1[0].forward = lambda x: x
    refused(model, lambda model: convert(model, "ibn-b"), "its forward was replaced on this one object")


def test_tracing_leaves_each_modules_mode():
    model = Network(plain).train()
    model.layer1[0].bn1.eval()
    convert(model, "ibn-b")
    assert model.layer1[0].training and not model.layer1[0].bn1.training and model.layer1[0].conv1.training


def test_a_block_under_two_names_stays_one_block():
    model = randomize(Network(plain))
    model.layer1.append(model.layer1[0])
    x = torch.randn(2, 4, 6, 6)
    model = convert(model, "ibn-b")
    assert model.layer1[0] is model.layer1[1]
    assert model.eval()(x).isfinite().all()


def test_no_layer_is_exchanged_where_a_later_one_cannot_be():
    model = resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1])
    model.layer3[0].bn1 = nn.LazyBatchNorm2d()
    for exchange in (lambda m: convert(m, "ibn-a"), lambda m: convert(m, "sn"), synchronize):
        refused(model, exchange, "'layer3.0.bn1' has no channels yet")


# Wrapped networks


@pytest.fixture
def one_process(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_ddp_knows_nothing_of_new_gates(one_process):
    model = nn.parallel.DistributedDataParallel(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
    refused(model, lambda m: convert(m, "bin"), "convert the network first and wrap it then")
    refused(model, lambda m: convert(m, "ibn-a", where="*"), "convert the network first and wrap it then")


def test_but_of_parameters_that_it_had_before(one_process):
    model, x = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), torch.randn(2, 3, 5, 5)
    expected = copy.deepcopy(model)(x)
    parallel = synchronize(nn.parallel.DistributedDataParallel(model))
    assert isinstance(parallel.module[1], BatchNorm)
    y = parallel(x)
    close(y, expected)
    y.square().sum().backward()
    assert all(p.grad is not None for p in parallel.parameters())


def test_data_parallel_networks():
    model, x = randomize(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))).eval(), torch.randn(2, 3, 5, 5)
    expected = model(x)
    close(convert(nn.DataParallel(model), "bin")(x), expected)
