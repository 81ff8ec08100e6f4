"""Every kind of training uses the study's clock in the same way as a training with one optimiser."""

from pathlib import Path

import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_modules.clock import EndsAt
from lightning_modules.evaluation_line import EvaluationLine
from lightning_modules.finite_training import FiniteTraining, NotFiniteError
from lightning_modules.gates.tracker import GateTracker
from lightning_modules.study_module import StudyModule
from lightning_modules.weight_averaging import AveragedWeights
from normshift import SwitchNorm2d

EPOCH, STEPS = 3, 8  # steps of an epoch; the third is not whole


class Plain(StudyModule):
    """One optimiser."""

    measures, headline = ("miou",), "miou"
    accumulate = 1  # Lightning's own

    def __init__(self, stop: int | None = None):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Conv2d(1, 2, 1), SwitchNorm2d(2), nn.Conv2d(2, 1, 1))
        self.critic = nn.Conv2d(1, 1, 1)
        self.stop, self.evaluations, self.begun = stop, [], []

    @property
    def batches(self) -> int:
        """Batches of the loader in one step."""
        return self.accumulate * self.batches_per_step

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)

    def on_train_batch_start(self, batch, batch_idx: int) -> None:
        if self.stop is not None and self.steps >= self.stop:
            raise KeyboardInterrupt  # as a kill: nothing is saved
        self.begun.append(self.steps)

    def training_step(self, batch: Tensor, batch_index: int):
        loss = self(batch).square().mean()
        self.log("train/loss", loss.detach())
        return loss

    def validation_step(self, batch: Tensor, batch_index: int) -> None:
        self.log("x/miou", self(batch).mean())

    def on_validation_epoch_end(self) -> None:
        self.keep_evaluation([{"miou": 0.0}])
        self.evaluations.append(self.evaluated_at)

    def configure_optimizers(self):
        return self.scheduled(self.net)

    def scheduled(self, network: nn.Module) -> dict:
        optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda at: 1 / (1 + at))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step", "name": "lr"}}


class Accumulating(Plain):
    """The gradients of two batches are one step."""

    accumulate = 2


class TwoPlayers(Plain):
    """Generator and critic each take a step in every batch; Lightning counts two."""

    def __init__(self, stop: int | None = None):
        super().__init__(stop)
        self.automatic_optimization = False

    def training_step(self, batch: Tensor, batch_index: int) -> None:
        for optimizer in self.optimizers():
            self.improve(optimizer, batch)

    def improve(self, optimizer, batch: Tensor) -> None:
        loss = self.critic(self(batch)).square().mean()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        self.log("train/loss", loss.detach())

    def configure_optimizers(self):
        return self.scheduled(self.net), {"optimizer": torch.optim.SGD(self.critic.parameters(), lr=0.1)}


class TakingTurns(TwoPlayers):
    """One batch for the critic and one for the generator are one step together."""

    batches_per_step = 2

    def training_step(self, batch: Tensor, batch_index: int) -> None:
        generator, critic = self.optimizers()
        self.improve(generator if batch_index % 2 else critic, batch)


class ByHand(TwoPlayers):
    """Accumulates gradients by itself: both optimisers step in every third batch."""

    batches_per_step = 3

    def training_step(self, batch: Tensor, batch_index: int) -> None:
        if batch_index % 3 == 2:
            super().training_step(batch, batch_index)


class OneInTurns(Plain):
    """One optimiser with alternating steps; two of them are one step of the study."""

    batches_per_step = 2


class WhenItLikes(TwoPlayers):
    """Three steps of the critic for one of the generator, counted by an overridden rule."""

    batches_per_step = 4

    def counts_as_step(self, batch_index: int) -> bool:
        return self.generated

    def training_step(self, batch: Tensor, batch_index: int) -> None:
        generator, critic = self.optimizers()
        self.generated = batch_index % 4 == 3
        self.improve(generator if self.generated else critic, batch)


KINDS = [Accumulating, TwoPlayers, TakingTurns, ByHand, OneInTurns, WhenItLikes]


class Updates(AveragedWeights):
    def __init__(self):
        super().__init__(lambda averages, current, updates: None)


