"""Networks in torch's compiler, exporter and function transforms, compared with eager mode."""

import copy

import pytest
import torch
import torchvision
from torch import nn
from torch.func import functional_call, grad, vmap

from normshift import BatchInstanceNorm2d, IBN2d, SwitchNorm2d, convert
from tests.normshift.agreement import close, run
from tests.normshift.written_out import randomize


@pytest.fixture(autouse=True)
def nothing_compiled_before():
    torch._dynamo.reset()


def resnet50(norm):
    return convert(torchvision.models.resnet50(num_classes=5), norm)


def step(model, run, x):
    """A training step: loss, gradients and running averages."""
    loss = nn.functional.cross_entropy(run(x), torch.tensor([1, 3]))
    loss.backward()
    return loss.detach(), {n: p.grad for n, p in model.named_parameters()}, dict(model.named_buffers())


@pytest.mark.parametrize("norm", [pytest.param("sn", marks=pytest.mark.slow), "bin", "ibn-a"])
def test_a_compiled_network_trains_as_it_does_without(norm):
    model, x = resnet50(norm), torch.randn(2, 3, 64, 64)
    twin = copy.deepcopy(model)
    loss, gradients, buffers = step(model, model, x)
    again, found, running = step(twin, torch.compile(twin, fullgraph=True, backend="aot_eager"), x)
    close(again, loss, 1e-3)
    for name, buffer in buffers.items():
        close(running[name], buffer, 1e-2)
    together, together_found = (torch.cat([g.flatten() for g in of.values()]) for of in (gradients, found))
    assert found.keys() == gradients.keys()
    assert nn.functional.cosine_similarity(together, together_found, dim=0) > 0.999  # fifty norms amplify roundings


@pytest.mark.parametrize("norm", ["sn", "bin", "ibn-a"])
def test_an_exported_network_takes_any_batch(norm):
    model = resnet50(norm)
    with torch.no_grad():
        model(torch.randn(4, 3, 64, 64))  # averages that are some
    model.eval()
    program = torch.export.export(
        model, (torch.randn(2, 3, 64, 64),), dynamic_shapes=({0: torch.export.Dim("batch")},)
    ).module()
    with torch.no_grad():
        for images in (1, 5):
            x = torch.randn(images, 3, 64, 64)
            close(program(x), model(x), 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("make", [SwitchNorm2d, BatchInstanceNorm2d, IBN2d])
def test_inductors_layer_is_the_layer(make):
    layer, x, seed = randomize(make(6)), torch.randn(3, 6, 9, 7), torch.randn(3, 6, 9, 7)
    twin = copy.deepcopy(layer)
    y, gradients = run(layer, x, seed)
    compiled = torch.compile(twin, fullgraph=True)
    x = x.requires_grad_()
    found = compiled(x)
    found.backward(seed)
    close(found, y, 1e-5)
    close(x.grad, gradients["x"], 1e-4)
    for name, p in twin.named_parameters():
        close(p.grad, gradients[name], 1e-4)
    for name, buffer in layer.named_buffers():
        torch.testing.assert_close(dict(twin.named_buffers())[name], buffer)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("make", [SwitchNorm2d, BatchInstanceNorm2d, IBN2d])
def test_function_transforms(make, training):
    """Gradients by `torch.func`, in evaluation those of each image, too."""
    layer, x = randomize(make(4)).train(training), torch.randn(5, 4, 6, 7)
    parameters, buffers = (
        {n: v.detach().clone() for n, v in of} for of in (layer.named_parameters(), layer.named_buffers())
    )

    def loss(parameters, buffers, x):
        return functional_call(layer, (parameters, buffers), (x,)).square().sum()

    found = grad(loss)(parameters, buffers, x)
    if not training:
        each = vmap(grad(loss), (None, None, 0))(parameters, buffers, x.unsqueeze(1))
    layer(x).square().sum().backward()
    for name, p in layer.named_parameters():
        close(found[name], p.grad, 1e-4)
        if not training:
            close(each[name].sum(0), p.grad, 1e-4)


def test_a_compiled_layer_takes_rho_as_clamped():
    layer, x = randomize(BatchInstanceNorm2d(4)).eval(), torch.randn(2, 4, 5, 5)
    state = {name: value.clone() for name, value in layer.state_dict().items()}
    state["rho"] = torch.tensor([-1.0, 0.3, 1.0, 2.0])
    layer.load_state_dict(state)
    found = torch.compile(layer, backend="eager", fullgraph=True)(x)
    close(found, layer(x), 1e-6)


@pytest.mark.filterwarnings("ignore:.*deprecated", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("make", [SwitchNorm2d, BatchInstanceNorm2d, IBN2d])
def test_traces(make, tmp_path):
    """Deprecated by torch, but TensorBoard's graphs and some deployments still use it."""
    layer, x = randomize(make(4)).eval(), torch.randn(2, 4, 5, 5)
    torch.jit.save(torch.jit.trace(layer, x), tmp_path / "traced.pt")
    other = torch.randn(3, 4, 5, 5)
    close(torch.jit.load(tmp_path / "traced.pt")(other), layer(other), 1e-5)
