"""Exchanges of norms, and what tests of them compare."""

import copy

import pytest
import torch
from torch import nn

from normshift import convert, fold, synchronize

KEEPING = {  # exchanges that leave batch norm what it is
    "synchronize": synchronize,
    "bin": lambda model: convert(model, "bin"),
    "sn and back": lambda model: convert(convert(model, "sn"), "bn"),
    "bin and back": lambda model: convert(convert(model, "bin"), "bn"),
    "bn": lambda model: convert(model, "bn"),
    "syncbn": lambda model: convert(model, "syncbn"),
    "synchronize, bin": lambda model: convert(synchronize(model), "bin"),
    "bin, synchronize": lambda model: synchronize(convert(model, "bin")),
    "fold": lambda model: fold(model)[0],
}
TRAINING = [how for how in KEEPING if how not in ("syncbn", "fold")]  # torch's SyncBatchNorm trains on GPUs only


def randomize(model):
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            if value.is_floating_point():
                value.uniform_(0.5, 1.5)
    return model


def maps(*shape):
    return torch.randn(*shape or (4, 8, 5, 5)) * 2 + 1


def stepped(model, x):
    """Output, gradients and running averages of a step in training, and the output in evaluation behind it."""
    model = copy.deepcopy(model).train()
    x = x.clone().requires_grad_()
    torch.manual_seed(1)
    y = model(x)
    y.square().sum().backward()
    averages = {k: v.clone() for k, v in model.state_dict().items() if "running" in k}
    weights = {k: p.grad for k, p in model.named_parameters() if "rho" not in k}
    return [y, x.grad, averages, {k: v for k, v in weights.items() if v is not None}, model.eval()(x.detach())]


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def same_function(model, how, x):
    """In evaluation and, but for what cannot train here, in training; in float64, where rounding hides nothing."""
    model, x = model.double().eval(), x.double()
    close(KEEPING[how](copy.deepcopy(model))(x), model(x))
    if how in TRAINING:
        close(stepped(KEEPING[how](copy.deepcopy(model)), x), stepped(model, x))


def refused(model, exchange, match):
    """The exchange raises an error, and the model has the same objects as before."""
    modules, tensors = dict(model.named_modules()), [*model.parameters(), *model.buffers()]
    hooks = {name: len(m._forward_hooks) for name, m in modules.items()}
    with pytest.raises(ValueError, match=match) as error:
        exchange(model)
    assert "\n" not in str(error.value)
    after = dict(model.named_modules())
    assert list(after) == list(modules) and all(after[name] is m for name, m in modules.items())
    assert list(map(id, [*model.parameters(), *model.buffers()])) == list(map(id, tensors))
    assert hooks == {name: len(m._forward_hooks) for name, m in modules.items()}


def converting(norm, **options):
    return lambda model: convert(model, norm, **options)


class WithReLU(nn.BatchNorm2d):
    def forward(self, x):
        return torch.relu(super().forward(x))
