"""Turn what a study left in its run folder into report.html: one file to read, to send, to keep.

    python experiments/report.py runs/seg_gta2city

Reads config.yaml, arms.json, table.json, results.csv, metrics.csv, gates.parquet, divergence.csv and predictions/,
whichever of them there are, of any study; a run that was stopped half-way gets a report of what it had done. The page
needs no network.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.flags import ABOUT
from experiments.report_figures import draw_key, picture_uri, svg_uri
from experiments.report_run import Run, listed, read_run
from experiments.report_sections import (
    Section,
    divergence_section,
    drop_section,
    gate_section,
    table_section,
    training_section,
)

if TYPE_CHECKING:
    from experiments.tables import Row

PICTURE_BYTES = 1_600_000
"""What the embedded predictions may weigh together, in base64; a report is to be sent by mail."""


def write_report(run: Path) -> Path:
    """Write `report.html` into a run folder and return its path.

    Whatever is missing from the folder is missing from the page, with a line that says so; what a study does not have,
    such as a classifier's predictions, goes without saying.

    Raises:
        ValueError: where the folder holds none of config.yaml, results.csv and metrics.csv, or tables without arms.
    """
    from jinja2 import Environment, FileSystemLoader

    loaded = read_run(Path(run))
    pictures, left_out = prediction_pictures(loaded)
    templates = FileSystemLoader(Path(__file__).parent)
    page = Environment(loader=templates, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    title, question = _title(loaded)
    html = page.get_template("report.html.j2").render(
        run=loaded,
        config=loaded.config,
        title=title,
        question=question,
        colours={arm: look.colour for arm, look in loaded.cast.looks.items()},
        keys={name: svg_uri(draw_key(look)) for name, look in loaded.cast.key.items()},
        unfinished=unfinished(loaded),
        result=_result(loaded),
        sections=_sections(loaded),
        pictures=pictures,
        left_out=left_out,
        classes=_class_colours(loaded.config) if pictures else [],
        class_tables=class_tables(loaded),
        environment=_environment(loaded.config),
        flags=_flags(loaded.config),
        facts=_facts(loaded.arms),
    )
    report = loaded.path / "report.html"
    report.write_text(html, encoding="utf-8")
    return report


def prediction_pictures(run: Run) -> tuple[list[tuple[str, list[list[tuple[str, str]]]]], int]:
    """Each domain's examples, an example being (what, data URI) for image, truth and arms; and how many did not fit.

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
        files = {what: Path(f"{stem}-{what}.png") for what in ("image", "truth", *run.arms)}
        found = {what: picture_uri(file, photograph=what == "image") for what, file in files.items()}
        uris = [(what, uri) for what, uri in found.items() if uri]
        budget -= sum(len(uri) for _, uri in uris)
        if budget < 0:
            left_out += 1
        elif uris:
            shown[domain].append(uris)
    return [(domain, rows) for domain, rows in shown.items() if rows], left_out


def class_tables(run: Run) -> list[tuple[str, list[str], list[Row]]]:
    """For each domain its name, the arms, and a row a class: mean IoU over seeds in points, and whether it is best."""
    from experiments.tables import MISSING

    if run.results is None:
        return []
    columns = [column for column in run.results if column.startswith("iou/")]
    if not columns:
        return []
    tables = []
    for domain, rows in run.results.groupby("domain", sort=False):
        means = 100 * rows.groupby("arm", sort=False)[columns].mean().T.dropna(how="all")
        if not means.empty:
            body = []
            for name, row in means.round(1).iterrows():
                cells = [(MISSING if v != v else f"{v:.1f}", len(row) > 1 and v == row.max()) for v in row]
                body.append((str(name).removeprefix("iou/"), cells))
            tables.append((str(domain), list(means.columns), body))
    return tables


NAMED = 6
"""Trainings that are named where several are unfinished."""


def unfinished(run: Run) -> str:
    """What the page says at its top of a run that has not come to its end; "" of one that has."""
    begun = [f"{name} (last logged at step {step})" for name, step in run.unfinished.items() if step is not None]
    waiting = [name for name, step in run.unfinished.items() if step is None]
    parts = [
        f"{what} {', '.join(names[:NAMED])}{f' and {len(names) - NAMED} more' if len(names) > NAMED else ''}"
        for what, names in (("begun but not finished:", begun), ("nothing logged yet:", waiting))
        if names
    ]
    if not parts:
        return ""
    return f"This run had not come to its end when this page was made; {'; '.join(parts)}. --resume goes on with it."


def _result(run: Run) -> dict | None:
    """The closing table as the page shows it."""
    from experiments.domain_drop import DROP, TARGETS, verdict

    if run.table is None:
        return None
    rows = list(run.table.rows())
    judged = () if run.results is None else set(run.results["arm"])
    unfinished = [arm for arm in run.arms if arm not in judged] if judged else []
    return {
        "header": run.table.header(),
        "rows": rows,
        "colours": {name: run.cast.of_row(name).colour for name, _ in rows},
        "legend": run.table.legend,
        "marked": any(best for _, cells in rows for _, best in cells),
        "verdict": verdict(run.table) if {DROP, TARGETS} <= {*run.table.columns} else "",
        "unfinished": ", ".join(unfinished),
    }


def _sections(run: Run) -> list[Section]:
    """The chapters between the result and the predictions, without those that the study does not have."""
    result = drop_section(run) if run.segments else table_section(run)
    chapters = [result, training_section(run), gate_section(run), divergence_section(run)]
    return [chapter for chapter in chapters if chapter is not None]


def _title(run: Run) -> tuple[str, str]:
    """The page's title, and what else the question says: from domain to domain, or else the question's first words."""
    source, targets = listed(run.config.get("source")), listed(run.config.get("target"))
    question = str(run.config.get("question") or "")
    if source and targets:
        return f"{', '.join(source)} → {', '.join(targets)}", question
    first, _, rest = re.sub(r"(?<=[.?!]) ", "\n", question, count=1).partition("\n")
    return first or run.path.resolve().name, rest


def _facts(arms: dict[str, dict]) -> tuple[list[str], list[list[str]]] | None:
    """What the arms are, as a table: headings and rows; None where their names say it all."""
    facts = list(dict.fromkeys(fact for known in arms.values() for fact in known))
    if all(arm == known.get("norm") for arm, known in arms.items()) and facts in ([], ["norm"]):
        return None
    rows = [[arm, *("" if (fact := known.get(f)) is None else str(fact) for f in facts)] for arm, known in arms.items()]
    return ["arm", *facts], rows


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
        if name not in ABOUT and value not in (None, [])
    }


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
