"""Trained networks, evaluated from their checkpoints alone: as their studies did, and on sets not thought of then."""

import pandas as pd
import pytest
import torch
import yaml

from datamodules.segmentation.labels import LabelSpace
from experiments import cls_office_home, evaluate, seg_gta2city
from experiments.evaluate import Flags, run
from experiments.reporting.page import write_report
from experiments.study.flags import parse
from experiments.study.trained.networks import trained_networks
from experiments.study.wandb_runs.offline_history import read_offline
from tests.datamodules.segmentation.published_layouts import make_cityscapes
from tests.experiments.refusals import refused
from tests.experiments.test_eval_robustness import save as save_classifier
from tests.lightning_modules.test_checkpoints import Domain, saved, segmentation

QUIET = "--workers 0 --gpus 0 --wandb disabled"


def evaluated(line: str, out) -> pd.DataFrame:
    return run(parse(Flags, "", f"{line} {QUIET} --out {out}".split()))


def values(results: pd.DataFrame) -> dict:
    rows = results[["arm", "seed", "domain", "part", "condition", "measure", "value"]].itertuples(index=False)
    return {tuple(row[:-1]): row[-1] for row in rows}


@pytest.fixture(scope="module")
def streets(tmp_path_factory):
    """A study of two norms and two seeds on the embedded streets, and its results."""
    out = tmp_path_factory.mktemp("runs") / "streets"
    line = f"--source streets-game --target streets-night --recipe smoke --scenes 3 --norm bn sn --seeds 2 {QUIET}"
    return out, seg_gta2city.run(parse(seg_gta2city.Flags, "", f"{line} --out {out}".split()))


def test_a_studys_own_results_come_back_to_the_last_digit(streets, tmp_path):
    folder, before = streets
    results = evaluated(str(folder), tmp_path / "out")
    assert values(results) == values(before)
    assert list(results["role"].drop_duplicates()) == ["source", "target"]
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| drop |" in table and "±" in table and table.count("\n| ") == 3
    assert "mIoU" in write_report(tmp_path / "out").read_text()
    config = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert config["networks"] == [str(folder)] and config["trainings"][0] == ["bn", 0]
    assert parse(Flags, "", ["--config", str(tmp_path / "out" / "config.yaml")]).networks == [str(folder)]
    assert (tmp_path / "out" / "examples" / "streets-night-0-prediction-sn.png").exists()
    assert set(pd.read_csv(tmp_path / "out" / "results.csv").columns) >= {"arm", "norm", "seed", "domain", "value"}


def test_a_classification_studys_results_come_back_to_the_last_digit(tmp_path):
    line = f"--smoke --norm bn --out {tmp_path / 'study'} {QUIET}"
    before = cls_office_home.run(parse(cls_office_home.Flags, "", line.split()))
    assert values(evaluated(str(tmp_path / "study"), tmp_path / "out")) == values(before[before["part"] == "clean"])


def test_on_sets_that_the_study_did_not_know(streets, tmp_path):
    make_cityscapes(tmp_path / "data" / "cityscapes", n=5, size=(64, 128))
    one = streets[0] / "sn-seed1" / "checkpoints" / "model.ckpt"
    line = f"{one} --target streets-fog cityscapes:train --images 2 --data-root {tmp_path / 'data'}"
    results = evaluated(line, tmp_path / "out")
    assert set(zip(results.arm, results.seed, strict=True)) == {("sn", 1)} and set(results.role) == {"target"}
    assert set(results.domain) == {"streets-fog", "cityscapes:train"}
    assert "| cityscapes:train |" in (tmp_path / "out" / "table.md").read_text()


