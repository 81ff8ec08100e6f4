"""Trained networks as files that need nothing of this repository: what `export.py` does once its flags are parsed."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from datamodules.whole_file import write_whole
from experiments.study.endings import UsageError
from experiments.study.run_parts import readable
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
    begin(list(files.values()), flags.smoke)
    known = _about(module, found)
    described = _described(about, known) if about.exists() and not flags.smoke else {}
    expected = _scores(found)
    folded, report = fold(found.network) if flags.fold else (found.network, None)
    norms, largest = _in_words(report), max(scores.abs().max().item() for _, scores in expected)
    height, width = found.size
    for name, file in files.items():
        seconds, difference = _write(name, folded, file, expected)
        print(
            f"{name}: {file} ({_bytes(file) / 1e6:.1f} MB, {seconds:.0f} s) takes float32 (N, 3, {height}, {width}), "
            f"{norms}; largest difference from the network {difference:.2g}, where its largest score is {largest:.2g}",
            flush=True,
        )
        described[name] = {"file": file.name, "height": height, "width": width, "norms": norms}
        described[name] |= {"largest_difference": difference, "torch": torch.__version__}
        write_whole(about, json.dumps(known | {"files": described}, indent=2) + "\n")
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


def _write(name: str, network: nn.Module, file: Path, expected: list[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """Write one file, read it again and compare it.

    Returns:
        The seconds that writing took, and the largest difference from the expected scores.

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
    return seconds, difference


def _bytes(file: Path) -> int:
    """Of a file, and of the weights beside it where they do not fit into it."""
    return sum(one.stat().st_size for one in (file, file.with_name(f"{file.name}.data")) if one.exists())


def _in_words(report: FoldReport | None) -> str:
    if report is None:
        return "norms as they are"
    halves = f" and the BN halves of {len(report.halved)}" if report.halved else ""
    return f"{len(report.folded)} of {len(report.norms)} norms{halves} folded"


def _about(module: StudyModule, found: Exportable) -> dict:
    """What a program that uses the files has to know, as plain data."""
    shape = {"type": "float32", "shape": ["N", 3, "height", "width"], "channels": "RGB"}
    norm = module.hparams.get("norm")
    return {"task": module.task, "norm": norm, "input": shape | found.input, "output": found.output}


def _described(file: Path, known: dict) -> dict:
    """The files that are described already, of an earlier export of this network in other formats.

    Raises:
        UsageError: the description is of another network, or is none.
    """
    found = readable(lambda: json.loads(file.read_text(encoding="utf-8")))
    same = isinstance(found, dict) and isinstance(found.get("files"), dict)
    if not same or {key: found.get(key) for key in known} != known:
        raise UsageError(f"{file} exists already, and is not about this network: pass another --out, or move it away.")
    return found["files"]
