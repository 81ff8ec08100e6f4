"""`python -m normshift.build`: what it says and how it ends; it compiles nothing that is compiled."""

import os
import subprocess
import sys

import pytest
import torch

from normshift.backends import compile_ahead, cpu_library, reference, triton_backend
from normshift.build import main


def built(folder=None, **changed):
    """The command in a process of its own; an empty build folder compiles anew."""
    environment = os.environ | {"TORCH_EXTENSIONS_DIR": str(folder)} | changed if folder else os.environ | changed
    return subprocess.run(
        [sys.executable, "-m", "normshift.build"], env=environment, capture_output=True, text=True, timeout=400
    )


def test_what_is_compiled_is_named_and_not_compiled_again(capsys):
    if not cpu_library.load():
        pytest.skip("the compiled kernels cannot be built here")
    before = cpu_library.library_file().stat().st_mtime_ns
    assert main([]) == 0
    said = capsys.readouterr().out
    assert f"CPU kernels: {cpu_library.library_file()} (compiled before; " in said
    assert f"instructions: {cpu_library.instructions()})" in said
    assert cpu_library.library_file().stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda library: library.write_bytes(library.read_bytes()[:1000]),  # loading it would end the process
        lambda library: library.write_bytes(b"another program's file"),
        lambda library: library.write_bytes(b""),
        lambda library: library.unlink(),
        lambda library: library.with_suffix(".sha256").unlink(),  # killed between the library and its digest
        lambda library: library.with_suffix(".sha256").write_text("0"),
    ],
    ids=["truncated", "foreign", "empty", "missing", "without digest", "wrong digest"],
)
def test_a_damaged_library_is_built_anew_and_a_whole_one_is_not(damage, tmp_path, monkeypatch):
    if not cpu_library.load():
        pytest.skip("the compiled kernels cannot be built here")
    whole, builds = cpu_library.library_file().read_bytes(), []

    def build(library, vectors, compiler):
        builds.append(library)
        library.write_bytes(whole)
        library.with_suffix(".sha256").write_text(cpu_library.digest(library))

    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setattr(cpu_library, "build", build)
    library = cpu_library.built_library()
    assert cpu_library.built_library() == library and len(builds) == 1
    damage(library)
    assert cpu_library.built_library().read_bytes() == whole and len(builds) == 2
    assert cpu_library.built_library() == library and len(builds) == 2


def test_a_shipped_library_for_another_system_is_built_here(tmp_path, monkeypatch):
    if not cpu_library.load():
        pytest.skip("the compiled kernels cannot be built here")
    shipped, loaded = tmp_path / cpu_library.library_name(cpu_library.instructions()), []
    shipped.write_bytes(b"another system's")
    shipped.with_suffix(".sha256").write_text(cpu_library.digest(shipped))

    def load_library(path):
        loaded.append(path)
        if path == str(shipped):
            raise OSError("GLIBC_9.9 not found")

    monkeypatch.setattr(cpu_library, "SHIPPED", tmp_path)
    monkeypatch.setattr(torch.ops, "load_library", load_library)
    assert cpu_library.library_file() == shipped
    assert cpu_library.load.__wrapped__() and loaded == [str(shipped), str(cpu_library.cached_library())]


@pytest.mark.slow
def test_an_empty_folder_is_filled_and_then_only_read(tmp_path):
    first = built(tmp_path)
    assert first.returncode == 0 and "compiled in " in first.stdout, first.stderr
    (library,) = (tmp_path / "normshift").glob("*.so")
    assert str(library) in first.stdout
    files = sorted((tmp_path / "normshift").iterdir())
    second = built(tmp_path, PATH=os.path.dirname(sys.executable), CXX=os.environ.get("CXX", "c++"))
    assert second.returncode == 0 and f"{library} (compiled before" in second.stdout  # and no compiler is needed
    assert sorted((tmp_path / "normshift").iterdir()) == files


def test_without_a_compiler_it_says_what_to_install(tmp_path):
    done = built(tmp_path, CXX="no-such-compiler")
    assert done.returncode == 1 and not done.stdout
    assert done.stderr.strip().splitlines()[-1] == (
        "error: the CPU kernels cannot be compiled: there is no C++ compiler: no-such-compiler is not to be found; "
        "install one (Debian: g++; conda: cxx-compiler), or name one by CXX."
    )


def test_a_folder_that_cannot_be_written_names_the_variable(tmp_path):
    (tmp_path / "file").touch()
    done = built(tmp_path / "file")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.strip().endswith("set TORCH_EXTENSIONS_DIR to a folder that can be written.")


def test_a_compiler_that_fails_is_quoted(tmp_path):
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\necho 'x.cpp:1: error: out of ideas' >&2\nexit 1\n")
    compiler.chmod(0o755)
    done = built(tmp_path / "cache", CXX=str(compiler))
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: the CPU kernels cannot be compiled: ")


def test_on_a_gpu_every_norm_runs_in_every_type_and_layout(monkeypatch, capsys):
    """Here on the CPU, which takes the GPU's place."""
    seen, randn = [], torch.randn
    monkeypatch.setattr(compile_ahead, "triton_backend", lambda: reference)
    monkeypatch.setattr(compile_ahead, "MAPS", ((8, 4), (16, 2)))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch, "randn", lambda *size, device, dtype: randn(size).to(dtype))
    monkeypatch.setattr(compile_ahead, "_run_norms", lambda x: seen.append((x.dtype, x.shape[1])) or run(x))
    assert compile_ahead.compile_for_gpus() == 0
    assert len(seen) == 12 and {dtype for dtype, _ in seen} == {torch.float32, torch.bfloat16, torch.float16}
    assert "GPU kernels: " in capsys.readouterr().out


run = compile_ahead._run_norms


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_triton_kernels_are_compiled(capsys):
    assert triton_backend() is not None
    assert main([]) == 0 and "GPU kernels: " in capsys.readouterr().out


def test_help_does_not_wait_for_torch():
    code = "import sys; from normshift.build import main; sys.argv[1:] = ['--help']\ntry: main()\n"
    code += "except SystemExit: assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "TORCH_EXTENSIONS_DIR" in done.stdout, done.stderr
