"""What GateTracker leaves behind, after real trainings of a network of a few weights."""

from pathlib import Path
from unittest.mock import MagicMock

import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import WandbLogger
from torch import nn
from torch.utils.data import DataLoader

from lightning_modules import gate_tracker
from lightning_modules.gate_tracker import GateTracker
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
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def train(folder: Path, epochs: int = 2, module: Small | None = None, resume: Path | None = None, logger=False):
    """A trained network, its tracker and its trainer."""
    module = module or Small()
    tracker = GateTracker(folder, {"norm": "sn", "seed": 7})
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", devices=1, logger=logger, callbacks=[tracker], enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
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


def test_resume_keeps_what_was_recorded_before(tmp_path):
    _, tracker, trainer = train(tmp_path / "first", epochs=1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert loaded["callbacks"][tracker.state_key] == tracker.state_dict()
    before = recorded(tmp_path / "first")

    module, _, _ = train(tmp_path / "second", epochs=3, resume=tmp_path / "last.ckpt")
    after = recorded(tmp_path / "second")
    pd.testing.assert_frame_equal(after[after["epoch"] <= 1], before)
    assert list(after["epoch"].unique()) == [0, 1, 2, 3]  # epoch 0 once: a resumed run does not begin again
    assert after["step"].max() == 3 * STEPS
    assert as_tuples(after[after["epoch"] == 3]) == current(module)


def test_state_survives_a_round_trip(tmp_path):
    _, tracker, _ = train(tmp_path)
    again = GateTracker(tmp_path, {"norm": "sn", "seed": 7})
    again.load_state_dict(tracker.state_dict())
    for frame, same in zip(tracker.frames, again.frames, strict=True):
        pd.testing.assert_frame_equal(frame, same)
    assert again.state_dict() == tracker.state_dict()


def test_network_without_gates_leaves_no_trace(tmp_path):
    _, tracker, trainer = train(tmp_path / "run", module=Small(gated=False))
    assert not (tmp_path / "run").exists()
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    assert tracker.state_key not in torch.load(tmp_path / "last.ckpt", weights_only=True).get("callbacks", {})
    train(tmp_path / "run", epochs=3, module=Small(gated=False), resume=tmp_path / "last.ckpt")
    assert not (tmp_path / "run").exists()


class Recorder(WandbLogger):
    """A W&B logger whose run only remembers what it is given."""

    run = MagicMock()

    @property
    def experiment(self) -> MagicMock:
        return self.run


def test_wandb_gets_shares_histograms_and_the_picture(tmp_path, monkeypatch):
    import wandb

    monkeypatch.setattr(Recorder, "run", MagicMock())
    logger = Recorder(save_dir=tmp_path, offline=True)
    module, _, _ = train(tmp_path, logger=logger)
    logged = [call.args[0] for call in logger.run.log.call_args_list]
    logged = [values for values in logged if "gates" in values]
    assert [(values["epoch"], values["trainer/global_step"]) for values in logged] == [(0, 0), (1, 3), (2, 6)]
    shares = {
        f"gates/{statistic}/{label}/{layer}": value
        for layer, _, statistic, label, value in current(module)
        if statistic != "rho"
    }
    last = logged[-1]
    assert {"gates/mean/bn/net.1", "gates/var/ln/net.7"} < set(shares)
    assert set(last) == {*shares, "epoch", "trainer/global_step", "gates", "gates/rho/net.4", "gates/rho_mean/net.4"}
    assert {key: last[key] for key in shares} == shares
    rho = next(gate.values for gate in gates(module) if gate.statistic == "rho")
    assert last["gates/rho_mean/net.4"] == pytest.approx(rho.mean().item())
    assert isinstance(last["gates/rho/net.4"], wandb.Histogram) and sum(last["gates/rho/net.4"].histogram) == len(rho)
    assert isinstance(last["gates"], wandb.Image)


def test_wandb_gets_nothing_from_a_network_without_gates(tmp_path, monkeypatch):
    monkeypatch.setattr(Recorder, "run", MagicMock())
    logger = Recorder(save_dir=tmp_path, offline=True)
    train(tmp_path / "run", module=Small(gated=False), logger=logger)
    assert not any("gates" in key for call in logger.run.log.call_args_list for key in call.args[0])


def test_wandb_takes_gates_that_have_hardly_moved(tmp_path, monkeypatch):
    """A range that holds no 32 floating-point numbers cannot be cut into 32 bins of its own."""
    monkeypatch.setattr(Recorder, "run", MagicMock())
    module = Small()
    next(layer for layer in module.modules() if isinstance(layer, BatchInstanceNorm2d)).rho.data[0] -= 1e-7
    train(tmp_path, epochs=1, module=module, logger=Recorder(save_dir=tmp_path, offline=True))
