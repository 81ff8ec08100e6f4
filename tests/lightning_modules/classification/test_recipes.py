"""The recipes compared with their papers, and one optimiser step of each with the same step by hand."""

import dataclasses
import math

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, TensorDataset

from lightning_modules.classification.module import ClassificationModule
from lightning_modules.classification.recipe_images import evaluation_image, train_image
from lightning_modules.classification.recipes import CLASSIFICATION_RECIPES, RESNET_RS_TABLE, ClassificationRecipe
from lightning_modules.optimization import rate_factor
from lightning_modules.weight_averaging import decay_at, moving_average, remembered

CLASSES = ("a", "b", "c")

RATES = {
    # recipe: {epoch (of the paper's own): rate at the recipe's own batch size}, worked out by hand
    "ibn-step": {0: 0.1, 29.5: 0.1, 30: 0.01, 59.5: 0.01, 60: 0.001, 90: 1e-4, 99.5: 1e-4},
    "sn-step": {0: 0.1, 30: 0.01, 60: 0.001, 90: 1e-4},
    "sn-cosine": {5: 0.1, 62.5: 0.05, 28: 0.05 * (1 + math.cos(0.2 * math.pi)), 120: 0.0},
    "bin-cifar": {0: 0.1, 80.5: 0.1, 81: 0.01, 121.5: 0.01, 122: 0.001, 163: 0.001},
    "antialiased": {0: 0.1, 30: 0.01, 60: 0.001, 89: 0.001},
    "antialiased-finetune": {0: 0.01, 30: 0.001},
    "antialiased-alexnet": {0: 0.01, 30: 0.001, 60: 1e-4},
    "antialiased-vgg": {0: 0.1, 30: 0.01, 60: 0.001},
    "antialiased-mobilenet": {0: 0.05, 75: 0.025, 150: 0.0},
    # the cosine is not shifted behind the warm-up, which ends where it then is
    "resnet-rs-50-160": {5: 0.8 * (1 + math.cos(math.pi / 70)), 175: 0.8, 350: 0.0},
    "resnet-rs-420-320": {87.5: 0.8 * (1 + math.sqrt(0.5)), 175: 0.8},
    # in steps of its own, ten to an epoch here
    "tll-dann": {0: 0.01, 30: 0.01 * 1.3**-0.75},
    "tll-erm": {0: 0.001, 5: 0.001 * 1.015**-0.75},
    "domainbed-erm": {0: 5e-5, 16: 5e-5},
    "finetune": {0: 0.01, 30: 0.005, 60: 0.0},
    "linear": {0: 1.6, 45: 0.8, 90: 0.0},
}


QUIET = {
    "accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
    "enable_model_summary": False,
}  # fmt: skip


def batches() -> DataLoader:
    """Three batches of four."""
    return DataLoader(TensorDataset(torch.randn(12, 3, 16, 16), torch.arange(12) % 3), 4)


def tiny(name: str, **parts) -> ClassificationRecipe:
    """A recipe with a small network and small images; all training settings are the recipe's."""
    sizes = {"backbone": "cifar_resnet8", "width": 0.25, "image_size": 16, "resize": None, "small_images": False}
    return dataclasses.replace(CLASSIFICATION_RECIPES[name], **sizes, **parts)


def learning_rate(recipe: ClassificationRecipe, at: int) -> float:
    return recipe.base_lr * rate_factor(recipe, at)


@pytest.mark.parametrize("name", RATES)
def test_rates_at_the_papers_epochs(name):
    recipe = CLASSIFICATION_RECIPES[name]
    recipe = dataclasses.replace(recipe, epoch_length=None).fitted(10 * recipe.batch_size)  # ten steps an epoch
    for epoch, rate in RATES[name].items():
        assert learning_rate(recipe, round(10 * epoch)) == pytest.approx(rate, abs=1e-12), epoch


def test_warm_up_rises_in_a_line_and_meets_the_schedule():
    recipe = CLASSIFICATION_RECIPES["sn-cosine"].fitted(2560)
    rates = [learning_rate(recipe, at) for at in range(51)]
    np.testing.assert_allclose(np.diff(rates), 0.1 / 51, rtol=1e-9)
    assert rates[50] == pytest.approx(0.1)

    recipe = CLASSIFICATION_RECIPES["resnet-rs-50-160"].fitted(40960)
    rates = [learning_rate(recipe, at) for at in range(51)]
    np.testing.assert_allclose(np.diff(rates), 0.8 * (1 + math.cos(math.pi / 70)) / 51, rtol=1e-9)


