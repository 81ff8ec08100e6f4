"""The drop from source to targets, and what is said of it, on three norms whose numbers were worked out by hand."""

from io import StringIO

import numpy as np
import pandas as pd
import pytest

from experiments.study.tables.domain_drop import drop_table, has_domains, seed_scores, verdict
from experiments.study.tables.printed import print_table
from lightning_modules.measures import Measure
from tests.experiments.three_norms import MIOU, SOURCE, TARGETS, results


def test_table_by_hand():
    table = drop_table(results())
    assert list(table.cells.index) == ["bn", "sn", "bin"]
    assert table.columns == [SOURCE, *TARGETS, "mean of targets", "drop", "kept"]
    bn = table.cells.loc["bn"]
    assert bn[SOURCE, "mean"] == pytest.approx(61)
    assert bn[SOURCE, "sd"] == pytest.approx(2**0.5)  # 60 and 62, n - 1
    assert bn["mean of targets", "mean"] == pytest.approx(33.5)  # 35 and 32
    assert bn["drop", "mean"] == pytest.approx(27.5)
    assert bn["drop", "sd"] == pytest.approx(5 / 2**0.5)
    assert bn["drop", "n"] == 2
    assert bn["kept", "mean"] == pytest.approx((35 / 60 + 32 / 62) * 50)
    assert bn["kept", "sd"] == pytest.approx(100 * (35 / 60 - 32 / 62) / 2**0.5)
    marked = {norm: [text for text, best in cells if best] for norm, cells in table.rows()}
    best = ["62.0 ± 1.4", "42.0 ± 1.4", "46.0 ± 1.4", "44.0 ± 1.4", "18.0 ± 0.0", "71 ± 1"]
    assert marked == {"bn": [], "sn": best, "bin": []}


def test_what_is_kept_is_said_of_scores_alone():
    assert drop_table(results()).legend.count("kept: mean of targets in percent of the source") == 1
    error = Measure("miou", "error", better="lower")
    assert drop_table(results(), error).columns[-1] == "drop"


def test_the_legend_names_the_classes_of_each_mean():
    rows = results()
    assert "Means are" not in drop_table(rows).legend  # results of before
    rows["mean_over"] = "19 classes, where they occur"
    assert drop_table(rows).legend.endswith(" Means are over 19 classes, where they occur.")
    rows.loc[rows["domain"] == TARGETS[1], "mean_over"] = "16 classes, where they occur"
    words = (
        f"over 19 classes, where they occur: {SOURCE}, {TARGETS[0]}; over 16 classes, where they occur: {TARGETS[1]}."
    )
    assert drop_table(rows).legend.endswith(words)


def test_table_as_text():
    table = drop_table(results())
    lines = table.markdown().splitlines()
    assert lines[0] == "| norm | seeds | streets-game | streets-night | camvid:test | mean of targets | drop | kept |"
    assert lines[2] == "| bn | 2 | 61.0 ± 1.4 | 29.0 ± 1.4 | 38.0 ± 2.8 | 33.5 ± 2.1 | 27.5 ± 3.5 | 55 ± 5 |"
    assert "**18.0 ± 0.0**" in lines[3]
    from rich.console import Console

    printed = StringIO()
    print_table(table, Console(file=printed, width=80))
    rows = [line.split() for line in printed.getvalue().splitlines()]
    assert ["bn", "2", "61.0±1.4", "29.0±1.4", "38.0±2.8", "33.5±2.1", "27.5±3.5", "55±5"] in rows
    narrow = StringIO()
    print_table(table, Console(file=narrow, width=30))
    assert "27.5±3.5" in narrow.getvalue()


def test_one_seed_has_no_spread():
    table = drop_table(results({norm: {0: seeds[0]} for norm, seeds in MIOU.items()}))
    assert "±" not in table.markdown()
    assert "one seed" in verdict(table)


def test_a_resumed_run_counts_once():
    table = drop_table(pd.concat([results({"bn": {0: (0.1, 0.1, 0.1)}}), results()]))
    assert table.cells.loc["bn", (SOURCE, "mean")] == pytest.approx(61)


def test_a_seed_without_all_targets_has_no_drop():
    rows = results()
    cut = rows.drop(rows.index[(rows["arm"] == "bn") & (rows["seed"] == 1) & (rows["domain"] == TARGETS[1])])
    table = drop_table(cut)
    assert np.isnan(seed_scores(cut).loc[("bn", 1), "drop"])
    assert table.cells.loc["bn", ("drop", "mean")] == pytest.approx(25)
    assert next(cells[0][0] for norm, cells in table.rows() if norm == "bn") == "1–2"


def test_verdict_is_honest():
    # 19 - 18 = 1 lies within sqrt(0 + 1.41^2); 27.5 - 18 = 9.5 lies beyond 3.5
    assert "too wide to tell it from BIN;" in verdict(drop_table(results()))
    clear = verdict(drop_table(results({norm: MIOU[norm] for norm in ("bn", "sn")})))
    assert clear.startswith("SN loses least, 18.0 points from source to targets, 9.5 fewer than BN (the seeds' spread:")
    assert "also the highest on the targets, 44.0" in clear
    poor = verdict(drop_table(results({"in": {0: (0.1, 0.05, 0.05)}, "bn": {0: (0.6, 0.3, 0.4)}})))
    assert poor.startswith("IN loses least") and "the highest on the targets is BN, 35.0 against its 5.0" in poor
    close = verdict(drop_table(results({"in": {0: (0.2, 0.0964, 0.0964)}, "bn": {0: (0.2, 0.0906, 0.0906)}})))
    assert "10.4 points" in close and "0.5 fewer than BN" in close  # 10.36 and 10.94 in the table
    assert "no other norm" in verdict(drop_table(results({"bn": MIOU["bn"]})))
    only_source = results()[lambda rows: rows["role"] == "source"]
    assert "no drop to compare" in verdict(drop_table(only_source))


def test_other_studies_have_no_drop():
    assert has_domains(results()) and not has_domains(None)
    assert not has_domains(results().drop(columns="role")) and not has_domains(results().assign(role="val"))
