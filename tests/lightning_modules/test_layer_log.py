"""The keys of layers' curves, how many of them W&B shows, and the picture."""

from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
import torchvision

from lightning_modules.clock import EndsAt
from lightning_modules.gates.halves_tracker import MEASURES
from lightning_modules.gates.tracker import GateMeasures
from lightning_modules.layer_log import LayerLog, is_drawn, layer_key, steps_between
from lightning_modules.layer_map import draw_layer_map
from normshift import convert
from normshift.gate_reader import GateReader


def test_means_leave_out_layers_without_the_measure():
    log = LayerLog("gates", [(0, "net.stem.bn"), (4, "net.head")], ["mean/in", "mean/gn"])
    curves = log.curves(np.array([[0.25, 0.75], [np.nan, 0.5]]))
    assert curves == {
        "gates/mean/in": 0.5,
        "gates/mean/gn": 0.5,
        "layers/gates/mean/in/000_stem_bn": 0.25,
        "layers/gates/mean/in/004_head": 0.75,
        "layers/gates/mean/gn/004_head": 0.5,
    }
    assert log.curves(np.full((2, 2), np.nan)) == {}


@pytest.mark.parametrize("norm", ["sn", "bin", "ibn"])
def test_fifty_layers_make_few_panels(norm):
    """W&B creates a panel for each key that is logged and not hidden."""
    if norm == "ibn":
        log = LayerLog("ibn", [(i, f"layer1.{i}.bn1") for i in range(50)], MEASURES)
    else:
        with torch.device("meta"):
            slots = GateReader(convert(torchvision.models.resnet50(), norm)).slots
        measures = GateMeasures(slots)
        log = LayerLog("gates", measures.layers, measures.names)
    assert len(log.layers) >= 50
    run = MagicMock()
    log.hide(run)
    hidden = {call.args[0] for call in run.define_metric.call_args_list if call.kwargs["hidden"]}
    keys = set(log.curves(np.random.default_rng(0).uniform(size=(len(log.measures), len(log.layers)))))
    assert len(keys) > 150 and len(keys - hidden) <= 6
    assert not any("." in key for key in keys)  # W&B takes a dot for a path into a nested value


def test_layer_keys_are_in_order_and_apart():
    names = ["net.encoder.model.layer1.0.bn1", "net.decoder.block.0.1", "auxiliary.1", ""]
    keys = [layer_key(depth, name) for depth, name in enumerate(names)]
    assert keys == ["000_layer1_0_bn1", "001_decoder_block_0_1", "002_auxiliary_1", "003_norm"]
    assert layer_key(9, "b") < layer_key(10, "a") < layer_key(100, "")


@pytest.mark.parametrize(("steps", "pace", "between"), [(100, 10, 10), (40_000, 10, 100), (5, 50, 50), (None, 10, 10)])
def test_steps_between_points(steps, pace, between):
    callbacks = [] if steps is None else [EndsAt(steps)]
    trainer = SimpleNamespace(
        callbacks=callbacks, log_every_n_steps=pace, max_steps=-1, max_epochs=-1, num_training_batches=7
    )
    assert steps_between(trainer) == between
    trainer.max_epochs, trainer.accumulate_grad_batches = 5000, 2  # 20,000 steps, where nothing else ends it
    assert steps_between(trainer) == (between if steps is not None and steps < 20_000 else 50)


def test_pictures_are_few_and_the_last_is_one():
    for epochs in (1, 19, 20, 21, 100, 333):
        drawn = [epoch for epoch in range(epochs + 1) if is_drawn(SimpleNamespace(max_epochs=epochs), epoch)]
        assert drawn[0] == 0 and drawn[-1] == epochs and len(drawn) <= 22


def test_the_picture_has_layers_from_top_to_bottom_and_epochs_from_left_to_right():
    values = np.arange(3 * 2 * 4, dtype=float).reshape(3, 2, 4)  # (epochs, measures, layers)
    figure = draw_layer_map([0, 5, 10], ["first", "b", "c", "last"], ["one", "two"], values)
    panels = [ax for ax in figure.axes if ax.images]
    assert [ax.get_title(loc="left") for ax in panels] == ["one", "two"]
    for i, ax in enumerate(panels):
        np.testing.assert_array_equal(ax.images[0].get_array(), values[:, i].T)
        assert ax.yaxis_inverted() and [label.get_text() for label in ax.get_xticklabels()] == ["0", "5", "10"]
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["first", "b", "c", "last"]


def test_the_picture_of_a_deep_network_names_some_of_its_layers():
    figure = draw_layer_map([0], [f"layer{i}" for i in range(104)], ["one"], np.zeros((1, 1, 104)), (0, 1))
    assert len(figure.axes[0].get_yticklabels()) <= 40 and figure.axes[0].images[0].get_clim() == (0, 1)
