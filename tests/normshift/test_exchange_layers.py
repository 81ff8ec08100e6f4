"""Everything that belongs to a layer is carried over when it is replaced; otherwise an error, and no change."""

import copy
import gc
from inspect import signature

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize, prune

from normshift import BatchInstanceNorm2d, IBN2d, SwitchNorm2d, antialias, convert, norm_layers, synchronize
from normshift.layers import BatchNorm
from tests.normshift.exchanging import (
    KEEPING,
    TRAINING,
    WithReLU,
    close,
    converting,
    maps,
    randomize,
    refused,
    same_function,
    stepped,
)

# Its settings

SETTINGS = {
    "eps": {"eps": 0.1},
    "momentum": {"momentum": 0.3},
    "no momentum": {"momentum": 0.0},
    "cumulative": {"momentum": None},
    "without affine": {"affine": False},
    **({"without bias": {"bias": False}} if "bias" in signature(nn.BatchNorm2d).parameters else {}),  # newer torch's
    "without averages": {"track_running_stats": False},
    "bare": {"affine": False, "track_running_stats": False},
}
LAYERS = {1: (nn.BatchNorm1d, (6, 8)), 2: (nn.BatchNorm2d, (4, 8, 3, 3)), 3: (nn.BatchNorm3d, (3, 8, 2, 3, 2))}


