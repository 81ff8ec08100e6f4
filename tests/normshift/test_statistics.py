"""Running statistics by torch's and Lightning's tools, which search for torch's batch norms, and by the library."""

import copy
import gc
import pickle
import weakref

import pytest
import pytorch_lightning as pl
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from pytorch_lightning.callbacks import BackboneFinetuning, EMAWeightAveraging, StochasticWeightAveraging
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from normshift import (
    BatchInstanceNorm2d,
    IBN2d,
    SwitchNorm2d,
    convert,
    fold,
    norm_layers,
    synchronize,
    update_statistics,
)
from normshift.layers import BatchNorm
from tests.normshift.agreement import close

LAYERS = {
    "sn": SwitchNorm2d,
    "sn-correction": lambda c: SwitchNorm2d(c, correction=1),
    "bin": BatchInstanceNorm2d,
    "ibn": IBN2d,
    "ibn-last": lambda c: IBN2d(c, instance_first=False),
    "ours": BatchNorm,
    "torch": nn.BatchNorm2d,
}
every_layer = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)


def data(sizes=(8, 8, 8), shape=(6, 5, 4)):
    """Batches whose means and spreads differ."""
    return [torch.randn(n, *shape) * (i + 1) + 3 * i for i, n in enumerate(sizes)]


def averaged(layer):
    """The layer that holds the averages, and the channels they are of."""
    if not isinstance(layer, IBN2d):
        return layer, slice(None)
    return layer.BN, slice(layer.first, None) if layer.instance_first else slice(layer.first)


def in_network(layer, channels=6):
    """Behind a convolution that lets everything through, with dropout on the way."""
    net = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.Dropout(0.5), layer)
    nn.init.dirac_(net[0].weight)
    nn.init.zeros_(net[0].bias)
    return net


# ---------------------------------------------------------------------------------------------- torch's and Lightning's


@pytest.mark.parametrize("wrap", [lambda m: m, AveragedModel], ids=["plain", "averaged"])
@every_layer
def test_update_bn_takes_the_mean_of_all_batches(make, wrap):
    layer, batches = make(6), data()
    layer(100 + torch.randn(4, 6, 5, 4))  # what is to be forgotten
    momentum = averaged(layer)[0].momentum
    model = wrap(nn.Sequential(layer)).eval()
    update_bn([(batch, 0) for batch in batches], model)
    norm, own = averaged(next(m for m in model.modules() if type(m) is type(layer)))
    close(norm.running_mean, torch.stack([b.mean((0, 2, 3)) for b in batches]).mean(0)[own], 1e-5)
    if not getattr(norm, "correction", 0):
        close(norm.running_var, torch.stack([b.transpose(0, 1).flatten(1).var(1) for b in batches]).mean(0)[own], 1e-5)
    assert norm.momentum == momentum and norm.num_batches_tracked == 3 and not norm.training


@pytest.mark.parametrize("norm", ["bn", "sn", "bin"])
def test_momentum_none_is_the_mean_of_all_batches(norm):
    layer = synchronize(nn.Sequential(nn.BatchNorm2d(6)))[0] if norm == "bn" else convert(nn.BatchNorm2d(6), norm)
    layer.momentum, reference = None, nn.BatchNorm2d(6, momentum=None)
    for i, batch in enumerate(data((4, 1, 3, 2))):
        layer(batch), reference(batch)
        if i == 1:  # a count goes with the state
            again = copy.deepcopy(layer)
            again.reset_running_stats()
            again.load_state_dict(copy.deepcopy(layer.state_dict()))
            layer = again
        close(layer.running_mean, reference.running_mean, 1e-5)
        close(layer.running_var, reference.running_var, 1e-5)
        assert layer.num_batches_tracked == i + 1


def test_momentum_none_compiled():
    torch._dynamo.reset()
    layer, reference = SwitchNorm2d(6, momentum=None), nn.BatchNorm2d(6, momentum=None)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for batch in data((4, 4, 4)):
        compiled(batch), reference(batch)
    close(layer.running_var, reference.running_var, 1e-5)


def test_a_view_is_no_part_of_its_layer():
    layer = SwitchNorm2d(6)
    plain = {"weight", "bias", "mean_weight", "var_weight", "running_mean", "running_var"}
    assert set(layer.state_dict()) == plain
    assert list(layer.children()) == [] and "as_batch_norm" not in repr(layer)
    assert len(list(nn.Sequential(layer, layer).modules())) == 3
    names = [name for name, _ in nn.Sequential(layer, layer).named_modules(remove_duplicate=False)]
    assert names == ["", "0", "0.as_batch_norm", "1", "1.as_batch_norm"]
    assert list(norm_layers(nn.Sequential(layer, IBN2d(4)))) == ["0", "1"]
    assert len(list(layer.parameters())) == 4 and len(list(layer.buffers())) == 3
    view = nn.Sequential(layer).get_submodule("0.as_batch_norm")
    assert isinstance(view, _BatchNorm) and view is layer.as_batch_norm and not list(view.parameters())
    assert all(m.as_batch_norm is not view for m in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))))
    both = copy.deepcopy([layer, view])
    assert both[1].layer is both[0] is not layer
    assert not any(isinstance(m, _BatchNorm) for m in SwitchNorm2d(6, statistics=("in", "ln")).modules())


