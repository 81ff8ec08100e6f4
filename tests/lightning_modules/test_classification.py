"""How classification trains and is judged, against torchmetrics-free arithmetic."""

import dataclasses

import pytest
import pytorch_lightning as pl
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_modules.classification import ClassificationModule
from lightning_modules.classification_recipes import CLASSIFICATION_RECIPES
from lightning_modules.weights import head_of, network_weights, read_checkpoint

CLASSES = tuple("abcdefg")
RECIPE = dataclasses.replace(CLASSIFICATION_RECIPES["smoke"], width=0.25, image_size=16).fitted(16)
QUIET = {
    "accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
    "enable_model_summary": False,
}  # fmt: skip


def module_of(norm="bn", classes=CLASSES, **settings) -> ClassificationModule:
    torch.manual_seed(0)
    return ClassificationModule(RECIPE, norm, classes, settings.pop("judged", ["x"]), **settings)


def loader(count: int, seed: int = 0, batch: int = 5, classes: int = 7) -> DataLoader:
    numbers = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, 16, 16, generator=numbers)
    return DataLoader(TensorDataset(images, torch.randint(classes, (count,), generator=numbers)), batch)


def test_judgement_of_two_domains_is_exact_whatever_the_batches():
    module = module_of(judged=["one", "two"])
    trainer = pl.Trainer(**QUIET)
    loaders = [loader(13, 1), loader(7, 2)]  # 13 = 5 + 5 + 3: a mean of batches' means would be wrong
    logged = trainer.validate(module, loaders, verbose=False)
    found = {(row["domain"], row["measure"]): row["value"] for row in module.results()}
    module.eval()
    for name, data in zip(("one", "two"), loaders, strict=True):
        images, labels = data.dataset.tensors
        with torch.no_grad():
            scores = module(images)
        top5 = scores.topk(5).indices.eq(labels[:, None]).any(1).float().mean()
        expected = {"top1": (scores.argmax(1) == labels).float().mean(), "top5": top5}
        expected["loss"] = F.cross_entropy(scores.double(), labels)
        for measure, value in expected.items():
            assert found[name, measure] == pytest.approx(value.item(), abs=1e-6), (name, measure)
            assert any(row.get(f"{name}/{measure}") == pytest.approx(value.item(), abs=1e-6) for row in logged)
    again = trainer.validate(module, loaders, verbose=False)
    assert again == logged  # nothing is carried over from the first judgement


def test_five_classes_have_no_top5():
    module = module_of(classes=CLASSES[:5])
    pl.Trainer(**QUIET).validate(module, [loader(5, classes=5)], verbose=False)
    assert {row["measure"] for row in module.results()} == {"loss", "top1"}


@pytest.mark.parametrize("norm", ["bn", "sn", "bin", "ibn-a"])
def test_a_checkpoint_builds_its_own_network(norm, tmp_path):
    module = module_of(norm, antialias=3)
    trainer = pl.Trainer(**QUIET, max_steps=2)
    trainer.fit(module, loader(10))
    file = tmp_path / "model.ckpt"
    trainer.save_checkpoint(file, weights_only=True)
    loaded = ClassificationModule.load_from_checkpoint(file, map_location="cpu").eval()
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(loaded(images), module.eval()(images))
    assert (loaded.norm, loaded.antialias, loaded.classes, loaded.recipe) == (norm, 3, CLASSES, RECIPE)


def test_starting_from_a_checkpoint_of_other_classes_keeps_all_but_the_head(tmp_path):
    old = module_of()
    trainer = pl.Trainer(**QUIET, max_steps=1)
    trainer.fit(old, loader(5))
    trainer.save_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    new = module_of(classes=("p", "q")).start_from(str(tmp_path / "model.ckpt"))
    head = head_of(new.net)
    for key, value in new.net.state_dict().items():
        same = value.shape == old.net.state_dict()[key].shape and torch.equal(value, old.net.state_dict()[key])
        assert same == (not key.startswith(head)), key
    again = module_of().start_from(str(tmp_path / "model.ckpt"))
    torch.testing.assert_close(again.net.state_dict(), old.net.state_dict())


def test_a_checkpoint_of_another_network_says_so(tmp_path):
    torch.save({"some.weight": torch.ones(2)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"some\.weight"):
        module_of().start_from(str(tmp_path / "other.pth"))
    (tmp_path / "no.pth").write_text("no checkpoint")
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        module_of().start_from(str(tmp_path / "no.pth"))


def test_the_networks_weights_come_out_of_a_module_of_ours(tmp_path):
    plain = {"fc.weight": torch.ones(1)}
    assert network_weights({"state_dict": {"module.fc.weight": plain["fc.weight"]}}).keys() == plain.keys()
    ours = {"pytorch-lightning_version": "2", "state_dict": {"net.fc.weight": torch.ones(1), "other": torch.ones(1)}}
    torch.save(ours, tmp_path / "ours.ckpt")
    assert network_weights(read_checkpoint(str(tmp_path / "ours.ckpt"))).keys() == {"fc.weight"}


def test_unknown_names_say_what_there_is():
    with pytest.raises(ValueError, match="unknown norm 'bm'"):
        module_of("bm")
    with pytest.raises(ValueError, match="unknown backbone"):
        ClassificationModule(dataclasses.replace(RECIPE, backbone="resnet5O"), "bn", CLASSES, ["x"])