@pytest.mark.parametrize(("batch", "rate"), [(256, 0.1), (64, 0.025), (32, 0.0125), (8, 0.003125)])
def test_rate_scales_with_the_batch(batch, rate):
    """Switchable Normalization's (8, 4) and (8, 1) among them."""
    recipe = dataclasses.replace(CLASSIFICATION_RECIPES["sn-step"], batch_size=batch).fitted(640)
    assert learning_rate(recipe, 0) == pytest.approx(rate)


def test_stretched_recipes_keep_their_shape():
    recipe = CLASSIFICATION_RECIPES["ibn-step"].lasting(10)
    assert recipe.milestones == pytest.approx((3, 6, 9)) and recipe.epochs == 10
    short = CLASSIFICATION_RECIPES["ibn-step"].fitted(2560, max_steps=5)  # half an epoch
    assert short.max_steps == 5 and short.epoch_steps == 5
    assert [round(math.log10(learning_rate(short, at))) for at in range(5)] == [-1, -1, -2, -3, -4]
    long = CLASSIFICATION_RECIPES["ibn-step"].fitted(2560, max_steps=25)
    assert long.max_steps == 25 and long.epoch_steps == 10


def test_too_few_images_say_so():
    with pytest.raises(ValueError, match="10 images to train on are fewer than the 256 of one step"):
        CLASSIFICATION_RECIPES["ibn-step"].fitted(10)


def test_resnet_rs_regularises_by_its_table():
    for (depth, size), (dropout, drop, magnitude, _) in RESNET_RS_TABLE.items():
        recipe = CLASSIFICATION_RECIPES[f"resnet-rs-{depth}-{size}"]
        assert (recipe.backbone, recipe.image_size) == (f"resnetrs{depth}", size)
        assert (recipe.dropout, recipe.stochastic_depth) == (dropout, drop) and recipe.randaugment == (2, magnitude)
        assert recipe.label_smoothing == 0.1 and recipe.weight_decay == 4e-5 and recipe.ema_decay == 0.9999


def test_published_lengths_in_steps():
    """BIN's CIFAR: 391 steps an epoch, the last of 80 images; Transfer-Learning-Library's and DomainBed's in steps."""
    assert CLASSIFICATION_RECIPES["bin-cifar"].fitted(50_000).epoch_steps == 391
    assert CLASSIFICATION_RECIPES["laptop"].fitted(50_000).epoch_steps == 781  # of 64 images, 16 left out
    for name, epoch, steps in (("tll-dann", 1000, 30_000), ("tll-erm", 500, 2500), ("domainbed-erm", 300, 5001)):
        recipe = CLASSIFICATION_RECIPES[name].fitted(2427)  # Office-Home's Art
        assert (recipe.epoch_steps, recipe.max_steps, recipe.evaluation_epochs) == (epoch, steps, 1)


def test_resnet_rs_sees_the_published_part_of_an_evaluation_image():
    """The additional pixels in the code's table, around the middle 7/8."""
    for size, extra in {160: 23, 192: 27, 224: 32, 256: 37, 320: 46}.items():
        recipes = [recipe for name, recipe in CLASSIFICATION_RECIPES.items() if name.endswith(f"-{size}")]
        assert recipes and {recipe.resize for recipe in recipes} == {size + extra}


