"""The machine that a benchmark runs on: flags for device and threads, and its description for the record."""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGES = ("torchvision", "triton", "timm", "segmentation-models-pytorch")
"""Packages whose versions are recorded, if they are installed."""

KEEPING = "glibc.malloc.trim_threshold=1099511627776:glibc.malloc.mmap_threshold=4294967296"
"""Settings that glibc reads when a process starts."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("cpu", "cuda"), help="by default cuda if available")
    parser.add_argument("--threads", type=positive, metavar="N", help="number of CPU threads; by default all cores")
    parser.add_argument(
        "--keep-memory",
        action="store_true",
        help="on the CPU: glibc keeps freed memory in the process, as jemalloc and tcmalloc do, so that reusing it "
        "causes no page faults",
    )
    parser.add_argument("--rounds", type=positive, metavar="N", help="samples of each candidate")
    parser.add_argument("--seed", type=int, default=0, help="seed of the candidates' order and of all values")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples and the machine to this file")
    parser.add_argument("--quick", action="store_true", help="a short test run whose results mean nothing")


def positive(text: str) -> int:
    """For argparse: a whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return int(text)


def prepare(parser: argparse.ArgumentParser, flags: argparse.Namespace) -> None:
    """Set device, threads and seed; exits with an error message if a flag cannot be satisfied."""
    if flags.json and (flags.json.is_dir() or not flags.json.parent.is_dir()):
        parser.error(f"--json {flags.json}: that is a folder, or in none that exists")
    if flags.keep_memory and "GLIBC_TUNABLES" not in os.environ:
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"GLIBC_TUNABLES": KEEPING})
    import torch  # here, so that --help does not wait for it

    if flags.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no CUDA device here; leave the flag out to measure on the CPU")
    flags.device = flags.device or ("cuda" if torch.cuda.is_available() else "cpu")
    flags.threads = flags.threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(flags.threads)
    torch.manual_seed(flags.seed)


@contextmanager
def limits_in_words() -> Iterator[None]:
    """Exit with one sentence if there is too little memory, or torch lacks an operation for a type."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError and NotImplementedError are among these
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        if "memory" in first.lower() or isinstance(error, MemoryError):
            sys.exit(f"error: not enough memory, a smaller --batch-size may fit ({first})")
        if "not implemented for" in first:
            sys.exit(f"error: torch cannot do this here, another type or device may ({first})")
        raise


def description(flags: argparse.Namespace) -> dict:
    """Date, machine, versions and flags, for a record."""
    import torch

    found = {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": {
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)),
            "load": round(os.getloadavg()[0], 2),  # other load, before the benchmark
            "capability": torch.backends.cpu.get_cpu_capability(),
            "gpu": torch.cuda.get_device_name() if flags.device == "cuda" else None,
        },
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__} | _versions(),
        "commit": _commit(),
    }
    return found | {"flags": {name: _plain(value) for name, value in vars(flags).items()}}


def heading(record: dict) -> str:
    """The description in one line, to print above a table."""
    machine, versions = record["machine"], record["versions"]
    where = f"{machine['gpu']}, " if machine["gpu"] else ""
    where += f"{machine['processor']}, {machine['cores']} cores, --threads {record['threads']}"
    return f"{record['date'][:10]}, {where}, load {machine['load']}, torch {versions['torch']}"


def save(record: dict, file: Path | None) -> None:
    if file:
        file.write_text(json.dumps(record, indent=1) + "\n")


def _plain(value):
    return value if isinstance(value, (int, float, str, list, tuple, type(None))) else str(value)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    """The commit of the measured code, with a + if files differ from it."""
    command = ("git", "describe", "--always", "--dirty=+", "--exclude=*")
    try:
        described = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return described.stdout.strip() or None
