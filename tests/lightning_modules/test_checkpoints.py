"""Our checkpoints are complete: the network can be rebuilt from the file alone, bit by bit."""

import dataclasses
import inspect

import pytest
import pytorch_lightning as pl
import torch

from datamodules.segmentation.domains import Domain
from datamodules.segmentation.labels import STREET, LabelSpace
from datamodules.segmentation.sets.camvid import FOLD as CAMVID_FOLD
from lightning_modules.checkpoints import load_network
from lightning_modules.classification.domain_adversarial import DomainAdversarialModule, DomainInvariantModule
from lightning_modules.classification.module import ClassificationModule
from lightning_modules.classification.recipes import CLASSIFICATION_RECIPES
from lightning_modules.segmentation.module import SegmentationModule
from lightning_modules.segmentation.recipes import SEGMENTATION_RECIPES
from normshift import NORMS, norm_layers

SMOKE = SEGMENTATION_RECIPES["smoke"]
CLASSES = tuple("abcdefg")
RECIPE = dataclasses.replace(CLASSIFICATION_RECIPES["smoke"], width=0.25, image_size=16).fitted(16)
SOURCE = Domain("streets-game", [], STREET, tuple(range(19)), {})
CAMVID = Domain("camvid:test", [], STREET, (0, 13, 18), CAMVID_FOLD)
PETS = LabelSpace("pets", ("cat", "dog"), ((1, 2, 3), (4, 5, 6)))


def saved(module, file):
    """A module's checkpoint as written by a study, with running statistics that differ from a new network's."""
    for layer in norm_layers(module).values():
        for value in layer.buffers():
            if value.is_floating_point():
                value.uniform_(0.5, 1.5)
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    trainer.strategy.connect(module)
    trainer.save_checkpoint(file, weights_only=True)
    return file


def segmentation(norm="bn", recipe=None, domains=(SOURCE, CAMVID), **options):
    torch.manual_seed(0)
    return SegmentationModule(dataclasses.replace(SMOKE, **recipe or {}), norm, list(domains), **options)


def classification(kind=ClassificationModule, norm="bn", recipe=None, **options):
    torch.manual_seed(0)
    changed = dataclasses.replace(RECIPE, **recipe or {})
    return kind(changed, norm, CLASSES, ["x", "y"], **{"data": "shapes/photo+shapes/sketch"} | options)


