"""Domain-adversarial training compared with its formulas."""

import dataclasses
import math

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import CombinedLoader
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_modules.classification.domain_adversarial import (
    DomainAdversarialModule,
    DomainInvariantModule,
    _Reversed,
    reversal,
)
from lightning_modules.classification.module import ClassificationModule
from lightning_modules.classification.recipes import CLASSIFICATION_RECIPES
from lightning_modules.optimization import rate_factor

RECIPE = dataclasses.replace(
    CLASSIFICATION_RECIPES["dann"], backbone="cifar_resnet8", width=0.25, image_size=16, resize=None, batch_size=4,
    lr_batch=4,
).fitted(8)  # fmt: skip


def made() -> DomainAdversarialModule:
    torch.manual_seed(0)
    return DomainAdversarialModule(RECIPE, "bn", ("a", "b"), ["x"])


def fitted(module, steps: int, watch: tuple = ()):
    numbers = torch.Generator().manual_seed(1)
    images, labels = torch.randn(16, 3, 16, 16, generator=numbers), torch.arange(16) % 2
    halves = [DataLoader(TensorDataset(images[s], labels[s]), 4) for s in (slice(0, 8), slice(8, 16))]
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=steps, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=list(watch),
    )  # fmt: skip
    trainer.fit(module, CombinedLoader({"source": halves[0], "target": halves[1]}, "max_size_cycle"))
    return images, labels, trainer


def test_schedules_are_the_papers():
    assert reversal(0) == 0
    assert reversal(0.1) == pytest.approx(math.tanh(0.5))  # 2 / (1 + exp(-x)) - 1 = tanh(x / 2)
    assert reversal(1) == pytest.approx(math.tanh(5))
    for share in (0, 0.25, 1):
        expected = 0.01 / (1 + 10 * share) ** 0.75
        assert RECIPE.base_lr * rate_factor(RECIPE, round(share * RECIPE.max_steps)) == pytest.approx(expected)


def test_the_gradient_is_reversed_and_the_value_is_not():
    features = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    out = _Reversed.apply(features, 0.3)
    torch.testing.assert_close(out, features)
    (out**2).sum().backward()
    torch.testing.assert_close(features.grad, -0.3 * 2 * features.detach())


def test_in_the_first_step_the_network_learns_classes_alone():
    """The reversal starts at 0: first, the network learns from the class loss alone; the discriminator learns."""
    module = made()
    net = made().net.train()
    before = {key: value.clone() for key, value in module.named_parameters()}
    images, labels, _ = fitted(module, 1)
    torch.manual_seed(0)
    loss = F.cross_entropy(net(torch.cat([images[:4], images[8:12]]))[:4], labels[:4])
    loss.backward()
    for key, start in net.named_parameters():
        expected = start - 0.01 * (start.grad + RECIPE.weight_decay * start)
        torch.testing.assert_close(dict(module.net.named_parameters())[key], expected, rtol=1e-4, atol=1e-6, msg=key)
    assert not torch.equal(module.discriminator[0].weight, before["discriminator.0.weight"])


class Losses(pl.Callback):
    def __init__(self):
        self.rows = []

    def on_train_batch_end(self, trainer, module, *_):
        self.rows.append({key: value.item() for key, value in trainer.callback_metrics.items()})


def test_what_is_logged():
    watch = Losses()
    fitted(made(), 3, (watch,))
    assert all({"train/loss", "train/domain_loss", "train/domain_accuracy"} <= row.keys() for row in watch.rows)
    assert watch.rows[0]["train/domain_loss"] == pytest.approx(math.log(2), abs=0.1)  # it knows nothing yet
    assert all(0 <= row["train/domain_accuracy"] <= 1 for row in watch.rows)


def test_its_checkpoint_is_a_classifiers(tmp_path):
    module = made()
    *_, trainer = fitted(module, 1)
    trainer.save_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    loaded = ClassificationModule.load_from_checkpoint(tmp_path / "model.ckpt", map_location="cpu").eval()
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(loaded(images), module.eval()(images))


TLL = dataclasses.replace(
    CLASSIFICATION_RECIPES["tll-dann"], backbone="cifar_resnet8", width=0.25, image_size=16, resize=None, squash=False,
    train_squash=None, batch_size=4, lr_batch=4,
).fitted(8)  # fmt: skip


def test_transfer_learning_librarys_parts():
    module = DomainAdversarialModule(TLL, "bn", ("a", "b"), ["x"])
    kinds = [type(layer).__name__ for layer in module.discriminator]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear"]
    assert [tuple(layer.weight.shape) for layer in module.discriminator if "Linear" in type(layer).__name__] == [
        (1024, 256), (1024, 1024), (1, 1024),
    ]  # fmt: skip
    assert [type(layer).__name__ for layer in module.net.fc] == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    rates = {id(p): g["lr"] for g in module.configure_optimizers()["optimizer"].param_groups for p in g["params"]}
    for name, parameter in module.named_parameters():
        fast = name.startswith(("net.fc.", "discriminator."))
        assert rates[id(parameter)] == pytest.approx(0.01 if fast else 0.001), name


