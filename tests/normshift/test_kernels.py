"""Plain torch's and the compiled passes compared with their formulas in float64, for all kinds of inputs."""

import pytest
import torch

from normshift import BatchInstanceNorm2d, IBN2d, SwitchNorm2d
from normshift.backends import laid_out, reference
from normshift.layers import BatchNorm, InstanceNorm2d
from tests.normshift.agreement import agrees, run
from tests.normshift.passes import agree, rows
from tests.normshift.written_out import randomize

WIDE = torch.float32, torch.float64
NARROW = torch.bfloat16, torch.float16

# name -> (shape, what is made of a contiguous tensor of that shape)
INPUTS = {
    "odd": ((2, 3, 5, 7), None),
    "even": ((2, 4, 8, 4), None),
    "one-image": ((1, 3, 9, 5), None),
    "one-position": ((3, 5, 1, 1), None),
    "one-image-one-position": ((1, 37, 1, 1), None),
    "one-channel": ((3, 1, 6, 7), None),
    "one-value": ((1, 1, 1, 1), None),
    "many-channels": ((2, 2051, 3, 3), None),
    "large-maps": ((1, 2, 201, 207), None),
    "3d": ((3, 5, 19), None),
    "5d": ((2, 3, 2, 3, 5), None),
    "rows-odd": ((2, 3, 5, 7), rows),
    "rows-of-a-vector": ((2, 32, 5, 4), rows),
    "rows-of-two-vectors-and-some": ((2, 37, 6, 5), rows),
    "rows-one-image": ((1, 64, 9, 5), rows),
    "rows-one-position": ((3, 5, 1, 1), rows),
    "rows-one-channel": ((3, 1, 6, 7), rows),
    "rows-many-channels": ((2, 2051, 3, 3), rows),
    "rows-in-pieces": ((1, 130, 61, 63), rows),
    "rows-short-in-pieces": ((1, 5, 181, 187), rows),
    "rows-3d": ((3, 5, 19), rows),
    "rows-5d": ((2, 3, 2, 3, 5), rows),
    "some-channels": ((3, 9, 4, 5), lambda x: x[:, 2:7]),
    "some-channels-of-rows": ((3, 9, 4, 5), lambda x: rows(x)[:, 2:7]),
    "every-second-image": ((5, 3, 4, 5), lambda x: x[::2]),
    "every-second-image-of-rows": ((5, 3, 4, 5), lambda x: rows(x)[::2]),
    "every-second-column": ((2, 3, 4, 9), lambda x: x[..., ::2]),
    "not-from-the-start": ((2, 3, 4, 5), lambda x: torch.cat([x.flatten(), x.flatten()])[7:127].view(2, 3, 4, 5)),
    "transposed": ((2, 3, 5, 4), lambda x: x.transpose(2, 3)),
    "images-and-channels-swapped": ((3, 2, 5, 4), lambda x: x.transpose(0, 1)),
    "one-image-expanded": ((1, 3, 5, 4), lambda x: x.expand(3, -1, -1, -1)),
    "one-image-of-rows-expanded": ((1, 3, 5, 4), lambda x: rows(x).expand(3, -1, -1, -1)),
    "one-row-expanded": ((2, 3, 1, 4), lambda x: x.expand(-1, -1, 5, -1)),
    "one-value-expanded": ((1, 1, 1, 1), lambda x: x.expand(2, 3, 4, 5)),
}
inputs = pytest.mark.parametrize(("shape", "view"), INPUTS.values(), ids=INPUTS)
layouts = pytest.mark.parametrize("view", [None, rows], ids=["planes", "rows"])


def make(shape, view=None, dtype=torch.float32, mean=3.0, spread=2.0):
    x = (mean + spread * torch.randn(shape, dtype=torch.float64)).to(dtype)
    return laid_out(view(x) if view else x)


def agree_here(backend, dy, x):
    if backend is reference:  # torch's norms: they scale before they centre, and some sum value by value
        agree(backend, dy, x, centred=False, slack=20)
    else:
        agree(backend, dy, x, slack=2)


@inputs
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_passes_are_the_formulas(backend, shape, view, dtype):
    if dtype == torch.float64 and backend is not reference:
        pytest.skip("compiled kernels leave float64 to plain torch")
    agree_here(backend, make(shape, view, dtype, mean=0.1), make(shape, view, dtype))


@pytest.mark.parametrize("dtype", [*WIDE, *NARROW], ids=str)
def test_vectors_are_plain_torchs(dtype):
    agree(reference, make((5, 7), None, dtype), make((5, 7), None, dtype), centred=False)


@layouts
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "other",
    [
        lambda dy: dy.contiguous(),
        rows,
        lambda dy: dy[..., :1, :1].expand_as(dy),
        lambda dy: torch.cat([dy, dy], 1)[:, :6],
        lambda dy: dy.transpose(2, 3).contiguous().transpose(2, 3),
    ],
    ids=["planes", "rows", "expanded", "sliced", "transposed"],
)
def test_gradients_of_another_layout(backend, view, dtype, other):
    x = make((2, 6, 5, 7), view, dtype)
    agree_here(backend, other(make(x.shape, view, dtype)), x)