def test_a_view_keeps_no_layer_alive():
    layer = SwitchNorm2d(6)
    view, gone = layer.as_batch_norm, weakref.ref(layer)
    del layer
    gc.collect()
    assert gone() is None
    with pytest.raises(ReferenceError, match="is gone"):
        view.forward(torch.ones(1))


def test_conversions_do_not_see_views():
    model = nn.Sequential(nn.Conv2d(3, 6, 1), SwitchNorm2d(6), IBN2d(6), BatchInstanceNorm2d(6))
    keys, x = set(model.state_dict()), torch.randn(4, 3, 5, 5)
    expected = copy.deepcopy(model)(x)
    other = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model))
    assert [type(m) for m in other] == [type(m) for m in model] and set(other.state_dict()) == keys
    close(other(x), expected, 1e-6)
    folded, report = fold(model.eval())
    close(folded(x), model(x), 1e-5)
    assert len(report.norms) == 3


def test_tools_freeze_and_initialise_by_a_view():
    model = nn.Sequential(SwitchNorm2d(6), IBN2d(6))
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            nn.init.constant_(module.weight, 0.5)
            module.eval()
    assert not model[0].training and not model[1].BN.training
    assert model[0].weight.eq(0.5).all() and model[1].BN.weight.eq(0.5).all() and model[1].IN.weight.eq(1).all()
    BackboneFinetuning.freeze(model.train(), train_bn=False)
    model(torch.randn(4, 6, 5, 5))
    assert model[0].running_mean.eq(0).all() and model[1].BN.running_mean.eq(0).all()


class Fit(pl.LightningModule):
    def __init__(self, norm, images):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 6, 3), norm, nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))
        self.net(images[:2])
        self.images, self.seen = images, []
        self.net[0].register_forward_hook(lambda *_: self.seen.append(_[2].detach().mean((0, 2, 3))))

    def training_step(self, batch):
        return self.net(batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.net.parameters(), 0.1)

    def train_dataloader(self):
        return torch.utils.data.DataLoader(self.images, 4)


def fitted(norm, tmp_path, callback, epochs):
    torch.manual_seed(0)
    model = Fit(norm, 2 * torch.randn(12, 3, 8, 8) + 1)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    pl.Trainer(max_epochs=epochs, callbacks=[callback], default_root_dir=tmp_path, **quiet).fit(model)
    return model


@pytest.mark.filterwarnings("ignore")
@every_layer
def test_lightnings_swa_recalibrates(make, tmp_path):
    model = fitted(make(6), tmp_path, StochasticWeightAveraging(0.01, swa_epoch_start=1), 3)
    norm, own = averaged(model.net[1])
    seen = torch.stack(model.seen[-3:])  # by the averaged convolution, in the epoch that is run for this
    close(norm.running_mean, seen.mean(0)[own], 1e-4)
    assert norm.momentum == 0.1 and norm.num_batches_tracked == 3


@pytest.mark.filterwarnings("ignore")
def test_lightnings_ema_averages_statistics(tmp_path):
    """As it does batch norm's: the same convolutions, behind the same norm."""
    found = [
        fitted(norm, tmp_path, EMAWeightAveraging(decay=0.5), 2) for norm in (nn.BatchNorm2d(6), BatchInstanceNorm2d(6))
    ]
    for key, value in found[0].net.state_dict().items():
        if key != "1.num_batches_tracked":  # for rho is trained as well, if little in the first steps
            assert (found[1].net.state_dict()[key] - value).abs().max() < 0.02, key


@pytest.mark.parametrize("ema", [None, get_ema_multi_avg_fn(0.5)], ids=["mean", "ema"])
def test_averaged_models_average_buffers(ema):
    models = nn.Sequential(SwitchNorm2d(6)), nn.Sequential(nn.BatchNorm2d(6))
    averages = [AveragedModel(model, multi_avg_fn=ema, use_buffers=True) for model in models]
    for batch in data():
        for model, average in zip(models, averages, strict=True):
            model(batch)
            average.update_parameters(model)
    ours, theirs = (dict(average.module[0].named_buffers()) for average in averages)
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------------------------------------------- the library's


