"""The classification studies from their command lines to their tables, on the embedded shapes and on small folders."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from torchmetrics.classification import MulticlassAccuracy

import normshift
from experiments import cls_batch_size, cls_cifar, cls_imagenet, cls_office_home
from experiments.study.flags import parse
from experiments.study.settings import resolved, training_workers
from experiments.tasks.classification import Arm, loaded
from experiments.tasks.classification_checks import fitted
from experiments.tasks.classification_domains import Opened
from experiments.tasks.classification_flags import chosen_recipe
from experiments.tasks.classification_tables import evaluated_table
from lightning_modules.classification.module import ClassificationModule
from lightning_modules.classification.pseudo_labels import predictions
from tests.experiments.refusals import refused

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
STUDIES = {
    study.__name__.rpartition(".")[2]: study for study in (cls_imagenet, cls_batch_size, cls_cifar, cls_office_home)
}
TINY = "--recipe smoke --backbone cifar_resnet8 --width 0.25 --images 40 --max-steps 2 --workers 0 --wandb disabled"

DOMAINS = ("art_painting", "cartoon", "photo", "sketch")


def run(study, line: str) -> pd.DataFrame:
    return study.run(parse(study.Flags, "", line.split()))


@pytest.fixture(scope="module")
def pacs(tmp_path_factory) -> Path:
    """Four domains of three classes, ten images each, told apart by brightness."""
    root, numbers = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for domain in DOMAINS:
        for label, name in enumerate(("dog", "elephant", "giraffe")):
            folder = root / "pacs" / domain / name
            folder.mkdir(parents=True)
            for index in range(10):
                image = numbers.integers(0, 60, (40, 48, 3)) + 60 * label
                cv2.imwrite(str(folder / f"{index}.png"), image.astype(np.uint8))
    return root


def test_only_some_arms_are_trained_and_a_resumed_run_takes_others(tmp_path, capsys):
    line = f"{TINY} --norm bn sn --antialias 0 3 --out {tmp_path / 'run'} --resume auto"
    assert list(dict.fromkeys(run(cls_imagenet, f"{line} --only sn bn-blur3")["arm"])) == ["bn-blur3", "sn"]
    assert list(dict.fromkeys(run(cls_imagenet, f"{line} --only sn bn")["arm"])) == ["bn", "sn"]
    said = "--only gn: this study's arms are bn, bn-blur3, sn, sn-blur3"
    assert re.search(said, refused(cls_imagenet, capsys, f"{line} --only gn"))


@pytest.mark.parametrize(("cores", "accelerator", "workers"), [(2, "cpu", 0), (16, "cpu", 2), (16, "gpu", 8)])
def test_without_a_gpu_the_network_has_the_cores(cores, accelerator, workers, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr("experiments.study.settings.devices", lambda flags: (accelerator, 1))
    flags = parse(cls_imagenet.Flags, "", [])
    assert training_workers(flags, accelerator) == workers
    assert training_workers(dataclasses.replace(flags, workers=3), accelerator) == 3


def test_dann_on_the_shapes_learns_more_slowly(tmp_path):
    """At the recipe's own rate batch norm diverges."""
    line = "--setting transfer --adapt dann --source photo --target sketch --images 100 --max-steps 1 --wandb disabled"
    rates = []
    for index, more in enumerate(("", " --lr 0.2")):
        folder = tmp_path / str(index)
        run(cls_office_home, f"{line} --norm bn --gpus 0{more} --out {folder}")
        settings = yaml.safe_load((folder / "bn-photo-to-sketch-seed0" / "hparams.yaml").read_text())
        rates.append(settings["recipe"]["lr"])
    assert rates == [0.1, 0.2]


def test_a_table_of_norms_and_blur(tmp_path):
    line = f"{TINY} --norm bn sn --antialias 0 3 --seeds 2 --evaluate shifts consistency --out {tmp_path / 'run'}"
    results = run(cls_imagenet, line)
    assert list(dict.fromkeys(results.network)) == ["bn", "bn-blur3", "sn", "sn-blur3"]
    assert set(results.part) == {"clean", "shifts", "consistency"}
    assert set(results[results.part == "shifts"].condition) >= {"rgb+50", "r+50", "std/1.5", "painted"}
    assert results[results.measure != "loss"].value.between(0, 1).all()
    table = (tmp_path / "run" / "table.md").read_text()
    assert re.search(r"\| bn-blur3 \| 2 \|.*±", table) and "shift consistency" in table and "loss to shifts" in table
    tracked = pd.read_parquet(tmp_path / "run" / "gates.parquet")
    assert set(tracked.arm) == {"sn", "sn-blur3"} and set(tracked.seed) == {0, 1}
    metrics = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert {"train/loss", "shapes/top1", "shapes/top5"} <= set(metrics)
    assert "How do the norm, anti-aliasing" in (tmp_path / "run" / "report.html").read_text()


