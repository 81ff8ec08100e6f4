"""What is not equal in the folders of two runs of one study, to the last bit."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml

OWN = {"out", "command", "minutes", "git", "crc32"}
"""Entries of config.yaml, and of settings.json, which repeats it with a checksum, that are each run's own."""
IGNORED = (".lock",)
"""Files that hold a process's number."""


def differences(one: Path, other: Path) -> Iterator[str]:
    """A sentence for each difference, the most telling ones first; none if the runs are equal.

    Files are compared byte for byte, except: checkpoints are archives and compared by content, tensors byte for byte;
    config.yaml and settings.json without the entries in `OWN`, and report.html without the run's path, time and git
    revision.
    """
    files, others = (contents(folder) for folder in (one, other))
    yield from (f"{file} is missing" for file in sorted(files - others))
    yield from (f"{file} is left over" for file in sorted(others - files))
    for file in sorted(files & others, key=lambda file: (not file.endswith(".ckpt"), not is_table(file), file)):
        yield from (f"{file}: {what}" for what in compared(one / file, other / file))


def contents(folder: Path) -> set[str]:
    files = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    return files - {*IGNORED}


def is_table(file: str) -> bool:
    return file.endswith((".csv", ".parquet"))


def compared(one: Path, other: Path) -> Iterator[str]:
    """What differs first in two files, if anything does."""
    if one.suffix == ".ckpt":
        kept = [torch.load(file, map_location="cpu", weights_only=False) for file in (one, other)]
        yield from parts(*kept)
    elif one.name in ("config.yaml", "settings.json"):
        yield from parts(*(without_own(file) for file in (one, other)))
    elif one.name == "report.html":
        texts = [report_of(file) for file in (one, other)]
        yield from [] if texts[0] == texts[1] else [first_line(*texts)]
    elif one.read_bytes() != other.read_bytes():
        if one.suffix == ".parquet":
            tables = [pd.read_parquet(file) for file in (one, other)]
            yield first_line(*(table.to_csv(float_format="%.17g") for table in tables))
        elif one.suffix in (".csv", ".json", ".md", ".yaml"):
            yield first_line(*(file.read_text(encoding="utf-8") for file in (one, other)))
        else:
            yield "other bytes"


def parts(one: Any, other: Any, where: str = "") -> Iterator[str]:
    """Where two nested values differ: tensors, arrays and floats in any bit."""
    if type(one) is not type(other):
        yield f"{where} is {short(one)} and {short(other)}"
    elif isinstance(one, Mapping):
        if list(one) != list(other):
            yield f"{where} has the keys {short(list(one))} and {short(list(other))}"
        for key in one:
            if key in other:
                yield from parts(one[key], other[key], f"{where}[{key!r}]")
    elif isinstance(one, (list, tuple)):
        if len(one) != len(other):
            yield f"{where} has {len(one)} and {len(other)} items"
        for number, pair in enumerate(zip(one, other, strict=False)):
            yield from parts(*pair, f"{where}[{number}]")
    elif isinstance(one, torch.Tensor):
        yield from tensors(one, other, where)
    elif repr(one) != repr(other) and not (isinstance(one, bytes) and one == other):
        yield f"{where} is {short(one)} and {short(other)}"


def tensors(one: torch.Tensor, other: torch.Tensor, where: str) -> Iterator[str]:
    if one.shape != other.shape or one.dtype != other.dtype:
        yield f"{where} is {tuple(one.shape)} {one.dtype} and {tuple(other.shape)} {other.dtype}"
        return
    bits = [value.detach().contiguous().reshape(-1).view(torch.uint8) for value in (one, other)]
    if not torch.equal(*bits):
        many = int((bits[0] != bits[1]).reshape(max(1, one.numel()), -1).any(1).sum())
        apart = (one.double() - other.double()).abs().max().item()
        yield f"{where} differs in {many} of {one.numel()} values, by {apart:.3g} at most"


def without_own(file: Path) -> dict:
    """The entries of config.yaml or settings.json that two equal runs share."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".yaml":
        return {key: value for key, value in yaml.safe_load(text).items() if key not in OWN}
    found = json.loads(text)
    return json.loads(json.dumps(found), object_hook=lambda one: {k: v for k, v in one.items() if k not in OWN})


def report_of(file: Path) -> str:
    """The report's text without what is each run's own: its folder, name, time and git revision."""
    text = file.read_text(encoding="utf-8").replace(str(file.parent), "RUN")
    text = re.sub(rf"(?<![\w.]){re.escape(file.parent.name)}(?!\w)", "RUN", text)
    text = re.sub(r"(>git revision</th><td>)[^<]*", r"\1GIT", text)
    return re.sub(r"<td>[\d.]+ (second|minute|hour)s?</td>", "<td>TIME</td>", text)


def first_line(one: str, other: str) -> str:
    lines, others = one.splitlines(), other.splitlines()
    for number, (line, again) in enumerate(zip(lines, others, strict=False), 1):
        if line != again:
            at = next((i for i, pair in enumerate(zip(line, again, strict=False)) if pair[0] != pair[1]), 0)
            begin = max(0, at - 40)
            return f"line {number}: {short(line[begin:])} and {short(again[begin:])}"
    return f"{len(lines)} and {len(others)} lines"


def short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
