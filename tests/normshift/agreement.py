"""Compares layers with their formulas in float64, relative to the largest element."""

import torch

from tests.normshift.written_out import state_of, written_out


def close(actual, expected, tolerance):
    """Assert that the difference is within `tolerance` of the largest element."""
    assert actual.shape == expected.shape
    scale = expected.double().abs().max().clamp_min(1e-12)
    error = (actual.double() - expected.double()).abs().max()
    assert error <= tolerance * scale, f"off by {error.item():.3g} where the largest element is {scale.item():.3g}"


def run(layer, x, seed):
    """Output of a layer, and gradients with respect to "x" and every parameter."""
    x = x.detach().requires_grad_()
    y = layer(x)
    y.backward(seed.to(y.dtype))
    return y.detach(), {"x": x.grad} | {name: p.grad for name, p in layer.named_parameters()}


def run_written_out(layer, x, seed):
    """The same from the formula in float64; call it before the layer updates its running averages."""
    x, state = x.detach().double().requires_grad_(), state_of(layer)
    y = written_out(layer, x, state)
    wanted = {"x": x} | {name: state[name] for name, _ in layer.named_parameters()}
    gradients = torch.autograd.grad(y, list(wanted.values()), seed.double(), allow_unused=True, materialize_grads=True)
    return y.detach(), dict(zip(wanted, gradients, strict=True))


def agrees(layer, x, tolerance, *, gates=True):
    seed = torch.randn(x.shape, dtype=torch.float64).to(x.dtype)
    expected, expected_gradients = run_written_out(layer, x, seed)
    actual, gradients = run(layer, x, seed)
    close(actual, expected, tolerance)
    floor = max(g.abs().max().item() for g in expected_gradients.values())
    for name, gradient in expected_gradients.items():
        if name in ("mean_weight", "var_weight", "rho") and not gates:
            continue
        if gradient.abs().max() > 1e-6 * floor:
            close(gradients[name], gradient, tolerance)
        elif gradients[name] is not None:  # rounding is all there is
            assert gradients[name].double().abs().max() <= 1e-3 * floor
