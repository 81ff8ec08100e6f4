"""The library of C++ kernels: shipped in a wheel, or compiled on the user's machine when first needed, and kept.

It uses torch's stable ABI, so that it serves every version of torch from `OLDEST_TORCH` on.
"""

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import warnings
from functools import cache
from pathlib import Path

import torch

FOLDER = Path(__file__).with_name("cpu")
SHIPPED = FOLDER / "built"
"""Where a wheel has the libraries that it was built with; otherwise there is none."""

OLDEST_TORCH = (2, 11)

AVX512 = ("-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mfma", "-mf16c")
VECTORS = {
    # the processor's vector instructions, as torch names them -> the compiler flags that enable them
    "AVX512_BF16": (*AVX512, "-mavx512bf16"),
    "AVX512": AVX512,
    "AVX2": ("-mavx2", "-mfma", "-mf16c"),
}


@cache
def load() -> bool:
    """Whether the kernels can be used. The first call loads or builds them, and warns if that fails."""
    try:
        library = built_library()
        try:
            torch.ops.load_library(str(library))
        except OSError:
            if library != shipped_library():
                raise
            torch.ops.load_library(str(built_here()))  # what was shipped is for another system
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


def instructions() -> str:
    """The vector instructions that the kernels are compiled for, a key of `VECTORS`; "DEFAULT" for any others."""
    name = torch.backends.cpu.get_cpu_capability()
    if name == "AVX512" and torch.cpu._is_avx512_bf16_supported():
        return "AVX512_BF16"
    return name if name in VECTORS else "DEFAULT"


def library_name(vectors: str, *made_by: str) -> str:
    """The file name of the library for some vector instructions; another one for other sources or another machine."""
    sources = [path.read_text() for path in sorted(FOLDER.iterdir()) if path.suffix in (".h", ".cpp")]
    kind = (*sources, sys.platform, platform.machine(), *flags(vectors), *made_by)
    return f"cpu_kernels-{vectors.lower()}-{hashlib.sha256(repr(kind).encode()).hexdigest()[:16]}.so"


def shipped_library() -> Path:
    """Where a wheel has this processor's library."""
    return SHIPPED / library_name(instructions())


def cached_library() -> Path:
    """Where this processor's library is built, by this compiler and for this C library: a cache may be shared."""
    return cache_folder() / library_name(instructions(), compiler(), *platform.libc_ver())


def library_file() -> Path:
    """Where this processor's library lies: the shipped one, or where it is built."""
    shipped = shipped_library()
    return shipped if is_whole(shipped) else cached_library()


def built_library() -> Path:
    """The path of the shipped library, or of one that is built here (`built_here`)."""
    library = library_file()
    return library if is_whole(library) else built_here()


def built_here() -> Path:
    """The path of the library in the cache, built anew where it is missing or damaged. If several processes need it at
    once, one builds it and the others wait.

    Raises:
        NoCompilerError: there is no C++ compiler.
        OSError: the folder cannot be written.
        RuntimeError: the compilation failed.
    """
    from filelock import FileLock

    if sys.platform == "win32":
        raise OSError("They have never been built on Windows.")
    built = cached_library()
    if not is_whole(built):
        built.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(built.with_suffix(".lock")):  # the system releases it even if the process is killed
            if not is_whole(built):
                print("normshift: building CPU kernels, once for this machine ...", file=sys.stderr, flush=True)
                build(built, instructions(), compiler())
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


def compiler() -> str:
    return os.environ.get("CXX", "c++")  # as in torch.utils.cpp_extension


def flags(vectors: str) -> tuple[str, ...]:
    """The compiler's flags for some vector instructions."""
    version = "0x" + "".join(f"{part:02x}" for part in OLDEST_TORCH) + 12 * "0"
    exact = ("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast")  # multiply and add in one instruction
    undefined = ("-undefined", "dynamic_lookup") if sys.platform == "darwin" else ()
    own = VECTORS.get(vectors, ())
    fixed = ("-std=c++17", "-O3", "-fPIC", "-shared", "-fopenmp-simd", "-w", f"-DTORCH_TARGET_VERSION={version}")
    return (*fixed, *exact, *own, *undefined)


def cache_folder() -> Path:
    """The folder for built libraries, in torch's cache for extensions; `TORCH_EXTENSIONS_DIR` sets another."""
    return Path(os.environ.get("TORCH_EXTENSIONS_DIR") or Path.home() / ".cache" / "torch_extensions") / "normshift"


def build(library: Path, vectors: str, compiler: str) -> None:
    """Compile the library for some vector instructions, and write its digest beside it."""
    command = shlex.split(compiler)
    if not shutil.which(command[0]):
        raise NoCompilerError(f"There is no C++ compiler: {compiler} is not to be found.")
    torch_folder = Path(torch.__file__).parent
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        made = Path(folder, library.name)
        command += [*flags(vectors), f"-I{torch_folder / 'include'}", str(FOLDER / "operators.cpp"), "-o", str(made)]
        command += [f"-L{torch_folder / 'lib'}", "-ltorch_cpu"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr.strip() or f"{compiler} ended with status {done.returncode}.")
        found = digest(made)
        os.replace(made, library)
        digest_file(library).write_text(found)
