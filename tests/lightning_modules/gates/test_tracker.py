"""The files and logs of GateTracker after real trainings of a tiny network."""

from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from pytorch_lightning.loggers import WandbLogger
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from lightning_modules import layer_log
from lightning_modules.gates import tracker as gate_tracker
from lightning_modules.gates.tracker import GateTracker
from lightning_modules.weight_averaging import AveragedWeights
from normshift import BatchInstanceNorm2d, SwitchNorm2d, gates

COLUMNS = ["norm", "seed", "epoch", "step", "layer", "depth", "statistic", "label", "value"]
STEPS = 3  # in an epoch
VALUES = 3 + 3 + 4 + 2 + 2  # SN's mean and variance, BIN's channels, and a second SN of two statistics


class Small(pl.LightningModule):
    """Two switchable norms with a batch-instance norm between them; or plain batch norm, which has no gates."""

    def __init__(self, gated: bool = True):
        super().__init__()
        norms = (SwitchNorm2d(4), BatchInstanceNorm2d(4), SwitchNorm2d(4, statistics=("in", "ln")))
        norms = norms if gated else [nn.BatchNorm2d(4) for _ in norms]
        parts = [part for norm in norms for part in (nn.Conv2d(4, 4, 3), norm, nn.ReLU())]
        self.net = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1))

    def training_step(self, batch: torch.Tensor, _: int) -> torch.Tensor:
        return (self.net(batch) - batch.mean((2, 3), keepdim=True)).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)  # large, so that the gates move within a few steps


@pytest.fixture(autouse=True)
def blank_pictures(monkeypatch):
    """Drawing would take longer than these trainings; figures are tested elsewhere."""
    monkeypatch.setattr(gate_tracker, "draw_gates", lambda frame: Figure((1, 1)))
    monkeypatch.setattr(layer_log, "draw_layer_map", lambda *_: Figure((1, 1)))


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def train(
    folder: Path,
    epochs: int = 2,
    module: Small | None = None,
    resume: Path | None = None,
    logger=False,
    every=50,
    averaging=(),
):
    """A trained network, its tracker and its trainer."""
    module = module or Small()
    tracker = GateTracker(folder, {"norm": "sn", "seed": 7})
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", devices=1, logger=logger, callbacks=[*averaging, tracker],
        enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder, log_every_n_steps=every,
    )  # fmt: skip
    images = DataLoader(torch.rand(2 * STEPS, 4, 10, 10), batch_size=2)
    trainer.fit(module, images, ckpt_path=resume)
    return module, tracker, trainer


def recorded(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "gates.parquet")


def current(module: nn.Module) -> list[tuple]:
    return [
        (gate.layer, gate.depth, gate.statistic, label, value)
        for gate in gates(module)
        for label, value in zip(gate.labels, gate.values.tolist(), strict=True)
    ]


def as_tuples(rows: pd.DataFrame) -> list[tuple]:
    return list(rows[COLUMNS[4:]].itertuples(index=False, name=None))


def test_parquet_holds_the_gates_from_first_to_last(tmp_path):
    module = Small()
    before = current(module)
    train(tmp_path, module=module)
    frame = recorded(tmp_path)
    assert list(frame.columns) == COLUMNS and len(frame) == 3 * VALUES
    assert set(frame["norm"]) == {"sn"} and set(frame["seed"]) == {7}
    steps = frame.groupby("epoch")["step"].unique().map(list).to_dict()
    assert steps == {0: [0], 1: [STEPS], 2: [2 * STEPS]}
    assert as_tuples(frame[frame["epoch"] == 0]) == before
    assert as_tuples(frame[frame["epoch"] == 2]) == current(module) != before
    assert as_tuples(frame[frame["epoch"] == 1]) != current(module)  # a record, not a view of the parameters


def test_shares_sum_to_one_and_start_equal(tmp_path):
    train(tmp_path)
    frame = recorded(tmp_path)
    shares = frame[frame["statistic"] != "rho"].groupby(["epoch", "layer", "statistic"])["value"]
    assert len(shares) == 3 * 2 * 2
    assert shares.sum().to_numpy() == pytest.approx(1)
    start = frame[frame["epoch"] == 0]
    assert set(start.loc[start["statistic"] == "rho", "value"]) == {1.0}
    assert start.loc[start["layer"] == "net.7", "value"].to_numpy() == pytest.approx(0.5)
    assert frame.loc[frame["statistic"] == "rho", "value"].between(0, 1).all()


