"""Trainings that --patience has ended early: how results keep it, and how the closing table says it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from experiments.study.run_parts import part_folder, read_result
from experiments.study.tables.table import Table

EARLY = "ended_early"
"""In result.json: a list of one row with the step of the end and the steps of the whole training."""


def early_end(steps: int, whole: int) -> dict[str, list[dict]]:
    """What results keep of a training that has ended after so many steps of the whole."""
    return {EARLY: [{"step": steps, "of": whole}]} if steps < whole else {}


def with_early_ends(table: Table | None, run: Path, arms: Iterable[str], seeds: Iterable[int]) -> Table | None:
    """The table, whose legend names the trainings that ended early: "bn after 80 and 96 of 160 steps"."""
    seeds, said = list(seeds), []
    for arm in arms:
        results = [read_result(part_folder(run, arm, seed)) or {} for seed in seeds]
        ends = [row for result in results for row in result.get(EARLY, [])]
        if ends:
            said.append(f"{arm} after {' and '.join(str(end['step']) for end in ends)} of {ends[0]['of']} steps")
    if table is None or not said:
        return table
    return dataclasses.replace(table, legend=f"{table.legend} Ended early, by --patience: {'; '.join(said)}.".strip())
