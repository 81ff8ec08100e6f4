"""Batch statistics over two processes are those of one process that has the whole batch."""

import copy

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from normshift import BatchInstanceNorm2d, IBN2d, SwitchNorm1d, SwitchNorm2d, convert, synchronize
from normshift.layers import BatchNorm
from tests.normshift.agreement import close
from tests.normshift.written_out import randomize

LAYERS = {
    "sn": lambda: SwitchNorm2d(4),
    "sn-correction": lambda: SwitchNorm2d(4, correction=1),
    "sn-in-ln": lambda: SwitchNorm2d(4, statistics=("in", "ln")),
    "bin": lambda: BatchInstanceNorm2d(4),
    "ibn": lambda: IBN2d(4),
    "network": lambda: nn.Sequential(
        nn.Conv2d(4, 6, 1), SwitchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 1), BatchInstanceNorm2d(4)
    ),
}
SPLITS = {"even": (4, 4), "uneven": (3, 5), "one-image": (1, 7)}
CASES = {f"{layer}-{split}": (layer, split) for layer in LAYERS for split in SPLITS}


def case(layer, split):
    """The same layer, batch and gradient in every process."""
    torch.manual_seed(0)
    n = sum(SPLITS[split])
    shape = (n, 4, 3, 2)
    x = torch.randn(shape, dtype=torch.float64) * torch.arange(1.0, n + 1).reshape(n, 1, 1, 1)
    return randomize(LAYERS[layer]().double()), x, torch.randn(shape, dtype=torch.float64)


def step(model, x, seed):
    """Two forward and backward passes; returns all results."""
    for _ in range(2):
        model.zero_grad()
        x = x.detach().requires_grad_()
        y = model(x)
        y.backward(seed)
    return {
        "y": y.detach(),
        "dx": x.grad,
        "gradients": {n: p.grad for n, p in model.named_parameters()},
        "buffers": {n: b.clone() for n, b in model.named_buffers()},
    }


def second_derivative(model, x, seed):
    """Gradients of the gradient with respect to the input, weighed by its cube."""
    x = x.detach().requires_grad_()
    weights = dict(model.named_parameters())
    (dx,) = torch.autograd.grad(model(x), x, seed, create_graph=True)
    by_x, *by_weights = torch.autograd.grad(dx.pow(3).sum(), [x, *weights.values()], allow_unused=True)
    return by_x, {name: by for name, by in zip(weights, by_weights, strict=True) if by is not None}