def test_resnet_rs_drops_paths_by_stage():
    module = ClassificationModule(
        dataclasses.replace(CLASSIFICATION_RECIPES["resnet-rs-200-256"], backbone="resnetrs50", width=0.25), "bn",
        CLASSES, ["x"],
    )  # fmt: skip
    rates = [[block.drop_path.drop_prob for block in getattr(module.net, f"layer{k}")] for k in (1, 2, 3, 4)]
    expected = [[0.04] * 3, [0.06] * 4, [0.08] * 6, [0.1] * 3]
    assert [np.round(stage, 12).tolist() for stage in rates] == expected
    norms = [m for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms and all(m.momentum == 1 for m in norms)  # the average of weights averages them
    assert module.net.fc.weight.std().item() == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize(("name", "value"), [("sn-step", 0.0), ("resnet-rs-50-160", 0.0), ("ibn-step", 1.0)])
@pytest.mark.parametrize(("backbone", "norm"), [
    *((name, "bn") for name in ("resnet26", "torchvision/resnet18", "cifar_bin_resnet8", "cifar_preresnet8")),
    *((name, "ibn-b") for name in ("resnet26", "torchvision/resnet18")),
])  # fmt: skip
def test_last_gammas_start_as_published(name, value, backbone, norm):
    """In blocks that end in a norm, also in those that IBN-b rewrites; of the others none must be 0, or the block would
    never learn."""
    recipe = dataclasses.replace(CLASSIFICATION_RECIPES[name], backbone=backbone, dropout=0.0)
    net = ClassificationModule(recipe, norm, CLASSES, ["x"]).net
    ends = "bn3" if backbone == "resnet26" else "bn2"
    for key, weight in net.named_parameters():
        if key.endswith((".bn1.weight", ".bn2.weight", ".bn3.weight")):
            last = key.endswith(f".{ends}.weight") and "preresnet" not in backbone
            assert (weight == (value if last else 1.0)).all(), key


def test_the_average_warms_up_as_tensorflows():
    recipe = CLASSIFICATION_RECIPES["resnet-rs-50-160"].fitted(4096, max_steps=200)
    average_by = recipe.ema_decay, recipe.ema_warmup
    found = [decay_at(t, *average_by) for t in (0, 1, 8, 89_989, 89_990, 10**6)]
    assert found == pytest.approx([0.1, 2 / 11, 0.5, 89_990 / 89_999, 0.9999, 0.9999], rel=1e-12)
    assert remembered(recipe.max_steps, *average_by) < 1e-12  # a short training is not evaluated on its first weights
    average = AveragedModel(torch.nn.Linear(1, 1, bias=False), multi_avg_fn=moving_average(*average_by))
    expected, values = None, torch.randn(6, dtype=torch.float64).tolist()
    for t, value in enumerate(values):
        if t == 3:  # a resumed training has nothing but the state
            state = average.state_dict()
            average = AveragedModel(torch.nn.Linear(1, 1, bias=False), multi_avg_fn=moving_average(*average_by))
            average.load_state_dict(state)
        model = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.constant_(model.weight, value)
        average.update_parameters(model)
        decay = (1 + t) / (10 + t)
        expected = decay * expected + (1 - decay) * value if t else value
    assert average.module.weight.item() == pytest.approx(expected, rel=1e-5)


def test_plain_recipes_come_back():
    for recipe in CLASSIFICATION_RECIPES.values():
        assert ClassificationRecipe.of(recipe.plain()) == recipe


@pytest.mark.parametrize("norm", ["sn", "bin"])
@pytest.mark.parametrize("name", CLASSIFICATION_RECIPES)
def test_a_step_equals_the_one_written_out(name, norm):
    recipe = tiny(name, batch_size=4, dropout=0.0, stochastic_depth=0.0).fitted(40)
    torch.manual_seed(0)
    module = ClassificationModule(recipe, norm, CLASSES, ["x"])
    found = module.configure_optimizers()
    optimizer, schedule = found["optimizer"], found["lr_scheduler"]["scheduler"]
    at = max(1, recipe.max_steps // 3)
    optimizer.step()  # without gradients it changes nothing, and torch wants it before the schedule's
    for _ in range(at):
        schedule.step()
    images, labels = torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 0])
    before = {key: p.detach().clone() for key, p in module.named_parameters()}
    module.train()
    loss = module.model_step(images, labels)
    loss.backward()
    gradients = {key: p.grad for key, p in module.named_parameters()}
    scores = module(images).double()
    target = torch.full((4, 3), recipe.label_smoothing / 3, dtype=torch.float64)
    target[range(4), labels] += 1 - recipe.label_smoothing
    assert loss.item() == pytest.approx(-(target * scores.log_softmax(1)).sum(1).mean().item(), rel=1e-4)
    optimizer.step()
    rate = recipe.lr * recipe.batch_size / recipe.lr_batch * by_hand(recipe, at)
    for key, new in module.named_parameters():
        if gradients[key] is None:
            assert recipe.trains == "head" and not key.startswith("net.fc") and torch.equal(new, before[key]), key
            continue
        lr = rate * (1.0 if key.startswith("net.fc.") else recipe.backbone_lr)
        push = gradients[key].double() + decays(recipe, key, before[key]) * recipe.weight_decay * before[key].double()
        push = (1 + recipe.momentum) * push if recipe.nesterov else push  # the first step: the momentum is the push
        push = push / (push.abs() + 1e-8) if recipe.optimizer == "adam" else push
        expected = before[key].double() - lr * (10 if key.endswith("rho") else 1) * push
        expected = expected.clamp(0, 1) if key.endswith("rho") else expected
        torch.testing.assert_close(new.double(), expected, rtol=1e-5, atol=1e-7, msg=key)


def decays(recipe: ClassificationRecipe, key: str, parameter: torch.Tensor) -> bool:
    if key.endswith("rho"):
        return False
    if key.endswith(("mean_weight", "var_weight")):
        return recipe.decay_gates
    bias = key == "net.fc.bias" or key in ("net.fc.fc.bias", "net.fc.bottleneck.bias")
    if bias and recipe.decay_biases is not None:
        return recipe.decay_biases
    return parameter.ndim > 1 or recipe.decay_norms


