"""The robustness evaluation from its command line to its table and picture, on checkpoints and on names."""

import dataclasses
import json
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
import yaml

from datamodules.classification.domains import open_images
from experiments import eval_robustness
from experiments.eval_robustness import Flags, run
from experiments.reporting.arm_styles import arm_styles
from experiments.reporting.robustness_figures import draw_robustness
from experiments.study.endings import UsageError
from experiments.study.flags import parse
from experiments.study.wandb_runs.offline_history import read_offline
from experiments.tasks import evaluated_networks, robustness_comparison
from experiments.tasks.evaluated_networks import classifiers, preprocessing
from experiments.tasks.robustness_comparison import refuse_seen
from lightning_modules.classification.module import ClassificationModule
from lightning_modules.classification.recipes import CLASSIFICATION_RECIPES
from tests.experiments.refusals import refused

QUICK = "--images 6 --parts clean consistency --workers 0 --gpus 0 --wandb disabled"


def flags(line: str) -> Flags:
    return parse(Flags, "", line.split())


def save(file, norm="bn", seed=0, data="shapes", classes=None, size=32):
    """A study's checkpoint of an untrained network."""
    torch.manual_seed(seed)
    recipe = dataclasses.replace(
        CLASSIFICATION_RECIPES["smoke"], backbone="cifar_resnet8", image_size=size, resize=None, small_images=False
    )
    classes = classes or open_images("shapes", "val", "", length=1).classes
    module = ClassificationModule(recipe, norm, classes, [data], data=data)
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", barebones=False)
    trainer.strategy.connect(module)
    file.parent.mkdir(parents=True, exist_ok=True)
    trainer.save_checkpoint(file, weights_only=True)
    return module


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study's run of two norms and two seeds."""
    folder = tmp_path_factory.mktemp("runs") / "cls_shapes"
    for norm in ("sn", "bn"):
        for seed in (0, 1):
            save(folder / f"{norm}-seed{seed}" / "checkpoints" / "model.ckpt", norm, seed)
    (folder / "arms.json").write_text(json.dumps({"sn": {"norm": "sn"}, "bn": {"norm": "bn"}}))
    return folder


def test_smoke_ends_in_a_table_and_a_picture(tmp_path, capsys):
    results = run(flags(f"--smoke --out {tmp_path / 'out'}"))
    assert set(results.part) == {"clean", "shifts", "corruptions", "perturbations", "consistency"}
    assert len(results) == 4 + 4 + 15 * 2 + 10 * 2 + 1 and results.value.notna().all()
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| cifar_resnet8 | 1 |" in table and "mean error, corrupted" in table and "flip probability" in table
    assert not re.search("mCE|mFR|mT5D", table + capsys.readouterr().out)
    again = pd.read_csv(tmp_path / "out" / "results.csv")
    assert len(again) == len(results) and {"arm", "norm", "seed", "condition", "severity"} <= set(again)
    for picture in ("robustness.png", "robustness.svg"):
        assert (tmp_path / "out" / picture).stat().st_size > 10_000
    run(flags(f"--smoke --out {tmp_path / 'out'} --parts clean"))  # smoke runs replace each other


def test_a_study_is_evaluated_on_what_it_was_trained_on(study, tmp_path):
    out = tmp_path / "out"
    results = run(flags(f"{study} {QUICK} --out {out}"))
    assert list(dict.fromkeys(zip(results.arm, results.seed, strict=True))) == [
        ("sn", 0), ("sn", 1), ("bn", 0), ("bn", 1)
    ]  # fmt: skip
    table = (out / "table.md").read_text()
    assert re.search(r"\| sn \| 2 \|.*±.*\n\| bn \| 2 \|.*±", table) and "6 images of shapes (val)" in table
    top1 = results[results.measure == "top1"].set_index(["arm", "seed"]).value
    domain = open_images("shapes", "val", "", size=32, length=6)
    module = ClassificationModule.load_from_checkpoint(study / "sn-seed1/checkpoints/model.ckpt", map_location="cpu")
    from datamodules.classification.transforms import EvaluationImage

    scores = module.eval()(torch.stack([EvaluationImage(32)(domain.samples[i][0]) for i in range(6)]))
    assert top1["sn", 1] == (scores.argmax(1).numpy() == domain.samples.labels).mean()
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config["networks"] == [str(study)] and config["images"] == 6
    assert flags(f"--config {out / 'config.yaml'}").networks == [str(study)]


