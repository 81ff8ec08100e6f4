"""The Triton kernels against their formulas in float64, under Triton's interpreter and, where there is one, on a GPU.

Triton decides when it is imported whether it interprets. So the checks run in a process of their own, which collects
the functions named `check_*` of this file; the `test_*` functions start it.
"""

import importlib.util
import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import torch

from normshift.backends import reference
from normshift.engine import Formula
from normshift.formulas import BatchInstanceFormula, SwitchFormula
from tests.normshift import test_formulas
from tests.normshift.passes import agree, agree_on_moments, rows

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"


def _release(package):
    """Major and minor version; zeros where the package is not installed."""
    try:
        return tuple(int(part) for part in version(package).split(".")[:2])
    except PackageNotFoundError:
        return 0, 0


pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


@pytest.mark.skipif(
    _release("triton") < (3, 8) and _release("numpy") >= (2, 4), reason="this Triton interprets with NumPy below 2.4"
)
def test_under_the_interpreter():
    _run_checks(TRITON_INTERPRET="1")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu():
    _run_checks(TRITON_INTERPRET="0")


def _run_checks(**environment):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-o", "python_functions=check_*", __file__]
    run = subprocess.run(
        command, cwd=Path(__file__).parents[2], env=os.environ | environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.fixture
def kernels():
    from normshift.backends import triton_kernels

    yield triton_kernels
    triton_kernels._sums.cache_clear()  # a check may have changed what it is made from


# ------------------------------------------------------------------------------------------------------- activations


# name -> (shape, what is made of a contiguous tensor of that shape); none of these may be copied
LINES = {
    "planes-odd": ((2, 3, 5, 7), None),
    "planes-even": ((2, 5, 8, 4), None),
    "planes-in-two-blocks-of-channels": ((1, 5, 33, 34), None),
    "planes-of-many-tiles": ((1, 2, 75, 120), None),
    "planes-sliced": ((2, 6, 4, 6), lambda x: x[:, :3]),
    "planes-sliced-in-height": ((2, 3, 8, 6), lambda x: x[:, :, 2:5]),
    "planes-3d": ((2, 3, 50), None),
    "planes-5d": ((2, 3, 3, 4, 5), None),
    "one-plane": ((1, 1, 6, 6), None),
    "rows": ((2, 6, 5, 4), rows),
    "rows-in-two-blocks-of-channels": ((2, 70, 9, 9), rows),
    "rows-of-many-tiles": ((1, 3, 50, 50), rows),
    "rows-sliced": ((2, 16, 4, 3), lambda x: rows(x)[:, 8:]),
    "rows-3d": ((3, 4, 9), rows),
    "rows-5d": ((2, 8, 2, 3, 2), rows),
    "one-position": ((3, 5, 1, 1), None),
    "one-channel-of-rows": ((2, 1, 4, 3), rows),
}
OTHERS = {
    "transposed": ((2, 3, 5, 4), lambda x: x.transpose(2, 3)),
    "sliced-in-width": ((2, 3, 5, 6), lambda x: x[..., 1:4]),
    "every-second-channel-of-rows": ((2, 6, 5, 4), lambda x: rows(x)[:, ::2]),
    "expanded": ((2, 3, 1, 4), lambda x: x.expand(-1, -1, 3, -1)),
}


def make(shape, view, dtype=torch.float32, mean=3.0, spread=2.0):
    x = (mean + spread * torch.randn(shape)).to(DEVICE, dtype)
    return view(x) if view else x


# ---------------------------------------------------------------------------------------------------------- the checks


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, dtype) for name in LINES for dtype in (torch.float32, torch.bfloat16)]
    + [("planes-even", torch.float16), ("rows-sliced", torch.float16)],
)
def check_lines(kernels, name, dtype, monkeypatch):
    shape, view = LINES[name]
    x, dy = make(shape, view, dtype), make(shape, view, dtype, mean=0.1)
    for copy in ("contiguous", "copy_"):
        monkeypatch.setattr(torch.Tensor, copy, lambda *_: pytest.fail("copied"))
    agree(kernels, dy, x)


@pytest.mark.parametrize("name", OTHERS)
def check_others(kernels, name):
    shape, view = OTHERS[name]
    agree(kernels, make(shape, view), make(shape, view))


@pytest.mark.parametrize("programs", [1, 4], ids=["whole", "cut-in-two"])
@pytest.mark.parametrize("shape", [(1, 2, 75, 120), (1, 2, 64, 128), (1, 2, 63, 67)], ids=str)
@pytest.mark.parametrize("view", [None, rows], ids=["planes", "rows"])
def check_programs_of_many_tiles(kernels, view, shape, programs, monkeypatch):
    monkeypatch.setattr(kernels, "PROGRAMS", programs)
    agree(kernels, make(shape, view, mean=0.1), make(shape, view))


