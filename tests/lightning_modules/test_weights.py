"""Files passed as checkpoints: wrong files, wrapped networks, and the settings in our own checkpoints."""

import argparse
import copy
import os
import zipfile

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torchvision
from pytorch_lightning.callbacks import EMAWeightAveraging
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_modules.classification.module import ClassificationModule
from lightning_modules.classification.recipes import ClassificationRecipe
from lightning_modules.weights import network_weights, read_checkpoint
from normshift import IBN2d, SwitchNorm2d, load_official, norm_layers
from tests.lightning_modules.classification.test_module import CLASSES, RECIPE, module_of

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
QUIET |= {"accelerator": "cpu", "max_steps": 1, "limit_val_batches": 0}
RESNET = ClassificationRecipe(**{**vars(RECIPE), "backbone": "resnet18", "architecture": {"channels": (4, 4, 4, 4)}})


class RunsCode:
    def __reduce__(self):
        return os.system, ("echo this must not run > /dev/null",)


def state():
    return {"fc.weight": torch.ones(3, 4), "fc.bias": torch.zeros(3)}


def written(make):
    """A file with the bytes that `make` returns."""
    return lambda file: file.write_bytes(make(file))


def saved(value, **options):
    return lambda file: torch.save(value() if callable(value) else value, file, **options)


def bytes_of(file, **options):
    torch.save(state(), file, **options)
    return file.read_bytes()


def zipped(name, contents, how=zipfile.ZIP_STORED):
    def write(file):
        with zipfile.ZipFile(file, "w", how) as archive:
            archive.writestr(name, contents)

    return write


