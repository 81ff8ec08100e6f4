"""What the names of norms stand for, and what joins them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import nn

import normshift
from normshift import NORMS, AffineNorm, NormSpec, convert, gates, register_norm
from normshift.layers import group_count

COUNTS = {4: 2, 6: 2, 8: 2, 9: 3, 16: 4, 24: 6, 32: 8, 36: 9, 48: 12, 64: 32, 72: 24, 96: 32, 112: 28, 134: 2, 2048: 32}


def test_groups_are_32_or_of_four_channels():
    assert {channels: group_count(channels) for channels in COUNTS} == COUNTS


def test_a_group_norm_is_neither_instance_nor_layer_norm():
    for channels in range(4, 600):
        if all(channels % d for d in range(2, channels)):
            with pytest.raises(ValueError, match=f"2 groups or more of 2 channels or more, got {channels}"):
                group_count(channels)
            continue
        groups = NORMS["gn"](channels).num_groups
        assert channels % groups == 0 and 2 <= groups <= channels / 2
    for channels in (1, 2, 3):
        with pytest.raises(ValueError, match=f"got {channels}: take ln"):
            NORMS["gn"](channels)


@pytest.mark.parametrize(
    "make",
    [
        torchvision.models.resnet18,
        torchvision.models.densenet121,
        torchvision.models.mobilenet_v3_small,
        torchvision.models.efficientnet_b0,
        lambda: timm.create_model("resnet10t"),
    ],
    ids=["resnet", "densenet", "mobilenet-v3", "efficientnet", "resnet10t"],
)
def test_converted_networks_have_group_norms(make):
    with torch.device("meta"):
        norms = [m for m in convert(make(), "gn").modules() if isinstance(m, nn.GroupNorm)]
    assert norms and all(2 <= norm.num_groups <= norm.num_channels / 2 for norm in norms)


def test_names_and_colours_need_no_torch():
    code = "import sys, normshift; found = [normshift.NORMS[n].colour for n in normshift.NORMS]; "
    code += "assert len(set(found)) == len(found) == 10 and 'torch' not in sys.modules, found"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_there():
    source = Path(normshift.__file__).read_text()
    typed = re.findall(r"^    from normshift\.(\w+) import (\w+) as \2$", source, re.MULTILINE)
    assert {name: module for module, name in typed} == normshift._MODULE_OF
    for name in [*normshift.__all__, "__version__"]:
        assert getattr(normshift, name) is not None and name in dir(normshift)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        normshift.nonsense  # noqa: B018


@pytest.mark.parametrize("name", NORMS)
def test_a_spec_says_what_its_layers_have(name):
    spec = NORMS[name]
    assert spec.name == name and spec.what and spec.paper and spec.dash in ("solid", "dashed", "dotted", "dash-dot")
    found = gates(spec(8))
    assert {gate.statistic for gate in found} == {gate.statistic for gate in spec.gates}
    assert all(gate.values.min() >= 0 and gate.values.max() <= 1 for gate in found)


@pytest.fixture
def plain():
    """A norm of a user's, registered for a while."""
    layer = type("PlainNorm", (AffineNorm,), {"formula": lambda self: NORMS["in"](self.num_features).formula()})
    yield register_norm(NormSpec("plain", "a plain norm", layer))
    del NORMS._known["plain"]


def test_a_users_norm_joins_the_others(plain):
    assert "plain" in NORMS and list(NORMS)[-1] == "plain" and len(NORMS) == 11
    model = convert(torchvision.models.resnet18(num_classes=2), "plain")
    assert {type(m) for m in normshift.norm_layers(model).values()} == {plain.layer}
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 2) and plain.layer.norm_name == "plain"
    again = register_norm(NormSpec("plain", "the same from a notebook's cell", plain.layer))
    assert NORMS["plain"] is again


@pytest.mark.parametrize("name", ["bn", "plain"])
def test_a_name_that_is_taken_is_refused(name, plain):
    other = type("OtherNorm", (AffineNorm,), {"__module__": "elsewhere"})
    with pytest.raises(ValueError, match=f"there is a norm '{name}' already, .*: give yours another name"):
        register_norm(NormSpec(name, "another", other))


@pytest.mark.parametrize("name", ["sn", "mine"])
def test_a_name_is_taken_also_where_both_norms_have_layers_of_one_module(name):
    code = "from normshift.registry import NormSpec, register_norm\n"
    code += "register_norm(NormSpec(name, 'mine', 'normshift.layers:SwitchNorm{dims}d'))"
    try:
        if name == "mine":
            exec(code, {"__name__": "plugin_one", "name": name})
        before = NORMS[name]
        with pytest.raises(ValueError, match=f"there is a norm '{name}' already"):
            exec(code, {"__name__": "plugin_two", "name": name})
        assert NORMS[name] is before
    finally:
        NORMS._known.pop("mine", None)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"colour": "greenish"}, "a colour is written as '#117733'; got 'greenish'"),
        ({"dash": "wavy"}, "dash is one of solid dashed dotted dash-dot; got 'wavy'"),
        ({"marker": "Q"}, "marker is one of .*; got 'Q'"),
        ({"placement": "ibn-c"}, "placement is one of everywhere ibn-a ibn-b; got 'ibn-c'"),
        ({"dims": ()}, r"dims are some of 1, 2 and 3; got \(\)"),
        ({"layer": None}, "layer makes a layer, or is 'module:name'; got None"),
        ({"layer": "torch.nn"}, "layer makes a layer, or is 'module:name'; got 'torch.nn'"),
    ],
)
def test_a_spec_that_would_fail_at_the_end_of_a_training_is_refused_at_once(wrong, said):
    with pytest.raises(ValueError, match=f"norm 'odd': {said}"):
        NormSpec(**{"name": "odd", "what": "odd", "layer": AffineNorm} | wrong)


@pytest.mark.parametrize("ends", [("in",), "in", ("in", None), ("a", "b", "c")])
def test_a_gate_has_two_ends(ends):
    with pytest.raises(ValueError, match="gate 'g': ends are two names"):
        normshift.GateSpec("g", ends=ends)


def test_a_gate_is_a_parameter_and_not_a_tensor_made_of_one():
    class Wrong(AffineNorm):
        def gates(self):
            return [normshift.GateParameter("odd", self.weight.sigmoid())]

    for read in (gates, lambda net: normshift.parameter_groups(net, 0.1, 0.0)):
        with pytest.raises(ValueError, match=r"gate 'odd' is no nn\.Parameter: announce the parameter itself"):
            read(Wrong(3))


def test_what_reads_a_gate_keeps_its_shape():
    class Wrong(AffineNorm):
        def gates(self):
            sure = normshift.GateParameter("sure", self.bias)
            return [sure, normshift.GateParameter("odd", self.weight, read=lambda values: values.mean(1))]

    with pytest.raises(ValueError, match=r"gate 'odd': .* given \(1, 3\), it returned \(1,\)"):
        gates(Wrong(3))


def test_labels_must_fit_their_gate():
    class Wrong(AffineNorm):
        def gates(self):
            return [normshift.GateParameter("odd", self.weight, labels=("a", "b"))]

    with pytest.raises(ValueError, match="gate 'odd' has 3 values and 2 labels"):
        gates(Wrong(3))
