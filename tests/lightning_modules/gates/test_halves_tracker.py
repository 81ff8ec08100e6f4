"""The measures of IBN's halves, compared with numpy and in real trainings of a tiny network."""

from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from pytorch_lightning.loggers import WandbLogger
from torch import nn
from torch.utils.data import DataLoader

from lightning_modules import layer_log
from lightning_modules.gates.halves_tracker import MEASURES, HalvesTracker, halves
from lightning_modules.weight_averaging import AveragedWeights
from normshift import IBN2d


@pytest.mark.parametrize(("instance_first", "ratio"), [(True, 0.5), (False, 0.25)])
def test_measures_against_numpy(instance_first, ratio):
    torch.manual_seed(0)
    layer = IBN2d(8, ratio, instance_first=instance_first)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    shade = torch.randn(5, 8, 1, 1)  # every image has its own level, which an instance norm takes away
    output = layer(torch.randn(5, 8, 6, 7) + 3 * shade)
    found = dict(zip(MEASURES, halves(layer, output).tolist(), strict=True))
    count = round(8 * ratio)
    channels = np.split(output.detach().double().numpy(), [count if instance_first else 8 - count], axis=1)
    parts = dict(zip(("in", "bn") if instance_first else ("bn", "in"), channels, strict=True))
    for name, part in parts.items():
        assert found[f"{name}_mean"] == pytest.approx(part.mean(), abs=1e-5)
        assert found[f"{name}_std"] == pytest.approx(np.sqrt(part.var(axis=(0, 2, 3)).mean()), rel=1e-4)
    batch = parts["bn"]
    between = batch.mean((2, 3)).var(0).mean() / batch.var(axis=(0, 2, 3)).mean()
    assert found["bn_between_images"] == pytest.approx(between, rel=1e-4) and between > 0.5
    assert parts["in"].mean((2, 3)).var(0) == pytest.approx(0, abs=1e-9)  # as the docstring says


class Small(pl.LightningModule):
    def __init__(self, ibn: bool = True):
        super().__init__()
        norms = (IBN2d(4), nn.BatchNorm2d(4), IBN2d(4)) if ibn else (nn.BatchNorm2d(4),)
        self.net = nn.Sequential(*(part for norm in norms for part in (nn.Conv2d(4, 4, 3), norm, nn.ReLU())))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.net(images)

    def training_step(self, batch: torch.Tensor, _: int) -> torch.Tensor:
        return self(batch).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Recorder(WandbLogger):
    """A W&B logger whose run only stores what is logged."""

    run = MagicMock()

    @property
    def experiment(self) -> MagicMock:
        return self.run


def train(
    folder: Path, monkeypatch, module: Small, epochs: int = 2, logged: bool = True, resume: Path | None = None,
    averaging=(),
):  # fmt: skip
    monkeypatch.setattr(Recorder, "run", MagicMock())
    monkeypatch.setattr(layer_log, "draw_layer_map", lambda *_: Figure((1, 1)))
    tracker = HalvesTracker()
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", devices=1, callbacks=[*averaging, tracker],
        enable_checkpointing=False,
        logger=Recorder(save_dir=folder, offline=True) if logged else False, log_every_n_steps=2,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(module, DataLoader(torch.rand(10, 4, 10, 10), batch_size=2), ckpt_path=resume)
    calls = [call.args[0] for call in Recorder.run.log.call_args_list]
    return tracker, trainer, [call for call in calls if any(key.startswith("ibn/") for key in call)]


def test_wandb_gets_curves_of_both_halves(tmp_path, monkeypatch):
    module = Small()
    _, _, calls = train(tmp_path, monkeypatch, module)
    curves = [call for call in calls if "ibn/in_mean" in call]
    assert [call["trainer/global_step"] for call in curves] == [1, 2, 4, 6, 8, 10]  # each second, each epoch's first
    names = ("000_1", "002_7")
    layers = {f"layers/ibn/{measure}/{name}" for measure in MEASURES for name in names}
    assert set(curves[0]) == {"trainer/global_step", *layers, *(f"ibn/{measure}" for measure in MEASURES)}
    mean = np.mean([curves[0][f"layers/ibn/bn_std/{name}"] for name in names])
    assert curves[0]["ibn/bn_std"] == pytest.approx(mean)
    hidden = {call.args[0] for call in Recorder.run.define_metric.call_args_list if call.kwargs.get("hidden")}
    assert hidden == layers
    assert [call["trainer/global_step"] for call in calls if "ibn/map" in call] == [5, 10]
    assert not any(layer._forward_hooks for layer in module.modules())


def test_nothing_is_hooked_without_wandb_or_halves(tmp_path, monkeypatch):
    class NoHooks(IBN2d):
        def register_forward_hook(self, *_, **__):
            raise AssertionError("hooked")

    monkeypatch.setattr(IBN2d, "register_forward_hook", NoHooks.register_forward_hook)
    train(tmp_path, monkeypatch, Small(), logged=False)
    assert train(tmp_path, monkeypatch, Small(ibn=False))[2] == []


def test_resume_goes_on_with_the_picture(tmp_path, monkeypatch):
    tracker, trainer, _ = train(tmp_path, monkeypatch, Small(), epochs=1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    torch.load(tmp_path / "last.ckpt", weights_only=True)
    again, _, _ = train(tmp_path, monkeypatch, Small(), epochs=3, resume=tmp_path / "last.ckpt")
    assert again.log.epochs == [1, 2, 3]
    np.testing.assert_array_equal(again.log.history[0], tracker.log.history[0])


def test_where_weights_are_averaged_the_average_is_looked_at_as_it_is_evaluated(tmp_path, monkeypatch):
    """If the averaged weights become zero, both halves return zero; the average and its modes do not change."""
    seen = []

    def to_zero(averages, current, updates) -> None:
        for average in averages:
            average.zero_()

    averaging, module = AveragedWeights(to_zero), Small()
    original = AveragedWeights.on_train_batch_end

    def watched(self, *arguments) -> None:
        original(self, *arguments)
        seen.append({name: buffer.clone() for name, buffer in self.network.named_buffers()})
        assert self.network.training and all(part.training for part in self.network.modules())

    monkeypatch.setattr(AveragedWeights, "on_train_batch_end", watched)
    _, _, calls = train(tmp_path, monkeypatch, module, averaging=[averaging])
    last = [call for call in calls if "ibn/in_mean" in call][-1]
    assert last["ibn/in_mean"] == last["ibn/in_std"] == last["ibn/bn_mean"] == last["ibn/bn_std"] == 0
    assert all(torch.equal(value, torch.zeros_like(value)) for value in seen[-1].values())
