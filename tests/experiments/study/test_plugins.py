"""A norm in a user's own file: that of docs/own-norm.md, from its page through a study; and files that do not fit."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision
import yaml
from torch import nn

import normshift
from experiments.study.endings import UsageError
from experiments.study.plugins import load_plugins
from normshift.gate_reader import GateReader, parameter_groups
from normshift.layers import PER_IMAGE
from normshift.registry import NORMS
from tests.experiments.three_norms import finished_run, gates

ROOT = Path(__file__).parents[3]
MOST_LINES = 60


@pytest.fixture
def own_norm(tmp_path):
    """The page's file."""
    page = (ROOT / "docs" / "own-norm.md").read_text()
    code, _ = re.findall(r"```python\n(.+?)```", page, re.DOTALL)
    assert len(code.splitlines()) <= MOST_LINES
    file = tmp_path / "mynorm.py"
    file.write_text(code)
    yield file
    NORMS._known.pop("mynorm", None)
    sys.modules.pop("plugin_mynorm", None)


@pytest.fixture
def converted(own_norm):
    load_plugins([str(own_norm)])
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=3)
    return normshift.convert(model, "mynorm")


def test_a_study_trains_it_and_draws_its_gates(own_norm, tmp_path):
    run = tmp_path / "run"
    script = [sys.executable, str(ROOT / "experiments" / "cls_cifar.py"), "--smoke", "--wandb", "disabled"]
    flags = ["--plugin", str(own_norm), "--norm", "bn", "mynorm", "--out", str(run)]
    done = subprocess.run([*script, *flags], cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    assert yaml.safe_load((run / "config.yaml").read_text())["plugin"] == [str(own_norm)]

    page = (run / "report.html").read_text()
    assert "0 instance" in page and "1 layer" in page and "it starts at a half" in page

    from experiments.study.reader import read_folder

    found = read_folder(run).gates
    found = found[found["norm"] == "mynorm"]
    assert set(found["statistic"]) == {"between"} and found["value"].between(0, 1).all()
    start, end = (found[found["epoch"] == epoch]["value"] for epoch in (0, found["epoch"].max()))
    assert (start == 0.5).all() and (end != 0.5).any()

    again = subprocess.run([*script, *flags, "--resume"], cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert again.returncode == 0, again.stderr[-2000:]
    alone = subprocess.run(
        [*script, "--config", str(run / "config.yaml"), "--norm", "mynorm", "--out", str(tmp_path / "again")],
        cwd=ROOT, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert alone.returncode == 0, alone.stderr[-2000:]


def test_a_report_that_is_drawn_later_takes_the_file_too(own_norm, tmp_path):
    finished_run(tmp_path / "run")
    with_gates = gates("mynorm").assign(statistic="between", label=lambda frame: frame.groupby("depth").cumcount())
    with_gates.assign(label=with_gates["label"].astype(str)).to_parquet(tmp_path / "run" / "gates.parquet")
    script = [sys.executable, str(ROOT / "experiments" / "report.py"), str(tmp_path / "run")]
    for flags, end in (([], "<span>0</span>"), (["--plugin", str(own_norm)], "<span>0 instance</span>")):
        done = subprocess.run([*script, *flags], cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
        assert end in (tmp_path / "run" / "report.html").read_text()


def test_it_is_converted_both_ways(converted):
    x = torch.randn(4, 3, 64, 64)
    plain = torchvision.models.resnet18(num_classes=3)
    keys = list(plain.state_dict())
    layers = normshift.norm_layers(converted)
    assert {layer.norm_name for layer in layers.values()} == {"mynorm"} and len(layers) == 20
    converted(x).sum().backward()
    assert all(layer.logits.grad.abs().sum() > 0 for name, layer in layers.items() if name != "layer4.1.bn2")
    weight = layers["bn1"].weight
    back = normshift.convert(converted, "bn")
    assert list(back.state_dict()) == keys and back.bn1.weight is weight
    assert type(back.bn1) is nn.BatchNorm2d and not hasattr(back.bn1, "logits")
    assert back(x).shape == (4, 3)


def test_its_gates_are_read_and_trained_fast(converted):
    with torch.no_grad():
        converted.bn1.logits.fill_(2.0)
    found = normshift.gates(converted)
    assert len(found) == 20 and {(gate.norm, gate.statistic) for gate in found} == {("mynorm", "between")}
    assert torch.equal(found[0].values, torch.full((64,), 2.0).sigmoid())
    assert found[0].labels == tuple(map(str, range(64))) and GateReader(converted).slots[0].by_channel
    rates = {group["name"]: group["lr"] for group in parameter_groups(converted, lr=0.1, weight_decay=1e-4)}
    assert rates == {"weights": 0.1, "fast_gates": pytest.approx(1.0)}


def test_it_is_synchronised_and_folding_says_why_not(converted):
    before = list(converted.state_dict())
    assert list(normshift.synchronize(converted).state_dict()) == before
    _, report = normshift.fold(converted.eval())
    assert {norm.stays for norm in report.norms} == {PER_IMAGE} and len(report.norms) == 20


def test_its_gradients_are_right(own_norm):
    load_plugins([str(own_norm)])
    layer = NORMS["mynorm"](6).double()
    with torch.no_grad():
        layer.logits.copy_(torch.randn(6))
    x = torch.randn(2, 6, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, x) and torch.autograd.gradgradcheck(layer, x)
    assert torch.allclose(torch.compile(layer, backend="aot_eager")(x), layer(x))


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (None, "no such file"),
        ("x = 1\n", "it registers nothing; end it with normshift.register_norm"),
        ("x = 1\nraise RuntimeError('not today')\n", "bad.py, line 2: RuntimeError: not today"),
        ("x = 1\n\nif x\n", "bad.py, line 3: SyntaxError"),
        ("import no_such_module_of_mine\n", "line 1: ModuleNotFoundError"),
        ("from normshift import *\nregister_norm(NormSpec('bn', 'mine', AffineNorm))\n", "a norm 'bn' already"),
        ("from normshift import *\nregister_norm(NormSpec('My Norm', 'mine', AffineNorm))\n", "lower-case letters"),
    ],
)
def test_a_file_that_does_not_fit_is_named_in_one_sentence(code, said, tmp_path):
    file = tmp_path / "bad.py"
    if code is not None:
        file.write_text(code)
    with pytest.raises(UsageError, match=re.escape(said)) as caught:
        load_plugins([str(file)])
    assert "\n" not in str(caught.value) and "plugin_bad" not in sys.modules


def test_a_folder_is_no_plugin(tmp_path):
    with pytest.raises(UsageError, match="it is no Python file"):
        load_plugins([str(tmp_path)])


WITHOUT_GATES = '''"""Norm by the root mean square of each map."""

import torch

from normshift import AffineNorm, Formula, NormSpec, register_norm


class RootMeanSquareFormula(Formula):
    def __init__(self, eps):
        self.eps = eps

    def __call__(self, moments, batch, weight, bias):
        return weight * torch.rsqrt(moments.var + moments.mean.square() + self.eps), bias


class RootMeanSquareNorm(AffineNorm):
    def formula(self):
        return RootMeanSquareFormula(self.eps)


register_norm(NormSpec("rms", "norm by the root mean square", RootMeanSquareNorm, colour="#882255"))
'''


def test_the_same_file_is_enough_in_the_library_itself(tmp_path, monkeypatch):
    """A norm that joins this repository is a file of normshift/norms/: 25 lines without a gate."""
    import normshift.norms

    assert len(WITHOUT_GATES.splitlines()) <= 25
    (tmp_path / "rms.py").write_text(WITHOUT_GATES)
    monkeypatch.setattr(normshift.norms, "__path__", [*normshift.norms.__path__, str(tmp_path)])
    monkeypatch.setitem(NORMS._files, "rms", "normshift.norms.rms")
    try:
        model = normshift.convert(torchvision.models.resnet18(num_classes=2), "rms")
        assert model(torch.randn(2, 3, 32, 32)).isfinite().all() and NORMS["rms"].colour == "#882255"
        assert type(normshift.convert(model, "bn").bn1) is nn.BatchNorm2d
    finally:
        sys.modules.pop("normshift.norms.rms", None)
        NORMS._known.pop("rms", None)