def by_hand(recipe: ClassificationRecipe, at: int) -> float:
    epoch = at / recipe.epoch_steps
    whole = math.cos(math.pi * max(epoch, recipe.warmup_epochs) / recipe.epochs / 2) ** 2
    if epoch < recipe.warmup_epochs:
        end = whole if recipe.schedule == "whole-cosine" else 1
        return end * (at + 1) / (recipe.warmup_epochs * recipe.epoch_steps + 1)
    if recipe.schedule == "whole-cosine":
        return whole
    if recipe.schedule == "constant":
        return 1
    if recipe.schedule == "inverse":
        return (1 + recipe.lr_gamma * at) ** -0.75
    if recipe.schedule == "step":
        return 10.0 ** -sum(epoch >= m for m in recipe.milestones)
    if recipe.schedule == "annealed":
        return (1 + 10 * epoch / recipe.epochs) ** -0.75
    share = (epoch - recipe.warmup_epochs) / (recipe.epochs - recipe.warmup_epochs)
    return math.cos(math.pi * share / 2) ** 2


def test_rho_stays_in_the_unit_interval_when_the_step_would_leave_it():
    recipe = tiny("bin-cifar", batch_size=4, lr=1e5).fitted(40)
    module = ClassificationModule(recipe, "bin", CLASSES, ["x"])
    optimizer = module.configure_optimizers()["optimizer"]
    module.model_step(torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 0])).backward()
    optimizer.step()
    rho = torch.cat([p.detach() for key, p in module.named_parameters() if key.endswith("rho")])
    assert rho.min() == 0 and rho.max() == 1


class Watch(pl.Callback):
    """The weights and buffers after each step."""

    def __init__(self):
        self.states = []

    def on_train_batch_end(self, trainer, module, *_):
        self.states.append({key: value.clone() for key, value in module.net.state_dict().items()})


def test_the_average_is_exponential_over_weights_and_buffers(tmp_path):
    recipe = tiny("resnet-rs-50-160", batch_size=4, ema_decay=0.75, stochastic_depth=0.0).fitted(12, max_steps=3)
    module, watch = ClassificationModule(recipe, "bn", CLASSES, ["x"]), Watch()
    trainer = pl.Trainer(max_steps=3, callbacks=[watch, EMAWeightAveraging(decay=recipe.ema_decay)], **QUIET)
    trainer.fit(module, batches())
    first, second, third = watch.states
    for key, value in module.net.state_dict().items():
        if not value.is_floating_point():
            continue
        expected = 0.75 * (0.75 * first[key] + 0.25 * second[key]) + 0.25 * third[key]
        torch.testing.assert_close(value, expected, msg=key)
    assert any(key.endswith("running_var") for key in first)


def test_mixed_labels_cost_their_shares():
    recipe = tiny("laptop", mixup=0.4, batch_size=4, label_smoothing=0.0).fitted(8)
    module = ClassificationModule(recipe, "bn", CLASSES, ["x"])
    torch.manual_seed(1)
    images, shares = module.mix(torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 0]))
    assert shares.shape == (4, 3)
    torch.testing.assert_close(shares.sum(1), torch.ones(4))
    scores = module(images)
    loss = module.model_step(images, shares)
    torch.testing.assert_close(loss, -(shares * F.log_softmax(scores, 1)).sum(1).mean(), rtol=1e-3, atol=1e-4)


def test_a_linear_evaluation_moves_nothing_but_the_head():
    recipe = tiny("linear", batch_size=4).fitted(8)
    module = ClassificationModule(recipe, "bn", CLASSES, ["x"])
    before = {key: value.clone() for key, value in module.net.state_dict().items()}
    pl.Trainer(max_steps=2, **QUIET).fit(module, batches(), batches())  # an evaluation sets modes, too
    changed = {key for key, value in module.net.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize("name", CLASSIFICATION_RECIPES)
def test_every_recipe_makes_its_images(name):
    recipe = CLASSIFICATION_RECIPES[name]
    photo = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    for transform in (train_image(recipe), evaluation_image(recipe)):
        out = transform(photo)
        assert out.shape == (3, recipe.image_size, recipe.image_size) and out.isfinite().all()


def test_the_anti_aliased_mobilenet_has_no_dropout():
    recipe = dataclasses.replace(CLASSIFICATION_RECIPES["antialiased-mobilenet"], width=0.25)
    net = ClassificationModule(recipe, "bn", CLASSES, ["x"], antialias=4).net
    assert [layer.p for layer in net.modules() if isinstance(layer, torch.nn.Dropout)] == [0.0]  # torchvision's: .2
