"""The passes in C++, built with the user's compiler when they are first needed, and kept for the next time."""

import hashlib
import os
import platform
import shlex
import shutil
import sys
import tempfile
import warnings
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from normshift.backends import reference

SOURCES = [Path(__file__).with_name(name) for name in ("cpu_kernels.cpp", "cpu_formulas.cpp")]

VECTORS = {
    # torch's name for what the processor can do: what makes a compiler, and ATen's vector types, use it
    "AVX512": ("-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mfma", "-mf16c"),
    "AVX2": ("-mavx2", "-mfma", "-mf16c"),
}


def has_formula(compiled_form, channels: int) -> bool:
    """Whether a formula's compiled form is one of those here."""
    return compiled_form is not None


@cache
def operator(name: str):
    """One of the compiled functions, once they are loaded; held, because torch looks long for a name."""
    return getattr(torch.ops.normshift_cpu, name).default


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    return operator("moments")(x)


def scale_shift(x: Tensor, mean: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return operator("scale_shift")(x, mean, scale, shift)


def reductions(dy: Tensor, x: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    return operator("reductions")(dy, x, mean)


def input_gradient(dy: Tensor, x: Tensor, mean: Tensor, scale: Tensor, slope: Tensor, offset: Tensor) -> Tensor:
    return operator("input_gradient")(dy, x, mean, scale, slope, offset)


def mixed(*arguments) -> tuple[Tensor, Tensor]:
    return operator("mixed")(*arguments)


def mixed_gradient(*arguments) -> list[Tensor]:
    return operator("mixed_gradient")(*arguments)


def gated(*arguments) -> tuple[Tensor, Tensor]:
    return operator("gated")(*arguments)


def gated_gradient(*arguments) -> list[Tensor]:
    return operator("gated_gradient")(*arguments)


def pooled(mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    return operator("pooled")(mean, var)


def update_running(running_mean: Tensor, running_var: Tensor, mean: Tensor, var: Tensor, momentum: float, unbiased):
    fits = all(v.dtype == torch.float32 and v.is_contiguous() for v in (running_mean, running_var))
    update = operator("update_running") if fits else reference.update_running
    update(running_mean, running_var, mean, var, momentum, float(unbiased))


def through_moments(mean: Tensor, scale: Tensor, dshift: Tensor, dmean, dvar, pooled, of_mean: float, of_var: float):
    if dmean is None or dvar is None:  # from a formula that has no loop
        return reference.through_moments(mean, scale, dshift, dmean, dvar, pooled, of_mean, of_var)
    *batch, share = pooled or (None, None, None, 0.0)
    return operator("through_moments")(mean, scale, dshift, dmean, dvar, *batch, float(share), of_mean, of_var)


@cache
def load() -> bool:
    """Whether the kernels are there: loaded or, the first time, built. One warning where that fails."""
    try:
        torch.ops.load_library(str(_library()))
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = next((line for line in lines if "error:" in line), lines[0])[:200]  # a compiler's, where it is one's
        warnings.warn(
            f"normshift's CPU kernels could not be built: its norms run in plain torch, at half the speed. {reason}",
            stacklevel=2,
        )
        return False
    return True


def _library() -> Path:
    """The built library. Several processes may ask at once: one builds, the others wait."""
    from filelock import FileLock

    if sys.platform == "win32":
        raise OSError("They have never been built on Windows.")
    compiler = os.environ.get("CXX", "c++")  # torch's builder takes the same
    kind = (*(source.read_text() for source in SOURCES), torch.__version__, platform.machine(), compiler, *_flags())
    built = _cache() / f"cpu_kernels-{hashlib.sha256(repr(kind).encode()).hexdigest()[:16]}.so"
    if not built.exists():
        built.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(built.with_suffix(".lock")):  # a lock of the system's: a killed process leaves none behind
            if not built.exists():
                _build(built, compiler)
    return built


def _flags() -> list[str]:
    capability = torch.backends.cpu.get_cpu_capability()
    vectors = VECTORS.get(capability, ())
    chosen = [f"-DCPU_CAPABILITY_{capability}", f"-DCPU_CAPABILITY={capability}"] if vectors else []
    return ["-O3", "-fno-math-errno", "-fno-trapping-math", *vectors, *chosen, *_openmp()]


def _openmp() -> list[str]:
    return ["-fopenmp"] if torch.backends.openmp.is_available() else []


def _cache() -> Path:
    """Where torch keeps what it builds; `TORCH_EXTENSIONS_DIR` chooses another place."""
    return Path(os.environ.get("TORCH_EXTENSIONS_DIR") or Path.home() / ".cache" / "torch_extensions") / "normshift"


def _build(built: Path, compiler: str) -> None:
    from torch.utils.cpp_extension import load as build_extension

    path = os.environ.get("PATH", os.defpath)
    if not shutil.which(shlex.split(compiler)[0]):
        raise FileNotFoundError(f"There is no C++ compiler: {compiler} is not to be found.")
    print("normshift: building CPU kernels, once for this machine (half a minute) ...", file=sys.stderr, flush=True)
    folder = tempfile.mkdtemp(dir=built.parent)
    try:
        os.environ["PATH"] = os.pathsep.join([path, str(Path(sys.executable).parent)])  # ninja's, as pip installs it
        build_extension(
            built.stem,
            [str(source) for source in SOURCES],
            extra_cflags=_flags(),
            extra_ldflags=_openmp(),
            build_directory=folder,
            is_python_module=False,
        )
        shutil.move(str(Path(folder, f"{built.stem}.so")), built)
    finally:
        os.environ["PATH"] = path
        shutil.rmtree(folder, ignore_errors=True)