@pytest.mark.parametrize("mean", [1e3, 1e4])
@pytest.mark.parametrize("programs", [1, 2048], ids=["whole", "cut"])
@pytest.mark.parametrize("view", [None, rows], ids=["planes", "rows"])
def check_far_from_zero(kernels, view, programs, mean, monkeypatch):
    monkeypatch.setattr(kernels, "PROGRAMS", programs)
    for shape in ((1, 2, 70, 121), (2, 3, 7, 7)):
        agree(kernels, make(shape, view), make(shape, view, mean=mean, spread=1.0))
        agree_on_moments(kernels, make(shape, view, mean=mean, spread=0.0))


@pytest.mark.parametrize("view", [None, rows], ids=["planes", "rows"])
@pytest.mark.parametrize(
    "other",
    [
        lambda dy: dy.contiguous(),
        rows,
        lambda dy: dy[..., :1, :1].expand_as(dy),
        lambda dy: torch.cat([dy, dy], 1)[:, :6],
        lambda dy: dy.float(),
    ],
    ids=["planes", "rows", "expanded", "sliced", "wide"],
)
def check_gradients_of_another_layout(kernels, view, other):
    x = make((2, 6, 5, 8), view, torch.bfloat16)
    agree(kernels, other(make(x.shape, view, torch.bfloat16)), x)


@pytest.mark.parametrize("view", [None, rows], ids=["planes", "rows"])
def check_a_first_element_unlike_the_others(kernels, view):
    x = make((1, 2, 70, 121), view, mean=1e3, spread=1.0)
    x[0, 0, 0, 0] = -1e3
    agree_on_moments(kernels, x)


@pytest.mark.parametrize("strides", [(2**31 + 64, 64, 8, 1), (2**31 + 64, 1, 32, 4)], ids=["planes", "rows"])
def check_offsets_of_64_bits(kernels, strides):
    x = torch.empty(2**31 + 512, dtype=torch.bfloat16, device=DEVICE).as_strided((2, 4, 8, 8), strides)
    x.copy_(make(x.shape, None))
    agree(kernels, make(x.shape, None), x)


def check_infinity_stays_in_its_map(kernels):
    for view in (None, rows):
        x = make((2, 3, 5, 7), view)
        x[1, 1, 2, 3] = torch.inf
        finite = torch.stack(kernels.moments(x)).isfinite().all(0)
        assert finite.tolist() == [[True] * 3, [True, False, True]]


# ------------------------------------------------------------------------------------------- formulas on N x C numbers


def on_device(moments, batch, parameters, *seeds):
    moments, batch = (of._replace(mean=of.mean.to(DEVICE), var=of.var.to(DEVICE)) for of in (moments, batch))
    return moments, batch, [p.to(DEVICE) for p in parameters], *(s.to(DEVICE) for s in seeds)


@pytest.mark.parametrize("formula", test_formulas.FORMULAS.values(), ids=test_formulas.FORMULAS)
@pytest.mark.parametrize("images", [1, 3, 40])
def check_formulas(kernels, formula, images):
    _check_formula(kernels, formula, images, 6)


@pytest.mark.parametrize("channels", [1, 40, 128])
@pytest.mark.parametrize("name", ["sn", "bin"])
def check_formulas_of_any_size(kernels, name, channels):
    formula = {"sn": SwitchFormula(1e-5, ("in", "ln", "bn"), 1), "bin": BatchInstanceFormula(1e-5)}[name]
    _check_formula(kernels, formula, 5, channels)


def check_groups_of_channels(kernels):
    _check_formula(kernels, SwitchFormula(1e-5, ("gn", "ln", "in", "bn"), 8), 3, 64)


def check_what_has_no_kernel_is_left_to_the_formula(kernels):
    grouped = SwitchFormula(1e-5, ("gn",), 3).compiled_form()
    assert not kernels.has_formula(grouped, 6) and not kernels.has_formula(None, 6)
    assert not kernels.has_formula(SwitchFormula(1e-5, ("in",), 1).compiled_form(), 10_000)


