"""The main job from its command line to its table, on folders in the published layouts and on the embedded streets."""

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import normshift
from datamodules.segmentation.domains import DOMAINS
from experiments import seg_gta2city
from experiments.seg_gta2city import Flags, run
from experiments.study.flags import parse
from experiments.tasks.segmentation import chosen_recipe
from lightning_modules.segmentation.module import SegmentationModule
from lightning_modules.segmentation.networks import built
from tests.datamodules.segmentation.published_layouts import make_cityscapes, make_gta5
from tests.experiments.refusals import refused

SCRIPT = Path(__file__).parents[2] / "experiments" / "seg_gta2city.py"
TINY = "--backbone resnet18 --crop 64 64 --batch-size 2 --max-steps 2 --workers 0 --wandb disabled"


def flags(line: str) -> Flags:
    return parse(Flags, "", line.split())


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    make_gta5(root / "gta5", n=8, size=(72, 128))
    make_cityscapes(root / "cityscapes", n=3, size=(64, 128))
    return root


@pytest.fixture(scope="module")
def finished(published, tmp_path_factory) -> tuple[Path, pd.DataFrame]:
    """One run from GTA5 to Cityscapes, two norms and two seeds."""
    out = tmp_path_factory.mktemp("runs") / "run"
    line = f"--data-root {published} --norm bn sn --seeds 2 {TINY} --out {out}"
    return out, run(flags(line))


def test_gta5_to_cityscapes_ends_in_a_table(finished):
    out, results = finished
    assert (results.measure == "miou").sum() == 2 * 2 * 2
    assert set(zip(results.domain, results.role, strict=True)) == {("gta5", "source"), ("cityscapes", "target")}
    for _, rows in results.groupby(["arm", "seed", "domain"]):
        ious = rows[rows.measure.str.startswith("iou/")].value
        (miou,), (chance,) = rows[rows.measure == "miou"].value, rows[rows.measure == "chance"].value
        assert miou == pytest.approx(ious.mean()) and 0 <= miou <= 1  # over the classes that occur
        assert chance == pytest.approx(1 / len(ious))
    table = (out / "table.md").read_text()
    assert re.search(r"\| bn \|.*±", table) and re.search(r"\| sn \|.*±", table) and "cityscapes" in table


def test_the_default_recipe_is_robustnets_protocol(finished):
    out, results = finished
    assert set(results.mean_over) == {"19 classes, 0 for one that is predicted but does not occur"}
    assert "Means are over 19 classes, 0 for one that is predicted" in (out / "table.md").read_text()
    hparams = (out / "bn-seed0" / "hparams.yaml").read_text()
    assert all(words in hparams for words in ("arch: robustnet", "augmentation: robustnet", "mapillary"))
    recipe = chosen_recipe(flags("--recipe robustnet-r101"))
    assert (recipe.arch, recipe.output_stride, recipe.augmentation) == ("robustnet", 8, "robustnet")


@pytest.mark.parametrize(
    "line",
    ["--arch unet", "--arch deeplabv3plus", "--arch robustnet --backbone resnet50", "--backbone efficientnet_b0"],
)
def test_other_networks_in_the_laptops_recipe_have_all_their_channels(line):
    recipe = chosen_recipe(flags(f"--source streets-game {line}"))
    assert (recipe.width, recipe.decoder_channels, recipe.scenes) == (1.0, None, 400)
    built(recipe, 19, pretrained=False)
    own = chosen_recipe(flags("--source streets-game"))
    assert (own.width, own.decoder_channels) == (0.5, 64)


def test_a_run_leaves_what_it_promises(finished):
    out, _ = finished
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config["source"] == "gta5" and config["norm"] == ["bn", "sn"] and config["max_steps"] == 2
    metrics = pd.read_csv(out / "metrics.csv")
    assert {"norm", "seed", "step", "train/loss", "gta5/miou", "cityscapes/miou"} <= set(metrics)
    tracked = pd.read_parquet(out / "gates.parquet")
    assert set(tracked.norm) == {"sn"} and set(tracked.statistic) == {"mean", "var"} and set(tracked.seed) == {0, 1}
    shares = tracked.groupby(["seed", "step", "layer", "statistic"]).value.sum()
    np.testing.assert_allclose(shares, 1, rtol=1e-5)
    divergence = pd.read_csv(out / "divergence.csv")
    assert set(divergence.domain) == {"cityscapes"} and (divergence["mean"] >= 0).all()
    assert len(list((out / "examples").glob("cityscapes-0-*.png"))) == 4  # picture, truth, bn, sn
    assert (out / "bn-seed0" / "checkpoints" / "model.ckpt").exists()
    report = (out / "report.html").read_text()
    assert "gta5" in report and "cityscapes" in report


def test_a_finished_run_is_not_overwritten_and_can_be_extended(finished, published, capsys, tmp_path):
    out, results = finished
    line = f"--data-root {published} --norm bn sn --seeds 2 {TINY}"
    assert "already holds a run: pass --resume" in refused(seg_gta2city, capsys, f"{line} --out {out}")
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    assert "max_steps was 2 and is now 3, but bn cannot be trained longer, since" in refused(
        seg_gta2city, capsys, f"{line.replace('--max-steps 2', '--max-steps 3')} --resume --out {copy}"
    )
    again = run(flags(f"--data-root {published} --norm bn sn gn --seeds 2 {TINY} --resume --out {copy}"))
    before = again[again.norm != "gn"].reset_index(drop=True)
    pd.testing.assert_frame_equal(before, results.reset_index(drop=True), check_exact=False)
    assert (again.measure == "miou").sum() == 12