KINDS = {
    "segmentation": segmentation,
    "sn in the decoder": lambda: segmentation("sn", norm_in="decoder"),
    "ibn-a": lambda: segmentation("ibn-a"),
    "ibn-b, synchronised": lambda: segmentation("ibn-b", sync_norm=True),
    "sliding windows": lambda: segmentation("bin", {"evaluation": "sliding", "crop": (64, 64)}),
    "RobustNet's": lambda: segmentation("ibn-b", {"arch": "robustnet", "backbone": "resnet50", "height": 64}),
    "two classes": lambda: segmentation(domains=[Domain("pets", [], PETS, (0, 1), {})]),
    "classification": classification,
    "anti-aliased": lambda: classification(norm="sn", antialias=3, recipe={"backbone": "resnet18"}),
    "3x3 stem pool": lambda: classification(antialias=3, stem_pool=3, recipe={"backbone": "resnet18"}),
    "selected": lambda: classification(select_on=["x"]),
    "bottleneck": lambda: classification(recipe={"bottleneck": 8}),
    "average": lambda: classification(recipe={"ema_decay": 0.9, "norm_momentum": 0.3}),
    "adversarial": lambda: classification(DomainAdversarialModule, "ibn-a"),
    "adversarial with norms": lambda: classification(DomainAdversarialModule, recipe={"discriminator": "norm"}),
    "invariant": lambda: classification(DomainInvariantModule, "bin", {"tells_domains": True}),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_module_comes_back_from_its_checkpoint_alone(name, tmp_path):
    module = KINDS[name]()
    file = saved(module, tmp_path / "model.ckpt")
    images = torch.randn(2, 3, 72, 96) if module.task == "segmentation" else torch.randn(2, 3, 32, 32)
    module.eval()
    with torch.no_grad():
        before = module(images)
        for again in (type(module).load_from_checkpoint(file, map_location="cpu"), load_network(file)):
            assert type(again) is type(module)
            assert dict(again.hparams) == dict(module.hparams) and again.recipe == module.recipe
            assert again.state_dict().keys() == module.state_dict().keys()
            assert torch.equal(again.eval()(images), before)
    resaved = saved(again, tmp_path / "again.ckpt")
    assert dict(load_network(resaved).hparams) == dict(module.hparams)


def test_a_checkpoint_holds_plain_data_alone(tmp_path):
    def plain(value):
        if isinstance(value, dict):
            return all(isinstance(key, str) and plain(one) for key, one in value.items())
        if isinstance(value, list | tuple):
            return all(map(plain, value))
        return value is None or type(value) in (bool, int, float, str)

    for module in (segmentation(), classification()):
        found = torch.load(saved(module, tmp_path / "model.ckpt"), weights_only=True)["hyper_parameters"]
        assert plain(found), found


def test_the_label_space_and_the_domains_come_back():
    again = segmentation(domains=[SOURCE, CAMVID])
    module = SegmentationModule(**{k: v for k, v in again.hparams.items() if k in signature(SegmentationModule)})
    assert module.label_space == STREET and module.source == "streets-game"
    assert [(d.name, d.evaluated, d.fold) for d in module.domains] == [
        (d.name, d.evaluated, dict(d.fold)) for d in (SOURCE, CAMVID)
    ]
    assert torch.equal(module._fold_1, again._fold_1)


def signature(kind):
    return inspect.signature(kind).parameters


def test_weights_are_read_once_and_remembered(tmp_path):
    start, file = tmp_path / "start.pth", tmp_path / "model.ckpt"
    torch.save(segmentation().net.encoder.model.state_dict(), start)
    saved(segmentation(weights=str(start)), file)
    torch.save(classification().net.state_dict(), tmp_path / "other.pth")
    saved(classification().start_from(str(tmp_path / "other.pth")), tmp_path / "classifier.ckpt")
    start.unlink()
    (tmp_path / "other.pth").unlink()
    assert load_network(file).hparams.weights_from == str(start)
    assert load_network(tmp_path / "classifier.ckpt").hparams.weights_from == str(tmp_path / "other.pth")
    assert classification().hparams.weights_from == "none"


def test_a_network_under_a_users_own_norm_comes_back_once_it_is_registered(tmp_path, monkeypatch):
    with monkeypatch.context() as registered:
        registered.setitem(NORMS._known, "mine", dataclasses.replace(NORMS["sn"], name="mine"))
        module = segmentation("mine")
        file = saved(module, tmp_path / "model.ckpt")
        images = torch.randn(1, 3, 64, 96)
        with torch.no_grad():
            assert torch.equal(load_network(file)(images), module.eval()(images))
    with pytest.raises(ValueError, match="under the norm 'mine', which is none of"):
        load_network(file)


def test_published_weights_are_not_fetched_again(tmp_path, monkeypatch):
    import timm

    module = segmentation()
    module.hparams["weights_from"] = "imagenet"
    saved(module, tmp_path / "model.ckpt")
    made = timm.create_model

    def offline(*arguments, pretrained=False, **settings):
        assert not pretrained
        return made(*arguments, pretrained=False, **settings)

    monkeypatch.setattr(timm, "create_model", offline)
    again = load_network(tmp_path / "model.ckpt")
    assert again.hparams.weights_from == "imagenet"
    assert load_network(saved(again, tmp_path / "again.ckpt")).hparams.weights_from == "imagenet"


def changed(of, file, hyper_parameters):
    """A checkpoint with changed hyper-parameters (None removes one)."""
    checkpoint = torch.load(saved(of, file), weights_only=True)
    for key, value in hyper_parameters.items():
        checkpoint["hyper_parameters"].pop(key)
        checkpoint["hyper_parameters"] |= {} if value is None else {key: value}
    torch.save(checkpoint, file)
    return str(file)


BAD = [
    (segmentation, {"module": None, "domains": None}, "an earlier version .* lack module, domains;"),
    (classification, {"module": None}, "an earlier version .* lack module;"),
    (classification, {"classes": None}, "an earlier version .* lack classes;"),
    (classification, {"module": "DetectionModule"}, "is of a DetectionModule, which is none of .*SegmentationModule"),
    (classification, {"module": None, "recipe": 3}, "is no checkpoint of a study"),
    (classification, {"norm": "nb"}, "a network under the norm 'nb', which is none of .*--plugin FILE"),
    (classification, {"classes": ["one", "two"]}, "does not hold the network that it says it does: .*size mismatch"),
    (classification, {"recipe": {"backbone": "resnet18"}}, "does not hold the network that it says it does"),
    (segmentation, {"label_space": PETS.plain()}, "does not hold the network that it says it does: index"),
    (segmentation, {"label_space": {"name": "x"}}, "does not hold the network that it says it does"),
]  # fmt: skip


@pytest.mark.parametrize(("made", "changes", "says"), BAD)
def test_what_cannot_be_rebuilt_is_one_sentence(made, changes, says, tmp_path):
    file = changed(made(), tmp_path / "x.ckpt", changes)
    with pytest.raises(ValueError, match=says) as error:
        load_network(file)
    assert "\n" not in str(error.value) and str(error.value).startswith(file)


def test_another_kind_of_network_or_file_is_one_sentence(tmp_path):
    file = saved(segmentation(), tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match=r"x\.ckpt is of a segmentation network: expected .* classification network"):
        load_network(file, ClassificationModule)
    torch.save({"conv1.weight": torch.zeros(1)}, file)
    with pytest.raises(ValueError, match=r"x\.ckpt is no checkpoint of a study"):
        load_network(file)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"x\.ckpt cannot be read as a checkpoint: it is damaged"):
        load_network(file)


def test_other_domains_to_be_evaluated_on():
    module = segmentation()
    other = Domain("streets-night", [], STREET, (0, 1), {3: 1})
    module.evaluate_on([other])
    assert module.domains == [other] and len(module.confusion) == 1 and module._fold_0[3] == 1
    assert module.role(other) == "target" and module.role(SOURCE) == "source"
    with pytest.raises(ValueError, match=r"pets is labelled in 2 pets classes, and the network .* 19 street ones"):
        module.evaluate_on([Domain("pets", [], PETS, (0, 1), {})])
