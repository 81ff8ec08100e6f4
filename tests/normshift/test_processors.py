"""The C++ of whole layers on other processors, under other compilers and under sanitizers (`cpu/check.cpp`)."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from normshift.backends import cpu_library

pytestmark = pytest.mark.slow

CASES = {
    # name -> compiler, its flags, what runs the program, how many random cases
    "sse2": ("c++", ["-O3"], [], 300),
    "avx2": ("c++", ["-O3", *cpu_library.VECTORS["AVX2"]], [], 300),
    "avx512": ("c++", ["-O3", *cpu_library.VECTORS["AVX512"]], [], 300),
    "avx512-bf16": ("c++", ["-O3", *cpu_library.VECTORS["AVX512_BF16"]], [], 300),
    "clang": ("clang++", ["-O3", *cpu_library.VECTORS["AVX2"]], [], 200),
    "arm": ("aarch64-linux-gnu-g++", ["-O3", "-static"], ["qemu-aarch64"], 60),
    "address-and-undefined": ("c++", ["-O1", "-g", "-fsanitize=address,undefined"], [], 100),
    "thread": ("c++", ["-O1", "-g", "-fsanitize=thread"], ["setarch", "-R"], 100),
}


@pytest.mark.parametrize("name", CASES)
def test_layers_are_their_formulas(name, tmp_path):
    compiler, flags, runner, cases = CASES[name]
    compiler = cpu_library.compiler() if compiler == "c++" else compiler
    for tool in (compiler, *runner[:1]):
        if not shutil.which(tool):
            pytest.skip(f"needs {tool}")
    capability = torch.backends.cpu.get_cpu_capability()
    bf16 = torch.cpu._is_avx512_bf16_supported()
    if ("avx2" in name and "AVX" not in capability) or (name == "avx512" and capability != "AVX512"):
        pytest.skip(f"this processor has {capability}")
    if name == "avx512-bf16" and not bf16:
        pytest.skip("this processor has no bfloat16 instructions")
    if name != "arm" and platform.machine() != "x86_64":
        pytest.skip("needs an x86-64 processor")
    program, source = tmp_path / "check", Path(__file__).parent / "cpu" / "check.cpp"
    exact = [flag for flag in cpu_library.flags("") if flag not in ("-shared", "-fPIC", "-O3")]
    subprocess.run([compiler, *exact, *flags, f"-I{cpu_library.FOLDER}", source, "-o", program], check=True)
    done = subprocess.run([*runner, program, str(cases)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{cases} cases agree" in done.stdout