def _check_formula(kernels, formula, images, channels):
    """Scale, shift and all gradients, each within 1e-5 of the largest entry, against autograd in float64."""
    form = formula.compiled_form()
    if not kernels.has_formula(form, channels):
        assert getattr(formula, "groups", 1) > 1 and channels & (channels - 1)
        return
    narrowed = test_formulas.narrow(*test_formulas.case(formula, images, 1.0, channels))
    wide = test_formulas.widened(*narrowed)
    moments, batch, parameters, *seeds = on_device(*narrowed)
    found = [v.cpu() for v in form.evaluate(kernels, moments, batch, parameters)]
    expected = [v.expand(images, channels) for v in formula(*wide[:2], *wide[2])]
    test_formulas.agree(found, expected, narrowed[0][:2], 1e-5)
    gradients = [g if g is None else g.cpu() for g in form.gradient(kernels, moments, batch, parameters, *seeds)]
    like = (*narrowed[0][:2], *narrowed[1][:2], *narrowed[2])
    test_formulas.agree(gradients, Formula.gradient(formula, *wide), like, 1e-5)


@pytest.mark.parametrize("images", [1, 5, 70])
def check_pooled_and_running(kernels, images):
    mean, var = 3 + torch.randn(images, 37, device=DEVICE), torch.rand(images, 37, device=DEVICE)
    of_reference = reference.pooled(mean.double(), var.double())
    for a, b in zip(kernels.pooled(mean, var), of_reference, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-6)
    running, expected = (torch.ones(2, 37, device=DEVICE, dtype=t) for t in (torch.float32, torch.float64))
    kernels.update_running(*running, mean[0], var[0], 0.1, 1.25)
    reference.update_running(*expected, mean[0], var[0], 0.1, 1.25)
    torch.testing.assert_close(running.double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("batch", [False, True])
def check_through_moments(kernels, batch):
    mean, scale, dshift, dmean, dvar = torch.randn(5, 3, 37, device=DEVICE)
    pooled = (*torch.randn(3, 37, device=DEVICE), 1 / 3) if batch else None
    given = mean, scale, dshift, dmean, dvar, pooled, 1 / 49, 2 / 49
    wide = [v.double() if torch.is_tensor(v) else v for v in given[:5]]
    wide += [pooled and (*(v.double() for v in pooled[:3]), pooled[3]), 1 / 49, 2 / 49]
    for a, b in zip(kernels.through_moments(*given), reference.through_moments(*wide), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-6)


# ------------------------------------------------------------------------------------------ what a compiler makes of it


@pytest.mark.skipif(INTERPRETED, reason="kernels are interpreted")
@pytest.mark.parametrize(
    ("shape", "view"), [((32, 64, 112, 112), rows), ((32, 1, 512, 512), None)], ids=["rows", "planes"]
)
def test_an_h100_reads_16_bytes_at_a_time(shape, view, monkeypatch, tmp_path):
    """Compiling for it needs none."""
    from normshift.backends import triton_kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    launches = record_launches(triton_kernels, monkeypatch)
    x = torch.empty(shape, dtype=torch.bfloat16, device="meta")
    x = view(x) if view else x
    a, b, c, d = torch.empty(4, *shape[:2], device="meta")
    triton_kernels.moments(x)
    triton_kernels.scale_shift(x, a, b, c)
    triton_kernels.reductions(x, x, a)
    triton_kernels.input_gradient(x, x, a, b, c, d)
    assert list(launches) == [
        f"_{name}_kernel" for name in ("moments", "merge", "scale_shift", "reductions", "input_gradient")
    ]
    for name, launch in launches.items():
        code = compiled_for_an_h100(*launch)
        if name != "_merge_kernel":
            assert code.count("ld.global.v4") >= 4
            narrow = re.findall(r"global\.b16.*", code)  # a map's first element, which Triton 3.8 loads for the tile
            assert len(narrow) <= 2  # and once more for the result; a tile that was read so would take 32


def record_launches(kernels, monkeypatch):
    """What would be launched: name -> kernel, arguments, constants."""
    launches = {}

    class Recorder:
        def __init__(self, name):
            self.name, self.kernel = name, getattr(kernels, name)

        def __getitem__(self, grid):
            return lambda *arguments, **constants: launches.update({self.name: (self.kernel, arguments, constants)})

    for name in [name for name in vars(kernels) if name.endswith("_kernel") and name != "_kernel"]:
        monkeypatch.setattr(kernels, name, Recorder(name))
    return launches


def compiled_for_an_h100(kernel, arguments, constants):
    """A launch's PTX."""
    from triton import compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    options = {name: constants.pop(name) for name in ("num_warps", "enable_fp_fusion")}
    types = {torch.bfloat16: "*bf16", torch.float32: "*fp32"}
    kinds = [types[value.dtype] if torch.is_tensor(value) else "i32" for value in arguments]
    signature = dict(zip(kernel.arg_names, kinds, strict=False)) | dict.fromkeys(constants, "constexpr")
    aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(kinds) if kind.startswith("*")}
    source = ASTSource(kernel, signature, constants, aligned)
    return compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["ptx"]