def trained(module: Plain, folder: Path, *callbacks: pl.Callback, resume: bool = False) -> pl.Trainer:
    """Train as a study does, to the end or until the module's stop."""
    images = torch.randn(12, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    endless = DataLoader(images.repeat(10, 1, 1, 1), 1)
    trainer = pl.Trainer(
        max_epochs=-(-STEPS // EPOCH), limit_train_batches=EPOCH * module.batches, limit_val_batches=1,
        accumulate_grad_batches=module.accumulate, num_sanity_val_steps=0, log_every_n_steps=2,
        logger=CSVLogger(folder, name="", version=""), accelerator="cpu", enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[
            ModelCheckpoint(folder, filename="last", save_on_train_epoch_end=True, enable_version_counter=False),
            LearningRateMonitor("step"), EndsAt(STEPS), GateTracker(folder), FiniteTraining(), *callbacks,
        ],
    )  # fmt: skip
    trainer.fit(module, endless, endless, ckpt_path=folder / "last.ckpt" if resume else None)
    return trainer


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> tuple[Plain, Path]:
    folder = tmp_path_factory.mktemp("plain")
    module = Plain()
    assert trained(module, folder).global_step == module.steps == STEPS
    return module, folder


def points(metrics: pd.DataFrame, column: str) -> set[tuple]:
    return {*metrics.dropna(subset=[column])[["step", column]].itertuples(index=False, name=None)}


@pytest.mark.parametrize("kind", KINDS)
def test_steps_epochs_gates_logs_rates_and_evaluations_are_a_plain_trainings(kind, plain, tmp_path, capsys):
    one, whole = plain
    module, average = kind(), Updates()
    trainer = trained(module, tmp_path, EvaluationLine("gan", steps=STEPS), average)
    assert module.steps == STEPS and module.evaluations == one.evaluations == [3, 6, 8]
    assert module.begun == [step for step in range(STEPS) for _ in range(module.batches)]
    assert int(average._average_model.n_averaged) == STEPS
    assert trainer.lr_scheduler_configs[0].scheduler.get_last_lr() == [1 / (1 + STEPS)]
    assert [line.split(",")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("gan")] == [
        f"gan: step {step} of {STEPS}" for step in (3, 6, 8)
    ]
    gates, others = (pd.read_parquet(folder / "gates.parquet") for folder in (tmp_path, whole))
    pd.testing.assert_frame_equal(gates.drop(columns="value"), others.drop(columns="value"))
    assert list(gates.drop_duplicates("epoch")[["epoch", "step"]].itertuples(index=False, name=None)) == [
        (0, 0), (1, 3), (2, 6), (3, 8),
    ]  # fmt: skip
    ours, theirs = (pd.read_csv(folder / "metrics.csv") for folder in (tmp_path, whole))
    for column in ("lr", "train/loss", "x/miou"):
        assert {step for step, _ in points(ours, column)} == {step for step, _ in points(theirs, column)}
    assert points(ours, "lr") == points(theirs, "lr")


@pytest.mark.parametrize("kind", [Plain, *KINDS])
def test_a_killed_training_goes_on_by_the_same_clock(kind, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    trained(complete := kind(), whole)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        trained(kind(stop=5), cut)
    assert torch.load(cut / "last.ckpt", weights_only=True)["study"]["steps"] == EPOCH
    again = kind()
    trainer = trained(again, cut, resume=True)
    assert again.begun[0] == EPOCH and again.begun == complete.begun[EPOCH * complete.batches :]
    assert (again.steps, again.evaluations) == (STEPS, [6, 8])
    assert trainer.lr_scheduler_configs[0].scheduler.get_last_lr() == [1 / (1 + STEPS)]
    pd.testing.assert_frame_equal(*(pd.read_parquet(folder / "gates.parquet") for folder in (cut, whole)))
    for key, value in complete.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    kept = kind.load_from_checkpoint(cut / "last.ckpt")
    assert (kept.steps, kept.evaluated_at, kept.evaluation) == (STEPS, STEPS, [{"miou": 0.0}])


def test_what_is_not_finite_is_told_by_the_clock(tmp_path):
    class Breaks(TwoPlayers):
        def on_train_batch_start(self, batch, batch_idx: int) -> None:
            if self.steps == 4:
                self.critic.weight.data.fill_(float("nan"))

    with pytest.raises(NotFiniteError, match="at step 5 "):
        trained(Breaks(), tmp_path)


@pytest.mark.parametrize(("headline", "chosen"), [("miou", 6), ("error", 3)])
def test_the_better_way_of_the_headline_selects(headline, chosen, tmp_path):
    class Selects(Plain):
        measures = (headline,)

        def __init__(self):
            super().__init__()
            self.headline, self.select_on = headline, ("x",)

        def results(self) -> list[dict]:
            return [{"domain": "x", "measure": headline, "value": {3: 0.2, 6: 0.4, 8: 0.3}[self.evaluated_at]}]

    trained(module := Selects(), tmp_path)
    assert module.selected["step"] == chosen
    module.take_selected()
    assert module.evaluation == [{"miou": 0.0}] and module.selected is None