def test_checkpoints_folders_and_names_stand_side_by_side(study, tmp_path):
    single = tmp_path / "other_run" / "bn-seed0" / "checkpoints" / "model.ckpt"
    save(single, seed=5)
    names = f"{single} cifar_resnet8 {study / 'bn-seed0'} {single}"
    results = run(flags(f"{names} --weights none {QUICK} --out {tmp_path / 'out'}"))
    assert list(dict.fromkeys(results.arm)) == ["bn@other_run", "cifar_resnet8", "bn@cls_shapes"]
    alone = tmp_path / "mine.ckpt"
    save(alone)
    assert [(n.arm, n.seed) for n in classifiers(str(alone))] == [("mine", 0)]


def test_each_network_is_a_run_on_wandb(study, tmp_path):
    line = f"{study}/bn-seed0 {study}/sn-seed1 {QUICK} --wandb offline --out {tmp_path / 'out'}"
    results = run(flags(line.replace("--wandb disabled", "")))
    folders = sorted((tmp_path / "out" / "wandb").glob("offline-run-*"))
    found = {}
    for folder in folders:
        kept = read_offline(folder, wait=60)
        (found[kept.config["norm"], kept.config["seed"]],) = kept.rows.values()
    assert set(found) == {("bn", 0), ("sn", 1)}
    for (norm, _), logged in found.items():
        own = results[results.norm == norm].set_index("measure").value
        assert logged["final/top1"] == pytest.approx(own["top1"])
        assert logged["final/consistency/consistency"] == pytest.approx(own["consistency"])
        assert logged["results"]["_type"] == "table-file"


def test_parts_and_severities(study, tmp_path):
    what = "--parts corruptions --severities 3 --images 3 --workers 0 --gpus 0 --wandb disabled"
    line = f"{study}/bn-seed0 {what} --out {tmp_path / 'out'}"
    results = run(flags(line))
    assert len(results) == 15 and set(results.severity) == {3}
    assert "generated here at severity 3" in (tmp_path / "out" / "table.md").read_text()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "name a network to evaluate"),
        ("--parts clean bn.ckpt", "--parts bn.ckpt: choose from clean, shifts, corruptions, perturbations, consis"),
        ("resnet18 --severities 6", "--severities 6: choose from 1, 2, 3, 4, 5"),
        ("resnet18 --images 0", "--images 0: it must be 1 or more"),
        ("resnet18 --weights best", "--weights best: choose imagenet or none"),
        ("resnet18 --gpus 99", "--gpus 99: this machine has"),
        ("nowhere/model.ckpt", "nowhere/model.ckpt: no such checkpoint or folder"),
        ("runs/never_run", "runs/never_run: no such checkpoint or folder"),
        ("resnet18 --data imagenet --data-root nowhere", "--data shapes needs nothing on disk"),
        ("resnet18 --data imagenot", "--data imagenot: unknown set"),
        ("resnet18 --data shapes", "resnet18 with published weights knows ImageNet's 1000 classes, and shapes has"),
        ("resnet1818 --data shapes --weights none", "unknown backbone 'resnet1818'"),
        ("resnet18 --data shapes --weights none --published", "--published: the files are ImageNet's at 224 x 224"),
    ],
)  # fmt: skip
def test_mistakes_are_said_in_one_sentence(capsys, line, said, tmp_path):
    assert said in refused(eval_robustness, capsys, f"{line} --out {tmp_path / 'out'}".strip())


def test_checkpoints_of_other_kinds_are_refused(capsys, tmp_path, study):
    segmentation = {"hyper_parameters": {"module": "SegmentationModule", "recipe": {}}, "state_dict": {}}
    for content, said in (
        (segmentation, "is of a segmentation network: expected the checkpoint of a classification network"),
        ({"conv1.weight": torch.zeros(1)}, "is no checkpoint of a study"),
        ([1, 2], "is no checkpoint of a study"),
    ):
        torch.save(content, tmp_path / "other.ckpt")
        assert said in refused(eval_robustness, capsys, f"{tmp_path / 'other.ckpt'} --out {tmp_path / 'out'}")
    (tmp_path / "text.ckpt").write_text("nothing")
    assert "cannot be read as a checkpoint" in refused(
        eval_robustness, capsys, f"{tmp_path / 'text.ckpt'} --out {tmp_path / 'out'}"
    )
    assert "holds no finished network: expected" in refused(
        eval_robustness, capsys, f"{tmp_path} --out {tmp_path / 'out'}"
    )