def test_a_run_goes_on_with_more_norms(tmp_path, capsys):
    line = f"{TINY} --out {tmp_path / 'run'}"
    first = run(cls_cifar, f"{line} --norm bn")
    assert "pass --resume" in refused(cls_cifar, capsys, f"{line} --norm bn")
    both = run(cls_cifar, f"{line} --norm bn gn --resume")
    kept = both[both.norm == "bn"].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, first.reset_index(drop=True), check_exact=False)
    assert set(both.norm) == {"bn", "gn"}


def test_processes_that_take_turns_make_the_same_steps(tmp_path):
    """Group norm sees one image: 4 x 2 images in turns must train the network that 1 x 8 at once do."""
    line = "--recipe smoke --backbone cifar_resnet8 --width 0.25 --images 40 --max-steps 3 --workers 0 --wandb disabled"
    run(cls_batch_size, f"{line} --norm gn bn --settings 1x8 4x2 --out {tmp_path}/run")
    states = {
        arm: ClassificationModule.load_from_checkpoint(
            f"{tmp_path}/run/{arm}-seed0/checkpoints/model.ckpt"
        ).state_dict()
        for arm in ("gn-1x8", "gn-4x2", "bn-1x8", "bn-4x2")
    }
    for key, value in states["gn-1x8"].items():
        torch.testing.assert_close(states["gn-4x2"][key], value, rtol=1e-4, atol=1e-5, msg=key)
    moved = [
        key for key, value in states["bn-1x8"].items() if not torch.allclose(states["bn-4x2"][key], value, rtol=1e-3)
    ]
    assert moved  # batch norm's statistics are of two images at a time
    table = (tmp_path / "run" / "table.md").read_text()
    assert "1x8" in table and "4x2" in table and "fall" in table


@pytest.mark.parametrize(
    ("line", "columns"),
    [
        ("", [*DOMAINS, "mean"]),
        ("--setting leave-one-out --target photo sketch", ["photo", "sketch", "mean"]),
        (
            "--setting transfer --target sketch",
            ["art_painting-to-sketch", "cartoon-to-sketch", "photo-to-sketch", "mean"],
        ),
        ("--setting transfer --adapt dann --source photo --target sketch", ["photo-to-sketch", "mean"]),
        (
            "--setting transfer --adapt dann --source photo --target sketch --recipe tll-dann",
            ["photo-to-sketch", "mean"],
        ),
        ("--setting transfer --source photo --target sketch --recipe tll-erm", ["photo-to-sketch", "mean"]),
        ("--setting leave-one-out --target photo --recipe domainbed-erm", ["photo", "mean"]),
        ("--setting leave-one-out --target photo --recipe domainbed-dann", ["photo", "mean"]),
        ("--setting leave-one-out --target photo --selection training-domains", ["photo", "mean"]),
    ],
)
def test_domains_at_once_unseen_and_in_place_of_another(line, columns, pacs, tmp_path):
    common = f"{TINY.replace('--images 40', '--image-size 32')} --crop resized --data pacs --data-root {pacs} --norm bn"
    line += " --batch-size 8"
    results = run(cls_office_home, f"{common} {line} --out {tmp_path / 'run'}")
    table = cls_office_home.table(results)
    assert table.header()[2:] == columns
    said = {"tll": "best result on these images", "dom": "held-out images of the training", "tra": "held-out images of"}
    kind = line.partition("--recipe ")[2][:3] or line.partition("--selection ")[2][:3]
    assert said.get(kind, "One seed") in (tmp_path / "run" / "table.md").read_text()
    cells = table.cells.xs("mean", axis=1, level=1).iloc[0]
    assert cells["mean"] == pytest.approx(cells.drop("mean").mean())


