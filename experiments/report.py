"""Turn what a study left in its run folder into report.html: one file to read, to send, to keep.

    python experiments/report.py runs/seg_gta2city

Reads config.yaml, results.csv, metrics.csv, gates.parquet, divergence.csv and predictions/, whichever of them there
are; a run that was stopped half-way gets a report of what it had done. The page needs no network.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.flags import ABOUT
from experiments.report_figures import draw_key, norm_colour, picture_uri, svg_uri
from experiments.report_sections import divergence_section, drop_section, gate_section, training_section

if TYPE_CHECKING:
    from pandas import DataFrame

PICTURE_BYTES = 1_600_000
"""What the embedded predictions may weigh together, in base64; a report is to be sent by mail."""


@dataclass
class Run:
    """What a run folder holds. A frame is None where its file is missing, empty or damaged."""

    path: Path
    config: dict
    results: DataFrame | None
    metrics: DataFrame | None
    gates: DataFrame | None
    divergence: DataFrame | None

    @property
    def norms(self) -> list[str]:
        """The norms of the flags and whatever else was measured, in that order."""
        frames = (self.results, self.metrics, self.gates, self.divergence)
        measured = [norm for frame in frames if frame is not None for norm in frame["norm"].unique()]
        return list(dict.fromkeys([*_listed(self.config.get("norm")), *measured]))

    @property
    def domains(self) -> list[str]:
        """Source first, then the targets, then what else was measured."""
        flags = [*_listed(self.config.get("source")), *_listed(self.config.get("target"))]
        results = [] if self.results is None else [*self.results["domain"].unique()]
        metrics = [] if self.metrics is None else [c[: -len("/miou")] for c in self.metrics if c.endswith("/miou")]
        return list(dict.fromkeys([*flags, *results, *metrics]))


def write_report(run: Path) -> Path:
    """Write `report.html` into a run folder and return its path.

    Whatever is missing from the folder is missing from the page, with a line that says so.

    Raises:
        ValueError: where the folder holds none of config.yaml, results.csv and metrics.csv.
    """
    from jinja2 import Environment, FileSystemLoader

    loaded = read_run(Path(run))
    pictures, left_out = prediction_pictures(loaded)
    templates = FileSystemLoader(Path(__file__).parent)
    page = Environment(loader=templates, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    html = page.get_template("report.html.j2").render(
        run=loaded,
        config=loaded.config,
        title=_title(loaded),
        colours={norm: norm_colour(norm) for norm in loaded.norms},
        keys={norm: svg_uri(draw_key(norm)) for norm in loaded.norms},
        result=_result(loaded),
        sections=[drop_section(loaded), training_section(loaded), gate_section(loaded), divergence_section(loaded)],
        pictures=pictures,
        left_out=left_out,
        classes=_class_colours(loaded.config),
        class_tables=class_tables(loaded),
        environment=_environment(loaded.config),
        flags=_flags(loaded.config),
    )
    report = loaded.path / "report.html"
    report.write_text(html, encoding="utf-8")
    return report


def read_run(path: Path) -> Run:
    """Read a run folder, forgiving whatever a killed run left behind. Raises ValueError where it is no run folder."""
    import pandas as pd
    import yaml

    if not any((path / name).is_file() for name in ("config.yaml", "results.csv", "metrics.csv")):
        raise ValueError(f"{path} is no run folder: it holds neither config.yaml nor results.csv nor metrics.csv.")

    def frame(name: str, columns: tuple[str, ...]) -> DataFrame | None:
        file = path / name
        try:
            table = pd.read_parquet(file) if name.endswith(".parquet") else pd.read_csv(file, on_bad_lines="skip")
            for column in table.columns.difference(["norm", "domain", "role", "layer", "statistic", "label"]):
                table[column] = pd.to_numeric(table[column], errors="coerce")
        except (OSError, ValueError):  # not there, empty, or cut off in the middle
            return None
        if not set(columns) <= set(table.columns):
            return None
        table = table.dropna(subset=list(columns)).reset_index(drop=True)
        return table if len(table) else None

    try:
        config = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        config = None
    return Run(
        path,
        config if isinstance(config, dict) else {},
        frame("results.csv", ("norm", "seed", "domain", "role", "miou")),
        frame("metrics.csv", ("norm", "seed", "step")),
        frame("gates.parquet", ("norm", "seed", "epoch", "step", "layer", "depth", "statistic", "label", "value")),
        frame("divergence.csv", ("norm", "seed", "domain", "depth", "mean")),
    )


def prediction_pictures(run: Run) -> tuple[list[tuple[str, list[list[tuple[str, str]]]]], int]:
    """Each domain's examples, an example being (what, data URI) for image, truth and norms; and how many did not fit.

    Every domain gets its first example before any gets a second.
    """
    examples = []
    for file in (run.path / "predictions").glob("*-image.png"):
        domain, _, index = file.name.removesuffix("-image.png").rpartition("-")
        if domain and index.isdigit():
            examples.append((int(index), domain))
    order = {domain: i for i, domain in enumerate(run.domains)}
    shown: dict[str, list] = {domain: [] for domain in sorted({d for _, d in examples}, key=lambda d: order.get(d, 99))}
    budget, left_out = PICTURE_BYTES, 0
    for index, domain in sorted(examples, key=lambda e: (e[0], order.get(e[1], 99))):
        stem = run.path / "predictions" / f"{domain}-{index}"
        files = {what: Path(f"{stem}-{what}.png") for what in ("image", "truth", *run.norms)}
        found = {what: picture_uri(file, photograph=what == "image") for what, file in files.items()}
        uris = [(what, uri) for what, uri in found.items() if uri]
        budget -= sum(len(uri) for _, uri in uris)
        if budget < 0:
            left_out += 1
        elif uris:
            shown[domain].append(uris)
    return [(domain, rows) for domain, rows in shown.items() if rows], left_out


def class_tables(run: Run) -> list[tuple[str, list[str], list[tuple[str, list[tuple[str, bool]]]]]]:
    """For each domain its name, the norms, and a row a class: mean IoU over seeds in points, and whether it is best."""
    from experiments.tables import MISSING

    if run.results is None:
        return []
    columns = [column for column in run.results if column.startswith("iou/")]
    tables = []
    for domain, rows in run.results.groupby("domain", sort=False):
        means = 100 * rows.groupby("norm", sort=False)[columns].mean().T.dropna(how="all")
        if not means.empty:
            body = []
            for name, row in means.round(1).iterrows():
                cells = [(MISSING if v != v else f"{v:.1f}", len(row) > 1 and v == row.max()) for v in row]
                body.append((str(name).removeprefix("iou/"), cells))
            tables.append((str(domain), list(means.columns), body))
    return tables


def _result(run: Run) -> dict | None:
    """The closing table as the page shows it."""
    from experiments.tables import closing_table, legend, table_header, table_rows, verdict

    if run.results is None:
        return None
    table = closing_table(run.results)
    unfinished = [norm for norm in run.norms if norm not in table.index]
    return {
        "header": table_header(table),
        "rows": list(table_rows(table)),
        "legend": legend(table),
        "verdict": verdict(table),
        "unfinished": ", ".join(unfinished),
    }


def _title(run: Run) -> str:
    source, targets = _listed(run.config.get("source")), _listed(run.config.get("target"))
    return f"{', '.join(source)} → {', '.join(targets)}" if source and targets else run.path.resolve().name


def _class_colours(config: dict) -> list[tuple[str, str]]:
    from datamodules.labels import DRIVABLE, STREET

    space = DRIVABLE if config.get("label_space") == "drivable" else STREET
    return [(name, "#{:02x}{:02x}{:02x}".format(*rgb)) for name, rgb in zip(space.classes, space.palette, strict=True)]


def _environment(config: dict) -> dict[str, str]:
    facts = {"machine": config.get("machine"), "git revision": config.get("git")}
    minutes = config.get("minutes")
    if isinstance(minutes, (int, float)):
        facts["time"] = f"{minutes:.0f} minutes" if minutes >= 2 else f"{60 * minutes:.0f} seconds"
    versions = config.get("versions")
    facts |= versions if isinstance(versions, dict) else {}
    return {name: str(fact) for name, fact in facts.items() if fact is not None}


def _flags(config: dict) -> dict[str, str]:
    return {
        name: ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in config.items()
        if name not in ABOUT and value is not None
    }


def _listed(value: object) -> list[str]:
    return [] if value is None else [str(v) for v in value] if isinstance(value, (list, tuple)) else [str(value)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Write report.html, one self-contained page, into a run's folder.")
    parser.add_argument("run", type=Path, nargs="+", metavar="RUN", help="folder of a run, such as runs/seg_gta2city")
    flags = parser.parse_args()
    failed = False
    for run in flags.run:
        try:
            print(write_report(run))
        except (OSError, ValueError) as error:
            print(f"report: {error}", file=sys.stderr)
            failed = True
    sys.exit(failed)


if __name__ == "__main__":
    main()
