"""Networks that learned nothing win nothing."""

import pandas as pd
import pytest

from experiments import cls_batch_size
from experiments.reporting.run import Run
from experiments.reporting.sections import drop_section, training_section
from experiments.study.tables.chance import guessing, without_guessers
from experiments.study.tables.domain_drop import drop_table, seed_scores, verdict
from experiments.tasks.classification_tables import evaluated_table


def segmented(miou: dict[str, tuple[float, float]], classes: int = 19) -> pd.DataFrame:
    """Of each norm the mIoU on the source and on a target, of so many classes."""
    ious = {f"iou/{number}": 0.5 for number in range(classes)} | {"chance": 1 / classes}
    rows = [
        {"arm": norm, "norm": norm, "seed": 0, "domain": role, "role": role, "part": "clean", "condition": "clean"}
        | {"measure": measure, "value": found}
        for norm, values in miou.items()
        for role, value in zip(("source", "target"), values, strict=True)
        for measure, found in ({"miou": value} | ious).items()
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("miou", "classes", "chance"), [(1 / 19, 19, True), (0.0527, 19, False), (0.3, 3, True)])
def test_chance_in_miou_is_one_class_right(miou, classes, chance):
    assert len(guessing(segmented({"bn": (miou, 0.0)}, classes))) == chance


def test_what_lost_nothing_because_it_had_nothing_does_not_win():
    results = segmented({"bn": (0.02, 0.02), "sn": (0.24, 0.11)})
    table = without_guessers(drop_table(results), results)
    cells = {name: [text + "*" * best for text, best in row] for name, row in table.rows()}
    assert cells["bn"] == ["1", "2.0", "2.0", "2.0", "–", "–"] and cells["sn"][-2:] == ["13.0", "46"]
    assert "At chance (5.3) and left out of the comparison: bn." in table.legend
    assert type(table).from_json(table.to_json()).unlearned == {"bn"}
    assert verdict(table).startswith("SN loses 13.0 points") and "no other norm" in verdict(table)
    nothing = segmented({"bn": (0.02, 0.02), "sn": (0.01, 0.01)})
    assert verdict(without_guessers(drop_table(nothing), nothing)).startswith("Nothing was learned")
    assert seed_scores(nothing)["drop"].isna().all()
    run = Run(None, {}, {"bn": {"norm": "bn"}}, None, nothing, None, None, None)
    assert "better than chance" in drop_section(run).absent


def classified(scores: dict[tuple[str, int], float], **more) -> pd.DataFrame:
    rows = []
    for (arm, seed), top1 in scores.items():
        one = {"arm": arm, "network": arm, "norm": arm, "seed": seed, "domain": "photo", "part": "clean"}
        one |= {"condition": "clean"} | more
        rows += [one | {"measure": "top1", "value": top1}, one | {"measure": "chance", "value": 0.1}]
        rows += [one | {"part": "consistency", "condition": "shift", "measure": "consistency", "value": 1.1 - top1}]
    return pd.DataFrame(rows)


def test_a_network_that_always_says_the_same_is_not_the_most_consistent():
    results = classified({("bn", 0): 0.1, ("bn", 1): 0.119, ("sn", 0): 0.6, ("sn", 1): 0.1})
    found = guessing(results)
    assert [*zip(found["arm"], found["seed"], strict=True)] == [("bn", 0), ("bn", 1), ("sn", 1)]
    table = without_guessers(evaluated_table(results), results)
    assert table.unlearned == {"bn"}  # sn learned something under one seed
    assert not any(best for name, row in table.rows() if name == "bn" for _, best in row)


def test_no_fall_from_chance():
    big, small = (classified({("bn", 0): top, ("sn", 0): 0.5}, setting=s) for top, s in ((0.1, "1x32"), (0.1, "1x2")))
    table = cls_batch_size.table(pd.concat([big, small]))
    assert table.cells["fall", "mean"].isna().tolist() == [True, False]


def test_a_training_too_short_for_a_loss_is_said_to_have_been_evaluated():
    metrics = pd.DataFrame([{"arm": "bn", "norm": "bn", "seed": 0, "step": 5, "source/miou": 0.1}])
    results = segmented({"bn": (0.1, 0.05)})
    run = Run(None, {"source": "source"}, {"bn": {"norm": "bn"}}, drop_table(results), results, metrics, None, None)
    assert "evaluated only once, at the end: see the table" in training_section(run).absent
