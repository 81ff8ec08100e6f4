"""Training and evaluation of classification, compared with arithmetic without torchmetrics."""

import dataclasses

import pytest
import pytorch_lightning as pl
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_modules.classification.module import ClassificationModule
from lightning_modules.classification.recipes import CLASSIFICATION_RECIPES
from lightning_modules.weights import head_of, network_weights, read_checkpoint

CLASSES = tuple("abcdefg")
RECIPE = dataclasses.replace(CLASSIFICATION_RECIPES["smoke"], width=0.25, image_size=16).fitted(16)
QUIET = {
    "accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
    "enable_model_summary": False,
}  # fmt: skip


def module_of(norm="bn", classes=CLASSES, **settings) -> ClassificationModule:
    torch.manual_seed(0)
    return ClassificationModule(RECIPE, norm, classes, settings.pop("evaluated", ["x"]), **settings)


def loader(count: int, seed: int = 0, batch: int = 5, classes: int = 7) -> DataLoader:
    numbers = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, 16, 16, generator=numbers)
    return DataLoader(TensorDataset(images, torch.randint(classes, (count,), generator=numbers)), batch)


def test_evaluation_of_two_domains_is_exact_whatever_the_batches():
    module = module_of(evaluated=["one", "two"])
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
    assert again == logged  # nothing is carried over from the first evaluation


def test_five_classes_have_no_top5():
    module = module_of(classes=CLASSES[:5])
    pl.Trainer(**QUIET).validate(module, [loader(5, classes=5)], verbose=False)
    assert {row["measure"]: row["value"] for row in module.results()}.keys() == {"loss", "top1", "chance"}


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


class Evaluations(pl.Callback):
    """The module's results and weights at each evaluation."""

    def __init__(self):
        self.scores, self.weights = [], []

    def on_validation_end(self, trainer, module):
        if trainer.sanity_checking:
            return
        self.scores.append([found["top1"] for found in module.evaluation])
        self.weights.append({key: value.clone() for key, value in module.net.state_dict().items()})


@pytest.mark.parametrize("select_on", [("one",), ("two", "three")])
def test_the_best_evaluation_counts_and_its_weights_come_back(select_on, tmp_path):
    """A training is interrupted and resumed; the best evaluation of both parts is selected."""
    torch.manual_seed(0)
    names, recipe = ["one", "two", "three"], dataclasses.replace(RECIPE, lr=3.0)
    watch, loaders = Evaluations(), [loader(31, seed) for seed in (1, 2, 3)]
    first = pl.Trainer(max_epochs=3, callbacks=[watch], **QUIET)
    first.fit(ClassificationModule(recipe, "bn", CLASSES, names, select_on=select_on), loader(20, 4), loaders)
    first.save_checkpoint(tmp_path / "last.ckpt")
    module = ClassificationModule(recipe, "bn", CLASSES, names, select_on=select_on)
    second = pl.Trainer(max_epochs=6, callbacks=[watch], **QUIET)
    second.fit(module, loader(20, 5), loaders, ckpt_path=tmp_path / "last.ckpt")
    chosen = [names.index(name) for name in select_on]
    means = [sum(scores[i] for i in chosen) / len(chosen) for scores in watch.scores]
    best = means.index(max(means))
    assert len(means) == 6 and len(set(means)) > 1
    module.take_selected()
    assert [row["value"] for row in module.results() if row["measure"] == "top1"] == watch.scores[best]
    torch.testing.assert_close(module.net.state_dict(), watch.weights[best], rtol=0, atol=0)
    second.save_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    assert "selected" not in read_checkpoint(str(tmp_path / "model.ckpt"))


def test_without_a_choice_the_last_evaluation_counts():
    module = module_of()
    pl.Trainer(max_epochs=2, **QUIET).fit(module, loader(20), loader(9))
    before = [row["value"] for row in module.results()]
    weights = {key: value.clone() for key, value in module.net.state_dict().items()}
    module.take_selected()
    assert [row["value"] for row in module.results()] == before
    torch.testing.assert_close(module.net.state_dict(), weights, rtol=0, atol=0)


@pytest.mark.parametrize("norm", ["bn", "sn", "bin"])
def test_frozen_norms_keep_their_running_averages_and_learn_the_rest(norm):
    torch.manual_seed(0)
    module = ClassificationModule(dataclasses.replace(RECIPE, frozen_norms=True), norm, CLASSES, ["x"])
    before = {key: value.clone() for key, value in module.net.state_dict().items()}
    pl.Trainer(max_steps=3, **QUIET).fit(module, loader(20), loader(5))
    after = module.net.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in after if "running" in key)
    assert not torch.equal(after["bn1.weight"], before["bn1.weight"])


def test_a_bottleneck_starts_fresh_behind_a_checkpoint_without_one(tmp_path):
    old = module_of()
    torch.save(old.net.state_dict(), tmp_path / "old.pth")
    torch.manual_seed(1)
    new = ClassificationModule(dataclasses.replace(RECIPE, bottleneck=6), "bn", CLASSES, ["x"])
    head = {key: value.clone() for key, value in new.net.fc.state_dict().items()}
    new.start_from(str(tmp_path / "old.pth"))
    assert [tuple(p.shape) for p in new.net.fc.parameters()] == [(6, 16), (6,), (6,), (6,), (7, 6), (7,)]
    torch.testing.assert_close(new.net.fc.state_dict(), head, rtol=0, atol=0)
    torch.testing.assert_close(new.net.layer1.state_dict(), old.net.layer1.state_dict(), rtol=0, atol=0)
    torch.save(new.net.state_dict(), tmp_path / "new.pth")
    again = ClassificationModule(new.recipe, "bn", CLASSES, ["x"]).start_from(str(tmp_path / "new.pth"))
    torch.testing.assert_close(again.net.state_dict(), new.net.state_dict(), rtol=0, atol=0)
