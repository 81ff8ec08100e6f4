"""A run's folder as the report reads it: missing and damaged files are allowed, since a killed run leaves such."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pandas import DataFrame

from experiments.reporting.arm_styles import ArmStyles, arm_styles
from experiments.study.failures import Failure
from experiments.study.partial_run import PartialRun
from experiments.study.tables.domain_drop import has_domains
from experiments.study.tables.table import Table
from lightning_modules.measures import Measure, families, find_measure, headline_of


@dataclass
class Run:
    """The contents of a run's folder. A table is None if its file is missing, empty or damaged."""

    path: Path
    config: dict
    arms: dict[str, dict]
    """The arms and their columns: those of arms.json, then others that have measurements."""
    table: Table | None
    results: DataFrame | None
    metrics: DataFrame | None
    gates: DataFrame | None
    divergence: DataFrame | None
    unfinished: dict[str, int | None] = field(default_factory=dict)
    """Trainings without a result, with the last step that each has logged, or None."""
    damaged: list[str] = field(default_factory=list)
    """Damaged files, by their paths in the folder."""
    failed: list[Failure] = field(default_factory=list)
    """Trainings that failed; they are not among the unfinished ones."""
    measures: dict[str, Measure] = field(default_factory=dict)
    """The measures that the study declared, by name."""
    declared: list[str] = field(default_factory=list)
    """The headline that the study declared; several for several runs side by side."""

    @cached_property
    def arm_styles(self) -> ArmStyles:
        """The arms' styles in figures."""
        return arm_styles(self.arms)

    @cached_property
    def headlines(self) -> list[Measure]:
        """The main measures of the results: as declared, else the one that `headline_of` finds."""
        names = self.declared or filter(None, [headline_of(self._measured())])
        found = [find_measure(name, self.measures) for name in names]
        return [measure for measure in found if measure is not None]

    @property
    def headline(self) -> Measure | None:
        return next(iter(self.headlines), None)

    @property
    def compares_domains(self) -> bool:
        """Whether networks are evaluated on a source and on targets, or were to be."""
        return "drop" in self.measures or has_domains(self.results)

    def family_members(self, family: str) -> list[str]:
        """The measures of a family that there are results of, such as `iou/road`."""
        named = [] if self.results is None or "measure" not in self.results else self.results["measure"].dropna()
        return families(dict.fromkeys(named), self.measures).get(family, [])

    @property
    def families(self) -> list[str]:
        """Families of measures that there are results of, or were to be."""
        named = [] if self.results is None or "measure" not in self.results else self.results["measure"].dropna()
        said = [measure.family for measure in self.measures.values() if measure.family]
        return list(dict.fromkeys([*said, *families(dict.fromkeys(named), self.measures)]))

    def _measured(self) -> set[str]:
        """Names of measures in the results, and of what was logged as DOMAIN/MEASURE."""
        results = self.results if self.results is not None and "measure" in self.results else None
        logged = [] if self.metrics is None else [column.rpartition("/") for column in self.metrics]
        named = {measure for domain, _, measure in logged if domain and domain != "train"}
        return named if results is None else {*results["measure"].dropna()} | named

    @property
    def domains(self) -> list[str]:
        """Source first, then the targets, then what else was measured."""
        flags = [*listed(self.config.get("source")), *listed(self.config.get("target"))]
        results = [] if self.results is None or "domain" not in self.results else self.results["domain"].dropna()
        logged = [] if self.metrics is None else [column.rpartition("/") for column in self.metrics]
        told_by = {headline.name for headline in self.headlines}
        metrics = [domain for domain, _, measure in logged if domain and measure in told_by]
        return list(dict.fromkeys([*flags, *results, *metrics]))


def read_run(path: Path) -> Run:
    """Read a run's folder; files may be missing or damaged.

    Raises:
        ValueError: it is no run's folder, or its tables name no arms.
    """
    if not any((path / name).is_file() for name in ("config.yaml", "results.csv", "metrics.csv")):
        raise ValueError(f"{path} is no run folder: it holds neither config.yaml nor results.csv nor metrics.csv.")
    files = PartialRun(path)
    headline, measures = files.measures or (None, {})
    return Run(
        path=path,
        config=files.config,
        arms=files.arms,
        table=files.closing_table,
        **files.frames,
        unfinished=files.unfinished,
        damaged=files.damaged,
        failed=files.failed,
        measures=measures,
        declared=[headline] if headline else [],
    )


def listed(value: object) -> list[str]:
    """A flag of one value or several as a list of texts."""
    return [] if value is None else [str(v) for v in value] if isinstance(value, (list, tuple)) else [str(value)]