def test_written_anew_each_epoch_and_drawn_from_the_last(tmp_path, monkeypatch):
    drawn, epochs = [], []
    draw = gate_tracker.draw_gates
    monkeypatch.setattr(gate_tracker, "draw_gates", lambda frame: drawn.append(frame) or draw(frame))

    class Look(pl.Callback):  # called after the tracker, which stands before it
        def on_train_epoch_end(self, *_):
            epochs.append(list(recorded(tmp_path)["epoch"].unique()))

    tracker = GateTracker(tmp_path)
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", devices=1, logger=False, callbacks=[tracker, Look()],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Small(), DataLoader(torch.rand(4, 4, 10, 10), batch_size=2))
    assert epochs == [[0, 1], [0, 1, 2]]
    assert [list(frame["epoch"].unique()) for frame in drawn] == [[0], [1], [2]]
    assert list(recorded(tmp_path).columns) == COLUMNS[2:]  # no constant columns were asked for
    assert (tmp_path / "gates.png").read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob("*.partial"))


def test_long_trainings_draw_twenty_pictures_and_the_last(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(GateTracker, "_draw", lambda self: drawn.append(self.record.times[-1][0]) or {})
    train(tmp_path, epochs=45)
    assert drawn[0] == 0 and drawn[-1] == 45 and len(drawn) <= 22 and {*drawn} >= set(range(0, 45, 3))


def test_resume_keeps_what_was_recorded_before(tmp_path):
    _, tracker, trainer = train(tmp_path / "first", epochs=1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert tracker.state_key in loaded["callbacks"]
    before = recorded(tmp_path / "first")

    module, again, _ = train(tmp_path / "second", epochs=3, resume=tmp_path / "last.ckpt")
    after = recorded(tmp_path / "second")
    pd.testing.assert_frame_equal(after[after["epoch"] <= 1], before)
    assert list(after["epoch"].unique()) == [0, 1, 2, 3]  # epoch 0 once: a resumed run does not begin again
    assert after["step"].max() == 3 * STEPS
    assert as_tuples(after[after["epoch"] == 3]) == current(module)
    assert again.log.epochs == [0, 1, 2, 3]
    np.testing.assert_array_equal(again.log.history[1], tracker.log.history[1])


def test_where_weights_are_averaged_the_gates_are_the_averages(tmp_path):
    raw = {}

    class Averaged(AveragedWeights):
        def on_train_end(self, trainer, module) -> None:
            raw.update({name: value.clone() for name, value in module.state_dict().items()})
            super().on_train_end(trainer, module)

    module, _, trainer = train(tmp_path, averaging=[Averaged(get_ema_multi_avg_fn(0.5))])
    after = recorded(tmp_path)
    assert as_tuples(after[after["epoch"] == 2]) == current(module)  # which is the average now
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    kept = torch.load(tmp_path / "model.ckpt", weights_only=True)
    rho = after[(after["epoch"] == 2) & (after["statistic"] == "rho")]["value"].to_numpy(np.float32)
    np.testing.assert_array_equal(rho, kept["state_dict"]["net.4.rho"].numpy())
    assert not np.array_equal(rho, raw["net.4.rho"].numpy())


def test_network_without_gates_leaves_no_trace(tmp_path):
    _, tracker, trainer = train(tmp_path / "run", module=Small(gated=False))
    assert not (tmp_path / "run").exists()
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    assert tracker.state_key not in torch.load(tmp_path / "last.ckpt", weights_only=True).get("callbacks", {})
    train(tmp_path / "run", epochs=3, module=Small(gated=False), resume=tmp_path / "last.ckpt")
    assert not (tmp_path / "run").exists()


class Recorder(WandbLogger):
    """A W&B logger whose run only stores what is logged."""

    run = MagicMock()

    @property
    def experiment(self) -> MagicMock:
        return self.run


NAMES = {"net.1": "000_1", "net.4": "001_4", "net.7": "002_7"}
"""A layer in a key: which norm layer it is, from the input, and its name without its own prefix."""


def logged(run: MagicMock) -> list[dict]:
    """What the tracker has logged, without what Lightning has."""
    calls = [call.args[0] for call in run.log.call_args_list]
    return [call for call in calls if any("gates/" in key for key in call)]


def test_wandb_gets_curves_of_every_layer_and_their_means(tmp_path, monkeypatch):
    monkeypatch.setattr(Recorder, "run", MagicMock())
    logger = Recorder(save_dir=tmp_path, offline=True)
    module, _, _ = train(tmp_path, logger=logger, every=1)
    calls = logged(logger.run)
    assert [call["trainer/global_step"] for call in calls] == [0, 1, 2, 3, 3, 4, 5, 6, 6]  # steps; and ends of epochs
    shares = {
        f"layers/gates/{statistic}/{label}/{NAMES[layer]}": value
        for layer, _, statistic, label, value in current(module)
        if statistic != "rho"
    }
    rho = next(gate.values for gate in gates(module) if gate.statistic == "rho").double()
    ends = {
        "rho/mean": rho.mean(),
        "rho/near_0": (rho < 0.1).double().mean(),
        "rho/near_1": (rho > 0.9).double().mean(),
    }
    curves = next(call for call in calls[::-1] if "gates/mean/bn" in call)
    by_layer = {key: value for key, value in curves.items() if key.startswith("layers/")}
    wanted = shares | {f"layers/gates/{key}/{NAMES['net.4']}": value.item() for key, value in ends.items()}
    assert by_layer == pytest.approx(wanted)
    means = {key: value for key, value in curves.items() if key.startswith("gates/") and key in MEANS}
    last = {
        layer: [value for name, _, s, label, value in current(module) if (name, s) == (layer, "mean")]
        for layer in NAMES
    }
    assert set(means) == MEANS
    assert means["gates/mean/in"] == pytest.approx((last["net.1"][0] + last["net.7"][0]) / 2)
    assert means["gates/mean/bn"] == pytest.approx(last["net.1"][2])  # the other layer does not mix it in
    assert means["gates/rho/mean"] == pytest.approx(rho.mean().item())


MEANS = {f"gates/{s}/{label}" for s in ("mean", "var") for label in ("in", "ln", "bn")}
MEANS |= {f"gates/rho/{name}" for name in ("mean", "near_0", "near_1")}


def test_wandb_gets_histograms_and_pictures_after_each_epoch(tmp_path, monkeypatch):
    import wandb

    monkeypatch.setattr(Recorder, "run", MagicMock())
    logger = Recorder(save_dir=tmp_path, offline=True)
    module, _, _ = train(tmp_path, logger=logger, every=1)
    calls = [call for call in logged(logger.run) if "epoch" in call]
    assert [(call["epoch"], call["trainer/global_step"]) for call in calls] == [(0, 0), (1, 3), (2, 6)]
    rho = next(gate.values for gate in gates(module) if gate.statistic == "rho").numpy()
    for key in ("gates/rho/histogram", f"layers/gates/rho/histogram/{NAMES['net.4']}"):
        histogram = calls[-1][key]
        assert isinstance(histogram, wandb.Histogram)
        assert histogram.histogram == np.histogram(rho, bins=32, range=(0, 1))[0].tolist()
    assert all(isinstance(calls[-1][key], wandb.Image) for key in ("gates/map", "gates/across_layers"))


def test_wandb_makes_no_panel_of_a_single_layer(tmp_path, monkeypatch):
    monkeypatch.setattr(Recorder, "run", MagicMock())
    logger = Recorder(save_dir=tmp_path, offline=True)
    train(tmp_path, logger=logger, every=1)
    hidden = {call.args[0] for call in logger.run.define_metric.call_args_list if call.kwargs.get("hidden")}
    keys = {key for call in logged(logger.run) for key in call}
    assert {key for key in keys if key.startswith("layers/")} <= hidden
    assert keys - hidden == MEANS | {
        "gates/rho/histogram", "gates/map", "gates/across_layers", "epoch", "trainer/global_step"
    }  # fmt: skip


def test_curves_have_the_trainers_pace(tmp_path, monkeypatch):
    monkeypatch.setattr(Recorder, "run", MagicMock())
    logger = Recorder(save_dir=tmp_path, offline=True)
    train(tmp_path, epochs=3, logger=logger, every=4)
    steps = [call["trainer/global_step"] for call in logged(logger.run) if "gates/mean/in" in call]
    assert steps == [0, 3, 4, 6, 8, 9]  # each fourth, and each epoch's last
    monkeypatch.setattr(layer_log, "POINTS", 3)
    monkeypatch.setattr(Recorder, "run", MagicMock())
    train(tmp_path, epochs=5, logger=Recorder(save_dir=tmp_path, offline=True), every=1)
    steps = [call["trainer/global_step"] for call in logged(Recorder.run) if "gates/mean/in" in call]
    assert steps == [0, 3, 5, 6, 9, 10, 12, 15]  # each fifth of fifteen


def test_wandb_gets_nothing_from_a_network_without_gates(tmp_path, monkeypatch):
    monkeypatch.setattr(Recorder, "run", MagicMock())
    logger = Recorder(save_dir=tmp_path, offline=True)
    train(tmp_path / "run", module=Small(gated=False), logger=logger)
    assert not logged(logger.run) and not logger.run.define_metric.called


def test_wandb_takes_gates_that_have_hardly_moved(tmp_path, monkeypatch):
    """A range with fewer than 32 floating-point numbers cannot be divided into 32 bins."""
    monkeypatch.setattr(Recorder, "run", MagicMock())
    module = Small()
    next(layer for layer in module.modules() if isinstance(layer, BatchInstanceNorm2d)).rho.data[0] -= 1e-7
    train(tmp_path, epochs=1, module=module, logger=Recorder(save_dir=tmp_path, offline=True))
