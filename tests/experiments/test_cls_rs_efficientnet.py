"""EfficientNets at two resolutions: which ones, trained how, and a run."""

from experiments.cls_rs_efficientnet import EFFICIENTNETS, LAPTOP, Flags, arms_of, run
from experiments.study.flags import parse
from experiments.tasks.resnet_rs import finished


def flags(line: str = "") -> Flags:
    return parse(Flags, "", line.split())


def test_slow_resolutions_grow_by_the_square_root():
    for own, slow, _ in EFFICIENTNETS.values():
        assert slow % 8 == 0 and abs(slow - 224 * (own / 224) ** 0.5) <= 4


def test_efficientnets_stand_at_both_resolutions():
    chosen = flags("--data imagenet --networks b0 b3 b7")
    arms = arms_of(chosen, finished(chosen, "resnet-rs-152-224", LAPTOP))
    assert list(arms) == ["b0-224px-own", "b3-300px-own", "b3-256px-slow", "b7-600px-own", "b7-368px-slow"]
    assert [arm.recipe.randaugment[1] for arm in arms.values()] == [10, 15, 15, 20, 20]  # section 7.2
    assert all(arm.recipe.backbone == f"efficientnet_{name[:2]}" for name, arm in arms.items())


def test_a_smoke_run_ends_in_a_table(tmp_path):
    results = run(flags(f"--networks b0 --max-steps 1 --smoke --workers 0 --wandb disabled --out {tmp_path / 'run'}"))
    assert (results["measure"] == "top1").sum() == 1 and (results["measure"] == "latency").sum() == 1
    assert "ms an image" in (tmp_path / "run" / "table.md").read_text()
    assert (tmp_path / "run" / "report.html").exists()
