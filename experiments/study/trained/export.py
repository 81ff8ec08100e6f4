"""Trained networks as files that need nothing of this repository: what `export.py` does once its flags are parsed."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from datamodules.whole_file import write_whole
from experiments.study.endings import UsageError
from experiments.study.trained.artefacts import FORMATS, save
from experiments.study.trained.networks import checkpoint_files, trained_network
from experiments.study.trained.task import Exportable, task_of
from lightning_modules.study_module import StudyModule
from normshift import fold
from normshift.folding import FoldReport

EXAMPLES, OTHERS = 2, (1, 3)
"""Numbers of images: of the example that is exported, and of those on which what was written is compared."""

TOLERANCE = 1e-3
"""The largest difference from the network, as a share of its largest score, that is taken for rounding."""


@dataclass(frozen=True)
class Written:
    """What came of one format: its file, seconds, and the largest difference from the network's scores."""

    file: Path
    seconds: float
    difference: float


def exported(flags) -> dict[str, Path]:
    """Write the network that the flags of `export.py` name in each format; returns the files by format.

    Raises:
        UsageError: a flag or a file is wrong, a package is missing, or torch cannot export the network.
    """
    _refuse_missing(flags.format)
    module, place = network(flags)
    found = task_of(module.task).exportable(module)
    found = dataclasses.replace(found, size=tuple(flags.size or found.size), network=found.network.eval())
    files = {name: place.with_name(place.name + FORMATS[name].suffix) for name in flags.format}
    about = place.with_name(f"{place.name}.json")
    begin([*files.values(), about], flags.smoke)
    expected = _scores(found)
    folded, report = fold(found.network) if flags.fold else (found.network, None)
    norms, largest = _in_words(report), max(scores.abs().max().item() for _, scores in expected)
    written = {}
    for name, file in files.items():
        written[name] = one = _write(name, folded, file, expected)
        print(
            f"{name}: {file} ({_bytes(file) / 1e6:.1f} MB, {one.seconds:.0f} s) takes float32 (N, 3, {found.size[0]}, "
            f"{found.size[1]}), {norms}; largest difference from the network {one.difference:.2g}, where its largest "
            f"score is {largest:.2g}",
            flush=True,
        )
    write_whole(about, json.dumps(_about(module, found, norms, written), indent=2) + "\n")
    return files


def network(flags) -> tuple[StudyModule, Path]:
    """The network that the flags name, and where its files go, without a suffix.

    Raises:
        UsageError: it is missing or cannot be rebuilt, or a folder holds several.
    """
    out = Path(flags.out) if flags.out else None
    known = [form.suffix for form in FORMATS.values()]
    if out is not None and out.suffix in known:
        out = out.with_suffix("")
    if out is not None and out.is_dir():
        out = out / "model"
    if flags.smoke and not flags.network:
        return task_of("segmentation").smoke_network(), out or Path("runs/export-smoke/model")
    found = checkpoint_files(flags.network[0])
    if len(found) > 1:
        raise UsageError(f"{flags.network[0]} holds {len(found)} networks: name one of them, such as {found[0]}.")
    return trained_network(found[0]).module, out or found[0].with_suffix("")


def _refuse_missing(formats: list[str]) -> None:
    missing = [name for form in formats for name in FORMATS[form].missing()]
    if missing:
        raise UsageError(
            f"--format onnx needs {', '.join(missing)}, not installed here: pip install -e '.[export]' adds what is "
            "missing; --format torch-export torchscript needs torch alone."
        )


def begin(files: list[Path], again: bool) -> None:
    """Make the folder of the files.

    Raises:
        UsageError: one of them exists already, and is not to be written over, or the folder cannot be written.
    """
    there = [file for file in files if file.exists()]
    if there and not again:
        raise UsageError(f"{there[0]} exists already: pass another --out, or move it away.")
    try:
        files[0].parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {files[0].parent} cannot be written ({error.strerror or error}).") from error


def _scores(found: Exportable) -> list[tuple[Tensor, Tensor]]:
    """Batches of noise, and the network's scores for each."""
    try:
        batches = [torch.randn(n, 3, *found.size, generator=torch.Generator().manual_seed(n)) for n in OTHERS]
        with torch.no_grad():
            return [(images, found.network(images)) for images in batches]
    except (RuntimeError, ValueError, AssertionError) as error:
        if "memory" in str(error):
            raise
        reason = " ".join(str(error).split())[:200].rstrip(".")
        height, width = found.size
        raise UsageError(f"--size {height} {width}: the network does not take such images ({reason}).") from error


def _write(name: str, network: nn.Module, file: Path, expected: list[tuple[Tensor, Tensor]]) -> Written:
    """Write one file, read it again and compare it.

    Raises:
        UsageError: torch cannot export the network, or what was written differs by more than rounding; it is removed.
    """
    form, started = FORMATS[name], time.perf_counter()
    try:
        save(form, network, torch.randn(EXAMPLES, *expected[0][0].shape[1:]), file)
    except ValueError as error:
        raise UsageError(f"--format {name}: {error}") from error
    seconds, program = time.perf_counter() - started, form.load(file)
    with torch.no_grad():
        pairs = [(program(images), scores) for images, scores in expected]
    alike = all(own.shape == scores.shape for own, scores in pairs)
    difference = max((own - scores).abs().max().item() for own, scores in pairs) if alike else math.inf
    if not difference <= TOLERANCE * max(scores.abs().max().item() for _, scores in pairs):
        file.unlink()
        raise UsageError(
            f"{file} did not compute what the network computes (largest difference {difference:.2g}) and was removed: "
            "choose another --format."
        )
    return Written(file, seconds, difference)


def _bytes(file: Path) -> int:
    """Of a file, and of the weights beside it where they do not fit into it."""
    return sum(one.stat().st_size for one in (file, file.with_name(f"{file.name}.data")) if one.exists())


def _in_words(report: FoldReport | None) -> str:
    if report is None:
        return "norms as they are"
    halves = f" and the BN halves of {len(report.halved)}" if report.halved else ""
    return f"{len(report.folded)} of {len(report.norms)} norms{halves} folded"


def _about(module: StudyModule, found: Exportable, norms: str, written: dict[str, Written]) -> dict:
    """What a program that uses the files has to know, as plain data."""
    return {
        "task": module.task,
        "norm": module.hparams.get("norm"),
        "input": {"type": "float32", "shape": ["N", 3, *found.size], "channels": "RGB", **found.input},
        "output": found.output,
        "norms": norms,
        "files": {name: {"file": one.file.name, "largest_difference": one.difference} for name, one in written.items()},
        "torch": torch.__version__,
    }
