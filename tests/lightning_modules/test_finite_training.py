"""Trainings with numbers that are not finite, in different places: the error names step and place."""

from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_modules.finite_training import FiniteTraining, NotFiniteError, first_not_finite
from lightning_modules.weight_averaging import AveragedWeights

STEPS = 6


class BrokenGradient(torch.autograd.Function):
    """The identity, with NaN as gradient."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient * float("nan")


class Small(pl.LightningModule):
    """Three layers; `accident(step, x)` changes the output of the second."""

    def __init__(self, accident=lambda step, x: x, *, evaluated=lambda x: x):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)
        self.accident, self.evaluated = accident, evaluated
        self.norm.register_forward_hook(lambda _, __, x: accident(self.global_step, x) if self.training else x)
        self.register_buffer("mask", torch.tensor([0.0, -float("inf")]))  # not finite by design
        self.begun: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.norm(self.first(x)))
        return x if self.training else self.evaluated(x)

    def training_step(self, batch: Tensor, _: int) -> Tensor:
        self.begun.append(self.global_step)
        loss = self(batch).square().mean()
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: Tensor, _: int) -> None:
        self(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def train(module: Small, tmp_path, *callbacks: pl.Callback, scale: float = 1.0) -> None:
    torch.manual_seed(0)
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", devices=1, callbacks=[FiniteTraining(), *callbacks], logger=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=tmp_path,
        enable_checkpointing=False,
    )  # fmt: skip
    images = DataLoader(scale * torch.randn(4 * STEPS // 2, 3), 4)
    trainer.fit(module, images, images)


def at(step: int, change):
    return lambda now, x: change(x) if now >= step else x


def test_a_finite_training_is_left_alone(tmp_path):
    module = Small()
    train(module, tmp_path)
    assert module.begun == list(range(STEPS))


@pytest.mark.parametrize("step", [0, 4])
def test_a_loss_that_is_not_finite_names_step_and_layer(step, tmp_path):
    module = Small(at(step, lambda x: x * float("inf")))
    before = None

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer, module, *_) -> None:
            nonlocal before
            before = [parameter.detach().clone() for parameter in module.parameters()]

    with pytest.raises(
        NotFiniteError, match=rf"at step {step + 1} the loss is not finite, first in the output of norm"
    ):
        train(module, tmp_path, Watch())
    assert max(module.begun) == step
    assert all(torch.equal(*pair) for pair in zip(before, module.parameters(), strict=True))  # the step is not taken


class Adversarial(Small):
    """Two networks, `first` to `last` and `critic`, whose optimisers step one after the other in a batch."""

    def __init__(self, accident):
        super().__init__(accident)
        self.critic, self.automatic_optimization = nn.Linear(1, 1), False

    def training_step(self, batch: Tensor, _: int) -> None:
        self.begun.append(self.global_step)
        made = self(batch)
        for optimizer, shown, sign in zip(self.optimizers(), (made.detach(), made), (1, -1), strict=True):
            optimizer.zero_grad()
            self.manual_backward(sign * self.critic(shown).mean())
            optimizer.step()

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        own = [p for name, p in self.named_parameters() if not name.startswith("critic")]
        return [torch.optim.SGD(parameters, lr=0.01) for parameters in (self.critic.parameters(), own)]


def test_under_manual_optimisation_a_loss_names_step_and_layer_and_changes_nothing(tmp_path):
    module = Adversarial(at(2, lambda x: x * float("inf")))  # `global_step` counts both optimisers: the second batch
    before = None

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer, module, *_) -> None:
            nonlocal before
            before = [parameter.detach().clone() for parameter in module.parameters()]

    with pytest.raises(NotFiniteError, match=r"at step 3 the loss is not finite, first in the output of norm"):
        train(module, tmp_path, Watch())
    assert module.begun == [0, 2, 2]  # the last of them to find the layer
    assert all(torch.equal(*pair) for pair in zip(before, module.parameters(), strict=True))


def test_a_gradient_that_is_not_finite_names_the_parameter_where_it_began(tmp_path):
    """Behind `last`, on the way back, it is in the norm's parameters first, and in those of `first` after them."""
    module = Small(at(3, BrokenGradient.apply))
    with pytest.raises(NotFiniteError) as error:
        train(module, tmp_path)
    assert str(error.value) == "at step 4 a gradient is not finite, first that of norm.bias"
    assert (error.value.step, module.begun[-1]) == (4, 3)


def test_running_statistics_that_are_not_finite_stop_a_training_whose_loss_is(tmp_path):
    module = Small()
    with torch.no_grad():
        module.first.weight.fill_(1.0)
    with pytest.raises(NotFiniteError, match=r"a weight or running statistic .*, first norm.running_var$"):
        train(module, tmp_path, scale=1e25)  # squared it is more than float32 holds
    assert module.begun == [0, 1, 2]  # found when the network was to be evaluated


def test_an_evaluation_that_is_not_finite_stops_a_training_whose_loss_is(tmp_path):
    module = Small(evaluated=lambda x: x / 0)
    with pytest.raises(NotFiniteError, match=r"at step 3 the network's output is not finite in evaluation$"):
        train(module, tmp_path)


def test_an_average_is_looked_at_where_it_is_what_is_evaluated(tmp_path):
    def broken(averages, current, updates) -> None:
        for average in averages:
            if average.shape == (3, 3):
                average.fill_(float("nan"))

    with pytest.raises(NotFiniteError, match=r"at step 3 .*, first first.weight$"):
        train(Small(), tmp_path, AveragedWeights(broken))


@pytest.mark.parametrize(("scale", "stops"), [(65536.0, False), (1.0, True)])
def test_gradients_that_loss_scaling_skips_are_let_through(scale, stops):
    """16-mixed finds its scale by trying; what is not finite at a scale of 1 never will be."""
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([1.0, float("inf")])
    module = SimpleNamespace(named_parameters=lambda: [("rho", parameter)], named_buffers=lambda: [])
    plugin = SimpleNamespace(scaler=SimpleNamespace(get_scale=lambda: scale))
    trainer = SimpleNamespace(precision_plugin=plugin, global_step=7)
    callback = FiniteTraining()
    callback.setup(trainer, module, "fit")
    if stops:
        with pytest.raises(NotFiniteError, match=r"at step 8 .* that of rho"):
            callback.on_before_optimizer_step(trainer, module, torch.optim.SGD([parameter], 0.1))
    else:
        callback.on_before_optimizer_step(trainer, module, torch.optim.SGD([parameter], 0.1))


def test_huge_gradients_are_finite():
    """The square of 1e25 is not; a norm that squares would stop here."""
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.full((2,), 1e25)
    module = SimpleNamespace(named_parameters=lambda: [("weight", parameter)], named_buffers=lambda: [])
    trainer = SimpleNamespace(precision_plugin=SimpleNamespace(), global_step=0)
    callback = FiniteTraining()
    callback.setup(trainer, module, "fit")
    callback.on_before_optimizer_step(trainer, module, torch.optim.SGD([parameter], 0.1))


def test_weights_come_before_what_they_bring_forth():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert first_not_finite(network, lambda: network(torch.ones(1, 2))) is None
    assert first_not_finite(network, lambda: network(torch.full((1, 2), float("nan")))) == "in the output of 0"
    network[1].weight.data[0, 0] = float("inf")
    assert first_not_finite(network, lambda: network(torch.ones(1, 2))) == "1.weight"