def test_held_out_images_are_never_learned(pacs):
    flags = parse(cls_office_home.Flags, "", f"--data pacs --data-root {pacs} --setting leave-one-out".split())
    domains = ("pacs/photo", "pacs/cartoon", "pacs/sketch")
    recipe = cls_office_home.chosen_recipe(flags, "office-home")
    arms = cls_office_home.leave_one_out(flags, domains, recipe)
    expected = {"train": "pacs/cartoon+pacs/sketch", "evaluated": ("pacs/photo:all",), "held_out": ()}
    assert arms["without-photo"] == expected
    opened = Opened(flags)
    assert len(opened("pacs/photo:all", "val", recipe).samples) == 30
    assert len(opened("pacs/photo", "train", recipe).samples) + len(opened("pacs/photo", "val", recipe).samples) == 30
    joined = opened("pacs/photo+pacs/sketch", "train", recipe)
    assert len(joined.samples) == 48 and joined.classes == ("dog", "elephant", "giraffe")


def test_domainbeds_trials_are_split_by_seed_and_chosen_on_what_is_held_out(pacs, tmp_path):
    common = f"{TINY.replace('--images 40', '')} --data pacs --data-root {pacs} --norm bn --image-size 32 --seeds 2"
    line = "--setting leave-one-out --target photo --recipe domainbed-erm --batch-size 4"
    results = run(cls_office_home, f"{common} {line} --out {tmp_path / 'run'}")
    for seed in (0, 1):
        top1 = results[(results.seed == seed) & (results.measure == "top1")]
        rest = [f"pacs/{name}:out{seed}" for name in ("art_painting", "cartoon", "sketch")]
        assert list(top1.domain) == [f"pacs/photo:in{seed}", *rest]
        module = ClassificationModule.load_from_checkpoint(
            tmp_path / "run" / f"bn-without-photo-seed{seed}" / "checkpoints" / "model.ckpt"
        )
        assert module.data == "+".join(name.replace("out", "in") for name in rest) and module.select_on == tuple(rest)
    scores = 100 * results[(results.measure == "top1") & results.domain.str.startswith("pacs/photo")].value.to_numpy()
    table = cls_office_home.table(results)
    assert table.cells["photo", "mean"].item() == pytest.approx(scores.mean())
    assert table.cells["photo", "sd"].item() == pytest.approx(np.std(scores) / 2**0.5)  # the standard error
    assert "standard error over the seeds' trials" in table.legend


@pytest.mark.parametrize(
    "line",
    [
        "--setting transfer --adapt dann --source photo --recipe tll-dann",
        pytest.param("--setting transfer --source photo --recipe tll-erm", marks=pytest.mark.slow),
        "--setting leave-one-out --recipe domainbed-dann",
        pytest.param("--setting leave-one-out --recipe domainbed-erm", marks=pytest.mark.slow),
    ],
)
def test_other_libraries_protocols_on_shapes(line, tmp_path, capsys):
    common = f"{TINY.replace('--recipe smoke', '--image-size 32')} --batch-size 8 --target sketch"
    results = run(cls_office_home, f"{common} --norm bin {line} --out {tmp_path / 'run'}")
    name = line.split()[-1]
    assert set(results.recipe) == {name} and (tmp_path / "run" / "report.html").exists()
    assert f"note: {name} starts from --weights imagenet" in capsys.readouterr().out


def test_batches_of_domainbed_hold_as_many_of_each_domain(pacs):
    line = f"--data pacs --data-root {pacs} --setting leave-one-out --recipe domainbed-erm --image-size 32 --workers 0"
    flags = parse(cls_office_home.Flags, "", f"{line} --batch-size 5 --max-steps 3 --gpus 0".split())
    recipe, opened = cls_office_home.chosen_recipe(flags, "office-home"), Opened(flags)
    parts = cls_office_home.leave_one_out(flags, ("pacs/photo", "pacs/cartoon", "pacs/sketch"), recipe)["without-photo"]
    arm = fitted(flags, Arm(recipe=recipe, norm="bn", columns={}, **parts), opened)
    batches = list(loaded(arm, opened, resolved(flags, "study")).train_dataloader())
    assert [len(labels) for _, labels in batches] == [10] * 3 and arm.step_images == 10