def test_classifiers_on_another_style_and_further_parts(tmp_path):
    for seed in (0, 1):
        save_classifier(tmp_path / "run" / f"bn-seed{seed}" / "checkpoints" / "model.ckpt", seed=seed)
    line = f"{tmp_path / 'run'} --target shapes/sketch --images 6 --parts clean calibration consistency corruptions"
    results = evaluated(f"{line} --severities 1", tmp_path / "out")
    assert {*results.part} == {"clean", "calibration", "consistency", "corruptions"}
    assert {*results.domain} == {"shapes/sketch"} and {*results.seed} == {0, 1}
    table = (tmp_path / "out" / "table.md").read_text()
    assert "shapes/sketch" in table and "calibration error" in table and "shift consistency" in table
    again = evaluated(f"{line} --severities 1 --resume", tmp_path / "out")
    assert values(again) == values(results)


def test_each_network_is_a_run_on_wandb(streets, tmp_path):
    line = (
        f"{streets[0]} {QUIET.replace('disabled', 'offline')} --images 2 --target streets-fog --out {tmp_path / 'out'}"
    )
    results = run(parse(Flags, "", line.split()))
    folders = (tmp_path / "out" / "wandb").glob("offline-run-*")
    logged = [read_offline(folder, wait=60).rows[0] for folder in folders]
    mious = results[results.measure == "miou"].value
    # in any order: the folders of runs that begin within one second are sorted by chance
    assert sorted(one["final/target"] for one in logged) == pytest.approx(sorted(mious)) and len(logged) == 4
    assert all({"results", "examples"} <= one.keys() for one in logged)


def test_networks_of_several_runs_are_told_apart(streets, tmp_path):
    other = tmp_path / "more" / "bn-seed0" / "checkpoints" / "model.ckpt"
    other.parent.mkdir(parents=True)
    other.write_bytes((streets[0] / "bn-seed0" / "checkpoints" / "model.ckpt").read_bytes())
    found = trained_networks([str(other), str(streets[0]), str(other)])
    assert [(n.arm, n.seed) for n in found] == [
        ("bn@more", 0), ("bn@streets", 0), ("bn@streets", 1), ("sn", 0), ("sn", 1)
    ]  # fmt: skip
    assert found[1].columns == {"norm": "bn"}


def test_mistakes_are_said_in_one_sentence(streets, tmp_path, capsys):
    classifier = tmp_path / "c.ckpt"
    save_classifier(classifier)
    save_classifier(tmp_path / "seen.ckpt", data="shapes/photo:all+shapes/clipart:all")
    pets = LabelSpace("pets", ("cat", "dog"), ((1, 2, 3), (4, 5, 6)))
    animals = saved(segmentation(domains=[Domain("pets", (), pets, (0, 1), {})]), tmp_path / "pets.ckpt")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.ckpt")
    one = streets[0] / "bn-seed0"
    for line, said in (
        ("", "name a network to evaluate"),
        ("nowhere.ckpt", "nowhere.ckpt: no such checkpoint or folder"),
        (f"{tmp_path / 'other.ckpt'}", "other.ckpt is no checkpoint of a study"),
        (f"{one} {classifier}", "evaluate the networks of each task by themselves"),
        (f"{one} --target streets-moon", "--target streets-moon: unknown domain"),
        (f"{one} --target cityscapes --data-root {tmp_path}", "--target streets-city needs nothing on disk"),
        (f"{animals} --target streets-city", "labelled in 19 street classes, and the network was trained on 2 pets"),
        (f"{one} --parts corruptions", "--parts corruptions: for segmentation networks choose from clean"),
        (f"{classifier} --target imagenot", "--target imagenot: unknown set"),
        (
            f"{tmp_path / 'seen.ckpt'} --target shapes/photo",
            "was trained on all images of shapes/photo, shapes/clipart",
        ),
        (f"{one} --gpus 2", "--gpus 2: trained networks are run in one process"),
        (f"{one} --precision 16-mixed --gpus 0", "--precision 16-mixed needs a GPU"),
        (f"{one} --images 0", "--images 0: it must be 1 or more"),
    ):
        assert said in refused(evaluate, capsys, f"{line} --out {tmp_path / 'out'}".strip() + " --wandb disabled")
