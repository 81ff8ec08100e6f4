"""report.html: a study's run folder as one self-contained page.

It is made from config.yaml, arms.json, table.json, examples/ and the folders of the trainings, for any study. Files may
be missing: a run that was stopped or is still training gets a report of its results so far. The page loads nothing from
the internet.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader

from datamodules.whole_file import write_whole
from experiments.reporting.differences_section import TITLE, differences_section
from experiments.reporting.figures import draw_key, picture_uri, svg_uri
from experiments.reporting.run import Run, listed, read_run
from experiments.reporting.sections import (
    Section,
    divergence_section,
    drop_section,
    gate_section,
    table_section,
    training_section,
)
from experiments.reporting.side_by_side import joined, pictures, run_names
from experiments.study.flags import ABOUT
from experiments.study.run_parts import EXAMPLES, readable
from experiments.study.tables.domain_drop import DROP, POINTS, TARGETS, verdict
from lightning_modules.examples import ExampleFiles, read_examples
from lightning_modules.gates.figures import draw_gates
from lightning_modules.measures import measure_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from experiments.study.tables.table import Row

PICTURE_BYTES = 1_600_000
"""Most bytes (base64) of all embedded predictions, so that a report can be sent by mail."""


def write_report(run: Path) -> Path:
    """Write `report.html` into a run folder and return its path.

    If a file is missing, the page has a sentence instead; chapters that a study cannot have, such as gates, are left
    out.

    Raises:
        ValueError: the folder holds none of config.yaml, results.csv and metrics.csv, or tables without arms.
    """
    loaded = read_run(Path(run))
    report = loaded.path / "report.html"
    html = _html(loaded, loaded.path.resolve().name, *_title(loaded), *prediction_pictures(loaded))
    write_whole(report, html.encode("utf-8", "replace"))
    return report


def write_side_by_side(runs: list[Path]) -> Path:
    """Write one page for several runs into the folder that holds them all, and return its path.

    Raises:
        ValueError: as `write_report`; or there are fewer than two runs, or one of them twice.
    """
    loaded = [read_run(Path(run)) for run in runs]
    whole = joined(loaded)
    found = [prediction_pictures(run, PICTURE_BYTES // len(runs)) for run in loaded]
    shown, left_out = pictures(loaded, [pictures_ for pictures_, _ in found]), sum(count for _, count in found)
    names = run_names([run.path for run in loaded])
    questions = list(dict.fromkeys(str(run.config["question"]) for run in loaded if run.config.get("question")))
    page = whole.path / "side-by-side.html"
    html = _html(whole, f"{len(runs)} runs", " beside ".join(names), " ".join(questions), shown, left_out)
    write_whole(page, html.encode("utf-8", "replace"))
    return page


def draw_last_gates(run: Run, picture: Path) -> Path:
    """Draw a run's gates as they were last recorded, of all arms on one sheet, and return the picture's path.

    Raises:
        ValueError: it has none.
    """
    if run.gates is None:
        raise ValueError(f"{run.path} has no gates to draw.")
    draw_gates(run.gates).savefig(picture, dpi=110)
    return picture


def _html(loaded: Run, over: str, title: str, question: str, pictures: list, left_out: int) -> str:
    """The page.

    Args:
        over: what stands over the title. pictures, left_out: as `prediction_pictures` returns them.
    """
    templates = FileSystemLoader(Path(__file__).parents[1] / "reporting")
    page = Environment(loader=templates, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page.tests["in_words"] = in_words
    page.globals["words_in"] = lambda examples: any(in_words(told) for one in examples for _, told in one)
    return page.get_template("report.html.j2").render(
        run=loaded,
        over=over,
        config=loaded.config,
        title=title,
        question=question,
        colours={arm: style.colour for arm, style in loaded.arm_styles.styles.items()},
        keys={name: svg_uri(draw_key(style)) for name, style in loaded.arm_styles.key.items()},
        unfinished=unfinished(loaded),
        damaged=damaged(loaded),
        failed=failed(loaded),
        result=readable(lambda: _result(loaded)),
        sections=_sections(loaded),
        pictures=pictures,
        left_out=left_out,
        classes=_class_colours(loaded.config) if pictures else {},
        family_tables=readable(lambda: family_tables(loaded)) or [],
        environment=_environment(loaded.config),
        flags=_flags(loaded.config),
        columns=_columns(loaded.arms),
    )


def prediction_pictures(
    run: Run, budget: int | None = None
) -> tuple[list[tuple[str, list[list[tuple[str, str]]]]], int]:
    """Each domain's examples, and how many did not fit. An example is (what, data URI or text) for the picture, the
    truth and the arms' predictions.

    Every domain gets its first example before any gets a second.

    Args:
        budget: bytes that they may weigh together; by default PICTURE_BYTES.
    """
    order = {domain: i for i, domain in enumerate(run.domains)}
    found = read_examples(run.path / EXAMPLES, run.arms)
    found.sort(key=lambda one: (order.get(one.domain, len(order)), one.domain, one.index))
    shown: dict[str, list] = {one.domain: [] for one in found}
    found.sort(key=lambda one: one.index)
    budget, left_out = PICTURE_BYTES if budget is None else budget, 0
    for example in found:
        told = shown_example(example)
        budget -= sum(len(uri) for _, uri in told)
        if budget < 0:
            left_out += 1
        elif told:
            shown[example.domain].append(told)
    return [(domain, rows) for domain, rows in shown.items() if rows], left_out


def in_words(told: str) -> bool:
    """Whether a part of an example is a text, and not a picture's data URI."""
    return not told.startswith("data:")


