"""compare.py: runs made apart, paired by seed or not, and runs that cannot be compared."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from scipy import stats

from experiments import compare

BN = [0.50, 0.52, 0.49, 0.51, 0.50, 0.53, 0.48]
SN = [0.60, 0.61, 0.60, 0.62, 0.59, 0.63, 0.58]


def make(folder: Path, arms: dict[str, list[float]], first: int = 0, domain="shapes", measure="top1", **flags) -> Path:
    folder.mkdir()
    rows = [
        {"arm": arm, "norm": arm, "seed": first + seed, "domain": domain, "part": "clean", "condition": "clean"}
        | {"measure": measure, "value": value}
        for arm, values in arms.items()
        for seed, value in enumerate(values)
    ]
    pd.DataFrame(rows).to_csv(folder / "results.csv", index=False)
    (folder / "config.yaml").write_text(
        yaml.safe_dump({"lr": 0.1, "out": str(folder), "minutes": len(arms), "command": str(folder)} | flags)
    )
    (folder / "arms.json").write_text(json.dumps({arm: {"norm": arm} for arm in arms}))
    return folder


def said(monkeypatch, capsys, *line: object) -> str:
    monkeypatch.setattr(sys, "argv", ["compare.py", *map(str, line)])
    try:
        compare.main()
    except SystemExit as left:
        assert left.code == 2
    captured = capsys.readouterr()
    return captured.out + captured.err


def test_one_run_is_compared_with_batch_norm(tmp_path, monkeypatch, capsys):
    run = make(tmp_path / "a", {"sn": SN, "bn": BN, "gn": BN})
    text = said(monkeypatch, capsys, run)
    low, high = (100 * edge for edge in stats.ttest_rel(SN, BN).confidence_interval())
    line = next(line for line in text.splitlines() if line.startswith("sn "))
    assert line.split() == [
        *("sn", "bn", "top-1", "7", "+10.0", f"{low:+.1f}", "to", f"{high:+.1f}", "0.02", "0.03", "permutation")
    ]  # 2 / 2^7, and twice that
    assert "sn +10.0 in top-1 against bn" in text and "@" not in text
    assert next(line for line in text.splitlines() if line.startswith("gn ")).split()[4:] == [
        *("+0.0", "+0.0", "to", "+0.0", "1.00", "1.00", "permutation")
    ]


def test_runs_made_apart_are_paired_by_their_seeds(tmp_path, monkeypatch, capsys):
    one, other = make(tmp_path / "plain", {"bn": BN, "sn": SN}), make(tmp_path / "longer", {"bn": SN}, lr=0.2)
    text = said(monkeypatch, capsys, one, other, "--out", tmp_path / "table.md")
    assert [line.split()[:3] for line in text.splitlines()[1:3]] == [
        ["bn@longer", "bn@plain", "top-1"],
        ["sn@plain", "bn@plain", "top-1"],
    ]
    assert [line for line in text.splitlines() if "differ in" in line] == ["The runs differ in --lr: 0.1, 0.2."]
    assert "| bn@longer | bn@plain | top-1 | 7 | +10.0 |" in (tmp_path / "table.md").read_text()
    text = said(monkeypatch, capsys, one, other, "--reference", "sn@plain")
    assert [line.split()[:2] for line in text.splitlines()[1:3]] == [
        ["bn@plain", "sn@plain"],
        ["bn@longer", "sn@plain"],
    ]


def test_other_seeds_are_compared_by_welchs_test(tmp_path, monkeypatch, capsys):
    runs = make(tmp_path / "a", {"bn": BN}), make(tmp_path / "b", {"bn": SN[:5]}, first=10)
    line = said(monkeypatch, capsys, *runs).splitlines()[1].split()
    known = stats.ttest_ind(SN[:5], BN, equal_var=False)
    low, high = (100 * edge for edge in known.confidence_interval())
    assert line[3:8] == ["5", f"{100 * (sum(SN[:5]) / 5 - sum(BN) / 7):+.1f}", f"{low:+.1f}", "to", f"{high:+.1f}"]
    assert line[8:] == ["<0.001", "<0.001", "Welch's", "t"]


def test_one_seed_tells_nothing(tmp_path, monkeypatch, capsys):
    text = said(monkeypatch, capsys, make(tmp_path / "a", {"bn": BN[:1], "sn": SN[:1]}))
    assert "One seed each: a difference of chance cannot be told from a real one." in text


def test_runs_that_measured_different_things_are_refused(tmp_path, monkeypatch, capsys):
    first = make(tmp_path / "a", {"bn": BN})
    for name, how, why in (
        ("b", {"domain": "sketch"}, "b was evaluated on sketch, and a on shapes: they measured different things."),
        ("c", {"measure": "miou"}, "c measured miou, and a top1: not comparable."),
    ):
        assert why in said(monkeypatch, capsys, first, make(tmp_path / name, {"bn": BN}, **how))
    unknown = make(tmp_path / "e", {"bn": BN}, measure="mine")
    assert "e holds no measure that is known here: pass the --plugin files" in said(monkeypatch, capsys, unknown)
    assert "these runs hold one arm" in said(monkeypatch, capsys, first)
    assert "nowhere is no run folder" in said(monkeypatch, capsys, first, tmp_path / "nowhere")
    other = make(tmp_path / "d", {"sn": SN})
    assert "--reference x: choose from bn@a, sn@d" in said(monkeypatch, capsys, first, other, "--reference", "x")
    (other / "results.csv").unlink()
    assert "d has no results yet: let it finish a training first" in said(monkeypatch, capsys, first, other)


@pytest.mark.parametrize("word", ["--reference", "--out", "permutation test"])
def test_its_help_says_what_it_does(word, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["compare.py", "--help"])
    with pytest.raises(SystemExit):
        compare.main()
    assert word in capsys.readouterr().out
