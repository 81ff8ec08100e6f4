"""Compiles this library's kernels before they are needed: `python -m normshift.build`.

Otherwise they are compiled when a layer first runs on a CPU, which takes some ten seconds. They are compiled for this
processor's vector instructions, and lie in TORCH_EXTENSIONS_DIR, by default ~/.cache/torch_extensions; later processes
only read them. A wheel that was made by `make wheel` brings them compiled. On a GPU, Triton compiles each kernel in
seconds, and keeps it in TRITON_CACHE_DIR, by default ~/.triton/cache; those of common types and layouts are compiled as
well.

The exit status is 1 where something cannot be compiled. The norms then run in plain torch, at about half the speed.
"""

import argparse
import sys


def main(arguments: list[str] | None = None) -> int:
    """Compile what is missing, say where it lies and how long it took; returns the exit status."""
    argparse.ArgumentParser(
        prog="python -m normshift.build", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args(arguments)
    from normshift.backends.compile_ahead import compile_all  # imports torch: --help must not wait for it

    return compile_all()


if __name__ == "__main__":
    sys.exit(main())