def shown_example(example: ExampleFiles) -> list[tuple[str, str]]:
    """An example as (what, data URI or text), without pictures that cannot be read."""
    told = {"image": picture_uri(example.picture, photograph=True)}
    told["truth"] = example.truth if isinstance(example.truth, str) else picture_uri(example.truth, photograph=False)
    for arm, prediction in example.predictions.items():
        if isinstance(prediction, str):
            mark = {True: "✓ ", False: "✗ "}[prediction == example.truth] if isinstance(example.truth, str) else ""
            told[arm] = mark + ", ".join(filter(None, (prediction, example.notes.get(arm))))
        else:
            told[arm] = picture_uri(prediction, photograph=False)
    return [(what, text) for what, text in told.items() if text]


def family_tables(run: Run) -> list[tuple[str, str, list[str], list[Row]]]:
    """For each family of measures and each domain: the domain, the heading, the arms, and a row a member.

    A cell is the mean over seeds as it is shown, and whether it is the best of its row.
    """
    return [table for family in run.families for table in _family_tables(run, family)]


def _family_tables(run: Run, family: str) -> Iterator[tuple[str, str, list[str], list[Row]]]:
    members = run.family_members(family)
    if not members:
        return
    measure = measure_of(f"{family}/*", run.measures)
    heading = f"{measure.label.partition(' of ')[0]}, {'points' if measure.is_share else measure.unit}".rstrip(", ")
    chosen = run.results[run.results["measure"].isin(members)]
    for domain, rows in chosen.groupby("domain", sort=False):
        means = rows.pivot_table(index="measure", columns="arm", values="value", sort=False)
        body = []
        for name, row in means.iterrows():
            texts = [measure.text(value) for value in row]
            best = measure.text(row.min() if measure.smaller_is_better else row.max())
            member = str(name).partition("/")[2]
            body.append((member, [(text, len(row) > 1 and text == best) for text in texts]))
        yield str(domain), heading, list(means.columns), body


NAMED = 6
"""Most trainings that a note names."""


def unfinished(run: Run) -> str:
    """The note at the top of the page if the run is not finished, else ""."""
    begun = [f"{name} (last logged at step {step})" for name, step in run.unfinished.items() if step is not None]
    waiting = [name for name, step in run.unfinished.items() if step is None]
    parts = [
        f"{what} {', '.join(names[:NAMED])}{f' and {len(names) - NAMED} more' if len(names) > NAMED else ''}"
        for what, names in (("begun but not finished:", begun), ("nothing logged yet:", waiting))
        if names
    ]
    if not parts:
        return ""
    return f"This run was not finished when this page was written; {'; '.join(parts)}. --resume continues it."


def damaged(run: Run) -> str:
    """The note at the top of the page on damaged files; "" if there are none."""
    names = run.damaged
    if not names:
        return ""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"Damaged and therefore left out: {', '.join(names[:NAMED])}{more}."