def worker(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    found = {}
    for name, (layer, split) in CASES.items():
        model, x, seed = case(layer, split)
        chunk = slice(0, SPLITS[split][0]) if rank == 0 else slice(SPLITS[split][0], None)
        found[name] = step(synchronize(model), x[chunk], seed[chunk])
    model, x, seed = case("sn", "even")
    found["unsynchronized"] = step(model, x.chunk(2)[rank], seed.chunk(2)[rank])
    model, x, seed = case("network", "even")
    parallel = nn.parallel.DistributedDataParallel(synchronize(model))
    found["ddp"] = step(parallel, x.chunk(2)[rank], seed.chunk(2)[rank])
    for layer in ("sn", "bin", "ibn"):
        model, x, seed = case(layer, "uneven")
        chunk = slice(0, 3) if rank == 0 else slice(3, None)
        found[f"{layer}-float32"] = step(synchronize(model.float()), x[chunk].float(), seed[chunk].float())
    for layer in ("sn", "bin", "ibn"):
        model, x, seed = case(layer, "uneven")
        chunk = slice(0, 3) if rank == 0 else slice(3, None)
        found[f"{layer}-twice"] = second_derivative(synchronize(model), x[chunk], seed[chunk])
    model, x, _ = case("bin", "even")
    found["eval"] = {"y": synchronize(model).eval()(x.chunk(2)[rank]).detach()}
    torch.save(found, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The results of the two processes, which are started once for all tests here."""
    folder = tmp_path_factory.mktemp("sync")
    mp.spawn(worker, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def same(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("layer", "split"), CASES.values(), ids=CASES)
def test_two_processes_give_what_one_gives(found, layer, split):
    model, x, seed = case(layer, split)
    whole = step(model, x, seed)
    first, second = (part[f"{layer}-{split}"] for part in found)
    same(torch.cat([first["y"], second["y"]]), whole["y"])
    same(torch.cat([first["dx"], second["dx"]]), whole["dx"])
    for name, gradient in whole["gradients"].items():
        same(first["gradients"][name] + second["gradients"][name], gradient)
    for name, buffer in whole["buffers"].items():
        same(first["buffers"][name], buffer)
        same(second["buffers"][name], buffer)


@pytest.mark.parametrize("layer", ["sn", "bin", "ibn"])
def test_two_processes_give_what_one_gives_in_float32(found, layer):
    model, x, seed = case(layer, "uneven")
    whole = step(model, x, seed)
    first, second = (part[f"{layer}-float32"] for part in found)
    close(torch.cat([first["y"], second["y"]]), whole["y"], 1e-4)
    close(torch.cat([first["dx"], second["dx"]]), whole["dx"], 1e-4)
    for name, gradient in whole["gradients"].items():
        close(first["gradients"][name] + second["gradients"][name], gradient, 1e-4)
    for name, buffer in whole["buffers"].items():
        close(first["buffers"][name], buffer, 1e-4)


@pytest.mark.parametrize("layer", ["sn", "bin", "ibn"])
def test_second_derivatives_are_those_of_one_process(found, layer):
    by_x, by_weights = second_derivative(*case(layer, "uneven"))
    (first, first_weights), (second, second_weights) = (part[f"{layer}-twice"] for part in found)
    same(torch.cat([first, second]), by_x)
    assert by_weights
    for name, by in by_weights.items():
        same(first_weights[name] + second_weights[name], by)


def test_under_ddp_gradients_are_the_mean_over_processes(found):
    model, x, seed = case("network", "even")
    whole = step(model, x, seed)
    for part in found:
        for name, gradient in whole["gradients"].items():
            same(part["ddp"]["gradients"][f"module.{name}"], gradient / 2)


def test_without_sync_each_process_is_alone(found):
    model, x, seed = case("sn", "even")
    for rank, part in enumerate(found):
        alone = step(copy.deepcopy(model), x.chunk(2)[rank], seed.chunk(2)[rank])
        same(part["unsynchronized"]["y"], alone["y"])


def test_evaluation_is_not_synchronized(found):
    model, x, _ = case("bin", "even")
    same(torch.cat([part["eval"]["y"] for part in found]), model.eval()(x).detach())


def test_synchronize_sets_every_layer_of_ours_and_replaces_batch_norm():
    model = nn.Sequential(
        SwitchNorm2d(4), BatchInstanceNorm2d(4), IBN2d(4), nn.Sequential(nn.BatchNorm2d(4)), nn.GroupNorm(2, 4)
    )
    model = synchronize(model)
    assert [type(m) for m in model] == [SwitchNorm2d, BatchInstanceNorm2d, IBN2d, nn.Sequential, nn.GroupNorm]
    assert model[0].sync and model[1].sync and model[2].BN.sync
    assert isinstance(model[3][0], BatchNorm) and model[3][0].sync  # torch's own would need GPUs


def test_a_lone_batch_norm_is_replaced():
    assert isinstance(synchronize(nn.BatchNorm2d(3)), BatchNorm)
    assert isinstance(synchronize(nn.SyncBatchNorm(3)), nn.SyncBatchNorm)


def test_layers_do_not_synchronize_by_themselves():
    assert not SwitchNorm1d(3).sync and not BatchInstanceNorm2d(3).sync and not IBN2d(4).BN.sync


def test_without_a_process_group_nothing_changes():
    layer, x = SwitchNorm2d(4), torch.randn(3, 4, 5, 5)
    expected = copy.deepcopy(layer)(x)
    assert torch.equal(synchronize(layer)(x), expected)


def test_converting_keeps_the_layers_synchronized():
    model = convert(synchronize(convert(nn.Sequential(nn.BatchNorm2d(4)), "bin")), "sn")
    assert model[0].sync
