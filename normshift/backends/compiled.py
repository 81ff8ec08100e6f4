"""The passes in C++, compiled on the user's machine when they are first needed, and cached."""

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
    # torch's name of the processor's vector instructions -> the compiler flags that enable them
    "AVX512": ("-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mfma", "-mf16c"),
    "AVX2": ("-mavx2", "-mfma", "-mf16c"),
}


def has_formula(compiled_form, channels: int) -> bool:
    """Whether this backend has the formula: it has every compiled form."""
    return compiled_form is not None


@cache
def operator(name: str):
    """One of the compiled functions; cached, because looking up an operator in torch is slow."""
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
    if dmean is None or dvar is None:  # only formulas without a compiled form
        return reference.through_moments(mean, scale, dshift, dmean, dvar, pooled, of_mean, of_var)
    *batch, share = pooled or (None, None, None, 0.0)
    return operator("through_moments")(mean, scale, dshift, dmean, dvar, *batch, float(share), of_mean, of_var)


@cache
def load() -> bool:
    """Whether the kernels can be used. The first call loads or builds them, and warns if that fails."""
    try:
        torch.ops.load_library(str(built_library()))
    except Exception as error:
        warnings.warn(
            "normshift's CPU kernels could not be built: its norms run in plain torch, at half the speed. "
            f"{first_error(error)}",
            stacklevel=2,
        )
        return False
    return True


def first_error(error: Exception) -> str:
    """An error in one line; of a failed compilation, the compiler's first error."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return next((line for line in lines if "error:" in line), lines[0])[:200]


def library_file() -> Path:
    """Where the library of this processor, torch and compiler lies once it is built."""
    kind = (*(source.read_text() for source in SOURCES), torch.__version__, platform.machine(), _compiler(), *_flags())
    return cache_folder() / f"cpu_kernels-{hashlib.sha256(repr(kind).encode()).hexdigest()[:16]}.so"


def built_library() -> Path:
    """The path of the built library, built anew where it is missing or damaged. If several processes need it at once,
    one builds it and the others wait.

    Raises:
        NoCompilerError: there is no C++ compiler.
        OSError: the folder cannot be written.
        RuntimeError: the compilation failed.
    """
    from filelock import FileLock

    if sys.platform == "win32":
        raise OSError("They have never been built on Windows.")
    built = library_file()
    if not is_whole(built):
        built.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(built.with_suffix(".lock")):  # the system releases it even if the process is killed
            if not is_whole(built):
                _build(built, _compiler())
                digest_file(built).write_text(digest(built))
    return built


def is_whole(library: Path) -> bool:
    """Whether a library is there as it was built: loading a truncated one would end the process by a signal."""
    try:
        return digest_file(library).read_text() == digest(library)
    except OSError:
        return False


def digest_file(library: Path) -> Path:
    """Where a library's digest is kept, beside it."""
    return library.with_suffix(".sha256")


def digest(library: Path) -> str:
    return hashlib.sha256(library.read_bytes()).hexdigest()


class NoCompilerError(FileNotFoundError):
    """There is no C++ compiler."""


def _compiler() -> str:
    return os.environ.get("CXX", "c++")  # as in torch.utils.cpp_extension


def _flags() -> list[str]:
    capability = torch.backends.cpu.get_cpu_capability()
    vectors = VECTORS.get(capability, ())
    chosen = [f"-DCPU_CAPABILITY_{capability}", f"-DCPU_CAPABILITY={capability}"] if vectors else []
    return ["-O3", "-fno-math-errno", "-fno-trapping-math", *vectors, *chosen, *_openmp()]


def _openmp() -> list[str]:
    return ["-fopenmp"] if torch.backends.openmp.is_available() else []


def cache_folder() -> Path:
    """The folder for built libraries, in torch's cache for extensions; `TORCH_EXTENSIONS_DIR` sets another."""
    return Path(os.environ.get("TORCH_EXTENSIONS_DIR") or Path.home() / ".cache" / "torch_extensions") / "normshift"


def _build(built: Path, compiler: str) -> None:
    path = os.environ.get("PATH", os.defpath)
    if not shutil.which(shlex.split(compiler)[0]):
        raise NoCompilerError(f"There is no C++ compiler: {compiler} is not to be found.")
    from torch.utils.cpp_extension import load as build_extension

    print("normshift: building CPU kernels, once for this machine (half a minute) ...", file=sys.stderr, flush=True)
    folder = tempfile.mkdtemp(dir=built.parent)
    try:
        os.environ["PATH"] = os.pathsep.join([path, str(Path(sys.executable).parent)])  # pip installs ninja there
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
