"""The closing table of any study, against numbers worked out by hand."""

import json
from io import StringIO

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from experiments.study.tables.printed import print_table
from experiments.study.tables.table import Table, table_of

NAN = np.nan

# (arm, seed) -> top-1 in per cent, error under corruption, parameters in millions
SCORES = {
    ("plain", 0): (70.0, 41.0, 11.2),
    ("plain", 1): (74.0, 45.0, 11.2),
    ("blurred", 0): (72.04, 40.0, 11.2),
    ("blurred", 1): (72.02, 42.0, 11.2),
    ("wide", 0): (60.0, NAN, 44.7),
}
SETTINGS = {
    "corner": "network",
    "smaller": frozenset({"error"}),
    "unranked": frozenset({"parameters"}),
    "digits": {"parameters": 2},
}


def scores(rows: dict = SCORES) -> pd.DataFrame:
    index = pd.MultiIndex.from_tuples(rows, names=["arm", "seed"])
    return pd.DataFrame(list(rows.values()), index, ["top-1", "error", "parameters"])


def cells(table: Table) -> dict[str, list[str]]:
    """The rows as texts, a best one with a star."""
    return {name: [text + "*" * best for text, best in row] for name, row in table.rows()}


def test_rows_by_hand():
    table = table_of(scores(), "In per cent.", **SETTINGS)
    assert table.header() == ["network", "seeds", "top-1", "error", "parameters"]
    # sd of 70 and 74 is 4 / sqrt 2 = 2.83; 72.0 is the best of two that print alike; parameters have no best
    assert cells(table) == {
        "plain": ["2", "72.0 ± 2.8*", "43.0 ± 2.8", "11.20"],
        "blurred": ["2", "72.0 ± 0.0*", "41.0 ± 1.4*", "11.20"],
        "wide": ["1", "60.0", "–", "44.70"],
    }
    assert table.legend == "In per cent. ±: standard deviation over seeds. –: not measured."
    assert table.cells.loc["plain", ("top-1", "sd")] == pytest.approx(8**0.5)
    assert table.cells.loc["wide", ("error", "n")] == 0


def test_rows_keep_the_order_of_the_run_and_say_how_many_seeds_each_cell_has():
    rows = SCORES | {("plain", 2): (73.0, NAN, 11.2)}
    table = table_of(scores(rows), "", **SETTINGS)
    assert list(cells(table)) == ["plain", "blurred", "wide"] and cells(table)["plain"][0] == "2–3"


def test_spread_goes_where_the_legend_wants_it():
    one = {key: row for key, row in SCORES.items() if key[1] == 0 and key[0] != "wide"}
    assert table_of(scores(one), "points{spread}.").legend == "points, one seed."
    assert table_of(scores(one), "Points.").legend == "Points. One seed."
    assert "points ± standard deviation over seeds." in table_of(scores(), "points{spread}.").legend


def test_an_unranked_column_keeps_a_spread_that_is_there():
    rows = {("a", 0): (1, 1, 10.0), ("a", 1): (1, 1, 12.0), ("b", 0): (1, 1, 3.0)}
    assert cells(table_of(scores(rows), "", **SETTINGS))["a"][-1] == "11.00 ± 1.41"


def test_a_lone_row_is_best_at_nothing_nor_is_one_whose_rivals_were_not_measured():
    alone = table_of(scores().loc[["plain"]], "")
    assert not any(best for _, row in alone.rows() for _, best in row)
    table = table_of(scores().loc[["plain", "wide"]], "")
    assert cells(table)["plain"] == ["2", "72.0 ± 2.8*", "43.0 ± 2.8", "11.2 ± 0.0"]  # no rival in error


def test_nothing_prints_as_minus_zero():
    table = table_of(scores({("a", 0): (-0.04, 0.0, 0.0)}), "")
    assert cells(table)["a"][1] == "0.0"


def test_markdown():
    table = table_of(scores().rename(index={"plain": "plain|bn"}, level=0), "Per cent.", **SETTINGS)
    assert table.markdown().splitlines() == [
        "| network | seeds | top-1 | error | parameters |",
        "| --- | ---: | ---: | ---: | ---: |",
        r"| plain\|bn | 2 | **72.0 ± 2.8** | 43.0 ± 2.8 | 11.20 |",
        "| blurred | 2 | **72.0 ± 0.0** | **41.0 ± 1.4** | 11.20 |",
        "| wide | 1 | 60.0 | – | 44.70 |",
        "",
        "Per cent. ±: standard deviation over seeds. –: not measured.",
    ]


def test_a_wide_table_is_printed_whole_and_brackets_are_no_markup():
    wide = pd.concat([scores().add_prefix(f"[b]{i} ") for i in range(9)], axis=1)
    table = table_of(wide.rename(index={"plain": "plain [bn]"}, level=0), "See [red].")
    printed = StringIO()
    print_table(table, Console(file=printed, width=40))
    lines = [line.split() for line in printed.getvalue().splitlines()]
    plain = next(line for line in lines if line[:2] == ["plain", "[bn]"])
    assert plain[2:] == ["2", *["72.0±2.8", "43.0±2.8", "11.2±0.0"] * 9]
    assert "See [red]." in printed.getvalue() and printed.getvalue().count("[b]8") == 3


def test_json_keeps_everything():
    table = table_of(scores(), "In per cent.", **SETTINGS)
    again = Table.from_json(table.to_json())
    assert again.markdown() == table.markdown() and cells(again) == cells(table)
    pd.testing.assert_frame_equal(again.cells, table.cells, check_names=False, check_dtype=False)
    json.loads(table.to_json(), parse_constant=pytest.fail)  # NaN is not JSON
    for text in ("", "[]", "{}", '{"columns": 3}', table.to_json()[:200]):
        with pytest.raises(ValueError):
            Table.from_json(text)


def test_what_cannot_be_a_table_is_refused():
    with pytest.raises(ValueError, match="two scores for one row and seed"):
        table_of(pd.concat([scores(), scores()]), "")
    with pytest.raises(ValueError, match="no column of this table is called flops"):
        table_of(scores(), "", smaller=frozenset({"flops"}))


def test_no_scores_make_an_empty_table():
    table = table_of(scores().iloc[:0], "Nothing yet.")
    assert list(table.rows()) == [] and table.markdown().startswith("| norm | seeds |")
