"""BlurPool against a convolution written out in float64, at its edges, and in all the ways torch runs a layer."""

import copy

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from normshift import BlurPool2d
from normshift.blur_pool import MaxBlurPool2d

PASCAL = {
    1: [1],
    2: [1, 1],
    3: [1, 2, 1],
    4: [1, 3, 3, 1],
    5: [1, 4, 6, 4, 1],
    6: [1, 5, 10, 10, 5, 1],
    7: [1, 6, 15, 20, 15, 6, 1],
}
SIZES = [(7, 7), (8, 8), (9, 12), (16, 5), (5, 4)]
TOO_SMALL = [(1, 1), (2, 2), (3, 3), (1, 9), (2, 9), (9, 1)]


def written_out(x, size, stride, mode):
    """Zhang 2019, section 3.2, in float64: pad, correlate with the filter of sum 1, keep every stride-th."""
    row = np.array(PASCAL[size]) / sum(PASCAL[size])
    before, after = (size - 1) // 2, size // 2
    y = np.pad(x.double().numpy(), ((0, 0), (0, 0), (before, after), (before, after)), mode=mode)
    for axis in (2, 3):
        # scipy centres an even filter at its element size // 2; the window of the first output starts at 0
        y = correlate1d(y, row, axis=axis, mode="constant")
        y = y.take(range(size // 2, y.shape[axis] - (size - 1 - size // 2)), axis=axis)
    return torch.from_numpy(y[:, :, :: stride[0], :: stride[1]].copy())


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("stride", [1, 2, 3, (2, 1)])
@pytest.mark.parametrize("size", PASCAL)
def test_it_is_a_strided_convolution_of_the_reflected_map(size, stride, shape):
    x, pair = torch.randn(2, 3, *shape), (stride, stride) if isinstance(stride, int) else stride
    y = BlurPool2d(3, size, stride)(x)
    torch.testing.assert_close(y.double(), written_out(x, size, pair, "reflect"), rtol=0, atol=1e-6)
    assert y.shape[2:] == tuple((n - 1) // s + 1 for n, s in zip(shape, pair, strict=True))


@pytest.mark.parametrize("shape", TOO_SMALL)
@pytest.mark.parametrize("size", PASCAL)
def test_a_map_too_small_to_reflect_repeats_its_border(size, shape):
    x = torch.randn(2, 3, *shape)
    mode = "reflect" if size // 2 < min(shape) else "edge"
    torch.testing.assert_close(
        BlurPool2d(3, size)(x).double(), written_out(x, size, (2, 2), mode), rtol=0, atol=1e-6
    )  # fmt: skip


@pytest.mark.parametrize("size", PASCAL)
def test_a_constant_map_stays_constant_to_the_border(size):
    assert torch.equal(BlurPool2d(2, size)(torch.ones(1, 2, 9, 6)), torch.ones(1, 2, 5, 3))


def test_size_1_is_plain_subsampling_without_a_copy():
    x = torch.randn(2, 3, 7, 8)
    y = BlurPool2d(3, 1, 2)(x)
    assert torch.equal(y, x[..., ::2, ::2]) and y.data_ptr() == x.data_ptr()


@pytest.mark.parametrize(("size", "shape"), [(2, (3, 4)), (4, (4, 5)), (7, (4, 5)), (4, (2, 3)), (5, (1, 1))])
def test_gradients(size, shape):
    x = torch.randn(2, 2, *shape, dtype=torch.float64, requires_grad=True)
    layer = BlurPool2d(2, size, 2)
    assert gradcheck(layer, x) and gradgradcheck(layer, x)


def bytes_kept(function, x):
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        function(x)
    return sum(kept.values())


def test_nothing_but_the_filter_is_kept_for_the_backward_pass():
    layer = BlurPool2d(8)
    assert bytes_kept(layer, torch.randn(2, 8, 32, 32, requires_grad=True)) <= layer.filter.nbytes


@pytest.mark.parametrize("channels", [6, None])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_the_type_of_the_input_is_kept(dtype, channels):
    x, layer = torch.randn(2, 6, 8, 8, dtype=dtype), BlurPool2d(channels)
    expected = written_out(x, 4, (2, 2), "reflect")
    y = layer(x)
    assert y.dtype == dtype
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=torch.finfo(dtype).eps * 4)
    assert torch.equal(layer.to(dtype)(x), y)  # binomial weights are exact in half precision


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_changes_nothing(dtype):
    x, layer = torch.randn(2, 3, 8, 8, dtype=dtype, requires_grad=True), BlurPool2d(3)
    (expected,) = torch.autograd.grad(layer(x).sum(), x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
        assert y.dtype == dtype and torch.equal(y, layer(x.detach()))
        (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(gradient, expected)


@pytest.mark.parametrize("channels", [6, None])
def test_channels_last_stays(channels):
    x = torch.randn(2, 6, 8, 8).to(memory_format=torch.channels_last).requires_grad_()
    y = BlurPool2d(channels)(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, BlurPool2d(channels)(x.contiguous()))


def test_a_slice_is_taken_as_it_is():
    x = torch.randn(2, 6, 9, 9)[:, ::2, 1:]
    torch.testing.assert_close(BlurPool2d(3)(x), BlurPool2d(3)(x.contiguous()))


def test_compiled_is_eager_at_every_size():
    layer = BlurPool2d(3)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for size in (16, 2, 3, 33):
        x = torch.randn(2, 3, size, size, requires_grad=True)
        torch.testing.assert_close(compiled(x), layer(x))
        (expected,), (found,) = (torch.autograd.grad(f(x).square().sum(), x) for f in (layer, compiled))
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("size", [1, 2, 16])
def test_exported_is_eager_for_any_batch(size):
    layer, x = BlurPool2d(3), torch.randn(5, 3, size, size)
    program = torch.export.export(layer, (x[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.testing.assert_close(program.module()(x), layer(x))


def test_it_adds_nothing_to_a_state_dict_and_can_be_copied_and_made_on_meta():
    layer, x = BlurPool2d(3), torch.randn(1, 3, 8, 8)
    assert not layer.state_dict() and not list(layer.parameters())
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))
    with torch.device("meta"):
        made = BlurPool2d(3)
    assert made(x.to("meta")).shape == (1, 3, 4, 4)
    made.to_empty(device="cpu").reset_parameters()
    assert torch.equal(made(x), layer(x))


WRONG = {
    "filter_size is 1 to 7, got 0": lambda: BlurPool2d(3, 0),
    "filter_size is 1 to 7, got 8": lambda: BlurPool2d(3, 8),
    "filter_size is 1 to 7, got 4.0": lambda: BlurPool2d(3, 4.0),
    "at least 1 channel": lambda: BlurPool2d(0),
    "stride is .* got 0": lambda: BlurPool2d(3, 4, 0),
    "stride is .* got .1, 2, 3.": lambda: BlurPool2d(3, 4, (1, 2, 3)),
    "expects 4D input, got 3D": lambda: BlurPool2d(3)(torch.ones(3, 8, 8)),
    "of 3 channels got 4": lambda: BlurPool2d(3)(torch.ones(1, 4, 8, 8)),
    "empty map": lambda: BlurPool2d(3)(torch.ones(1, 3, 0, 8)),
    "floating types, got torch.uint8": lambda: BlurPool2d(3)(torch.ones(1, 3, 8, 8, dtype=torch.uint8)),
}


@pytest.mark.parametrize(("message", "wrong"), WRONG.items(), ids=WRONG)
def test_what_is_wrong_is_said(message, wrong):
    with pytest.raises(ValueError, match=message):
        wrong()


# Max pooling

POOLS = {
    "vgg": lambda: nn.MaxPool2d(2),
    "resnet": lambda: nn.MaxPool2d(3, 2, padding=1),
    "alexnet": lambda: nn.MaxPool2d(3, 2),
    "ceil": lambda: nn.MaxPool2d(3, 2, ceil_mode=True),
}


@pytest.mark.parametrize("shape", [(9, 8), (8, 9), (4, 3)])
@pytest.mark.parametrize("make", POOLS.values(), ids=POOLS)
def test_max_blur_pool_is_a_dense_maximum_and_a_blur(make, shape):
    pool, x = make(), torch.randn(2, 3, *shape, dtype=torch.float64, requires_grad=True)
    layer, ceil = MaxBlurPool2d(pool, 4), [1 - n % 2 if pool.ceil_mode else 0 for n in shape]
    beyond = F.pad(x, (0, ceil[1], 0, ceil[0]), value=-torch.inf)
    expected = BlurPool2d(3, 4)(F.max_pool2d(beyond, pool.kernel_size, 1, pool.padding))
    torch.testing.assert_close(layer(x), expected)
    (found,), (wanted,) = (torch.autograd.grad(y.square().sum(), x) for y in (layer(x), expected))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("shape", [(9, 8), (8, 9), (4, 3), (32, 33)])
@pytest.mark.parametrize("make", POOLS.values(), ids=POOLS)
def test_max_blur_pool_with_a_filter_of_one_pixel_is_the_pool(make, shape):
    pool, x = make(), torch.randn(2, 3, *shape)
    assert torch.equal(MaxBlurPool2d(pool, 1)(x), pool(x)) and pool.stride == 2


def test_max_blur_pool_keeps_its_input_alone():
    x = torch.randn(2, 8, 32, 32, requires_grad=True)
    assert bytes_kept(MaxBlurPool2d(nn.MaxPool2d(2)), x) <= x.nbytes + 16 * 4
