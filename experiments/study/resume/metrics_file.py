"""metrics.csv of a training: rows are appended, and a resumed training cuts it back to where its checkpoint stood."""

from __future__ import annotations

import csv
import io
import os
import sys
from pathlib import Path

from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter

from datamodules.whole_file import write_whole

FILE = "metrics.csv"
FLUSHED = 50
"""Rows that are kept in memory at most; after a kill they are logged again."""


class MetricsLog(CSVLogger):
    """Lightning's logger, in a folder that is kept.

    Args:
        folder: of the training; gets metrics.csv and hparams.yaml.
    """

    def __init__(self, folder: Path):
        super().__init__(folder, name="", version="", flush_logs_every_n_steps=FLUSHED)
        self.folder = folder

    @property
    @rank_zero_experiment
    def experiment(self) -> MetricsFile:
        if self._experiment is None:
            self._experiment = MetricsFile(self.folder)
        return self._experiment


class MetricsFile(ExperimentWriter):
    """A table with a row for each call of `log_metrics`, and a column for each name in them.

    A new column needs another header: then the file is written anew, under another name first. Lightning's own writer
    begins with an empty file, and writes a new header in place, where a kill would lose all rows.
    """

    def __init__(self, folder: Path):
        self.hparams: dict = {}
        self.log_dir, self.file = str(folder), folder / FILE
        self.metrics: list[dict] = []  # rows that are not written yet
        self.metrics_keys: list[str] = []
        self._rows: int | None = None  # that are written; None before it is known whether a training continues
        folder.mkdir(parents=True, exist_ok=True)

    def restore(self, rows: int) -> None:
        """Cut the file to its first rows; what is logged from now on comes after them."""
        header, found = _read(self.file) if self.file.exists() else ([], [])
        if len(found) < rows:
            print(
                f"{self.file} has {len(found)} whole rows, and the training that continues had logged {rows}: the "
                "rest is missing.",
                file=sys.stderr,
                flush=True,
            )
        self._rows = min(rows, len(found))
        kept = found[: self._rows]
        self.metrics_keys = [key for i, key in enumerate(header) if any(row[i] for row in kept)]
        if self._rows:
            self._write_anew([{key: row[header.index(key)] for key in self.metrics_keys} for row in kept])
        elif self.file.exists():
            self.file.unlink()

    def rows(self) -> int:
        """Rows that were logged; all of them are on the disk afterwards."""
        self.save()
        if self._rows is None:
            return 0
        if self.file.exists():
            with self.file.open("rb") as opened:
                os.fsync(opened.fileno())
        return self._rows

    def save(self) -> None:
        if not self.metrics:
            return
        if self._rows is None:
            self.restore(0)
        new = set().union(*self.metrics).difference(self.metrics_keys)
        if new:
            before = _read(self.file) if self._rows else ([], [])
            self.metrics_keys = sorted({*self.metrics_keys, *new})
            self._write_anew([dict(zip(before[0], row, strict=True)) for row in before[1]])
        with self.file.open("a", newline="", encoding="utf-8") as opened:
            opened.write(self._text(self.metrics, header=False))
        self._rows += len(self.metrics)
        self.metrics = []

    def _write_anew(self, rows: list[dict]) -> None:
        write_whole(self.file, self._text(rows, header=True))

    def _text(self, rows: list[dict], header: bool) -> str:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, fieldnames=self.metrics_keys)
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()


def _read(file: Path) -> tuple[list[str], list[list[str]]]:
    """Header and whole rows of a table; a kill may have torn the last row."""
    with file.open(newline="", encoding="utf-8", errors="replace") as opened:
        text = opened.read()
    whole = text[: text.rfind("\n") + 1]
    header, *rows = [*csv.reader(io.StringIO(whole, newline=""))] or [[]]
    return header, [row for row in rows if len(row) == len(header)]