BAD = {
    "there is none": (lambda file: None, "it does not exist"),
    "empty": (written(lambda file: b""), "it is empty: download or save it again"),
    "folder": (lambda file: file.mkdir(), "it is a folder: pass the checkpoint file in it"),
    "pipe": (os.mkfifo, "it is a pipe or a device, not a file"),
    "dangling link": (
        lambda file: file.symlink_to("/nowhere/x.pth"),
        "it is a link to /nowhere/x.pth, which is not there",
    ),
    "link to itself": (lambda file: file.symlink_to(file), "it is a link to .*, which is not there"),
    "half": (written(lambda file: (b := bytes_of(file))[: len(b) // 2]), "it is damaged, as a file is that was not"),
    "spoiled": (written(lambda file: (b := bytes_of(file))[:80] + b"\xff" * 60 + b[140:]), "it is damaged, or of"),
    "half of an old one": (
        written(lambda file: (b := bytes_of(file, _use_new_zipfile_serialization=False))[: len(b) // 2]),
        "it is damaged, or of another kind",
    ),
    "text": (written(lambda file: b"no checkpoint"), "it is damaged, or of another kind"),
    "zeros": (written(lambda file: bytes(1000)), "it is damaged, or of another kind"),
    "web page": (written(lambda file: b"\n<!DOCTYPE html>"), "it is a web page"),
    "pointer": (written(lambda file: b"version https://git-lfs.github.com/spec/v1\n"), "it is Git LFS's pointer"),
    "archive": (zipped("readme.txt", "hello"), "it is a zip archive, and no checkpoint"),
    "zip bomb": (zipped("x/data.pkl", bytes(10**7), zipfile.ZIP_DEFLATED), "more than a hundred times its size"),
    "code": (saved(lambda: {"x": RunsCode()}), r"it holds posix.system, and reading that would run code"),
    "whole module": (
        saved(lambda: nn.Linear(2, 2)),
        r"it holds torch.nn.modules.linear.Linear, .* save its tensors alone",
    ),
    "script": (zipped("net/constants.pkl", "x"), "it is a TorchScript program"),
    "array": (lambda file: np.save(file.open("wb"), np.ones(3)), "it is a NumPy array"),
    "list": (saved([1, 2]), "this one is of type list"),
    "tensor": (saved(lambda: torch.ones(3)), "this one is of type Tensor"),
    "nothing": (saved({}), "it holds no tensors, but nothing"),
    "no network": (saved({"epoch": 3, "lr": 0.1}), "it holds no tensors, but epoch, lr: pass a network's state dict"),
    "NaN": (saved(lambda: state() | {"fc.bias": torch.full((3,), torch.nan)}), "fc.bias is not finite: .* diverged"),
    "huge": (saved(lambda: {"fc.weight": torch.ones(1).expand(10**13)}), "claims 40000000000000 bytes and holds 4"),
    "sparse": (saved(lambda: {"fc.weight": torch.eye(3).to_sparse()}), "fc.weight is sparse"),
    "without values": (saved(lambda: {"fc.weight": torch.ones(2, device="meta")}), "saved without values"),
    "another network's": (saved(state), "does not fit the network"),
    "several": (
        saved(lambda: {"student": state(), "teacher": state()}),
        r"holds several networks, student, teacher: .*checkpoint\['student'\]",
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", BAD)
def test_what_is_no_checkpoint_is_said_in_one_sentence(name, tmp_path):
    make, says = BAD[name]
    file = tmp_path / "given.pth"
    make(file)
    module = module_of()
    before = copy.deepcopy(module.net.state_dict())
    with pytest.raises(ValueError, match=says) as error:
        module.start_from(str(file))
    assert str(error.value).startswith(str(file)) and "\n" not in str(error.value)
    torch.testing.assert_close(module.net.state_dict(), before)


def test_other_peoples_settings_beside_the_tensors_are_no_obstacle(tmp_path):
    extra = {"args": argparse.Namespace(lr=0.1), "best": np.float64(0.7), "epochs": np.int64(3)}
    torch.save({"state_dict": state(), **extra}, tmp_path / "x.pth")
    assert network_weights(read_checkpoint(str(tmp_path / "x.pth"))).keys() == state().keys()


# Wrapped


def compiled(net):
    return torch.compile(net, backend="eager").state_dict()


def under(prefix, net, **beside):
    return {"state_dict": {f"{prefix}{key}": value for key, value in net.state_dict().items()} | beside, "epoch": 3}


def compiled_within(net):
    state = net.state_dict().items()
    return {key.replace("layer1.", "layer1._orig_mod."): value for key, value in state}


WRAPPED = {
    "plain": lambda net: net.state_dict(),
    "compile": compiled,
    "compile of a stage": compiled_within,
    "DDP": lambda net: under("module.", net),
    "DDP of compile": lambda net: under("module._orig_mod.", net),
    "compile of DDP": lambda net: under("_orig_mod.module.", net),
    "average": lambda net: torch.optim.swa_utils.AveragedModel(net).state_dict(),
    "average of compile": lambda net: torch.optim.swa_utils.AveragedModel(torch.compile(net)).state_dict(),
    "lightning, model": lambda net: under("model.", net, **{"loss.weight": torch.ones(7)}) | LIGHTNING,
    "lightning, net": lambda net: under("net.", net, **{"metric.total": torch.ones(1)}) | LIGHTNING,
    "lightning, compiled": lambda net: under("model._orig_mod.", net) | LIGHTNING,
    "lightning, deeper": lambda net: under("learner.backbone.net.", net) | LIGHTNING,
    "model": lambda net: {"model": net.state_dict(), "optimizer": {"state": {}, "param_groups": []}},
    "model_state_dict": lambda net: {"model_state_dict": net.state_dict()},
    "any name": lambda net: {"generator": net.state_dict(), "step": torch.tensor(3)},
    "FSDP": lambda net: {f"_fsdp_wrapped_module.{key}": value for key, value in net.state_dict().items()},
}
LIGHTNING = {"pytorch-lightning_version": "2.6", "hyper_parameters": {"lr": 0.1}}


@pytest.mark.parametrize("name", WRAPPED)
def test_a_wrapped_checkpoint_loads_as_the_network_in_it(name, tmp_path):
    torch.manual_seed(5)
    trained, x = module_of(), torch.randn(2, 3, 16, 16)
    torch.save(WRAPPED[name](trained.net), tmp_path / "x.pth")
    torch.manual_seed(6)
    module = module_of().start_from(str(tmp_path / "x.pth"))
    assert torch.equal(module.eval()(x), trained.eval()(x))
    other = load_official(module_of().net, read_checkpoint(str(tmp_path / "x.pth")))
    assert torch.equal(other.eval()(x), trained.eval()(x))


def test_safetensors(tmp_path):
    trained, x = module_of(), torch.randn(2, 3, 16, 16)
    save_file({f"model.{key}": value for key, value in trained.net.state_dict().items()}, tmp_path / "x.safetensors")
    module = module_of().start_from(str(tmp_path / "x.safetensors"))
    assert torch.equal(module.eval()(x), trained.eval()(x))


def test_into_a_network_that_is_compiled_or_parallel():
    trained, x = module_of().net.eval(), torch.randn(2, 3, 16, 16)
    for wrap in (lambda net: torch.compile(net, backend="eager"), nn.DataParallel, torch.optim.swa_utils.AveragedModel):
        model = wrap(module_of().net.eval())
        assert load_official(model, trained.state_dict()) is model
        assert torch.equal(model(x), trained(x))


def test_a_network_that_stands_there_twice_is_asked_about():
    net = module_of().net
    twice = under("student.", net)["state_dict"] | under("teacher.", net)["state_dict"]
    with pytest.raises(ValueError, match=r"holds such a network 2 times, under student\. and teacher\.: pass one of"):
        load_official(net, twice)


def test_lightnings_average_is_what_is_loaded(tmp_path):
    """Its checkpoint holds the average as state_dict, and the last weights as current_model_state."""
    torch.manual_seed(0)
    module = module_of("sn")
    loader = DataLoader(TensorDataset(torch.randn(8, 3, 16, 16), torch.arange(8) % len(CLASSES)), 2)
    trainer = pl.Trainer(**QUIET | {"max_steps": 4}, callbacks=[EMAWeightAveraging(decay=0.5)])
    trainer.fit(module, loader)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    found = read_checkpoint(str(tmp_path / "x.ckpt"))
    assert {"current_model_state", "averaging_state"} <= found.keys()
    average = module_of("sn").start_from(str(tmp_path / "x.ckpt")).net.state_dict()
    assert all(torch.equal(value, found["state_dict"][f"net.{key}"]) for key, value in average.items())


# What a checkpoint of ours keeps


def kept(module, file, **changes):
    """A checkpoint of a module with changed hyper-parameters (None removes one)."""
    trainer = pl.Trainer(**QUIET)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(file, weights_only=True)
    checkpoint = torch.load(file, weights_only=True)
    for key, value in changes.items():
        checkpoint["hyper_parameters"].pop(key)
        checkpoint["hyper_parameters"] |= {} if value is None else {key: value}
    torch.save(checkpoint, file)
    return str(file)


def resnet_module(**options):
    return ClassificationModule(RESNET, "bn", CLASSES, ["x"], **options)


def test_the_stem_pool_is_kept_and_old_checkpoints_have_3(tmp_path):
    x, file = torch.randn(2, 3, 32, 32), tmp_path / "x.ckpt"
    for pool, said in ((2, {}), (3, {}), (3, {"stem_pool": None})):
        module = resnet_module(antialias=3, stem_pool=pool).eval()
        for loaded in (
            ClassificationModule.load_from_checkpoint(kept(module, file, **said), map_location="cpu"),
            resnet_module(antialias=3).start_from(str(file)),
        ):
            assert loaded.net.maxpool.pool.kernel_size == pool == loaded.hparams["stem_pool"]
            assert torch.equal(loaded.eval()(x), module(x))
            again = ClassificationModule.load_from_checkpoint(kept(loaded, file), map_location="cpu").eval()
            assert torch.equal(again(x), module(x))


def test_a_network_anti_aliased_otherwise_is_refused(tmp_path):
    file = kept(resnet_module(antialias=3), tmp_path / "x.ckpt")
    with pytest.raises(
        ValueError, match="anti-aliased with filter size 3, and this one does not blur: pass --antialias 3"
    ):
        resnet_module().start_from(file)
    with pytest.raises(ValueError, match="and this one blurs with 4"):
        resnet_module(antialias=4).start_from(file)
    plain = kept(resnet_module(), tmp_path / "plain.ckpt")
    resnet_module(antialias=4).start_from(plain)  # a plain network's is fine-tuned with blurs, as in the paper


def test_the_convention_of_switch_norm_is_kept(tmp_path):
    x, module = torch.randn(2, 3, 32, 32), module_of("sn").eval()
    for layer in norm_layers(module).values():
        layer.correction = 1
    file = kept(module, tmp_path / "x.ckpt")
    for loaded in (ClassificationModule.load_from_checkpoint(file), module_of("sn").start_from(file)):
        assert torch.equal(loaded.eval()(x), module(x))
        assert {m.correction for m in loaded.modules() if isinstance(m, SwitchNorm2d)} == {1}


def test_densenets_of_before_keep_their_ibn_layers(tmp_path):
    options = {"growth_rate": 4, "block_config": (4, 2)}
    recipe = ClassificationRecipe(**{**vars(RECIPE), "backbone": "densenet121", "width": 1.0, "architecture": options})
    module, x = ClassificationModule(recipe, "ibn-a", CLASSES, ["x"]), torch.randn(2, 3, 32, 32)
    split = [name for name, layer in norm_layers(module.net).items() if isinstance(layer, IBN2d)]
    assert len(split) == 3  # of six dense layers
    second = module.net.features.denseblock1.denselayer2
    act = second.norm1.act
    second.norm1 = IBN2d(second.norm1.num_features, 0.4, instance_first=False)
    second.norm1.add_module("act", act)
    second.norm1.register_forward_hook(lambda norm, inputs, output: norm.act(output))
    loaded = ClassificationModule.load_from_checkpoint(kept(module, tmp_path / "x.ckpt"), map_location="cpu")
    assert isinstance(loaded.net.features.denseblock1.denselayer2.norm1, IBN2d)
    torch.testing.assert_close(loaded.eval()(x), module.eval()(x))


def test_a_released_anti_aliased_checkpoint_to_start_from(tmp_path):
    from tests.normshift.test_released_blur import random, resnets

    reference = random(resnets(4, torchvision.models.resnet18(num_classes=5))).eval()
    torch.save({"state_dict": reference.state_dict()}, tmp_path / "resnet18_lpf4.pth.tar")
    recipe = ClassificationRecipe(**{**vars(RECIPE), "backbone": "resnet18", "width": 1.0})
    given, x = str(tmp_path / "resnet18_lpf4.pth.tar"), torch.randn(2, 3, 64, 64)
    module = ClassificationModule(recipe, "bn", CLASSES[:5], ["x"], antialias=4, stem_pool=3).start_from(given)
    torch.testing.assert_close(module.eval()(x), reference(x))
    assert module.hparams["stem_pool"] == 2
    with pytest.raises(ValueError, match=r"lpf4\.pth\.tar: it is of .*filter size 4.*does not blur"):
        ClassificationModule(recipe, "bn", CLASSES[:5], ["x"]).start_from(given)
    other = ClassificationModule(recipe, "bn", CLASSES[:3], ["x"], antialias=4).start_from(given)  # a head of its own
    assert torch.equal(other.net.conv1.weight, reference.conv1.weight)