@layouts
def test_outputs_past_the_caches(backend, view):
    """What is large enough goes to memory directly."""
    for shape in ((2, 32, 256, 144), (1, 31, 270, 261)):  # in whole vectors, and not
        agree_here(backend, make(shape, view), make(shape, view))


@layouts
@pytest.mark.parametrize("mean", [1e3, 1e4])
@pytest.mark.parametrize("shape", [(2, 3, 7, 7), (1, 3, 170, 171), (1, 70, 50, 41)], ids=str)
def test_variances_far_from_zero(backend, view, mean, shape):
    """As good as around a mean that is off by a hundred-thousandth, where `E[x^2] - mean^2` is off by units."""
    for spread in (2.0, 0.0):
        x = make(shape, view, mean=mean, spread=spread)
        expected = x.double().flatten(2).var(-1, correction=0)
        torch.testing.assert_close(backend.moments(x)[1].double(), expected, rtol=1e-4, atol=(1e-5 * mean) ** 2)


@layouts
def test_infinity_stays_in_its_map(backend, view):
    x = make((2, 3, 5, 7), view)
    x[1, 1, 2, 3] = torch.inf
    finite = torch.stack(backend.moments(x)).isfinite().all(0)
    assert finite.tolist() == [[True] * 3, [True, False, True]]


@pytest.fixture
def eight_threads():
    before = torch.get_num_threads()
    yield lambda count: torch.set_num_threads(count)
    torch.set_num_threads(before)


LAYERS = {
    "sn": SwitchNorm2d,
    "sn-gn": lambda c: SwitchNorm2d(c, statistics=("in", "gn", "bn"), groups=2),
    "bin": BatchInstanceNorm2d,
    "ibn": IBN2d,
    "ibn-batch-norm-first": lambda c: IBN2d(c, ratio=0.3, instance_first=False),
    "in": InstanceNorm2d,
    "bn": BatchNorm,
}
layers = pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)


@layouts
@layers
@pytest.mark.parametrize("shape", [(3, 6, 70, 71), (9, 130, 9, 9), (1, 34, 129, 128)], ids=str)
def test_threads_change_no_digit(eight_threads, backend, layer, shape, view):
    if backend is reference and view:
        pytest.skip("torch's batch norm over rows sums by threads")
    x, seed = make(shape, view), make(shape, view)
    once, again = (randomized(layer, shape[1], seed=1) for _ in range(2))
    eight_threads(1)
    expected = *run(once, x, seed), dict(once.named_buffers())
    eight_threads(8)
    torch.testing.assert_close((*run(again, x, seed), dict(again.named_buffers())), expected, rtol=0, atol=0)


def randomized(layer, channels, seed):
    torch.manual_seed(seed)
    return randomize(layer(channels))


@layouts
@layers
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("mean", [0.0, 1e3, 1e4])
def test_layers_far_from_zero(backend, layer, training, mean, view):
    x = make((4, 6, 16, 15), view, mean=mean)
    # gates compare means with one another: float32 holds those of 1e4 too coarsely for their gradients
    agrees(randomize(layer(6)).train(training), x, 1e-2 if mean else 1e-4, gates=mean < 1e4)


# As operators

CALLS = {
    "moments": lambda x, *_: (x,),
    "scale_shift": lambda x, *vectors: (x, *vectors[:3]),
    "reductions": lambda x, mean, *_: (torch.randn_like(x), x, mean),
    "input_gradient": lambda x, *vectors: (torch.randn_like(x), x, *vectors),
}


@pytest.mark.parametrize("operator", CALLS)
@pytest.mark.parametrize("name", ["odd", "rows-odd", "rows-3d", "5d", "every-second-column", "one-image-expanded"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_operators_are_what_compilers_expect(backend, operator, name, dtype):
    shape, view = INPUTS[name]
    x = torch.randn(shape).to(dtype)
    x = view(x) if view else x
    kind = torch.float64 if dtype == torch.float64 else torch.float32
    arguments = CALLS[operator](x, *torch.randn(4, *x.shape[:2], dtype=kind).unbind())
    torch.library.opcheck(getattr(torch.ops.normshift, operator).default, arguments)


@pytest.mark.parametrize("operator", CALLS)
@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 3, 0, 4), (0, 3)], ids=str)
def test_operators_let_what_is_empty_through(backend, operator, shape):
    x, vectors = torch.empty(shape), torch.randn(4, *shape[:2]).unbind()
    found = getattr(torch.ops.normshift, operator)(*CALLS[operator](x, *vectors))
    if isinstance(found, torch.Tensor):
        assert found.shape == shape
    else:
        assert all(torch.equal(v, torch.zeros(shape[:2])) for v in found)