def test_data_must_fit_the_networks(capsys, tmp_path, study):
    save(tmp_path / "pets.ckpt", data="pets", classes=["cat", "dog"])
    out = f"--out {tmp_path / 'out'}"
    said = refused(eval_robustness, capsys, f"{study}/bn-seed0 {tmp_path / 'pets.ckpt'} {out}")
    assert "trained on different sets" in said and "--data" in said
    said = refused(eval_robustness, capsys, f"{tmp_path / 'pets.ckpt'} --data shapes {out}")
    assert "knows 2 classes (cat, dog), not the 10 (apple, bell, bird, ...) of shapes" in said and "--data pets" in said
    save(tmp_path / "large.ckpt", size=48)
    assert "drawn at one size" in refused(eval_robustness, capsys, f"{study}/bn-seed0 {tmp_path / 'large.ckpt'} {out}")


def test_a_finished_evaluation_is_not_overwritten(capsys, tmp_path, study):
    line = f"{study}/bn-seed0 --images 2 --parts clean --workers 0 --gpus 0 --out {tmp_path / 'out'}"
    run(flags(line))
    assert "already holds an evaluation" in refused(eval_robustness, capsys, line)


def test_weights_that_cannot_be_had(capsys, tmp_path, monkeypatch):
    def offline(*arguments, **settings):
        raise ValueError("timm could not get ImageNet weights of resnet18: no route to host")

    (tmp_path / "imagenet/val/n01440764").mkdir(parents=True)
    (tmp_path / "imagenet/val/n01440764/a.JPEG").write_bytes(b"")
    monkeypatch.setattr("experiments.tasks.evaluated_networks.build_backbone", offline)
    said = refused(eval_robustness, capsys, f"resnet18 --data-root {tmp_path} --out {tmp_path / 'out'}")
    assert "no route to host" in said and "--weights none" in said


def test_published_networks_are_evaluated_as_they_were_published():
    from torch import nn

    found = preprocessing("torchvision/resnet50.IMAGENET1K_V2", nn.Identity())
    assert (found["size"], found["resize"], found["interpolation"]) == (224, 232, "bilinear")
    assert preprocessing("alexnet", nn.Identity())["resize"] == 256
    timms = nn.Identity()
    timms.pretrained_cfg = {
        "input_size": (3, 224, 224),
        "crop_pct": 0.95,
        "interpolation": "bicubic",
        "mean": (0.5,) * 3,
    }
    found = preprocessing("some", timms)
    assert (found["size"], found["resize"], found["interpolation"], found["mean"]) == (224, 235, "bicubic", (0.5,) * 3)
    assert preprocessing("cifar_resnet20", nn.Identity())["resize"] is None