@pytest.mark.parametrize("how", KEEPING)
@pytest.mark.parametrize("options", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("dims", LAYERS)
def test_settings_stay(dims, options, how):
    kind, shape = LAYERS[dims]
    model = randomize(nn.Sequential(kind(8, **options)))
    same_function(model, how, maps(*shape))
    if how != "fold":
        exchanged = KEEPING[how](copy.deepcopy(model))
        other = {"0.rho", "0.num_batches_tracked"}  # gates; counted without being saved, where no mean needs the count
        assert set(model.state_dict()) ^ set(exchanged.state_dict()) <= other


def test_averages_that_are_no_longer_kept_stay_where_they_are():
    model, x = randomize(nn.Sequential(nn.BatchNorm2d(8))), maps()
    model[0].track_running_stats = False
    for how in TRAINING:
        same_function(model, how, x)


@pytest.mark.parametrize("how", ["synchronize", "bin", "bin and back"])
def test_a_cumulative_mean_goes_on_where_it_was(how):
    model = nn.Sequential(nn.BatchNorm2d(8, momentum=None))
    batches = [maps() + i for i in range(5)]
    for x in batches[:3]:
        model(x)
    exchanged = KEEPING[how](copy.deepcopy(model))
    for x in batches[3:]:
        model(x), exchanged(x)
    close(exchanged[0].running_mean, torch.stack([x.mean((0, 2, 3)) for x in batches]).mean(0))
    close(exchanged[0].running_var, model[0].running_var)


def test_an_ibn_layer_of_a_cumulative_norm_is_cumulative():
    model = convert(nn.Sequential(nn.BatchNorm2d(8, momentum=None)), "ibn-a", where="0")
    batches = [maps() + i for i in range(3)]
    for x in batches:
        model(x)
    close(model[0].BN.running_mean, torch.stack([x.mean((0, 2, 3)) for x in batches]).mean(0)[4:])


def test_every_tensor_keeps_its_type():
    layer = nn.BatchNorm2d(8)
    layer.weight.data, layer.bias.data = layer.weight.data.bfloat16(), layer.bias.data.bfloat16()
    for norm in ("bin", "sn"):
        new = convert(nn.Sequential(copy.deepcopy(layer)), norm)[0]
        types = {key: value.dtype for key, value in new.state_dict().items()}
        assert types["weight"] == types["bias"] == torch.bfloat16
        assert types["running_mean"] == types["running_var"] == torch.float32


def test_modes_and_flags_are_those_of_each_part():
    model = nn.Sequential(nn.BatchNorm2d(8), timm.layers.BatchNormAct2d(8, drop_layer=nn.Dropout2d), nn.BatchNorm2d(8))
    model[0].eval()
    model[1].drop.eval()
    model[2].bias.requires_grad_(False)
    for exchange in (synchronize, converting("sn"), converting("bn"), converting("ibn-a", where="*")):
        new = exchange(copy.deepcopy(model))
        assert [layer.training for layer in new] == [False, True, True]
        assert [new[1].drop.training, new[1].act.training] == [False, True]
        flags = {key: p.requires_grad for key, p in new[2].named_parameters()}
        assert all(flag == (not key.endswith("bias")) for key, flag in flags.items())


def test_a_half_in_evaluation_makes_a_norm_in_evaluation():
    model = nn.Sequential(IBN2d(8))
    model[0].BN.eval()
    assert model.training and not convert(model, "bn")[0].training


def test_switch_norms_keep_their_correction():
    assert convert(nn.Sequential(SwitchNorm2d(8, correction=1)), "sn-in-ln")[0].correction == 1


def test_an_instance_norm_that_evaluates_with_averages_stays_one():
    model, x = randomize(nn.Sequential(nn.InstanceNorm2d(8, affine=True, track_running_stats=True))).eval(), maps()
    close(convert(copy.deepcopy(model), "in")(x), model(x))
    close(convert(copy.deepcopy(model), "bn")(x), model(x))


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_an_instance_norm_stays_one(affine, training):
    model, x = randomize(nn.Sequential(nn.InstanceNorm2d(8, affine=affine))).train(training), maps()
    exchanged = convert(copy.deepcopy(model), "in")
    close(exchanged(x), model(x))
    assert list(exchanged.state_dict()) == list(model.state_dict())


def test_synchronised_norms_stay_synchronised():
    for norm in ("bn", "sn", "bin"):
        for order in (lambda m, n=norm: convert(synchronize(m), n), lambda m, n=norm: synchronize(convert(m, n))):
            model = order(nn.Sequential(nn.BatchNorm2d(8)))
            assert model[0].sync and type(model[0]) in (BatchNorm, SwitchNorm2d, BatchInstanceNorm2d)
        assert convert(synchronize(convert(nn.Sequential(nn.BatchNorm2d(8)), "sn")), norm)[0].sync


def test_a_process_group_of_its_own_is_refused():
    model = nn.Sequential(nn.SyncBatchNorm(8, process_group=object()))
    refused(model, converting("bin"), "'0' synchronises over its own process group")
    assert convert(model, "syncbn")[0] is model[0] and isinstance(convert(model, "gn")[0], nn.GroupNorm)


# What hangs on it


@pytest.mark.parametrize("norm", ["synchronize", "bn", "bin", "gn", "syncbn"])
@pytest.mark.parametrize("make", [lambda: timm.layers.BatchNormAct2d(8), lambda: WithReLU(8)], ids=["timm's", "own"])
def test_hooks_stay_in_their_order_and_behind_what_is_fused(make, norm):
    model, seen, x = nn.Sequential(make()).eval(), [], maps()
    handle = model[0].register_forward_hook(lambda module, inputs, y: seen.append(("first", y.min().item())))
    model[0].register_forward_hook(lambda module, inputs, y: y + 1)
    model[0].register_forward_pre_hook(lambda module, inputs: seen.append(("before", inputs[0] is x)))
    model[0].register_forward_hook(lambda module, args, kwargs, y: seen.append(("kwargs", kwargs)), with_kwargs=True)
    expected = model(x)
    seen.clear()
    old = model[0]
    new = synchronize(model) if norm == "synchronize" else convert(model, norm)
    if norm != "gn":
        close(new(x), expected)
    assert new(x).min() == 1
    seen.clear()
    new(x)
    assert seen == [("before", True), ("first", 0.0), ("kwargs", {})]
    old.eval()(x)  # the old layer still is itself
    assert len(seen) == 6 or old is new[0]
    handle.remove()
    seen.clear()
    new(x)
    assert [name for name, _ in seen] == ["before", "kwargs"]


def test_fused_activations_run_once_however_often_a_layer_is_exchanged():
    model, x = randomize(nn.Sequential(timm.layers.BatchNormAct2d(8, act_layer=nn.Tanh))).eval(), maps()
    expected = model(x)
    for norm in ("bin", "bn", "sn", "syncbn", "bin", "bn"):
        model = synchronize(convert(model, norm))
        if norm != "sn":
            close(model.eval()(x), expected)


def test_backward_hooks_stay():
    model, seen = nn.Sequential(nn.BatchNorm2d(8)), []
    model[0].register_full_backward_hook(lambda module, dx, dy: seen.append(type(module).__name__))
    model[0].register_full_backward_pre_hook(lambda module, dy: seen.append("before"))
    convert(model, "bin")(maps().requires_grad_()).sum().backward()
    assert seen == ["before", "BatchInstanceNorm2d"]


def test_state_dict_hooks_stay():
    model, seen = nn.Sequential(nn.BatchNorm2d(8)), []
    old = model[0]
    old.register_state_dict_post_hook(lambda module, state, prefix, _: seen.append(("saved", module, prefix)))
    old.register_state_dict_pre_hook(lambda module, *_: seen.append(("saving", module)))
    old.register_load_state_dict_pre_hook(lambda module, *_: seen.append(("loading", module)))
    old.register_load_state_dict_post_hook(lambda module, _: seen.append(("loaded", module)))
    synchronize(model)
    del old
    gc.collect()
    model.load_state_dict(model.state_dict())
    assert [what for what, *_ in seen] == ["saving", "saved", "loading", "loaded"]
    assert {id(module) for _, module, *_ in seen} == {id(model[0])}


def test_parameters_stay_the_same_objects():
    model, seen = nn.Sequential(nn.BatchNorm2d(8), nn.BatchNorm2d(8)), []
    model[1].weight = model[0].weight
    weight = model[0].weight
    weight.register_hook(seen.append)
    weight.grad, weight.kept = torch.ones(8), "note"
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for norm in ("bin", "sn", "gn", "ln", "in", "bn"):
        model = convert(model, norm)
        assert model[0].weight is weight is model[1].weight and weight.grad is not None and weight.kept == "note"
    model(maps()).square().sum().backward()
    assert len(seen) == 1
    optimizer.step()
    assert not torch.equal(model[1].weight, torch.ones(8))


def test_attributes_parameters_and_buffers_of_somebody_else_stay():
    layer = nn.BatchNorm2d(8)
    layer.note, layer.extra = {"stage": 3}, nn.Parameter(torch.ones(2))
    layer.register_buffer("kept", torch.ones(3))
    layer.register_buffer("passing", torch.ones(4), persistent=False)
    layer.head = nn.Linear(2, 2)
    model = nn.Sequential(layer)
    for norm in ("bin", "gn", "ibn-a", "bn"):
        model = synchronize(convert(model, norm, where="0"))
        new = model[0]
        assert new.note == {"stage": 3} and new.extra is layer.extra and new.head is layer.head
        assert new.kept is layer.kept and new.passing is layer.passing
        assert "0.kept" in model.state_dict() and "0.passing" not in model.state_dict()
        close(model(maps()).mean(), torch.tensor(0.0))  # the linear layer does not run


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


def parametrized():
    layer = nn.BatchNorm2d(8)
    parametrize.register_parametrization(layer, "weight", Doubled())
    return layer


@pytest.mark.parametrize("how", ["synchronize", "bin", "syncbn"])
@pytest.mark.parametrize(
    "make", [parametrized, lambda: prune.random_unstructured(nn.BatchNorm2d(8), "weight", 0.5)], ids=["made", "pruned"]
)
def test_a_weight_that_is_computed_anew_is_refused(make, how):
    refused(nn.Sequential(nn.BatchNorm2d(8), make()), KEEPING[how], "the weight of '1', a .*, is computed anew in each")


def test_split_parameters_are_copies_with_all_that_they_had():
    layer = randomize(nn.BatchNorm2d(8))
    layer.weight.grad, layer.weight.kept = torch.arange(8.0), "note"
    layer.bias.requires_grad_(False)
    new = convert(nn.Sequential(layer), "ibn-a", where="0")[0]
    assert new.IN.weight.grad.tolist() == [0, 1, 2, 3] and new.BN.weight.grad.tolist() == [4, 5, 6, 7]
    assert new.IN.weight.kept == "note" and not new.IN.bias.requires_grad and not new.BN.bias.requires_grad
    back = convert(nn.Sequential(new), "bn")[0]
    assert torch.equal(back.weight, layer.weight) and torch.equal(back.weight.grad, layer.weight.grad)
    assert not back.bias.requires_grad


def listened():
    layer = nn.BatchNorm2d(8)
    layer.weight.register_hook(lambda grad: grad)
    return layer


def half_frozen():
    layer = IBN2d(8)
    layer.IN.weight.requires_grad_(False)
    return layer


def half_hooked():
    layer = IBN2d(8)
    layer.BN.register_forward_hook(lambda *_: None)
    return layer


@pytest.mark.parametrize(
    ("make", "norm", "match"),
    [
        (listened, "ibn-a", "'1'.weight has gradient hooks"),
        (half_frozen, "bn", "'1': the weight of one half is trained and that of the other is not"),
        (half_hooked, "bn", "a half of '1' has hooks"),
    ],
    ids=["listened", "half-frozen", "half-hooked"],
)
def test_what_halves_cannot_keep_is_refused(make, norm, match):
    refused(nn.Sequential(nn.GroupNorm(2, 8), make()), converting(norm, where="*"), match)


# What it shares, and where it stands


class Twice(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.first, self.second = layer, nn.ModuleDict({"again": layer})

    def forward(self, x):
        return self.second["again"](self.first(x).relu())


@pytest.mark.parametrize("where", [None, "first", "second.*"])
def test_a_layer_under_two_names_stays_one_layer(where):
    model, x = randomize(Twice(nn.BatchNorm2d(8))), maps()
    expected = stepped(model, x)
    model = convert(model, "bin", where=where)
    assert model.first is model.second["again"]
    close(stepped(model, x)[0], expected[0])


def test_a_shared_weight_is_not_split():
    model = nn.Sequential(nn.BatchNorm2d(8), nn.BatchNorm2d(8))
    model[1].weight = model[0].weight
    refused(model, converting("ibn-a", where="0"), "the weight of '0' is shared with '1'")


class Listing(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.more = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.order = {"steps": [self.conv, self.bn]}

    def forward(self, x):
        for step in self.order["steps"]:
            x = step(x)
        return self.more(x)


def test_a_layer_that_a_list_holds_is_refused():
    for exchange in (synchronize, converting("sn")):
        refused(Listing(), exchange, "'bn' is also held in 'order' of 'the network'")
    assert isinstance(convert(Listing(), "sn", where="more").more, SwitchNorm2d)


class ByHand(nn.Module):
    def __init__(self):
        super().__init__()
        self.other, self.bn = nn.BatchNorm2d(8), nn.BatchNorm2d(8)

    def forward(self, x):
        return self.normalised(self.other(x))

    def normalised(self, x):
        return F.batch_norm(x, self.bn.running_mean, self.bn.running_var, self.bn.weight, self.bn.bias, self.training)


def test_a_layer_whose_numbers_are_used_by_hand_is_refused():
    for exchange in (synchronize, converting("sn")):
        refused(ByHand(), exchange, "the forward of 'the network', a ByHand, normalises by hand with .* 'other'|'bn'")


class Named(nn.Module):
    """Called as functions and attributes elsewhere are."""

    def __init__(self):
        super().__init__()
        self.batch_norm = nn.BatchNorm2d(8)

    def forward(self, x):
        return self.group_norm(x)

    def group_norm(self, x):
        return self.batch_norm(x)


def test_names_alone_are_no_reason_to_refuse():
    same_function(randomize(Named()), "bin", maps())


def test_a_layer_that_is_compiled_by_itself_is_refused():
    model = nn.Sequential(nn.BatchNorm2d(8), torch.compile(nn.BatchNorm2d(8), backend="eager"))
    refused(model, synchronize, "'1._orig_mod' is compiled, and the compiled code")
    refused(model[1], converting("bin"), "'_orig_mod' is compiled, and the compiled code")


def test_quantising_layers_are_refused():
    fused = torch.ao.nn.intrinsic.qat.ConvBn2d(3, 8, 1, qconfig=torch.ao.quantization.get_default_qat_qconfig("fbgemm"))
    refused(nn.Sequential(nn.BatchNorm2d(3), fused), converting("sn"), "normalises by hand with the numbers of '1.bn'")
    quantized = nn.Sequential(nn.BatchNorm2d(8), torch.ao.nn.quantized.BatchNorm2d(8))
    refused(quantized, converting("sn"), "'1', a BatchNorm2d, has a forward of its own")


def test_scripted_layers_are_refused():
    model = nn.Sequential(nn.BatchNorm2d(3), torch.jit.script(nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8))))
    refused(model, converting("sn"), "convert cannot change '1.1', a BatchNorm2d in TorchScript")
    refused(model, synchronize, "synchronize cannot change '1.1', a BatchNorm2d in TorchScript")
    refused(model, antialias, "antialias cannot change '1.0', a Conv2d in TorchScript")


def test_lazy_layers_are_refused_before_any_other_is_exchanged():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 8, 1), nn.LazyBatchNorm2d())
    for exchange in (synchronize, converting("sn")):
        refused(model, exchange, "'2' has no channels yet")
    model(maps(4, 3, 5, 5))
    same_function(model, "bin", maps(4, 3, 5, 5))