@every_layer
def test_update_statistics_pools_all_values(make):
    """What one batch of all images would have given, at a momentum of 1."""
    batches = data((8, 3, 1))
    model, whole = in_network(make(6)), in_network(make(6)).eval()
    layer, reference = averaged(model[2])[0], averaged(whole[2].train())[0]
    reference.momentum = 1.0
    whole(torch.cat(batches))
    assert update_statistics(model, [(batch, None) for batch in batches]) is model
    close(layer.running_mean, reference.running_mean, 1e-5)
    close(layer.running_var, reference.running_var, 1e-5)
    assert layer.num_batches_tracked == 3 and layer.momentum == 0.1


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_update_statistics_leaves_everything_else(training):
    model = in_network(convert(nn.BatchNorm2d(6, momentum=0.3), "sn")).train(training)
    model[2].eval()
    layer, unused = model[2], nn.BatchNorm2d(6)
    unused(torch.randn(4, 6, 2, 2))
    model.unused, model.frozen = unused, nn.BatchNorm2d(6)
    model.frozen.track_running_stats = False
    model.forward = lambda x: model[2](model[0](model.frozen(x)))
    before = copy.deepcopy(unused.state_dict()), [m.training for m in model.modules()]
    weights = [p.clone() for p in model.parameters()]
    update_statistics(model, data())
    assert layer.momentum == 0.3 and layer.num_batches_tracked == 3
    assert before[1] == [m.training for m in model.modules()]
    assert all(torch.equal(v, before[0][key]) for key, v in unused.state_dict().items())
    assert model.frozen.running_mean.eq(0).all()
    assert all(torch.equal(a, b) and a.grad is None for a, b in zip(model.parameters(), weights, strict=True))
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_update_statistics_puts_back_what_was_there_after_an_exception():
    model = in_network(SwitchNorm2d(6)).eval()
    model[2].train()(torch.randn(4, 6, 3, 3) + 7)
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    with pytest.raises(RuntimeError):
        update_statistics(model, [torch.randn(4, 6, 3, 3), torch.randn(4, 5, 3, 3)])
    with pytest.raises(ValueError, match="no batch reached a norm"):
        update_statistics(model, data(), batches=0)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert modes == [m.training for m in model.modules()] and model[2].num_batches_tracked == 1
    assert not any(m._forward_pre_hooks for m in model.modules())


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = BatchInstanceNorm2d(6)

    def forward(self, image):
        return self.norm(image)


BATCHES = {
    "tensor": lambda x: x,
    "tuple": lambda x: (x, 0),
    "list": lambda x: [x, [0]],
    "dict": lambda x: {"image": x, "label": 0},
}


@pytest.mark.parametrize("pack", BATCHES.values(), ids=BATCHES)
def test_update_statistics_takes_batches_as_they_come(pack):
    model, batches = Named(), data()
    update_statistics(model, (pack(batch) for batch in batches), batches=2)
    close(model.norm.running_mean, torch.cat(batches[:2]).mean((0, 2, 3)), 1e-5)
    other = Named()
    update_statistics(other, [{"pixels": b} for b in batches[:2]], run=lambda m, batch: m(batch["pixels"]))
    close(other.norm.running_var, model.norm.running_var, 1e-6)
    with pytest.raises(ValueError, match="takes none of the batch's entries \\(pixels\\)"):
        update_statistics(other, [{"pixels": batches[0]}])


def test_update_statistics_of_other_norms_and_compiled_networks():
    torch._dynamo.reset()
    batches = data((4, 2))
    tracked = nn.InstanceNorm2d(6, track_running_stats=True)
    compiled = torch.compile(nn.Sequential(SwitchNorm2d(6)), backend="eager")
    compiled(batches[0])
    for model in (tracked, compiled, nn.Linear(2, 2)):
        update_statistics(model, batches)
    whole = torch.cat(batches)
    close(tracked.running_mean, whole.mean((0, 2, 3)), 1e-5)
    close(tracked.running_var, whole.flatten(2).var(2).mean(0), 1e-5)
    close(compiled._orig_mod[0].running_mean, whole.mean((0, 2, 3)), 1e-5)
    with pytest.raises(ValueError, match="0 has no channels yet"):
        update_statistics(nn.Sequential(nn.LazyBatchNorm2d()), batches)


def share_of(rank, batches):
    return batches[rank::2]


def two_processes_worker(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.manual_seed(0)
    batches, found = data((8, 3, 2, 4)), {}
    for name, model in {
        "sync": synchronize(nn.Sequential(SwitchNorm2d(6), nn.BatchNorm2d(6))),
        "apart": nn.Sequential(SwitchNorm2d(6)),
        "ddp": nn.parallel.DistributedDataParallel(nn.Sequential(SwitchNorm2d(6))),
    }.items():
        update_statistics(model, share_of(rank, batches))
        found[name] = model.state_dict()
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_update_statistics_over_two_processes(tmp_path):
    mp.spawn(two_processes_worker, (str(tmp_path),), nprocs=2)
    torch.manual_seed(0)
    whole = torch.cat(data((8, 3, 2, 4)))
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        for name, key in {"sync": "0.", "apart": "0.", "ddp": "module.0."}.items():
            close(found[name][f"{key}running_mean"], whole.mean((0, 2, 3)), 1e-5)
            close(found[name][f"{key}running_var"], whole.transpose(0, 1).flatten(1).var(1), 1e-5)
        assert found["sync"]["1.num_batches_tracked"] == 2