def failed(run: Run) -> str:
    """The note at the top of the page on failed trainings; "" if there are none."""
    some = [str(failure) for failure in run.failed[:NAMED]]
    if not some:
        return ""
    more = f"; and {len(run.failed) - NAMED} more" if len(run.failed) > NAMED else ""
    kept = "Those that finished an epoch keep their last checkpoint, which is finite."
    return f"Failed, without a result: {'; '.join(some)}{more}. {kept}"


def _result(run: Run) -> dict | None:
    """The closing table as the template takes it."""
    if run.table is None:
        return None
    rows = list(run.table.rows())
    evaluated = set() if run.results is None else set(run.results["arm"])
    failed = {failure.arm for failure in run.failed}
    unfinished = [arm for arm in run.arms if arm not in evaluated | failed] if evaluated else []
    return {
        "header": run.table.header(),
        "rows": rows,
        "colours": {name: run.arm_styles.of_row(name).colour for name, _ in rows},
        "legend": run.table.legend,
        "marked": any(best for _, cells in rows for _, best in cells),
        "verdict": verdict(run.table, run.headline or POINTS) if {DROP, TARGETS} <= {*run.table.columns} else "",
        "unfinished": ", ".join(unfinished),
    }


def _sections(run: Run) -> list[Section]:
    """The chapters between the result and the predictions that this study has."""
    result = drop_section if run.compares_domains else table_section
    made = (
        _chapter(make, run)
        for make in (result, differences_section, training_section, gate_section, divergence_section)
    )
    return [chapter for chapter in made if chapter is not None]


CHAPTERS = {
    "drop_section": "The drop",
    "table_section": "The result as a figure",
    "differences_section": TITLE,
    "training_section": "Training",
    "gate_section": "What the gates learned",
    "divergence_section": "Feature divergence between the domains",
}


def _chapter(make: Callable[[Run], Section | None], run: Run) -> Section | None:
    """A chapter, or a sentence that says that its data cannot be drawn."""
    try:
        return make(run)
    except Exception as error:  # the other chapters must still be written
        print(f"report: {run.path}: {CHAPTERS[make.__name__]}: {error!r}", file=sys.stderr)
        return Section(CHAPTERS[make.__name__], absent="The data of this chapter cannot be drawn.")


def _title(run: Run) -> tuple[str, str]:
    """The page's title, and what else the question says: from domain to domain, or else the question's first words."""
    source, targets = listed(run.config.get("source")), listed(run.config.get("target"))
    question = str(run.config.get("question") or "")
    if source and targets:
        return f"{', '.join(source)} → {', '.join(targets)}", question
    first, _, rest = re.sub(r"(?<=[.?!]) ", "\n", question, count=1).partition("\n")
    return first or run.path.resolve().name, rest


def _columns(arms: dict[str, dict]) -> tuple[list[str], list[list[str]]] | None:
    """The arms and their columns as a table (headings and rows); None if their names say everything."""
    columns = list(dict.fromkeys(column for known in arms.values() for column in known))
    if all(arm == known.get("norm") for arm, known in arms.items()) and columns in ([], ["norm"]):
        return None
    rows = [
        [arm, *("" if (column := known.get(f)) is None else str(column) for f in columns)]
        for arm, known in arms.items()
    ]
    return ["arm", *columns], rows


def _class_colours(config: dict) -> dict[str, str]:
    """The names of the colours in example pictures, if the study gives them, and the colours as "#rrggbb"."""
    found = config.get("colours")
    found = found if isinstance(found, dict) else {}
    return {str(name): str(colour) for name, colour in found.items() if re.fullmatch("#[0-9a-f]{6}", str(colour))}


def _environment(config: dict) -> dict[str, str]:
    columns = {"machine": config.get("machine"), "git revision": config.get("git")}
    minutes = config.get("minutes")
    if isinstance(minutes, (int, float)):
        columns["time"] = f"{minutes:.0f} minutes" if minutes >= 2 else f"{60 * minutes:.0f} seconds"
    versions = config.get("versions")
    columns |= versions if isinstance(versions, dict) else {}
    return {name: str(column) for name, column in columns.items() if column is not None}


def _flags(config: dict) -> dict[str, str]:
    return {
        name: ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in config.items()
        if name not in ABOUT and value not in (None, [])
    }