def test_an_interrupted_run_goes_on_from_its_checkpoint(published, tmp_path, monkeypatch):
    line = f"--data-root {published} --norm sn {TINY} --out {tmp_path / 'run'}"

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(SegmentationModule, "results", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(flags(line))
    monkeypatch.undo()
    assert not (tmp_path / "run" / "sn-seed0" / "result.json").exists()
    trained = []
    monkeypatch.setattr(SegmentationModule, "on_train_batch_start", lambda self, *_: trained.append(self.global_step))
    again = run(flags(f"{line} --resume"))
    assert (again.measure == "miou").sum() == 2 and trained == []  # all steps had been taken
    metrics = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert metrics["train/loss"].count() > 0 and metrics["cityscapes/miou"].count() > 0  # of before the interruption
    assert [file.name for file in (tmp_path / "run/sn-seed0/checkpoints").iterdir()] == ["model.ckpt"]


def test_smoke_runs_every_norm_on_the_streets(tmp_path):
    norms = [norm for norm in normshift.NORMS if norm != "syncbn"]
    results = run(flags(f"--smoke --max-steps 1 --norm {' '.join(norms)} --out {tmp_path / 'run'}"))
    assert list(dict.fromkeys(results.norm)) == norms and set(results.domain) == {"streets-game", "streets-night"}


@pytest.mark.slow
def test_two_processes_train_and_evaluate_together(tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT)]
    line = f"--smoke --norm bn ibn-a sn bin --sync-norm --out {tmp_path / 'run'}"
    subprocess.run([*torchrun, *line.split()], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert (pd.read_csv(tmp_path / "run" / "results.csv").measure == "miou").sum() == 8


def test_a_configuration_is_read_back(finished, tmp_path):
    out, _ = finished
    again = flags(f"--config {out / 'config.yaml'} --norm bin")
    assert again.max_steps == 2 and again.crop == (64, 64) and again.norm == ["bin"] and again.source == "gta5"
    (tmp_path / "config.yaml").write_text("sauce: gta5\n")
    with pytest.raises(SystemExit):
        flags(f"--config {tmp_path / 'config.yaml'}")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("--norm batchnrm", r"unknown norm 'batchnrm': choose from bin, bn, .* syncbn\."),
        ("--source nowhere", r"unknown domain 'nowhere': choose from streets-game, .*"),
        ("--gpus 64", r"--gpus 64: this machine has .* GPU.*; pass --gpus \d+"),
        ("--norm", r"--norm: name one norm or more"),
        ("--max-steps many", r"invalid int value: 'many'"),
        ("--max-step 3", r"unrecognized arguments: --max-step 3"),
        ("--max-steps 3 --epochs 3", r"both set the length of the training"),
        ("--recipe imagenet", r"--recipe imagenet: choose from auto, robustnet, laptop"),
        ("--source streets-game --target streets-fog --weights nowhere.pth", r"nowhere\.pth: no such file"),
        (
            "--source streets-game --target streets-fog --batch-size 4000",
            r"400 images to train on, fewer than the 4000",
        ),
        ("--crop 100 100", r"--crop 100 100: the sides must be multiples of 32"),
        ("--precision half", r"--precision half: choose from auto, 32-true"),
        ("--gpus -1", r"--gpus -1: it must be 0 or more"),
        ("--class-uniform 7", r"--class-uniform 7: it must be 1 or less"),
        ("--source streets-game --target streets-fog --norm bn --batch-size 1", r"one image, which batch norm cannot"),
        ("--config", r"expected one argument"),
        ("--wandb perhaps", r"choose from auto, online, offline, disabled"),
        ("--resume --source streets-game --target streets-fog --norm bn --out nowhere", r"there is no run in nowhere"),
    ],
)
def test_what_cannot_be_run_ends_in_one_sentence(line, sentence, capsys):
    assert re.search(sentence, refused(seg_gta2city, capsys, line))


def test_without_data_the_error_says_where_to_get_it_and_what_to_run_instead(tmp_path, capsys):
    error = refused(seg_gta2city, capsys, f"--data-root {tmp_path}")
    assert "images/00001.png and labels/00001.png" in error and "leftImg8bit/train" in error
    assert error.count("https://") == 2  # of both sets
    assert "--source streets-game --target streets-city streets-night streets-fog" in error


def test_a_broken_label_ends_in_one_sentence_before_training(published, tmp_path, capsys):
    from PIL import Image

    shutil.copytree(published, tmp_path / "data")
    for label in sorted((tmp_path / "data/gta5/labels").glob("*.png")):
        ids = np.array(Image.open(label))
        ids[0, 0] = 77
        broken = Image.fromarray(ids)
        broken.putpalette([0] * 768)
        broken.save(label)
    in_a_worker = TINY.replace("--workers 0", "--workers 1")
    line = f"--data-root {tmp_path / 'data'} --norm bn {in_a_worker} --out {tmp_path / 'run'}"
    error = refused(seg_gta2city, capsys, line)
    assert "holds the id 77, but gta5 defines 0 to 34" in error and ".png" in error
    assert not list(tmp_path.glob("run/*-seed*"))  # before any training


def test_help_is_complete_and_does_not_wait_for_torch():
    code = f"""
import runpy, sys
sys.argv = ["seg_gta2city.py", "--help"]
try:
    runpy.run_path({str(SCRIPT)!r}, run_name="__main__")
except SystemExit:
    print("heavy:", sorted({{"torch", "numpy", "pandas", "cv2"}} & set(sys.modules)))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "heavy: []" in out
    described = " ".join(out.split())
    for field in dataclasses.fields(Flags):
        assert f"--{field.name.replace('_', '-')} " in described
    assert " ".join(normshift.NORMS) in described
    assert all(name in described for name in DOMAINS)