def test_a_student_learns_what_its_teacher_is_sure_of(pacs, tmp_path, capsys):
    common = f"{TINY.replace('--images 40', '')} --crop resized --data pacs/photo --data-root {pacs} --norm bn"
    run(cls_imagenet, f"{common} --out {tmp_path / 'teacher'}")
    teacher = tmp_path / "teacher" / "bn-seed0" / "checkpoints" / "model.ckpt"
    capsys.readouterr()
    line = f"{common} --teacher {teacher} --unlabelled pacs/sketch"
    run(cls_imagenet, f"{line} --confidence 0 --out {tmp_path / 'all'}")
    assert "labels 24 of 24 images of pacs/sketch" in capsys.readouterr().out
    run(cls_imagenet, f"{line} --confidence 1 --out {tmp_path / 'none'}")
    assert "labels 0 of 24" in capsys.readouterr().out
    module = ClassificationModule.load_from_checkpoint(teacher, map_location="cpu").eval()
    images = [(np.full((36, 36, 3), shade, np.uint8), 0) for shade in (0, 128, 255)]
    labels, sure = predictions(module, images)
    assert labels.shape == sure.shape == (3,) and ((sure >= 1 / 3) & (sure <= 1)).all()


def test_a_training_that_had_ended_is_evaluated_on_its_average(tmp_path, monkeypatch):
    """Stopped between the last step and the results: what is evaluated and kept must still be the averaged weights."""
    line = f"{TINY.replace('--max-steps 2', '--max-steps 30')} --norm bn --ema-decay 0.9 --lr 1"
    whole = run(cls_cifar, f"{line} --out {tmp_path / 'whole'}")
    file = "cifar_resnet8-bn-seed0/checkpoints/model.ckpt"
    kept = torch.load(tmp_path / "whole" / file, weights_only=True)["state_dict"]

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(ClassificationModule, "results", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(cls_cifar, f"{line} --out {tmp_path / 'run'}")
    monkeypatch.undo()
    again = run(cls_cifar, f"{line} --out {tmp_path / 'run'} --resume")
    pd.testing.assert_frame_equal(again.reset_index(drop=True), whole.reset_index(drop=True))
    torch.testing.assert_close(torch.load(tmp_path / "run" / file, weights_only=True)["state_dict"], kept)


def test_the_best_of_all_epochs_is_named_where_it_is_shown(tmp_path):
    line = f"{TINY.replace('--max-steps 2', '--epochs 3')} --recipe bin-cifar --batch-size 16 --norm bn"
    run(cls_cifar, f"{line} --out {tmp_path / 'best'}")
    metrics = pd.read_csv(tmp_path / "best" / "metrics.csv")
    evaluated = metrics["shapes/top1"].dropna()
    assert len(evaluated) == 3 and metrics["step"].max() == 8  # 40 images are two batches of 16 and one of 8
    results = pd.read_csv(tmp_path / "best" / "results.csv")
    assert results[results.measure == "top1"].value.item() == pytest.approx(evaluated.max())
    assert "best result on these images" in (tmp_path / "best" / "table.md").read_text()
    run(cls_cifar, f"{line} --selection last --out {tmp_path / 'last'}")
    results = pd.read_csv(tmp_path / "last" / "results.csv")
    assert results[results.measure == "top1"].value.item() == pytest.approx(evaluated.iloc[-1])
    assert "best on" not in (tmp_path / "last" / "table.md").read_text()


def test_the_gates_that_are_reported_are_those_of_the_network_that_is_kept(tmp_path, monkeypatch):
    """Where an earlier evaluation counts, the record ends with it."""
    scores = iter([0.9, 0.9, 0.1, 0.1])  # top-1 and top-5 of two evaluations
    monkeypatch.setattr(MulticlassAccuracy, "compute", lambda self: torch.tensor(next(scores)))
    line = f"{TINY.replace('--max-steps 2', '--max-steps 10')} --data shapes/photo --norm bin --selection best --lr 1"
    run(cls_imagenet, f"{line} --out {tmp_path / 'run'}")
    gates = pd.read_parquet(tmp_path / "run" / "gates.parquet")
    assert sorted(gates.step.unique()) == [0, 5]
    file = tmp_path / "run" / "bin-seed0" / "checkpoints" / "model.ckpt"
    kept = torch.load(file, weights_only=True)["state_dict"]["net.bn1.rho"].numpy()
    stem = gates[(gates.step == 5) & (gates.layer == "net.bn1")].sort_values("label", key=lambda x: x.astype(int))
    np.testing.assert_array_equal(stem.value.to_numpy(np.float32), kept)


def test_flags_reach_the_recipe():
    line = "--mixup 0.2 --cutmix 1 --ema-decay 0 --weight-decay 0 --small-images --image-size 48 --epochs 4"
    recipe = chosen_recipe(parse(cls_imagenet.Flags, "", line.split()), "ibn-step")
    assert (recipe.mixup, recipe.cutmix, recipe.ema_decay, recipe.weight_decay) == (0.2, 1, 0, 0)
    assert recipe.small_images and (recipe.image_size, recipe.resize) == (48, 54) and recipe.epochs == 4
    real = chosen_recipe(parse(cls_imagenet.Flags, "", ["--data", "pacs", "--recipe", "laptop"]), "ibn-step")
    assert real.crop == "resized"  # photographs have no size that crops could be cut from


@pytest.mark.parametrize("name", STUDIES)
def test_smoke(name, tmp_path):
    results = run(STUDIES[name], f"--smoke --norm bn --max-steps 1 --out {tmp_path / 'run'}")
    assert set(results.norm) == {"bn"} and (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize("settings", [["1x8"], ["1x2", "1x8"]])
def test_a_fall_takes_two_settings(settings):
    shares = {"1x8": 0.75, "1x2": 0.5}
    rows = [{"norm": "bn", "seed": 0, "setting": name, "value": shares[name]} for name in settings]
    table = cls_batch_size.table(pd.DataFrame(rows).assign(part="clean", measure="top1"))
    cells = table.cells.xs("mean", axis=1, level=1).loc["bn"]
    assert cells.to_dict() == {name: 100 * shares[name] for name in settings} | ({"fall": 25} if settings[1:] else {})


def test_the_loss_to_shifts_is_clean_minus_the_mean_of_three():
    rows = [("clean", "clean", 0.8), ("shifts", "rgb+50", 0.5), ("shifts", "r+50", 0.6), ("shifts", "std/1.5", 0.7)]
    rows += [("shifts", "painted", 0.1)]  # not one of the three
    frame = pd.DataFrame(rows, columns=["part", "condition", "value"]).assign(network="bn", seed=0, measure="top1")
    cells = evaluated_table(frame).cells.xs("mean", axis=1, level=1).loc["bn"]
    assert cells["loss to shifts"] == pytest.approx(80 - 60) and cells["painted"] == pytest.approx(10)


@pytest.mark.parametrize(
    ("name", "line", "sentence"),
    [
        ("cls_cifar", "--norm batchnrm", r"unknown norm 'batchnrm': choose from bin, bn"),
        ("cls_cifar", "--backbone resnet5O --norm bn", r"unknown backbone 'resnet5O'"),
        ("cls_cifar", "--recipe imagenet", r"--recipe imagenet: choose from auto, ibn-step"),
        ("cls_cifar", "--images 40 --batch-size 64", r"shapes: 40 images to train on are fewer than the 64"),
        ("cls_cifar", "--crop middle", r"--crop middle: choose resized, padded, random or centre"),
        ("cls_cifar", "--weights nowhere.pth", r"--weights nowhere\.pth: no such file"),
        ("cls_cifar", "--data nowhere", r"unknown set 'nowhere': choose from cifar10"),
        ("cls_cifar", "--data imagenet --data-root nowhere", r"nowhere/imagenet.*--data shapes needs nothing on disk"),
        ("cls_imagenet", "--antialias 9", r"--antialias 9: it must be 7 or less"),
        ("cls_imagenet", "--teacher x.ckpt", r"--teacher and --unlabelled go together"),
        ("cls_imagenet", "--evaluate noise", r"--evaluate noise: choose from shifts"),
        ("cls_batch_size", "--settings 8by32", r"--settings 8by32: write PROCESSESxIMAGES"),
        ("cls_batch_size", "--batch-size 8", r"--batch-size: in this study --settings sets it"),
        ("cls_batch_size", "--sync-norm", r"each process normalises its own images"),
        (
            "cls_imagenet",
            "--ema-decay 0.9999 --images 400 --norm bn",
            r"would be 99 % its first step's weights after 120 steps",
        ),
        ("cls_imagenet", "--unlabelled pacs:val --teacher README.md", r"training uses the train split"),
        ("cls_office_home", "--setting all", r"--setting all: choose mixed, leave-one-out or transfer"),
        ("cls_office_home", "--adapt dann", r"goes with --setting transfer"),
        ("cls_office_home", "--recipe tll-dann --setting transfer", r"--setting transfer --adapt dann"),
        ("cls_office_home", "--recipe domainbed-erm", r"--recipe domainbed-erm: .*--setting leave-one-out\."),
        ("cls_cifar", "--recipe tll-erm", r"--recipe tll-erm: .*cls_office_home.py --setting transfer without --adapt"),
        ("cls_cifar", "--selection first", r"--selection first: choose last, best or training-domains"),
        ("cls_cifar", "--selection training-domains --norm bn", r"it goes with cls_office_home.py --setting"),
        (
            "cls_cifar",
            "--ema-statistics reestimated --norm bn",
            r"reestimated: no weights are averaged; pass --ema-decay",
        ),
        (
            "cls_office_home",
            "--recipe domainbed-erm --setting leave-one-out --ema-decay 0.5 --ema-statistics reestimated --norm bn",
            r"reestimated: the recipe freezes the norms",
        ),
        ("cls_office_home", "--setting transfer --source Art", r"--source Art: shapes has photo, painting"),
        ("cls_office_home", "--data cifar10", r"no set of several domains"),
    ],
)
def test_what_cannot_be_run_ends_in_one_sentence(name, line, sentence, capsys):
    assert re.search(sentence, refused(STUDIES[name], capsys, line))


@pytest.mark.parametrize("name", STUDIES)
def test_help_is_complete_and_does_not_wait_for_torch(name):
    code = f"""
import runpy, sys
sys.argv = ["{name}.py", "--help"]
try:
    runpy.run_path({str(EXPERIMENTS / f"{name}.py")!r}, run_name="__main__")
except SystemExit:
    print("heavy:", sorted({{"torch", "numpy", "pandas", "cv2"}} & set(sys.modules)))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "heavy: []" in out
    described = " ".join(out.split())
    for field in dataclasses.fields(STUDIES[name].Flags):
        assert f"--{field.name.replace('_', '-')} " in described
    assert " ".join(normshift.NORMS) in described


@pytest.mark.slow
def test_two_processes_train_and_evaluate_together(tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    line = f"{EXPERIMENTS / 'cls_batch_size.py'} --smoke --norm bn sn --settings 2x4 --out {tmp_path / 'run'}"
    subprocess.run([*torchrun, *line.split()], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert set(pd.read_csv(tmp_path / "run" / "results.csv").norm) == {"bn", "sn"}


SHOWN = """
import os, sys, torch
from experiments import cls_imagenet
from experiments.study.flags import parse
from lightning_modules.classification.module import ClassificationModule
step, folder = ClassificationModule.validation_step, sys.argv[1]
def shown(self, *arguments):
    state = {name: buffer.clone() for name, buffer in self.net.named_buffers()}
    torch.save(state, f"{folder}/{self.trainer.global_step}-{self.trainer.global_rank}.pt")
    return step(self, *arguments)
ClassificationModule.validation_step = shown
cls_imagenet.run(parse(cls_imagenet.Flags, "", sys.argv[2:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("averaged", ["--ema-decay 0.5", "--ema-decay 0.5 --ema-statistics reestimated", ""])
def test_all_processes_evaluate_the_network_that_is_kept(averaged, tmp_path):
    """The last evaluation comes inside an epoch, behind a step, and each process has images of its own."""
    script = tmp_path / "script.py"
    script.write_text(SHOWN)
    line = "--data shapes/photo --recipe smoke --images 60 --batch-size 8 --max-steps 12 --norm bn --lr 0.5"
    line += f" {averaged} --workers 0 --wandb disabled --out {tmp_path / 'run'}"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(EXPERIMENTS.parent)}
    subprocess.run([*torchrun, str(tmp_path), *line.split()], check=True, env=environment)
    kept = torch.load(tmp_path / "run" / "bn-seed0" / "checkpoints" / "model.ckpt", weights_only=True)["state_dict"]
    for step in (7, 12):
        first, second = (torch.load(tmp_path / f"{step}-{rank}.pt", weights_only=True) for rank in (0, 1))
        torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert first
    torch.testing.assert_close({f"net.{name}": value for name, value in first.items()}, {
        name: value for name, value in kept.items() if name.removeprefix("net.") in first
    }, rtol=0, atol=0)  # fmt: skip
