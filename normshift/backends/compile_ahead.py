"""Compiling the kernels of all backends before a layer needs them; `python -m normshift.build` calls it."""

import os
import sys
import time
import warnings
from pathlib import Path

import torch
from torch import Tensor

from normshift.backends import cpu_library, triton_backend
from normshift.layers import Norm
from normshift.registry import NORMS

NO_KERNELS = 1
"""Exit status where something cannot be compiled."""

TYPES = (torch.float32, torch.bfloat16, torch.float16)
LAYOUTS = (torch.contiguous_format, torch.channels_last)
MAPS = ((64, 56), (512, 7))
"""Channels and side of a large and of a small map, for which Triton's kernels have tiles of different sizes."""


def compile_all() -> int:
    """Compile what is missing for CPUs and, where there is one, the GPU; returns the exit status."""
    status = compile_for_cpus()
    return compile_for_gpus() or status if torch.cuda.is_available() else status


def compile_for_cpus() -> int:
    """Compile the C++ passes, or find them compiled."""
    started = time.perf_counter()
    try:
        there = cpu_library.is_whole(cpu_library.library_file())
        file = cpu_library.built_library()
    except Exception as error:  # compilers and file systems fail in many ways
        return _failed(f"the CPU kernels cannot be compiled: {remedy(error)}")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if not cpu_library.load():
            return _failed(f"{file}: {said[-1].message if said else 'it cannot be loaded.'}")
    took = "compiled before" if there else f"compiled in {time.perf_counter() - started:.0f} s"
    print(f"CPU kernels: {file} ({took}; instructions: {cpu_library.instructions()})", flush=True)
    return 0


def remedy(error: Exception) -> str:
    """Why the CPU kernels cannot be compiled, and what can be done, in one sentence."""
    reason = cpu_library.first_error(error).rstrip(".")
    if isinstance(error, cpu_library.NoCompilerError):
        return f"{reason[0].lower()}{reason[1:]}; install one (Debian: g++; conda: cxx-compiler), or name one by CXX."
    if isinstance(error, OSError) or "home directory" in reason:
        return f"{reason}; set TORCH_EXTENSIONS_DIR to a folder that can be written."
    return f"{reason}."


def compile_for_gpus() -> int:
    """Run every norm on the GPU, so that Triton compiles its kernels for common types, layouts and sizes."""
    started = time.perf_counter()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if triton_backend() is None:
            return _failed(str(said[-1].message) if said else "Triton does not run here.")
    for dtype in TYPES:
        for layout in LAYOUTS:
            for channels, side in MAPS:
                x = torch.randn(2, channels, side, side, device="cuda", dtype=dtype)
                _run_norms(x.to(memory_format=layout))
    torch.cuda.synchronize()
    cache = os.environ.get("TRITON_CACHE_DIR") or Path.home() / ".triton" / "cache"
    print(f"GPU kernels: {cache} ({time.perf_counter() - started:.0f} s)", flush=True)
    return 0


def _run_norms(x: Tensor) -> None:
    """A forward and backward pass of every norm of ours on an activation."""
    for spec in NORMS.values():
        layer = spec(x.shape[1])
        if isinstance(layer, Norm):
            layer.to(x.device)(x.detach().requires_grad_()).sum().backward()


def _failed(sentence: str) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return NO_KERNELS
