"""Compares a backend's passes with their formulas in float64, for any layout and type of activation."""

import torch


def rows(x):
    """Channels-last, for any number of axes."""
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def agree(kernels, dy, x, *, centred=True, slack=1):
    """All four passes.

    Args:
        centred: whether they take the mean off x before they scale it.
        slack: how many times more they may be off than by a rounding or ten: for long sums taken one by one.
    """
    mean = agree_on_moments(kernels, x, slack)
    wide, dy_wide, (a, b, c) = _wide(x), _wide(dy), _vectors(x, 3)
    apart = wide - mean.double()[..., None]
    held = (
        apart.abs() if centred else wide.abs() + mean.double().abs()[..., None]
    )  # what is scaled in the statistics' type
    scale, slope, shift = a[..., None], b[..., None], c[..., None]

    y = kernels.scale_shift(x, mean, a, c)
    _agree_on_activation(y, x, scale * apart + shift, scale.abs() * held + shift.abs(), slack)

    for found, term in zip(kernels.reductions(dy, x, mean), (dy_wide, dy_wide * apart), strict=True):
        assert found.dtype == mean.dtype and found.is_contiguous()
        error = (found.double() - term.sum(-1)).abs()
        assert (error <= 9 * slack * torch.finfo(mean.dtype).eps * term.abs().sum(-1) + 1e-30).all()

    dx = kernels.input_gradient(dy, x, mean, a, b, c)
    magnitude = (scale * dy_wide).abs() + slope.abs() * held + shift.abs()
    _agree_on_activation(dx, x, scale * dy_wide + slope * apart + shift, magnitude, slack)


def agree_on_moments(kernels, x, slack=1):
    mean, var = kernels.moments(x)
    expected_var, expected_mean = torch.var_mean(_wide(x), -1, correction=0)
    assert mean.dtype == var.dtype == _statistics_type(x) and mean.is_contiguous() and var.is_contiguous()
    unit = slack * torch.finfo(mean.dtype).eps
    torch.testing.assert_close(mean.double(), expected_mean, rtol=unit, atol=8 * unit)
    torch.testing.assert_close(var.double(), expected_var, rtol=17 * unit, atol=0)
    return mean


def _agree_on_activation(found, x, expected, magnitude, slack):
    """Rounded once to x's type, after arithmetic on terms of that magnitude."""
    assert (found.dtype, found.shape, found.stride()) == (x.dtype, x.shape, torch.empty_like(x).stride())
    error, unit = (_wide(found) - expected).abs(), slack * torch.finfo(_statistics_type(x)).eps
    assert (error <= torch.finfo(x.dtype).eps * expected.abs() + 4.5 * unit * magnitude + unit).all()


def _statistics_type(x):
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _wide(x):
    return x.double().reshape(*x.shape[:2], -1)


def _vectors(x, count):
    return torch.randn(count, *x.shape[:2], device=x.device, dtype=_statistics_type(x)).unbind()
