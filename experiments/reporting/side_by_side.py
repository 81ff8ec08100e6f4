"""Several runs as one, for a page that shows them side by side.

An arm of the whole is called "RUN · ARM" and looks as it does in its own run's report; figures have a panel a run, on
axes of one scale where a single report has one scale.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pandas as pd
from pandas import DataFrame

from experiments.reporting.arm_styles import ArmStyles
from experiments.reporting.run import Run, listed
from experiments.study.reader import distinct_names
from experiments.study.run_files import FILES
from experiments.study.tables.table import STATISTICS, Table

DOMAINS = ("source", "target")


def joined(runs: list[Run]) -> Run:
    """The runs as one, in their order; each is called after its folder, or after as much of its path as tells it apart.

    Raises:
        ValueError: where there are fewer than two, or one of them twice.
    """
    named = dict(zip(run_names([run.path for run in runs]), runs, strict=True))
    arms = {
        label(name, arm): {"run": name, **columns} for name, run in named.items() for arm, columns in run.arms.items()
    }
    frames = [_frames({name: getattr(run, kind) for name, run in named.items()}) for kind in FILES]
    unfinished = {label(name, part): step for name, run in named.items() for part, step in run.unfinished.items()}
    parent = Path(os.path.commonpath([run.path.resolve() for run in runs]))
    whole = Run(parent, config({name: run.config for name, run in named.items()}), arms, _table(named), *frames)
    whole.unfinished, whole.arm_styles = unfinished, _arm_styles(named)
    whole.measures = {name: measure for run in reversed(runs) for name, measure in run.measures.items()}
    whole.declared = list(dict.fromkeys(headline.name for run in runs for headline in run.headlines))
    whole.failed = [
        dataclasses.replace(failure, arm=label(name, failure.arm))
        for name, run in named.items()
        for failure in run.failed
    ]
    return whole


def run_names(paths: list[Path]) -> list[str]:
    """The last parts of the paths, as many as make them different."""
    whole = [path.resolve() for path in paths]
    if len(whole) < 2 or len(set(whole)) < len(whole):
        raise ValueError("name two runs or more, each of them once.")
    return distinct_names(whole)


def label(run: str, name: str) -> str:
    """The name of something of a run on the page of several runs."""
    return f"{run} · {name}"


def config(configs: dict[str, dict]) -> dict:
    """The runs' config.yaml as one: a value once if they agree, and run by run if they differ."""
    merged = {}
    for key in dict.fromkeys(key for each in configs.values() for key in each):
        values = {name: each.get(key) for name, each in configs.items()}
        first, *others = values.values()
        if all(other == first for other in others):
            merged[key] = first
        elif key in DOMAINS:
            merged[key] = list(dict.fromkeys(domain for value in values.values() for domain in listed(value)))
        elif key == "command":
            merged[key] = "\n".join(str(value) for value in values.values() if value)
        elif all(isinstance(value, dict) for value in values.values()):
            merged[key] = config(values)
        else:
            merged[key] = "; ".join(f"{name}: {', '.join(listed(value)) or '–'}" for name, value in values.items())
    return merged


def pictures(runs: list[Run], shown: list[list[tuple[str, list]]]) -> list[tuple[str, list]]:
    """Each domain's examples from the pages of the single runs, with those of one image in one row.

    Args:
        shown: for each run what `prediction_pictures` found.
    """
    domains: dict[str, dict] = {}
    for name, run, found in zip(run_names([run.path for run in runs]), runs, shown, strict=True):
        for domain, examples in found:
            for example in examples:
                seen = [(what, told) for what, told in example if what not in run.arms]  # the image and the truth
                row = domains.setdefault(domain, {}).setdefault(tuple(seen), seen)
                row += [(label(name, what), uri) for what, uri in example if what in run.arms]
    return [(domain, list(rows.values())) for domain, rows in domains.items()]


def _frames(frames: dict[str, DataFrame | None]) -> DataFrame | None:
    """The frames below one another, their arms renamed."""
    renamed = []
    for name, frame in frames.items():
        if frame is not None:
            arms = frame["arm"].map(lambda arm, name=name: label(name, arm))
            renamed.append(frame.assign(arm=arms, run=name))
    return pd.concat(renamed, ignore_index=True) if renamed else None


def _table(runs: dict[str, Run]) -> Table | None:
    """The closing tables below one another; a column that a run does not have is not measured there."""
    tables = {name: run.table for name, run in runs.items() if run.table is not None}
    if not tables:
        return None
    cells = pd.concat([t.cells.rename(lambda row, name=name: label(name, row)) for name, t in tables.items()])
    columns = dict.fromkeys(column for table in tables.values() for column in table.columns)
    cells = cells[[(column, part) for column in columns for part in STATISTICS]]
    counts = [(column, "n") for column in columns]
    cells[counts] = cells[counts].fillna(0)
    legends = list(dict.fromkeys(table.legend for table in tables.values()))
    return Table(
        cells,
        " ".join(legends),
        " / ".join(dict.fromkeys(table.corner for table in tables.values())),
        frozenset().union(*(table.smaller for table in tables.values())),
        frozenset().union(*(table.unranked for table in tables.values())),
        {column: digits for table in tables.values() for column, digits in table.digits.items()},
        {label(name, row): count for name, table in tables.items() for row, count in table.failed.items()},
        frozenset(label(name, row) for name, table in tables.items() for row in table.unlearned),
    )


def _arm_styles(runs: dict[str, Run]) -> ArmStyles:
    styles, key, groups, left_out = {}, {}, {}, []
    for name, run in runs.items():
        styles |= {label(name, arm): style for arm, style in run.arm_styles.styles.items()}
        for shown, style in run.arm_styles.key.items():
            key[shown if key.get(shown, style) == style else label(name, shown)] = style
        for group, arms in run.arm_styles.groups.items():
            groups[f"{name}, {group}" if group else name] = [label(name, arm) for arm in arms]
        left_out += [label(name, arm) for arm in run.arm_styles.left_out]
    return ArmStyles(styles, key, groups, left_out)