def test_wrong_dimensions_are_refused_before_any_layer_is_exchanged():
    refused(nn.Sequential(nn.BatchNorm2d(8), nn.BatchNorm3d(8)), converting("ibn-a", where="*"), "not for 3d")


def test_layers_that_take_any_dimensions_are_succeeded_by_such():
    for norm in ("sn", "bin", "in", "bn", "gn"):
        for conv, shape in ((nn.Conv1d, (4, 3, 6)), (nn.Conv3d, (4, 3, 2, 3, 2))):
            model = nn.Sequential(conv(3, 8, 1), nn.GroupNorm(2, 8))
            assert convert(model, norm)(maps(*shape)).shape == (4, 8, *shape[2:])
    mixed = convert(nn.Sequential(nn.Conv2d(3, 8, 1), nn.GroupNorm(2, 8), nn.Flatten(2), nn.Conv1d(8, 8, 1)), "sn")
    mixed.add_module("last", convert(nn.GroupNorm(2, 8), "bin"))
    assert mixed(maps(4, 3, 5, 5)).shape == (4, 8, 25)


@pytest.mark.parametrize("kind", [nn.Sequential, type("Named", (nn.Sequential,), {})])
def test_containers_of_all_kinds(kind):
    model = randomize(kind(nn.ModuleDict({"a": nn.ModuleList([nn.BatchNorm2d(8)])}), nn.BatchNorm2d(8)))
    x = maps()
    model.forward = lambda x: model[1](model[0]["a"][0](x))
    expected = model.eval()(x)
    close(convert(model, "bin")(x), expected)
    assert all(isinstance(layer, BatchInstanceNorm2d) for layer in norm_layers(model).values())