@pytest.mark.parametrize(("at", "strength"), [(0, 0.0), (1000, 0.462), (4000, 0.964), (6000, 0.995)])
def test_transfer_learning_librarys_reversal_counts_steps(at, strength):
    module = DomainAdversarialModule(TLL, "bn", ("a", "b"), ["x"])
    module.steps = at
    assert reversal(module._progress()) == pytest.approx(2 / (1 + math.exp(-at / 1000)) - 1, abs=1e-12)
    assert reversal(module._progress()) == pytest.approx(strength, abs=5e-4)


def test_transfer_learning_librarys_second_step_written_out():
    """Both losses, the reversal of step 1, Nesterov momentum and learning rates, compared with two steps by hand."""
    torch.manual_seed(0)
    module = DomainAdversarialModule(TLL, "bn", ("a", "b"), ["x"])
    twin = DomainAdversarialModule(TLL, "bn", ("a", "b"), ["x"])
    twin.load_state_dict(module.state_dict())
    images, labels, _ = fitted(module, 2)
    twin.train()
    momentum = {}
    for step, (source, target) in enumerate(((slice(0, 4), slice(8, 12)), (slice(4, 8), slice(12, 16)))):
        features = []
        hook = twin.net.fc.fc.register_forward_pre_hook(lambda layer, inputs, kept=features: kept.append(inputs[0]))
        scores = twin.net(torch.cat([images[source], images[target]]))
        hook.remove()
        strength = math.tanh(step / 2000)
        classes = F.cross_entropy(scores[:4], labels[source])
        guesses = twin.discriminator(features[0])[:, 0]
        domains = (F.softplus(guesses[:4]).mean() + F.softplus(-guesses[4:]).mean()) / 2
        named = dict(twin.named_parameters())
        own = torch.autograd.grad(classes, list(named.values()), retain_graph=True, allow_unused=True)
        other = torch.autograd.grad(domains, list(named.values()), allow_unused=True)
        rate = 0.01 * (1 + 0.001 * step) ** -0.75
        with torch.no_grad():
            for (name, p), a, b in zip(named.items(), own, other, strict=True):
                sign = 1 if name.startswith("discriminator.") else -strength
                gradient = (a if a is not None else 0) + sign * (b if b is not None else 0) + 1e-3 * p
                momentum[name] = 0.9 * momentum.get(name, 0) + gradient
                part = 1 if name.startswith(("net.fc.", "discriminator.")) else 0.1
                p -= part * rate * (gradient + 0.9 * momentum[name])
    for name, p in twin.named_parameters():
        torch.testing.assert_close(dict(module.named_parameters())[name], p, rtol=1e-3, atol=2e-5, msg=name)


def test_domainbeds_turns_written_out():
    """Two steps of network and discriminator each, with separate Adam optimisers, as in DomainBed."""
    parts = {"backbone": "cifar_resnet8", "width": 0.25, "image_size": 16, "resize": None, "squash": False}
    recipe = dataclasses.replace(CLASSIFICATION_RECIPES["domainbed-dann"], **parts, batch_size=2, lr_batch=2, lr=1e-3)
    torch.manual_seed(0)
    module, twin = (
        DomainInvariantModule(recipe.fitted(12), "bn", ("a", "b"), ["x"], data="one+two+three") for _ in range(2)
    )
    twin.load_state_dict(module.state_dict())
    images, labels = torch.randn(24, 3, 16, 16), torch.arange(24) % 2
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=4, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(TensorDataset(images, labels), 6))
    twin.train()
    halves = [torch.optim.Adam(part.parameters(), 1e-3, (0.5, 0.9)) for part in (twin.net, twin.discriminator)]
    domains = torch.tensor([0, 0, 1, 1, 2, 2])
    for step in range(4):
        at = slice(6 * step, 6 * step + 6)
        features = []
        hook = twin.net.fc.register_forward_pre_hook(lambda layer, inputs, kept=features: kept.append(inputs[0]))
        class_loss = F.cross_entropy(twin.net(images[at]), labels[at])
        hook.remove()
        domain_loss = F.cross_entropy(twin.discriminator(features[0]), domains)
        twin.zero_grad()
        (domain_loss if step % 2 else class_loss - domain_loss).backward()
        halves[step % 2].step()
    for name, p in twin.named_parameters():
        torch.testing.assert_close(dict(module.named_parameters())[name], p, rtol=1e-3, atol=1e-4, msg=name)
    assert [tuple(layer.weight.shape) for layer in module.discriminator[::2]] == [(256, 16), (256, 256), (3, 256)]