def test_the_published_files_get_mce_and_nothing_else(tmp_path, monkeypatch):
    """One image of each class, and a network that errs as it likes: mCE stands where the plain mean would."""
    from lightning_modules.robustness.alexnet import ALEXNET_CLEAN_ERROR, ALEXNET_ERRORS

    wnids = tuple(f"n{i:08d}" for i in range(1000))

    class Samples:
        labels, classes = np.arange(1000), wnids

        def __len__(self):
            return 1000

    from torch import nn

    from datamodules.classification.domains import ImageDomain
    from lightning_modules.robustness.evaluator import EvaluatedNetwork

    evaluated = [
        EvaluatedNetwork(name, nn.Identity(), size, None, (0,) * 3, (1,) * 3, wnids)
        for name, size in (("a", 224), ("b", 160))
    ]
    networks = [evaluated_networks.Network(one.name, 0, one, {}, "imagenet", one.name) for one in evaluated]
    about = {"part": "corruptions", "measure": "error"}
    rows = [
        {"network": one.name, "condition": name, "severity": s + 1, "value": value, **about}
        for one in evaluated
        for name, own in ALEXNET_ERRORS.items()
        for s, value in enumerate(own)
    ]
    clean = {"part": "clean", "condition": "clean", "severity": None, "measure": "top1"}
    rows += [{"network": one.name, "value": 1 - ALEXNET_CLEAN_ERROR, **clean} for one in evaluated]
    domain = ImageDomain("imagenet", Samples(), wnids)
    generated = robustness_comparison.closing_table(flags("a"), networks[:1], domain, rows)
    assert generated.columns == ["top-1", "mean error, corrupted"]
    files = robustness_comparison.PublishedFiles(flags("a --published"))
    files.labels = {"imagenet-c/fog/1": np.arange(1000), "imagenet-c/fog/2": np.arange(999)}
    assert "mCE" not in robustness_comparison.closing_table(flags("a"), networks[:1], domain, rows, files).columns
    files.labels = {"imagenet-c/fog/1": np.arange(1000)}
    table = robustness_comparison.closing_table(flags("a"), networks[:1], domain, rows, files)
    assert table.columns == ["top-1", "mCE", "relative mCE"]
    assert dict(next(table.rows())[1][i + 1] for i in (1, 2)) == {"100.0": False}
    both = robustness_comparison.closing_table(flags("a b"), networks, domain, rows, files)
    assert both.columns == ["top-1", "mean error, corrupted", "mCE", "relative mCE"]
    assert [cells[3][0] for _, cells in both.rows()] == ["100.0", "–"]


def test_picture_of_one_part_alone():
    rows = pd.DataFrame(
        {
            "arm": a,
            "seed": 0,
            "part": "perturbations",
            "condition": c,
            "severity": None,
            "measure": "flip",
            "value": 0.1,
        }
        for a in ("a", "b")
        for c in ("tilt", "scale")
    )
    figure = draw_robustness(rows, arm_styles({"a": {}, "b": {}}).styles)
    assert len(figure.axes) == 1 and [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]
    with pytest.raises(ValueError, match="no results to draw"):
        draw_robustness(rows.assign(part="other", measure="other"), arm_styles({"a": {}}).styles)


def test_picture_shows_every_error():
    about = {"arm": "a", "part": "corruptions", "measure": "error"}
    rows = pd.DataFrame(
        {"seed": seed, "condition": c, "severity": s, "value": s * worse / 5, **about}
        for c, worse in (("fog", 0.1), ("snow", 0.9), ("frost", 0.4))
        for s in (1, 3, 5)
        for seed in (0, 1)
    )
    figure = draw_robustness(rows, arm_styles({"a": {}}).styles)
    lines = {ax.get_title(loc="left"): ax.lines[0].get_ydata() for ax in figure.axes if ax.lines}
    np.testing.assert_allclose(lines["snow"], [18, 54, 90])
    np.testing.assert_allclose(lines["mean of all"], [100 * s * 1.4 / 15 for s in (1, 3, 5)])
    assert all(ax.get_ylim()[0] == 0 and ax.get_ylim()[1] >= 90 for ax in figure.axes)


def test_help_says_what_a_network_may_be(capsys):
    with pytest.raises(SystemExit):
        flags("--help")
    assert "NETWORK ... Checkpoints, folders of runs" in " ".join(capsys.readouterr().out.split())


def test_help_is_quick_to_say():
    """Nothing heavy is imported before the flags are parsed."""
    import subprocess
    import sys

    code = "import sys, experiments.eval_robustness; print([m for m in ('torch', 'pandas', 'cv2') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize("data", ["pacs/photo", "pacs", "pacs/photo:all", "pacs/sketch:all+pacs/photo:val"])
def test_images_that_a_network_has_learned_are_refused(data):
    network = SimpleNamespace(source="model.ckpt", trained_on="pacs/photo:all")
    with pytest.raises(UsageError, match="was trained on all images of pacs/photo"):
        refuse_seen(data, [network])
    refuse_seen("pacs/sketch:all", [network])
    refuse_seen(data, [SimpleNamespace(source="model.ckpt", trained_on="pacs/photo")])  # its train split