class Normalising(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(8)

    def forward(self, weight):
        return self.norm(weight.flatten(1).T).T.reshape(weight.shape)


def test_graph_modules():
    model, x = randomize(nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8))), maps(4, 3, 5, 5)
    for how in ("synchronize", "bin", "fold"):
        same_function(torch.fx.symbolic_trace(model.eval()), how, x)


def test_a_norm_inside_a_parametrization():
    model, x = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8)), maps(4, 3, 5, 5)
    parametrize.register_parametrization(model[0], "weight", Normalising())
    expected = model.eval()(x)
    for exchange in (synchronize, converting("bin")):
        model = exchange(model)
        close(model(x), expected)
        assert not any(isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)) for layer in norm_layers(model).values())


def test_compiled_networks_see_the_exchange():
    model, x = randomize(nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8))).eval(), maps(4, 3, 5, 5)
    compiled = torch.compile(model, backend="eager")
    expected = compiled(x)
    close(convert(compiled, "bin")(x), expected)
    with torch.no_grad():
        model[1].rho.zero_()
    close(compiled(x), model(x))
    assert (compiled(x) - expected).abs().max() > 0.1


def test_a_copy_leaves_the_original_with_all_that_hangs_on_it():
    model, seen, x = nn.Sequential(timm.layers.BatchNormAct2d(8)).eval(), [], maps()
    model[0].register_forward_hook(lambda *_: seen.append(True))
    before, expected = dict(model.named_modules()), model(x)
    other = convert(model, "bin", inplace=False)
    assert all(module is before[name] for name, module in model.named_modules())
    assert torch.equal(model(x), expected) and len(seen) == 2
    close(other(x), expected)
    assert len(seen) == 3 and other[0].weight is not model[0].weight
